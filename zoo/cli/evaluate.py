"""`zoo evaluate`: how robust a classifier is against adversarial examples and corruptions, and its calibration."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.errors import BadInput, InvalidConfig
from zoo.files import write_whole

if TYPE_CHECKING:
    from zoo.base import ZooModule
    from zoo.base.data import DataContract
    from zoo.robustness.natural import CorruptionReport
    from zoo.robustness.report import RobustnessReport

__all__ = ["add_evaluate", "number", "run_evaluate"]

_TASK = "image-classification"


def add_evaluate(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of `zoo evaluate`."""
    parser.add_argument("model", help="NAME[:TAG], hf://owner/repo, a saved folder or a .ckpt")
    parser.add_argument("--eps", help="radius of the attacks in pixel units, 0.1 or 8/255 (that of the training)")
    parser.add_argument("--norm", choices=("linf", "l2"), default="linf", help="of the ball (linf)")
    parser.add_argument("--n", type=int, default=1000, help="test samples, drawn at random by --seed (1000)")
    parser.add_argument(
        "--attacks",
        default="standard",
        help="quick, standard, or names with commas: noise,fgsm,pgd-20,cw-30,gama-100,apgd-ce,apgd-dlr,apgd-t,"
        "square-1000,autoattack, adaptive: those that the method declares against itself (standard)",
    )
    parser.add_argument(
        "--corruptions",
        nargs="?",
        const="all",
        metavar="NAMES",
        help="fog, jpeg_compression, ... with commas (all)",
    )
    parser.add_argument("--severity", type=_severity, nargs="+", metavar="1..5", help="of --corruptions (1 2 3 4 5)")
    parser.add_argument("--corrupted", metavar="DIR", help="published corrupted pictures: NAME.npy and labels.npy")
    parser.add_argument("--calibration", action="store_true", help="ECE, Brier score and NLL of the confidences")
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


def _severity(text: str) -> int:
    if text not in ("1", "2", "3", "4", "5"):
        raise argparse.ArgumentTypeError(f"expected 1 to 5, got {text!r}")
    return int(text)


def run_evaluate(options: argparse.Namespace) -> int:
    """Attack, corrupt, print, and return 1 if a check says that the numbers cannot be trusted."""
    corruptions = options.corruptions or ("all" if options.corrupted or options.severity else None)
    natural = corruptions is not None or options.calibration
    eps = None if options.eps is None else number(options.eps, "--eps")
    target = Path(options.out).expanduser() if options.out else None
    if target is not None and (target.is_dir() or not target.parent.is_dir()):
        raise BadInput(f"--out {options.out}: give a file in a folder that exists.")
    entry_name = _data_name(options.model)
    from zoo.cli.devices import device_of
    from zoo.robustness.natural import chosen_names
    from zoo.store import load

    names = chosen_names(corruptions or "none")
    device = device_of(options.device)
    module = load(options.model, map_location=device)
    _check_task(options.model, module.task)
    if eps is None and not natural:
        eps = _own_radius(module, options)
    data = _data_for(module, entry_name or _class_name(module), options)
    reports: dict[str, Any] = {}
    if eps is not None:
        reports["attacks"] = _attacked(module, data, eps, device, options)
    if natural:
        reports["corruptions"] = _corrupted(module, data, names, device, options)
    for report in reports.values():
        report.model = options.model
    text = _as_json(reports)
    if target is not None:
        write_whole(target, text + "\n")
    print(text if options.json else "\n\n".join(map(str, reports.values())))
    if target is not None and not options.json:
        print(f"\nwritten to {target}")
    return 1 if "attacks" in reports and reports["attacks"].suspicious else 0


def _own_radius(module: ZooModule, options: argparse.Namespace) -> float:
    """The radius that a network was trained for.

    Raises:
        BadInput: if it was trained for none, or in another norm.
    """
    own = module.hparams.get("eps")
    if not isinstance(own, float) or options.norm != "linf":
        raise BadInput(
            f"What shall be evaluated? --eps 8/255 attacks {options.model}, which was trained for no radius"
            f"{'' if own is None else ' in this norm'}; --corruptions and --calibration do not."
        )
    return own


def _as_json(reports: dict[str, Any]) -> str:
    """One report as it is; two under their names."""
    if len(reports) == 1:
        return str(next(iter(reports.values())).to_json())
    return json.dumps({name: report.to_dict() for name, report in reports.items()}, indent=2, ensure_ascii=False)


def _attacked(
    module: ZooModule, data: DataContract, eps: float, device: str, options: argparse.Namespace
) -> RobustnessReport:
    from zoo.robustness.evaluate import evaluate_robustness

    return evaluate_robustness(
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


def _corrupted(
    module: ZooModule, data: DataContract, names: list[str], device: str, options: argparse.Namespace
) -> CorruptionReport:
    from zoo.robustness.natural import evaluate_corruptions

    return evaluate_corruptions(
        module,
        data,
        options.n,
        names or "none",
        options.severity or (1, 2, 3, 4, 5),
        folder=options.corrupted,
        batch_size=options.batch_size,
        seed=options.seed,
        device=device,
    )


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
            f"{name} is for {task}; `zoo evaluate` is for image classifiers (zoo list --task {_TASK}). Its own "
            f"metrics: zoo train test --zoo {name}. A classifier of yours: zoo.evaluate_robustness(model, data, eps)."
        )
