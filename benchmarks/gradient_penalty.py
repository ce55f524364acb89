"""A step with penalised gradients against plain and adversarial training, and an occlusion map against captum's.

    python benchmarks/gradient_penalty.py [--repeats 15] [--out benchmarks/results/gradient_penalty.json]

A step is the loss of a batch of 128 pictures of 28x28 and its backward pass, in processor time of one thread, with
random weights (cost does not depend on them); the saliency of training images, computed between epochs, is not in it.
captum's Occlusion makes the same map of the same pictures, several windows at a time. Ratios are medians over rounds in
which all alternate.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import captum
import torch
from captum.attr import Occlusion
from torch import Tensor

from zoo.methods.j_sigr.module import JSIGR
from zoo.nn.saliency import occlusion

BATCH, PICTURES = 128, 10
BAR = 4.5
"""Plain steps that one with penalties may cost."""
PLAIN: dict[str, Any] = {"jacobian": 0.0, "selective": 0.0}


def model_of(**init: Any) -> JSIGR:
    """A classifier for 28x28, untrained."""
    torch.manual_seed(0)
    return JSIGR(network="resnet10-w16-softplus", channels=1, img_size=28, eps=0.1, **init)


def alternating(runs: dict[str, Callable[[], Any]], repeats: int) -> dict[str, list[float]]:
    """Milliseconds of processor time of each run in each round; the first round warms up."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(repeats + 1):
        for name, run in runs.items():
            start = time.process_time()
            run()
            if number:
                times[name].append(1000 * (time.process_time() - start))
    return times


def row(what: str, times: dict[str, list[float]], ours: str, peer: str) -> dict[str, Any]:
    """Medians of both sides, and of their ratio in each round."""
    ratio = statistics.median(a / b for a, b in zip(times[ours], times[peer], strict=True))
    middle = {name: statistics.median(times[name]) for name in (ours, peer)}
    return {"what": what, "peer": peer, "ours_ms": middle[ours], "peer_ms": middle[peer], "ratio": ratio}


def steps(repeats: int) -> list[dict[str, Any]]:
    """A step with both penalties against the other kinds."""
    kinds = {
        "penalised": model_of(),
        "plain training": model_of(**PLAIN),
        "adversarial training, 7 steps": model_of(**PLAIN, criterion="sat", attack_steps=7, attack_step=0.025),
    }
    batch = {"image": torch.rand(BATCH, 1, 28, 28), "label": torch.arange(BATCH) % 10, "index": torch.arange(BATCH)}
    kinds["penalised"].cache.values = torch.randint(256, (BATCH, 7, 7), dtype=torch.uint8)

    def step(model: JSIGR) -> None:
        model.train().zero_grad()
        torch.autograd.backward(model.training_step(batch))

    times = alternating({name: partial(step, model) for name, model in kinds.items()}, repeats)
    rows = [row("a step with penalised gradients", times, "penalised", other) for other in list(kinds)[1:]]
    rows[0]["bar"] = BAR
    return [{**each, "batch": BATCH} for each in rows]


def maps(repeats: int) -> list[dict[str, Any]]:
    """Occlusion maps of ten pictures, 4x4 windows every two pixels; both sides make the same."""
    model = model_of(**PLAIN).eval()
    x = torch.rand(PICTURES, 1, 28, 28)
    with torch.no_grad():
        y = model(x).argmax(1)
    theirs = Occlusion(model)

    def peer() -> Tensor:
        with torch.no_grad():
            given: dict[str, Any] = {"strides": (1, 2, 2), "baselines": 0.0, "target": y, "perturbations_per_eval": 16}
            made: Tensor = theirs.attribute(x, (1, 4, 4), **given)
        return made[:, 0]

    torch.testing.assert_close(occlusion(model, x, y, 4, 2), peer(), rtol=1e-3, atol=1e-4)
    name = f"captum {captum.__version__}"
    times = alternating({"zoo": lambda: occlusion(model, x, y, 4, 2), name: peer}, repeats)
    return [{**row("an occlusion map", times, "zoo", name), "batch": PICTURES}]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = steps(options.repeats) + maps(options.repeats)
    for each in rows:
        ours, theirs = f"{each['ours_ms']:9.1f} ms", f"{each['peer_ms']:9.1f} ms"
        print(f"{each['what']:34}{ours}  {each['peer']:32}{theirs}{each['ratio']:8.2f}")
    versions = {"torch": torch.__version__, "captum": captum.__version__, "python": platform.python_version()}
    if options.out:
        content = {"versions": versions, "threads": 1, "repeats": options.repeats, "rows": rows}
        options.out.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
