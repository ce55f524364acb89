"""Losses of adversarial training against references in double precision, one number at a time, and published code."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.methods.rslad.module import rslad_loss
from zoo.nn import adversarial_losses as losses

ALPHA, TEMPERATURE, POWER, BETA, WEIGHT = 0.7, 2.0, 0.4, 3.0, 0.6


def logits(count: int = 6, classes: int = 4) -> list[Tensor]:
    """z, z_adv, t, t_adv."""
    draw = torch.Generator().manual_seed(0)
    return [2 * torch.randn(count, classes, generator=draw) for _ in range(4)]


LABELS = torch.tensor([0, 1, 2, 3, 0, 1])


def probabilities(z: Tensor, temperature: float = 1.0) -> list[list[float]]:
    rows = []
    for row in (z.double() / temperature).tolist():
        powers = [math.exp(value) for value in row]
        rows.append([value / sum(powers) for value in powers])
    return rows


def slow_kl(p: list[list[float]], q: list[list[float]]) -> list[float]:
    """KL of each sample."""
    return [sum(a * (math.log(a) - math.log(b)) for a, b in zip(*rows, strict=True)) for rows in zip(p, q, strict=True)]


def slow_ce(z: Tensor) -> float:
    return float(np.mean([-math.log(row[y]) for row, y in zip(probabilities(z), LABELS.tolist(), strict=True)]))


def of_label(z: Tensor) -> list[float]:
    return [row[y] for row, y in zip(probabilities(z), LABELS.tolist(), strict=True)]


def slow(name: str, z: Tensor, z_adv: Tensor, t: Tensor, t_adv: Tensor) -> float:
    """The equations at the top of the module, by loops."""
    clean_adv = slow_kl(probabilities(z), probabilities(z_adv))
    soft = TEMPERATURE**2 * float(np.mean(slow_kl(probabilities(t, TEMPERATURE), probabilities(z_adv, TEMPERATURE))))
    wrong = [
        max(q for k, q in enumerate(row) if k != y)
        for row, y in zip(probabilities(z_adv), LABELS.tolist(), strict=True)
    ]
    boosted = slow_ce(z_adv) - float(np.mean([math.log(1.0001 - q) for q in wrong]))
    doubtful = [(1 - p) * d for p, d in zip(of_label(z), clean_adv, strict=True)]
    distrusted = [(1 - p**POWER) * d for p, d in zip(of_label(t_adv), clean_adv, strict=True)]
    return {
        "natural": slow_ce(z),
        "sat": slow_ce(z_adv),
        "trades": slow_ce(z) + BETA * float(np.mean(clean_adv)),
        "mart": boosted + BETA * float(np.mean(doubtful)),
        "ard": (1 - ALPHA) * slow_ce(z) + ALPHA * soft,
        "iad": (1 - ALPHA) * slow_ce(z) + ALPHA * (soft + float(np.mean(distrusted))),
        "rslad": WEIGHT * float(np.mean(slow_kl(probabilities(t), probabilities(z_adv))))
        + (1 - WEIGHT) * float(np.mean(slow_kl(probabilities(t), probabilities(z)))),
    }[name]


FAST: dict[str, Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]] = {
    "natural": lambda z, z_adv, t, t_adv: losses.natural(z, LABELS),
    "sat": lambda z, z_adv, t, t_adv: losses.sat(z_adv, LABELS),
    "trades": lambda z, z_adv, t, t_adv: losses.trades(z, z_adv, LABELS, BETA),
    "mart": lambda z, z_adv, t, t_adv: losses.mart(z, z_adv, LABELS, BETA),
    "ard": lambda z, z_adv, t, t_adv: losses.ard(z, z_adv, t, LABELS, ALPHA, TEMPERATURE),
    "iad": lambda z, z_adv, t, t_adv: losses.iad(z, z_adv, t, t_adv, LABELS, ALPHA, TEMPERATURE, POWER),
    "rslad": lambda z, z_adv, t, t_adv: rslad_loss(z, z_adv, t, WEIGHT),
}


@pytest.mark.parametrize("name", FAST)
def test_equations(name: str) -> None:
    assert FAST[name](*logits()).item() == pytest.approx(slow(name, *logits()), rel=1e-5)


@pytest.mark.parametrize("name", FAST)
def test_gradients_of_the_student_by_finite_differences(name: str) -> None:
    """Through every logit of the student that the equation has, and through no detached copy of it."""
    z, z_adv, t, t_adv = (value.double() for value in logits())
    assert torch.autograd.gradcheck(
        lambda a, b: FAST[name](a, b, t, t_adv), (z.requires_grad_(), z_adv.requires_grad_()), raise_exception=True
    )


def test_mart_is_the_published_code() -> None:
    """Written as in the authors' repository: sorted probabilities, negative log-likelihood, 1e-12 in the logarithms."""
    z, z_adv, _, _ = logits(40, 10)
    y = torch.randint(10, (40,), generator=torch.Generator().manual_seed(1))
    adv = z_adv.softmax(1)
    order = torch.argsort(adv, dim=1)[:, -2:]
    other = torch.where(order[:, -1] == y, order[:, -2], order[:, -1])
    boosted = F.cross_entropy(z_adv, y) + F.nll_loss(torch.log(1.0001 - adv + 1e-12), other)
    true = z.softmax(1).gather(1, y.unsqueeze(1)).squeeze()
    divergence = F.kl_div(torch.log(adv + 1e-12), z.softmax(1), reduction="none").sum(1)
    theirs = boosted + 5.0 * torch.sum(divergence * (1.0000001 - true)) / 40
    assert losses.mart(z, z_adv, y, 5.0).item() == pytest.approx(theirs.item(), rel=1e-5)
    assert losses.boosted_cross_entropy(z_adv, y).item() == pytest.approx(boosted.item(), rel=1e-6)


