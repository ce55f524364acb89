"""Attacks by name, and AutoAttack from whichever package there is."""

from __future__ import annotations

import importlib
import importlib.metadata
import logging
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from zoo.errors import BadInput, UnknownName, nearest
from zoo.nn import attacks as nn_attacks
from zoo.nn.attacks import Model, apgd, apgd_targeted, cw_margin, fgsm, pgd, square, uniform_noise
from zoo.nn.attacks.core import Record, misclassified
from zoo.nn.attacks.guided import gama

__all__ = ["ADAPTIVE", "PRESETS", "Attack", "Setting", "attacks_of"]

ADAPTIVE = "adaptive"
"""Stands for the attacks that a model declares against itself (`zoo.robustness.adaptive`)."""

PRESETS: dict[str, tuple[str, ...]] = {
    "quick": ("fgsm", "pgd-20", "cw-30", ADAPTIVE),
    "standard": ("fgsm", "pgd-20", "cw-30", "apgd-ce", "apgd-dlr", ADAPTIVE, "autoattack"),
}
"""Names of lists of attacks."""

_QUERIES = 5000
"""Queries of Square in AutoAttack."""


@dataclass(frozen=True)
class Setting:
    """What all attacks of an evaluation share."""

    eps: float
    norm: str
    bounds: tuple[float, float]
    seed: int
    classes: int
    batch_size: int

    @property
    def common(self) -> dict[str, Any]:
        """Keyword arguments of every function of `zoo.nn.attacks`."""
        return {"eps": self.eps, "norm": self.norm, "bounds": self.bounds, "seed": self.seed, "check": False}


@dataclass
class Attack:
    """One attack of an evaluation.

    Attributes:
        name: as the user wrote it.
        run: (model, x, y, index, setting) -> adversarial inputs.
        about: settings, for the report.
        whole: whether it wants all samples at once and makes its own batches.
        flags: warnings of the package that ran.
    """

    name: str
    run: Callable[[Model, Tensor, Tensor, Tensor, Setting], Tensor]
    about: str = ""
    whole: bool = False
    flags: list[str] = field(default_factory=list)


def attacks_of(
    wanted: str | Sequence[str] | Mapping[str, Any], setting: Setting, adaptive: Mapping[str, Any] | None = None
) -> list[Attack]:
    """Resolve names, presets, or a mapping of name -> function (model, x, y) -> adversarial x, or name of an attack.

    Args:
        wanted: names, presets or the mapping.
        setting: of the evaluation.
        adaptive: what `adaptive` stands for in names and presets.

    Raises:
        BadInput: if there is nothing to run.
        UnknownName: naming the nearest attacks.
    """
    if isinstance(wanted, Mapping):
        return [
            replace(_named(run, setting), name=name)
            if isinstance(run, str)
            else Attack(name, _own(name, run), "given function")
            for name, run in wanted.items()
        ]
    if isinstance(wanted, str):
        wanted = [part.strip() for part in wanted.split(",")]
    if not wanted:
        raise BadInput("attacks is empty: give names, or 'quick' or 'standard'.")
    names = dict.fromkeys(name for part in wanted for name in PRESETS.get(part, (part,)))
    declared = {name: Attack(name, _own(name, run), "declared by the model") for name, run in (adaptive or {}).items()}
    attacks = [
        attack
        for name in names
        for attack in (declared.values() if name == ADAPTIVE else [declared.get(name) or _named(name, setting)])
    ]
    if not attacks:
        raise BadInput("attacks: the model declares none against itself, and no other is named.")
    return list({attack.name: attack for attack in attacks}.values())


def _own(name: str, run: Callable[[Model, Tensor, Tensor], Tensor]) -> Callable[..., Tensor]:
    if not callable(run):
        raise BadInput(
            f"attacks[{name!r}] must be a function (model, x, y) -> adversarial x, got {type(run).__name__}."
        )
    return lambda model, x, y, index, setting: run(model, x, y)


