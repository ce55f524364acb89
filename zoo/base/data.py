"""What every data module promises to the rest of the zoo, without saying how."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from lightning import LightningDataModule

__all__ = ["ChoosesSamples", "DataContract", "TrainingPart"]


@dataclass(frozen=True)
class TrainingPart:
    """What an epoch trains on.

    Attributes:
        indices: of the training samples; None for all.
        augment: whether they are augmented, where the data set does that.
        batch_size: samples per batch and process; None for that of the data module. With one, batches are as equal as
            can be and none is dropped.
    """

    indices: Sequence[int] | None = None
    augment: bool = True
    batch_size: int | None = None


@runtime_checkable
class ChoosesSamples(Protocol):
    """A module that trains on a part of the training samples, another one in each epoch if it likes.

    A new loader is made for each epoch if the Trainer's `reload_dataloaders_every_n_epochs` is 1.
    """

    def training_part(self, data: Any) -> TrainingPart:
        """The part for the coming epoch; all ranks call it, with the whole training set.

        Args:
            data: the training set, whose items have an `index`.
        """
        ...


class DataContract(LightningDataModule):
    """A data module that can say what its data are like and write an example of their layout."""

    @abstractmethod
    def facts(self) -> dict[str, Any]:
        """What the data say about a model's arguments (num_classes, class_names, channels, ...), in under a second."""

    @abstractmethod
    def fake(self, folder: str | Path) -> Path:
        """Write a miniature of the real on-disk layout into `folder` and return it."""

    def summary(self, split: str) -> list[str]:
        """Lines that say more about a split than its number of samples, such as objects per class."""
        return []
