"""One evaluation: the samples, and which of them withstood which attack."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from zoo.errors import BadInput
from zoo.nn.attacks import Model, check_logits, pgd
from zoo.robustness.attacks import Attack, Setting, attacks_of
from zoo.robustness.data import Samples
from zoo.robustness.report import Check, Row

__all__ = ["Run", "check_logits_shape"]

_SLACK = 1e-5
"""Rounding that a distance may exceed the radius by, relative to the input range."""


class Run:
    """The samples, and which of them withstood which attack."""

    setting: Setting

    def __init__(
        self, model: Model, drawn: Samples, device: torch.device, batch_size: int, tell: Callable[[str, float], None]
    ) -> None:
        if batch_size < 1:
            raise BadInput(f"batch_size must be at least 1, got {batch_size}.")
        self.model, self.device, self.batch_size, self.tell = model, device, batch_size, tell
        self.x, self.y, self.index, self.total = drawn.x, drawn.y, drawn.index, drawn.total
        self.clean_logits = self.logits_of(self.x)
        check_logits(self.clean_logits, len(self.x))
        classes = self.clean_logits.shape[1]
        if int(self.y.min()) < 0 or int(self.y.max()) >= classes:
            raise BadInput(
                f"The labels go from {int(self.y.min())} to {int(self.y.max())}, the model has {classes} classes "
                f"(0 to {classes - 1}): data and model do not belong together."
            )
        self.clean = self.clean_logits.argmax(1) == self.y
        self.kept: dict[str, Tensor] = {}
        self.made: dict[str, Row] = {}
        self.sweep: list[tuple[float, float]] = []
        self.outside = 0
        self.largest = 0.0

    def part(self, first: int, last: int) -> Run:
        """The same evaluation of the samples from `first` to before `last` alone."""
        drawn = Samples(self.x[first:last], self.y[first:last], self.index[first:last], self.total)
        part = Run(self.model, drawn, self.device, self.batch_size, self.tell)
        part.setting = self.setting
        return part

    def batches(self, rows: Tensor) -> Iterator[Tensor]:
        """Rows in groups of the batch size."""
        return iter(torch.split(rows, self.batch_size)) if len(rows) else iter(())

    def logits_of(self, x: Tensor) -> Tensor:
        """Logits of inputs on the CPU, on the CPU, in float32."""
        with torch.no_grad():
            parts = []
            for part in torch.split(x, self.batch_size):
                logits = self.model(part.to(self.device))
                check_logits_shape(logits, len(part))
                parts.append(logits.float().cpu())
        return torch.cat(parts)

    def run(self, attack: Attack) -> Tensor:
        """Attack every sample that is correct without; return which of all samples withstand."""
        began = time.perf_counter()
        robust = self.clean.clone()
        rows = self.clean.nonzero()[:, 0]
        largest = 0.0
        groups = [rows] if attack.whole and len(rows) else list(self.batches(rows))
        for number, group in enumerate(groups):
            x, y, index = (part[group].to(self.device) for part in (self.x, self.y, self.index))
            attacked = attack.run(self.model, x.clone(), y, index, self.setting)
            valid, distance = self._valid(attack.name, x, attacked)
            beaten = self.logits_of(attacked.detach().cpu()).argmax(1) != self.y[group]
            robust[group] = ~(beaten & valid)
            largest = max(largest, distance)
            self.tell(f"{attack.name}|{robust.float().mean().item():.1%} left", (number + 1) / len(groups))
        self.kept[attack.name] = robust
        self.largest = max(self.largest, largest)
        self.made[attack.name] = Row(
            attack.name, robust.float().mean().item(), 0.0, round(time.perf_counter() - began, 2), largest, attack.about
        )
        return robust

    def _valid(self, name: str, x: Tensor, attacked: Any) -> tuple[Tensor, float]:
        """Which examples lie in the ball and the input range, and the largest distance."""
        if not isinstance(attacked, Tensor) or attacked.shape != x.shape:
            got = tuple(attacked.shape) if isinstance(attacked, Tensor) else type(attacked).__name__
            raise BadInput(f"The attack {name} must return a tensor {tuple(x.shape)}, it returned {got}.")
        low, high = self.setting.bounds
        delta = (attacked.detach() - x).flatten(1).double()
        distance = delta.abs().amax(1) if self.setting.norm == "linf" else delta.norm(dim=1)
        slack = _SLACK * (high - low)
        flat = attacked.detach().flatten(1)
        inside = (flat.amin(1) >= low - slack) & (flat.amax(1) <= high + slack) & flat.isfinite().all(1)
        valid = inside & (distance <= self.setting.eps + slack)
        self.outside += int((~valid).sum())
        return valid.cpu(), distance.max().item()

    def has(self, name: str) -> bool:
        """Whether this attack ran."""
        return name in self.kept

    def robust(self, name: str) -> Tensor:
        """Which samples withstand a named attack; runs it if it has not run."""
        if name not in self.kept:
            (attack,) = attacks_of([name], self.setting)
            self.run(attack)
        return self.kept[name]

    def accuracy(self, name: str) -> float:
        """Share of samples that withstand a named attack."""
        return self.robust(name).float().mean().item()

    def worst_of(self, wanted: Callable[[str], bool]) -> Tensor:
        """Which samples withstand all attacks that ran and whose name without number is `wanted`."""
        robust = self.clean.clone()
        for name, kept in self.kept.items():
            if wanted(name.rstrip("0123456789").rstrip("-")):
                robust &= kept
        return robust

    def pgd_at(self, eps: float) -> float:
        """Accuracy under PGD-20 at another radius."""
        if eps == self.setting.eps and "pgd-20" in self.kept:
            return self.accuracy("pgd-20")
        if eps == 0:
            return self.clean.float().mean().item()
        left = 0
        common = {**self.setting.common, "eps": eps}
        for rows in self.batches(self.clean.nonzero()[:, 0]):
            x, y, index = (part[rows].to(self.device) for part in (self.x, self.y, self.index))
            attacked = pgd(self.model, x, y, step=eps / 10, steps=20, keep="best", index=index, **common)
            left += int((self.logits_of(attacked.cpu()).argmax(1) == self.y[rows]).sum())
        self.tell(f"eps {eps:.3g}|{left / len(self.x):.1%} left", 1.0)
        return left / len(self.x)

    def results(self, asked: Sequence[str], tests: list[Check], more: dict[str, Any]) -> dict[str, Any]:
        """What the report says about the attacks that ran."""
        settings = {
            "attacks": list(asked), "batch_size": self.batch_size, "bounds": list(self.setting.bounds),
            "device": str(self.device), "torch": torch.__version__, **more,
        }  # fmt: skip
        return {
            "clean": self.clean.float().mean().item(), "worst": self.worst_of(lambda _: True).float().mean().item(),
            "rows": self.rows(asked), "checks": tests, "sweep": self.sweep, "settings": settings,
        }  # fmt: skip

    def rows(self, asked: Sequence[str]) -> list[Row]:
        """Rows in the order they were asked for, the battery's after them, each with what withstands all so far."""
        standing = self.clean.clone()
        rows = []
        for name in [*asked, *(name for name in self.made if name not in asked)]:
            standing &= self.kept[name]
            self.made[name].cumulative = standing.float().mean().item()
            rows.append(self.made[name])
        return rows


def check_logits_shape(logits: Any, count: int) -> None:
    """Refuse what cannot be logits before anything is computed with it."""
    if not isinstance(logits, Tensor) or logits.ndim != 2 or not logits.is_floating_point():
        check_logits(logits, count)
