"""The result of an evaluation: rows, checks, a table and JSON."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["Check", "RobustnessReport", "Row", "wilson"]


def wilson(share: float, n: int) -> tuple[float, float]:
    """95 % interval of a share of n samples (Wilson 1927)."""
    z = 1.959964
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, middle - half), min(1.0, middle + half)


@dataclass
class Row:
    """One attack at the full radius.

    Attributes:
        attack: its name.
        accuracy: share of all samples still classified correctly under this attack alone.
        cumulative: share that withstands this attack and all above it; the last row is the number to quote.
        seconds: it took.
        distance: largest perturbation, in the norm of the evaluation.
        about: settings.
    """

    attack: str
    accuracy: float
    cumulative: float
    seconds: float
    distance: float
    about: str = ""


@dataclass
class Check:
    """One sign of masked gradients or of a faulty evaluation.

    Attributes:
        name: of the check.
        ok: True, False (suspicious), or None if it did not run.
        measured: the values, in words.
        meaning: what it would mean if it failed, or why it did not run.
    """

    name: str
    ok: bool | None
    measured: str
    meaning: str


@dataclass(repr=False)
class RobustnessReport:
    """Result of `evaluate_robustness`; `str()` is a table.

    Attributes:
        model: name or class of the model.
        n: samples evaluated.
        total: samples in the set they were drawn from.
        eps: radius of the ball.
        norm: its norm.
        seed: of the samples and the attacks.
        clean: accuracy without attack.
        worst: share of samples that withstands every attack that ran at this radius: the number to quote.
        rows: one per attack.
        checks: the masking battery.
        sweep: (radius, accuracy under PGD) in rising order.
        settings: batch size, versions, seconds, device.
    """

    model: str
    n: int
    total: int
    eps: float
    norm: str
    seed: int
    clean: float
    worst: float
    rows: list[Row] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)
    sweep: list[tuple[float, float]] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of `worst`, for the choice of samples."""
        return wilson(self.worst, self.n)

    @property
    def suspicious(self) -> list[Check]:
        """Checks that failed: reasons not to believe the accuracy."""
        return [check for check in self.checks if check.ok is False]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as in the JSON."""
        plain = asdict(self)
        return {**plain, "worst_interval": list(self.interval), "suspicious": [c.name for c in self.suspicious]}

    def to_json(self) -> str:
        """The report as JSON text."""
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False)

    def save(self, path: str | Path) -> Path:
        """Write the JSON."""
        target = Path(path).expanduser()
        target.write_text(self.to_json() + "\n", encoding="utf-8")
        return target

    def __repr__(self) -> str:
        about = (
            f"{self.n} samples, eps {self.eps:.4g} ({self.norm}): clean {self.clean:.1%}, worst case {self.worst:.1%}"
        )
        return f"<RobustnessReport {self.model}: {about}; print() tells all>"

    def __str__(self) -> str:
        low, high = self.interval
        title = f"{self.model}: {self.n} of {self.total} samples, eps {self.eps:.4g} ({self.norm})"
        wide = max([12, *(len(row.attack) for row in self.rows)])
        lines = [title, "", f"{'attack':<{wide}}  accuracy  cumulative  seconds  settings"]
        lines.append(f"{'none (clean)':<{wide}}  {self.clean:8.1%}  {self.clean:10.1%}")
        for row in self.rows:
            values = f"{row.accuracy:8.1%}  {row.cumulative:10.1%}  {row.seconds:7.1f}"
            lines.append(f"{row.attack:<{wide}}  {values}  {row.about}".rstrip())
        lines += [
            "",
            f"worst case: {self.worst:.1%} (95 % interval {low:.1%} to {high:.1%}); this is the number to quote",
        ]
        if self.sweep:
            lines.append("accuracy by eps (PGD): " + ", ".join(f"{e:.3g}: {a:.1%}" for e, a in self.sweep))
        if self.checks:
            width = max(len(check.name) for check in self.checks)
            lines.append("")
            for check in self.checks:
                word = {True: "ok", False: "SUSPICIOUS", None: "not run"}[check.ok]
                lines.append(f"{word:<10}  {check.name:<{width}}  {check.measured}")
                if check.ok is not True:
                    lines.append(f"{'':<{width + 14}}{check.meaning}")
        return "\n".join(lines)