def _named(name: str, setting: Setting) -> Attack:
    makers: dict[str, Callable[[int | None, Setting], Attack]] = {
        "noise": _noise, "fgsm": _fgsm, "pgd": _pgd, "cw": _cw, "apgd-ce": partial(_apgd, "ce"),
        "apgd-dlr": partial(_apgd, "dlr"), "apgd-margin": partial(_apgd, "margin"), "apgd-t": _apgd_t,
        "square": _square, "autoattack": _autoattack, "gama": _gama,
    }  # fmt: skip
    match = re.fullmatch(r"([a-z-]+?)(?:-(\d+))?", name)
    if not match or match[1] not in makers:
        hint = nearest(name.rstrip("-0123456789"), [*makers, *PRESETS, ADAPTIVE])
        raise UnknownName(
            f"There is no attack {name!r}.{hint} Attacks: {', '.join(makers)} (a number after it is "
            f"that of steps: pgd-100), or a list: {', '.join(PRESETS)}, {ADAPTIVE} (what the model declares)."
        )
    number = None if match[2] is None else int(match[2])
    if number == 0 or (number is not None and match[1] in ("noise", "fgsm", "autoattack")):
        raise BadInput(f"{name}: {match[1]} takes no such number of steps.")
    attack = makers[match[1]](number, setting)
    attack.name = name
    return attack


def step_of(eps: float, steps: int) -> float:
    """Step size: eps / 10, or 2.5 eps / steps where fewer than 20 steps must do."""
    return eps / 10 if steps >= 20 else 2.5 * eps / steps


def _noise(_: int | None, setting: Setting) -> Attack:
    def run(model: Model, x: Tensor, y: Tensor, index: Tensor, s: Setting) -> Tensor:
        return uniform_noise(x, index=index, **s.common)

    return Attack("", run, "uniform in the ball, no search")


def _fgsm(_: int | None, setting: Setting) -> Attack:
    def run(model: Model, x: Tensor, y: Tensor, index: Tensor, s: Setting) -> Tensor:
        return fgsm(model, x, y, index=index, **s.common)

    return Attack("", run, "1 step")


def _pgd(steps: int | None, setting: Setting) -> Attack:
    steps = steps or 20

    def run(model: Model, x: Tensor, y: Tensor, index: Tensor, s: Setting) -> Tensor:
        return pgd(model, x, y, steps=steps, step=step_of(s.eps, steps), keep="best", index=index, **s.common)

    return Attack("", run, f"cross-entropy, step {step_of(setting.eps, steps):.3g}")


def _cw(steps: int | None, setting: Setting) -> Attack:
    steps = steps or 30

    def run(model: Model, x: Tensor, y: Tensor, index: Tensor, s: Setting) -> Tensor:
        return cw_margin(model, x, y, steps=steps, step=step_of(s.eps, steps), index=index, **s.common)

    return Attack("", run, f"margin loss, step {step_of(setting.eps, steps):.3g}")


def _apgd(loss: str, steps: int | None, setting: Setting) -> Attack:
    about = f"{steps or 100} steps"
    if loss == "dlr" and setting.classes < 3:
        loss, about = "margin", f"{about}, margin loss (DLR needs 3 classes)"

    def run(model: Model, x: Tensor, y: Tensor, index: Tensor, s: Setting) -> Tensor:
        return apgd(model, x, y, steps=steps or 100, loss=loss, index=index, **s.common)

    return Attack("", run, about)


def _apgd_t(steps: int | None, setting: Setting) -> Attack:
    if setting.classes < 4:
        return _apgd("margin", steps, setting)

    def run(model: Model, x: Tensor, y: Tensor, index: Tensor, s: Setting) -> Tensor:
        return apgd_targeted(model, x, y, steps=steps or 100, index=index, **s.common)

    return Attack("", run, f"{steps or 100} steps for each of {min(9, setting.classes - 1)} targets")


def _gama(steps: int | None, setting: Setting) -> Attack:
    steps = steps or 100

    def run(model: Model, x: Tensor, y: Tensor, index: Tensor, s: Setting) -> Tensor:
        return gama(model, x, y, steps=steps, index=index, **s.common)

    return Attack("", run, "guided margin, step 2 eps at first")


def _square(queries: int | None, setting: Setting) -> Attack:
    queries = queries or 1000

    def run(model: Model, x: Tensor, y: Tensor, index: Tensor, s: Setting) -> Tensor:
        return square(model, x, y, queries=queries, index=index, **s.common)

    return Attack("", run, f"{queries} queries")


