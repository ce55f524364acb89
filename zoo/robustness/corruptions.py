"""Common corruptions of pictures: fifteen kinds at five severities.

    worse = corrupt(images, "fog", severity=3)       # float (N, C, H, W) in [0, 1]

After Hendrycks and Dietterich 2019, "Benchmarking neural network robustness to common corruptions and perturbations"
(arXiv 1903.12261), written from the definitions. The constants are those of CIFAR-10-C, for pictures of 32 pixels a
side; what is counted in pixels (radii, shifts, lengths) grows with the shorter side. Randomness belongs to (seed, index
of the picture, kind), not to the batch, and severities of one kind share their draw.

Where this differs from the published files: `frost` has no photographs of frost to lay over a picture, and draws
crystals from ridges of fractal noise; grey pictures keep their one channel; noises are other draws. Scores on the
published CIFAR-10-C need its files: `zoo.robustness.natural.read_folder`.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from zoo.errors import BadInput, UnknownName, nearest
from zoo.nn.attacks.noise import gaussian, integers, uniform
from zoo.streams import generator_for

__all__ = ["GROUPS", "NAMES", "SEVERITIES", "corrupt"]

SEVERITIES = (1, 2, 3, 4, 5)
_BASE = 32
"""Side of the pictures that the constants are for."""


def corrupt(x: Tensor, name: str, severity: int = 3, *, seed: int = 0, index: Tensor | None = None) -> Tensor:
    """Pictures as a corruption leaves them.

    Args:
        x: (N, C, H, W) in [0, 1], C 1 or 3.
        name: one of `NAMES`.
        severity: 1 to 5.
        seed: of what is drawn.
        index: (N,) identity of the pictures; their position if None.

    Returns:
        Float32 (N, C, H, W) in [0, 1], in steps of 1/255 as a stored picture has them.

    Raises:
        UnknownName: naming the nearest corruption.
        BadInput: for another severity, or what are no pictures.
    """
    if name not in _KINDS:
        raise UnknownName(f"There is no corruption {name!r}.{nearest(name, NAMES)} Corruptions: {', '.join(NAMES)}.")
    if severity not in SEVERITIES:
        raise BadInput(f"severity: expected 1 to 5, got {severity}.")
    if x.ndim != 4 or x.shape[1] not in (1, 3) or not x.is_floating_point():
        raise BadInput(f"Corruptions are for pictures (N, 1 or 3, H, W) in [0, 1], got {x.dtype} {tuple(x.shape)}.")
    if index is None:
        index = torch.arange(len(x))
    draw = _Draw(seed, index.cpu(), NAMES.index(name), min(x.shape[2:]) / _BASE)
    changed = _KINDS[name](x.detach().cpu().float(), draw, severity - 1)
    return ((changed.clamp(0, 1) * 255).round() / 255).to(x.device)


class _Draw:
    """Random numbers of one kind of corruption, and the scale of its lengths.

    Args:
        seed: of the evaluation.
        index: (N,) identity of the pictures.
        kind: number of the corruption.
        scale: shorter side over that of CIFAR.
    """

    def __init__(self, seed: int, index: Tensor, kind: int, scale: float) -> None:
        self.seed, self.index, self.kind, self.scale = seed, index, kind, scale

    def normal(self, shape: Sequence[int], stream: int = 0) -> Tensor:
        """Standard normal numbers (N, *shape)."""
        return gaussian(shape, self.seed, self.index, 1000 * self.kind + stream)

    def uniform(self, shape: Sequence[int], stream: int = 0) -> Tensor:
        """Numbers (N, *shape) in (0, 1)."""
        return uniform(shape, self.seed, self.index, 1000 * self.kind + stream)

    def whole(self, high: Sequence[int], stream: int = 0) -> Tensor:
        """Whole numbers (N, len(high)), column j below high[j]."""
        return integers(high, self.seed, self.index, 1000 * self.kind + stream)


# Noise ------------------------------------------------------------------------------------------------------------


def _gaussian_noise(x: Tensor, draw: _Draw, s: int) -> Tensor:
    return x + (0.04, 0.06, 0.08, 0.09, 0.10)[s] * draw.normal(x.shape[1:])


def _shot_noise(x: Tensor, draw: _Draw, s: int) -> Tensor:
    """Counts of photons, Poisson."""
    photons = (500, 250, 100, 75, 50)[s]
    counts = [
        generator_for(draw.seed, i, draw.kind).poisson(picture * photons)
        for i, picture in zip(draw.index.tolist(), x.double().numpy(), strict=True)
    ]
    return torch.from_numpy(np.stack(counts)).float() / photons


def _impulse_noise(x: Tensor, draw: _Draw, s: int) -> Tensor:
    """Salt and pepper, each in half of the share of values."""
    share = (0.01, 0.02, 0.03, 0.05, 0.07)[s]
    where = draw.uniform(x.shape[1:])
    return torch.where(where < share / 2, 0.0, torch.where(where > 1 - share / 2, 1.0, x))


# Blur -------------------------------------------------------------------------------------------------------------


def _filtered(x: Tensor, kernel: Tensor) -> Tensor:
    """Each channel filtered by an odd kernel (h, w), or by one for each picture (N, h, w); the edge is mirrored."""
    height, width = kernel.shape[-2:]
    pads = [width // 2, width // 2, height // 2, height // 2]
    mode = "reflect" if pads[0] < x.shape[3] and pads[2] < x.shape[2] else "replicate"
    padded = F.pad(x, pads, mode=mode)
    if kernel.ndim == 2:
        return F.conv2d(padded.flatten(0, 1)[:, None], kernel[None, None].to(x)).view_as(x)
    count = len(x) * x.shape[1]
    kernels = kernel.repeat_interleave(x.shape[1], 0)[:, None].to(x)
    return F.conv2d(padded.flatten(0, 1)[None], kernels, groups=count).view_as(x)


def _gauss(sigma: float, radius: int | None = None) -> Tensor:
    reach = max(1, round(4 * sigma)) if radius is None else radius
    line = torch.exp(-(torch.arange(-reach, reach + 1).double() ** 2) / (2 * max(sigma, 1e-6) ** 2))
    return (torch.outer(line, line) / line.sum() ** 2).float()


def _defocus_blur(x: Tensor, draw: _Draw, s: int) -> Tensor:
    """A disk whose edge is smoothed."""
    radius, alias = ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1.0, 0.2), (1.5, 0.1))[s]
    radius *= draw.scale
    reach = 8 if radius <= 8 else math.ceil(radius)
    places = torch.arange(-reach, reach + 1).float()
    disk = ((places[:, None] ** 2 + places[None] ** 2) <= radius**2).float()
    smooth = _filtered((disk / disk.sum())[None, None], _gauss(alias, 1 if radius <= 8 else 2))[0, 0]
    return _filtered(x, smooth / smooth.sum())


def _glass_blur(x: Tensor, draw: _Draw, s: int) -> Tensor:
    """Pixels swapped with near ones between two soft blurs; one step at a time for all pictures."""
    sigma, most, rounds = ((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2))[s]
    most = max(1, round(most * draw.scale))
    changed = _filtered(x, _gauss(sigma * draw.scale))
    count, _, height, width = x.shape
    rows = torch.arange(count)
    for number in range(rounds):
        shifts = draw.whole([2 * most + 1] * (2 * height * width), number) - most
        shifts = shifts.view(count, height, width, 2)
        for h in range(height - most - 1, most - 1, -1):
            for w in range(width - most - 1, most - 1, -1):
                other = h + shifts[:, h, w, 0], w + shifts[:, h, w, 1]
                taken = changed[rows, :, other[0], other[1]]
                changed[rows, :, other[0], other[1]] = changed[:, :, h, w].clone()
                changed[:, :, h, w] = taken
    return _filtered(changed, _gauss(sigma * draw.scale))


def _streaks(radius: float, sigma: float, angles: Tensor) -> Tensor:
    """Kernels (N, k, k) of half a Gaussian along a line at each angle (N,) in degrees, as a moving camera leaves."""
    reach = max(1, math.ceil(radius))
    steps = torch.arange(reach + 1).float()
    weights = torch.exp(-(steps**2) / (2 * sigma**2))
    kernels = torch.zeros(len(angles), 2 * reach + 1, 2 * reach + 1)
    radians = angles * math.pi / 180
    for step, weight in zip(steps.tolist(), weights.tolist(), strict=True):
        h = reach + (step * radians.sin()).round().long()
        w = reach + (step * radians.cos()).round().long()
        kernels[torch.arange(len(angles)), h, w] += weight
    return kernels / kernels.sum((1, 2), keepdim=True)


def _motion_blur(x: Tensor, draw: _Draw, s: int) -> Tensor:
    radius, sigma = ((6, 1.0), (6, 1.5), (6, 2.0), (8, 2.0), (9, 2.5))[s]
    angles = draw.uniform(())[:] * 90 - 45
    return _filtered(x, _streaks(radius * draw.scale, sigma * draw.scale, angles))


def _zoomed(x: Tensor, factor: float) -> Tensor:
    """The middle of pictures, larger."""
    height, width = x.shape[2:]
    top = [max(1, math.ceil(side / factor)) for side in (height, width)]
    first = [(side - part) // 2 for side, part in zip((height, width), top, strict=True)]
    middle = x[:, :, first[0] : first[0] + top[0], first[1] : first[1] + top[1]]
    large = F.interpolate(middle, scale_factor=factor, mode="bilinear", align_corners=False)
    cut = [max(0, (part - side) // 2) for part, side in zip(large.shape[2:], (height, width), strict=True)]
    large = large[:, :, cut[0] : cut[0] + height, cut[1] : cut[1] + width]
    return large if large.shape == x.shape else F.interpolate(large, (height, width), mode="bilinear")


def _zoom_blur(x: Tensor, draw: _Draw, s: int) -> Tensor:
    """The mean of the picture and of growing enlargements of it."""
    most = (0.06, 0.11, 0.16, 0.21, 0.26)[s]
    factors = np.arange(1, 1 + most, 0.01).tolist()
    return (x + sum(_zoomed(x, factor) for factor in factors)) / (len(factors) + 1)


# Weather ----------------------------------------------------------------------------------------------------------


def _plasma(draw: _Draw, side: int, decay: float, stream: int = 0) -> Tensor:
    """Fractal noise (N, size, size) in [0, 1] by the diamond-square algorithm; size: a power of two from `side`."""
    size = 1 << max(1, math.ceil(math.log2(side)))
    maps = torch.zeros(len(draw.index), size, size)
    step, wibble, level = size, 100.0, stream

    def noise(shape: Sequence[int]) -> Tensor:
        nonlocal level
        level += 1
        return wibble * (2 * draw.uniform(shape, level) - 1)

    while step >= 2:
        half = step // 2
        corners = maps[:, ::step, ::step]
        around = corners + corners.roll(-1, 1)
        around = around + around.roll(-1, 2)
        maps[:, half::step, half::step] = around / 4 + noise(around.shape[1:])
        centres = maps[:, half::step, half::step]
        columns = centres + centres.roll(1, 1) + corners + corners.roll(-1, 2)
        maps[:, ::step, half::step] = columns / 4 + noise(columns.shape[1:])
        rows = centres + centres.roll(1, 2) + corners + corners.roll(-1, 1)
        maps[:, half::step, ::step] = rows / 4 + noise(rows.shape[1:])
        step, wibble = half, wibble / decay
    maps = maps - maps.amin((1, 2), keepdim=True)
    return maps / maps.amax((1, 2), keepdim=True).clamp_min(1e-12)


def _fog(x: Tensor, draw: _Draw, s: int) -> Tensor:
    amount, decay = ((0.2, 3.0), (0.5, 3.0), (0.75, 2.5), (1.0, 2.0), (1.5, 1.75))[s]
    height, width = x.shape[2:]
    brightest = x.amax((1, 2, 3), keepdim=True)
    cloud = _plasma(draw, max(height, width), decay)[:, None, :height, :width]
    return (x + amount * cloud) * brightest / (brightest + amount)


def _frost(x: Tensor, draw: _Draw, s: int) -> Tensor:
    """Bright crystals, the ridges of two fractal noises, over a darker picture."""
    kept, amount = ((1.0, 0.2), (1.0, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45))[s]
    height, width = x.shape[2:]
    ridges = [
        1 - (2 * _plasma(draw, max(height, width), 1.6, stream)[:, None, :height, :width] - 1).abs()
        for stream in (0, 100)
    ]
    crystals = torch.maximum(ridges[0], ridges[1]) ** 2
    return kept * x + amount * crystals


def _grey(x: Tensor) -> Tensor:
    if x.shape[1] == 1:
        return x
    return (x * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(1, keepdim=True)


def _snow(x: Tensor, draw: _Draw, s: int) -> Tensor:
    """Flakes that a motion blur draws out, over a whitened picture."""
    mean, spread, zoom, least, radius, sigma, kept = (
        (0.1, 0.2, 1.0, 0.6, 8, 3, 0.95), (0.1, 0.2, 1.0, 0.5, 10, 4, 0.9), (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
        (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85), (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
    )[s]  # fmt: skip
    flakes = _zoomed(mean + spread * draw.normal((1, *x.shape[2:])), zoom)
    flakes = torch.where(flakes < least, 0.0, flakes).clamp(0, 1)
    angles = -135 + 90 * draw.uniform((), 1)
    flakes = _filtered(flakes, _streaks(radius * draw.scale, sigma * draw.scale, angles))
    whitened = kept * x + (1 - kept) * torch.maximum(x, _grey(x) * 1.5 + 0.5)
    return whitened + flakes + flakes.rot90(2, (2, 3))


def _brightness(x: Tensor, draw: _Draw, s: int) -> Tensor:
    """V of HSV is raised: hue and saturation stay."""
    more = (0.05, 0.1, 0.15, 0.2, 0.3)[s]
    value = x.amax(1, keepdim=True)
    raised = (value + more).clamp(0, 1)
    return torch.where(value > 0, x * raised / value.clamp_min(1e-12), raised)


# Digital ----------------------------------------------------------------------------------------------------------


def _contrast(x: Tensor, draw: _Draw, s: int) -> Tensor:
    means = x.mean((2, 3), keepdim=True)
    return (x - means) * (0.75, 0.5, 0.4, 0.3, 0.15)[s] + means


def _elastic(x: Tensor, draw: _Draw, s: int) -> Tensor:
    """A random affine map, then a smooth field of shifts."""
    alpha, sigma, affine = (
        (0.0, 0.0, 0.08), (0.05, 0.2, 0.07), (0.08, 0.06, 0.06), (0.1, 0.04, 0.05), (0.1, 0.03, 0.03),
    )[s]  # fmt: skip
    count, _, height, width = x.shape
    # three corners of a square move, in pixels of the side; the map that takes the old ones to the new ones
    side = float(min(height, width))
    middle, third = torch.tensor([height, width]).float() / 2, side / 3
    corners = torch.stack([middle + third, middle + torch.tensor([third, -third]), middle - third])
    moved = corners + (2 * draw.uniform((3, 2)) - 1) * affine * side
    ones = torch.ones(count, 3, 1)
    maps = torch.linalg.solve(torch.cat([moved, ones], 2), corners.expand(count, 3, 2))  # (N, 3, 2): new -> old
    grid = torch.stack(torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij"), -1).float()
    places = torch.cat([grid, torch.ones(height, width, 1)], 2).view(1, -1, 3) @ maps
    if alpha:
        field = 2 * draw.uniform((2, height, width), 1) - 1
        shifts = _filtered(field, _gauss(sigma * side, max(1, round(3 * sigma * side)))) * alpha * side
        places = places + shifts.flatten(2).transpose(1, 2)
    scale = torch.tensor([height - 1, width - 1]).clamp_min(1).float()
    normal = (2 * places / scale - 1).view(count, height, width, 2).flip(-1)
    return F.grid_sample(x, normal, mode="bilinear", padding_mode="reflection", align_corners=True)


def _each(x: Tensor, change: Callable[[Image.Image], Image.Image]) -> Tensor:
    """Pictures through Pillow."""
    made = []
    for pixels in (x * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy():
        picture = change(Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels))
        made.append(np.asarray(picture, np.uint8).reshape(pixels.shape))
    return torch.from_numpy(np.stack(made)).permute(0, 3, 1, 2).float() / 255


def _pixelate(x: Tensor, draw: _Draw, s: int) -> Tensor:
    share = (0.95, 0.9, 0.85, 0.75, 0.65)[s]
    height, width = x.shape[2:]
    small = max(1, int(width * share)), max(1, int(height * share))
    box = Image.Resampling.BOX
    return _each(x, lambda picture: picture.resize(small, box).resize((width, height), box))


def _jpeg(x: Tensor, draw: _Draw, s: int) -> Tensor:
    quality = (80, 65, 58, 50, 40)[s]

    def through(picture: Image.Image) -> Image.Image:
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=quality)
        return Image.open(file, formats=("JPEG",))

    return _each(x, through)


GROUPS: dict[str, dict[str, Callable[[Tensor, _Draw, int], Tensor]]] = {
    "noise": {
        "gaussian_noise": _gaussian_noise, "shot_noise": _shot_noise, "impulse_noise": _impulse_noise,
    },
    "blur": {
        "defocus_blur": _defocus_blur, "glass_blur": _glass_blur, "motion_blur": _motion_blur, "zoom_blur": _zoom_blur,
    },
    "weather": {"snow": _snow, "frost": _frost, "fog": _fog, "brightness": _brightness},
    "digital": {
        "contrast": _contrast, "elastic_transform": _elastic, "pixelate": _pixelate, "jpeg_compression": _jpeg,
    },
}  # fmt: skip
"""Group -> corruptions, under the names of the files of CIFAR-10-C."""

_KINDS = {name: run for group in GROUPS.values() for name, run in group.items()}
NAMES = tuple(_KINDS)
"""All fifteen, in the order in which papers list them."""
