"""Run one study in this process: `python -m zoo.studies ID NAME ARGUMENTS OUT`, with arguments as JSON.

`zoo reproduce` starts it; `OUT` then holds metrics and curves as JSON, and appears only when the study has ended.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from zoo.files import write_whole
from zoo.studies import find_study


def main(words: Sequence[str]) -> int:
    """Run and write."""
    method, name, arguments, out = words
    outcome = find_study(method, name)(**json.loads(arguments))
    metrics = {k: float(v) for k, v in outcome.metrics.items()}
    curves = {k: [[float(x), float(y)] for x, y in points] for k, points in outcome.curves.items()}
    write_whole(Path(out), json.dumps({"metrics": metrics, "curves": curves}) + "\n")
    print(json.dumps(metrics, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
