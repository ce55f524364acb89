"""How robust a classifier is: clean accuracy, accuracy under each attack, the worst case, and whether to believe it.

    report = zoo.evaluate_robustness(model, (images, labels), eps=8 / 255, n=1000)
    print(report)                       # a table; the cumulative value of the last row is the number to quote
    report.save("robustness.json")

`model` is anything that returns logits for inputs in [0, 1]: a module of the zoo or its name, any `nn.Module`, a
function.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from zoo.errors import BadInput
from zoo.nn._attacks_core import check_eps, check_range
from zoo.nn.attacks import Model, attack_mode, check_logits, pgd
from zoo.robustness._evaluate_attacks import Attack, Setting, attacks_of
from zoo.robustness._evaluate_battery import battery
from zoo.robustness._evaluate_data import Samples, samples
from zoo.robustness._evaluate_report import Check, RobustnessReport, Row

__all__ = ["Check", "RobustnessReport", "Row", "evaluate_robustness"]

_SLACK = 1e-5
"""Rounding that a distance may exceed the radius by, relative to the input range."""


def evaluate_robustness(
    model: Model | str, data: Any = None, eps: float = 8 / 255, n: int | None = 1000,
    attacks: str | Sequence[str] | Mapping[str, Callable[..., Tensor]] = "standard", *, norm: str = "linf",
    checks: bool = True, surrogates: Sequence[Model | str] = (), batch_size: int = 128, seed: int = 0,
    bounds: tuple[float, float] = (0.0, 1.0), device: str | torch.device | None = None, progress: bool | None = None,
) -> RobustnessReport:  # fmt: skip
    """Attack a classifier and report what is left of its accuracy.

    Samples that are misclassified without attack count as beaten. Results depend on `seed` and the samples, not on
    `batch_size` (up to rounding).

    Args:
        model: returns logits (N, K) for `data`'s inputs, normalisation included. A name is loaded from the zoo.
        data: a data module (its test split), loader, data set, pair (x, y) or iterable of batches. None: for a name,
            the data module of the index.
        eps: radius of the ball, in units of the input: pixels in [0, 1].
        n: samples, drawn at random by `seed`; None: all.
        attacks: `quick`, `standard`, names (`noise`, `fgsm`, `pgd-20`, `cw-30`, `apgd-ce`, `apgd-dlr`, `apgd-t`,
            `square-1000`, `autoattack`; the number is that of steps), or name -> function (model, x, y) -> x'.
        norm: `linf` or `l2`.
        checks: also run the battery against masked gradients, with the attacks it needs.
        surrogates: models, or names, for the transfer attack of the battery; without, a small substitute is trained.
        batch_size: samples attacked at once.
        seed: of the choice of samples and of the attacks.
        bounds: range of valid inputs.
        device: where to compute; None: where the model's parameters are.
        progress: show it on the terminal; None: if there is one.

    Returns:
        The report.

    Raises:
        BadInput: probabilities instead of logits, inputs outside the bounds, eps outside the range, labels the model
            has no logit for, a model of another task.
        UnknownName: if there is no such attack.
    """
    name, network, data = _resolve(model, data)
    place = _place(network, device)
    began = time.perf_counter()
    others = [_resolve(other, ())[1] for other in surrogates]
    found = samples(data, n, seed)
    check_range(found.x, *bounds)
    check_eps(eps, norm, *bounds, found.x)
    if norm not in ("linf", "l2"):
        raise BadInput(f"norm must be 'linf' or 'l2', got {norm!r}.")
    with _moved([network, *others], place), attack_mode(network), _progress(progress) as tell:
        run = _Run(network, found, place, batch_size, tell)
        run.setting = Setting(eps, norm, bounds, seed, run.clean_logits.shape[1], batch_size)
        chosen = attacks_of(attacks, run.setting)
        for attack in chosen:
            run.run(attack)
        asked = [attack.name for attack in chosen]
        flags = [flag for attack in chosen for flag in attack.flags]
        tests = battery(run, others, flags) if checks else []
    seconds = {"seconds": round(time.perf_counter() - began, 2)}
    return RobustnessReport(name, len(found.x), found.total, eps, norm, seed, **run.results(asked, tests, seconds))


def _resolve(model: Any, data: Any) -> tuple[str, Model, Any]:
    """Name, callable and data."""
    name = model if isinstance(model, str) else ""
    if name:
        import zoo

        model = zoo.load(name)
        data = zoo.datamodule(name) if data is None else data
    if not callable(model):
        raise BadInput(f"model must be a name of the zoo or something that returns logits, got {type(model).__name__}.")
    if data is None:
        raise BadInput("data is missing: give a data module, a loader or a pair (images, labels).")
    task = getattr(model, "task", "")
    if isinstance(task, str) and task and not task.endswith("classification"):
        raise BadInput(f"{name or type(model).__name__} is for {task}; robustness is evaluated for classifiers.")
    return name or getattr(model, "__name__", type(model).__name__), model, data


def _place(model: Model, device: str | torch.device | None) -> torch.device:
    if device is not None:
        return torch.device(device)
    if isinstance(model, nn.Module):
        for tensor in (*model.parameters(), *model.buffers()):
            return tensor.device
    return torch.device("cpu")


@contextmanager
def _moved(models: Sequence[Model], device: torch.device) -> Iterator[None]:
    """Modules on `device` inside, and back where they were after."""
    homes = [(m, _place(m, None)) for m in models if isinstance(m, nn.Module)]
    try:
        for module, _ in homes:
            module.to(device)
        yield
    finally:
        for module, home in homes:
            module.to(home)


@contextmanager
def _progress(wanted: bool | None) -> Iterator[Callable[[str, float], None]]:
    """A function (what, share done) that draws a line on the terminal."""
    if not (sys.stderr.isatty() if wanted is None else wanted):
        yield lambda what, done: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description:<12}"),
        BarColumn(),
        TextColumn("{task.fields[left]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        tasks: dict[str, Any] = {}

        def tell(what: str, done: float) -> None:
            label, _, left = what.partition("|")
            if label not in tasks:
                tasks[label] = bar.add_task(label, total=1.0, left="")
            bar.update(tasks[label], completed=done, left=left)

        yield tell


class _Run:
    """The samples, and which of them withstood which attack."""

    setting: Setting

    def __init__(
        self, model: Model, found: Samples, device: torch.device, batch_size: int, tell: Callable[[str, float], None]
    ) -> None:
        if batch_size < 1:
            raise BadInput(f"batch_size must be at least 1, got {batch_size}.")
        self.model, self.device, self.batch_size, self.tell = model, device, batch_size, tell
        self.x, self.y, self.index = found.x, found.y, found.index
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
            found = attack.run(self.model, x.clone(), y, index, self.setting)
            valid, distance = self._valid(attack.name, x, found)
            beaten = self.logits_of(found.detach().cpu()).argmax(1) != self.y[group]
            robust[group] = ~(beaten & valid)
            largest = max(largest, distance)
            self.tell(f"{attack.name}|{robust.float().mean().item():.1%} left", (number + 1) / len(groups))
        self.kept[attack.name] = robust
        self.largest = max(self.largest, largest)
        self.made[attack.name] = Row(
            attack.name, robust.float().mean().item(), 0.0, round(time.perf_counter() - began, 2), largest, attack.about
        )
        return robust

    def _valid(self, name: str, x: Tensor, found: Any) -> tuple[Tensor, float]:
        """Which examples lie in the ball and the input range, and the largest distance."""
        if not isinstance(found, Tensor) or found.shape != x.shape:
            got = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise BadInput(f"The attack {name} must return a tensor {tuple(x.shape)}, it returned {got}.")
        low, high = self.setting.bounds
        delta = (found.detach() - x).flatten(1).double()
        distance = delta.abs().amax(1) if self.setting.norm == "linf" else delta.norm(dim=1)
        slack = _SLACK * (high - low)
        flat = found.detach().flatten(1)
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
            found = pgd(self.model, x, y, step=eps / 10, steps=20, keep="best", index=index, **common)
            left += int((self.logits_of(found.cpu()).argmax(1) == self.y[rows]).sum())
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
        found = []
        for name in [*asked, *(name for name in self.made if name not in asked)]:
            standing &= self.kept[name]
            self.made[name].cumulative = standing.float().mean().item()
            found.append(self.made[name])
        return found


def check_logits_shape(logits: Any, count: int) -> None:
    """Refuse what cannot be logits before anything is computed with it."""
    if not isinstance(logits, Tensor) or logits.ndim != 2 or not logits.is_floating_point():
        check_logits(logits, count)
