"""Writing `forward` for other programs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor

from zoo.errors import require

if TYPE_CHECKING:
    from zoo.base import ZooModule

__all__ = ["Exportable"]


class Exportable:
    """Adds `export_program` and `export_onnx` to `ZooModule`; values are scaled inside `forward`, so also there."""

    def export_program(self, path: str | Path) -> Path:
        """Write `forward` as a `torch.export` program with a dynamic batch size; values are scaled inside it."""
        args = self._export_example()
        batch = torch.export.Dim("batch", min=1, max=4096)
        with self.inference_for_export():
            program = torch.export.export(cast("ZooModule", self), args, dynamic_shapes=tuple({0: batch} for _ in args))
        torch.export.save(program, str(path))
        return Path(path)

    def export_onnx(self, path: str | Path) -> Path:
        """Write `forward` as ONNX with a dynamic batch size (needs the extra `export`)."""
        require("onnx", "export")
        require("onnxscript", "export")
        args = self._export_example()
        names = [f"input_{i}" for i in range(len(args))]
        batch = torch.export.Dim("batch", min=1, max=4096)
        with self.inference_for_export():
            torch.onnx.export(
                cast("ZooModule", self),
                args,
                str(path),
                input_names=names,
                dynamo=True,
                external_data=False,
                verbose=False,
                dynamic_shapes=tuple({0: batch} for _ in args),
            )
        return Path(path)

    def _export_example(self) -> tuple[Tensor, ...]:
        # a batch of one would be specialised to a constant
        return tuple(torch.cat([a, a]) if len(a) == 1 else a for a in cast("ZooModule", self).example_input())

    @contextmanager
    def inference_for_export(self) -> Iterator[None]:
        """Evaluation mode without the trainer (which cannot be traced), without inference tensors."""
        module = cast("ZooModule", self)
        training, trainer = module.training, module._trainer
        module.eval()
        module._trainer = None
        try:
            with torch.no_grad():
                yield
        finally:
            module._trainer = trainer
            module.train(training)
