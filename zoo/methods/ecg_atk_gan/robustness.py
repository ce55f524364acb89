"""How the weights of ecg-atk-gan stand attacks of the paper's kind, and attacks that know the network.

    python -m zoo.methods.ecg_atk_gan.robustness --n 200      # a minute; writes robustness.json of the card

Static: PGD on the plain classifier, judged by the other network, as in the paper. Adaptive: PGD on the class head of
the network itself. For its attack head, the area under the ROC curve between clean and changed beats: attacked
statically, attacked with the aim of that head alone, and with uniform noise of the same size.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

import torch
from torch import Tensor
from torchmetrics.functional.classification import binary_auroc

from zoo.files import versions, write_whole
from zoo.nn.attacks import pgd
from zoo.robustness.stored import place_of
from zoo.store import datamodule, load

EPS = (0.01, 0.02, 0.05)
STATIC, ADAPTIVE = 10, 50
"""Steps of PGD."""


@torch.no_grad()
def accuracy(model: Any, x: Tensor, y: Tensor) -> float:
    """Share of beats whose class is right."""
    return (model(x).argmax(1) == y).float().mean().item()


def attack_logits(model: Any, x: Tensor) -> Tensor:
    """Logits (N, 2) of no attack and attack."""
    return model.forward_all(x)[1]  # type: ignore[no-any-return]


@torch.no_grad()
def separation(model: Any, clean: Tensor, changed: Tensor) -> float:
    """Area under the ROC curve of the attack head between clean and changed beats."""
    logits = torch.cat([attack_logits(model, beats) for beats in (clean, changed)])
    truth = torch.cat([torch.zeros(len(clean)), torch.ones(len(changed))]).long()
    return float(binary_auroc(logits[:, 1] - logits[:, 0], truth))


def measure(tag: str = "sim", plain: str = "sim-cnn", n: int = 200) -> dict[str, Any]:
    """Accuracies and areas by radius, on the first beats of the test split.

    Args:
        tag: weights of the method.
        plain: those of the classifier that static attacks are made on.
        n: beats.
    """
    model, other = load(f"ecg-atk-gan:{tag}"), load(f"ecg-atk-gan:{plain}")
    data: Any = datamodule(f"ecg-atk-gan:{tag}")
    split = data.split("test")
    items = [split[i] for i in range(n)]
    x, y = torch.stack([item["series"] for item in items]), torch.tensor([item["label"] for item in items])
    index, attacked = torch.arange(n), torch.ones(n, dtype=torch.long)
    noise = 2 * torch.rand(x.shape, generator=torch.Generator().manual_seed(0)) - 1
    rows = [{"eps": 0.0, "plain": accuracy(other, x, y), "static": accuracy(model, x, y)}]
    for eps in EPS:
        common: dict[str, Any] = {"eps": eps, "index": index, "check": False}
        static = pgd(other, x, y, step=eps / 4, steps=STATIC, **common)
        adaptive = pgd(model, x, y, step=eps / 10, steps=ADAPTIVE, **common)
        hiding = pgd(lambda z: attack_logits(model, z), x, attacked, step=eps / 10, steps=ADAPTIVE, **common)
        noisy = (x + eps * noise).clamp(0, 1)
        rows.append(
            {
                "eps": eps,
                "plain": accuracy(other, static, y),
                "static": accuracy(model, static, y),
                "adaptive": accuracy(model, adaptive, y),
                "auroc_static": separation(model, x, static),
                "auroc_hiding": separation(model, x, hiding),
                "auroc_noise": separation(model, x, noisy),
                "noise": accuracy(model, noisy, y),
            }
        )
    return {"tag": tag, "plain": plain, "n": n, "rows": rows}


def table(report: dict[str, Any]) -> str:
    """A report in Markdown."""
    names = {
        "eps": "radius",
        "plain": "`sim-cnn`, static PGD",
        "static": "`sim`, static PGD",
        "adaptive": "`sim`, adaptive PGD",
        "noise": "`sim`, noise",
        "auroc_static": "AUROC, static PGD",
        "auroc_noise": "AUROC, noise",
        "auroc_hiding": "AUROC, hiding",
    }
    lines = [f"| {' | '.join(names.values())} |", "|---" * len(names) + "|"]
    for row in report["rows"]:
        lines.append("| " + " | ".join(f"{row[k]:.3g}" if k in row else "-" for k in names) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=200, help="test beats (200)")
    measured = {"versions": versions("torch"), **measure(n=parser.parse_args().n)}
    write_whole(place_of("ecg-atk-gan"), json.dumps(measured, indent=2) + "\n")
    print(table(measured))
