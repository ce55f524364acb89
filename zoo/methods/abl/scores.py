"""What is measured of a classifier that may have a backdoor."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric

__all__ = ["BackdoorScores"]


class BackdoorScores(Metric):
    """Accuracy on clean pictures, and how often a trigger does what the attacker wants.

    `compute` returns `accuracy`, over all classes; `worst_recall`, that of the class that fares worst; and, where
    pictures with the trigger were seen,

    - `asr`, attack success rate: share of the pictures of other classes than the wanted one that the trigger turns into
      it;
    - `ra`, robust accuracy: share of the same pictures that keep their true class under the trigger;
    - `target_recall`, share of the clean pictures of the wanted class that are recognised;
    - `accuracy_without_target`: accuracy over the others, the number that code in circulation calls clean accuracy.

    Args:
        num_classes: K.
    """

    full_state_update = False
    right: Tensor
    seen: Tensor
    attacked: Tensor
    hit: Tensor
    kept: Tensor
    others_right: Tensor
    target: Tensor
    target_right: Tensor

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        for name in ("right", "seen"):
            self.add_state(name, torch.zeros(num_classes, dtype=torch.int64), dist_reduce_fx="sum")
        for name in ("attacked", "hit", "kept", "others_right", "target", "target_right"):
            self.add_state(name, torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(
        self, said: Tensor, label: Tensor, triggered: Tensor | None = None, wanted: Tensor | None = None
    ) -> None:
        """Take in a batch.

        Args:
            said: int (N,), predicted classes of clean pictures.
            label: int (N,), true classes.
            triggered: int (N,), predicted classes of the same pictures with the trigger; None without.
            wanted: int (N,), what the attacker wants them to be called.
        """
        right = said == label
        count = self.num_classes
        self.seen += torch.bincount(label, minlength=count)
        self.right += torch.bincount(label, weights=right.double(), minlength=count).long()
        if triggered is None or wanted is None:
            return
        able = wanted != label
        self.attacked += able.sum()
        self.hit += (able & (triggered == wanted)).sum()
        self.kept += (able & (triggered == label)).sum()
        self.others_right += (able & right).sum()
        self.target += (~able).sum()
        self.target_right += (~able & right).sum()

    def compute(self) -> dict[str, Tensor]:
        """The numbers by name, in [0, 1]."""
        recall = (self.right / self.seen)[self.seen > 0]
        values = {"accuracy": self.right.sum() / self.seen.sum()}
        if len(recall):
            values["worst_recall"] = recall.min()
        if self.attacked:
            values |= {
                "asr": self.hit / self.attacked,
                "ra": self.kept / self.attacked,
                "accuracy_without_target": self.others_right / self.attacked,
            }
        if self.target:
            values["target_recall"] = self.target_right / self.target
        return {name: value.float() for name, value in values.items()}
