"""Networks for detector signals: (B, C, L), standardised per channel, to (B, D) features by global pooling.

`width` multiplies the numbers of channels given here, which are those of time series extrinsic regression benchmarks.
"""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.errors import BadInput
from zoo.nn.timm_models import create_timm

__all__ = ["NETWORKS", "PatchTransformer", "make_network"]


def _wide(width: float, channels: int) -> int:
    return max(4, round(width * channels / 4) * 4)


class _Same(nn.Conv1d):
    """Convolution that keeps the length, also with an even kernel."""

    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        super().__init__(inputs, outputs, kernel, bias=False)
        self.ends = ((kernel - 1) // 2, kernel // 2)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.pad(x, self.ends))


def _conv(inputs: int, outputs: int, kernel: int) -> nn.Sequential:
    """Convolution that keeps the length, batch normalisation."""
    return nn.Sequential(_Same(inputs, outputs, kernel), nn.BatchNorm1d(outputs))


class FCN(nn.Module):
    """Three convolutions of 128 x 8, 256 x 5 and 128 x 3 (Wang, Yan and Oates 2017)."""

    def __init__(self, channels: int, width: float) -> None:
        super().__init__()
        sizes = [channels, *(_wide(width, n) for n in (128, 256, 128))]
        pairs = zip(sizes[:-1], sizes[1:], (8, 5, 3), strict=True)
        self.layers = nn.ModuleList(_conv(a, b, k) for a, b, k in pairs)
        self.dim = sizes[-1]

    def forward(self, x: Tensor) -> Tensor:
        """Features (B, D)."""
        for layer in self.layers:
            x = F.relu(layer(x))
        return x.mean(2)


class _Residual(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList([_conv(inputs, outputs, 8), _conv(outputs, outputs, 5), _conv(outputs, outputs, 3)])
        self.shortcut = _conv(inputs, outputs, 1) if inputs != outputs else nn.BatchNorm1d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        first, second, third = self.convs
        return F.relu(third(F.relu(second(F.relu(first(x))))) + self.shortcut(x))


class ResNet1d(nn.Module):
    """Three residual blocks of 64, 128 and 128 channels (Wang, Yan and Oates 2017)."""

    def __init__(self, channels: int, width: float) -> None:
        super().__init__()
        sizes = [channels, *(_wide(width, n) for n in (64, 128, 128))]
        self.blocks = nn.Sequential(*(_Residual(a, b) for a, b in itertools.pairwise(sizes)))
        self.dim = sizes[-1]

    def forward(self, x: Tensor) -> Tensor:
        """Features (B, D)."""
        return self.blocks(x).mean(2)


class _InceptionBlock(nn.Module):
    """Bottleneck, kernels of 40, 20 and 10 side by side, and a branch of max pooling."""

    def __init__(self, inputs: int, filters: int) -> None:
        super().__init__()
        self.bottleneck = nn.Conv1d(inputs, filters, 1, bias=False)
        sizes = (40, 20, 10)
        self.branches = nn.ModuleList(_Same(filters, filters, k) for k in sizes)
        self.pooled = nn.Conv1d(inputs, filters, 1, bias=False)
        self.norm = nn.BatchNorm1d(4 * filters)

    def forward(self, x: Tensor) -> Tensor:
        narrow = self.bottleneck(x)
        parts = [branch(narrow) for branch in self.branches]
        return F.relu(self.norm(torch.cat([*parts, self.pooled(F.max_pool1d(x, 3, 1, 1))], 1)))


class Inception(nn.Module):
    """Six blocks of 4 x 32 filters with a shortcut every three (Fawaz et al. 2020)."""

    def __init__(self, channels: int, width: float, depth: int = 6) -> None:
        super().__init__()
        filters = _wide(width, 32)
        self.dim = 4 * filters
        self.blocks = nn.ModuleList(_InceptionBlock(self.dim if i else channels, filters) for i in range(depth))
        self.shortcuts = nn.ModuleList(_conv(channels if i == 0 else self.dim, self.dim, 1) for i in range(depth // 3))

    def forward(self, x: Tensor) -> Tensor:
        """Features (B, D)."""
        held = x
        for i, block in enumerate(self.blocks):
            x = block(x)
            if i % 3 == 2:
                x = F.relu(x + self.shortcuts[i // 3](held))
                held = x
        return x.mean(2)


class LSTM(nn.Module):
    """Two bidirectional layers of 128, averaged over time."""

    def __init__(self, channels: int, width: float) -> None:
        super().__init__()
        hidden = _wide(width, 128)
        self.lstm = nn.LSTM(channels, hidden, num_layers=2, bidirectional=True, batch_first=True)
        self.dim = 2 * hidden

    def forward(self, x: Tensor) -> Tensor:
        """Features (B, D)."""
        return self.lstm(x.transpose(1, 2))[0].mean(1)


class _Masked(nn.Module):
    """What only pre-training needs: the token of hidden patches, and how their samples are read from features."""

    def __init__(self, dim: int, samples: int) -> None:
        super().__init__()
        self.token = nn.Parameter(0.02 * torch.randn(dim))
        self.decoder = nn.Linear(dim, samples)


class PatchTransformer(nn.Module):
    """Patches of 8 samples, three layers of width 64 with 4 heads, learned positions, averaged over patches.

    Args:
        channels: C.
        width: factor of the 64.
        length: L, a multiple of 8.
        decoder: add what masked pre-training needs: a token for hidden patches and their linear decoder.
    """

    patch = 8

    def __init__(self, channels: int, width: float, length: int, decoder: bool = False) -> None:
        super().__init__()
        if length % self.patch:
            raise BadInput(f"The transformer reads patches of {self.patch} samples: length={length} is no multiple.")
        self.dim = _wide(width, 64)
        self.embed = nn.Linear(channels * self.patch, self.dim)
        self.position = nn.Parameter(0.02 * torch.randn(1, length // self.patch, self.dim))
        layer = nn.TransformerEncoderLayer(
            self.dim, 4, 4 * self.dim, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, 3, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(self.dim)
        self.masked = _Masked(self.dim, channels * self.patch) if decoder else None

    def patches(self, x: Tensor) -> Tensor:
        """(B, C, L) as (B, L / 8, 8 C)."""
        b, c, length = x.shape
        return x.view(b, c, length // self.patch, self.patch).transpose(1, 2).flatten(2)

    def forward(self, x: Tensor) -> Tensor:
        """Features (B, D)."""
        return self.norm(self.encoder(self.embed(self.patches(x)) + self.position)).mean(1)

    def reconstruction_loss(self, x: Tensor, hidden: Tensor) -> Tensor:
        """Mean squared error of the hidden patches, read from the others.

        Args:
            x: standardised signals (B, C, L).
            hidden: bool (B, L / 8).
        """
        assert self.masked is not None
        patches = self.patches(x)
        token = self.masked.token
        tokens = torch.where(hidden[..., None], token, self.embed(patches))
        decoded = self.masked.decoder(self.norm(self.encoder(tokens + self.position)))
        error = (decoded.float() - patches).square().mean(2)
        return (error * hidden).sum() / hidden.sum().clamp(min=1)


class SpectrogramCNN(nn.Module):
    """The signal as a picture: log power spectra in windows of 32 every 8 samples, one channel per detector, timm net.

    The transform is a convolution with fixed sines and cosines, so that it exports with the network.
    """

    window, hop = 32, 8

    def __init__(self, channels: int, backbone: str, pretrained: bool) -> None:
        super().__init__()
        self.channels = channels
        network = create_timm(backbone, pretrained=pretrained, in_chans=channels, num_classes=0)
        self.backbone = network
        self.dim = int(network.num_features)
        time = torch.arange(self.window, dtype=torch.float64)
        phase = 2 * torch.pi * torch.outer(torch.arange(self.window // 2 + 1, dtype=torch.float64), time) / self.window
        hann = torch.hann_window(self.window, dtype=torch.float64)
        basis = torch.cat([phase.cos() * hann, phase.sin() * hann])[:, None].float()
        self.register_buffer("basis", basis, persistent=False)
        self.basis: Tensor

    def spectrogram(self, x: Tensor) -> Tensor:
        """(B, C, L) to (B, C, 17, L / 8 + 1)."""
        b, c, _ = x.shape
        padded = F.pad(x, (self.window // 2, self.window // 2), mode="reflect")
        parts = F.conv1d(padded.flatten(0, 1)[:, None], self.basis, stride=self.hop)
        real, imaginary = parts.chunk(2, 1)
        power = (real.square() + imaginary.square() + 1e-3).log()
        return power.view(b, c, power.shape[1], power.shape[2])

    def forward(self, x: Tensor) -> Tensor:
        """Features (B, D)."""
        return self.backbone(self.spectrogram(x))


NETWORKS = ("fcn", "resnet1d", "inception", "lstm", "transformer", "spectrogram-cnn")


def make_network(name: str, given: dict[str, Any]) -> nn.Module:
    """A network by name, with an attribute `dim`.

    Args:
        name: one of `NETWORKS`.
        given: hyper-parameters of the method.
    """
    channels, width = int(given["channels"]), float(given["width"])
    if name == "fcn":
        return FCN(channels, width)
    if name == "resnet1d":
        return ResNet1d(channels, width)
    if name == "inception":
        return Inception(channels, width, int(given["depth"]))
    if name == "lstm":
        return LSTM(channels, width)
    if name == "transformer":
        return PatchTransformer(channels, width, int(given["length"]), given["objective"] == "masked")
    return SpectrogramCNN(channels, given["backbone"], bool(given["pretrained_backbone"]))
