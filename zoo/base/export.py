"""Writing `forward` for other programs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from lightning import LightningModule
from torch import Tensor

from zoo.errors import require

__all__ = ["export_onnx", "export_program"]


def export_program(module: LightningModule, path: str | Path) -> Path:
    """Write `forward` as a `torch.export` program with a dynamic batch size; values are scaled inside it."""
    args = _example(module)
    batch = torch.export.Dim("batch", min=1, max=4096)
    with _traceable(module):
        program = torch.export.export(module, args, dynamic_shapes=tuple({0: batch} for _ in args))
    torch.export.save(program, str(path))
    return Path(path)


def export_onnx(module: LightningModule, path: str | Path) -> Path:
    """Write `forward` as ONNX with a dynamic batch size (needs the extra `export`).

    Raises:
        MissingExtra: if the packages for it are not installed.
    """
    require("onnx", "export")
    require("onnxscript", "export")
    args = _example(module)
    names = [f"input_{i}" for i in range(len(args))]
    batch = torch.export.Dim("batch", min=1, max=4096)
    with _traceable(module):
        torch.onnx.export(
            module,
            args,
            str(path),
            input_names=names,
            dynamo=True,
            external_data=False,
            verbose=False,
            dynamic_shapes=tuple({0: batch} for _ in args),
        )
    return Path(path)


def _example(module: LightningModule) -> tuple[Tensor, ...]:
    # a batch of one would be specialised to a constant
    return tuple(torch.cat([a, a]) if len(a) == 1 else a for a in cast(Any, module).example_input())


@contextmanager
def _traceable(module: LightningModule) -> Iterator[None]:
    """Evaluation mode without the trainer (which cannot be traced), without inference tensors."""
    training, trainer = module.training, module._trainer
    module.eval()
    module._trainer = None
    try:
        with torch.no_grad():
            yield
    finally:
        module._trainer = trainer
        module.train(training)
