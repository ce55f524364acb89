"""What models of time series share: checks against the data, evaluation, inputs of `predict`, results, a picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassAccuracy

from zoo import checks
from zoo.base.meeting import data_of, facts_of
from zoo.base.module import ZooModule
from zoo.base.scores import RootMean, Scores
from zoo.errors import BadInput, InvalidConfig
from zoo.inputs.series import make_series_batch, split_series

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["SeriesModel"]


class SeriesModel(ZooModule):
    """Base of methods that predict a class or values from each time series (C, L).

    A subclass has the hyper-parameter `channels` (C), with it `num_classes` and `class_names` if it can classify
    (without them, or with 0 classes, it predicts values), `targets`, the number of values R, if that is not 1, and
    `normalise`, if it can bring each series to mean 0 and deviation 1, which leaves nothing of a constant one.
    Batches are `series` (B, C, L) with `length` (B,) where lengths differ, and `label` (B,) or `value` (B,) or (B, R).
    Its constructor begins with `super().__init__()`, which checks these and makes the scores. Logged: `val/` and
    `test/` loss (cross-entropy, or squared error), and accuracy or RMSE. A method that also solves in rounds inherits
    from this class first and from `RoundModule` second.
    """

    task = "time-series-classification"
    logged: ClassVar[tuple[str, ...]] = ("loss", "accuracy", "rmse")

    def __init__(self) -> None:
        super().__init__()
        options = self.hparams
        classes = options.get("num_classes", 0)
        if classes == 1 or classes < 0:
            raise BadInput(f"num_classes must be 0 (regression) or at least 2, got {classes}.")
        checks.class_names(options.get("class_names"), classes)
        checks.at_least("channels", options["channels"], 1)
        if not self.classifies and self.task == SeriesModel.task:
            self.task = "time-series-regression"
        self.scores = self.make_scores()

    @property
    def classifies(self) -> bool:
        """Whether labels are predicted, not values."""
        return bool(self.hparams.get("num_classes"))

    @property
    def outputs(self) -> int:
        """Numbers predicted for a series: K classes, or R values."""
        return int(self.hparams["num_classes"] if self.classifies else self.hparams.get("targets", 1))

    def setup(self, stage: str) -> None:
        """Compare with the data.

        Raises:
            InvalidConfig: if they have other channels, other classes, or values instead of classes.
        """
        facts = facts_of(data_of(self.trainer))
        channels, own = facts.get("channels"), self.hparams["channels"]
        if channels is not None and channels != own:
            raise InvalidConfig(
                f"The data have {channels} channels and the model {own}: set model.channels={channels}."
            )
        both = "num_classes" in facts and "num_classes" in self.hparams
        if both and bool(facts["num_classes"]) != self.classifies:
            given, other = ("values", "classes") if self.classifies else ("classes", "values")
            raise InvalidConfig(
                f"The data have {given} and the model predicts {other}: set model.num_classes={facts['num_classes']}, "
                f"or data.target={'label' if self.classifies else 'value'}."
            )
        super().setup(stage)

    def example_input(self) -> tuple[Tensor, ...]:
        """Three series (3, C, L): a sine, a ramp and a step, another phase in each channel."""
        channels, length = int(self.hparams["channels"]), int(self.hparams["length"])
        time = torch.linspace(0, 1, length)
        phase = torch.arange(channels)[:, None] / max(1, channels)
        sine = torch.sin(2 * torch.pi * (3 * time + phase))
        ramp = time.expand(channels, length) * (1 + phase)
        step = (time > 0.3 + 0.4 * phase).float() + 0.1 * sine
        return (torch.stack([sine, ramp, step]).to(self.device),)

    # Evaluation ---------------------------------------------------------------------------------------------------

    def make_scores(self) -> Scores:
        """Loss, and accuracy or RMSE. They become NaN with the model: one that diverged must not look good."""
        loss = MeanMetric(nan_strategy="disable")
        if self.classifies:
            return Scores(loss=loss, accuracy=MulticlassAccuracy(self.outputs, average="micro"))
        return Scores(loss=loss, rmse=RootMean(nan_strategy="disable"))

    def inputs_of(self, batch: dict[str, Any]) -> tuple[Any, ...]:
        """What `forward` takes of a batch."""
        return batch["series"], batch.get("length")

    def values_of(self, batch: dict[str, Any]) -> Tensor:
        """The true values of a batch (B, R), in the dtype of the data."""
        values: Tensor = batch["value"]
        return values.reshape(len(batch["index"]), self.outputs)

    def evaluate_step(self, stage: str, batch: dict[str, Any]) -> None:
        """Score loss and accuracy, or squared errors."""
        out = self(*self.inputs_of(batch))
        if self.classifies:
            loss = F.cross_entropy(out, batch["label"], reduction="none")
            self.scores.update(stage, "accuracy", out, batch["label"])
        else:
            loss = (out - self.values_of(batch).float()).square().mean(1)
            self.scores.update(stage, "rmse", loss)
        self.scores.update_loss(stage, loss, len(loss))

    # Prediction ---------------------------------------------------------------------------------------------------

    def split_inputs(self, inputs: Any) -> list[Any]:
        """One series, or the series of a list or an array with one more axis (see `make_batch`)."""
        return split_series(inputs, int(self.hparams["channels"]))

    def make_batch(self, items: Sequence[Any]) -> dict[str, Any]:
        """Batch of series: arrays, tensors or lists (C, L), or (L,) where C is 1; DataFrames with a column per channel.

        Raises:
            BadInput: naming the series and what is wrong: shape, channels, NaN, text, constant, too short.
        """
        normalised = bool(self.hparams.get("normalise", False))
        return make_series_batch(items, int(self.hparams["channels"]), refuse_constant=normalised)

    def interval_of(self, value: Tensor) -> Tensor:
        """Ends (B, R, 2) of the intervals around predicted values (B, R)."""
        raise NotImplementedError(f"{type(self).__name__} must implement interval_of()")

    def predict_step(self, batch: dict[str, Any], batch_idx: int = 0) -> dict[str, Any]:
        """Predictions for a batch.

        Returns:
            Classification: `logits` and `probs` (B, K), `label` (B,), `name`. Regression: `value` (B,) and `interval`
            (B, 2), or (B, R) and (B, R, 2) where there are several values.
        """
        out = self(*self.inputs_of(batch))
        if self.classifies:
            label = out.argmax(1)
            names = self.class_names
            return {
                "logits": out,
                "probs": out.softmax(1),
                "label": label,
                "name": [names[i] for i in label.tolist()],
            }
        interval = self.interval_of(out)
        if self.outputs > 1:
            return {"value": out, "interval": interval}
        return {"value": out[:, 0], "interval": interval[:, 0]}

    def caption(self, result: dict[str, Any]) -> str:
        """A result of `predict` in one line: class and probability, or values with their intervals."""
        if self.classifies:
            chance = float(torch.as_tensor(result["probs"]).max())
            return f"{result['name']}  ({100 * chance:.0f} %)"
        value, interval = torch.as_tensor(result["value"]).flatten(), torch.as_tensor(result["interval"]).reshape(-1, 2)
        texts = [f"{v:.4g} ({low:.4g} to {high:.4g})" for v, (low, high) in zip(value, interval, strict=True)]
        return ", ".join(texts)

    def show(self, inputs: Any, result: dict[str, Any]) -> Image.Image:
        """Plot a series with what was predicted for it."""
        from zoo.pictures.series import draw_series

        return draw_series(self.make_batch(self.split_inputs(inputs)[:1])["series"][0], self.caption(result))