# AutoAttack -------------------------------------------------------------------------------------------------------


def _autoattack(_: int | None, setting: Setting) -> Attack:
    """`pyautoattack` if it is installed, else the authors' `autoattack`, else our own ensemble."""
    for package in ("pyautoattack", "autoattack"):
        try:
            module = importlib.import_module(package)
        except ImportError:
            continue
        attack = Attack(
            "", lambda *_: torch.empty(0), f"{package} {_version(package)}, {_PARTS[_kind(setting)]}", whole=True
        )
        attack.run = partial(_peer, module, package, attack)
        return attack
    about = "own ensemble without FAB: apgd-ce, " + ("apgd-t" if setting.classes >= 4 else "apgd-margin") + ", square"
    return Attack("", ensemble, f'{about} (pip install "lightning-method-zoo[robust-eval]" for AutoAttack itself)')


_PARTS = {
    "standard": "standard: apgd-ce, apgd-t, fab-t, square",
    "dlr": "apgd-ce, apgd-dlr, fab, square (targeted losses need 4 classes)",
    "ce": "apgd-ce, fab, square (DLR needs 3 classes)",
}


def _kind(setting: Setting) -> str:
    return "standard" if setting.classes >= 4 else ("dlr" if setting.classes == 3 else "ce")


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def ensemble(model: Model, x: Tensor, y: Tensor, index: Tensor, setting: Setting) -> Tensor:
    """APGD-CE, targeted APGD-DLR and Square, each on what withstood the former."""
    record = Record(x)
    for name in ("apgd-ce", "apgd-t", f"square-{_QUERIES}"):
        rows = record.standing
        if not len(rows):
            break
        attacked = _named(name, setting).run(model, x[rows], y[rows], index[rows], setting)
        with nn_attacks.attack_mode(model), torch.no_grad():
            logits = model(attacked)
        record.offer(
            rows, attacked, nn_attacks.objective("margin")(logits.float(), y[rows]), misclassified(logits, y[rows])
        )
    return record.x


def _peer(
    module: Any, package: str, attack: Attack, model: Model, x: Tensor, y: Tensor, index: Tensor, setting: Setting
) -> Tensor:
    """Run the package and keep its warnings, the global random state and the tracer as they were."""
    kind = _kind(setting)
    options: dict[str, Any] = {
        "norm": {"linf": "Linf", "l2": "L2"}[setting.norm],
        "eps": setting.eps,
        "seed": setting.seed,
    }
    if kind == "standard":
        options["version"] = "standard"
    else:
        parts = ["apgd-ce", "fab", "square"] if kind == "ce" else ["apgd-ce", "apgd-dlr", "fab", "square"]
        options |= {"version": "custom", "attacks" if package == "pyautoattack" else "attacks_to_run": parts}
    if package != "pyautoattack":
        options["verbose"] = False
    if setting.bounds != (0.0, 1.0):
        raise BadInput(f"AutoAttack is for inputs in [0, 1], not {setting.bounds}: choose other attacks.")
    with _flags(attack.flags), nn_attacks.attack_mode(model):
        auto = module.AutoAttack(model, device=x.device, **options)
        for part in (auto.apgd_targeted, auto.fab):
            part.n_target_classes = min(9, setting.classes - 1)
        size = {"batch_size" if package == "pyautoattack" else "bs": setting.batch_size}
        attacked = auto.run_standard_evaluation(x, y, **size)
    adversarial: Tensor = attacked[0] if isinstance(attacked, tuple) else attacked
    return adversarial.detach()


@contextmanager
def _flags(messages: list[str]) -> Iterator[None]:
    """Collect warnings; AutoAttack seeds the global generators and switches tracers off."""
    import random
    import warnings

    class Collect(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            messages.append(record.getMessage())

    logger, handler = logging.getLogger("auto-attack"), Collect(logging.WARNING)
    tracer, propagate, state = sys.gettrace(), logger.propagate, random.getstate()
    logger.addHandler(handler)
    logger.propagate = False
    try:
        with torch.random.fork_rng(), warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield
        messages += [str(w.message) for w in caught if "flags_doc" in str(w.message)]
    finally:
        random.setstate(state)
        logger.removeHandler(handler)
        logger.propagate = propagate
        sys.settrace(tracer)
