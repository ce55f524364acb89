"""Maps of what an answer depends on: by perturbing places, by the gradient, by covering windows."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo import checks
from zoo.errors import BadInput
from zoo.nn.attacks import Model, attack_mode, check_logits, input_gradient

__all__ = [
    "FILLS",
    "blurred",
    "bumps",
    "enlarged",
    "gradient_saliency",
    "occlusion",
    "perturbation_saliency",
    "places",
    "scaled",
    "windows",
]

FILLS = ("blur", "zero")
"""What a place is replaced by: the blurred image, or black."""

BLUR = 3.0
"""Standard deviation of the blur in pixels."""

AT_ONCE = 4096
"""Perturbed images in one pass."""


def places(height: int, width: int, spacing: int) -> tuple[int, int]:
    """Rows and columns of the grid of a perturbation: one place for each square of `spacing` pixels.

    Raises:
        BadInput: with fewer than two of either, of which no map can be made.
    """
    checks.at_least("spacing", spacing, 1)
    rows, columns = -(-height // spacing), -(-width // spacing)
    if rows < 2 or columns < 2:
        raise BadInput(
            f"spacing: {spacing} pixels between the places of a saliency map leave a grid of {rows}x{columns} on "
            f"images of {height}x{width}, expected at least 2x2: choose at most {min(height, width) - 1}."
        )
    return rows, columns


def bumps(height: int, width: int, spacing: int) -> Tensor:
    """Gaussians of height 1 and standard deviation `spacing` around the middle of each place, (places, H, W)."""
    rows, columns = places(height, width, spacing)

    def along(count: int, length: int) -> Tensor:
        middle = (torch.arange(count) + 0.5) * spacing - 0.5
        return torch.exp(-((torch.arange(length)[None] - middle[:, None]) ** 2) / (2 * spacing**2))

    down, right = along(rows, height), along(columns, width)
    return (down[:, None, :, None] * right[None, :, None, :]).flatten(0, 1)


def windows(height: int, width: int, window: int, stride: int) -> Tensor:
    """Squares of ones, (places, H, W); the last of a row or column is cut off, so that all pixels are covered."""
    checks.at_least("window", window, 1)
    checks.at_least("stride", stride, 1)
    if stride > window or window > min(height, width):
        raise BadInput(
            f"expected stride <= window <= side of the image ({min(height, width)}), got stride {stride} and window "
            f"{window}."
        )

    def along(length: int) -> Tensor:
        count = 1 + -(-(length - window) // stride)
        begin, pixel = torch.arange(count)[:, None] * stride, torch.arange(length)[None]
        return ((pixel >= begin) & (pixel < begin + window)).float()

    down, right = along(height), along(width)
    return (down[:, None, :, None] * right[None, :, None, :]).flatten(0, 1)


def blurred(x: Tensor, sigma: float = BLUR) -> Tensor:
    """Images (N, C, H, W), blurred by a Gaussian that is cut off at 3 sigma or where the image ends."""
    radius = min(math.ceil(3 * sigma), min(x.shape[2:]) - 1)  # the border is mirrored, which needs that many pixels
    from torchvision.transforms.functional import gaussian_blur

    return gaussian_blur(x, [2 * radius + 1] * 2, [sigma, sigma])


def scaled(maps: Tensor) -> Tensor:
    """Maps (N, ...) divided by their maximum; a map of zeros stays one."""
    most = maps.flatten(1).amax(1).clamp_min(torch.finfo(maps.dtype).tiny)
    return maps / most.view(-1, *[1] * (maps.ndim - 1))


def enlarged(grid: Tensor, size: tuple[int, int]) -> Tensor:
    """Values (N, h, w) of places as maps (N, H, W) in [0, 1]: bilinear, then divided by their maximum.

    Args:
        grid: not negative.
        size: H and W.
    """
    maps = F.interpolate(grid[:, None], size=tuple(size), mode="bilinear", align_corners=False)[:, 0]
    return scaled(maps)


def _responses(
    model: Model, x: Tensor, masks: Tensor, other: Tensor, response: Callable[[Tensor, Tensor], Tensor]
) -> Tensor:
    """Response (N, places) of the answer to replacing what each mask (places, H, W) covers by `other`.

    Args:
        model: returns logits.
        x: (N, C, H, W).
        masks: shares in [0, 1].
        other: of the shape of x.
        response: (logits on x (n, K), logits on the changed images (n, K)) -> (n,).
    """
    with torch.no_grad():
        before = model(x).float()
        check_logits(before, len(x))
        responses = []
        step = max(1, AT_ONCE // max(1, len(x)))
        for part in torch.split(masks.to(x), step):
            m = part[None, :, None]
            changed = (x[:, None] * (1 - m) + other[:, None] * m).flatten(0, 1)
            after = model(changed).float()
            responses.append(response(before.repeat_interleave(len(part), 0), after).view(len(x), len(part)))
    return torch.cat(responses, 1)


def _images(x: Tensor, fill: str) -> tuple[Tensor, Tensor]:
    """Images as ordinary tensors, and what replaces them.

    Raises:
        BadInput: if they are no images or not finite.
    """
    checks.one_of("fill", fill, FILLS)
    if not isinstance(x, Tensor) or not x.is_floating_point() or x.ndim != 4:
        got = f"{x.dtype} {tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
        raise BadInput(f"x: expected a batch of float images (N, C, H, W), got {got}.")
    if not bool(x.isfinite().all()):
        raise BadInput("x: some pixels are not finite (NaN or infinite): no map can be made of such images.")
    x = x.detach()
    return x, blurred(x) if fill == "blur" else torch.zeros_like(x)


def perturbation_saliency(model: Model, x: Tensor, spacing: int = 4, fill: str = "blur") -> Tensor:
    """S_g = 1/2 ||softmax f(x) - softmax f(x_g)||^2 with x_g = x (1 - M_g) + fill(x) M_g, for places g of a grid.

    M_g is a Gaussian bump, see `bumps`. In evaluation mode, without gradients.

    Args:
        model: returns logits (N, K).
        x: images (N, C, H, W) in [0, 1].
        spacing: pixels between places, which is also the bumps' standard deviation.
        fill: `blur` or `zero`.

    Returns:
        (N, rows, columns) in [0, 1]; `enlarged` makes maps of it.
    """
    x, other = _images(x, fill)
    rows, columns = places(x.shape[2], x.shape[3], spacing)

    def moved(before: Tensor, after: Tensor) -> Tensor:
        return 0.5 * (before.softmax(1) - after.softmax(1)).square().sum(1)

    with attack_mode(model):
        responses = _responses(model, x, bumps(x.shape[2], x.shape[3], spacing), other, moved)
    return responses.view(-1, rows, columns)


def gradient_saliency(model: Model, x: Tensor, target: Tensor) -> Tensor:
    """|d log p_y / dx|, its maximum over the channels, (N, H, W); in evaluation mode.

    Args:
        model: returns logits (N, K).
        x: images (N, C, H, W) in [0, 1].
        target: classes (N,).
    """
    return input_gradient(model, x, target, loss="ce").abs().amax(1)


def occlusion(model: Model, x: Tensor, target: Tensor, window: int = 4, stride: int = 2, fill: str = "zero") -> Tensor:
    """How much the logit of a class falls where a window covers a pixel (Zeiler and Fergus 2014), (N, H, W).

    Args:
        model: returns logits (N, K).
        x: images (N, C, H, W) in [0, 1].
        target: classes (N,).
        window: side of the covered square.
        stride: pixels between windows.
        fill: `zero` or `blur`.

    Returns:
        Mean over the windows that cover a pixel; negative where covering helps.
    """
    x, other = _images(x, fill)
    masks = windows(x.shape[2], x.shape[3], window, stride).to(x)
    labels = target.to(x.device)

    def fall(before: Tensor, after: Tensor) -> Tensor:
        chosen = labels.repeat_interleave(len(before) // len(labels))[:, None]
        return (before - after).gather(1, chosen)[:, 0]

    with attack_mode(model):
        responses = _responses(model, x, masks, other, fall)
    return torch.einsum("ng,ghw->nhw", responses, masks) / masks.sum(0)
