"""The suppression of channels, and where it sits in a network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from threading import get_ident
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.errors import BadInput, nearest
from zoo.nn.attacks import attack_mode
from zoo.nn.classifiers import VGG16, ResNet, WideResNet, head_of

__all__ = ["ChannelSuppression", "Choice", "places_of", "predicted", "suppress"]

Choice = Callable[[Tensor, Tensor], Tensor]
"""Which weights multiply the channels: (auxiliary logits (N, K), weights (K, C)) -> mask (N, C)."""


def predicted(logits: Tensor, weight: Tensor) -> Tensor:
    """The row of the likeliest class: the mask of every evaluation. Its choice has no gradient, the row has."""
    return weight[logits.argmax(1)]


class ChannelSuppression(nn.Module):
    """An auxiliary classifier whose weights multiply the channels that it sees.

    It acts on the input of the layer that `suppress` names. The rows of the weights are used as they are, without a
    softmax or a bound: entries may be negative or above 1.

    Args:
        channels: C.
        num_classes: K.
    """

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        self.classifier = nn.Linear(channels, num_classes)
        self.listeners: dict[int, tuple[Choice, list[Tensor]]] = {}
        """Thread -> which masks its passes take, and where their auxiliary logits are put; others are not concerned."""

    def forward(self, f: Tensor, choose: Choice = predicted) -> tuple[Tensor, Tensor]:
        """Suppress the channels of a map, in single precision at least.

        Args:
            f: (N, C, H, W), or (N, C) where the spatial mean has been taken already.
            choose: which weights multiply the channels.

        Returns:
            f' of the same shape and type, and the auxiliary logits a (N, K).
        """
        with torch.autocast(f.device.type, enabled=False):
            wide = f.float() if f.dtype in (torch.float16, torch.bfloat16) else f
            weight, bias = self.classifier.weight.to(wide.dtype), self.classifier.bias.to(wide.dtype)
            logits = F.linear(wide.mean((2, 3)) if wide.ndim == 4 else wide, weight, bias)
            mask = choose(logits, weight)
            return (wide * (mask[:, :, None, None] if wide.ndim == 4 else mask)).to(f.dtype), logits

    def on_input(self, layer: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        """Act on what a layer is about to take."""
        if not self.listeners or (listener := self.listeners.get(get_ident())) is None:
            return (self(inputs[0])[0], *inputs[1:])
        choose, heard = listener
        suppressed, logits = self(inputs[0], choose)
        heard.append(logits)
        return (suppressed, *inputs[1:])


def places_of(network: nn.Module) -> list[str]:
    """Names of the layers whose inputs the paper suppresses; in a network that it does not use, the last one.

    ResNet: behind the last two blocks. VGG16: behind each activation of the fifth block. Wide ResNet: the activated
    input of the last block, but not of its shortcut, and the final activation. Behind the last map comes a mean over
    space, with which the mask commutes.
    """
    head = head_of(network)
    if isinstance(network, ResNet):
        stage = network.stages
        blocks = len(network.get_submodule(f"layer{stage}"))  # type: ignore[arg-type]
        return [f"layer{stage}.{blocks - 1}" if blocks > 1 else f"layer{stage}", head]
    if isinstance(network, WideResNet):
        blocks = len(network.get_submodule("block3.layer"))  # type: ignore[arg-type]
        return [f"block3.layer.{blocks - 1}.conv1", head]
    if isinstance(network, VGG16):
        return ["block5.conv2", "block5.conv3", "block5.pool"]
    return [head]


def suppress(network: nn.Module, layers: Sequence[str], num_classes: int, shape: Sequence[int]) -> nn.ModuleList:
    """Build a suppression in front of each layer; from then on the network's own passes go through it.

    Args:
        network: changed in place.
        layers: names of its layers.
        num_classes: K.
        shape: (C, H, W) of its images.

    Returns:
        One `ChannelSuppression` for each layer.

    Raises:
        BadInput: if there is no such layer, or if it does not take one map (N, C, H, W) or one vector (N, C), or if the
            images are too small for the network.
    """
    named = dict(network.named_modules())
    for name in layers:
        if name not in named or not name:
            raise BadInput(
                f"suppress: {type(network).__name__} has no layer {name!r}.{nearest(name, list(named)[1:])} Give names "
                "of layers whose inputs are suppressed; null takes those of the paper, [] none."
            )
    if twice := sorted({name for name in layers if list(layers).count(name) > 1}):
        raise BadInput(f"suppress: the layer {twice[0]!r} is given twice.")
    widths = _widths(network, [named[name] for name in layers], shape)
    made = nn.ModuleList()
    for name, width in zip(layers, widths, strict=True):
        if width is None:
            raise BadInput(
                f"suppress: the layer {name!r} takes no map (N, channels, H, W) or vector (N, channels); name another."
            )
        part = ChannelSuppression(width, num_classes)
        named[name].register_forward_pre_hook(part.on_input)
        made.append(part)
    return made


def _widths(network: nn.Module, layers: Sequence[nn.Module], shape: Sequence[int]) -> list[int | None]:
    """Number of channels that each layer takes, from one pass; None where it takes something else."""
    seen: dict[int, int] = {}

    def look(layer: nn.Module, inputs: tuple[Any, ...]) -> None:
        if inputs and isinstance(inputs[0], Tensor) and inputs[0].ndim in (2, 4):
            seen[id(layer)] = inputs[0].shape[1]

    hooks = [layer.register_forward_pre_hook(look) for layer in layers]
    first = next(network.parameters())
    try:
        with attack_mode(network), torch.no_grad():
            network(torch.zeros(1, *shape, device=first.device, dtype=first.dtype))
    finally:
        for hook in hooks:
            hook.remove()
    return [seen.get(id(layer)) for layer in layers]
