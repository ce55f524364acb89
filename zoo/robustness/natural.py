"""How a classifier fares on pictures that are worse than those it was trained on, and whether its confidence is right.

    report = zoo.evaluate_corruptions(model, (images, labels), n=1000)
    print(report)                        # accuracy by corruption and severity, calibration without and with them

No attacker is involved here: see `zoo.robustness.evaluate` for that.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.errors import BadData, BadInput
from zoo.files import write_whole
from zoo.nn.attacks import Model
from zoo.robustness.corruptions import NAMES, SEVERITIES, corrupt
from zoo.robustness.evaluate import opened
from zoo.robustness.report import wilson

__all__ = ["Calibration", "CorruptionReport", "calibration", "evaluate_corruptions", "read_folder"]

BINS = 15
"""Of the calibration error, as in Guo et al. 2017."""


@dataclass
class Calibration:
    """Whether probabilities are what they say.

    Attributes:
        accuracy: share of right answers.
        ece: expected calibration error: mean distance of confidence and accuracy over 15 bins of equal width.
        brier: mean squared distance of the probabilities from the one-hot label, summed over the classes: 0 to 2.
        nll: mean negative log-likelihood of the label.
        confidence: mean of the largest probability; above the accuracy means overconfident.
    """

    accuracy: float
    ece: float
    brier: float
    nll: float
    confidence: float


def calibration(logits: Tensor, labels: Tensor) -> Calibration:
    """Accuracy and calibration of logits (N, K) for labels (N,).

    Raises:
        BadInput: if they do not fit each other.
    """
    from torchmetrics.functional.classification import multiclass_calibration_error

    if logits.ndim != 2 or labels.shape != logits.shape[:1] or not len(labels):
        raise BadInput(
            f"calibration: expected logits (N, K) and N labels, got {tuple(logits.shape)} and {tuple(labels.shape)}."
        )
    logits, labels = logits.detach().double(), labels.detach()
    probs = logits.softmax(1)
    classes = logits.shape[1]
    right = (logits.argmax(1) == labels).double().mean().item()
    one_hot = F.one_hot(labels, classes)
    ece = multiclass_calibration_error(probs.float(), labels, classes, n_bins=BINS, norm="l1")
    return Calibration(
        right, float(ece), ((probs - one_hot) ** 2).sum(1).mean().item(), F.cross_entropy(logits, labels).item(),
        probs.amax(1).mean().item(),
    )  # fmt: skip


@dataclass(repr=False)
class CorruptionReport:
    """Result of `evaluate_corruptions`; `str()` is a table.

    Attributes:
        model: name or class of the model.
        n: pictures evaluated.
        total: pictures in the set they were drawn from.
        seed: of the choice of pictures and of the corruptions.
        source: `drawn here`, or the folder of the corrupted pictures.
        clean: without a corruption.
        rows: corruption -> severity -> scores.
        seconds: it took.
    """

    model: str
    n: int
    total: int
    seed: int
    source: str
    clean: Calibration
    rows: dict[str, dict[int, Calibration]] = field(default_factory=dict)
    seconds: float = 0.0

    def mean_of(self, what: str, name: str | None = None) -> float:
        """Mean of a score over the severities of a corruption, or over all of them; NaN without any.

        Args:
            what: `accuracy`, `ece`, `brier`, `nll` or `confidence`.
            name: of the corruption; None: the mean over corruptions.
        """
        if name is not None:
            values = [getattr(scores, what) for scores in self.rows[name].values()]
        else:
            values = [self.mean_of(what, each) for each in self.rows]
        return float(np.mean(values)) if values else float("nan")

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as in the JSON."""
        means = {what: self.mean_of(what) for what in ("accuracy", "ece", "brier", "nll")} if self.rows else {}
        return {**asdict(self), "mean": means}

    def to_json(self) -> str:
        """The report as JSON text."""
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False)

    def save(self, path: str | Path) -> Path:
        """Write the JSON."""
        target = Path(path).expanduser()
        write_whole(target, self.to_json() + "\n")
        return target

    def __repr__(self) -> str:
        mean = f", mean under corruptions {self.mean_of('accuracy'):.1%}" if self.rows else ""
        return f"<CorruptionReport {self.model}: {self.n} pictures: clean {self.clean.accuracy:.1%}{mean}>"

    def __str__(self) -> str:
        low, high = wilson(self.clean.accuracy, self.n)
        lines = [
            f"{self.model}: {self.n} of {self.total} pictures",
            "",
            f"accuracy {self.clean.accuracy:.1%} (95 % interval {low:.1%} to {high:.1%})",
        ]
        lines.append(
            f"calibration: ECE {self.clean.ece:.3f} ({BINS} bins), Brier {self.clean.brier:.3f}, NLL "
            f"{self.clean.nll:.3f}, mean confidence {self.clean.confidence:.1%}"
        )
        if not self.rows:
            return "\n".join(lines)
        severities = sorted({severity for row in self.rows.values() for severity in row})
        wide = max(len(name) for name in (*self.rows, "corruption"))
        columns = "".join(f"{severity:>8}" for severity in severities)
        lines += ["", f"accuracy by severity ({self.source})", ""]
        lines.append(f"{'corruption':<{wide}}{columns}{'mean':>8}{'ECE':>8}{'Brier':>8}{'NLL':>8}")
        for name, row in self.rows.items():
            values = "".join(f"{row[s].accuracy:8.1%}" if s in row else f"{'-':>8}" for s in severities)
            lines.append(f"{name:<{wide}}{values}{self._means(name)}")
        lines.append(f"{'mean':<{wide}}{' ' * 8 * len(severities)}{self._means(None)}")
        return "\n".join(lines)

    def _means(self, name: str | None) -> str:
        values = "".join(f"{self.mean_of(what, name):8.3f}" for what in ("ece", "brier", "nll"))
        return f"{self.mean_of('accuracy', name):8.1%}{values}"


