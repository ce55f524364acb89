"""Metrics of validation and test that are right when ranks, or batches, hold unequal numbers of samples."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, Protocol

from lightning import LightningModule
from torch import Tensor, nn
from torchmetrics import MeanMetric, Metric

from zoo.errors import UnknownName, nearest

__all__ = ["RootMean", "Score", "Scores"]

STAGES = ("val", "test")


class Score(Protocol):
    """What is scored: a metric of torchmetrics, or any other object with these three methods."""

    def update(self, *args: Any, **options: Any) -> None:
        """Take in a batch."""

    def compute(self) -> Any:
        """One number, or a dict of name and number; over the samples of all ranks, which all call it."""

    def reset(self) -> None:
        """Reset."""


class RootMean(MeanMetric):
    """Square root of a weighted mean, such as that of squared errors."""

    def compute(self) -> Tensor:
        """The root, after the mean over all ranks."""
        return super().compute().sqrt()


class Scores(nn.Module):
    """The metrics of a module, one copy for validation and one for test, none of them in the state dict.

    A module holds it as `self.scores`; its `evaluate_step` updates, and `ZooModule` logs and resets:

        self.scores = Scores(accuracy=MulticlassAccuracy(num_classes, average="micro"))

        def evaluate_step(self, stage, batch):
            logits = self(batch["image"])
            self.scores.update_loss(stage, F.cross_entropy(logits, batch["label"]), len(batch["index"]))
            self.scores.update(stage, "accuracy", logits, batch["label"])

    This logs `val/loss`, `val/accuracy`, `test/loss` and `test/accuracy`.

    Args:
        test_only: metrics that only a test updates.
        metrics: the others by name. `loss` is a `MeanMetric` unless one is given; None for no loss. All ranks update
            all metrics in every evaluation. Where `compute` returns a dict, its names take the place of the metric's
            own.
    """

    def __init__(self, test_only: Mapping[str, Score] | None = None, **metrics: Score | None) -> None:
        super().__init__()
        named: dict[str, Score | None] = {"loss": MeanMetric(), **metrics}
        shared = {name: metric for name, metric in named.items() if metric is not None}
        self._stages: dict[str, dict[str, Score]] = {}
        for stage in STAGES:
            of_stage = shared if stage == "val" else {**shared, **(test_only or {})}
            copies = {name: _copy(metric) for name, metric in of_stage.items()}
            self._stages[stage] = copies
            self.add_module(stage, nn.ModuleList([m for m in copies.values() if isinstance(m, Metric)]))

    def __getitem__(self, key: tuple[str, str]) -> Any:
        """The metric of a stage (`val` or `test`) and a name.

        Raises:
            UnknownName: if there is none.
        """
        stage, name = key
        if name not in self._stages.get(stage, {}):
            known = [f"{s}/{n}" for s, metrics in self._stages.items() for n in metrics]
            raise UnknownName(f"No metric {stage}/{name}.{nearest(f'{stage}/{name}', known)}")
        return self._stages[stage][name]

    def names(self, stage: str) -> list[str]:
        """Names of the metrics of a stage."""
        return list(self._stages[stage])

    def update(self, stage: str, name: str, *args: Any, **options: Any) -> None:
        """Hand a batch to one metric: the arguments are those of its own `update`."""
        self[stage, name].update(*args, **options)

    def update_loss(self, stage: str, loss: Tensor, samples: int, name: str = "loss") -> None:
        """Add the loss of a batch.

        Args:
            stage: `val` or `test`.
            loss: mean over the samples, or one value for each of them (N,).
            samples: N, which weighs the mean.
            name: of the metric.
        """
        if loss.ndim:
            self.update(stage, name, loss)
        else:
            self.update(stage, name, loss, weight=samples)

    def reset(self, stage: str) -> None:
        """Forget what a stage has seen."""
        for metric in self._stages[stage].values():
            metric.reset()

    def log(self, module: LightningModule, stage: str) -> dict[str, Any]:
        """Log all metrics of a stage as `val/NAME` or `test/NAME`, and forget what it has seen.

        For the hook at the end of its epoch. All ranks must call it.

        Returns:
            The values by name, without the stage.
        """
        shown = str(getattr(module, "monitor", ("", ""))[0])
        values: dict[str, Any] = {}
        for name, metric in self._stages[stage].items():
            value = metric.compute()
            values |= value if isinstance(value, dict) else {name: value}
        for name, value in values.items():
            # Lightning resets a metric that is logged as such, and knows that its value is that of all ranks
            own = self._stages[stage].get(name)
            logged = own if isinstance(own, Metric) else value
            module.log(f"{stage}/{name}", logged, prog_bar=f"{stage}/{name}" == shown)
        for metric in self._stages[stage].values():
            if not isinstance(metric, Metric):
                metric.reset()
        return values


def _copy(metric: Score) -> Any:
    return metric.clone() if isinstance(metric, Metric) else copy.deepcopy(metric)
