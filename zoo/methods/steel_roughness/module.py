"""The model of roughness as a Lightning module; the paper and its equations stand in `zoo.methods.steel_roughness`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from zoo import checks
from zoo.base import RoundModule, Scores
from zoo.base.series import SeriesModel
from zoo.errors import BadData, BadInput, InvalidConfig
from zoo.methods.steel_roughness.closed_form import ClosedForm, reflected_slope
from zoo.methods.steel_roughness.ensemble import Networks, Pretraining
from zoo.methods.steel_roughness.inputs import read_section, training_items
from zoo.methods.steel_roughness.networks import NETWORKS
from zoo.methods.steel_roughness.regressor import KEY, Regressor, Sections
from zoo.methods.steel_roughness.rocket import Rocket
from zoo.methods.steel_roughness.scores import (
    OFFSETS,
    RoughnessErrors,
    conformal_quantile,
    to_score,
    to_value,
)
from zoo.methods.steel_roughness.trees import Trees

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["FITS", "NETWORKS", "SteelRoughness", "reflected_slope"]

FITS = ("closed-form", "rocket", "soft-rocket", "xgboost")
"""Regressors that one pass over the data solves (soft-rocket can be tuned after it); the others follow gradients."""


class SteelRoughness(SeriesModel, RoundModule):
    """Roughness from a laser signal, with one of many regressors.

    Args:
        network: `closed-form` (the physics, two fitted numbers), `rocket`, `soft-rocket`, `xgboost`; or `fcn`,
            `resnet1d`, `inception`, `lstm`, `transformer`, `spectrogram-cnn`.
        targets: roughness parameters to predict, some of ra, rq, rz, rpc; the first is the `value`.
        channels: C, the detectors.
        length: L, samples of a section; all but the transformer also take others.
        pitch_um: distance of two samples.
        cutoff_mm: of the roughness filter behind the labels; the prediction is for this cut-off.
        width: factor of a network's channels; 1 is the size of the benchmarks.
        depth: blocks of the Inception network.
        ensemble: networks trained side by side from different starts and averaged.
        use_meta: networks also read line speed, tilt and laser power.
        backbone: timm name of the spectrogram's network.
        pretrained_backbone: let timm fetch its weights.
        objective: `supervised`, or `masked`: pre-training of the transformer, which needs no labels.
        mask: share of the patches that masked pre-training hides.
        coverage: of the interval.
        num_kernels: N of ROCKET.
        kernel_seed: of its kernels; None draws one from torch's random numbers.
        sharpness: lambda of soft-rocket's pooling.
        tune_epochs: epochs in which soft-rocket's kernels follow the gradient; `trainer.max_epochs` must be 2 more.
        lr_kernels: learning rate of its kernels; `lr` is that of its head.
        anchor: factor of their squared distance from where they started.
        trees: boosting rounds of xgboost.
        tree_depth: depth of each tree.
        tree_rate: learning rate of boosting.
        lr: learning rate of AdamW at the start; a cosine leads it to 0.
        weight_decay: of AdamW, on matrices.
    """

    task = "time-series-regression"
    logged = ("loss", "rmse", "bias", "rmse_relative", "correlation", "coverage", "width")
    monitor = ("val/rmse", "min")
    parameter_roles: ClassVar[dict[str, str]] = {f"{KEY}.trees": "elastic", "members.0.masked": "training"}

    regressor: Regressor
    offsets: Tensor
    signal_mean: Tensor
    signal_std: Tensor
    meta_mean: Tensor
    meta_std: Tensor
    score_mean: Tensor
    score_std: Tensor
    counts: Tensor
    quantile: Tensor

    def __init__(
        self,
        network: str = "rocket",
        targets: list[str] | None = None,
        channels: int = 8,
        length: int = 256,
        pitch_um: float = 32.0,
        cutoff_mm: float = 0.8,
        width: float = 1.0,
        depth: int = 6,
        ensemble: int = 1,
        use_meta: bool = False,
        backbone: str = "resnet10t",
        pretrained_backbone: bool = False,
        objective: str = "supervised",
        mask: float = 0.4,
        coverage: float = 0.9,
        num_kernels: int = 2000,
        kernel_seed: int | None = 0,
        sharpness: float = 5.0,
        tune_epochs: int = 0,
        lr_kernels: float = 1e-4,
        anchor: float = 1e-3,
        trees: int = 400,
        tree_depth: int = 4,
        tree_rate: float = 0.05,
        lr: float = 1e-3,
        weight_decay: float = 0.01,
    ) -> None:
        super().__init__()
        self._check()
        count = len(self.targets)
        self.register_buffer("offsets", torch.tensor([OFFSETS[name] for name in self.targets]), persistent=False)
        self.register_buffer("signal_mean", torch.zeros(channels))
        self.register_buffer("signal_std", torch.ones(channels))
        self.register_buffer("meta_mean", torch.zeros(3))
        self.register_buffer("meta_std", torch.ones(3))
        self.register_buffer("score_mean", torch.zeros(count))
        self.register_buffer("score_std", torch.ones(count))
        self.register_buffer("counts", torch.zeros(2, dtype=torch.int64))  # sections behind signal and score statistics
        self.register_buffer("quantile", torch.ones(count))  # a factor e, until there are residuals
        self.scores = Scores(loss=None, errors=RoughnessErrors(self.targets))
        self._use(self._make_regressor())

    @property
    def targets(self) -> list[str]:
        """Names of the T roughness parameters; the first is the `value`."""
        return list(self.hparams["targets"] or ["ra"])

    def _check(self) -> None:
        hp = self.hparams
        checks.one_of("network", hp["network"], (*FITS, *NETWORKS))
        checks.one_of("objective", hp["objective"], ("supervised", "masked"))
        for name in self.targets:
            checks.one_of("targets", name, tuple(OFFSETS))
        if hp["objective"] == "masked" and (hp["network"] != "transformer" or hp["ensemble"] != 1):
            raise InvalidConfig("objective: masked pre-training is for one transformer (network=transformer).")
        if hp["use_meta"] and hp["network"] in FITS:
            raise InvalidConfig(f"use_meta: networks read the line's state, {hp['network']} does not.")
        if hp["tune_epochs"] and hp["network"] != "soft-rocket":
            raise InvalidConfig(f"tune_epochs: soft-rocket can be tuned, {hp['network']} cannot.")
        for key in ("coverage", "mask"):
            checks.share_of_one(key, hp[key], ends=False)
        for key in ("length", "depth", "ensemble", "trees", "tree_depth"):
            checks.at_least(key, hp[key], 1)
        checks.at_least("tune_epochs", hp["tune_epochs"], 0)

    def _make_regressor(self) -> Regressor:
        hp, count, network = self.hparams, len(self.targets), self.hparams["network"]
        if network == "closed-form":
            return ClosedForm(hp["channels"], count)
        if network == "xgboost":
            return Trees(count, hp["trees"], hp["tree_depth"], hp["tree_rate"])
        if network in NETWORKS:
            return (Pretraining if hp["objective"] == "masked" else Networks)(count, hp)
        if hp["kernel_seed"] is None:  # noted, so that a checkpoint is built with the same kernels
            self.hparams["kernel_seed"] = int(torch.randint(2**31, ()))
        pooling = "soft" if network == "soft-rocket" else "hard"
        shape = (count, hp["channels"], hp["length"], hp["num_kernels"], hp["kernel_seed"])
        return Rocket(*shape, pooling, hp["sharpness"], hp["tune_epochs"], hp["anchor"])

    def _use(self, regressor: Regressor) -> None:
        """Take a regressor; its parts are registered one by one, so that keys of weights are as they were published."""
        self.__dict__["regressor"] = regressor  # as a registered module its name would stand in every key
        for name, part in regressor.parts().items():
            self.add_module(name, part)
        self.automatic_optimization = regressor.by_gradient
        self.every_sample = not regressor.by_gradient
        if not regressor.needs_labels:
            self.monitor = ("val/loss", "min")
            self.partial_backward = True  # the head waits for labels

    # Regression ---------------------------------------------------------------------------------------------------

    def standardised(self, signal: Tensor) -> Tensor:
        """x~: signals with the training set's mean 0 and standard deviation 1 per channel."""
        return (signal - self.signal_mean[:, None]) / self.signal_std[:, None]

    def standardised_meta(self, meta: Tensor | None) -> Tensor | None:
        """State of the line with the training set's mean 0 and standard deviation 1."""
        return None if meta is None else (meta - self.meta_mean) / self.meta_std

    def score(self, signal: Tensor, meta: Tensor | None = None) -> Tensor:
        """Predict log Ra^, the logarithms of the roughness parameters, (B, T)."""
        if not self.regressor.standardised:
            return self.regressor(signal)  # type: ignore[no-any-return]
        score = self.regressor(self.standardised(signal), self.standardised_meta(meta)).float()
        return score * self.score_std + self.score_mean  # type: ignore[no-any-return]

    def forward(self, signal: Tensor, meta: Tensor | None = None) -> Tensor:
        """Roughness parameters (B, T), heights in um.

        Args:
            signal: intensities in full scales, (B, C, L).
            meta: line speed in m/s, tilt in degrees, relative laser power, (B, 3); only if `use_meta`.
        """
        return to_value(self.score(signal, meta), self.offsets)

    def inputs_of(self, batch: dict[str, Any]) -> tuple[Any, ...]:
        """Signal, and the state of the line if networks read it."""
        return batch["signal"], batch["meta"] if self.hparams["use_meta"] else None

    def example_input(self) -> tuple[Tensor, ...]:
        """A lobe that widens along the strip."""
        hp = self.hparams
        where = torch.linspace(-21, 21, hp["channels"], device=self.device)[:, None]
        width = torch.linspace(6, 12, hp["length"], device=self.device)
        ripple = 1 + 0.2 * torch.sin(torch.arange(hp["length"], device=self.device) / 3 + where)
        signal = (0.6 * torch.exp(-(where**2) / (2 * width**2)) * ripple)[None]
        return (signal, torch.tensor([[6.0, 0.0, 1.0]], device=self.device)) if hp["use_meta"] else (signal,)

    # Learning -----------------------------------------------------------------------------------------------------

    def on_train_start(self) -> None:
        """Take the statistics of the training set, unless weights brought theirs along."""
        super().on_train_start()
        signals, metas, labels = training_items(self.trainer.train_dataloader, self.targets)
        if not self.counts[0]:
            self.signal_mean.copy_(signals.mean((0, 2)))
            self.signal_std.copy_(signals.transpose(0, 1).flatten(1).std(1).clamp(min=1e-6))
            self.meta_mean.copy_(metas.mean(0))
            self.meta_std.copy_(metas.std(0).nan_to_num(1.0).clamp(min=1e-6))
            self.counts[0] = len(signals)
        labels = labels[torch.isfinite(labels).all(1)]
        if not self.counts[1] and len(labels) and self.regressor.needs_labels:
            scores = to_score(labels, self.offsets.cpu())
            self.score_mean.copy_(scores.mean(0))
            self.score_std.copy_(scores.std(0).nan_to_num(1.0).clamp(min=1e-3))
            self.counts[1] = len(labels)

    def true_scores(self, batch: dict[str, Any]) -> Tensor:
        """Read log Ra, the logarithms of the measured parameters, (B, T).

        Raises:
            BadData: naming a target that is missing.
        """
        labels = torch.stack([batch[name].float() for name in self.targets], 1)
        if not torch.isfinite(labels).all():
            name = self.targets[int((~torch.isfinite(labels)).any(0).int().argmax())]
            raise BadData(f"Sections without the label {name!r} cannot teach it: give labels, or other targets.")
        return to_score(labels, self.offsets)

    def sections(self, batch: dict[str, Any]) -> Sections:
        """A batch in the units of the regressor."""
        signal, meta = self.inputs_of(batch)
        true = self.true_scores(batch) if self.regressor.needs_labels else None
        if not self.regressor.standardised:
            return Sections(signal, meta, true, batch["index"])
        wanted = None if true is None else (true - self.score_mean) / self.score_std
        return Sections(self.standardised(signal), self.standardised_meta(meta), wanted, batch["index"])

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor | None:  # type: ignore[override]
        """Collect and solve, or follow the gradient of L, whichever the regressor does in this epoch."""
        stage = self.regressor.stage(self.current_epoch)
        if stage == "solve":
            super().training_step(batch, batch_idx)
        if stage != "descend":
            return None
        loss, count = self.regressor.loss(self.sections(batch)), len(batch["index"])
        if self._trainer is not None:
            self.log("train/loss", loss.detach(), prog_bar=True, batch_size=count)
        return self.regressor.descend(self, loss, count)

    def collect(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Take in a batch."""
        self.regressor.collect(self.sections(batch))

    def update(self) -> dict[str, Tensor]:
        """Solve, from what all ranks have seen."""
        solution = self.regressor.solve(self.sum_over_ranks, self.gather)
        return {f"{KEY}.{name}": value for name, value in solution.items()}

    def configure_optimizers(self) -> Any:
        """Those of the regressor."""
        return self.regressor.optimizers(self)

    def collected_state(self) -> dict[str, Any]:
        """What the regressor took in so far."""
        return self.regressor.collected()

    def load_collected_state(self, state: dict[str, Any]) -> None:
        """Take back what `collected_state` returned."""
        self.regressor.restore(state)

    # Evaluation ---------------------------------------------------------------------------------------------------

    def evaluate_step(self, stage: str, batch: dict[str, Any]) -> None:
        """Collect predicted and measured logarithms."""
        true, score = self.true_scores(batch), self.score(*self.inputs_of(batch))
        loss = self.regressor.losses(self.sections(batch), score, true)
        self.scores.update(stage, "errors", batch["index"], score, true, loss)

    def log_scores(self, stage: str) -> dict[str, Any]:
        """Log the errors in um and the interval's coverage; while training, calibrate the interval first."""
        errors = self.scores[stage, "errors"]
        if self.trainer.state.fn == "fit" and not self.trainer.sanity_checking:
            self._calibrate(*errors.joined())
        errors.quantile = self.quantile.cpu()
        return super().log_scores(stage)

    def _calibrate(self, score: Tensor, true: Tensor, loss: Tensor) -> None:
        """Fit the interval to the residuals of the validation coils: that of the model which is kept."""
        last = self.trainer.is_last_batch and self.current_epoch + 1 == self.trainer.max_epochs
        if self.regressor.consider(float(loss.mean()), last=last):
            self.quantile.copy_(conformal_quantile(score - true, self.hparams["coverage"]))
        self.trainer.should_stop |= self.regressor.finished

    # Prediction ---------------------------------------------------------------------------------------------------

    def split_inputs(self, inputs: Any) -> list[Any]:
        """Sections of an argument of `predict`: a list, an array of three axes (sections, detectors, samples), one."""
        several = isinstance(inputs, (list, tuple)) or getattr(inputs, "ndim", 0) == 3
        return list(inputs) if several else [inputs]

    def make_batch(self, items: Sequence[Any]) -> dict[str, Any]:
        """Sections as arrays or tensors (C, L), tables (samples in rows, detectors in columns), `.npz` files or dicts.

        Raises:
            BadInput: naming the section and what is wrong with it.
        """
        hp, least, only = self.hparams, self.regressor.least_length, self.regressor.only_length
        sections = [read_section(item, i, hp["channels"], only, hp["use_meta"]) for i, item in enumerate(items)]
        lengths = {signal.shape[1] for signal, _ in sections}
        if len(lengths) > 1:
            raise BadInput(f"Sections of one call have equally many samples, got {sorted(lengths)}.")
        if sections and least > min(lengths):
            raise BadInput(f"{hp['network']} needs at least {least} samples of a section, got {min(lengths)}.")
        return {
            "index": torch.arange(len(sections)),
            "signal": torch.stack([torch.from_numpy(signal) for signal, _ in sections]),
            "meta": torch.tensor([meta for _, meta in sections], dtype=torch.float32),
        }

    def predict_step(self, batch: dict[str, Any], batch_idx: int = 0) -> dict[str, Any]:
        """Roughness of a batch.

        Returns:
            value (B,), the first target, and interval (B, 2) around it, heights in um; every target under its own name.
        """
        score = self.score(*self.inputs_of(batch))
        value = to_value(score, self.offsets)
        ends = [to_value(score + sign * self.quantile, self.offsets)[:, 0] for sign in (-1, 1)]
        named = {name: value[:, i] for i, name in enumerate(self.targets)}
        return {"value": value[:, 0], "interval": torch.stack(ends, 1), **named}

    def show(self, inputs: Any, result: dict[str, Any]) -> Image.Image:
        """The signal as the detectors saw it, and the roughness read from it."""
        from zoo.methods.steel_roughness.picture import draw_section

        hp = self.hparams
        signal, _ = read_section(inputs, 0, hp["channels"], None, False)
        low, high = (float(v) for v in result["interval"])
        return draw_section(signal, hp["pitch_um"], self.targets[0], float(result["value"]), low, high)
