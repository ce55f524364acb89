"""VGG16 for 32x32, as robustness papers use it."""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn

from zoo.errors import BadInput

__all__ = ["VGG16"]

_BLOCKS = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))
"""Channels and convolutions of each block."""

SIDE = 32
"""Least side of the pictures: each block halves it."""


class VGG16(nn.Module):
    """VGG16 with batch normalisation (Simonyan and Zisserman 2015) and a head of three layers, 512, 512, K.

    Blocks are `block1` to `block5`, in each `conv1, bn1, relu1, ..., pool`; maps are averaged over what is left of
    space, one pixel for 32x32. Sides of at least 32.

    Args:
        num_classes: K.
        channels: of the images.
    """

    def __init__(self, num_classes: int, channels: int) -> None:
        super().__init__()
        inside = channels
        for number, (out, count) in enumerate(_BLOCKS, 1):
            parts: OrderedDict[str, nn.Module] = OrderedDict()
            for k in range(1, count + 1):
                parts[f"conv{k}"] = nn.Conv2d(inside, out, 3, padding=1, bias=False)
                parts[f"bn{k}"] = nn.BatchNorm2d(out)
                parts[f"relu{k}"] = nn.ReLU()
                inside = out
            parts["pool"] = nn.MaxPool2d(2)
            self.add_module(f"block{number}", nn.Sequential(parts))
        self.hidden = nn.Sequential(nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU())
        self.linear = nn.Linear(512, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> logits (N, K).

        Raises:
            BadInput: for pictures that the five poolings would leave nothing of.
        """
        if min(x.shape[2:]) < SIDE:
            raise BadInput(
                f"img_size: VGG16 takes pictures of at least {SIDE}x{SIDE} pixels, got {x.shape[2]}x{x.shape[3]}: "
                f"set img_size to {SIDE} or more, of the data too, or choose another network."
            )
        for number in range(1, len(_BLOCKS) + 1):
            x = self.get_submodule(f"block{number}")(x)
        return self.linear(self.hidden(x.mean((2, 3))))
