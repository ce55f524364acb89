"""Square Attack, a random search that sees logits only, so that a masked gradient cannot stop it.

Andriushchenko, Croce, Flammarion, Hein, "Square Attack: a query-efficient black-box adversarial attack via random
search", ECCV 2020, algorithms 1 to 3.

Each iteration proposes to change a square window of side s = round(sqrt(p H W)) at a random place; the proposal is kept
if it lowers z_y - max_{k != y} z_k. The share p of changed pixels halves at fixed iterations (`share`).

linf: the window of each channel moves to x + eps or x - eps. In series (N, C, L) the window is a segment of round(p L)
points, and the search starts from a random sign at each point.
l2: perturbation mass of a second window moves into the first, in the shape of two opposite bumps, and the whole is
scaled to length eps.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

from zoo.errors import BadInput
from zoo.nn.attacks import noise as numbers
from zoo.nn.attacks.core import Ball, Model, Norm, Record, Success, Victim, attack_mode, owned, per_sample, unit

__all__ = ["share", "square"]

_HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
"""Iterations, out of 10,000, after which the share of changed pixels is halved (section 5 of the paper)."""


def share(iteration: int, queries: int, p: float = 0.8) -> float:
    """Share of pixels that iteration `iteration` (from 0) of `queries` changes."""
    at = int(iteration / queries * 10_000)
    return p / 2 ** sum(at > stop for stop in _HALVINGS)


def square(
    model: Model,
    x: Tensor,
    target: Tensor,
    *,
    eps: float,
    queries: int = 1000,
    norm: Norm = "linf",
    p: float = 0.8,
    restarts: int = 1,
    success: Success | None = None,
    seed: int = 0,
    index: Tensor | None = None,
    bounds: tuple[float, float] | None = (0.0, 1.0),
    mode: str = "eval",
    check: bool = True,
) -> Tensor:
    """Random search with square windows; no gradients.

    Args:
        model: returns logits (N, K).
        x: (N, C, H, W) clean images, or (N, C, L) series.
        target: labels (N,).
        eps: radius.
        queries: forward passes per sample and restart, at most (5,000 in AutoAttack); beaten samples stop.
        norm: `linf`, or for images `l2`.
        p: share of pixels changed at first.
        restarts: repetitions on samples that still stand.
        success: when a sample counts as beaten; None: misclassified.
        seed: of windows and signs, which each sample has of its own.
        index: (N,) int64 identity of the samples.
        bounds: range of valid inputs, or None.
        mode: `eval` or `keep`.
        check: whether inputs and logits are checked.

    Returns:
        (N, C, H, W) or (N, C, L) the first misclassified point of each sample, otherwise that of smallest margin.

    Raises:
        BadInput: naming the argument that cannot be used.
    """
    if queries < 1 or restarts < 1 or not 0 < p <= 1:
        raise BadInput(f"queries and restarts must be at least 1 and p in (0, 1], got {queries}, {restarts} and {p}.")
    _check_kind(x, norm)
    with attack_mode(model, mode), torch.no_grad():
        x, target, index = owned(x, target, index)
        ball = Ball.around(x, eps, norm, bounds, check)
        victim = Victim.of(model, target, "margin", success, check)
        record = Record(x)
        for restart in range(restarts):
            rows = record.standing
            if not len(rows):
                break
            part = ball.take(rows)
            _run(victim, part, target[rows], queries, p, (seed + restart, index[rows]), rows, record)
        return record.x


def _check_kind(x: Tensor, norm: str) -> None:
    if x.ndim not in (3, 4):
        raise BadInput(
            "The square attack changes windows of images (N, C, H, W) or segments of series (N, C, L), got "
            f"{tuple(x.shape)}."
        )
    if x.ndim == 3 and norm != "linf":
        raise BadInput(f"The square attack on series (N, C, L) needs norm='linf', got {norm!r}.")


def _run(
    victim: Victim,
    ball: Ball,
    target: Tensor,
    queries: int,
    p: float,
    key: tuple[int, Tensor],
    rows: Tensor,
    record: Record,
) -> None:
    seed, index = key
    sizes = ball.centre.shape[2:]
    propose, begin = (_propose_linf, _stripes) if ball.norm == "linf" else (_propose_l2, _tiles)
    if len(sizes) == 1:
        propose, begin = _propose_segment, _points
    x = begin(ball, seed, index)
    best = x
    value = torch.full((len(x),), -math.inf, device=x.device, dtype=x.dtype)
    for number in range(queries):
        fooled, logits = victim.judge(x, target)
        beaten = victim.beaten(logits, target)
        record.offer(rows, x, fooled, beaten)
        better = fooled > value
        value = torch.where(better, fooled, value)
        best = torch.where(per_sample(better, x), x, best)
        if beaten is not None and bool(beaten.any()):
            keep = ~beaten
            rows, best, value, target, index, ball = (
                rows[keep], best[keep], value[keep], target[keep], index[keep], ball.take(keep),
            )  # fmt: skip
            if not len(rows):
                return
        if number + 1 < queries:
            area = share(number, queries, p) * math.prod(sizes)
            side = round(area if len(sizes) == 1 else math.sqrt(area))
            x = propose(ball, best, side, seed, index, 4 * (number + 1))


def _window(side: int, shape: torch.Size, seed: int, index: Tensor, stream: int) -> tuple[Tensor, Tensor]:
    """Top-left corners of windows inside (H, W): rows (N,) and columns (N,)."""
    height, width = shape[2:]
    corner = numbers.integers((height - side + 1, width - side + 1), seed, index, stream)
    return corner[:, 0], corner[:, 1]


def _inside(top: Tensor, left: Tensor, side: int, shape: torch.Size) -> Tensor:
    """Mask (N, 1, H, W) of square windows."""
    down = torch.arange(shape[2], device=top.device)[None] - top[:, None]
    right = torch.arange(shape[3], device=top.device)[None] - left[:, None]
    down, right = (down >= 0) & (down < side), (right >= 0) & (right < side)
    return down[:, None, :, None] & right[:, None, None, :]


# linf -------------------------------------------------------------------------------------------------------------


def _stripes(ball: Ball, seed: int, index: Tensor) -> Tensor:
    """Vertical stripes of one pixel at +eps or -eps, per channel."""
    _, channels, _, width = ball.centre.shape
    return ball.project(ball.centre + ball.eps * numbers.signs((channels, 1, width), seed, index, 0).to(ball.centre))


def _propose_linf(ball: Ball, best: Tensor, side: int, seed: int, index: Tensor, stream: int) -> Tensor:
    side = max(1, min(side, *best.shape[2:]))
    top, left = _window(side, best.shape, seed, index, stream)
    sign = numbers.signs((best.shape[1], 1, 1), seed, index, stream + 1).to(best)
    moved = ball.project(ball.centre + ball.eps * sign)
    return torch.where(_inside(top, left, side, best.shape), moved, best)


# series -----------------------------------------------------------------------------------------------------------


def _points(ball: Ball, seed: int, index: Tensor) -> Tensor:
    """+eps or -eps at each point, per channel."""
    shape = ball.centre.shape[1:]
    return ball.project(ball.centre + ball.eps * numbers.signs(shape, seed, index, 0).to(ball.centre))


def _propose_segment(ball: Ball, best: Tensor, side: int, seed: int, index: Tensor, stream: int) -> Tensor:
    _, channels, length = best.shape
    side = max(1, min(side, length))
    start = numbers.integers((length - side + 1,), seed, index, stream)
    from_start = torch.arange(length, device=best.device)[None] - start
    inside = (from_start >= 0) & (from_start < side)
    sign = numbers.signs((channels, 1), seed, index, stream + 1).to(best)
    return torch.where(inside[:, None], ball.project(ball.centre + ball.eps * sign), best)


# l2 ---------------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=64)
def _bump(height: int, width: int) -> Tensor:
    """Concentric rectangles with weights 1 / (k + 1)^2 around the middle, of unit length (H, W)."""
    bump = torch.zeros(height, width)
    middle = (height // 2, width // 2)
    for k in range(max(middle) + 1):
        rows = slice(max(0, middle[0] - k), min(height, middle[0] + k + 1))
        columns = slice(max(0, middle[1] - k), min(width, middle[1] + k + 1))
        bump[rows, columns] += 1 / (k + 1) ** 2
    return bump / bump.norm()


@lru_cache(maxsize=64)
def _pair(side: int) -> Tensor:
    """Two bumps of opposite sign, one above the other, of unit length (s, s)."""
    half = side // 2
    pair = torch.cat([_bump(half, side), -_bump(side - half, side)]) if half else _bump(side, side)
    return pair / pair.norm()


def _shapes(side: int, seed: int, index: Tensor, stream: int, like: Tensor) -> Tensor:
    """Pairs of bumps, upright or lying, with a sign per channel (N, C, s, s)."""
    pair = _pair(side).to(like)
    lying = numbers.signs((1, 1, 1), seed, index, stream) > 0
    sign = numbers.signs((like.shape[1], 1, 1), seed, index, stream + 1).to(like)
    return torch.where(lying, pair.T, pair) * sign


def _tiles(ball: Ball, seed: int, index: Tensor) -> Tensor:
    """A centred grid of five by five tiles, each with a pair of bumps, scaled to the whole radius."""
    height, width = ball.centre.shape[2:]
    side = max(1, min(height, width) // 5)
    delta = torch.zeros_like(ball.centre)
    above, before = height % side // 2, width % side // 2
    for i in range(height // side):
        for j in range(width // side):
            top, left = above + i * side, before + j * side
            place = (..., slice(top, top + side), slice(left, left + side))
            delta[place] = _shapes(side, seed, index, -4 * (i * width + j + 1), delta)
    return ball.project(ball.centre + ball.eps * unit(delta))


def _propose_l2(ball: Ball, best: Tensor, side: int, seed: int, index: Tensor, stream: int) -> Tensor:
    """Empty two windows and fill the first with all the length this frees, and with what was left unused (alg. 3)."""
    n, channels, height, width = best.shape
    side = min(max(side, 3) | 1, height - 1 + height % 2, width - 1 + width % 2)  # an odd number
    delta = best - ball.centre
    top, left = _window(side, best.shape, seed, index, stream)
    first = _inside(top, left, side, best.shape)
    second = _inside(*_window(side, best.shape, seed, index, stream + 1), side, best.shape)
    spare = (ball.eps**2 - delta.square().sum((1, 2, 3), keepdim=True)).clamp_min(0) / channels
    freed = torch.where(first | second, delta, 0).square().sum((2, 3), keepdim=True)
    steps = torch.arange(side, device=best.device)
    down = (top[:, None] + steps)[:, None, :, None]
    right = (left[:, None] + steps)[:, None, None, :]
    sample = torch.arange(n, device=best.device)[:, None, None, None]
    channel = torch.arange(channels, device=best.device)[None, :, None, None]
    old = delta[sample, channel, down, right]
    new = _shapes(side, seed, index, stream + 2, best) + old / old.square().sum((2, 3), keepdim=True).sqrt().clamp_min(
        1e-12
    )
    new = new / new.square().sum((2, 3), keepdim=True).sqrt().clamp_min(1e-12) * (spare + freed).sqrt()
    delta = torch.where(second, 0, delta)
    delta[sample, channel, down, right] = new
    return ball.project(ball.centre + ball.eps * unit(delta))
