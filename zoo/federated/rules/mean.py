"""Rules around a weighted mean: averaging, a server optimiser, clipped norms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from zoo.federated.rules.base import Rule, register_rule
from zoo.federated.rules.cohort import Chunk, Cohort
from zoo.federated.rules.options import above, one_of, share
from zoo.federated.rules.updates import ClientUpdate, RoundContext, StateDict

__all__ = ["FedAdagrad", "FedAdam", "FedAvg", "FedAvgM", "FedYogi", "MeanRule", "NormClip", "ServerStep"]

STATISTICS = ("running_mean", "running_var")
"""Last part of the names of batch statistics. They are no weights: a step of a server optimiser could make a variance
negative, so that such rules average them."""


class MeanRule(Rule):
    """A weighted mean of the clients, and what a subclass makes of it.

    Args:
        weighting: "examples" (p_k = n_k / sum of n) or "uniform".
        options: of `Rule`.
    """

    def __init__(self, *, weighting: str = "examples", **options: Any) -> None:
        super().__init__(**options)
        self.weighting = one_of("weighting", weighting, "examples", "uniform")

    def weights(self, updates: Sequence[ClientUpdate], ctx: RoundContext, state: Mapping[str, Any]) -> list[float]:
        """p_k of each client."""
        return shares_of([update.num_examples for update in updates], self.weighting)

    def start(self, global_sd: Mapping[str, Tensor], block_keys: Sequence[str], state: dict[str, Any]) -> None:
        """Prepare new tensors in `state` for these entries."""

    def finish(
        self, mean: Tensor, chunk: Chunk, global_sd: Mapping[str, Tensor], state: dict[str, Any], ctx: RoundContext
    ) -> Tensor:
        """Turn the mean of a chunk, float64 (C,), into its new values; may change it."""
        return mean

    def combine(
        self, global_sd: Mapping[str, Tensor], cohort: Cohort, ctx: RoundContext, state: dict[str, Any]
    ) -> tuple[StateDict, dict[str, float]]:
        """The mean over those who sent an entry, chunk by chunk."""
        shares = self.weights(cohort.headers, ctx, state)
        new: StateDict = {}
        for block in cohort.blocks:
            self.start(global_sd, block.keys, state)
            whole = sum(shares[i] for i in block.members)
            weights = {i: shares[i] / whole for i in block.members}
            results = cohort.empty(global_sd, block.keys)
            for chunk in block.chunks:
                chunk.write(results, self.finish(cohort.total(chunk, weights), chunk, global_sd, state, ctx))
            new |= results
        return new, {f"weight/{client}": share for client, share in zip(cohort.ids, shares, strict=True)}


@register_rule("fedavg")
class FedAvg(MeanRule):
    """Federated averaging (McMahan et al. 2017): w_{t+1} = sum_k p_k w_k."""

    name = "fedavg"
    linear: ClassVar[bool] = True


class ServerStep(MeanRule):
    """A server optimiser that takes d = sum_k p_k (w_k - w_t) for the negative gradient.

    Running means and variances of batch normalisation are averaged instead.

    Args:
        options: of `MeanRule`.
    """

    moments: ClassVar[tuple[str, ...]] = ()
    """Names of the tensors that it keeps per entry, as `<name>/<entry>` in the state."""
    idempotent = False

    def first(self, moment: str) -> float:
        """Value with which a moment starts."""
        return 0.0

    def start(self, global_sd: Mapping[str, Tensor], block_keys: Sequence[str], state: dict[str, Any]) -> None:
        """Copies of the moments, or their first values."""
        for moment in self.moments:
            for key in block_keys:
                old = state.get(f"{moment}/{key}")
                value = torch.full_like(global_sd[key], self.first(moment)) if old is None else old.clone()
                state[f"{moment}/{key}"] = value

    def step(self, change: Tensor, moments: list[Tensor], ctx: RoundContext) -> Tensor:
        """What to add to the weights, for d (C,) and the moments (C,), which change in place. All float64."""
        raise NotImplementedError(f"{type(self).__name__} must implement step()")

    def finish(
        self, mean: Tensor, chunk: Chunk, global_sd: Mapping[str, Tensor], state: dict[str, Any], ctx: RoundContext
    ) -> Tensor:
        """w_t plus the step; the mean for batch statistics."""
        old = chunk.read(global_sd).to(torch.float64)
        views = [{key: state[f"{moment}/{key}"] for key, _, _ in chunk.pieces} for moment in self.moments]
        rows = [chunk.read(view).to(torch.float64) for view in views]
        new = old + self.step(mean - old, rows, ctx)
        for view, row in zip(views, rows, strict=True):
            chunk.write(view, row)
        for key, first, end in chunk.places():
            if key.rsplit(".", 1)[-1] in STATISTICS:
                new[first:end] = mean[first:end]
        return new


@register_rule("fedavgm")
class FedAvgM(ServerStep):
    """Averaging with server momentum (Hsu et al. 2019): m = b m + d; w_{t+1} = w_t + eta m.

    Args:
        eta: server learning rate.
        momentum: b.
        options: of `MeanRule`.
    """

    name = "fedavgm"
    moments = ("m",)

    def __init__(self, *, eta: float = 1.0, momentum: float = 0.9, **options: Any) -> None:
        super().__init__(**options)
        self.eta, self.momentum = above("eta", eta, 0), share("momentum", momentum)
        self.idempotent = eta == 1.0

    def step(self, change: Tensor, moments: list[Tensor], ctx: RoundContext) -> Tensor:
        """Momentum, then eta."""
        return moments[0].mul_(self.momentum).add_(change) * self.eta


class FedOpt(ServerStep):
    """Adaptive server optimisers (Reddi et al. 2021, algorithm 2).

    m = b1 m + (1 - b1) d; v as the subclass says; w_{t+1} = w_t + eta m / (sqrt(v) + tau). No bias correction, and v
    starts at tau^2; Flower starts it at 0, and corrects Adam's step by sqrt(1 - b2^(t+2)) / (1 - b1^(t+2)), t from 0.

    Args:
        eta: server learning rate; tune it on a logarithmic grid, together with the clients'.
        beta1: b1.
        beta2: b2.
        tau: how adaptive: the smaller, the more.
        variant: "paper" or "flower".
        options: of `MeanRule`.
    """

    moments = ("m", "v")

    def __init__(
        self,
        *,
        eta: float = 0.01,
        beta1: float = 0.9,
        beta2: float = 0.99,
        tau: float = 1e-3,
        variant: str = "paper",
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.eta, self.tau = above("eta", eta, 0), above("tau", tau, 0)
        self.beta1, self.beta2 = share("beta1", beta1), share("beta2", beta2)
        self.variant = one_of("variant", variant, "paper", "flower")

    def first(self, moment: str) -> float:
        """0 for m; tau^2 for v, or 0 as Flower has it."""
        return self.tau**2 if moment == "v" and self.variant == "paper" else 0.0

    def second(self, v: Tensor, square: Tensor) -> None:
        """Update v in place with d^2."""
        raise NotImplementedError(f"{type(self).__name__} must implement second()")

    def correction(self, ctx: RoundContext) -> float:
        """Factor of eta in this round."""
        return 1.0

    def step(self, change: Tensor, moments: list[Tensor], ctx: RoundContext) -> Tensor:
        """Both moments, then the normalised step."""
        m, v = moments
        m.mul_(self.beta1).add_(change, alpha=1 - self.beta1)
        self.second(v, change.square())
        return m.mul(self.eta * self.correction(ctx)).div_(v.sqrt().add_(self.tau))


@register_rule("fedadam")
class FedAdam(FedOpt):
    """FedAdam: v = b2 v + (1 - b2) d^2; the rest in `FedOpt`."""

    name = "fedadam"

    def second(self, v: Tensor, square: Tensor) -> None:
        """Moving average."""
        v.mul_(self.beta2).add_(square, alpha=1 - self.beta2)

    def correction(self, ctx: RoundContext) -> float:
        """Flower's; 1 in the paper."""
        if self.variant == "paper":
            return 1.0
        power = ctx.round + 2  # Flower counts rounds from 1, and adds 1
        return float((1 - self.beta2**power) ** 0.5 / (1 - self.beta1**power))


