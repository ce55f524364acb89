"""How robust the weights of rslad are, as `robustness.json` of the card.

    python -m zoo.methods.rslad.robustness evaluate --tags fmnist-resnet10w8 --n 300     # minutes
    python -m zoo.methods.rslad.robustness evaluate --tags cifar10-resnet10w16=last.ckpt --root data --n 200
    python -m zoo.methods.rslad.robustness table

`evaluate` is `zoo.evaluate_robustness` with its standard attacks, AutoAttack (pyautoattack) among them, and the battery
against masked gradients, on test pictures drawn by seed 0, at eps 0.1 (Fashion-MNIST) or 8/255 (CIFAR-10). Reports of
other weights stay in the file. `table` prints the rows of the card.
"""

from __future__ import annotations

import argparse
import json
import platform
from typing import Any

import torch

from zoo.files import write_whole
from zoo.index import index_path
from zoo.robustness.evaluate import evaluate_robustness
from zoo.store import datamodule, load

RESULTS = index_path().parent / "model_cards" / "rslad" / "robustness.json"
EPS = {"fmnist": 0.1, "cifar10": 8 / 255}
"""Data -> radius."""
TAGS = (
    "fmnist-resnet10w24-natural",
    "fmnist-resnet10w24-trades",
    "fmnist-resnet10w8",
    "cifar10-resnet10w16-natural",
    "cifar10-resnet10w16-fgsm",
    "cifar10-resnet10w24-trades",
    "cifar10-resnet10w16",
)


def evaluate(tags: list[str], n: int, attacks: str | list[str], root: str | None) -> None:
    """Evaluate some weights and store the reports.

    Args:
        tags: bundled weights (TAG), or a file with weights of that kind (TAG=PATH).
        n: test pictures.
        attacks: as `zoo.evaluate_robustness` takes them.
        root: folder of the data; None for the embedded ones.
    """
    for text in tags:
        tag, _, path = text.partition("=")
        model: Any = load(path or f"rslad:{tag}")
        data = datamodule(f"rslad:{tag}", **({} if root is None else {"root": root}))
        report = evaluate_robustness(model, data, EPS[tag.partition("-")[0]], n, attacks)
        print(report, end="\n\n", flush=True)
        # read after the computation: another process may have added a report
        known = json.loads(RESULTS.read_text(encoding="utf-8"))["reports"] if RESULTS.is_file() else {}
        known[tag] = {**report.to_dict(), "model": f"rslad:{tag}", "sha256": getattr(model.report, "sha256", None)}
        content = {
            "versions": {"torch": torch.__version__, "python": platform.python_version()},
            "reports": {tag: known[tag] for tag in TAGS if tag in known},
        }
        write_whole(RESULTS, json.dumps(content, indent=2) + "\n")


def table() -> None:
    """Print the stored reports as rows of Markdown."""
    head = ["weights", "pictures", "clean", "PGD-20", "CW-30", "APGD", "AutoAttack", "worst case (95 % interval)"]
    head.append("signs of masking")
    print(f"| {' | '.join(head)} |\n{'|---' * len(head)}|")
    for tag, report in json.loads(RESULTS.read_text(encoding="utf-8"))["reports"].items():
        rows = {row["attack"]: row["accuracy"] for row in report["rows"]}
        apgd = min(share for attack, share in rows.items() if attack.startswith("apgd"))
        values = [report["clean"], rows["pgd-20"], rows["cw-30"], apgd]
        low, high = report["worst_interval"]
        worst = f"{report['worst']:.1%} ({low:.1%} to {high:.1%})"
        ran = sum(check["ok"] is not None for check in report["checks"])
        signs = ", ".join(report["suspicious"]) or f"none in {ran} checks"
        cells = [f"`{tag}`", str(report["n"]), *(f"{v:.1%}" for v in values)]
        cells += [f"{rows['autoattack']:.1%}" if "autoattack" in rows else "not run", worst, signs]
        print(f"| {' | '.join(cells)} |")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["evaluate", "table"])
    parser.add_argument("--tags", nargs="+", default=list(TAGS[:3]), metavar="TAG[=PATH]", help=", ".join(TAGS))
    parser.add_argument("--root", help="folder of the data, for CIFAR-10")
    parser.add_argument("--n", type=int, default=300, help="test pictures (300)")
    parser.add_argument("--attacks", nargs="+", default="standard", help="as zoo.evaluate_robustness takes them")
    options = parser.parse_args()
    if options.what == "table":
        table()
        return
    unknown = [text for text in options.tags if text.partition("=")[0] not in TAGS]
    if unknown:
        parser.error(f"--tags: expected {', '.join(TAGS)}; got {', '.join(unknown)}")
    evaluate(options.tags, options.n, options.attacks, options.root)


if __name__ == "__main__":
    main()