def evaluate_corruptions(
    model: Model | str, data: Any = None, n: int | None = 1000, corruptions: str | Sequence[str] = "all",
    severities: Sequence[int] = SEVERITIES, *, folder: str | Path | None = None, batch_size: int = 128, seed: int = 0,
    device: str | torch.device | None = None, progress: bool | None = None,
) -> CorruptionReport:  # fmt: skip
    """Accuracy and calibration of a classifier, without and under common corruptions.

    Args:
        model: returns logits (N, K) for pictures in [0, 1], normalisation included. A name is loaded from the zoo.
        data: as in `evaluate_robustness`.
        n: pictures, drawn at random by `seed`; None: all.
        corruptions: `all`, `none` (calibration alone), or names of `zoo.robustness.corruptions.NAMES`, as a sequence or
            with commas.
        severities: some of 1 to 5.
        folder: of published corrupted pictures of this test set (CIFAR-10-C): `NAME.npy` and `labels.npy`. None: they
            are made here.
        batch_size: pictures at once.
        seed: of the choice of pictures and of the corruptions.
        device: where to compute; None: where the model's parameters are.
        progress: show it on the terminal; None: if there is one.

    Raises:
        BadInput: as `evaluate_robustness`; for severities that are none.
        UnknownName: if there is no such corruption.
        BadData: naming the file of the folder that is not what it should be.
    """
    began = time.perf_counter()
    names = chosen_names(corruptions)
    wrong = [severity for severity in severities if severity not in SEVERITIES]
    if wrong or not severities:
        raise BadInput(f"severities: expected some of 1 to 5, got {wrong or 'none'}.")
    with opened(
        model, data, 0.5, n, batch_size=batch_size, seed=seed, device=device, progress=progress
    ) as (name, run, _):  # fmt: skip
        clean = calibration(run.clean_logits, run.y)
        source = "drawn here" if folder is None else Path(folder).expanduser().name
        report = CorruptionReport(name, len(run.x), run.total, seed, source, clean)
        for number, corruption in enumerate(names):
            files = None if folder is None else read_folder(Path(folder), corruption, run.total)
            report.rows[corruption] = {}
            for severity in sorted(set(severities)):
                logits, labels = [], run.y
                for first in range(0, len(run.x), batch_size):
                    part = slice(first, first + batch_size)
                    if files is None:
                        changed = corrupt(run.x[part], corruption, severity, seed=seed, index=run.index[part])
                    else:
                        changed = _picked(files[0], severity, run.index[part], run.x[part])
                    logits.append(run.logits_of(changed))
                if files is not None and not torch.equal(files[1][run.index], labels):
                    raise BadData(
                        f"{folder}/labels.npy: the labels of the chosen pictures are others than those of the test "
                        "set: expected the corrupted pictures of this test set, in its order."
                    )
                report.rows[corruption][severity] = calibration(torch.cat(logits), labels)
            shown = f"{report.mean_of('accuracy', corruption):.1%}"
            run.tell(f"corruptions|{corruption} {shown}", (number + 1) / len(names))
    report.seconds = round(time.perf_counter() - began, 2)
    return report


