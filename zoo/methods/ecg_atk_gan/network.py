"""The discriminator, which is the classifier, and the generator, for beats (N, C, L)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["Discriminator", "Generator", "smooth_latent", "statistics_at_rest"]

SLOPE = 0.2
EMBEDDING = 50
SIGMA = 4.0


def _block(conv: nn.Module, out: int) -> nn.Sequential:
    return nn.Sequential(OrderedDict(conv=conv, norm=nn.BatchNorm1d(out), act=nn.LeakyReLU(SLOPE)))


def _conv(inside: int, out: int, stride: int = 1) -> nn.Sequential:
    return _block(nn.Conv1d(inside, out, 3, stride, padding=1), out)


class Discriminator(nn.Module):
    """D: four stages of two convolutions, the second of stride 2, and three linear heads on the flattened features.

    Args:
        num_classes: K.
        channels: C, leads.
        length: L, points of a beat; the heads fit no other.
        width: filters of the first stage, doubled in each further one; 32 in the paper.
        dropout: after stages 1, 3 and 4.
    """

    def __init__(
        self, num_classes: int, channels: int = 1, length: int = 280, width: int = 32, dropout: float = 0.2
    ) -> None:
        super().__init__()
        stages: list[nn.Module] = []
        inside, left = channels, length
        for number in range(4):
            out = width * 2**number
            stages += [_conv(inside, out), _conv(out, out, stride=2)]
            if number != 1:
                stages.append(nn.Dropout(dropout))
            inside, left = out, (left + 1) // 2
        self.trunk = nn.Sequential(*stages, nn.Flatten())
        self.real = nn.Linear(inside * left, 1)
        self.attack = nn.Linear(inside * left, 2)
        self.head = nn.Linear(inside * left, num_classes)

    def classify(self, x: Tensor) -> Tensor:
        """Class logits (N, K)."""
        out: Tensor = self.head(self.trunk(x))
        return out

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logit of real (N, 1), logits of no attack and attack (N, 2), class logits (N, K)."""
        features = self.trunk(x)
        return self.real(features), self.attack(features), self.head(features)


class _Residual(nn.Module):
    """u = conv(x); u + LeakyReLU(BN(u)): the skip leaves after the convolution, which also settles the channels."""

    def __init__(self, inside: int, out: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(inside, out, 3, padding=1)
        self.norm = nn.BatchNorm1d(out)

    def forward(self, x: Tensor) -> Tensor:
        u: Tensor = self.conv(x)
        return u + F.leaky_relu(self.norm(u), SLOPE)


class _Up(nn.Module):
    """Transposed convolution of stride 2 to a stated length, which an odd one needs."""

    def __init__(self, inside: int, out: int) -> None:
        super().__init__()
        self.conv = nn.ConvTranspose1d(inside, out, 3, 2, padding=1)
        self.norm = nn.BatchNorm1d(out)

    def forward(self, x: Tensor, length: int) -> Tensor:
        return F.leaky_relu(self.norm(self.conv(x, output_size=[length])), SLOPE)


def _dilated(width: int) -> nn.Sequential:
    """SDA block: two taps two points apart, the same length. Despite its name it has no weights of attention."""
    return _block(nn.Conv1d(width, width, 2, dilation=2, padding=1), width)


class Generator(nn.Module):
    """G: a U-Net with sums for skips, from a beat, a smooth latent and a class to a beat in [0, 1].

    Args:
        num_classes: K; the map of classes has one channel for each (the authors' code fits K = 2 only).
        channels: C.
        length: L.
        width: channels of the first block, doubled twice; 32 in the paper.
    """

    def __init__(self, num_classes: int, channels: int = 1, length: int = 280, width: int = 32) -> None:
        super().__init__()
        self.width, self.length = width, length
        self.latent = nn.Linear(length, length * width)
        self.embed = nn.Embedding(2, EMBEDDING)
        self.spread = nn.Linear(EMBEDDING, length)
        sizes = [width, 2 * width, 4 * width]
        before = [width + num_classes + channels, *sizes[:2]]
        self.residual = nn.ModuleList(_Residual(i, o) for i, o in zip(before, sizes, strict=True))
        self.dilated = nn.ModuleList(_dilated(o) for o in sizes)
        self.down = nn.ModuleList(_conv(o, o, stride=2) for o in sizes)
        self.up = nn.ModuleList(_Up(i, o) for i, o in ((sizes[2], sizes[2]), (sizes[2], sizes[1]), (sizes[1], width)))
        self.out = nn.Conv1d(width, channels, 3, padding=1)

    def forward(self, x: Tensor, y: Tensor, z: Tensor) -> Tensor:
        """Beats (N, C, L).

        Args:
            x: (N, C, L) source beats.
            y: (N, K) one-hot classes.
            z: (N, L) smooth latents.
        """
        noise = F.leaky_relu(self.latent(z), SLOPE).view(len(z), self.width, self.length)
        x = torch.cat([noise, self.spread(self.embed(y.long())), x], 1)
        kept = []
        for residual, dilated, down in zip(self.residual, self.dilated, self.down, strict=True):
            x = residual(x)
            kept.append(dilated(x))
            x = down(x)
        for up, skip in zip(self.up, reversed(kept), strict=True):
            x = up(x, skip.shape[-1]) + skip
        return torch.sigmoid(self.out(x))


@contextmanager
def statistics_at_rest(network: nn.Module) -> Iterator[None]:
    """Batch normalisation by the batch inside, of which running statistics learn nothing.

    Generated beats come in batches of their own. Statistics that averaged them with real ones would fit neither, and
    the network would be another one in evaluation than it is in training.
    """
    parts = [part for part in network.modules() if isinstance(part, nn.BatchNorm1d)]
    before = [part.momentum for part in parts]
    try:
        for part in parts:
            part.momentum = 0.0
        yield
    finally:
        for part, momentum in zip(parts, before, strict=True):
            part.momentum = momentum


def smooth_latent(z: Tensor, sigma: float = SIGMA) -> Tensor:
    """Latents (N, L) after a Gaussian filter, mirrored at the ends as scipy's `gaussian_filter1d` does by default.

    Args:
        z: (N, L).
        sigma: standard deviation in points; the filter is cut off at four of them, or at L - 1 points.
    """
    reach = min(int(4 * sigma + 0.5), z.shape[1])
    at = torch.arange(-reach, reach + 1, device=z.device, dtype=z.dtype)
    weight = torch.exp(-0.5 * (at / sigma) ** 2)
    weight = weight / weight.sum()
    # "reflect" of scipy repeats the end point, torch's does not
    padded = torch.cat([z[:, :reach].flip(1), z, z[:, -reach:].flip(1)], 1)
    return F.conv1d(padded[:, None], weight[None, None])[:, 0]
