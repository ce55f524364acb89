"""A step of adversarial training against the sum of its passes, and against ART's trainers, in one alternating run.

    python benchmarks/robustness.py [--repeats 9] [--network 16-1] [--out benchmarks/results/robustness.json]

A step is the loss of a batch, its backward pass and the optimiser's step. Its floor is what no implementation can
leave out: 7 forward passes in evaluation mode with backward passes to the input alone, for TRADES one more forward
pass in front, 1 (SAT) or 2 forward passes in training mode, one backward pass to the parameters, the same optimiser.
ART's trainers get the same network, images and optimiser, an attack of as many steps, and one epoch of one batch; its
TRADES attacks the cross-entropy. One thread, random weights (cost does not depend on them).

Times are processor time of the one thread, which what else runs on the machine disturbs least. Prints medians; a ratio
is the median of the ratios within a round, because the machine's speed drifts.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.methods.robust_wrn import CONFIGURATIONS, RobustWRN
from zoo.nn.adversarial_losses import kl
from zoo.nn.classifiers import laid_out

STEPS, BATCH, EPS, STEP, BETA = 7, 128, 0.1, 0.025, 6.0
CRITERIA = ("sat", "trades")


def trained(network: str, criterion: str) -> RobustWRN:
    """A network for 28x28, untrained."""
    torch.manual_seed(0)
    given: dict[str, Any] = {"channels": 1, "img_size": 28, "eps": EPS, "attack_step": STEP, "attack_steps": STEPS}
    return RobustWRN(network=network, criterion=criterion, beta=BETA, **given)


def optimizer_of(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)


def passes(model: RobustWRN, criterion: str, x: Tensor, y: Tensor) -> Tensor:
    """The loss of what the passes give, without an attack between them."""
    network = model.network
    network.eval().requires_grad_(False)
    with torch.no_grad():
        p = network(x).softmax(1) if criterion == "trades" else None
    for _ in range(STEPS):
        leaf = x.detach().requires_grad_()
        z = network(leaf)
        value = F.cross_entropy(z, y, reduction="sum") if p is None else -(p * z.log_softmax(1)).sum()
        torch.autograd.grad(value, leaf)
    network.train().requires_grad_(True)
    z_adv = network(x)
    if criterion == "sat":
        return F.cross_entropy(z_adv, y)
    z = network(x)
    return F.cross_entropy(z, y) + BETA * kl(z.log_softmax(1), z_adv.log_softmax(1))


def step_of(loss: Callable[[], Tensor], optimizer: torch.optim.Optimizer) -> Callable[[], None]:
    def step() -> None:
        value = loss()
        optimizer.zero_grad()
        value.backward()
        optimizer.step()

    return step


def art_step(network: str, criterion: str, x: Tensor, y: Tensor) -> Callable[[], None]:
    """One epoch of one batch by ART."""
    from art.attacks.evasion import ProjectedGradientDescentPyTorch
    from art.defences.trainer import AdversarialTrainer, AdversarialTrainerTRADESPyTorch
    from art.estimators.classification import PyTorchClassifier

    os.environ.setdefault("TQDM_DISABLE", "1")
    logging.getLogger("art").setLevel(logging.ERROR)
    inner = trained(network, criterion).network
    classifier = PyTorchClassifier(
        inner,
        nn.CrossEntropyLoss(),
        (1, 28, 28),
        10,
        optimizer=optimizer_of(inner),
        clip_values=(0, 1),
        device_type="cpu",
    )
    settings: dict[str, Any] = {"eps": EPS, "eps_step": STEP, "max_iter": STEPS, "batch_size": BATCH, "verbose": False}
    attack = ProjectedGradientDescentPyTorch(classifier, num_random_init=1, **settings)
    trainer: Any = AdversarialTrainer(classifier, attack, ratio=1.0)
    if criterion == "trades":
        trainer = AdversarialTrainerTRADESPyTorch(classifier, attack, BETA)
    images, labels = x.numpy(), y.numpy()
    return lambda: trainer.fit(images, labels, batch_size=BATCH, nb_epochs=1)


def measure(network: str, criterion: str, repeats: int) -> dict[str, list[float]]:
    """Milliseconds of each way, one number a round."""
    x, y, index = torch.rand(BATCH, 1, 28, 28), torch.randint(0, 10, (BATCH,)), torch.arange(BATCH)
    ours, floor = trained(network, criterion).train(), trained(network, criterion)
    ready = laid_out(x, ours.layout) if ours.layout is not None else x
    ways = {
        "ours": step_of(lambda: ours.loss(ready, y, index), optimizer_of(ours)),
        "the sum of its passes": step_of(lambda: passes(floor, criterion, ready, y), optimizer_of(floor)),
        "ART": art_step(network, criterion, x, y),
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(repeats + 1):
        for name, run in list(ways.items())[:: 1 if number % 2 else -1]:
            start = time.process_time()
            run()
            if number:  # the first round warms up
                times[name].append(1000 * (time.process_time() - start))
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--network", nargs="+", choices=list(CONFIGURATIONS), default=["16-1", "16-r"])
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    print(f"{'step':14}{'against':24}{'ours ms':>9}{'theirs ms':>11}{'ratio':>8}")
    for network in options.network:
        for criterion in CRITERIA:
            times = measure(network, criterion, options.repeats)
            for peer, bar in (("the sum of its passes", 1.05), ("ART", 1.0)):
                row = {
                    "what": f"WRN-{network}, {criterion.upper()} step",
                    "batch": BATCH,
                    "ours_ms": statistics.median(times["ours"]),
                    "peer": peer,
                    "peer_ms": statistics.median(times[peer]),
                    "ratio": statistics.median(a / b for a, b in zip(times["ours"], times[peer], strict=True)),
                    "bar": bar,
                }
                rows.append(row)
                shown = f"{row['ours_ms']:9.1f}{row['peer_ms']:11.1f}{row['ratio']:8.3f}"
                print(f"{network + ' ' + criterion:14}{peer:24}{shown}", flush=True)
    if options.out:
        versions = {"torch": torch.__version__, "python": platform.python_version()}
        content = {"versions": versions, "threads": 1, "attack_steps": STEPS, "repeats": options.repeats, "rows": rows}
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
