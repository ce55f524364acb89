"""Signs of masked gradients: what must hold if an evaluation means anything.

After Carlini et al. 2019, "On evaluating adversarial robustness", and Athalye, Carlini and Wagner 2018, "Obfuscated
gradients give a false sense of security". Each check compares accuracies on the same samples; `TOLERANCE` is what
chance may do.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.nn.attacks import Model, attack_mode, input_gradient, pgd, transfer
from zoo.robustness.attacks import Attack, Setting
from zoo.robustness.report import Check
from zoo.robustness.run import Run

__all__ = ["battery"]

TOLERANCE = 0.005
_ZERO_SHARE = 0.01
_UNBOUNDED = 0.02
_SIDE = 32
"""Substitutes see images scaled down to this side: their cost does not grow with the images."""


def battery(run: Run, surrogates: Sequence[Model], flags: Sequence[str]) -> list[Check]:
    """Run what has not run yet, and compare."""
    checks = [_same_twice(run), _zero_gradients(run)]
    pgd20, pgd100 = run.accuracy("pgd-20"), run.accuracy("pgd-100")
    checks.append(
        Check(
            "more steps", pgd100 <= pgd20 + TOLERANCE, f"PGD-20 {pgd20:.1%}, PGD-100 {pgd100:.1%}",
            "More steps helped the defender: the gradient does not lead uphill, or the step is too large.",
        )
    )  # fmt: skip
    fgsm, noise = run.accuracy("fgsm"), run.accuracy("noise")
    checks.append(
        Check(
            "one step", pgd20 <= fgsm + TOLERANCE, f"FGSM {fgsm:.1%}, PGD-20 {pgd20:.1%}",
            "A single step beat the iterated attack: the gradient is masked near the clean input.",
        )
    )  # fmt: skip
    checks.append(
        Check(
            "noise", pgd20 <= noise + TOLERANCE, f"uniform noise {noise:.1%}, PGD-20 {pgd20:.1%}",
            "Random noise beat the gradient: it points nowhere useful.",
        )
    )  # fmt: skip
    checks += _sweep(run)
    white = run.worst_of(lambda attack: attack not in ("square", "transfer", "noise"))
    checks.append(_black_box(run, white, "square-1000", "square"))
    checks.append(_transferred(run, white, surrogates))
    checks.append(_inside(run))  # after everything that makes examples
    checks.append(
        Check(
            "autoattack flags", not flags if run.has("autoattack") else None,
            "none" if not flags else f"{len(flags)}: {flags[0]}",
            "AutoAttack itself warns that its result may be unreliable." if flags else "AutoAttack did not run.",
        )
    )  # fmt: skip
    return checks


def _same_twice(run: Run) -> Check:
    first, second = run.clean_logits, run.logits_of(run.x)
    scale = max(1.0, first.abs().max().item())
    gap = (first - second).abs().max().item() / scale
    return Check(
        "deterministic", gap < 1e-4, f"largest relative difference of two passes {gap:.1g}",
        "The model is random: attacks must average over its randomness, which these do not.",
    )  # fmt: skip


def _inside(run: Run) -> Check:
    return Check(
        "inside the ball", run.outside == 0, f"largest distance {run.largest:.6g} of {run.setting.eps:.6g}",
        f"{run.outside} examples left the ball or the input range; they were not counted as successes.",
    )  # fmt: skip


def _zero_gradients(run: Run) -> Check:
    """Share of clean samples whose input gradient is exactly zero, by cross-entropy and by the margin."""
    shares = {}
    for loss in ("ce", "margin"):
        zero = 0
        for rows in run.batches(torch.arange(len(run.x))):
            x, y = run.x[rows].to(run.device), run.y[rows].to(run.device)
            grad = input_gradient(run.model, x, y, loss=loss, check=False)
            zero += int((grad.flatten(1).abs().amax(1) == 0).sum())
        shares[loss] = zero / len(run.x)
    worst = max(shares.values())
    return Check(
        "zero gradients", worst <= _ZERO_SHARE, f"cross-entropy {shares['ce']:.1%}, margin {shares['margin']:.1%}",
        "The input gradient vanishes: saturated logits (then trust margin, DLR and Square only) or a masked gradient.",
    )  # fmt: skip


def _sweep(run: Run) -> list[Check]:
    """Accuracy under PGD at growing radii, up to the whole input range."""
    low, high = run.setting.bounds
    widest = (high - low) * (1.0 if run.setting.norm == "linf" else math.sqrt(run.x[0].numel()))
    radii = sorted({0.0, *(min(widest, run.setting.eps * f) for f in (0.5, 1, 1.5, 2, 4)), widest})
    run.sweep = [(eps, run.pgd_at(eps)) for eps in radii]
    values = [accuracy for _, accuracy in run.sweep]
    rises = max([0.0, *(b - a for a, b in pairwise(values))])
    last = values[-1]
    return [
        Check(
            "radius", rises <= TOLERANCE, f"largest rise with a larger eps {rises:.1%}",
            "A larger ball helped the defender, though it holds the smaller one: the search fails.",
        ),
        Check(
            "unbounded", last <= _UNBOUNDED, f"PGD with eps {widest:.3g}: {last:.1%}",
            "Without a bound every image can be reached, yet some samples withstand: the gradient is masked.",
        ),
    ]  # fmt: skip


def _black_box(run: Run, white: Tensor, name: str, key: str) -> Check:
    """Whether an attack without gradients beats samples that all attacks with gradients left standing."""
    robust = run.robust(name)
    more = ((white & ~robust).float().mean()).item()
    return Check(
        key, more <= TOLERANCE, f"alone {robust.float().mean().item():.1%}, beats {more:.1%} that withstood gradients",
        "An attack that sees no gradient beat samples that gradient attacks did not: gradients are masked, or these "
        "attacks need more steps.",
    )  # fmt: skip


def _transferred(run: Run, white: Tensor, surrogates: Sequence[Model]) -> Check:
    about = f"{len(surrogates)} given models"
    if not surrogates:
        substitute, agreement = _substitute(run)
        surrogates, about = [substitute], f"a substitute that agrees with the model on {agreement:.0%} of the samples"

    def attack(model: Model, x: Tensor, y: Tensor, index: Tensor, s: Setting) -> Tensor:
        step = s.eps / 10
        return transfer(model, x, y, surrogates=surrogates, attack=pgd, steps=20, step=step, index=index, **s.common)

    run.run(Attack("transfer", attack, about=f"PGD-20 on {about}"))
    check = _black_box(run, white, "transfer", "transfer")
    check.measured += f"; made on {about}"
    return check


def _substitute(run: Run) -> tuple[nn.Module, float]:
    """A small network trained to answer as the model does (Papernot et al. 2017), and how often it does so."""
    channels = run.x.shape[1] if run.x.ndim == 4 else 0
    x = _shrunk(run.x)
    wanted = run.clean_logits.softmax(1)
    devices = [run.device] if run.device.type == "cuda" else []
    with torch.inference_mode(False), torch.enable_grad(), torch.random.fork_rng(devices=devices):
        torch.manual_seed(run.setting.seed)
        network = _small(channels, x[0].numel(), run.setting.classes).to(run.device)
        rounds = max(1, 300 // max(1, math.ceil(len(x) / 64)))
        optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
        network.train()
        for _ in range(rounds):
            for rows in torch.split(torch.randperm(len(x)), 64):
                if len(rows) < 2 and len(x) > 1:
                    continue  # batch statistics of a single sample
                logits = network(x[rows].to(run.device))
                loss = F.cross_entropy(logits, wanted[rows].to(run.device))
                optimizer.zero_grad()
                torch.autograd.backward(loss)
                optimizer.step()
    network.eval().requires_grad_(False)
    with attack_mode(network), torch.no_grad():
        answers = torch.cat([network(part.to(run.device)).argmax(1).cpu() for part in torch.split(run.x, 256)])
    return network, (answers == run.clean_logits.argmax(1)).float().mean().item()


def _shrunk(x: Tensor) -> Tensor:
    if x.ndim != 4:
        return x
    return F.adaptive_avg_pool2d(x, (min(_SIDE, x.shape[2]), min(_SIDE, x.shape[3])))


class _Shrink(nn.Module):
    """Averages images down to at most `_SIDE` pixels a side."""

    def forward(self, x: Tensor) -> Tensor:
        return _shrunk(x)


def _small(channels: int, features: int, classes: int) -> nn.Module:
    if not channels:
        return nn.Sequential(nn.Flatten(), nn.Linear(features, 128), nn.ReLU(), nn.Linear(128, classes))
    return nn.Sequential(
        _Shrink(),
        nn.Conv2d(channels, 16, 3, stride=2, padding=1), nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(512, 64), nn.ReLU(), nn.Linear(64, classes),
    )  # fmt: skip
