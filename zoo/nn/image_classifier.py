"""What classifiers of images share: from what people have to a batch, results under their usual names, and a picture.

A subclass has the hyper-parameters num_classes, class_names, channels and img_size, and a `forward` that takes images
in [0, 1] and returns logits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from zoo.base import ZooModule
from zoo.errors import BadInput
from zoo.nn.images import fit_square, to_pixels

__all__ = ["ImageClassifier", "draw_probabilities"]

SIDE, LINE = 224, 22


class ImageClassifier(ZooModule):
    """Prediction for a classifier of square images."""

    task = "image-classification"

    def example_input(self) -> tuple[Tensor, ...]:
        """Two images: a ramp to the right, and one downwards."""
        side = int(self.hparams["img_size"])
        ramp = torch.linspace(0, 1, side, device=self.device).expand(self.hparams["channels"], side, side)
        return (torch.stack([ramp, ramp.mT]).contiguous(),)

    @staticmethod
    def split_inputs(inputs: Any) -> list[Any]:
        """A list or tuple holds several inputs, and so does a tensor or array (N, C, H, W)."""
        several = isinstance(inputs, (list, tuple)) or getattr(inputs, "ndim", 0) == 4
        return list(inputs) if several else [inputs]

    def make_batch(self, items: Sequence[Any]) -> dict[str, Any]:
        """Paths, PIL images, arrays (H, W[, 3]) or tensors (C, H, W) as the network's input.

        Float tensors that already have its shape are taken as they are, so that a perturbation is not rounded away.
        """
        side, channels = int(self.hparams["img_size"]), int(self.hparams["channels"])
        images = []
        for item in items:
            if isinstance(item, Tensor) and item.is_floating_point() and item.shape == (channels, side, side):
                if not (item.min() >= 0 and item.max() <= 1):
                    raise BadInput(
                        f"a float image must have values in [0, 1], got {item.min():.4g} to {item.max():.4g}: divide "
                        "by 255, and leave normalisation to the network."
                    )
                images.append(item.detach().float().cpu())
            else:
                images.append(torch.from_numpy(fit_square(to_pixels(item), side, channels)).float().div_(255))
        return {"index": torch.arange(len(items)), "image": torch.stack(images)}

    def predict_step(self, batch: dict[str, Any], batch_idx: int = 0) -> dict[str, Any]:
        """Results of a batch: logits and probs (N, K), label (N,) and name (N strings)."""
        logits = self(batch["image"]).float()
        label = logits.argmax(1)
        names = self.class_names
        return {
            "logits": logits,
            "probs": logits.softmax(1),
            "label": label,
            "name": [names[i] for i in label.tolist()],
        }

    def show(self, inputs: Any, result: dict[str, Any]) -> Image.Image:
        """The input, enlarged, with the probabilities of its three likeliest classes."""
        image = self.make_batch([inputs])["image"][0]
        pixels = np.rint(image.permute(1, 2, 0).numpy() * 255).astype(np.uint8)
        return draw_probabilities(pixels, result["probs"].cpu().numpy(), self.class_names)


def draw_probabilities(pixels: np.ndarray, probs: np.ndarray, names: Sequence[str], top: int = 3) -> Image.Image:
    """Draw a picture above bars of its most probable classes.

    Args:
        pixels: uint8 (H, W, 1) or (H, W, 3).
        probs: (K,).
        names: K names.
        top: number of bars.

    Returns:
        RGB, 224 pixels wide.
    """
    grey = pixels[..., 0] if pixels.shape[-1] == 1 else pixels
    small = Image.fromarray(grey).convert("RGB")
    scale = Image.Resampling.NEAREST if max(small.size) < SIDE else Image.Resampling.BILINEAR
    order = np.argsort(-probs, kind="stable")[:top]
    canvas = Image.new("RGB", (SIDE, SIDE + LINE * len(order) + 4), (250, 250, 250))
    canvas.paste(small.resize((SIDE, SIDE), scale), (0, 0))
    draw = ImageDraw.Draw(canvas)
    font = ImageFont.load_default(13)
    for row, label in enumerate(order.tolist()):
        y = SIDE + 4 + row * LINE
        value = float(probs[label])
        draw.rectangle((0, y, round(SIDE * value), y + LINE - 5), fill=(120, 170, 220))
        draw.text((6, y), names[label], fill=(20, 20, 20), font=font)
        draw.text((SIDE - 6, y), f"{100 * value:.0f} %", fill=(20, 20, 20), font=font, anchor="ra")
    return canvas
