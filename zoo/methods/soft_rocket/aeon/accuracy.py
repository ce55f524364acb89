r"""Accuracy of aeon's Rocket with scikit-learn's ridge on sets of the UCR archive, for the claim `as-accurate-as-aeon`.

    pip install aeon==1.6.0        # into another environment: numba wants an older numpy than the zoo's
    zoo data fetch ucr-a-h --to data --yes; zoo data fetch ucr-h-p --to data --yes
    /path/to/that/python zoo/methods/soft_rocket/aeon/accuracy.py data/UCR-A-H data/UCR-H-P

Sets in the order of their size, of equal lengths and at most --points points, until --minutes are over; those of --skip
are left out. It goes on where it was stopped, and runs without the zoo installed. The published results:

    accuracy.py data/UCR-A-H data/UCR-H-P
    accuracy.py data/UCR-A-H data/UCR-H-P --points 100000000 --minutes 9 \
        --skip zoo/methods/soft_rocket/aeon/accuracy.json --out zoo/methods/soft_rocket/aeon/accuracy_large.json
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np

RESULTS = Path(__file__).parent


def read(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Series (N, 1, L) and labels of a file of the archive."""
    table = np.loadtxt(path, delimiter="\t", ndmin=2)
    return table[:, None, 1:].astype(np.float32), table[:, 0].astype(int)


def standardised(x: np.ndarray) -> np.ndarray:
    """Series with mean 0 and deviation 1."""
    std = x.std(2, keepdims=True)
    return (x - x.mean(2, keepdims=True)) / np.where(std > 1e-6, std, np.inf)


def main() -> None:
    """Measure and write after each set."""
    from aeon.transformations.collection.convolution_based import Rocket
    from sklearn.linear_model import RidgeClassifierCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("roots", nargs="+", type=Path)
    parser.add_argument("--kernels", type=int, default=2000)
    parser.add_argument("--points", type=int, default=600_000)
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--out", type=Path, default=RESULTS / "accuracy.json")
    parser.add_argument("--skip", type=Path, help="results whose sets are done")
    options = parser.parse_args()
    files = sorted(p for root in options.roots for p in root.glob("*/*_TRAIN.tsv"))
    sizes = {p: p.stat().st_size + p.with_name(p.name.replace("TRAIN", "TEST")).stat().st_size for p in files}
    scores: dict[str, float] = json.loads(options.out.read_text())["accuracy"] if options.out.is_file() else {}
    done = set(json.loads(options.skip.read_text())["accuracy"]) if options.skip else set()
    left: dict[str, str] = {}
    start = time.process_time()
    for path in sorted(files, key=lambda p: sizes[p]):
        name = path.parent.name
        if name in done or name in scores:
            continue
        if sizes[path] > 17 * options.points or time.process_time() - start > 60 * options.minutes:
            left[name] = "beyond the computing budget"
            continue
        (x, y), (test, truth) = read(path), read(path.with_name(f"{name}_TEST.tsv"))
        if not (np.isfinite(x).all() and np.isfinite(test).all()):
            left[name] = "unequal lengths or missing values"
            continue
        rocket = Rocket(n_kernels=options.kernels, normalise=False, random_state=0, n_jobs=1).fit(x)
        model = make_pipeline(StandardScaler(), RidgeClassifierCV(np.logspace(-3, 3, 10)))
        model.fit(rocket.transform(standardised(x)), y)
        scores[name] = float(model.score(rocket.transform(standardised(test)), truth))
        print(f"{name} {scores[name]:.4f} {time.process_time() - start:.0f} s", flush=True)
        text = {"kernels": options.kernels, "aeon": "1.6.0", "seed": 0, "accuracy": scores, "left_out": left}
        options.out.write_text(json.dumps(text, indent=1) + "\n")
    text = {"kernels": options.kernels, "aeon": "1.6.0", "seed": 0, "accuracy": scores, "left_out": left}
    options.out.write_text(json.dumps(text, indent=1) + "\n")


if __name__ == "__main__":
    main()
