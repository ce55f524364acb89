"""What every data module promises to the rest of the zoo, without saying how."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import Any

from lightning import LightningDataModule

__all__ = ["DataContract"]


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
