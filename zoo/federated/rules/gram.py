"""Rules that need the distances between updates: from the Gram matrix of d_k = w_k - w_t, summed over columns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from zoo.errors import BadInput
from zoo.federated.rules.base import Rule, register_rule
from zoo.federated.rules.cohort import Block, Chunk, Cohort
from zoo.federated.rules.columns import closest_mean
from zoo.federated.rules.mean import shares_of
from zoo.federated.rules.options import above, at_least, one_of
from zoo.federated.rules.updates import RoundContext, StateDict

__all__ = ["Bulyan", "GeometricMedian", "GramRule", "Krum", "MultiKrum"]


class GramRule(Rule):
    """A weighted mean whose weights follow from the distances between the updates.

    Args:
        options: of `Rule`.
    """

    def choose(self, gram: Tensor, examples: list[int]) -> list[float]:
        """Weight of each client, summing to 1.

        Args:
            gram: float64 (K, K), d_i . d_j.
            examples: training samples of each client.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement choose()")

    def combine(
        self, global_sd: Mapping[str, Tensor], cohort: Cohort, ctx: RoundContext, state: dict[str, Any]
    ) -> tuple[StateDict, dict[str, float]]:
        """Choose per block, then sum."""
        new: StateDict = {}
        mean = [0.0] * len(cohort.headers)
        for block in cohort.blocks:
            chosen = self.choose(gram_of(global_sd, cohort, block), [cohort.examples[i] for i in block.members])
            weights = dict(zip(block.members, chosen, strict=True))
            results = cohort.empty(global_sd, block.keys)
            for chunk in block.chunks:
                chunk.write(results, cohort.total(chunk, weights))
            new |= results
            for i, weight in weights.items():
                mean[i] += weight * block.width / sum(each.width for each in cohort.blocks)
        return new, {f"weight/{client}": weight for client, weight in zip(cohort.ids, mean, strict=True)}


