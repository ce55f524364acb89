"""Ridge regression in closed form, its penalty chosen by leave-one-out errors, in float64, streamed and over ranks.

With F the standardised features (M, D) and Y the centred targets (M, K), for each penalty a of a grid

    w = (F'F + a I)^-1 F'Y                        primal, from sums over series          -> _Primal
      = F' (F F' + a I)^-1 Y                      dual, when there are fewer series      -> _Dual
    h_j = 1/M + f_j' (F'F + a I)^-1 f_j           leverage of series j; 1/M is the intercept's
    e_j = (y_j - f_j' w) / (1 - h_j)              its error when it is left out
    loo(a) = mean e_j^2                           the penalty with the smallest one is taken
    gcv(a) = (RSS / M) / (1 - mean h)^2           generalised cross-validation: needs sums alone

One eigendecomposition serves all penalties. As long as there are fewer series than features, features of all series are
kept (they take less room than a Gram matrix) and the dual is exact leave-one-out in one pass. Beyond that only sums are
kept: one pass gives the gcv choice, and a second pass over the same series turns it into exact leave-one-out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from zoo.errors import BadInput

__all__ = ["ALPHAS", "Ridge", "RidgeFit", "RidgeHead"]

ALPHAS = tuple(float(10 ** (-3 + 6 * i / 9)) for i in range(10))
"""Penalties that are tried: logspace(-3, 3, 10)."""

Gather = Callable[[Any], list[Any]]
Sum = Callable[[Tensor], Tensor]


@dataclass
class RidgeFit:
    """A solution: scores are `(features - mean) / scale @ weight + bias`. All float64.

    Attributes:
        mean: (D,) of the training features.
        scale: (D,) their standard deviations; 1 where they do not vary.
        weight: (D, K).
        bias: (K,), mean of the training targets.
        alpha: the penalty.
        errors: (A,) criterion of each penalty of the grid, in the targets' unit squared.
        exact: whether the criterion is leave-one-out, or its generalised form.
        left_out: (M, K) scores of each training series when it is left out, in order of their index; dual form only.
        targets: (M, K) beside them.
    """

    mean: Tensor
    scale: Tensor
    weight: Tensor
    bias: Tensor
    alpha: float
    errors: Tensor
    exact: bool
    left_out: Tensor | None = None
    targets: Tensor | None = None


class Ridge:
    """Takes in batches of features and solves.

    Args:
        features: D.
        targets: K.
        alphas: penalties to choose from.
        most_rows: series whose features are kept for the dual form; D if None.
    """

    def __init__(
        self, features: int, targets: int, alphas: Sequence[float] = ALPHAS, most_rows: int | None = None
    ) -> None:
        if not alphas or min(alphas) <= 0:
            raise BadInput(f"alphas must be positive numbers, got {list(alphas)}.")
        self.features, self.targets, self.alphas = features, targets, [float(a) for a in alphas]
        self.most_rows = features if most_rows is None else most_rows
        self.clear()

    def clear(self) -> None:
        """Forget all series, and the factors of an earlier pass."""
        self.rows: list[tuple[Tensor, Tensor, Tensor]] = []
        self.count = 0
        self.sums: dict[str, Tensor] | None = None
        self.primal: _Primal | None = None
        self.errors: Tensor | None = None

    def add(self, features: Tensor, targets: Tensor, index: Tensor) -> None:
        """Take in a batch.

        Args:
            features: float (B, D).
            targets: float (B, K).
            index: int (B,), the series' numbers: they fix the order in which ranks are joined.

        Raises:
            BadInput: for other shapes, or values that are not finite.
        """
        if features.shape != (len(index), self.features) or targets.shape != (len(index), self.targets):
            raise BadInput(
                f"Expected features (B, {self.features}) and targets (B, {self.targets}) of {len(index)} series, got "
                f"{tuple(features.shape)} and {tuple(targets.shape)}."
            )
        finite = features.isfinite().all(1) & targets.isfinite().all(1)
        if not bool(finite.all()):
            raise BadInput(f"Series {int(index[~finite][0])} has features or targets that are not finite numbers.")
        self.count += len(index)
        if self.primal is not None:
            self._second_pass(features, targets)
            return
        row = (features.detach().float().cpu(), targets.detach().double().cpu(), index.detach().cpu())
        if self.sums is None and self.count <= self.most_rows:
            self.rows.append(row)
            return
        self._to_sums()
        self._add_sums(row[0], row[1])

    def solve(self, gather: Gather = lambda value: [value], total: Sum = lambda value: value) -> RidgeFit:
        """Solve for what all ranks have taken in. All ranks must call it; each gets the same solution.

        Args:
            gather: value of this rank -> those of all ranks, on each rank.
            total: tensor of this rank -> sum over the ranks.

        Raises:
            BadInput: with fewer than two series.
        """
        count = int(total(torch.tensor(self.count)))
        if count < 2:
            raise BadInput(f"Ridge regression needs at least 2 series, got {count}.")
        if self.primal is not None:
            return self._finish(count, total)
        if self.sums is None and count <= self.most_rows:
            parts = [row for rank in gather(self.rows) for row in rank]
            features, targets, index = (torch.cat([p[i] for p in parts]) for i in range(3))
            order = index.argsort(stable=True)
            self.rows, self.count = [], 0
            return _solve_dual(features[order], targets[order], self.alphas)
        self._to_sums()
        assert self.sums is not None
        sums = {name: total(value) for name, value in sorted(self.sums.items())}
        self.primal = _Primal(sums, count, self.alphas)
        self.sums, self.count = None, 0
        return self.primal.fit(self.primal.gcv(), exact=False)

    def _to_sums(self) -> None:
        if self.sums is not None:
            return
        d, k = self.features, self.targets
        shapes = {"ff": (d, d), "fy": (d, k), "f": (d,), "y": (k,), "yy": (k,)}
        self.sums = {name: torch.zeros(shape, dtype=torch.float64) for name, shape in shapes.items()}
        for features, targets, _ in self.rows:
            self._add_sums(features, targets)
        self.rows = []

    def _add_sums(self, features: Tensor, targets: Tensor) -> None:
        assert self.sums is not None
        features = features.double()
        self.sums["ff"].addmm_(features.T, features)
        self.sums["fy"].addmm_(features.T, targets)
        self.sums["f"] += features.sum(0)
        self.sums["y"] += targets.sum(0)
        self.sums["yy"] += targets.square().sum(0)

    def _second_pass(self, features: Tensor, targets: Tensor) -> None:
        assert self.primal is not None
        errors = self.primal.left_out_errors(features.detach().double().cpu(), targets.detach().double().cpu())
        self.errors = errors if self.errors is None else self.errors + errors

    def _finish(self, count: int, total: Sum) -> RidgeFit:
        assert self.primal is not None
        if count != self.primal.count:
            raise BadInput(f"The second pass had {count} series, the first one {self.primal.count}.")
        mine = self.errors if self.errors is not None else torch.zeros(len(self.alphas), dtype=torch.float64)
        errors = total(mine) / (count * self.targets)
        self.errors, self.count = None, 0
        return self.primal.fit(errors, exact=True)

    def state(self) -> dict[str, Any]:
        """What has been taken in, as tensors and plain values."""
        first = None if self.primal is None else self.primal.state()
        return {"rows": list(self.rows), "count": self.count, "sums": self.sums, "primal": first, "errors": self.errors}

    def load_state(self, state: dict[str, Any]) -> None:
        """Take back what `state` returned."""
        self.rows, self.count, self.sums = list(state["rows"]), state["count"], state["sums"]
        self.errors = state["errors"]
        first = state["primal"]
        self.primal = None if first is None else _Primal(first["sums"], first["count"], self.alphas)


def _scale(variance: Tensor, mean: Tensor) -> tuple[Tensor, Tensor]:
    """Standard deviations, 1 where features vary by less than rounding, and which ones do not."""
    varies = variance > 1e-12 * (1e-12 + mean.square())
    return torch.where(varies, variance.clamp(min=0).sqrt(), 1.0), varies


def _solve_dual(features: Tensor, targets: Tensor, alphas: Sequence[float]) -> RidgeFit:
    """Exact leave-one-out from the eigenvectors U of F F': all series' features at once."""
    rows = features.double()
    mean = rows.mean(0)
    rows -= mean
    scale, varies = _scale(rows.square().mean(0), mean)
    rows *= varies / scale
    bias = targets.mean(0)
    values, vectors = torch.linalg.eigh(rows @ rows.T)
    values = values.clamp(min=0)
    turned = vectors.T @ (targets - bias)
    grid = torch.tensor(alphas, dtype=torch.float64)
    # a / (s + a) instead of 1 - s / (s + a): for small penalties residual and 1 - h are tiny, and their ratio matters
    rest = grid[:, None] / (values + grid[:, None])
    residual = torch.einsum("jk,ak,kc->ajc", vectors, rest, turned)
    free = torch.einsum("jk,ak->aj", vectors.square(), rest) - 1 / len(rows)
    left = residual / free.clamp(min=1e-12)[..., None]
    errors = left.square().mean((1, 2))
    best = int(errors.argmin())
    weight = rows.T @ (vectors @ (turned / (values + grid[best])[:, None]))
    return RidgeFit(mean, scale, weight, bias, float(grid[best]), errors, True, targets - left[best], targets)


class _Primal:
    """Factors of F'F, from sums over all series."""

    def __init__(self, sums: dict[str, Tensor], count: int, alphas: Sequence[float]) -> None:
        self.sums, self.count = sums, count
        self.grid = torch.tensor(alphas, dtype=torch.float64)
        self.mean, self.bias = sums["f"] / count, sums["y"] / count
        centred = sums["ff"] - count * torch.outer(self.mean, self.mean)
        self.scale, varies = _scale(centred.diagonal() / count, self.mean)
        share = varies / self.scale
        moment = (sums["fy"] - count * torch.outer(self.mean, self.bias)) * share[:, None]
        values, self.vectors = torch.linalg.eigh(centred * torch.outer(share, share))
        self.values = values.clamp(min=0)
        self.turned = self.vectors.T @ moment
        self.total = sums["yy"] - count * self.bias.square()

    def state(self) -> dict[str, Any]:
        return {"sums": self.sums, "count": self.count}

    def gcv(self) -> Tensor:
        """Generalised cross-validation of each penalty."""
        inverse = 1 / (self.values + self.grid[:, None])
        power = self.turned.square()
        explained = 2 * inverse @ power - (inverse.square() * self.values) @ power
        residual = (self.total - explained).clamp(min=0).mean(1)
        leverage = 1 + (self.values * inverse).sum(1)
        return residual / self.count / (1 - leverage / self.count).clamp(min=1e-12).square()

    def left_out_errors(self, features: Tensor, targets: Tensor) -> Tensor:
        """Sum over a batch of squared leave-one-out errors, for each penalty."""
        turned = ((features - self.mean) / self.scale) @ self.vectors
        inverse = 1 / (self.values + self.grid[:, None])
        leverage = 1 / self.count + inverse @ turned.square().T
        fitted = torch.stack([turned @ (i[:, None] * self.turned) for i in inverse])
        left = (targets - self.bias - fitted) / (1 - leverage).clamp(min=1e-12)[..., None]
        return left.square().sum((1, 2))

    def fit(self, errors: Tensor, *, exact: bool) -> RidgeFit:
        """The solution of the best penalty."""
        best = int(errors.argmin())
        weight = self.vectors @ (self.turned / (self.values + self.grid[best])[:, None])
        return RidgeFit(self.mean, self.scale, weight, self.bias, float(self.grid[best]), errors, exact)


class RidgeHead(nn.Module):
    """A solution as a layer: scores (B, K) of features (B, D).

    Args:
        features: D.
        targets: K.
        trainable: whether weight and bias want gradients.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, features: int, targets: int, trainable: bool = False) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("scale", torch.ones(features))
        self.weight = nn.Parameter(torch.zeros(features, targets), requires_grad=trainable)
        self.bias = nn.Parameter(torch.zeros(targets), requires_grad=trainable)

    @staticmethod
    def values(fit: RidgeFit) -> dict[str, Tensor]:
        """A solution under the names of this layer's tensors, in float32."""
        return {name: getattr(fit, name).float() for name in ("mean", "scale", "weight", "bias")}

    def forward(self, features: Tensor) -> Tensor:
        """Scores."""
        return ((features - self.mean) / self.scale) @ self.weight + self.bias
