"""The detector against YOLOX (package `pixeltable-yolox`, Apache-2.0) at equal parameters, in one alternating run.

    python benchmarks/detector.py [--repeats 7] [--out benchmarks/results/detector.json]

Prints a table of medians and ratios: inference (network to decoded boxes, no suppression, unfused on both sides) and a
training step (forward, assignment, loss, backward, SGD) at 160 and 320 px, batch 1 and 16, K = 80, five objects per
image. The networks differ in the head: YOLOX has an objectness branch and SimOTA, ours has neither. Both run in the
same memory layout; `--layouts` chooses which. Also: what loss and assignment cost, and what `Trainer.fit` adds to a
bare loop.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from zoo.methods.alpha_iou_yolo.module import AlphaIoUYOLO, Targets

OBJECTS, CLASSES = 5, 80


def scene(batch: int, side: int) -> tuple[torch.Tensor, list[torch.Tensor], list[torch.Tensor]]:
    """Random images in [0, 1] with boxes (5, 4) xyxy and labels (5,) each."""
    generator = torch.Generator().manual_seed(batch * side)
    images = torch.rand(batch, 3, side, side, generator=generator)
    boxes, labels = [], []
    for _ in range(batch):
        corner = torch.rand(OBJECTS, 2, generator=generator) * side * 0.6
        size = (0.1 + 0.3 * torch.rand(OBJECTS, 2, generator=generator)) * side
        boxes.append(torch.cat([corner, corner + size], 1))
        labels.append(torch.randint(0, CLASSES, (OBJECTS,), generator=generator))
    return images, boxes, labels


class Ours:
    """The zoo's detector of size s."""

    def __init__(self, layout: str) -> None:
        torch.manual_seed(0)
        self.module = AlphaIoUYOLO(CLASSES, size="s", channels_last=layout == "channels_last")
        self.optimizer = torch.optim.SGD(self.module.parameters(), lr=1e-4, momentum=0.9)

    def infer(self, images: torch.Tensor, *_: Any) -> None:
        self.module.eval()
        with torch.inference_mode():
            self.module(images)

    def step(self, images: torch.Tensor, boxes: list[torch.Tensor], labels: list[torch.Tensor]) -> None:
        self.module.train()
        loss = self.module.loss(self.module.raw(images), Targets.pad(boxes, labels, images.device), "tal")["loss"]
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()


class Peer:
    """YOLOX-s with random weights."""

    def __init__(self, layout: str) -> None:
        from yolox.config import YoloxConfig

        torch.manual_seed(0)
        self.module = YoloxConfig.get_named_config("yolox-s").get_model()
        self.layout = torch.channels_last if layout == "channels_last" else torch.contiguous_format
        self.module.to(memory_format=self.layout)
        self.optimizer = torch.optim.SGD(self.module.parameters(), lr=1e-4, momentum=0.9)

    def infer(self, images: torch.Tensor, *_: Any) -> None:
        self.module.eval()
        with torch.inference_mode():
            self.module(images.contiguous(memory_format=self.layout))

    def step(self, images: torch.Tensor, boxes: list[torch.Tensor], labels: list[torch.Tensor]) -> None:
        self.module.train()
        rows = []
        for own, classes in zip(boxes, labels, strict=True):
            centre, size = (own[:, :2] + own[:, 2:]) / 2, own[:, 2:] - own[:, :2]
            rows.append(torch.cat([classes[:, None].float(), centre, size], 1))
        found = self.module(images.contiguous(memory_format=self.layout), torch.stack(rows))
        self.optimizer.zero_grad()
        found["total_loss"].backward()
        self.optimizer.step()


def timed(action: Callable[[], Any]) -> float:
    """Milliseconds of one call."""
    start = time.perf_counter()
    action()
    return 1000 * (time.perf_counter() - start)


def alternate(first: Callable[[], Any], second: Callable[[], Any], repeats: int) -> tuple[list[float], list[float]]:
    """Time two actions in turns (A B, B A, ...) after one warm-up each."""
    first(), second()
    a: list[float] = []
    b: list[float] = []
    for i in range(repeats):
        if i % 2:
            b.append(timed(second))
            a.append(timed(first))
        else:
            a.append(timed(first))
            b.append(timed(second))
    return a, b


