"""The method as a Lightning module; the paper and its equations are in the package's docstring."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from zoo.base import ZooModule
from zoo.base.scores import Scores
from zoo.cli.templates.plain.network import Network
from zoo.errors import BadInput

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["NewMethod"]


class NewMethod(ZooModule):
    """Say what it is, with its source.

    Args:
        width: hidden features.
        lr: learning rate of AdamW.
        inputs: d, numbers per input.
        outputs: m, numbers per output.
    """

    task = "image-to-image"  # zoo new: task
    monitor = ("val/loss", "min")
    logged = ("loss",)

    def __init__(self, width: int = 32, lr: float = 0.01, inputs: int = 8, outputs: int = 16) -> None:
        super().__init__()
        self.network = Network(inputs, width, outputs)
        self.scores = Scores()

    def forward(self, x: Tensor) -> Tensor:
        """Outputs (n, m) of inputs (n, d)."""
        return self.network(x)  # type: ignore[no-any-return]

    def training_step(self, batch: dict[str, Any], batch_idx: int = 0) -> Tensor:
        """Equation (3)."""
        loss = (self(batch["x"]).float() - batch["y"]).square().mean()
        self.log("train/loss", loss.detach(), batch_size=len(batch["index"]))
        return loss

    def evaluate_step(self, stage: str, batch: dict[str, Any]) -> None:
        """Score the loss."""
        loss = (self(batch["x"]).float() - batch["y"]).square().mean()
        self.scores.update_loss(stage, loss, len(batch["index"]))

    def predict_step(self, batch: dict[str, Any], batch_idx: int = 0) -> dict[str, Any]:
        """Results under the keys of the task; replace these, which only have the right shapes."""
        out = self(batch["x"]).float()
        return {
            "image": out.sigmoid().reshape(-1, 1, 4, 4),  # zoo new: results
        }

    def make_batch(self, items: Sequence[Any]) -> dict[str, Any]:
        """Inputs as lists, arrays or tensors of d numbers; replace this by what people of the field have.

        Raises:
            BadInput: for anything else.
        """
        size = int(self.hparams["inputs"])
        try:
            x = torch.stack([torch.as_tensor(item, dtype=torch.float32) for item in items])
        except (TypeError, ValueError, RuntimeError) as error:
            raise BadInput(f"Expected {size} numbers per input, got something else ({error}).") from None
        if x.shape[1:] != (size,) or not bool(x.isfinite().all()):
            raise BadInput(f"Expected {size} finite numbers per input, got the shape {tuple(x.shape[1:])}.")
        return {"index": torch.arange(len(items)), "x": x}

    def show(self, inputs: Any, result: dict[str, Any]) -> Image.Image:
        """The shapes of the results as text; replace this by the picture that people of the field expect."""
        from PIL import Image, ImageDraw

        lines = [f"{key}: {tuple(v.shape) if hasattr(v, 'shape') else v}" for key, v in result.items()]
        picture = Image.new("RGB", (360, 20 * len(lines) + 12), "white")
        ImageDraw.Draw(picture).text((8, 6), "\n".join(lines), fill="black")
        return picture

    def example_input(self) -> tuple[Tensor, ...]:
        """Three ramps."""
        size = int(self.hparams["inputs"])
        return (torch.linspace(-1, 1, 3 * size, device=self.device).reshape(3, size),)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW."""
        return torch.optim.AdamW([p for p in self.parameters() if p.requires_grad], lr=self.hparams["lr"])
