"""Pictures that a run shows while it goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule
from torch import Tensor

__all__ = ["hand_over"]


def hand_over(module: LightningModule, key: str, image: Tensor) -> None:
    """Give a picture to whatever logger takes pictures; without one, write a PNG into the run's folder.

    Args:
        module: in training or evaluation; only rank 0 does anything.
        key: such as `val/boxes`.
        image: uint8 or float in [0, 1], (3, H, W).
    """
    trainer, step = module.trainer, module.global_step
    if not trainer.is_global_zero:
        return
    pixels = image if image.dtype == torch.uint8 else (image.clamp(0, 1) * 255).to(torch.uint8)
    for logger in module.loggers:
        board: Any = getattr(logger, "experiment", None)
        if hasattr(board, "add_image"):
            board.add_image(key, pixels, step)
            return
        if hasattr(logger, "log_image"):
            logger.log_image(key, [pixels], step=step)
            return
    from PIL import Image

    folder = Path(trainer.log_dir or trainer.default_root_dir) / "images"
    folder.mkdir(parents=True, exist_ok=True)
    array = pixels.permute(1, 2, 0).cpu().numpy()
    Image.fromarray(array).save(folder / f"{key.replace('/', '_')}_{step:06d}.png")