def against_peer(layout: str, repeats: int) -> list[dict[str, Any]]:
    """Rows of inference and training at every size and batch."""
    ours, peer = Ours(layout), Peer(layout)
    rows = []
    for what in ("infer", "step"):
        for side in (160, 320):
            for batch in (1, 16):
                data = scene(batch, side)
                a, b = alternate(partial(getattr(ours, what), *data), partial(getattr(peer, what), *data), repeats)
                ratio = statistics.median(x / y for x, y in zip(a, b, strict=True))
                row = {
                    "what": what, "layout": layout, "px": side, "batch": batch,
                    "ours_ms": round(statistics.median(a), 1), "peer_ms": round(statistics.median(b), 1),
                    "ratio": round(ratio, 3),
                }  # fmt: skip
                print(" ".join(f"{k}={v}" for k, v in row.items()), flush=True)
                rows.append(row)
    return rows


def loss_share(repeats: int) -> dict[str, Any]:
    """Share of a training step that assignment and loss take, forward and backward of both."""
    ours = Ours("channels_last")
    images, boxes, labels = scene(16, 160)
    shares = []
    for _ in range(repeats + 1):
        ours.module.train()
        start = time.perf_counter()
        found = ours.module.raw(images)
        leaves = {k: found[k].detach().requires_grad_() for k in ("boxes", "logits")}
        middle = time.perf_counter()
        loss = ours.module.loss({**found, **leaves}, Targets.pad(boxes, labels, images.device), "tal")["loss"]
        slopes = torch.autograd.grad(loss, list(leaves.values()))
        late = time.perf_counter()
        ours.optimizer.zero_grad()
        torch.autograd.backward([found["boxes"], found["logits"]], list(slopes))
        ours.optimizer.step()
        shares.append((late - middle) / (time.perf_counter() - start))
    return {"what": "loss and assignment / training step", "ratio": round(statistics.median(shares[1:]), 4)}


def trainer_overhead(repeats: int) -> dict[str, Any]:
    """`Trainer.fit` against a bare loop: same network, loss, optimiser and loader, 40 steps of size p, batch 32."""
    import lightning

    from datamodules.boxes import BoxesDataModule

    warnings.filterwarnings("ignore")

    def parts() -> tuple[AlphaIoUYOLO, BoxesDataModule]:
        torch.manual_seed(0)
        data = BoxesDataModule(train_size=1280, val_size=32, test_size=32, batch_size=32)
        return AlphaIoUYOLO(10, size="p", img_size=160, assigner="tal", center_steps=0.0), data

    def bare() -> float:
        module, data = parts()
        loader = data.train_dataloader()
        optimizer = torch.optim.AdamW(module.parameters(), lr=1e-3)
        module.train()
        start = time.perf_counter()
        for batch in loader:
            loss = module.training_step(batch)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return time.perf_counter() - start

    class Clock(lightning.Callback):
        def on_train_epoch_start(self, *_: Any) -> None:
            self.start = time.perf_counter()

        def on_train_epoch_end(self, *_: Any) -> None:
            self.seconds = time.perf_counter() - self.start

    def fit() -> float:
        module, data = parts()
        clock = Clock()
        trainer = lightning.Trainer(
            max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
            enable_model_summary=False, limit_val_batches=0, callbacks=[clock],
        )  # fmt: skip
        trainer.fit(module, data)
        return clock.seconds

    bare(), fit()
    pairs = [(fit(), bare()) if i % 2 else tuple(reversed((bare(), fit()))) for i in range(repeats)]
    return {"what": "Trainer.fit / bare loop", "ratio": round(statistics.median(a / b for a, b in pairs), 3)}


def main() -> None:
    """Run everything and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--layouts", nargs="+", default=["channels_last", "contiguous"])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    rows: list[dict[str, Any]] = []
    for layout in args.layouts:
        rows += against_peer(layout, args.repeats)
    rows.append(loss_share(args.repeats))
    print(rows[-1], flush=True)
    rows.append(trainer_overhead(args.repeats))
    print(rows[-1], flush=True)
    if args.out:
        facts = {"torch": torch.__version__, "machine": platform.machine(), "threads": args.threads}
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps({"facts": facts, "repeats": args.repeats, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
