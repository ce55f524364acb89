"""`zoo evaluate`: how robust a classifier is against adversarial examples."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from zoo.errors import BadInput, InvalidConfig

if TYPE_CHECKING:
    from zoo.base import ZooModule
    from zoo.base.data import DataContract

__all__ = ["add_evaluate", "number", "run_evaluate"]

_TASK = "image-classification"


def add_evaluate(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of `zoo evaluate`."""
    parser.add_argument("model", help="NAME[:TAG], hf://owner/repo, a saved folder or a .ckpt")
    parser.add_argument("--eps", required=True, help="radius in pixel units, [0, 1]: 0.1 or 8/255")
    parser.add_argument("--norm", choices=("linf", "l2"), default="linf", help="of the ball (linf)")
    parser.add_argument("--n", type=int, default=1000, help="test samples, drawn at random by --seed (1000)")
    parser.add_argument(
        "--attacks",
        default="standard",
        help="quick, standard, or names with commas: noise,fgsm,pgd-20,cw-30,gama-100,apgd-ce,apgd-dlr,apgd-t,"
        "square-1000,autoattack (standard)",
    )
    parser.add_argument("--root", metavar="DIR", help="your data, in the layout of `zoo data fake NAME`")
    parser.add_argument(
        "--surrogate", action="append", default=[], metavar="NAME", help="model for the transfer attack; repeatable"
    )
    parser.add_argument("--no-checks", action="store_true", help="leave out the battery against masked gradients")
    parser.add_argument("--batch-size", type=int, default=128, help="samples attacked at once (128)")
    parser.add_argument("--seed", type=int, default=0, help="of samples and attacks (0)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps (auto: a GPU if there is one)")
    parser.add_argument("--out", metavar="FILE", help="also write the report as JSON")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")


def run_evaluate(options: argparse.Namespace) -> int:
    """Attack, print, and return 1 if a check says that the numbers cannot be trusted."""
    eps = number(options.eps, "--eps")
    target = Path(options.out).expanduser() if options.out else None
    if target is not None and (target.is_dir() or not target.parent.is_dir()):
        raise BadInput(f"--out {options.out}: give a file in a folder that exists.")
    entry_name = _data_name(options.model)
    from zoo.cli.devices import device_of
    from zoo.robustness.evaluate import evaluate_robustness
    from zoo.store import load

    device = device_of(options.device)
    module = load(options.model, map_location=device)
    _check_task(options.model, module.task)
    data = _data_for(module, entry_name or _class_name(module), options)
    report = evaluate_robustness(
        module,
        data,
        eps,
        options.n,
        options.attacks,
        norm=options.norm,
        checks=not options.no_checks,
        surrogates=options.surrogate,
        batch_size=options.batch_size,
        seed=options.seed,
        device=device,
    )
    report.model = options.model
    if target is not None:
        report.save(target)
    print(report.to_json() if options.json else report)
    if target is not None and not options.json:
        print(f"\nwritten to {target}")
    return 1 if report.suspicious else 0


def _data_for(module: ZooModule, name: str, options: argparse.Namespace) -> DataContract:
    """The data of `--root`, or else the method's own, read as the module takes pictures.

    Raises:
        BadInput: if the method's own data are of other classes than the module.
        InvalidConfig: if those of `--root` are.
    """
    from zoo.base import meeting
    from zoo.base.arguments import parameters_of
    from zoo.store import datamodule

    data = datamodule(name, root=options.root)
    other = meeting.reading(module.hparams, data.facts(), parameters_of(type(data)))
    if other and options.root is not None:
        data = datamodule(name, root=options.root, **other)
    own = f"Give --root DIR with data for {options.model}: {name} alone means other ones."
    try:
        meeting.class_order(module.hparams, data, options.model)
    except InvalidConfig as error:
        if options.root is not None:
            raise
        raise BadInput(f"{own} {error}") from None
    if options.root is None and (problem := meeting.size_problem(module.hparams, data.facts())):
        raise BadInput(f"{own} {problem}")
    return data


def number(text: str, flag: str) -> float:
    """A number, or a fraction such as 8/255.

    Raises:
        BadInput: naming the flag.
    """
    above, slash, below = text.partition("/")
    try:
        return float(above) / float(below) if slash else float(above)
    except (ValueError, ZeroDivisionError):
        raise BadInput(f"{flag}: expected a number or a fraction such as 8/255, got {text!r}.") from None


def _data_name(name: str) -> str | None:
    """The index name whose data module fits, checked before anything is loaded; None for files and repositories."""
    from zoo.store.reference import reference_of

    reference = reference_of(name)
    if reference.entry is None:
        return None
    _check_task(name, reference.entry.task)
    return name


def _class_name(module: object) -> str:
    """The method a file's module belongs to."""
    from zoo.index import id_of

    method = id_of(type(module))
    if method is None:
        raise BadInput(
            f"{type(module).__name__} is in no index, so its data are unknown: call "
            "zoo.evaluate_robustness(model, data, eps)."
        )
    return method


def _check_task(name: str, task: str) -> None:
    if task != _TASK:
        raise BadInput(
            f"{name} is for {task}; `zoo evaluate` attacks image classifiers (zoo list --task {_TASK}). Its own "
            f"metrics: zoo train test --zoo {name}. A classifier of yours: zoo.evaluate_robustness(model, data, eps)."
        )