def chosen_names(corruptions: str | Sequence[str]) -> list[str]:
    """Names from `all`, `none`, a text with commas, or a sequence.

    Raises:
        UnknownName: naming the nearest corruption.
    """
    from zoo.errors import UnknownName, nearest

    wanted = [part.strip() for part in corruptions.split(",")] if isinstance(corruptions, str) else list(corruptions)
    if wanted == ["all"]:
        return list(NAMES)
    if wanted == ["none"]:
        return []
    for name in wanted:
        if name not in NAMES:
            raise UnknownName(
                f"There is no corruption {name!r}.{nearest(name, NAMES)} Corruptions: {', '.join(NAMES)}; or all."
            )
    return list(dict.fromkeys(wanted))


def read_folder(folder: Path, name: str, total: int) -> tuple[np.ndarray, Tensor]:
    """Corrupted pictures of a test set as they are published: five blocks, one for each severity, in one file.

    Args:
        folder: holds `NAME.npy`, uint8 (5 total, H, W, C), and `labels.npy`, whole numbers (5 total,).
        name: of the corruption.
        total: pictures of the test set.

    Returns:
        The pictures, read as they are needed, and the labels (total,) of the first block.

    Raises:
        BadData: naming the file.
    """
    arrays = []
    for file in (f"{name}.npy", "labels.npy"):
        path = Path(folder).expanduser() / file
        try:
            arrays.append(np.load(path, mmap_mode="r", allow_pickle=False))
        except FileNotFoundError:
            raise BadData(
                f"{path}: there is no such file. The folder of CIFAR-10-C holds NAME.npy of each corruption and "
                "labels.npy."
            ) from None
        except (OSError, ValueError, EOFError) as error:
            raise BadData(f"{path}: expected an array of numpy, got another file: {str(error)[:120]}.") from None
    pixels, labels = arrays
    rows = len(SEVERITIES) * total
    if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[3] not in (1, 3) or len(pixels) != rows:
        raise BadData(
            f"{folder}/{name}.npy: expected bytes ({rows}, H, W, 1 or 3), five severities of {total} pictures, "
            f"got {pixels.dtype} {pixels.shape}."
        )
    if labels.dtype.kind not in "iu" or labels.shape != (rows,):
        raise BadData(f"{folder}/labels.npy: expected whole numbers ({rows},), got {labels.dtype} {labels.shape}.")
    return pixels, torch.from_numpy(np.asarray(labels[:total]).astype(np.int64))


def _picked(pixels: np.ndarray, severity: int, index: Tensor, like: Tensor) -> Tensor:
    """Pictures of a severity by their number in the test set."""
    total = len(pixels) // len(SEVERITIES)
    chosen = np.stack([pixels[(severity - 1) * total + i] for i in index.tolist()])
    changed = torch.from_numpy(chosen).permute(0, 3, 1, 2).contiguous().float() / 255
    if changed.shape != like.shape:
        raise BadData(
            f"The corrupted pictures are {tuple(changed.shape[1:])}, those of the test set {tuple(like.shape[1:])}: "
            "expected the same size."
        )
    return changed