@register_rule("fedyogi")
class FedYogi(FedOpt):
    """FedYogi: v = v - (1 - b2) d^2 sign(v - d^2); the rest in `FedOpt`."""

    name = "fedyogi"

    def second(self, v: Tensor, square: Tensor) -> None:
        """Steps towards d^2 whose size does not depend on v."""
        v.sub_((v - square).sign_().mul_(square), alpha=1 - self.beta2)


@register_rule("fedadagrad")
class FedAdagrad(FedOpt):
    """FedAdagrad: v = v + d^2, without momentum by default; the rest in `FedOpt`.

    Args:
        eta: server learning rate.
        beta1: b1, 0 in the paper's experiments.
        options: of `FedOpt`.
    """

    name = "fedadagrad"

    def __init__(self, *, eta: float = 0.01, beta1: float = 0.0, **options: Any) -> None:
        super().__init__(eta=eta, beta1=beta1, **options)

    def second(self, v: Tensor, square: Tensor) -> None:
        """Sum."""
        v.add_(square)


@register_rule("norm-clip")
class NormClip(MeanRule):
    """Mean of changes whose norm is bounded (Sun et al. 2019): w_t + sum_k p_k d_k min(1, C / |d_k|), d_k = w_k - w_t.

    The norm goes over all floating-point entries that a client sent.

    Args:
        max_norm: C; None: the median of the round's norms.
        options: of `MeanRule`.
    """

    name = "norm-clip"
    couples_blocks = True

    def __init__(self, *, max_norm: float | None = None, weighting: str = "uniform", **options: Any) -> None:
        super().__init__(weighting=weighting, **options)
        self.max_norm = None if max_norm is None else above("max_norm", max_norm, 0)

    def combine(
        self, global_sd: Mapping[str, Tensor], cohort: Cohort, ctx: RoundContext, state: dict[str, Any]
    ) -> tuple[StateDict, dict[str, float]]:
        """Norms first, from each process, then the sum of weighted changes."""
        norms = self._norms(global_sd, cohort)
        bound = self.max_norm if self.max_norm is not None else float(torch.tensor(norms).quantile(0.5))
        scales = [min(1.0, bound / norm) if norm > 0 else 1.0 for norm in norms]
        shares = self.weights(cohort.headers, ctx, state)
        new: StateDict = {}
        for block in cohort.blocks:
            whole = sum(shares[i] for i in block.members)
            weights = {i: shares[i] / whole * scales[i] for i in block.members}
            kept = 1.0 - sum(weights.values())
            results = cohort.empty(global_sd, block.keys)
            for chunk in block.chunks:
                total = cohort.total(chunk, weights)
                if any(scales[i] < 1.0 for i in block.members):
                    total = total + kept * chunk.read(global_sd).to(torch.float64)
                chunk.write(results, total)
            new |= results
        metrics = {f"norm/{client}": norm for client, norm in zip(cohort.ids, norms, strict=True)}
        return new, {"max_norm": bound} | metrics

    def _norms(self, global_sd: Mapping[str, Tensor], cohort: Cohort) -> list[float]:
        squares = dict.fromkeys(cohort.own, 0.0)
        for block in cohort.blocks:
            for chunk in block.chunks:
                old = chunk.read(global_sd).to(torch.float64)
                for i in squares:
                    if i in block.members:
                        change = chunk.read(cohort.own[i].state) - old
                        squares[i] += float(torch.dot(change, change))
        everyone = {i: square for part in cohort.comm.gather(squares) for i, square in part.items()}
        return [everyone[i] ** 0.5 for i in range(len(cohort.headers))]


def shares_of(examples: Sequence[int], weighting: str) -> list[float]:
    """Shares that sum to 1, by number of samples or equal."""
    counts = [float(count) if weighting == "examples" else 1.0 for count in examples]
    return [count / sum(counts) for count in counts]
