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

from zoo.base import ZooModule
from zoo.base.meeting import meet
from zoo.errors import BadInput
from zoo.nn.attacks import Model, attack_mode
from zoo.nn.attacks.core import check_eps, check_range
from zoo.robustness.adaptive import adaptive_attacks
from zoo.robustness.attacks import Setting, attacks_of
from zoo.robustness.battery import battery
from zoo.robustness.data import samples
from zoo.robustness.report import Check, RobustnessReport, Row
from zoo.robustness.run import Run

__all__ = ["Check", "RobustnessReport", "Row", "evaluate_robustness", "opened"]


def evaluate_robustness(
    model: Model | str, data: Any = None, eps: float = 8 / 255, n: int | None = 1000,
    attacks: str | Sequence[str] | Mapping[str, str | Callable[..., Tensor]] = "standard", *, norm: str = "linf",
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
        attacks: `quick`, `standard`, names (`noise`, `fgsm`, `pgd-20`, `cw-30`, `gama-100`, `apgd-ce`, `apgd-dlr`,
            `apgd-t`, `square-1000`, `autoattack`; the number is that of steps; `adaptive`: those that the model
            declares against itself, part of `quick` and `standard`), or a mapping: name -> function (model, x, y) ->
            x', or one of these names.
        norm: `linf` or `l2`.
        checks: also run the battery against masked gradients, with the attacks it needs.
        surrogates: models, or names, for the transfer attack of the battery; without, a small substitute is trained.
        batch_size: samples attacked at once.
        seed: of the choice of samples and of the attacks.
        bounds: range of valid inputs.
        device: where to compute; None: where the model's parameters are.
        progress: show it on the terminal; None: if there is one.

    Raises:
        BadInput: probabilities instead of logits, inputs outside the bounds, eps outside the range, labels the model
            has no logit for, a model of another task, a surrogate of other classes.
        InvalidConfig: a model of the zoo and a data module of other classes or another picture size.
        UnknownName: if there is no such attack.
    """
    began = time.perf_counter()
    with opened(
        model, data, eps, n, norm=norm, surrogates=surrogates, batch_size=batch_size, seed=seed, bounds=bounds,
        device=device, progress=progress,
    ) as (name, run, others):  # fmt: skip
        chosen = attacks_of(attacks, run.setting, adaptive_attacks(run.model))
        for attack in chosen:
            run.run(attack)
        asked = [attack.name for attack in chosen]
        flags = [flag for attack in chosen for flag in attack.flags]
        tests = battery(run, others, flags) if checks else []
    seconds = {"seconds": round(time.perf_counter() - began, 2)}
    return RobustnessReport(name, len(run.x), run.total, eps, norm, seed, **run.results(asked, tests, seconds))


@contextmanager
def opened(
    model: Model | str, data: Any, eps: float, n: int | None, *, norm: str = "linf",
    surrogates: Sequence[Model | str] = (), batch_size: int = 128, seed: int = 0,
    bounds: tuple[float, float] = (0.0, 1.0), device: str | torch.device | None = None, progress: bool | None = None,
) -> Iterator[tuple[str, Run, list[Model]]]:  # fmt: skip
    """A checked evaluation before its first attack: the model's name, the run, and the surrogates as models.

    Arguments and errors are those of `evaluate_robustness`. The model is in evaluation mode, and on its device, inside.
    """
    name, network, data = _resolve(model, data)
    place = _place(network, device)
    others = [_resolve(other, ())[1] for other in surrogates]
    order = meet(network, data) if isinstance(network, ZooModule) else None
    for other in others:
        _check_surrogate(network, other)
    drawn = samples(data, n, seed)
    if order is not None:
        drawn.y = torch.tensor(order)[drawn.y]
    check_range(drawn.x, *bounds)
    check_eps(eps, norm, *bounds, drawn.x)
    if norm not in ("linf", "l2"):
        raise BadInput(f"norm must be 'linf' or 'l2', got {norm!r}.")
    with _moved([network, *others], place), attack_mode(network), _progress(progress) as tell:
        run = Run(network, drawn, place, batch_size, tell)
        run.setting = Setting(eps, norm, bounds, seed, run.clean_logits.shape[1], batch_size)
        yield name, run, others


def _resolve(model: Any, data: Any) -> tuple[str, Model, Any]:
    """Name, callable and data."""
    name = model if isinstance(model, str) else ""
    if name:
        from zoo.store import datamodule, load

        model = load(name)
        data = datamodule(name) if data is None else data
    if not callable(model):
        raise BadInput(f"model must be a name of the zoo or something that returns logits, got {type(model).__name__}.")
    if data is None:
        raise BadInput("data is missing: give a data module, a loader or a pair (images, labels).")
    task = getattr(model, "task", "")
    if isinstance(task, str) and task and not task.endswith("classification"):
        raise BadInput(f"{name or type(model).__name__} is for {task}; robustness is evaluated for classifiers.")
    return name or getattr(model, "__name__", type(model).__name__), model, data


def _check_surrogate(model: Model, other: Model) -> None:
    """Refuse a surrogate that calls the classes otherwise: its attack would be aimed at other labels."""
    ours, theirs = (m.hparams.get("class_names") if isinstance(m, ZooModule) else None for m in (model, other))
    if ours and theirs and list(ours) != list(theirs):
        raise BadInput(
            f"The surrogate {type(other).__name__} has the classes {', '.join(theirs)[:80]}, the model "
            f"{', '.join(ours)[:80]}: give one of the same classes in the same order."
        )


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
