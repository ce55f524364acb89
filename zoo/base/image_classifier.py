"""What classifiers of images share: the network and its checks, evaluation, inputs of `predict`, results, a picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics.classification import MulticlassAccuracy

from zoo import checks
from zoo.base.modes import in_type_of
from zoo.base.module import Scores, ZooModule
from zoo.errors import BadInput
from zoo.inputs.images import fit_square, to_pixels
from zoo.nn.classifiers import Normalize, create_classifier, head_of, laid_out, layout_of

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["ImageClassifier"]


class ImageClassifier(ZooModule):
    """Base of classifiers of square images with one label each.

    A subclass has the hyper-parameters `num_classes`, `class_names`, `channels`, `img_size` and `network`, and, if it
    wants them, `pretrained`, `mean`, `std` (a normalisation inside the network) and `channels_last`. Its constructor
    begins with `super().__init__()`, which builds and checks; it then implements `training_step` and
    `configure_optimizers`. Logged: `val/` and `test/` loss (cross-entropy) and accuracy.
    """

    task = "image-classification"
    monitor = ("val/accuracy", "max")
    output_names: ClassVar[tuple[str, ...]] = ("logits",)
    logged: ClassVar[tuple[str, ...]] = ("loss", "accuracy")

    def __init__(self) -> None:
        super().__init__()
        options = self.hparams
        checks.class_names(options.get("class_names"), options["num_classes"])
        mean, std = options.get("mean"), options.get("std")
        checks.per_channel(mean, std, options["channels"])
        self.network = self.make_network()
        self.normalize = Normalize(mean, std) if mean is not None and std is not None else nn.Identity()
        self._layout: str | None = None  # as the images come
        safe = layout_of(self.network, options.get("channels_last", True))
        if "channels_last" in options or safe != torch.channels_last:  # images of one channel may come in either
            self._layout = str(safe).removeprefix("torch.")
            self.network.to(memory_format=safe)
        self.scores = Scores(accuracy=self.accuracy())

    @property
    def layout(self) -> torch.memory_format | None:
        """Memory layout of the images, which cannot be pickled itself; None as they come."""
        return None if self._layout is None else getattr(torch, self._layout)

    def make_network(self) -> nn.Module:
        """Build what maps normalised images (N, C, H, W) to logits (N, K); by default the classifier of that name."""
        options = self.hparams
        return create_classifier(
            options["network"],
            options["num_classes"],
            options["channels"],
            pretrained=bool(options.get("pretrained", False)),
            img_size=options["img_size"],
        )

    def accuracy(self) -> MulticlassAccuracy:
        """Share of images whose label is right."""
        return MulticlassAccuracy(self.hparams["num_classes"], average="micro")

    def roles(self) -> dict[str, str]:
        """The layer of the network that depends on the number of classes is the head."""
        return {**super().roles(), f"network.{head_of(self.network)}": "head"}

    # Network ------------------------------------------------------------------------------------------------------

    def forward(self, image: Tensor) -> Tensor:
        """Logits (N, K) of images float (N, C, H, W) in [0, 1]."""
        channels = int(self.hparams["channels"])
        if image.ndim != 4 or image.shape[1] != channels:
            raise BadInput(f"forward takes images (N, {channels}, H, W) in [0, 1], got {tuple(image.shape)}.")
        return self.logits_of(self.network, image)

    def logits_of(self, network: nn.Module, image: Tensor) -> Tensor:
        """Logits (N, K) of a network of this kind, whichever its weights, on images (N, C, H, W) in [0, 1]."""
        return network(in_type_of(network, self.prepared(image)))  # type: ignore[no-any-return]

    def prepared(self, image: Tensor) -> Tensor:
        """Images (N, C, H, W) in [0, 1] as the network takes them: in its memory layout, normalised."""
        return self.normalize(self.lay_out(image))  # type: ignore[no-any-return]

    def lay_out(self, image: Tensor) -> Tensor:
        """Images in the memory layout of the network; the values stay."""
        return image if self.layout is None else laid_out(image, self.layout)

    def example_input(self) -> tuple[Tensor, ...]:
        """Two images: a ramp to the right, and one downwards."""
        side = int(self.hparams["img_size"])
        ramp = torch.linspace(0, 1, side, device=self.device).expand(self.hparams["channels"], side, side)
        return (torch.stack([ramp, ramp.mT]).contiguous(),)

    # Evaluation ---------------------------------------------------------------------------------------------------

    def evaluate_step(self, stage: str, batch: dict[str, Any]) -> None:
        """Score loss and accuracy."""
        logits = self(batch["image"]).float()
        self.scores.update_loss(stage, F.cross_entropy(logits, batch["label"]), len(batch["index"]))
        self.scores.update(stage, "accuracy", logits, batch["label"])

    # Prediction ---------------------------------------------------------------------------------------------------

    @staticmethod
    def split_inputs(inputs: Any) -> list[Any]:
        """A list or tuple holds several inputs, and so does a tensor or array (N, C, H, W)."""
        several = isinstance(inputs, (list, tuple)) or getattr(inputs, "ndim", 0) == 4
        return list(inputs) if several else [inputs]

    def make_batch(self, items: Sequence[Any]) -> dict[str, Any]:
        """Paths, PIL images, arrays (H, W[, 3]) or tensors (C, H, W) as the network's input.

        Float tensors that already have its shape are taken as they are, so that a perturbation is not rounded away.

        Raises:
            BadInput: if an item is no image, or its values are out of range.
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
        from zoo.pictures.probabilities import draw_probabilities

        image = self.make_batch([inputs])["image"][0]
        pixels = np.rint(image.permute(1, 2, 0).numpy() * 255).astype(np.uint8)
        return draw_probabilities(pixels, result["probs"].cpu().numpy(), self.class_names)
