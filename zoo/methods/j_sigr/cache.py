"""Saliency of all training images, computed now and then and kept as bytes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zoo.base.ranks import gather, own_batches
from zoo.errors import BadInput, InvalidConfig
from zoo.nn.saliency import scaled

__all__ = ["SaliencyCache"]

CHUNK = 128
"""Images of a pass, before they are perturbed."""


class SaliencyCache:
    """Perturbation saliency of the training images by their numbers, uint8 (n, rows, columns).

    A map is divided by its maximum before it is rounded, which loses 1/510 at most; it belongs to the image as it is,
    so that `of` mirrors it where the image was mirrored.

    Attributes:
        values: None before the first `refresh`.
        epoch: in which they were computed; -1 for none.
    """

    def __init__(self) -> None:
        self.values: Tensor | None = None
        self.epoch = -1

    @torch.no_grad()
    def refresh(
        self,
        data: Any,
        saliency: Callable[[Tensor], Tensor],
        move: Callable[[Any], Any],
        collate: Callable[[Any], Any],
        epoch: int,
    ) -> None:
        """Compute the maps of a training set; all ranks share the work and get the same.

        Args:
            data: the training set; its augmentation is left out.
            saliency: images (N, C, H, W) -> (N, rows, columns).
            move: a batch to the right device.
            collate: makes a batch of what the set returns.
            epoch: which it is.

        Raises:
            InvalidConfig: if its images change by more than being mirrored.
            BadInput: if its items have no index.
        """
        check_augmentation(data)
        measured: list[tuple[np.ndarray, np.ndarray]] = []
        for batch in own_batches(data, collate, CHUNK):
            if not {"index", "image"} <= set(batch):
                raise BadInput(
                    f"saliency: training samples need index and image, these have {', '.join(sorted(batch))}."
                )
            grids = scaled(saliency(move(batch)["image"]))
            measured.append((batch["index"].numpy(), (grids * 255).round().to(torch.uint8).cpu().numpy()))
        parts = [part for each in gather(measured) for part in each]
        values = np.zeros((len(data), *parts[0][1].shape[1:]), np.uint8)
        for index, grids in parts:
            values[index] = grids
        self.values, self.epoch = torch.from_numpy(values), epoch

    def of(self, index: Tensor, mirrored: Tensor | None = None) -> Tensor:
        """Maps (N, rows, columns) in [0, 1] of some training images.

        Args:
            index: (N,) their numbers.
            mirrored: bool (N,), which of them are flipped from left to right.

        Raises:
            InvalidConfig: before the first `refresh`.
        """
        if self.values is None:
            raise InvalidConfig("The saliency of the training images has not been computed yet.")
        grids = self.values[index.cpu()].to(index.device).float() / 255
        return grids if mirrored is None else torch.where(mirrored[:, None, None], grids.flip(2), grids)

    def state(self) -> dict[str, Any]:
        """What a checkpoint needs to go on."""
        return {"values": self.values, "epoch": self.epoch}

    def load_state(self, state: dict[str, Any]) -> None:
        """Take back what `state` returned."""
        values = state.get("values")
        self.values, self.epoch = None if values is None else values.cpu(), int(state.get("epoch", -1))


def check_augmentation(data: Any) -> None:
    """Refuse augmentation that moves pixels otherwise than by mirroring: a cached map would not fit.

    Raises:
        InvalidConfig: naming the options of the data.
    """
    augment, cutmix = getattr(data, "augment", None), getattr(data, "cutmix", None)
    wrong = [name for name in ("crop", "cutout") if getattr(augment, name, 0)] + (["cutmix"] if cutmix else [])
    if wrong:
        raise InvalidConfig(
            f"The saliency of a training image is cached, so it may only be mirrored: set data.{wrong[0]} to 0 (flip "
            "may stay), or model.selective to 0."
        )
