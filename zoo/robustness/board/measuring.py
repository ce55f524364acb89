"""Measure a row, block of pictures by block; stopped anywhere, the next call goes on where it was."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from zoo.errors import BadInput
from zoo.files import versions
from zoo.index import Entry, entries, resolve
from zoo.index.recipes import read_recipe
from zoo.nn.attacks import Model
from zoo.robustness.adaptive import adaptive_attacks
from zoo.robustness.attacks import ADAPTIVE, Attack, attacks_of
from zoo.robustness.battery import battery
from zoo.robustness.board.row import BoardRow, Verdicts, place_of, read_row
from zoo.robustness.data import samples
from zoo.robustness.evaluate import opened
from zoo.robustness.run import Run
from zoo.store import datamodule, load

__all__ = ["ATTACKS", "BLOCK", "Subject", "candidates", "cost", "enter", "macs_of", "measure", "subject_of"]

ATTACKS = ("pgd-20", "apgd-ce", "gama-100", ADAPTIVE, "autoattack")
"""Attacks of the board, in order; GAMA is for the maximum norm only."""

BLOCK = 100
"""Pictures between two writings of the file, and those that the battery against masked gradients sees."""

SHARED = 20
"""First pictures whose hash says that two rows were measured on the same ones; also the least a row is made of."""

_TASK = "image-classification"

_AUTOATTACK = 3700
_CHECKS = 550
"""Passes, forward and backward, of one picture that withstands: AutoAttack, and the battery."""
_SPEED = 20e9
"""Floating-point operations a second of one core, for what a plan says about minutes."""


@dataclass
class Subject:
    """What a row is about.

    Attributes:
        name: of the row.
        model: returns logits of pictures in [0, 1].
        data: data module, or what else `zoo.evaluate_robustness` takes.
        label: name of the data.
        eps: radius.
        sha256: of the weights.
        minutes: of the training.
        own: whether it is a user's.
        adaptive: attacks against it besides those that the model declares.
        command: that measures it again.
    """

    name: str
    model: Any
    data: Any
    label: str
    eps: float
    sha256: str | None = None
    minutes: float | None = None
    own: bool = False
    adaptive: Mapping[str, Callable[..., Tensor]] = field(default_factory=dict)
    command: str = ""


def candidates() -> list[str]:
    """Names `id:tag` of the bundled weights that are trained against perturbations: image classifiers with an `eps`."""
    from zoo.base.arguments import parameters_of

    names = []
    for entry in entries().values():
        if entry.task != _TASK or not any(w.file for w in entry.weights.values()):
            continue
        if "eps" in parameters_of(entry.model_class()):
            names += [f"{entry.id}:{tag}" for tag, weights in entry.weights.items() if weights.file]
    return names


def subject_of(name: str, eps: float | None = None, root: str | None = None, data: str | None = None) -> Subject:
    """The subject for a name of the zoo, a folder or a checkpoint file.

    Args:
        name: `id:tag`, `hf://owner/repo`, a saved folder or a .ckpt.
        eps: radius; None: that of its training.
        root: folder of other data.
        data: name of the weights whose pictures are used; None: its own.

    Raises:
        BadInput: if it is no image classifier, or has no radius of its own.
    """
    from zoo.store.reference import reference_of

    entry: Entry | None = reference_of(name).entry
    _check_task(name, None if entry is None else entry.task)
    model: Any = load(name)
    _check_task(name, model.task)
    radius = model.hparams.get("eps") if eps is None else eps
    if not isinstance(radius, float | int):
        raise BadInput(f"{name} was not trained for a radius: give one with --eps, as in --eps 8/255.")
    own = entry is None or root is not None or data is not None
    source = data or (name if entry is not None else _method_of(model))
    about, tag = resolve(source)
    weights = about.weights.get(tag or about.default or "")
    label = str(weights.trained_on.get("data", about.id)) if weights is not None else about.id
    module = datamodule(source, **({} if root is None else {"root": root}))
    full = f"{entry.id}:{entry.default}" if entry is not None and entry.default and ":" not in name else name
    minutes = None if entry is None else read_recipe(entry, resolve(name)[1] or entry.default).get("minutes")
    return Subject(
        full, model, module, label if root is None else Path(root).name, float(radius),
        getattr(model.report, "sha256", None), minutes, own,
        command=f"zoo leaderboard robustness {'--own' if own else '--measure'} {full}"
        + "".join(f" --{flag} {value}" for flag, value in (("eps", eps), ("root", root), ("data", data)) if value),
    )  # fmt: skip


def _check_task(name: str, task: str | None) -> None:
    if task is not None and task != _TASK:
        raise BadInput(f"{name} is for {task}: this board is for image classifiers (zoo list --task {_TASK}).")


def _method_of(model: Any) -> str:
    from zoo.index import id_of

    method = id_of(type(model))
    if method is None:
        raise BadInput(f"{type(model).__name__} is in no index: name the weights whose data it is for with --data.")
    return method


def enter(
    name: str, model: Model | str, data: Any, eps: float, folder: str | Path = "runs/leaderboards/robustness", *,
    adaptive: Mapping[str, Callable[..., Tensor]] | None = None, label: str = "", **options: Any,
) -> BoardRow:  # fmt: skip
    """Measure a network of yours on the board's attacks, and keep its row in a folder of yours.

    Args:
        name: it shall have on the board.
        model: returns logits of pictures in [0, 1], normalisation included; or what `zoo.load` takes.
        data: name of the published weights to be compared with (their test pictures), or what
            `zoo.evaluate_robustness` takes.
        eps: radius; that of the group it shall be compared with.
        folder: where its row is kept; a second call goes on with it, and measures what is missing.
        adaptive: attacks that know the defence: name -> function (model, x, y) -> x'.
        label: name of data that are not the zoo's.
        options: of `measure`: `n`, `attacks`, `whole`, `norm`, `seed`, `batch_size`, `device`.

    Returns:
        The row.
    """
    source = data if isinstance(data, str) else None
    if source is not None:
        entry, tag = resolve(source)
        weights = entry.weights.get(tag or entry.default or "")
        label = label or (str(weights.trained_on.get("data", entry.id)) if weights is not None else entry.id)
        data = datamodule(source)
    network: Any = load(model) if isinstance(model, str) else model
    sha256 = getattr(getattr(network, "report", None), "sha256", None)
    subject = Subject(name, network, data, label or "own data", eps, sha256, own=True, adaptive=adaptive or {})
    path = place_of(Path(folder).expanduser(), name, options.get("norm", "linf"), eps)
    return measure(subject, path, **options)


def measure(
    subject: Subject, path: Path, n: int = 1000, attacks: Sequence[str] = ATTACKS, whole: int | None = None, *,
    norm: str = "linf", seed: int = 0, batch_size: int = 128, device: Any = None,
    tell: Callable[[str], None] = lambda line: None, made: Mapping[str, Any] | None = None,
) -> BoardRow:  # fmt: skip
    """Measure what a row lacks, and write it after each block of pictures.

    Args:
        subject: what is measured.
        path: of the row. Verdicts there count if weights, pictures, radius and seed are the same.
        n: test pictures.
        attacks: names; `adaptive` are those that the model declares.
        whole: AutoAttack runs on the first so many of them; None: on all.
        norm: `linf` or `l2`.
        seed: of the choice of pictures and of the attacks.
        batch_size: pictures attacked at once.
        device: None: where the model is.
        tell: hears a line after each block.
        made: versions, hardware and commit for the row.

    Raises:
        BadInput: as `zoo.evaluate_robustness`.
    """
    began = time.perf_counter()
    options: dict[str, Any] = {"norm": norm, "seed": seed, "batch_size": batch_size, "device": device}
    with opened(subject.model, subject.data, subject.eps, n, progress=False, **options) as (_, run, _others):
        row = _begun(subject, run, path, n)
        seconds = float(row.made.get("seconds", 0.0))
        names = [name for name in attacks if norm == "linf" or not name.startswith("gama")]
        declared = {**adaptive_attacks(subject.model), **subject.adaptive}
        _check_same(row, attacks_of(names, run.setting, declared), path)
        row.clean = Verdicts()
        row.clean.add(run.clean.tolist(), 0.0)

        def done(line: str) -> None:
            row.made = {**(made or {"versions": versions("torch")}), "threads": torch.get_num_threads()}
            row.made["device"] = str(run.device)
            row.made["seconds"] = round(seconds + time.perf_counter() - began, 1)
            row.save(path)
            tell(line)

        for late in (False, True):  # AutoAttack costs more than all others: these come first, for all pictures
            chosen = [name for name in names if (name == "autoattack") == late]
            last = min(n if whole is None or not late else whole, len(run.x))
            if chosen and (chosen != [ADAPTIVE] or declared):
                _blocks(row, run, chosen, declared, last, done)
        if row.checks.get("attacks") != _covering(row):  # what a new attack beats is no sign of masking
            _check(row, run.part(0, BLOCK))
            done(f"{row.name}: {len(row.suspicious) or 'no'} signs of masked gradients")
    return row


def _check_same(row: BoardRow, wanted: Sequence[Attack], path: Path) -> None:
    """Refuse to go on with the verdicts of another attack under the same name."""
    for attack in wanted:
        known = row.attacks.get(attack.name)
        if known is not None and known.about != attack.about:
            raise BadInput(
                f"{path}: {attack.name} there is {known.about!r}, here it is {attack.about!r}; their verdicts do not "
                "belong together. Install what ran there, or measure the row again from the beginning (--again)."
            )


def _blocks(
    row: BoardRow, run: Run, names: Sequence[str], declared: Mapping[str, Any], last: int, done: Callable[[str], None]
) -> None:
    """Run attacks on the pictures before `last` that they have not seen."""
    for first in range(0, last, BLOCK):
        part: Run | None = None
        for attack in attacks_of(names, run.setting, declared):
            known = row.attacks.get(attack.name)
            if known is None:
                known = row.attacks[attack.name] = Verdicts(attack.about, declared=attack.name in declared)
            end = min(first + BLOCK, last)
            if known.seen >= end:
                continue
            part = run.part(known.seen, end) if part is None or known.seen != first else part
            flags = part.run(attack).tolist()
            known.add(flags, part.made[attack.name].seconds)
            done(f"{row.name}: {attack.name} {known.share:.1%} of {known.seen}, worst {row.worst:.1%}")


def _covering(row: BoardRow) -> list[str]:
    """Attacks that have seen all pictures that the battery sees; their verdicts are part of its comparison."""
    return [name for name, verdicts in row.attacks.items() if verdicts.seen >= min(BLOCK, row.clean.seen)]


def _check(row: BoardRow, part: Run) -> None:
    """The battery on the first pictures, with the verdicts that the row holds."""
    for name, verdicts in row.attacks.items():
        if verdicts.seen >= len(part.x):
            part.kept[name] = torch.tensor(verdicts.flags[: len(part.x)])
    results = battery(part, (), ())
    row.checks = {
        "n": len(part.x),
        "attacks": _covering(row),
        "results": [
            {"name": check.name, "ok": check.ok, "measured": check.measured}
            for check in results
            if check.name != "autoattack flags"
        ],
    }


def _begun(subject: Subject, run: Run, path: Path, n: int) -> BoardRow:
    """The row of the file if it is of the same weights and pictures, else a new one."""
    if len(run.x) < SHARED:
        raise BadInput(f"{len(run.x)} pictures: a row is made of at least {SHARED}. Give a larger --n, or more data.")
    digest = hashlib.sha256(str(run.total).encode())
    for part in (run.index, (run.x * 255).round().to(torch.uint8), run.y):
        digest.update(part[:SHARED].numpy().tobytes())
    data = {"name": subject.label, "pictures": digest.hexdigest()[:16], "total": run.total}
    row = BoardRow(
        subject.name, subject.sha256, data, subject.eps, run.setting.norm, run.setting.seed, len(run.x),
        _parameters(subject.model), _macs(subject.model, run.x[:1].to(run.device)), subject.minutes, subject.own,
        command=subject.command,
    )  # fmt: skip
    if path.is_file() and (known := read_row(path)).key == row.key and known.clean.seen <= len(run.x):
        row.attacks, row.checks, row.made = known.attacks, known.checks, known.made
    elif path.is_file() and known.key == row.key:
        raise BadInput(
            f"{path} holds {known.clean.seen} pictures, more than the {len(run.x)} asked for: give --n "
            f"{known.clean.seen}, or measure it again from the beginning."
        )
    return row


def _parameters(model: Any) -> int | None:
    return sum(p.numel() for p in model.parameters()) if isinstance(model, nn.Module) else None


def _macs(model: Model, x: Tensor) -> int | None:
    """Multiply-adds of one picture, by torch's own counter; None where it sees none."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(x)
    return counter.get_total_flops() // 2 or None


def macs_of(subject: Subject) -> int | None:
    """Multiply-adds of one picture; None if torch's counter sees none."""
    return _macs(subject.model, samples(subject.data, 1).x)


def cost(macs: int, n: int, whole: int | None, declared: int = 0) -> tuple[float, float]:
    """Operations and minutes of one core that a row takes, about.

    Args:
        macs: of one picture.
        n: pictures.
        whole: of them for AutoAttack.
        declared: number of attacks that the model declares, each counted as 50 passes.
    """
    passes = (20 + 101 + 101 + 50 * declared) * n + _AUTOATTACK * min(n, n if whole is None else whole)
    operations = 6.0 * macs * (passes + _CHECKS * min(BLOCK, n))
    return operations, operations / _SPEED / 60
