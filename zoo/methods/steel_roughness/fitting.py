"""How regressors of steel strip are fitted: the training set's statistics, one pass that solves, epochs that tune."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.base import AssignOptimizer, RoundModule, ZooModule
from zoo.errors import BadData
from zoo.methods.steel_roughness.fits import Fit
from zoo.methods.steel_roughness.inputs import training_items
from zoo.methods.steel_roughness.rocket import RocketFit
from zoo.methods.steel_roughness.scores import to_score

__all__ = ["FittedModule"]


class FittedModule(RoundModule):
    """Statistics as buffers, and a regressor that is fitted (`fit_`) or, where that is None, networks.

    Attributes:
        targets: names of the T roughness parameters.
        offsets: (T,) added before their logarithms.
        signal_mean: (C,) of the training set; `signal_std` likewise; of the line's state `meta_mean`, `meta_std` (3,).
        score_mean: (T,) of the logarithms; `score_std` likewise.
        counts: sections behind the statistics of signals and of scores; 0: there are none yet.
    """

    targets: list[str]
    fit_: Fit | None
    offsets: Tensor
    signal_mean: Tensor
    signal_std: Tensor
    meta_mean: Tensor
    meta_std: Tensor
    score_mean: Tensor
    score_std: Tensor
    counts: Tensor

    def setup(self, stage: str) -> None:
        """Networks are trained like any other; the regressors that are fitted need no reduction of gradients."""
        if self.fit_ is None:
            ZooModule.setup(self, stage)
        else:
            super().setup(stage)

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
        if not self.counts[1] and len(labels) and self.hparams["objective"] == "supervised":
            scores = to_score(labels, self.offsets.cpu())
            self.score_mean.copy_(scores.mean(0))
            self.score_std.copy_(scores.std(0).nan_to_num(1.0).clamp(min=1e-3))
            self.counts[1] = len(labels)

    def standardised(self, signal: Tensor) -> Tensor:
        """Signals with the training set's mean 0 and standard deviation 1 per channel."""
        return (signal - self.signal_mean[:, None]) / self.signal_std[:, None]

    def true_scores(self, batch: dict[str, Any]) -> Tensor:
        """Logarithms of the measured parameters, (B, T).

        Raises:
            BadData: naming a target that is missing.
        """
        labels = torch.stack([batch[name].float() for name in self.targets], 1)
        if not torch.isfinite(labels).all():
            name = self.targets[int((~torch.isfinite(labels)).any(0).int().argmax())]
            raise BadData(f"Sections without the label {name!r} cannot teach it: give labels, or other targets.")
        return to_score(labels, self.offsets)

    def huber(self, found: Tensor, true: Tensor) -> Tensor:
        """Loss of each section (B,) from standardised scores (M, B, T) and measured logarithms (B, T)."""
        wanted = ((true - self.score_mean) / self.score_std).expand_as(found)
        return F.huber_loss(found.float(), wanted, reduction="none").mean((0, 2))

    # Fitting ------------------------------------------------------------------------------------------------------

    def assigning(self) -> Any:
        """Copies what is solved; AdamW for what is tuned."""
        if not self.hparams["tune_epochs"]:
            return AssignOptimizer(self)
        assert isinstance(self.fit_, RocketFit)
        groups = [
            {"params": list(self.fit_.rocket.parameters()), "lr": self.hparams["lr_kernels"]},
            {"params": list(self.fit_.head.parameters()), "lr": self.hparams["lr"]},
        ]
        return [AssignOptimizer(self), torch.optim.AdamW(groups, weight_decay=0.0)]

    def tunes(self) -> bool:
        """Whether kernels follow the gradient in this epoch: all but the first and the last one."""
        epoch, last = self.current_epoch, (self.trainer.max_epochs or 1) - 1
        return self.hparams["tune_epochs"] > 0 and 0 < epoch < last

    def tune(self, fit: RocketFit, batch: dict[str, Any]) -> None:
        """One step along the gradient."""
        fit.remember_start()
        optimizer: Any = self.optimizers()[1]  # type: ignore[index]
        optimizer.zero_grad()
        loss = self.huber(fit(self.standardised(batch["signal"]))[None], self.true_scores(batch)).mean()
        self.manual_backward(loss + self.hparams["anchor"] * fit.distance())
        share = len(batch["index"]) / self.sum_over_ranks(torch.tensor(float(len(batch["index"])), device=self.device))
        for parameter in fit.parameters():  # the mean over all ranks' sections: nothing wraps this module to do so
            if parameter.grad is not None:
                parameter.grad.copy_(self.sum_over_ranks(parameter.grad * share))
        optimizer.step()
        self.log("train/loss", loss.detach(), prog_bar=True, batch_size=len(batch["index"]))

    def collect(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Take in a batch."""
        assert self.fit_ is not None
        signal, score = batch["signal"], self.true_scores(batch)
        if self.fit_.standardised:
            signal, score = self.standardised(signal), (score - self.score_mean) / self.score_std
        self.fit_.collect(signal, score, batch["index"])

    def update(self) -> dict[str, Tensor]:
        """Solve, from what all ranks have seen."""
        assert self.fit_ is not None
        found = self.fit_.solve(self.sum_over_ranks, self.gather)
        return {f"fit_.{name}": value for name, value in found.items()}

    def collected_state(self) -> dict[str, Any]:
        """What was taken in so far."""
        return {} if self.fit_ is None else self.fit_.collected()

    def load_collected_state(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        if self.fit_ is not None:
            self.fit_.restore(state)