@register_rule("krum")
class Krum(GramRule):
    """Krum (Blanchard et al. 2017): the update with the least sum of squared distances to its n - f - 2 nearest others.

    Ties go to the least sum of all distances, then to the lowest number.

    Args:
        byzantine: f, clients that may send anything; n >= 2f + 3.
        neighbours: count these instead of n - f - 2.
        options: of `Rule`.
    """

    name: ClassVar[str] = "krum"

    def __init__(self, *, byzantine: int = 1, neighbours: int | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.byzantine = at_least("byzantine", byzantine, 0)
        self.neighbours = None if neighbours is None else at_least("neighbours", neighbours, 1)

    def check(self, clients: int) -> None:
        """N >= 2f + 3, and more clients than neighbours.

        Raises:
            BadInput: if not.
        """
        enough(self.name, clients, 2 * self.byzantine + 3, f"2f + 3, f = byzantine = {self.byzantine}")
        if self.neighbours is not None:
            enough(self.name, clients, self.neighbours + 1, f"neighbours + 1, neighbours = {self.neighbours}")

    def order(self, gram: Tensor) -> list[int]:
        """Clients by score, best first."""
        return krum_order(distances(gram), self.neighbours or len(gram) - self.byzantine - 2)

    def choose(self, gram: Tensor, examples: list[int]) -> list[float]:
        """1 for the best, 0 for the others."""
        best = self.order(gram)[0]
        return [float(i == best) for i in range(len(gram))]


@register_rule("multi-krum")
class MultiKrum(Krum):
    """Multi-Krum (Blanchard et al. 2017): the mean of the `select` updates with the best Krum scores.

    Args:
        select: how many; None: n - f.
        weighting: "uniform" or "examples"; numbers of samples are the clients' own word.
        options: of `Krum`.
    """

    name: ClassVar[str] = "multi-krum"

    def __init__(self, *, select: int | None = None, weighting: str = "uniform", **options: Any) -> None:
        super().__init__(**options)
        self.select = None if select is None else at_least("select", select, 1)
        self.weighting = one_of("weighting", weighting, "uniform", "examples")

    def check(self, clients: int) -> None:
        """As Krum, and no more selected than there are.

        Raises:
            BadInput: if not.
        """
        super().check(clients)
        if self.select is not None:
            enough(self.name, clients, self.select, f"select = {self.select}")

    def choose(self, gram: Tensor, examples: list[int]) -> list[float]:
        """Equal or by samples for the selected, 0 for the others."""
        chosen = self.order(gram)[: self.select or len(gram) - self.byzantine]
        shares = dict(zip(chosen, shares_of([examples[i] for i in chosen], self.weighting), strict=True))
        return [shares.get(i, 0.0) for i in range(len(gram))]


@register_rule("geometric-median")
class GeometricMedian(GramRule):
    """The point with the least sum of distances to the updates (Pillutla et al. 2022), by smoothed Weiszfeld steps.

    z = sum_k b_k w_k / sum_k b_k, b_k = p_k / max(smoothing, |w_k - z|), from z = w_t on.

    Args:
        smoothing: least distance, in the unit of the weights.
        iterations: at most so many.
        tolerance: stop when no weight changes by more.
        weighting: p_k: "uniform" or "examples"; numbers of samples are the clients' own word.
        options: of `Rule`.
    """

    name = "geometric-median"

    def __init__(
        self,
        *,
        smoothing: float = 1e-6,
        iterations: int = 100,
        tolerance: float = 1e-10,
        weighting: str = "uniform",
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.smoothing, self.iterations = above("smoothing", smoothing, 0), at_least("iterations", iterations, 1)
        self.tolerance = above("tolerance", tolerance, -1)
        self.weighting = one_of("weighting", weighting, "uniform", "examples")

    def choose(self, gram: Tensor, examples: list[int]) -> list[float]:
        """b_k / sum of b: the distances to z = sum_k a_k d_k need the Gram matrix only."""
        prior = torch.tensor(shares_of(examples, self.weighting), dtype=torch.float64)
        weights = torch.zeros_like(prior)
        for _ in range(self.iterations):
            along = gram @ weights
            squares = gram.diagonal() - 2 * along + weights @ along
            pull = prior / squares.clamp(min=0).sqrt().clamp(min=self.smoothing)
            last, weights = weights, pull / pull.sum()
            if float((weights - last).abs().max()) <= self.tolerance:
                break
        return weights.tolist()


@register_rule("bulyan")
class Bulyan(Rule):
    """Bulyan (El Mhamdi et al. 2018): n - 2f updates chosen by Krum, then a mean around their median per coordinate.

    Per coordinate, the n - 4f chosen values closest to the median of the chosen ones are averaged.

    Args:
        byzantine: f, clients that may send anything; n >= 4f + 3.
        selection: "repeated" (the paper: Krum again and again, each time without those already chosen) or "once" (the
            n - 2f best of one Multi-Krum, as Flower does).
        options: of `Rule`.
    """

    name = "bulyan"

    def __init__(self, *, byzantine: int = 1, selection: str = "repeated", **options: Any) -> None:
        super().__init__(**options)
        self.byzantine = at_least("byzantine", byzantine, 0)
        self.selection = one_of("selection", selection, "repeated", "once")

    def check(self, clients: int) -> None:
        """N >= 4f + 3.

        Raises:
            BadInput: if not.
        """
        enough(self.name, clients, 4 * self.byzantine + 3, f"4f + 3, f = byzantine = {self.byzantine}")

    def chosen(self, gram: Tensor) -> list[int]:
        """Positions of the n - 2f clients, sorted."""
        squares, count, f = distances(gram), len(gram), self.byzantine
        if self.selection == "once":
            return sorted(krum_order(squares, count - f - 2)[: count - 2 * f])
        left = list(range(count))
        picked: list[int] = []
        while len(picked) < count - 2 * f:
            best = krum_order(squares[left][:, left], max(1, len(left) - f - 2))[0] if len(left) > 1 else 0
            picked.append(left.pop(best))
        return sorted(picked)

    def combine(
        self, global_sd: Mapping[str, Tensor], cohort: Cohort, ctx: RoundContext, state: dict[str, Any]
    ) -> tuple[StateDict, dict[str, float]]:
        """Choose per block, then coordinate by coordinate."""
        new: StateDict = {}
        shares = [0.0] * len(cohort.headers)
        for block in cohort.blocks:
            rows = self.chosen(gram_of(global_sd, cohort, block))
            few = Block(block.keys, tuple(block.members[row] for row in rows), block.chunks)
            count = len(block.members) - 4 * self.byzantine

            def middle(values: Tensor, chunk: Chunk, count: int = count) -> Tensor:
                return closest_mean(values, count)

            new |= cohort.by_columns(global_sd, few, middle)
            for i in few.members:
                shares[i] += block.width / sum(each.width for each in cohort.blocks)
        return new, {f"selected/{client}": share for client, share in zip(cohort.ids, shares, strict=True)}


def gram_of(global_sd: Mapping[str, Tensor], cohort: Cohort, block: Block) -> Tensor:
    """Float64 (K, K) of d_i . d_j over a block, in every process.

    From the current global model, not from zero: updates lie close together, and far from zero the small differences
    between them would be lost.
    """
    gram = torch.zeros(len(block.members), len(block.members), dtype=torch.float64)
    for chunk in block.chunks:
        span = cohort.comm.span(chunk.width)
        changes = cohort.columns(block, chunk) - chunk.read(global_sd)[span]
        gram += changes @ changes.T
    gram = cohort.comm.sum(gram)
    return (gram + gram.T) / 2


def distances(gram: Tensor) -> Tensor:
    """Squared distances (K, K); what is below the rounding error of the subtraction is 0, so that duplicates tie."""
    norms = gram.diagonal()
    whole = norms[:, None] + norms[None]
    squares = whole - 2 * gram
    return torch.where(squares < 64 * torch.finfo(gram.dtype).eps * whole, 0.0, squares)


def krum_order(squares: Tensor, neighbours: int) -> list[int]:
    """Rows by the sum of their `neighbours` least squared distances to others.

    Two updates that are each other's only counted neighbour tie; the sum of all distances then decides, and after it
    the position, so that only equal updates depend on the numbers of clients.
    """
    others = squares.clone().fill_diagonal_(float("inf")).sort(1).values[:, :-1]
    sums = torch.stack([others[:, :neighbours].sum(1), others.sum(1)])
    # sums in another order (over ranks) differ in the last digits, and must not break ties
    scores = (sums / sums.amax(1, keepdim=True).clamp(min=1e-300) * 1e12).round().tolist()
    return sorted(range(len(squares)), key=lambda row: (scores[0][row], scores[1][row], row))


def enough(rule: str, clients: int, least: int, why: str) -> None:
    """Refuse a round with fewer clients than a rule needs."""
    if clients < least:
        raise BadInput(
            f"{rule} needs at least {least} clients per round ({why}), and {clients} sent an update. Lower the option "
            "or let more clients take part."
        )
