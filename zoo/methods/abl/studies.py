"""What is measured on the shipped networks: attack success by foreign code, and the search for a trigger."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from datamodules.poisoned import PoisonedDataModule
from zoo.methods.abl.baselines import activation_clustering, art_classifier, spectral_signatures
from zoo.methods.abl.search import search_triggers
from zoo.studies import Outcome, study


def _shipped(tag: str) -> Any:
    from zoo.store import load

    return load(f"abl:{tag}")


def _arrays(split: str, count: int, **given: Any) -> dict[str, np.ndarray]:
    """The first pictures of a split as arrays."""
    part = PoisonedDataModule(**given).split(split)
    batch: Any = part.__getitems__(list(range(count)))  # type: ignore[attr-defined]
    return {key: value.numpy() for key, value in batch.items()}


@study("success", "accuracy")
def toolbox_success(tag: str = "fmnist-wrn-16-1", pictures: int = 5000) -> Outcome:
    """Attack success as ART poisons pictures and counts: test pictures of other classes that become the target."""
    from art.attacks.poisoning import PoisoningAttackBackdoor
    from art.utils import compute_accuracy, compute_success

    module = PoisonedDataModule()
    batch = _arrays("test", pictures)
    classifier, target = art_classifier(_shipped(tag)), int(module.hparams["target"])
    others = batch["label"] != target
    clean, classes = batch["image"][others], int(module.facts()["num_classes"])

    def trigger(images: np.ndarray) -> np.ndarray:
        return module.trigger(np.rint(images * 255).astype(np.uint8)).astype(np.float32) / 255

    wanted = np.eye(classes, dtype=np.float32)[np.full(len(clean), target)]
    triggered, labels = PoisoningAttackBackdoor(trigger).poison(clean, y=wanted)
    success = compute_success(classifier, clean, labels, triggered, targeted=True, batch_size=500)
    said = classifier.predict(batch["image"], batch_size=500)
    accuracy, _ = compute_accuracy(said, np.eye(classes)[batch["label"]])
    return Outcome({"success": float(success), "accuracy": float(accuracy)})


@study("anomaly", "smallest", "largest_other", "success")
def trigger_search(
    tag: str = "fmnist-wrn-16-1", target: int = 0, pictures: int = 500, steps: int = 200, seed: int = 0
) -> Outcome:
    """Anomaly index of the target class: above 2, a much smaller change leads to it than to the other classes."""
    batch = _arrays("val", pictures, rate=0.0)
    search = search_triggers(
        _shipped(tag), torch.from_numpy(batch["image"]), torch.from_numpy(batch["label"]), steps=steps, seed=seed
    )
    others = torch.cat([search.anomaly[:target], search.anomaly[target + 1 :]])
    return Outcome(
        {
            "anomaly": search.anomaly[target].item(),
            "smallest": float(search.norms.argmin()),
            "largest_other": others.max().item(),
            "success": search.success[target].item(),
        }
    )


@study("precision", "recall")
def toolbox_detection(
    method: str = "clustering", tag: str = "backdoored-fmnist-wrn-16-1", pictures: int = 6000
) -> Outcome:
    """How right a detector of ART is about training pictures of the network that was trained on them."""
    batch = _arrays("train", pictures)
    detect: Any = {"clustering": activation_clustering, "spectral": spectral_signatures}[method]
    suspects = detect(_shipped(tag), batch["image"], batch["label"])
    right = int(batch["is_poison"][suspects].sum())
    return Outcome(
        {"precision": right / max(1, len(suspects)), "recall": right / max(1, int(batch["is_poison"].sum()))}
    )
