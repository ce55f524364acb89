"""A distillation step against the sum of its passes, and `predict` of one picture against the bare network.

    python benchmarks/rslad.py [--repeats 15] [--out benchmarks/results/rslad_speed.json]

A step is the loss of a batch, its backward pass and the optimiser's step. Its floor is what no implementation can
leave out: one forward pass of the teacher, 7 forward passes of the student in evaluation mode with backward passes to
the input alone, 2 forward passes in training mode, one backward pass to the parameters, and the same optimiser.
`predict` is compared with network(x) without gradients on a ready tensor. One thread, random weights (cost does not
depend on them).

Steps are measured in processor time of the one thread, `predict` in wall-clock time. A ratio or difference is the
median over rounds in which both alternate.
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
from PIL import Image
from torch import Tensor, nn

from zoo.methods.rslad.module import RSLAD
from zoo.nn.adversarial_losses import kl
from zoo.nn.classifiers import create_classifier, laid_out

STEPS, BATCH = 7, 128
STUDENTS = {"resnet10-w8": "resnet10-w24", "resnet10-w24": "resnet10-w24"}
"""Student -> teacher."""


def student_of(network: str) -> RSLAD:
    """A student for 28x28, untrained."""
    torch.manual_seed(0)
    given: dict[str, Any] = {"channels": 1, "img_size": 28, "attack_steps": STEPS, "kl_scale": 1.0}
    return RSLAD(network=network, eps=0.1, attack_step=0.025, **given)


def passes(student: RSLAD, teacher: nn.Module, x: Tensor) -> Tensor:
    """The loss of what the passes give, without an attack between them."""
    network = student.network
    with torch.no_grad():
        log_t = teacher(x).log_softmax(1)
    network.eval()
    for _ in range(STEPS):
        leaf = x.detach().requires_grad_()
        torch.autograd.grad(kl(log_t, network(leaf).log_softmax(1)), leaf)
    network.train()
    adv, clean = network(x).log_softmax(1), network(x).log_softmax(1)
    return 5 / 6 * kl(log_t, adv) + 1 / 6 * kl(log_t, clean)


def step_of(name: str, teacher_name: str, repeats: int) -> dict[str, float]:
    """Milliseconds of a step and of its passes."""
    student, floor = student_of(name), student_of(name)
    teacher = create_classifier(teacher_name, 10, 1).to(memory_format=student.layout).eval().requires_grad_(False)
    student.teach(teacher)
    x, y, index = torch.rand(BATCH, 1, 28, 28), torch.randint(0, 10, (BATCH,)), torch.arange(BATCH)
    ready = laid_out(x, student.layout)
    runs: list[tuple[RSLAD, Callable[[], Tensor]]] = [
        (student, lambda: student.loss(x, y, index)),
        (floor, lambda: passes(floor, teacher, ready)),
    ]
    optimizers = [torch.optim.SGD(m.parameters(), lr=0.01, momentum=0.9) for m, _ in runs]
    times: list[list[float]] = [[], []]
    for number in range(repeats + 1):
        for k in (0, 1) if number % 2 else (1, 0):
            start = time.process_time()
            loss = runs[k][1]()
            optimizers[k].zero_grad()
            loss.backward()
            optimizers[k].step()
            if number:  # the first round warms up
                times[k].append(1000 * (time.process_time() - start))
    ratio = statistics.median(a / b for a, b in zip(*times, strict=True))
    return {"step_ms": statistics.median(times[0]), "passes_ms": statistics.median(times[1]), "ratio": ratio}


def predict_of(name: str, repeats: int) -> dict[str, float]:
    """Milliseconds that `predict` of one picture takes beyond the bare network."""
    model = student_of(name).eval()
    tensor = torch.rand(1, 28, 28)
    picture = Image.fromarray((255 * tensor[0]).byte().numpy())
    ready = laid_out(tensor[None], model.layout)

    def bare() -> None:
        with torch.no_grad():
            model.network(ready)

    rows: dict[str, Callable[[], Any]] = {
        "bare": bare,
        "tensor": lambda: model.predict(tensor),
        "picture": lambda: model.predict(picture),
    }
    times: dict[str, list[float]] = {key: [] for key in rows}
    for number in range(repeats + 3):
        for key, run in rows.items():
            start = time.perf_counter()
            run()
            if number >= 3:
                times[key].append(1000 * (time.perf_counter() - start))
    found = {f"{key}_ms": statistics.median(values) for key, values in times.items()}
    for key in ("tensor", "picture"):
        found[f"{key}_over_bare_ms"] = statistics.median(a - b for a, b in zip(times[key], times["bare"], strict=True))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    results: dict[str, Any] = {
        "versions": {"torch": torch.__version__, "python": platform.python_version()},
        "threads": 1,
        "batch": BATCH,
        "attack_steps": STEPS,
        "repeats": options.repeats,
        "step": {},
        "predict": {},
    }
    print(f"{'student':14}{'step ms':>9}{'passes ms':>11}{'ratio':>8}")
    for name, teacher in STUDENTS.items():
        found = results["step"][name] = step_of(name, teacher, options.repeats)
        print(f"{name:14}{found['step_ms']:9.1f}{found['passes_ms']:11.1f}{found['ratio']:8.3f}", flush=True)
    print(f"\n{'predict, 1':14}{'bare ms':>9}{'tensor +':>11}{'picture +':>11}")
    for name in STUDENTS:
        found = results["predict"][name] = predict_of(name, 20 * options.repeats)
        extra = f"{found['tensor_over_bare_ms']:11.2f}{found['picture_over_bare_ms']:11.2f}"
        print(f"{name:14}{found['bare_ms']:9.2f}{extra}", flush=True)
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
