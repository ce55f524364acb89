"""Pictures of the card: error against latency of all regressors, and the default weights' predictions."""

from __future__ import annotations

from typing import Any

import numpy as np

from zoo.methods.steel_roughness.latency import shipped
from zoo.pictures.axes import new_axes
from zoo.pictures.card import CardFiles, card_picture
from zoo.pictures.palette import CURVES, GREY

__all__ = ["error_against_latency", "predicted_against_measured"]

_BESIDE = {"inception": ((-8, -12), "right"), "resnet1d": ((8, -10), "left")}
"""Offset and alignment of names that others would cover."""
_COLOUR, _OTHER = CURVES[:2]


def _errors(card: CardFiles) -> dict[tuple[str, str], list[float]]:
    """(network, size) -> RMSE with 4,000 sections, per seed of the claims' runs; else that of the published weights."""
    rmse: dict[tuple[str, str], list[float]] = {}
    for run in card.runs():
        spec = run["spec"]
        if spec.get("study") == "learning_curve":
            rmse.setdefault((spec["set"]["network"], "narrow"), []).append(run["metrics"]["rmse_4000"])
        elif spec.get("recipe") in ("sim-closed-form", "sim-rocket") and "data.world_seed" in spec["set"]:
            name = spec["recipe"].removeprefix("sim-")
            rmse.setdefault((name, "narrow"), []).append(run["metrics"]["test/rmse"])
    for name, (_, single) in shipped().items():
        if (name, "narrow") not in rmse:
            rmse[name, "shipped"] = [single]
    return rmse


@card_picture("error-against-latency")
def error_against_latency(card: CardFiles) -> Any:
    """Test RMSE with 4,000 labelled sections over milliseconds per section; each seed faint.

    Args:
        card: its files.
    """
    measured = card.read("latency.json")
    if measured is None:
        return None
    figure, plot = new_axes(6.0, 4.0)
    speed = {(row["network"], row["size"]): row["ms"] for row in measured["rows"]}
    for key, values in _errors(card).items():
        if key not in speed:
            continue
        plot.plot([speed[key]] * len(values), values, "o", color=_COLOUR, alpha=0.3, ms=4)
        plot.plot(speed[key], np.mean(values), "o", color=_COLOUR)
        text = key[0] if len(values) > 1 else f"{key[0]}, one seed"
        offset, side = _BESIDE.get(key[0], ((8, 4), "left"))
        place = (speed[key], float(np.mean(values)))
        plot.annotate(text, place, xytext=offset, textcoords="offset points", color=GREY, ha=side)
    plot.axvline(10, color=_OTHER, lw=1, ls="--")
    plot.set_xscale("log")
    plot.set_xlabel("ms per section, one core")
    plot.set_ylabel("test RMSE of Ra in µm")
    return figure


@card_picture("predicted-against-measured")
def predicted_against_measured(card: CardFiles) -> Any:
    """150 test sections with the intervals of the default weights.

    Args:
        card: its files.
    """
    from zoo.store import datamodule, load

    model: Any = load(card.method)
    source: Any = datamodule(card.method)
    data = source.split("test")
    chosen = np.linspace(0, len(data) - 1, 150).round().astype(int)
    items = [data[int(i)] for i in chosen]
    results = model.predict([item["signal"] for item in items])
    true = np.array([float(item["ra"]) for item in items])
    value = np.array([float(f["value"]) for f in results])
    ends = np.stack([f["interval"].numpy() for f in results])
    figure, plot = new_axes(5.2, 5.0)
    high = 1.05 * max(true.max(), value.max())
    plot.plot([0, high], [0, high], color=GREY, lw=1)
    bars = np.stack([value - ends[:, 0], ends[:, 1] - value])
    plot.errorbar(true, value, bars, fmt="o", ms=3, lw=0.7, color=_COLOUR, ecolor=_COLOUR + "66")
    plot.set_xlim(0, high)
    plot.set_ylim(0, None)
    plot.set_xlabel("Ra of the stylus in µm")
    plot.set_ylabel("Ra from the laser in µm, with 90 % interval")
    return figure