def test_trades_is_the_published_code() -> None:
    z, z_adv, _, _ = logits()
    robust = torch.nn.KLDivLoss(reduction="sum")(F.log_softmax(z_adv, dim=1), F.softmax(z, dim=1)) / len(z)
    theirs = F.cross_entropy(z, LABELS) + 6.0 * robust
    assert losses.trades(z, z_adv, LABELS, 6.0).item() == pytest.approx(theirs.item(), rel=1e-6)


def test_kl_is_zero_for_equal_and_keeps_its_order() -> None:
    z, other, _, _ = logits()
    log_p, log_q = z.log_softmax(1), other.log_softmax(1)
    assert losses.kl(log_p, log_p).item() == pytest.approx(0, abs=1e-7)
    assert losses.kl(log_p, log_q).item() != pytest.approx(losses.kl(log_q, log_p).item(), rel=1e-2)
    none = losses.kl(log_p, log_q, torch.zeros(6))
    assert none.item() == 0


def test_a_sure_boost_stays_finite() -> None:
    """Where a wrong class is certain, the logarithm is that of the surplus."""
    sure = torch.tensor([[0.0, 200.0, 0.0]])
    assert losses.boosted_cross_entropy(sure, torch.tensor([0])).item() == pytest.approx(200 - math.log(1e-4), rel=1e-4)


def test_ard_with_the_authors_alpha_needs_no_clean_logits() -> None:
    z, z_adv, t, _ = logits()
    with_clean, without = (losses.ard(a, z_adv, t, LABELS, 1.0, 2.0) for a in (z, None))
    assert torch.equal(with_clean, without)
    assert torch.equal(losses.iad(z, z_adv, t, None, LABELS, 0.7, 2.0, 0.1), losses.ard(z, z_adv, t, LABELS, 0.7, 2.0))


@pytest.mark.parametrize(
    ("hard", "adversarial", "clean"), [("none", 0, 0), ("clean", 0, 1), ("adversarial", 1, 0), ("both", 1, 1)]
)
def test_hard_labels_replace_the_teacher(hard: str, adversarial: int, clean: int) -> None:
    z, z_adv, t, _ = logits()
    terms = [
        F.cross_entropy(a, LABELS) if labelled else losses.kl(t.log_softmax(1), a.log_softmax(1))
        for a, labelled in ((z_adv, adversarial), (z, clean))
    ]
    expected = 0.6 * terms[0] + 0.4 * terms[1]
    torch.testing.assert_close(rslad_loss(z, z_adv, t, 0.6, LABELS, hard), expected)
