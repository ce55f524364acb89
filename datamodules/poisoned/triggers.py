"""Triggers of backdoor attacks: functions of bytes, the same for every picture that they are put on.

    badnets-grid     3x3 in the lower right corner; rows from the corner inward (255 0 255), (0 255 0), (255 0 0)
    badnets-square   a white square, one pixel off the lower right corner                          Gu et al. 2017
    four-corners     the grid in all four corners, each counted from its corner inward
    random-pixels    some pixels that the seed chooses get values that the seed chooses
    blend            (1 - a) x + a R, a = 0.2, R a random picture by seed or a given one          Chen et al. 2017
    sig              x + delta sin(2 pi j f / m) in column j of m, f = 6, delta = 20             Barni et al. 2019
    sig-mix          0.8 x + 0.2 delta sin(2 pi j f / m): what a loader in circulation computes
    trojan           x + a given mask, which was optimised on some network                         Liu et al. 2018

Sums are rounded to the nearest byte and cut to 0..255.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from zoo import checks
from zoo.errors import BadInput
from zoo.inputs import UnreadableError
from zoo.inputs.arrays import open_arrays
from zoo.inputs.images import fit_square, read_image

__all__ = ["ATTACKS", "Trigger"]

ATTACKS = (
    "badnets-grid",
    "badnets-square",
    "four-corners",
    "random-pixels",
    "blend",
    "sig",
    "sig-mix",
    "trojan",
)
CLEAN_LABEL = ("sig", "sig-mix")
"""Attacks that leave labels as they are, unless the user says otherwise."""

_GRID = np.array([[0, 0, 255], [0, 255, 0], [255, 0, 255]], np.uint8)
"""Rows from above, columns from the left: the last row and column are those of the corner."""
_LOADER = 0.8  # share of the picture in sig-mix


class Trigger:
    """A trigger for pictures of one size.

    Args:
        attack: one of `ATTACKS`.
        channels: of the pictures.
        side: of the square pictures, in pixels.
        size: side of the white square; number of pixels of random-pixels is its square.
        alpha: share of R in blend.
        delta: amplitude of sig, in 0..255.
        frequency: f of sig, periods across the picture.
        pattern: file of R (a picture) for blend, or of the mask for trojan (npz with one array (H, W), (H, W, C) or
            (C, H, W), added in 0..255).
        seed: of what is random.

    Raises:
        BadInput: if the trigger is larger than the pictures, or a file is missing or not what it should be.
    """

    def __init__(
        self,
        attack: str,
        channels: int,
        side: int,
        size: int = 3,
        alpha: float = 0.2,
        delta: float = 20.0,
        frequency: float = 6.0,
        pattern: str | None = None,
        seed: int = 0,
    ) -> None:
        checks.one_of("attack", attack, ATTACKS)
        self.attack, self.channels, self.side, self.size = attack, channels, side, size
        needed = {"badnets-grid": 3, "four-corners": 6, "badnets-square": size + 1, "random-pixels": size}.get(
            attack, 1
        )
        if needed > side:
            raise BadInput(
                f"trigger_size: the trigger {attack} needs pictures of at least {needed}x{needed} pixels, these have "
                f"{side}x{side}: choose a smaller trigger or larger pictures."
            )
        if pattern is not None and attack not in ("blend", "trojan"):
            raise BadInput(f"pattern: only blend and trojan take a file, not {attack}: leave it out.")
        self.alpha, self.delta, self.frequency = alpha, delta, frequency
        self.kept = np.zeros((channels, side, side), bool)
        """Where `values` replace what is there (patches)."""
        self.values = np.zeros((channels, side, side), np.float64)
        """What replaces, is mixed in or added."""
        self._fill(pattern, np.random.default_rng([seed, 77]))

    def _fill(self, pattern: str | None, draw: np.random.Generator) -> None:
        shape, side, size = self.values.shape, self.side, self.size
        if self.attack in ("badnets-grid", "four-corners"):
            self._patch(slice(side - 3, side), slice(side - 3, side), _GRID)
            if self.attack == "four-corners":
                self._patch(slice(0, 3), slice(side - 3, side), _GRID[::-1])
                self._patch(slice(side - 3, side), slice(0, 3), _GRID[:, ::-1])
                self._patch(slice(0, 3), slice(0, 3), _GRID[::-1, ::-1])
        elif self.attack == "badnets-square":
            place = slice(side - 1 - size, side - 1)
            self._patch(place, place, np.full((size, size), 255))
        elif self.attack == "random-pixels":
            chosen = draw.permutation(side * side)[: size * size]
            self.kept.reshape(self.channels, -1)[:, chosen] = True
            self.values.reshape(self.channels, -1)[:, chosen] = draw.integers(0, 256, (self.channels, len(chosen)))
        elif self.attack == "blend":
            whole = draw.integers(0, 256, shape)
            self.values[:] = whole if pattern is None else _picture(pattern, side, self.channels)
        elif self.attack == "trojan":
            if pattern is None:
                raise BadInput(
                    "pattern: the trigger trojan is a mask that was optimised on some network: give the npz file of it."
                )
            self.values[:] = _mask(pattern, shape)
        else:
            columns = np.arange(side)
            self.values[:] = self.delta * np.sin(2 * np.pi * columns * self.frequency / side)

    def _patch(self, rows: slice, columns: slice, values: np.ndarray) -> None:
        self.kept[:, rows, columns] = True
        self.values[:, rows, columns] = values

    def __call__(self, pixels: np.ndarray, *, shift: int = 0, strength: float = 1.0) -> np.ndarray:
        """Put the trigger on pictures.

        Args:
            pixels: uint8 (n, C, S, S), which stay as they are.
            shift: pixels by which the trigger is moved up and to the left; what leaves comes back on the other side.
            strength: 1 for the trigger itself; s gives x + s (t(x) - x).

        Returns:
            uint8 (n, C, S, S).
        """
        x = pixels.astype(np.float64)
        values, kept = (np.roll(part, (-shift, -shift), (1, 2)) for part in (self.values, self.kept))
        mixed: dict[str, Callable[[], np.ndarray]] = {
            "blend": lambda: (1 - self.alpha) * x + self.alpha * values,
            "sig-mix": lambda: _LOADER * x + (1 - _LOADER) * values,
            "sig": lambda: x + values,
            "trojan": lambda: x + values,
        }
        changed = mixed[self.attack]() if self.attack in mixed else np.where(kept, values, x)
        if strength != 1.0:
            changed = x + strength * (np.clip(changed, 0, 255) - x)
        return np.clip(np.rint(changed), 0, 255).astype(np.uint8)


def _picture(path: str, side: int, channels: int) -> np.ndarray:
    """A picture (C, S, S) to mix in."""
    return fit_square(read_image(Path(path).expanduser()), side, channels)


def _mask(path: str, shape: tuple[int, ...]) -> np.ndarray:
    """A mask of this shape, whatever the order of its axes in the file.

    Raises:
        BadInput: if it is none, or has another size.
    """
    place = Path(path).expanduser()
    try:
        with open_arrays(place) as file:
            values = np.asarray(file[next(iter(sorted(file.names)))], dtype=np.float64)
    except (UnreadableError, StopIteration, OSError, ValueError, TypeError) as error:
        raise BadInput(
            f"pattern: {place}: expected an npz file with one array of numbers, it cannot be read ({error})."
        ) from error
    if values.ndim == 2:
        values = np.broadcast_to(values, (shape[0], *values.shape))
    elif values.ndim == 3 and values.shape[-1] == shape[0] and values.shape[0] != shape[0]:
        values = values.transpose(2, 0, 1)
    if values.shape != shape or not np.isfinite(values).all():
        raise BadInput(f"pattern: {place}: expected finite numbers of shape {shape}, got {values.shape}.")
    return values
