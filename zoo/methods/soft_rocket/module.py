"""The classifier as a Lightning module; the paper and its equations stand in `zoo.methods.soft_rocket`."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo import checks
from zoo.base import RoundModule
from zoo.base.series import SeriesModel
from zoo.errors import BadInput
from zoo.inputs.series import refuse_constant
from zoo.methods.soft_rocket.calibration import CalibrationSample, half_widths, temperature_of
from zoo.nn.ridge import Ridge, RidgeHead
from zoo.nn.rocket import Rocket, RocketTuner, standardise_series

__all__ = ["SoftRocket"]


class SoftRocket(SeriesModel, RoundModule):
    """Classification and regression of time series.

    Args:
        num_classes: K; 0 for regression.
        class_names: K names; numbers if None.
        targets: R, values per series in regression.
        channels: C.
        length: L of the training series in samples; it bounds the dilations. Longer series are legal later.
        num_kernels: N.
        pooling: `hard`, `soft` or `straight-through`.
        sharpness: lambda of the soft share of positive responses: 10 is close to the hard one, 5 learns better.
        shift: beta of it; anything but 0 is biased.
        normalise: bring each channel of each series to mean 0 and deviation 1. Not where amplitudes count.
        kernel_seed: of the kernels.
        tune_epochs: epochs of gradient descent after the closed form; 0 keeps the kernels. `trainer.max_epochs` must be
            2 more: one before, to solve the head, and one after, to solve it again.
        lr_kernels: learning rate of weights, biases and lambda while tuning.
        lr_head: learning rate of the head while tuning.
        anchor: factor of the squared distance of the kernels from where they started.
        patience: tuning stops after so many epochs without a better validation loss.
        most_rows: training series whose features are kept, which gives exact leave-one-out in one pass; 2N if None.
            More of them are summed up, with generalised cross-validation after the first epoch and leave-one-out after
            a second one.
    """

    parameter_roles: ClassVar[dict[str, str]] = {"head.weight": "head", "head.bias": "head"}

    temperature: Tensor
    spread: Tensor

    def __init__(
        self,
        num_classes: int = 2,
        class_names: list[str] | None = None,
        targets: int = 1,
        channels: int = 1,
        length: int = 100,
        num_kernels: int = 10_000,
        pooling: str = "hard",
        sharpness: float = 10.0,
        shift: float = 0.0,
        normalise: bool = True,
        kernel_seed: int = 0,
        tune_epochs: int = 0,
        lr_kernels: float = 1e-4,
        lr_head: float = 1e-3,
        anchor: float = 1e-3,
        patience: int = 10,
        most_rows: int | None = None,
    ) -> None:
        super().__init__()
        checks.at_least("targets", targets, 1)
        checks.at_least("tune_epochs", tune_epochs, 0)
        if tune_epochs and pooling == "hard":
            raise BadInput("Hard pooling has no gradient: tune_epochs needs pooling soft or straight-through.")
        self.rocket = Rocket(
            num_kernels, length, channels, kernel_seed, pooling, sharpness, shift, trainable=tune_epochs > 0
        )
        features = self.rocket.num_features
        self.head = RidgeHead(features, self.outputs, trainable=tune_epochs > 0)
        self.register_buffer("temperature", torch.ones(()))
        self.register_buffer("spread", torch.zeros(1 if self.classifies else targets))
        self.ridge = Ridge(features, self.outputs, most_rows=most_rows)
        self.sample = CalibrationSample()
        self.unit: Tensor | None = None  # of the values' errors while tuning, (R,)
        self.tuner = RocketTuner(self, tune_epochs, anchor, patience, kept_with_head=("temperature", "spread"))

    # Features and scores ------------------------------------------------------------------------------------------

    def features(self, series: Tensor, lengths: Tensor | None = None) -> Tensor:
        """ROCKET features (B, 2N) of series (B, C, L), always in float32."""
        if torch.is_autocast_enabled(series.device.type):
            with torch.autocast(series.device.type, enabled=False):
                return self.features(series, lengths)
        if series.dtype != torch.float64:
            series = series.float()
        if self.hparams["normalise"]:  # in float64 if that is what was read: small changes on a large level
            series = standardise_series(series, lengths)
        return self.rocket(series.float(), lengths)

    def forward(self, series: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Logits (B, K), or values (B, R) in the targets' unit.

        Args:
            series: float (B, C, L), in any unit if they are normalised, else in that of the training data.
            lengths: int (B,), valid samples of series of unequal length.
        """
        return self._logits(self.features(series, lengths))

    def _logits(self, features: Tensor) -> Tensor:
        scores = self.head(features)
        return scores * self.temperature if self.classifies else scores

    # Closed form --------------------------------------------------------------------------------------------------

    def targets_of(self, batch: dict[str, Any]) -> Tensor:
        """What the head is fitted to: -1 and 1 per class (B, K), or the values (B, R). Float64."""
        if self.classifies:
            return 2 * F.one_hot(batch["label"], self.outputs).double() - 1
        return self.values_of(batch).double()

    def collect(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Compute the features of a batch and keep them or add them up."""
        features, targets = self.features(*self.inputs_of(batch)), self.targets_of(batch)
        self.ridge.add(features, targets, batch["index"])
        self.sample.add(features, targets, batch["index"])

    def update(self) -> dict[str, Tensor]:
        """Solve for the head; set the temperature, or the intervals, on scores of series that were left out."""
        fit = self.ridge.solve(self.gather, self.sum_over_ranks)
        if fit.left_out is not None and fit.targets is not None:
            scores, targets = fit.left_out, fit.targets
        else:
            features, targets = self.sample.joined(self.gather)
            scores = ((features.double() - fit.mean) / fit.scale) @ fit.weight + fit.bias
        self.sample.clear()
        self.tuner.finish_epoch()
        solution = {f"head.{name}": value for name, value in RidgeHead.values(fit).items()}
        if self.classifies:
            return solution | {"temperature": temperature_of(scores, targets)}
        return solution | {"spread": half_widths(scores, targets)}

    # Gradients ----------------------------------------------------------------------------------------------------

    def begin_tuning(self) -> None:
        """Let the head give logits itself, or note the unit of the values' errors; drop sums over old features."""
        self.ridge.clear()
        if self.classifies:
            self.head.weight.mul_(self.temperature)
            self.head.bias.mul_(self.temperature)
            self.temperature.fill_(1.0)
        else:
            self.unit = (self.spread / 1.645).clamp(min=1e-12).cpu()

    def tuning_loss(self, batch: dict[str, Any]) -> Tensor:
        """L of a batch (equation at the top of this file)."""
        out = self(*self.inputs_of(batch))
        if self.classifies:
            return F.cross_entropy(out, batch["label"])
        values = self.values_of(batch).float()
        unit = (torch.ones(self.outputs) if self.unit is None else self.unit).to(values.device)
        return F.huber_loss(out / unit, values / unit)

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Collect and solve, or follow the gradient, whichever stage it is."""
        if self.hparams["normalise"]:
            refuse_constant(batch)
        stage = self.tuner.enter(self.current_epoch)
        if stage == "tune":
            loss, count = self.tuning_loss(batch), len(batch["index"])
            self.tuner.descend(self, loss, count)
            self.log("train/loss", loss.detach(), prog_bar=True, batch_size=count)
        elif stage != "done":
            super().training_step(batch, batch_idx)

    def configure_optimizers(self) -> Any:
        """Assign what is solved; AdamW for what is tuned."""
        assign = super().configure_optimizers()
        if not self.hparams["tune_epochs"]:
            return assign
        return [assign, self.tuner.optimizer(self.hparams["lr_kernels"], self.hparams["lr_head"])]

    def on_validation_epoch_end(self) -> None:
        """Log loss and accuracy or RMSE; keep the best model of a run that tunes, and end it when it is done."""
        loss = float(self.log_scores("val")["loss"])
        if self.trainer.state.fn == "fit" and not self.trainer.sanity_checking and self.hparams["tune_epochs"]:
            last = self.trainer.is_last_batch and self.current_epoch + 1 == self.trainer.max_epochs
            self.tuner.consider(loss, last=last)
            self.trainer.should_stop |= self.tuner.stage == "done"

    def collected_state(self) -> dict[str, Any]:
        """Features or sums so far, and how far tuning has come."""
        stages = {**self.tuner.state(), "sample": self.sample.rows, "unit": self.unit}
        return {"ridge": self.ridge.state(), "stages": stages}

    def load_collected_state(self, state: dict[str, Any]) -> None:
        """Take back what `collected_state` returned."""
        stages = state["stages"]
        self.ridge.load_state(state["ridge"])
        self.tuner.load_state(stages)
        self.sample.rows, self.unit = stages["sample"], stages["unit"]

    # Prediction ---------------------------------------------------------------------------------------------------

    def interval_of(self, value: Tensor) -> Tensor:
        """Ends (B, R, 2) of intervals that held 90 % of the training series when they were left out."""
        return torch.stack([value - self.spread, value + self.spread], 2)

    def predict_step(self, batch: dict[str, Any], batch_idx: int = 0) -> dict[str, Any]:
        """Predictions for a batch.

        Returns:
            Classification: `logits` (B, K), `probs` (B, K) (one temperature, set on left-out series, makes
            probabilities of ridge scores), `label` (B,), `name`, `scores` (B, K) of the ridge itself. Regression:
            `value` (B,) or (B, R), and `interval` (B, 2) or (B, R, 2), which held 90 % of the training series when they
            were left out.
        """
        result = super().predict_step(batch, batch_idx)
        return result | {"scores": result["logits"] / self.temperature} if self.classifies else result
