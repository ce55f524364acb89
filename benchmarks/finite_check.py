"""What it costs to look, after each training step, whether loss, gradients and weights are finite.

    python benchmarks/finite_check.py [--steps 200] [--repeats 5] [--out benchmarks/results/finite_check.json]

Both ways in one run of Lightning's Trainer, one core, one thread: steps of about 5 and 50 ms, with SGD with momentum
and with AdamW. The check has two parts: a copy of the state before the step, from which a step that goes wrong can be
done again, and the look at the state behind it. Their time is taken within the run, so that both sides are the same
steps on the same machine; processor time, which what else runs disturbs least. Medians over steps and repeats.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
import warnings
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from zoo.nn.classifiers import create_classifier
from zoo.training.nonfinite import StopOnNonFinite

CASES = {
    "5 ms": ("resnet10-w4", 4),
    "50 ms": ("resnet10-w16", 64),
}
OPTIMIZERS = {"SGD": {"lr": 0.01, "momentum": 0.9}, "AdamW": {"lr": 1e-4}}
BAR = 1.02
"""Of a step of 50 ms."""


class Learner(L.LightningModule):
    """A classifier of 28x28 pictures, as plain as possible."""

    def __init__(self, network: str, optimizer: str) -> None:
        super().__init__()
        self.network, self.optimizer = create_classifier(network, 10, 1), optimizer

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return F.cross_entropy(self.network(batch[0]), batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        optimizer: torch.optim.Optimizer = getattr(torch.optim, self.optimizer)(
            self.parameters(), **OPTIMIZERS[self.optimizer]
        )
        return optimizer


class Timed(StopOnNonFinite):
    """The check, with the time it takes, and that from one step to the next."""

    def __init__(self) -> None:
        super().__init__()
        self.copies: list[float] = []
        self.looks: list[float] = []
        self.starts: list[float] = []

    def on_train_batch_start(self, *args: Any, **kwargs: Any) -> None:
        self.starts.append(time.process_time())
        super().on_train_batch_start(*args, **kwargs)
        self.copies.append(time.process_time() - self.starts[-1])

    def on_train_batch_end(self, *args: Any, **kwargs: Any) -> None:
        start = time.process_time()
        super().on_train_batch_end(*args, **kwargs)
        self.looks.append(time.process_time() - start)


def measure(network: str, batch: int, optimizer: str, steps: int) -> tuple[dict[str, float], int, int]:
    """Milliseconds per step; tensors of the state, and numbers in them."""
    learner, check = Learner(network, optimizer), Timed()
    data = TensorDataset(torch.rand(batch * steps, 1, 28, 28), torch.randint(10, (batch * steps,)))
    trainer = L.Trainer(
        max_epochs=1, accelerator="cpu", devices=1, logger=False, callbacks=[check], barebones=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(learner, DataLoader(data, batch))
    whole = [b - a for a, b in zip(check.starts[5:], check.starts[6:], strict=False)]
    ms = {"step": whole, "copy": check.copies[5:], "look": check.looks[5:]}
    state = [v for v in learner.state_dict().values() if v.is_floating_point()]
    return {k: 1e3 * statistics.median(v) for k, v in ms.items()}, len(state), sum(v.numel() for v in state)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    rows = []
    for size, (network, batch) in CASES.items():
        for optimizer in OPTIMIZERS:
            found = [measure(network, batch, optimizer, args.steps) for _ in range(args.repeats)]
            ms = {key: statistics.median(f[0][key] for f in found) for key in found[0][0]}
            bare = ms["step"] - ms["copy"] - ms["look"]
            row = {"what": f"{size} step, {optimizer}", "network": network, "batch": batch}
            row |= {"tensors": found[0][1], "numbers": found[0][2], "ours_ms": ms["step"], "peer_ms": bare}
            row |= {"copy_ms": ms["copy"], "look_ms": ms["look"], "ratio": ms["step"] / bare}
            row |= {"peer": "without the check"} | ({"bar": BAR} if size == "50 ms" else {})
            rows.append(row)
            print(
                f"{row['what']:20} {bare:7.2f} ms; copy {ms['copy']:.3f}, look {ms['look']:.3f} ms; {row['ratio']:.3f}"
            )
    if args.out is not None:
        about = {"torch": torch.__version__, "lightning": L.__version__, "python": platform.python_version()}
        result = {"versions": about, "threads": 1, "clock": "processor time", "rows": rows}
        args.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
