"""Rules around a weighted mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor

from zoo.federated._rules_base import ClientUpdate, RoundContext, Rule, StateDict, register_rule
from zoo.federated._rules_cohort import Chunk, Cohort

__all__ = ["FedAvg", "MeanRule"]


class MeanRule(Rule):
    """A weighted mean of the clients, and what a subclass makes of it.

    Args:
        weighting: "examples" (p_k = n_k / sum of n) or "uniform".
        options: of `Rule`.
    """

    def __init__(self, *, weighting: str = "examples", **options: Any) -> None:
        super().__init__(**options)
        self.weighting = weighting

    def weights(self, updates: Sequence[ClientUpdate], ctx: RoundContext, state: Mapping[str, Any]) -> list[float]:
        """p_k of each client."""
        counts = [float(u.num_examples) if self.weighting == "examples" else 1.0 for u in updates]
        return [count / sum(counts) for count in counts]

    def finish(self, mean: Tensor, chunk: Chunk, global_sd: Mapping[str, Tensor], state: dict[str, Any]) -> Tensor:
        """Turn the mean of a chunk, float64 (C,), into its new values."""
        return mean

    def combine(
        self, global_sd: Mapping[str, Tensor], cohort: Cohort, ctx: RoundContext, state: dict[str, Any]
    ) -> tuple[StateDict, dict[str, float]]:
        """The mean over those who sent an entry, chunk by chunk."""
        shares = self.weights(cohort.headers, ctx, state)
        new: StateDict = {}
        for block in cohort.blocks:
            whole = sum(shares[i] for i in block.members)
            weights = {i: shares[i] / whole for i in block.members}
            found = cohort.empty(global_sd, block.keys)
            for chunk in block.chunks:
                chunk.write(found, self.finish(cohort.total(chunk, weights), chunk, global_sd, state))
            new |= found
        return new, {}


@register_rule("fedavg")
class FedAvg(MeanRule):
    """Federated averaging (McMahan et al. 2017): w_{t+1} = sum_k p_k w_k."""

    name = "fedavg"
    linear: ClassVar[bool] = True
