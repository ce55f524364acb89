"""Steel roughness: the stylus parameter Ra of a strip section, read from its laser reflection while it runs by.

Milne, Xie: "Steel Surface Roughness Parameter Calculations Using Lasers and Machine Learning Models", arXiv 2307.03723,
2023; Int. J. Advanced Manufacturing Technology, 2024. Time series extrinsic regression: signal (C, L) -> Ra in um.

    x~_c   = (x_c - mean_c) / std_c                statistics of the training set per channel, never of one series
    s      = f(x~),  Ra = exp(std s + mean)        f: a network, ROCKET with a ridge head, boosted trees
    Ra_cf  = exp(a log(w / 2) + b)                 closed form: w, the width of the reflected lobe
    L      = Huber(s - (log Ra - mean) / std)      delta = one standard deviation of log Ra
    interval = Ra exp(+-q)                         q: conformal quantile of |log Ra - log Ra^| on validation coils

The amplitude of the signal tells the roughness, so a section is never standardised by itself.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.base import trained_steps
from zoo.errors import BadInput, InvalidConfig, nearest
from zoo.methods.steel_roughness.fits import ClosedForm, Fit, Trees, reflected_slope
from zoo.methods.steel_roughness.fitting import FittedModule
from zoo.methods.steel_roughness.inputs import draw_section, read_section
from zoo.methods.steel_roughness.networks import NETWORKS, PatchTransformer, make_network
from zoo.methods.steel_roughness.rocket import RocketFit
from zoo.methods.steel_roughness.scores import OFFSETS, Scores, conformal_quantile, roughness_errors, to_value

__all__ = ["FITS", "NETWORKS", "SteelRoughness", "reflected_slope"]

FITS = ("closed-form", "rocket", "soft-rocket", "xgboost")
"""Regressors that one pass over the data fits (soft-rocket can be tuned after it); the others follow gradients."""


class SteelRoughness(FittedModule):
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
        trees: boosting rounds of xgboost, and `tree_depth`, `tree_rate` of each.
        lr: learning rate of AdamW at the start; a cosine leads it to 0.
        weight_decay: of AdamW, on matrices.
    """

    task = "time-series-regression"
    monitor = ("val/rmse", "min")
    logged = ("loss", "rmse", "bias", "rmse_relative", "correlation", "coverage", "width")
    parameter_roles: ClassVar[dict[str, str]] = {"fit_.trees": "elastic", "members.0.masked": "training"}

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
        self.targets = list(targets or ["ra"])
        self._check()
        self.register_buffer("offsets", torch.tensor([OFFSETS[name] for name in self.targets]), persistent=False)
        self.register_buffer("signal_mean", torch.zeros(channels))
        self.register_buffer("signal_std", torch.ones(channels))
        self.register_buffer("meta_mean", torch.zeros(3))
        self.register_buffer("meta_std", torch.ones(3))
        self.register_buffer("score_mean", torch.zeros(len(self.targets)))
        self.register_buffer("score_std", torch.ones(len(self.targets)))
        self.register_buffer("counts", torch.zeros(2, dtype=torch.int64))  # sections behind signal and score statistics
        self.register_buffer("quantile", torch.ones(len(self.targets)))  # a factor e, until there are residuals
        self.quantile: Tensor
        self.fit_ = self._make_fit()
        self._make_members()
        self.scores = Scores()

    def _check(self) -> None:
        hp = self.hparams
        _one_of("network", hp["network"], (*FITS, *NETWORKS))
        _one_of("objective", hp["objective"], ("supervised", "masked"))
        for name in self.targets:
            _one_of("targets", name, tuple(OFFSETS))
        if hp["objective"] == "masked" and (hp["network"] != "transformer" or hp["ensemble"] != 1):
            raise InvalidConfig("objective: masked pre-training is for one transformer (network=transformer).")
        if hp["use_meta"] and hp["network"] in FITS:
            raise InvalidConfig(f"use_meta: networks read the line's state, {hp['network']} does not.")
        if hp["tune_epochs"] and hp["network"] != "soft-rocket":
            raise InvalidConfig(f"tune_epochs: soft-rocket can be tuned, {hp['network']} cannot.")
        if not 0 < hp["coverage"] < 1 or not 0 < hp["mask"] < 1:
            raise BadInput(f"coverage and mask lie between 0 and 1, found {hp['coverage']} and {hp['mask']}.")
        for key in ("channels", "length", "depth", "ensemble", "trees", "tree_depth"):
            if hp[key] < 1:
                raise BadInput(f"{key}: expected at least 1, found {hp[key]}.")

    def _make_fit(self) -> Fit | None:
        hp = self.hparams
        if hp["network"] == "closed-form":
            return ClosedForm(hp["channels"], len(self.targets))
        if hp["network"] == "xgboost":
            return Trees(len(self.targets), hp["trees"], hp["tree_depth"], hp["tree_rate"])
        if hp["network"] not in FITS:
            return None
        if hp["kernel_seed"] is None:  # noted, so that a checkpoint is built with the same kernels
            self.hparams["kernel_seed"] = int(torch.randint(2**31, ()))
        soft = hp["network"] == "soft-rocket"
        shape = (len(self.targets), hp["channels"], hp["length"], hp["num_kernels"], hp["kernel_seed"])
        return RocketFit(*shape, "soft" if soft else "hard", hp["sharpness"], hp["tune_epochs"] > 0)

    def _make_members(self) -> None:
        """Networks, each with its head; and how they are trained."""
        hp = self.hparams
        self.members = nn.ModuleList()
        self.heads = nn.ModuleList()
        self.automatic_optimization = self.every_sample = False
        if self.fit_ is not None:
            self.every_sample = True
            return
        self.automatic_optimization = True
        for _ in range(hp["ensemble"]):
            self.members.append(make_network(hp["network"], dict(hp)))
            wide = int(self.members[-1].dim) + (16 if hp["use_meta"] else 0)  # type: ignore[arg-type]
            self.heads.append(nn.Linear(wide, len(self.targets)))
        self.meta_layers = nn.Sequential(nn.Linear(3, 16), nn.ReLU(), nn.Linear(16, 16)) if hp["use_meta"] else None
        if hp["objective"] == "masked":
            self.monitor = ("val/loss", "min")
            self.partial_backward = True  # the head waits for labels

    # Regression ---------------------------------------------------------------------------------------------------

    def member_scores(self, signal: Tensor, meta: Tensor | None = None) -> Tensor:
        """Standardised scores of each member of the ensemble, (M, B, T)."""
        x = self.standardised(signal)
        extra = []
        if self.meta_layers is not None:
            if meta is None:
                raise BadInput("This model reads the line's state: give meta (B, 3): speed in m/s, tilt, laser power.")
            extra = [self.meta_layers((meta - self.meta_mean) / self.meta_std)]
        pairs = zip(self.members, self.heads, strict=True)
        return torch.stack([head(torch.cat([network(x), *extra], 1)) for network, head in pairs])

    def score(self, signal: Tensor, meta: Tensor | None = None) -> Tensor:
        """Predicted logarithms of the roughness parameters, (B, T)."""
        if self.fit_ is None:
            found = self.member_scores(signal, meta).float().mean(0)
        elif not self.fit_.standardised:
            return self.fit_(signal)
        else:
            found = self.fit_(self.standardised(signal)).float()
        return found * self.score_std + self.score_mean

    def forward(self, signal: Tensor, meta: Tensor | None = None) -> Tensor:
        """Roughness parameters (B, T), heights in um.

        Args:
            signal: intensities in full scales, (B, C, L).
            meta: line speed in m/s, tilt in degrees, relative laser power, (B, 3); only if `use_meta`.
        """
        return to_value(self.score(signal, meta), self.offsets)

    def example_input(self) -> tuple[Tensor, ...]:
        """A lobe that widens along the strip."""
        hp = self.hparams
        where = torch.linspace(-21, 21, hp["channels"], device=self.device)[:, None]
        width = torch.linspace(6, 12, hp["length"], device=self.device)
        ripple = 1 + 0.2 * torch.sin(torch.arange(hp["length"], device=self.device) / 3 + where)
        signal = (0.6 * torch.exp(-(where**2) / (2 * width**2)) * ripple)[None]
        return (signal, torch.tensor([[6.0, 0.0, 1.0]], device=self.device)) if hp["use_meta"] else (signal,)

    # Learning -----------------------------------------------------------------------------------------------------

    def losses(self, batch: dict[str, Any]) -> Tensor:
        """Loss of each section (B,): Huber on standardised logarithms, the mean over members and targets."""
        found = self.member_scores(batch["signal"], batch["meta"] if self.hparams["use_meta"] else None)
        return self.huber(found, self.true_scores(batch))

    def masked_loss(self, batch: dict[str, Any], generator: torch.Generator | None = None) -> Tensor:
        """Error of hidden patches, read from the others."""
        network = self.members[0]
        assert isinstance(network, PatchTransformer)
        x = self.standardised(batch["signal"])
        count = x.shape[2] // network.patch
        order = torch.rand(len(x), count, generator=generator).argsort(1).to(x.device)
        return network.reconstruction_loss(x, order < max(1, round(self.hparams["mask"] * count)))

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor | None:  # type: ignore[override]
        """Loss of a batch; logs `train/loss`. What is fitted collects instead."""
        if isinstance(self.fit_, RocketFit) and self.tunes():
            self.tune(self.fit_, batch)
            return None
        if self.fit_ is not None:
            super().training_step(batch, batch_idx)
            return None
        masked = self.hparams["objective"] == "masked"
        loss = self.masked_loss(batch) if masked else self.losses(batch).mean()
        if self._trainer is not None:
            self.log("train/loss", loss.detach(), prog_bar=True, batch_size=len(batch["index"]))
        return loss

    def configure_optimizers(self) -> Any:
        """AdamW with a cosine to 0; what is fitted copies its solution."""
        if self.fit_ is not None:
            return self.assigning()
        trained = [p for p in self.parameters() if p.requires_grad]
        groups = [
            {"params": [p for p in trained if p.ndim > 1], "weight_decay": self.hparams["weight_decay"]},
            {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
        ]
        optimizer = torch.optim.AdamW([g for g in groups if g["params"]], lr=self.hparams["lr"])
        steps = trained_steps(self.trainer)
        rate = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: 0.5 * (1 + math.cos(math.pi * min(step / steps, 1.0)))
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": rate, "interval": "step"}}

    # Evaluation ---------------------------------------------------------------------------------------------------

    def validation_step(self, batch: dict[str, Any], batch_idx: int = 0) -> None:
        """Collect predictions."""
        self._evaluate(batch)

    def test_step(self, batch: dict[str, Any], batch_idx: int = 0) -> None:
        """Collect predictions."""
        self._evaluate(batch)

    def _evaluate(self, batch: dict[str, Any]) -> None:
        true = self.true_scores(batch)
        score = self.score(batch["signal"], batch["meta"] if self.hparams["use_meta"] else None)
        if self.hparams["objective"] == "masked":
            pairs = zip(batch["signal"], batch["index"].tolist(), strict=True)  # the same patches in every epoch
            one = [self.masked_loss({"signal": s[None]}, torch.Generator().manual_seed(i)) for s, i in pairs]
            loss = torch.stack(one)
        elif self.fit_ is None:
            loss = self.losses(batch)
        else:
            loss = F.huber_loss(score, true, reduction="none").mean(1)
        self.scores.update(batch["index"], score, true, loss)

    def on_validation_epoch_end(self) -> None:
        """Log `val/rmse` and its relatives; while training, calibrate the interval."""
        score, true, loss = self.scores.take(self.gather)
        if self.trainer.state.fn == "fit" and not self.trainer.sanity_checking:
            self._calibrate(score, true, loss)
        self._log_scores("val", score, true, loss)

    def _calibrate(self, score: Tensor, true: Tensor, loss: Tensor) -> None:
        """Fit the interval to the residuals of the validation coils, before its width is logged."""
        best = float("inf")
        if isinstance(self.fit_, RocketFit) and self.fit_.tuned:
            best = self.fit_.best_loss
            self.fit_.consider(float(loss.mean()))
            if self.current_epoch + 1 == self.trainer.max_epochs:
                self.fit_.use_best()
        if float(loss.mean()) <= best:  # the interval is that of the model that is kept
            self.quantile.copy_(conformal_quantile(score - true, self.hparams["coverage"]))

    def on_test_epoch_end(self) -> None:
        """Log `test/rmse` and its relatives."""
        self._log_scores("test", *self.scores.take(self.gather))

    def _log_scores(self, stage: str, score: Tensor, true: Tensor, loss: Tensor) -> None:
        found = roughness_errors(score, true, self.offsets.cpu(), self.quantile.cpu())
        self.log(f"{stage}/rmse", found.pop("rmse"), prog_bar=True)
        self.log_dict({f"{stage}/{name}": value for name, value in found.items()})
        self.log(f"{stage}/loss", float(loss.mean()))

    # Prediction ---------------------------------------------------------------------------------------------------

    def split_inputs(self, inputs: Any) -> list[Any]:
        """Sections of an argument of `predict`: a list, an array of three axes (sections, detectors, samples), one."""
        if isinstance(inputs, (np.ndarray, Tensor)) and inputs.ndim == 3:
            return list(inputs)
        return super().split_inputs(inputs)

    def make_batch(self, items: Sequence[Any]) -> dict[str, Any]:
        """Sections as arrays or tensors (C, L), tables (samples in rows, detectors in columns), `.npz` files or dicts.

        Raises:
            BadInput: naming the section and what is wrong with it.
        """
        hp = self.hparams
        fixed = hp["length"] if hp["network"] == "transformer" else None
        found = [read_section(item, i, hp["channels"], fixed, hp["use_meta"]) for i, item in enumerate(items)]
        lengths = {signal.shape[1] for signal, _ in found}
        if len(lengths) > 1:
            raise BadInput(f"Sections of one call have equally many samples, found {sorted(lengths)}.")
        if found and (least := self._least_length()) > min(lengths):
            raise BadInput(f"{hp['network']} needs at least {least} samples of a section, found {min(lengths)}.")
        return {
            "index": torch.arange(len(found)),
            "signal": torch.stack([torch.from_numpy(signal) for signal, _ in found]),
            "meta": torch.tensor([meta for _, meta in found], dtype=torch.float32),
        }

    def _least_length(self) -> int:
        return {"spectrogram-cnn": 17, "xgboost": 5}.get(self.hparams["network"], 2)

    def predict_step(self, batch: dict[str, Any], batch_idx: int = 0) -> dict[str, Any]:
        """Roughness of a batch.

        Returns:
            value (B,), the first target, and interval (B, 2) around it, heights in um; every target under its own name.
        """
        score = self.score(batch["signal"], batch["meta"] if self.hparams["use_meta"] else None)
        value = to_value(score, self.offsets)
        ends = [to_value(score + sign * self.quantile, self.offsets)[:, 0] for sign in (-1, 1)]
        named = {name: value[:, i] for i, name in enumerate(self.targets)}
        return {"value": value[:, 0], "interval": torch.stack(ends, 1), **named}

    def show(self, inputs: Any, result: dict[str, Any]) -> Image.Image:
        """The signal as the detectors saw it, and the roughness read from it."""
        hp = self.hparams
        signal, _ = read_section(inputs, 0, hp["channels"], None, False)
        low, high = (float(v) for v in result["interval"])
        return draw_section(signal, hp["pitch_um"], self.targets[0], float(result["value"]), low, high)


def _one_of(name: str, value: str, known: Sequence[str]) -> None:
    if value not in known:
        raise BadInput(f"{name} must be one of {', '.join(known)}, got {value!r}.{nearest(value, known)}")
