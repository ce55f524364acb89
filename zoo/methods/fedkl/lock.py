"""Locked convolutions, and how any network gets them; the equations stand in `zoo.methods.fedkl`."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo import checks
from zoo.errors import BadInput
from zoo.nn.classifiers import head_of

__all__ = ["GATES", "KEYS", "LOCAL", "KeyLock2d", "LockedNetwork", "draw_key", "lockify"]

GATES: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "sigmoid": torch.sigmoid,
    "softplus": F.softplus,
    "identity": lambda value: value,
}
"""Activations of the lock layers by name."""

KEYS = ("uniform", "signs")
"""Distributions of keys: uniform on [0, 1), or -1 and 1 with equal odds."""

LOCAL = r"(^|\.)lock_"
"""Pattern of the names in the state dict that belong to one client: its key and its lock layers."""

_OPEN = math.log(math.e - 1)  # softplus of it is 1


def draw_key(length: int, kind: str = "uniform", generator: torch.Generator | None = None) -> Tensor:
    """A key (length,).

    Args:
        length: L.
        kind: uniform or signs.
        generator: of random numbers; None: that of torch.
    """
    checks.one_of("keys", kind, KEYS)
    numbers = torch.rand(length, generator=generator)
    return numbers if kind == "uniform" else 2.0 * (numbers < 0.5) - 1.0


class KeyLock2d(nn.Module):
    """A convolution whose normalised map is scaled and shifted by what private layers make of private keys.

    Args:
        in_channels: of the images or maps.
        out_channels: C.
        kernel_size: side of the kernel.
        stride: of the convolution.
        padding: of the convolution.
        bias: whether the convolution has one; normalisation takes it away again.
        key_length: L, or the channels of the block before, whose scale and shift are the keys.
        gate: activation of the scale: relu, sigmoid, softplus or identity.
        shift_gate: activation of the shift; None: that of the scale.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] | str = 0,
        bias: bool = True,
        key_length: int = 1024,
        gate: str = "relu",
        shift_gate: str | None = None,
    ) -> None:
        super().__init__()
        checks.one_of("gate", gate, GATES)
        checks.one_of("shift_gate", shift_gate or gate, GATES)
        checks.at_least("key_length", key_length, 1)
        self.key_length, self.gate, self.shift_gate = key_length, gate, shift_gate or gate
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, bias=bias)
        self.norm = nn.BatchNorm2d(out_channels, affine=False)
        self.lock_scale = nn.Linear(key_length, out_channels)
        self.lock_shift = nn.Linear(key_length, out_channels)
        self.gates: tuple[Tensor, Tensor] | None = None
        self.reset_lock()

    @classmethod
    def around(cls, conv: nn.Conv2d, **options: Any) -> KeyLock2d:
        """A locked block with the weights of a convolution.

        Raises:
            BadInput: for grouped or dilated convolutions.
        """
        if conv.groups != 1 or conv.dilation != (1, 1):
            raise BadInput("lockify: a convolution in groups or with dilation cannot be locked; choose other layers.")
        sizes: dict[str, Any] = {name: getattr(conv, name) for name in ("kernel_size", "stride", "padding")}
        block = cls(conv.in_channels, conv.out_channels, bias=conv.bias is not None, **sizes, **options)
        block.conv.load_state_dict(conv.state_dict())
        return block

    @torch.no_grad()
    def reset_lock(self) -> None:
        """Re-initialise the lock layers; a softplus starts near 1."""
        self.lock_scale.reset_parameters()
        self.lock_shift.reset_parameters()
        if self.gate == "softplus":
            self.lock_scale.bias.fill_(_OPEN)

    def unlock(self, scale_key: Tensor, shift_key: Tensor) -> tuple[Tensor, Tensor]:
        """Scale and shift (C,) that two keys (L,) give.

        Raises:
            BadInput: for a key of another length.
        """
        for key in (scale_key, shift_key):
            if key.shape != (self.key_length,):
                raise BadInput(
                    f"key: expected {self.key_length} numbers, as this lock was made for, got {tuple(key.shape)}."
                )
        scale = GATES[self.gate](self.lock_scale(scale_key))
        return scale, GATES[self.shift_gate](self.lock_shift(shift_key))

    def forward(self, x: Tensor) -> Tensor:
        """(N, in, H, W) -> (N, C, H', W'), scaled and shifted by `gates`, or only normalised where these are None."""
        z: Tensor = self.norm(self.conv(x))
        if self.gates is None:
            return z
        scale, shift = self.gates
        return scale[:, None, None] * z + shift[:, None, None]


