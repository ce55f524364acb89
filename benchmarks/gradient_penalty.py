"""A step with penalised gradients against plain and adversarial training, and an occlusion map against captum's.

    python benchmarks/gradient_penalty.py [--repeats 15] [--out benchmarks/results/gradient_penalty.json]

A step is the loss of a batch of 128 pictures of 28x28 and its backward pass, in processor time of one thread, with
random weights (cost does not depend on them). Adversarial training has seven attack steps. The saliency of the training
images, which is computed between epochs, is a number of its own: seconds for 1,000 images. captum's Occlusion makes the
same map of the same pictures, several windows at a time. Ratios are medians over rounds in which all alternate.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import captum
import torch
from captum.attr import Occlusion
from torch import Tensor

from zoo.methods.j_sigr.module import JSIGR
from zoo.nn.saliency import occlusion

BATCH, PICTURES = 128, 10
PLAIN = {"jacobian": 0.0, "selective": 0.0}


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


def ratio(times: dict[str, list[float]], one: str, other: str) -> float:
    """Median of the ratio over the rounds."""
    return statistics.median(a / b for a, b in zip(times[one], times[other], strict=True))


def steps(repeats: int) -> dict[str, float]:
    """A step of each kind, and the saliency of 1,000 training images."""
    kinds = {
        "penalised": model_of(),
        "plain": model_of(**PLAIN),
        "adversarial": model_of(**PLAIN, criterion="sat", attack_steps=7, attack_step=0.025),
    }
    batch = {"image": torch.rand(BATCH, 1, 28, 28), "label": torch.arange(BATCH) % 10, "index": torch.arange(BATCH)}
    kinds["penalised"].cache.values = torch.randint(256, (BATCH, 7, 7), dtype=torch.uint8)

    def step(model: JSIGR) -> None:
        model.train().zero_grad()
        model.training_step(batch).backward()

    times = alternating({name: lambda model=model: step(model) for name, model in kinds.items()}, repeats)
    start = time.process_time()
    kinds["penalised"].perturbation(batch["image"])
    saliency = 1000 * (time.process_time() - start) / BATCH
    found = {f"{name}_ms": statistics.median(values) for name, values in times.items()}
    return {
        **found,
        "penalised_over_plain": ratio(times, "penalised", "plain"),
        "penalised_over_adversarial": ratio(times, "penalised", "adversarial"),
        "saliency_s_per_1000": saliency,
    }


def maps(repeats: int) -> dict[str, float]:
    """Occlusion maps of ten pictures, 4x4 windows every two pixels."""
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

    ours = occlusion(model, x, y, 4, 2)
    difference = float((ours - peer()).abs().max() / ours.abs().max())
    times = alternating({"zoo": lambda: occlusion(model, x, y, 4, 2), "captum": peer}, repeats)
    return {
        **{f"{name}_ms": statistics.median(values) for name, values in times.items()},
        "zoo_over_captum": ratio(times, "zoo", "captum"),
        "largest_difference": difference,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    result = {"steps": steps(options.repeats), "occlusion": maps(options.repeats)}
    for part, values in result.items():
        for name, value in values.items():
            print(f"{part:<10} {name:<28} {value:10.4g}")
    versions = {"torch": torch.__version__, "captum": captum.__version__, "python": platform.python_version()}
    if options.out:
        options.out.write_text(json.dumps({"versions": versions, **result}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
