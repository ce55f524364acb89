"""The equations of new-method, against the paper or a slow reference."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from zoo.cli.templates.series.module import NewMethod


def test_network_is_the_equation() -> None:
    """A literal reference; replace it by the equations of the paper."""
    torch.manual_seed(0)
    model = NewMethod(width=4).eval()
    (x,) = model.example_input()
    state = model.state_dict()
    hidden = F.conv1d(x, state["network.conv.weight"], state["network.conv.bias"], padding=3).relu().mean(2)
    torch.testing.assert_close(model(x), hidden @ state["head.weight"].T + state["head.bias"])


def test_filling_counts_for_nothing() -> None:
    """Points behind the end of a series change no result."""
    model = NewMethod(width=4).eval()
    (x,) = model.example_input()
    short = model(x[:, :, :50], torch.full((len(x),), 44))
    filled = torch.cat([x[:, :, :50], torch.zeros(len(x), x.shape[1], 20)], 2)
    torch.testing.assert_close(model(filled, torch.full((len(x),), 44)), short)
