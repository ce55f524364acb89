"""Which memory layout images reach the network in."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from zoo.base.image_classifier import ImageClassifier


class Plain(ImageClassifier):
    """Without the hyper-parameter `channels_last`."""

    def __init__(self, network: str = "resnet10-w4-gn", num_classes: int = 3, channels: int = 1, img_size: int = 8):
        super().__init__()


@pytest.mark.parametrize(
    ("network", "strides"), [("resnet10-w4-gn", (64, 64, 8, 1)), ("resnet10-w8-gn", (64, 1, 8, 1))]
)
def test_narrow_networks_never_see_channels_last(network: str, strides: tuple[int, ...]) -> None:
    """A picture of one channel may have the strides of either layout, and convolutions choose by them.

    In channels_last the narrowest strided projections wrote behind their memory.
    """
    model = Plain(network)
    images = torch.rand(2, 8, 8, 1).permute(0, 3, 1, 2)
    seen: list[tuple[int, ...]] = []

    def look(module: torch.nn.Module, args: tuple[Tensor, ...]) -> None:
        seen.append(args[0].stride())

    model.network.get_submodule("conv1").register_forward_pre_hook(look)
    model(images)
    model.network(model.prepared(images))
    assert seen == [strides] * 2
