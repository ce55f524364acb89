"""The picture of a join: tracks on a plain map, and the pieces on which they were together."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from zoo.errors import BadInput
from zoo.inputs.tracks import Projection
from zoo.methods.sts_join.index import STSIndex
from zoo.pictures.palette import CURVES

__all__ = ["draw_join", "features_of"]

# mid tones on a light ground, distinct also for people who confuse red and green
_GROUND, _GREY, _TOGETHER = "#fbfbf9", "#d3d6d8", "#d9480f"
_QUERY, _PARTNER = CURVES[0], CURVES[4]
_SIDE, _EDGE, _SCALE = 420, 26, 3


def draw_join(queries: Sequence[Tensor], result: dict[str, Any], index: STSIndex) -> Image.Image:
    """Queries blue, their partners dark grey, others light grey, joined pieces orange, with a legend and a scale bar.

    Args:
        queries: tracks (L, 3).
        result: of `predict` for them.
        index: in which the partners are.
    """
    points = np.concatenate([q[:, :2].numpy() for q in queries])
    low, high = points.min(0), points.max(0)
    side = max(float((high - low).max()), 1.0) * 1.15
    corner = (low + high) / 2 - side / 2
    size = _SIDE * _SCALE
    picture = Image.new("RGB", (size, size), _GROUND)
    draw = ImageDraw.Draw(picture)
    factor = (size - 2 * _EDGE * _SCALE) / side

    def at(xy: np.ndarray) -> list[tuple[float, float]]:
        place = (xy - corner) * factor + _EDGE * _SCALE
        return [(float(x), size - float(y)) for x, y in place]

    def segments(rows: np.ndarray, colour: str, width: int) -> None:
        for x0, y0, x1, y1 in rows[:, 2:6]:
            draw.line(at(np.array([[x0, y0], [x1, y1]])), fill=colour, width=width * _SCALE)

    rows, owner = index.segments.cpu().numpy(), index.owner.cpu().numpy()
    near = (rows[:, [2, 4]].max(1) > corner[0]) & (rows[:, [2, 4]].min(1) < corner[0] + side)
    near &= (rows[:, [3, 5]].max(1) > corner[1]) & (rows[:, [3, 5]].min(1) < corner[1] + side)
    segments(rows[near], _GREY, 1)
    numbers = torch.isin(index.ids, result["pairs"][:, 1].to(index.ids.device)).cpu().numpy()
    segments(rows[numbers[owner] & near], _PARTNER, 2)
    for query in queries:
        draw.line(at(query[:, :2].numpy()), fill=_QUERY, width=3 * _SCALE, joint="curve")
    for (number, _), spans in zip(result["pairs"].tolist(), result["intervals"], strict=True):
        own = queries[number if number < len(queries) else 0].numpy()
        for start, end in spans.cpu().numpy():
            draw.line(at(_between(own, start, end)), fill=_TOGETHER, width=5 * _SCALE, joint="curve")
    _legend(draw, size)
    _caption(draw, result, side, factor, size)
    return picture.resize((_SIDE, _SIDE), Image.Resampling.LANCZOS)


def _between(track: np.ndarray, start: float, end: float) -> np.ndarray:
    """Positions of a track from one time to another, (n, 2)."""
    inner = track[(track[:, 2] > start) & (track[:, 2] < end), 2]
    times = np.concatenate([[start], inner, [end]])
    return np.column_stack([np.interp(times, track[:, 2], track[:, i]) for i in (0, 1)])


def _legend(draw: ImageDraw.ImageDraw, size: int) -> None:
    """What the colours mean, along the upper edge."""
    font, y = ImageFont.load_default(13 * _SCALE), 13 * _SCALE
    draw.rectangle([0, 0, size, 26 * _SCALE], fill=_GROUND)
    names = {"query": _QUERY, "partner": _PARTNER, "together": _TOGETHER, "other tracks": _GREY}
    line, gap = 20 * _SCALE, 6 * _SCALE
    used = sum(line + gap + draw.textlength(name, font=font) for name in names)
    between = (size - 2 * _EDGE * _SCALE - used) / (len(names) - 1)
    x = float(_EDGE * _SCALE)
    for name, colour in names.items():
        draw.line([(x, y), (x + line, y)], fill=colour, width=3 * _SCALE)
        draw.text((x + line + gap, y), name, fill="#495057", font=font, anchor="lm")
        x += line + gap + draw.textlength(name, font=font) + between


def _caption(draw: ImageDraw.ImageDraw, result: dict[str, Any], side: float, factor: float, size: int) -> None:
    """A scale bar, and how many pairs there are."""
    font = ImageFont.load_default(13 * _SCALE)
    length = 10 ** np.floor(np.log10(side / 2.5))
    length *= max(m for m in (1, 2, 5) if m * length <= side / 2.5)
    label = f"{length / 1000:g} km" if length >= 1000 else f"{length:g} m"
    y, x = size - 14 * _SCALE, _EDGE * _SCALE
    draw.rectangle([0, size - 30 * _SCALE, size, size], fill=_GROUND)
    draw.line([(x, y), (x + length * factor, y)], fill="#495057", width=2 * _SCALE)
    draw.text((x + length * factor + 6 * _SCALE, y - 8 * _SCALE), label, fill="#495057", font=font)
    count, seconds = len(result["pairs"]), float(result["durations"].sum())
    text = f"{count} partner{'s' if count != 1 else ''}, {seconds / 60:.0f} min together"
    draw.text((size - x - draw.textlength(text, font=font), y - 8 * _SCALE), text, fill=_TOGETHER, font=font)


def features_of(
    queries: Sequence[tuple[str, Tensor]], result: dict[str, Any], plane: Projection | None
) -> list[dict[str, Any]]:
    """Pieces of queries that were near a partner, as GeoJSON lines.

    Args:
        queries: name and (L, 3) of each track of the input.
        result: of the input.
        plane: of the index.

    Raises:
        BadInput: without a plane.
    """
    if plane is None:
        raise BadInput("The index is in metres, not in degrees: its results have no place on a map. Save them as csv.")
    features = []
    for pair, spans, names in zip(result["pairs"].tolist(), result["intervals"], result["names"], strict=True):
        track = queries[pair[0]][1].numpy()
        for start, end in spans.tolist():
            line = plane.degrees(_between(track, start, end))
            times = [datetime.fromtimestamp(t + plane.epoch, timezone.utc).isoformat() for t in (start, end)]
            features.append(
                {
                    "type": "Feature",
                    "geometry": {"type": "LineString", "coordinates": np.round(line, 7).tolist()},
                    "properties": {"query": names[0], "track": names[1], "start": times[0], "end": times[1]},
                }
            )
    return features
