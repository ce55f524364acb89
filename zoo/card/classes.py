"""Scores of the default weights for each class: measured by `zoo card ID --classes`, kept beside the card.

A mean over classes hides the one that is hardly ever right. The file says which weights were scored, so that numbers of
other weights are noticed.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from zoo import claims as evidence
from zoo.errors import BadInput
from zoo.files import write_whole
from zoo.index import TASKS, Entry

__all__ = ["FILE", "kept", "measure", "out_of_date"]

FILE = "classes.json"


def kept(folder: Path) -> dict[str, Any] | None:
    """What was measured for a card, or None."""
    path = folder / FILE
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def out_of_date(entry: Entry, folder: Path) -> bool:
    """Whether the file holds scores of weights that are not the default ones any more."""
    stored = kept(folder)
    return stored is not None and (stored["tag"], stored["sha256"]) != (entry.default, _sha256(entry))


def _sha256(entry: Entry) -> str | None:
    default = entry.weights.get(entry.default or "")
    return None if default is None else default.sha256


def measure(entry: Entry) -> Path:
    """Score the default weights on the test split of their recipe's data, class by class, and write the file.

    Raises:
        BadInput: if there are no default weights, the data are not embedded or have no classes.
    """
    if _sha256(entry) is None:
        raise BadInput(f"{entry.id} has no default weights: nothing can be scored.")
    from zoo.store import datamodule, load

    model, data = load(entry.id), datamodule(entry.id)
    if len(model.class_names) < 2:
        raise BadInput(f"{entry.id} has no classes to be scored one by one.")
    is_classifier = "label" in TASKS[entry.tag().task].results
    name, scores, samples = _shares(model, data) if is_classifier else _logged(model, data)
    content = {"tag": entry.default, "sha256": _sha256(entry), "score": name, "samples": samples, "classes": scores}
    path = evidence.card_folder(entry) / FILE
    write_whole(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    return path


def _shares(model: Any, data: Any) -> tuple[str, dict[str, float], int]:
    """The share of each class's test samples that are classified right."""
    import torch

    predicted, true = [], []
    with torch.no_grad():
        for batch in data.test_dataloader():
            predicted.append(model.predict_step(batch)["label"])
            true.append(batch["label"])
    right, labels = torch.cat(predicted) == torch.cat(true), torch.cat(true)
    shares = {n: float(right[labels == i].double().mean()) for i, n in enumerate(model.class_names)}
    return "share classified right", {n: round(v, 4) for n, v in shares.items()}, len(labels)


def _logged(model: Any, data: Any) -> tuple[str, dict[str, float], int]:
    """Scores that a test logs with the name of a class at their end."""
    import lightning

    quiet: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = lightning.Trainer(accelerator="cpu", devices=1, **quiet)
    (logged,) = trainer.test(model, data, verbose=False)
    first = model.monitor[0].partition("/")[2]
    each = {n: logged[f"test/{first}/{n}"] for n in model.class_names if f"test/{first}/{n}" in logged}
    if len(each) < len(model.class_names):
        raise BadInput(f"Its test logs no score of each class: {', '.join(sorted(logged))}.")
    return f"test/{first}", {n: round(v, 4) for n, v in each.items()}, len(data.split("test"))