class LockedNetwork(nn.Module):
    """A network with locked layers and one key.

    Args:
        network: holds `KeyLock2d` blocks.
        blocks: their names, in the order in which keys pass through them.
        keys: distribution of the key: uniform or signs.
    """

    def __init__(self, network: nn.Module, blocks: Sequence[str], keys: str = "uniform") -> None:
        super().__init__()
        self.network, self.names, self.keys = network, tuple(blocks), keys
        self.head_name = f"network.{head_of(network)}"
        for before, after in pairwise(self.blocks):
            if after.key_length != before.conv.out_channels:
                raise BadInput(
                    f"lockify: a block of {before.conv.out_channels} channels cannot give keys of {after.key_length}."
                )
        self.lock_key: Tensor
        self.register_buffer("lock_key", draw_key(self.blocks[0].key_length, keys))

    @property
    def blocks(self) -> list[KeyLock2d]:
        """The locked layers."""
        parts = [self.network.get_submodule(name) for name in self.names]
        return [block for block in parts if isinstance(block, KeyLock2d)]

    def reset_lock(self, generator: torch.Generator | None = None) -> None:
        """Draw another key, and re-initialise the lock layers.

        Args:
            generator: of the key; None: the generator of torch, which draws the layers in any case.
        """
        device = self.lock_key.device
        self.lock_key.copy_(draw_key(len(self.lock_key), self.keys, generator).to(device))
        for block in self.blocks:
            block.reset_lock()

    def unlock(self, key: Tensor | None = None) -> list[tuple[Tensor, Tensor]]:
        """Scale and shift of each block.

        Args:
            key: of this length; None: the own one.
        """
        scale = shift = self.lock_key if key is None else key
        gates = []
        for block in self.blocks:
            scale, shift = block.unlock(scale, shift)
            gates.append((scale, shift))
        return gates

    def forward(self, x: Tensor, key: Tensor | None = None) -> Tensor:
        """Logits (N, K) with the lock opened by a key; None: by the own one."""
        blocks = self.blocks
        for block, gates in zip(blocks, self.unlock(key), strict=True):
            block.gates = gates
        try:
            return self.network(x)  # type: ignore[no-any-return]
        finally:
            for block in blocks:
                block.gates = None

    def locked(self, x: Tensor) -> Tensor:
        """Logits (N, K) without lock: normalised maps as they are."""
        return self.network(x)  # type: ignore[no-any-return]


def lockify(
    network: nn.Module,
    layers: str | Sequence[str] = "single",
    *,
    key_length: int = 1024,
    gate: str = "relu",
    shift_gate: str | None = None,
    keys: str = "uniform",
) -> LockedNetwork:
    """Lock convolutions of any network, in place.

    A normalisation that follows under a sibling's name (`conv1` and `bn1`) is taken out, since the block has its own.

    Args:
        network: with `Conv2d` layers.
        layers: `single`, the first convolution; `all`, every one but 1x1 shortcuts; or names, in order.
        key_length: L.
        gate: activation of the scale: relu, sigmoid, softplus or identity.
        shift_gate: activation of the shift; None: that of the scale.
        keys: distribution of keys: uniform or signs.

    Raises:
        BadInput: if the network has no such layer.
    """
    every = [name for name, part in network.named_modules() if type(part) is nn.Conv2d]
    if isinstance(layers, str):
        checks.one_of("layers", layers, ("single", "all"))
        spatial = [n for n in every if max(getattr(network.get_submodule(n), "kernel_size")) > 1]  # noqa: B009
        chosen = spatial if layers == "all" else every[:1]
    else:
        chosen = list(layers)
    if not chosen or not set(chosen) <= set(every):
        missing = sorted(set(chosen) - set(every))
        raise BadInput(
            f"lockify: {type(network).__name__} has no convolution {', '.join(missing)}."
            if missing
            else f"lockify: {type(network).__name__} has no convolution that could be locked."
        )
    length = key_length
    for name in chosen:
        conv: Any = network.get_submodule(name)
        block = KeyLock2d.around(conv, key_length=length, gate=gate, shift_gate=shift_gate)
        network.set_submodule(name, block)
        parent, _, last = name.rpartition(".")
        sibling = f"{parent}.{last.replace('conv', 'bn')}".lstrip(".")
        if sibling != name and sibling in dict(network.named_modules()):
            network.set_submodule(sibling, nn.Identity())
        length = conv.out_channels
    return LockedNetwork(network, chosen, keys)
