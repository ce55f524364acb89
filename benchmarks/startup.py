"""What a cold process costs: listing, loading, the first prediction, and the end of a command after its answer.

    python benchmarks/startup.py [--repeats 5] [--against CHECKOUT] [--out FILE]

Each reading is a process of its own, ours and its floor in turns. A first prediction is compared with
`import lightning` alone, and listing with a bare Python. The end of a command is the time between its last line and its
exit; with `--against` it is compared with that of an earlier checkout of this repository.
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
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

from datamodules.worlds.digit_scenes import SceneConfig, render
from zoo.files import versions

HERE = Path(__file__).resolve().parents[1]
LISTING = "import zoo; zoo.list_models()"
PREDICTING = "import zoo; zoo.load({name!r}).predict({picture!r})"
END = "; import os; os._exit(0)"


def seconds(code: str) -> float:
    """Of a process that runs a line of Python."""
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": str(HERE)})
    return time.perf_counter() - begin


def after_the_answer(checkout: Path, words: list[str]) -> float:
    """Seconds between the last line of a command and its end."""
    env = {**os.environ, "PYTHONPATH": str(checkout)}
    command = [sys.executable, "-u", "-m", "zoo", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=env, cwd=checkout) as process:
        assert process.stdout is not None
        last = time.perf_counter()
        for _ in process.stdout:
            last = time.perf_counter()
        process.wait()
        if process.returncode:
            raise SystemExit(f"zoo {' '.join(words)} ended with {process.returncode}")
        return time.perf_counter() - last


def in_turns(
    what: str, peer: str, ours: Callable[[], float], theirs: Callable[[], float], repeats: int
) -> dict[str, Any]:
    """One row of medians."""
    readings = [(ours(), theirs()) for _ in range(repeats)]
    mine, other = (statistics.median(side) for side in zip(*readings, strict=True))
    ratio = statistics.median(a / b for a, b in readings)
    return {"what": what, "px": 160, "peer": peer, "ours_ms": mine * 1000, "peer_ms": other * 1000, "ratio": ratio}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--against", type=Path)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        picture = str(Path(folder) / "picture.png")
        Image.fromarray(render(SceneConfig(), "test", 1)[0]).save(picture)
        rows = [
            in_turns(
                "listing all methods", "bare Python", lambda: seconds(LISTING), lambda: seconds("pass"), options.repeats
            )
        ]
        for name in ("alpha-iou-yolo", "rslad"):
            code = PREDICTING.format(name=name, picture=picture) + END
            first = in_turns(
                f"{name}: first prediction of a cold process",
                "import lightning alone",
                lambda code=code: seconds(code),  # type: ignore[misc]
                lambda: seconds(f"import lightning{END}"),
                options.repeats,
            )
            rows.append(first)
        if options.against is not None:
            words = ["predict", "alpha-iou-yolo", picture]
            other = options.against.resolve()
            rows.append(
                in_turns(
                    "zoo predict: from the last line to the end",
                    "before commands ended at once",
                    lambda: after_the_answer(HERE, words),
                    lambda: after_the_answer(other, words),
                    options.repeats,
                )
            )
    for row in rows:
        print(f"{row['what']}: {row['ours_ms']:.0f} ms, {row['peer']} {row['peer_ms']:.0f} ms")
    if options.out:
        threads = int(os.environ.get("OMP_NUM_THREADS", 0))
        content = {"versions": versions("torch", "lightning"), "threads": threads, "rows": rows}
        options.out.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
