"""Plots of claims: one line per arm, the mean of its seeds. matplotlib comes with the extra `test`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from zoo.claims.planning import fingerprint, jobs_of
from zoo.claims.schema import Claim
from zoo.index import Entry
from zoo.pictures.axes import new_axes, save_png
from zoo.pictures.palette import GREY, colour_of

__all__ = ["curve_key", "curves_of", "draw_claims", "draw_curves", "words_of"]

Points = list[tuple[float, float]]

_FAINT = 3  # with more curves than these, single seeds would hide the means
_METRICS = {
    "map": "mAP (IoU 0.50 to 0.95)",
    "map_50": "mAP (IoU 0.50)",
    "map_75": "mAP (IoU 0.75)",
    "map_75_95": "mAP (IoU 0.75 to 0.95)",
    "robust": "accuracy under attack",
    "rmse": "RMSE",
}
"""Logged metrics whose names are no words."""


def curve_key(claim: Claim, curves: Sequence[str]) -> str | None:
    """Which curve belongs to a claim: its metric while validating, else the only one there is.

    Values "X per Y", of separate things, are no course and belong to none; "X per Y against Z" is one.
    """
    curves = [name for name in curves if " per " not in name or " against " in name]
    wanted = claim.metric.replace("test/", "val/", 1)
    if wanted in curves:
        return wanted
    return curves[0] if len(curves) == 1 else None


def curves_of(entry: Entry, claim: Claim, runs: dict[str, Any]) -> tuple[str, dict[str, list[Points]]]:
    """Name of the curve, and arm -> one curve per seed; empty where there are none with at least three points."""
    lines: dict[str, list[Points]] = {}
    name = ""
    for (arm, _), spec in jobs_of(entry, claim).items():
        curves = runs.get(fingerprint(spec), {}).get("curves", {})
        key = curve_key(claim, list(curves))
        points = [(float(x), float(y)) for x, y in curves.get(key, []) if y is not None] if key else []
        if len(points) >= 3 and key:
            name = key
            lines.setdefault(arm, []).append(points)
    return name, lines


def words_of(key: str) -> str:
    """A logged key in words, for an axis: `val/map_50` is the validation mAP at an IoU of 0.50.

    Args:
        key: as it is logged, `val/NAME` or `test/NAME`, or the name that a study gives its curve.
    """
    stage, _, name = key.partition("/")
    known = {"train": "training", "val": "validation", "test": "test"}
    return f"{known[stage]} {_METRICS.get(name, name.replace('_', ' '))}" if stage in known and name else key


def draw_claims(entry: Entry, claims: Sequence[Claim], results: dict[str, Any], folder: Path) -> list[Path]:
    """Draw every claim with curves that has been run."""
    drawn = []
    for claim in claims:
        if results.get("claims", {}).get(claim.id, {}).get("verdict", "not run") == "not run":
            continue
        name, curves = curves_of(entry, claim, results["runs"])
        if curves:
            path = folder / f"claim-{claim.id}.png"
            across = claim.across or ("epoch" if "/" in name else "")  # studies count what they like
            named = {claim.labels.get(arm, arm): lines for arm, lines in curves.items()}
            draw_curves(named, claim.axis or words_of(name), path, across=across, mark=claim.at)
            drawn.append(path)
    return drawn


def draw_curves(
    curves: dict[str, list[Points]], name: str, path: Path, *, across: str = "epoch", mark: float | None = None
) -> None:
    """Write one plot with a transparent ground and mid-grey text, readable on light and on dark pages.

    The mean of the seeds is strong. Single seeds are faint, and left out where they would hide the means.

    Args:
        curves: what the legend says -> curves.
        name: of the vertical axis.
        path: PNG to write.
        across: of the horizontal axis, unless `name` says it as "X against Y".
        mark: share of the horizontal axis that the claim is about.

    Raises:
        MissingExtra: if matplotlib is not installed.
    """
    figure, axes = new_axes(6.4, 3.4)
    means = {label: _mean(lines) for label, lines in curves.items()}
    few = max(map(len, means.values())) <= 6  # then the points themselves are shown
    for i, (label, lines) in enumerate(curves.items()):
        for line in lines if len(lines) > 1 and len(curves) <= _FAINT else []:
            axes.plot(*zip(*line, strict=True), color=colour_of(i), alpha=0.3, linewidth=0.8)
        style: dict[str, Any] = {"linewidth": 1.8, "marker": "o" if few else None, "markersize": 4}
        axes.plot(*zip(*means[label], strict=True), color=colour_of(i), label=label, **style)
    if mark is not None:
        last = max(x for lines in curves.values() for line in lines for x, _ in line)
        axes.axvline(mark * last, color=GREY, linewidth=0.8, linestyle=":")
    if len(curves) > 1:
        drawn = dict(zip(*axes.get_legend_handles_labels()[::-1], strict=True))
        order = sorted(means, key=lambda label: -means[label][-1][1])  # as the lines end, from top to bottom
        axes.legend([drawn[label] for label in order], order, frameon=False, fontsize=9, labelcolor="linecolor")
    vertical, _, horizontal = name.partition(" against ")  # a study may say what its curve is drawn against
    axes.set_xlabel(horizontal or across)
    axes.set_ylabel(vertical)
    if all(x == int(x) for mean in means.values() for x, _ in mean):
        axes.xaxis.get_major_locator().set_params(integer=True)
    axes.margins(x=0.02)
    save_png(figure, path)


def _mean(lines: list[Points]) -> Points:
    """Mean over seeds at the points that all of them have."""
    common = sorted(set.intersection(*({x for x, _ in line} for line in lines)))
    tables = [dict(line) for line in lines]
    return [(x, sum(t[x] for t in tables) / len(tables)) for x in common]
