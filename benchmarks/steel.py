"""Roughness error against latency: every regressor of steel strip on one core.

    python benchmarks/steel.py [--sizes narrow full shipped]                    latency of all, into results/steel.json
    python benchmarks/steel.py --pictures model_cards/steel-roughness/images    draws what has been measured

Latency is the median of one section at a time; throughput that of batches of 64. Errors are those of the claims
(`zoo reproduce steel-roughness`), test RMSE with 4,000 labelled sections, mean over the seeds, or of the published
weights. The pictures are that table as a scatter, and the default weights' predictions with their intervals on the
simulator's test coils.
"""

from __future__ import annotations

import argparse
import json
import platform
from pathlib import Path
from typing import Any

import numpy as np
import torch

from zoo.methods.steel_roughness.module import SteelRoughness
from zoo.methods.steel_roughness.studies import FULL, NARROW, milliseconds

RESULTS = Path(__file__).parent / "results" / "steel.json"
CARD = Path(__file__).parents[1] / "model_cards" / "steel-roughness"
BESIDE = {"inception": ((-8, -12), "right"), "resnet1d": ((8, -10), "left")}
"""Offset and alignment of names that others would cover."""
COLOUR, OTHER, GREY = "#2f80c8", "#d97706", "#808890"


def shipped() -> dict[str, tuple[dict[str, Any], float]]:
    """Network -> constructor arguments and test RMSE of the published weights."""
    from zoo.index import entries

    found = {}
    for about in entries()["steel-roughness"].weights.values():
        if about.file and "test/rmse" in about.metrics:
            found[about.init["network"]] = (about.init, float(about.metrics["test/rmse"]))
    return found


def measure(sizes: list[str]) -> list[dict[str, Any]]:
    torch.set_num_threads(1)
    rows = []
    known = {"narrow": NARROW, "full": FULL, "shipped": {name: init for name, (init, _) in shipped().items()}}
    for size in sizes:
        for name, given in known[size].items():
            torch.manual_seed(0)
            model = SteelRoughness(**{"network": name, **given})
            one, many = milliseconds(model), milliseconds(model, batch=64, repeats=5)
            numbers = sum(v.numel() for v in model.published_state().values())
            rows.append({"network": name, "size": size, "ms": one, "per_second": 1000 / many, "numbers": numbers})
            print(f"{name:16} {size:7} {one:8.2f} ms  {1000 / many:9.0f} sections/s  {numbers:10,} numbers", flush=True)
    return rows


def errors() -> dict[tuple[str, str], list[float]]:
    """(network, size) -> RMSE with 4,000 sections, per seed of the claims' runs; else that of the published weights."""
    runs = json.loads((CARD / "results.json").read_text())["runs"] if (CARD / "results.json").is_file() else {}
    found: dict[tuple[str, str], list[float]] = {}
    for run in runs.values():
        spec = run["spec"]
        if spec.get("study") == "learning_curve":
            found.setdefault((spec["set"]["network"], "narrow"), []).append(run["metrics"]["rmse_4000"])
        elif spec.get("recipe") in ("sim-closed-form", "sim-rocket") and "data.world_seed" in spec["set"]:
            name = spec["recipe"].removeprefix("sim-")
            found.setdefault((name, "narrow"), []).append(run["metrics"]["test/rmse"])
    for name, (_, rmse) in shipped().items():
        if (name, "narrow") not in found:
            found[name, "shipped"] = [rmse]
    return found


def axes(width: float = 6.0, height: float = 4.0) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    figure.patch.set_alpha(0)
    plot = figure.subplots()
    plot.patch.set_alpha(0)
    for side in ("top", "right"):
        plot.spines[side].set_visible(False)
    for side in ("bottom", "left"):
        plot.spines[side].set_color(GREY)
    plot.tick_params(colors=GREY, which="both")
    plot.xaxis.label.set_color(GREY)
    plot.yaxis.label.set_color(GREY)
    return figure, plot


def draw_latency(measured: dict[str, Any], folder: Path) -> None:
    figure, plot = axes()
    speed = {(row["network"], row["size"]): row["ms"] for row in measured["rows"]}
    for key, values in errors().items():
        if key not in speed:
            continue
        plot.plot([speed[key]] * len(values), values, "o", color=COLOUR, alpha=0.3, ms=4)
        plot.plot(speed[key], np.mean(values), "o", color=COLOUR)
        text = key[0] if len(values) > 1 else f"{key[0]}, one seed"
        offset, side = BESIDE.get(key[0], ((8, 4), "left"))
        place = (speed[key], float(np.mean(values)))
        plot.annotate(text, place, xytext=offset, textcoords="offset points", color=GREY, ha=side)
    plot.axvline(10, color=OTHER, lw=1, ls="--")
    plot.set_xscale("log")
    plot.set_xlabel("ms per section, one core")
    plot.set_ylabel("test RMSE of Ra in µm")
    figure.savefig(folder / "error-against-latency.png", transparent=True)


def draw_predictions(folder: Path, count: int = 150) -> None:
    import zoo

    model = zoo.load("steel-roughness")
    data = zoo.datamodule("steel-roughness").split("test")
    chosen = np.linspace(0, len(data) - 1, count).round().astype(int)
    items = [data[int(i)] for i in chosen]
    found = model.predict([item["signal"] for item in items])
    true = np.array([float(item["ra"]) for item in items])
    value = np.array([float(f["value"]) for f in found])
    ends = np.stack([f["interval"].numpy() for f in found])
    figure, plot = axes(5.2, 5.0)
    high = 1.05 * max(true.max(), value.max())
    plot.plot([0, high], [0, high], color=GREY, lw=1)
    bars = np.stack([value - ends[:, 0], ends[:, 1] - value])
    plot.errorbar(true, value, bars, fmt="o", ms=3, lw=0.7, color=COLOUR, ecolor=COLOUR + "66")
    plot.set_xlim(0, high)
    plot.set_ylim(0, None)
    plot.set_xlabel("Ra of the stylus in µm")
    plot.set_ylabel("Ra from the laser in µm, with 90 % interval")
    figure.savefig(folder / "predicted-against-measured.png", transparent=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--pictures", type=Path)
    parser.add_argument("--sizes", nargs="+", default=["narrow", "full", "shipped"], help="measured; others are kept")
    options = parser.parse_args()
    if options.pictures is None:
        facts = {"threads": 1, "torch": torch.__version__, "cpu": platform.processor() or platform.machine()}
        before = json.loads(options.out.read_text())["rows"] if options.out.is_file() else []
        rows = [row for row in before if row["size"] not in options.sizes] + measure(options.sizes)
        options.out.write_text(json.dumps({"rows": rows, **facts}, indent=1) + "\n")
        return
    options.pictures.mkdir(parents=True, exist_ok=True)
    draw_predictions(options.pictures)
    if options.out.is_file() and errors():
        draw_latency(json.loads(options.out.read_text()), options.pictures)


if __name__ == "__main__":
    main()
