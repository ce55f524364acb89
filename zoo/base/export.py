"""Writing `forward` for other programs."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from lightning import LightningModule
from torch import Tensor

from zoo.errors import require
from zoo.files import writing

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

    Inputs are called as the arguments of `forward`, outputs as `output_names` of the class says. The file's metadata
    say what a program needs to use it: `zoo` (the id), `class_names`, `img_size`, `channels`, `length`, as JSON.

    Raises:
        MissingExtra: if the packages for it are not installed.
    """
    require("onnx", "export")
    require("onnxscript", "export")
    args = _example(module)
    inputs = list(inspect.signature(module.forward).parameters)[: len(args)]
    batch = torch.export.Dim("batch", min=1, max=4096)
    with _traceable(module):
        torch.onnx.export(
            module,
            args,
            str(path),
            input_names=inputs,
            output_names=list(names) if (names := getattr(module, "output_names", ())) else None,
            dynamo=True,
            external_data=False,
            verbose=False,
            dynamic_shapes=tuple({0: batch} for _ in args),
        )
    _describe(module, Path(path))
    return Path(path)


def _describe(module: LightningModule, path: Path) -> None:
    """Put into a file what its numbers mean."""
    import onnx

    from zoo.index import id_of

    model = onnx.load(str(path))
    about = {"zoo": id_of(type(module)), "class_names": getattr(module, "class_names", None)}
    about |= {key: module.hparams.get(key) for key in ("img_size", "channels", "length")}
    onnx.helper.set_model_props(model, {k: json.dumps(v, ensure_ascii=False) for k, v in about.items() if v})
    with writing(path):
        onnx.save(model, str(path))


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
