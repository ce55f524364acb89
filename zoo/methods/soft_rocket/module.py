"""Soft ROCKET: random convolution kernels with a pooling that gradients pass, and a ridge head in closed form.

Milne, Xie: "Predicting Surface Texture in Steel Manufacturing at Speed", 2023, arXiv 2301.08527; kernels of ROCKET
(Dempster, Petitjean, Webb, DMKD 2020). With z the responses of a kernel to a series x:

    f    = [ppv_0, max_0, ppv_1, max_1, ...],  max = max_t z                       -> zoo.nn.rocket.Rocket
    ppv  = mean_t 1[z > 0]  (hard)   or   mean_t sigmoid(lambda z - beta)  (soft)
    s    = (f - mean) / scale @ w + b,  w in closed form, penalty by leave-one-out -> zoo.nn.ridge.Ridge
    L    = CE(T s, y)  or  Huber(s, y),  + 1e-3 ||w_kernel - w_kernel at start||^2 -> SoftRocket.tuning_loss

Frozen kernels need one epoch. With `tune_epochs`, kernels, lambda and head then follow the gradient of L; the head is
solved anew for the tuned kernels; and of all models of the run the one that validates best is what remains.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassAccuracy

from zoo.base import RoundModule
from zoo.errors import BadInput, InvalidConfig
from zoo.methods.soft_rocket.inputs import example_series, make_series_batch, refuse_constant, split_series
from zoo.methods.soft_rocket.picture import draw_series
from zoo.methods.soft_rocket.stages import Stages
from zoo.nn.ridge import Ridge, RidgeFit, RidgeHead
from zoo.nn.rocket import Rocket, standardise_series

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["SoftRocket"]

_CALIBRATED = 1024  # series (the first ones by index) on which a streamed fit sets its temperature
_QUANTILE = 0.9  # of the errors that `interval` covers


class SoftRocket(RoundModule):
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
        lr_kernels: learning rate of weights, biases and lambda while tuning; `lr_head` likewise.
        anchor: factor of the squared distance of the kernels from where they started.
        patience: tuning stops after so many epochs without a better validation loss.
        most_rows: training series whose features are kept, which gives exact leave-one-out in one pass; 2N if None.
            More of them are summed up, with generalised cross-validation after the first epoch and leave-one-out after
            a second one.
    """

    task = "time-series-classification"
    monitor = ("val/loss", "min")
    logged = ("loss", "accuracy", "rmse")
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
        if num_classes == 1 or num_classes < 0:
            raise BadInput(f"num_classes must be 0 (regression) or at least 2, got {num_classes}.")
        if class_names is not None and len(class_names) != num_classes:
            raise BadInput(f"{len(class_names)} class_names were given for {num_classes} classes.")
        if targets < 1 or tune_epochs < 0:
            raise BadInput(f"targets must be at least 1 and tune_epochs at least 0, got {targets} and {tune_epochs}.")
        if tune_epochs and pooling == "hard":
            raise BadInput("Hard pooling has no gradient: tune_epochs needs pooling soft or straight-through.")
        self.outputs = num_classes or targets
        if not num_classes:
            self.task = "time-series-regression"
        self.rocket = Rocket(
            num_kernels, length, channels, kernel_seed, pooling, sharpness, shift, trainable=tune_epochs > 0
        )
        features = self.rocket.num_features
        self.head = RidgeHead(features, self.outputs, trainable=tune_epochs > 0)
        self.register_buffer("temperature", torch.ones(()))
        self.register_buffer("spread", torch.zeros(1 if num_classes else targets))
        self.ridge = Ridge(features, self.outputs, most_rows=most_rows)
        self.stages = Stages(tune_epochs, patience)
        score = MulticlassAccuracy(num_classes, average="micro") if num_classes else MeanMetric(nan_strategy="disable")
        self.losses: Any = torch.nn.ModuleDict({k: MeanMetric(nan_strategy="disable") for k in ("val", "test")})
        self.scores: Any = torch.nn.ModuleDict({k: score.clone() for k in ("val", "test")})

    @property
    def classifies(self) -> bool:
        """Whether labels are predicted, not values."""
        return bool(self.hparams["num_classes"])

    def setup(self, stage: str) -> None:
        """Compare with the data.

        Raises:
            InvalidConfig: if they have other channels, or values instead of classes.
        """
        data: Any = getattr(self.trainer, "datamodule", None)
        facts = data.facts() if hasattr(data, "facts") else {}
        wanted, here = facts.get("channels"), self.hparams["channels"]
        if wanted is not None and wanted != here:
            raise InvalidConfig(f"The data have {wanted} channels and the model {here}: set model.channels={wanted}.")
        if "num_classes" in facts and bool(facts["num_classes"]) != self.classifies:
            given, other = ("values", "classes") if self.classifies else ("classes", "values")
            raise InvalidConfig(
                f"The data have {given} and the model predicts {other}: set model.num_classes={facts['num_classes']}, "
                f"or data.target={'label' if self.classifies else 'value'}."
            )
        super().setup(stage)

    # Features and scores ------------------------------------------------------------------------------------------

    def features(self, series: Tensor, lengths: Tensor | None = None) -> Tensor:
        """ROCKET features (B, 2N) of series (B, C, L), always in float32."""
        if torch.is_autocast_enabled(series.device.type):
            with torch.autocast(series.device.type, enabled=False):
                return self.features(series, lengths)
        series = series.float()
        if self.hparams["normalise"]:
            series = standardise_series(series, lengths)
        return self.rocket(series, lengths)

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

    def example_input(self) -> tuple[Tensor, ...]:
        """Three series: a sine, a ramp and a step."""
        return (example_series(int(self.hparams["channels"]), int(self.hparams["length"])).to(self.device),)

    # Closed form --------------------------------------------------------------------------------------------------

    def targets_of(self, batch: dict[str, Any]) -> Tensor:
        """What the head is fitted to: -1 and 1 per class (B, K), or the values (B, R). Float64."""
        if self.classifies:
            return 2 * F.one_hot(batch["label"], self.outputs).double() - 1
        return batch["value"].double().reshape(len(batch["index"]), self.outputs)

    def collect(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Compute the features of a batch and keep them or add them up."""
        features, targets = self.features(batch["series"], batch.get("length")), self.targets_of(batch)
        self.ridge.add(features, targets, batch["index"])
        self.stages.remember(features, targets, batch["index"], _CALIBRATED)

    def update(self) -> dict[str, Tensor]:
        """Solve for the head."""
        fit = self.ridge.solve(self.gather, self.sum_over_ranks)
        if fit.left_out is not None and fit.targets is not None:
            scores, targets = fit.left_out, fit.targets
        else:
            features, targets = self.stages.remembered(self.gather)
            scores = ((features.double() - fit.mean) / fit.scale) @ fit.weight + fit.bias
        self.stages.forget()
        found = {f"head.{name}": value for name, value in RidgeHead.values(fit).items()}
        return found | self._calibrate(scores, targets, fit)

    def _calibrate(self, scores: Tensor, targets: Tensor, fit: RidgeFit) -> dict[str, Tensor]:
        """Temperature T of the logits, or half widths of the intervals, from scores of series that were left out."""
        if not self.classifies:
            return {"spread": (targets - scores).abs().quantile(_QUANTILE, 0).float()}
        grid = torch.logspace(-1, 2, 91, dtype=torch.float64)
        labels, k = targets.argmax(1), self.outputs
        # Platt's targets, (M_k + 1) / (M_k + 2): where all are right, no temperature would be too high
        smooth = min(0.5, k / ((k - 1) * (len(labels) / k + 2)))
        losses = torch.stack([F.cross_entropy(t * scores, labels, label_smoothing=smooth) for t in grid])
        return {"temperature": grid[losses.argmin()].float()}

    # Gradients ----------------------------------------------------------------------------------------------------

    def tuning_loss(self, batch: dict[str, Any]) -> Tensor:
        """L without the anchor (equation at the top of this file)."""
        out = self(batch["series"], batch.get("length"))
        if self.classifies:
            return F.cross_entropy(out, batch["label"])
        wanted = self.targets_of(batch).float()
        unit = self.stages.unit if self.stages.unit is not None else torch.ones(self.outputs)
        unit = unit.to(wanted.device)
        return F.huber_loss(out / unit, wanted / unit)

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Collect and solve, or follow the gradient, whichever stage it is."""
        if self.hparams["normalise"]:
            refuse_constant(batch)
        self.stages.enter(self)
        if self.stages.name == "tune":
            self._follow_gradient(batch)
        elif self.stages.name != "done":
            super().training_step(batch, batch_idx)
        if self.trainer.is_last_batch:
            self.stages.finish_epoch()

    def _follow_gradient(self, batch: dict[str, Any]) -> None:
        optimizer: Any = self.optimizers()[1]  # type: ignore[index]
        optimizer.zero_grad()
        loss = self.tuning_loss(batch)
        anchor = sum((p - q).square().sum() for p, q in self.stages.from_start(self.rocket))
        self.manual_backward(loss + self.hparams["anchor"] * anchor)
        self._average_gradients(len(batch["index"]))
        optimizer.step()
        self.log("train/loss", loss.detach(), prog_bar=True, batch_size=len(batch["index"]))

    def _average_gradients(self, count: int) -> None:
        """The mean over all ranks' series: nothing wraps this module that would do so."""
        share = count / self.sum_over_ranks(torch.tensor(float(count), device=self.device))
        for parameter in self.parameters():
            if parameter.grad is not None:
                parameter.grad.copy_(self.sum_over_ranks(parameter.grad * share))

    def configure_optimizers(self) -> Any:
        """Assign what is solved; AdamW for what is tuned."""
        assign = super().configure_optimizers()
        if not self.hparams["tune_epochs"]:
            return assign
        groups = [
            {"params": [p for p in self.rocket.parameters() if p.requires_grad], "lr": self.hparams["lr_kernels"]},
            {"params": [p for p in self.head.parameters() if p.requires_grad], "lr": self.hparams["lr_head"]},
        ]
        return [assign, torch.optim.AdamW([g for g in groups if g["params"]], weight_decay=0.0)]

    def collected_state(self) -> dict[str, Any]:
        """Features or sums so far, and how far tuning has come."""
        return {"ridge": self.ridge.state(), "stages": self.stages.state()}

    def load_collected_state(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self.ridge.load_state(state["ridge"])
        self.stages.load_state(state["stages"])

    # Evaluation ---------------------------------------------------------------------------------------------------

    def _evaluate(self, stage: str, batch: dict[str, Any]) -> None:
        out = self(batch["series"], batch.get("length"))
        if self.classifies:
            loss = F.cross_entropy(out, batch["label"], reduction="none")
            self.scores[stage].update(out, batch["label"])
        else:
            loss = (out - self.targets_of(batch).float()).square().mean(1)
            self.scores[stage].update(loss)
        self.losses[stage].update(loss)

    def validation_step(self, batch: dict[str, Any], batch_idx: int = 0) -> None:
        """Collect loss and score."""
        self._evaluate("val", batch)

    def test_step(self, batch: dict[str, Any], batch_idx: int = 0) -> None:
        """Collect loss and score."""
        self._evaluate("test", batch)

    def _reset(self, stage: str) -> None:
        """Start anew; at the start, because what is made at the end of `validate` cannot be changed in `fit`."""
        self.losses[stage].reset()
        self.scores[stage].reset()

    def on_validation_epoch_start(self) -> None:
        """Start the metrics anew."""
        self._reset("val")

    def on_test_epoch_start(self) -> None:
        """Start the metrics anew."""
        self._reset("test")

    def on_validation_epoch_end(self) -> None:
        """Log `val/loss` and `val/accuracy` or `val/rmse`; keep the best model of a run that tunes."""
        loss = self._log_scores("val")
        if self.trainer.state.fn == "fit" and not self.trainer.sanity_checking and self.hparams["tune_epochs"]:
            self.stages.consider(self, loss)

    def on_test_epoch_end(self) -> None:
        """Log `test/loss` and `test/accuracy` or `test/rmse`."""
        self._log_scores("test")

    def _log_scores(self, stage: str) -> float:
        loss, score = self.losses[stage].compute(), self.scores[stage].compute()
        self.log(f"{stage}/loss", loss)
        self.log(
            f"{stage}/accuracy" if self.classifies else f"{stage}/rmse", score if self.classifies else score.sqrt()
        )
        return float(loss)

    # Prediction ---------------------------------------------------------------------------------------------------

    def split_inputs(self, inputs: Any) -> list[Any]:
        """One series, or the series of a list or an array with one more axis (see `make_batch`)."""
        return split_series(inputs, int(self.hparams["channels"]))

    def make_batch(self, items: Sequence[Any]) -> dict[str, Any]:
        """Batch of series: arrays, tensors or lists (C, L), or (L,) where C is 1; DataFrames with a column per channel.

        Raises:
            BadInput: naming the series and what is wrong: shape, channels, NaN, text, constant, too short.
        """
        return make_series_batch(items, int(self.hparams["channels"]), refuse_constant=bool(self.hparams["normalise"]))

    def predict_step(self, batch: dict[str, Any], batch_idx: int = 0) -> dict[str, Any]:
        """Predictions for a batch.

        Returns:
            Classification: `logits` (B, K), `probs` (B, K) (one temperature, set on left-out series, makes
            probabilities of ridge scores), `label` (B,), `name`, `scores` (B, K) of the ridge itself. Regression:
            `value` (B,) or (B, R), and `interval` (B, 2) or (B, R, 2), which held 90 % of the training series when they
            were left out.
        """
        out = self(batch["series"], batch.get("length"))
        if self.classifies:
            label = out.argmax(1)
            names = self.class_names
            found = {"logits": out, "probs": out.softmax(1), "label": label, "scores": out / self.temperature}
            return found | {"name": [names[i] for i in label.tolist()]}
        interval = torch.stack([out - self.spread, out + self.spread], 2)
        return (
            {"value": out, "interval": interval}
            if self.outputs > 1
            else {"value": out[:, 0], "interval": interval[:, 0]}
        )

    def show(self, inputs: Any, result: dict[str, Any]) -> Image.Image:
        """Plot a series with what was predicted for it."""
        series = self.make_batch(self.split_inputs(inputs)[:1])["series"][0]
        if self.classifies:
            chance = float(torch.as_tensor(result["probs"]).max())
            return draw_series(series, f"{result['name']}  ({100 * chance:.0f} %)")
        value, interval = torch.as_tensor(result["value"]).flatten(), torch.as_tensor(result["interval"]).reshape(-1, 2)
        texts = [f"{v:.4g} ({low:.4g} to {high:.4g})" for v, (low, high) in zip(value, interval, strict=True)]
        return draw_series(series, ", ".join(texts))
