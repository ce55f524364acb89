"""The report of ECG-ATK-GAN: attacks made on another network, attacks that know it, and what its attack head sees."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from zoo.methods.ecg_atk_gan.robustness import EPS, measure, separation, table


class Head(nn.Module):
    """Calls beats attacked by their mean."""

    def forward_all(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mean = x.flatten(1).mean(1)
        return mean, torch.stack([-mean, mean], 1), mean


def test_separation_is_the_share_of_pairs_in_the_right_order() -> None:
    clean, changed = (torch.tensor(values)[:, None, None] for values in ([0.1, 0.2, 0.5], [0.3, 0.6]))
    assert abs(separation(Head(), clean, changed) - 5 / 6) < 1e-6


def test_report_of_the_published_weights() -> None:
    report = measure(n=6)
    assert [row["eps"] for row in report["rows"]] == [0.0, *EPS]
    assert report["rows"][-1]["adaptive"] <= report["rows"][-1]["static"]
    assert report["rows"][-1]["auroc_hiding"] <= report["rows"][-1]["auroc_static"]
    assert len(table(report).splitlines()) == 2 + len(report["rows"])
