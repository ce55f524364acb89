"""PGD-20 against its own floor, a loop through `loss.backward()`, and foolbox, in one alternating run.

    python benchmarks/attacks.py [--repeats 7] [--case resnet] [--out benchmarks/results/attacks.json]

The floor is 20 forward passes and backward passes to the input alone, parameters frozen: what no attack can be below.
All attacks: linf, eps 0.1, step 0.01, 20 steps, uniform start, no early stop, evaluation mode, one thread, random
weights (cost does not depend on them), and the same images. foolbox runs with its defaults, which differentiate the
parameters as well unless the user freezes them; with frozen ones it is listed apart.

Times are processor time of the one thread, which what else runs on the machine disturbs least. Prints medians and
ratios; a ratio is the median of the ratios within a round, because the machine's speed drifts.
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

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.nn.attacks import pgd

EPS, STEP, STEPS = 0.1, 0.01, 20


def small_cnn() -> nn.Module:
    """About 100 k parameters for 28x28x1."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.BatchNorm2d(32), nn.ReLU(),
        nn.Conv2d(32, 64, 3, stride=2, padding=1), nn.BatchNorm2d(64), nn.ReLU(),
        nn.Flatten(), nn.Linear(64 * 49, 24), nn.ReLU(), nn.Linear(24, 10),
    )  # fmt: skip


def resnet() -> nn.Module:
    """timm's resnet10t for 32x32x3, 4.9 M parameters."""
    import timm

    return timm.create_model("resnet10t", num_classes=10)


CASES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "small CNN, 8 x 1x28x28": (small_cnn, (8, 1, 28, 28)),
    "small CNN, 96 x 1x28x28": (small_cnn, (96, 1, 28, 28)),
    "resnet10t, 32 x 3x32x32": (resnet, (32, 3, 32, 32)),
}


def passes(model: nn.Module, x: Tensor, y: Tensor) -> None:
    """Forward and backward to the input, as often as the attack."""
    for _ in range(STEPS):
        leaf = x.detach().requires_grad_()
        torch.autograd.grad(F.cross_entropy(model(leaf), y, reduction="sum"), leaf)


def backward_loop(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """What people write first."""
    adv = (x + (2 * torch.rand_like(x) - 1) * EPS).clamp(0, 1)
    for _ in range(STEPS):
        adv = adv.detach().requires_grad_()
        F.cross_entropy(model(adv), y).backward()
        assert adv.grad is not None
        adv = torch.min(torch.max(adv + STEP * adv.grad.sign(), x - EPS), x + EPS).clamp(0, 1)
    model.zero_grad()
    return adv.detach()


def foolbox_attack(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """LinfPGD with a fixed radius; `run` is the attack without foolbox's own evaluation of its success."""
    import foolbox

    wrapped = foolbox.PyTorchModel(model, bounds=(0, 1))
    attack = foolbox.attacks.LinfPGD(abs_stepsize=STEP, steps=STEPS, random_start=True)
    return attack.run(wrapped, x, foolbox.criteria.Misclassification(y), epsilon=EPS)


def ours(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    return pgd(model, x, y, eps=EPS, step=STEP, steps=STEPS)


def ours_best(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """All points compared, no label: no sample leaves the batch."""
    never = torch.zeros(len(x), dtype=torch.bool)
    return pgd(model, x, y, eps=EPS, step=STEP, steps=STEPS, keep="best", success=lambda logits, target: never)


ROWS: dict[str, tuple[Callable[[nn.Module, Tensor, Tensor], Any], bool]] = {
    "floor: 20 passes, parameters frozen": (passes, True),
    "20 passes, parameters live": (passes, False),
    "zoo pgd, keep=last": (ours, False),
    "zoo pgd, keep=last, parameters frozen": (ours, True),
    "zoo pgd, keep=best": (ours_best, False),
    "loop with loss.backward()": (backward_loop, False),
    "foolbox LinfPGD, defaults": (foolbox_attack, False),
    "foolbox LinfPGD, parameters frozen": (foolbox_attack, True),
}


def measure(build: Callable[[], nn.Module], shape: tuple[int, ...], repeats: int) -> dict[str, dict[str, float]]:
    """Milliseconds and ratios to the floor of the same round."""
    torch.manual_seed(0)
    model = build().eval()
    x, y = torch.rand(shape), torch.randint(0, 10, shape[:1])
    times: dict[str, list[float]] = {name: [] for name in ROWS}
    for number in range(repeats + 1):
        order = list(ROWS.items()) if number % 2 else list(ROWS.items())[::-1]
        for name, (run, frozen) in order:
            model.requires_grad_(not frozen)
            start = time.process_time()
            run(model, x, y)
            if number:  # the first round warms up
                times[name].append(1000 * (time.process_time() - start))
    floor = next(iter(times.values()))
    return {
        name: {
            "ms": statistics.median(found),
            "min_ms": min(found),
            "over_floor": statistics.median(a / b for a, b in zip(found, floor, strict=True)),
            "min_over_floor": min(found) / min(floor),
        }
        for name, found in times.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--case", default="", help="only those whose name holds this; the others in --out stay")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    import foolbox

    results: dict[str, Any] = {
        "versions": {"torch": torch.__version__, "foolbox": foolbox.__version__, "python": platform.python_version()},
        "threads": 1,
        "clock": "processor time",
        "cases": {},
    }
    if options.out and options.out.is_file():
        results["cases"] = json.loads(options.out.read_text(encoding="utf-8"))["cases"]
    for title, (build, shape) in CASES.items():
        if options.case not in title:
            continue
        found = measure(build, shape, options.repeats)
        results["cases"][title] = {"repeats": options.repeats, "rows": found}
        one = found["floor: 20 passes, parameters frozen"]["ms"] / STEPS
        print(f"\n{title}: one pass {one:.1f} ms, {STEPS} steps, processor time")
        print(f"{'':42}{'ms':>8}{'/ floor':>9}{'by min':>9}")
        for name, row in found.items():
            print(f"{name:42}{row['ms']:8.0f}{row['over_floor']:9.3f}{row['min_over_floor']:9.3f}")
        share = found["zoo pgd, keep=last"]["over_floor"] / found["foolbox LinfPGD, defaults"]["over_floor"]
        print(f"zoo / foolbox with defaults: {share:.2f}", flush=True)
        if options.out:
            options.out.parent.mkdir(parents=True, exist_ok=True)
            options.out.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
