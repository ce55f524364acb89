"""`zoo predict` on many pictures: against an earlier checkout, time to the first line, and memory that stays flat.

    python benchmarks/predict.py --against CHECKOUT [--pictures 500] [--repeats 1] [--out FILE]

Pictures of 300 px are made once. Each run is a process of its own, the two sides in turns; time is that of the wall
clock and, since machines are shared, that of the processor. The side to compare with is a checkout of this repository,
which is put on the path. Memory is the peak of the process.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from PIL import Image

from datamodules.worlds.digit_scenes import SceneConfig, render
from zoo.files import versions

HERE = Path(__file__).resolve().parents[1]
SIDE = 300


def make_pictures(folder: Path, count: int) -> list[str]:
    """Photographs with digits, as JPEG."""
    folder.mkdir()
    for i in range(count):
        scene = Image.fromarray(render(SceneConfig(), "test", i)[0])
        scene.resize((SIDE, SIDE)).save(folder / f"{i:04d}.jpg", quality=90)
    return [str(path) for path in sorted(folder.iterdir())]


def measure(checkout: Path, model: str, pictures: list[str], out: Path | None) -> dict[str, float]:
    """One run of the command: seconds to the first line and to the end, of the processor, and peak memory in MiB."""
    code = "import sys; from zoo.cli import main; sys.exit(main())"
    words = [sys.executable, "-u", "-c", code, "predict", model, *pictures, "--device", "cpu"]
    words += ["--out", str(out)] if out else ["--json"]
    env = {**os.environ, "PYTHONPATH": str(checkout)}
    begin, first = time.perf_counter(), 0.0
    with subprocess.Popen(words, stdout=subprocess.PIPE, env=env, cwd=checkout) as process:
        assert process.stdout is not None
        for _ in process.stdout:
            first = first or time.perf_counter() - begin
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{checkout}: the command ended with {process.returncode}")
    seconds = time.perf_counter() - begin
    return {
        "first": first,
        "seconds": seconds,
        "cpu": usage.ru_utime + usage.ru_stime,
        "mib": usage.ru_maxrss / (1 << 20 if sys.platform == "darwin" else 1 << 10),
    }


def compare(other: Path, model: str, pictures: list[str], repeats: int, place: Path) -> list[dict[str, Any]]:
    """Rows of both sides, in turns."""
    rows = []
    for name, drawn in (("with pictures", True), ("results only", False)):
        found: dict[str, list[dict[str, float]]] = {"ours": [], "theirs": []}
        for _ in range(repeats):
            for side, checkout in (("theirs", other), ("ours", HERE)):
                found[side].append(measure(checkout, model, pictures, place / side if drawn else None))
        for key, what in (("seconds", "to the end"), ("cpu", "of the processor"), ("first", "to the first line")):
            ours, theirs = (statistics.median(run[key] for run in found[side]) for side in ("ours", "theirs"))
            row = {
                "what": f"{len(pictures)} pictures, {name}, {what}",
                "px": SIDE,
                "peer": "before results were streamed",
                "ours_ms": ours * 1000,
                "peer_ms": theirs * 1000,
                "ratio": ours / theirs,
            }
            rows.append(row | ({"bar": 1 / 3} if drawn and key == "seconds" else {}))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--against", type=Path, required=True)
    parser.add_argument("--model", default="alpha-iou-yolo")
    parser.add_argument("--pictures", type=int, default=500)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        pictures = make_pictures(place / "pictures", options.pictures)
        rows = compare(options.against.resolve(), options.model, pictures, options.repeats, place)
        few, all_of_them = (
            measure(HERE, options.model, pictures[:count], place / "memory")["mib"]
            for count in (len(pictures) // 5, len(pictures))
        )
    what = f"peak memory for {len(pictures)} pictures ({all_of_them:.0f} MiB) / for a fifth of them ({few:.0f} MiB)"
    rows.append({"what": what, "ratio": all_of_them / few})
    content = {
        "versions": versions("torch", "pillow"),
        "threads": int(os.environ.get("OMP_NUM_THREADS", 0)),
        "rows": rows,
    }
    for row in rows:
        print(f"{row['what']}: {row['ratio']:.3f}")
    if options.out:
        options.out.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
