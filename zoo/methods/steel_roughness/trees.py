"""Gradient-boosted trees as a regressor: XGBoost grows them, tensors hold and evaluate them."""

from __future__ import annotations

import json
from typing import Any

import torch
from torch import Tensor, nn

from zoo.errors import require
from zoo.methods.steel_roughness.regressor import Gather, Regressor, Sections, Sum

__all__ = ["Trees", "section_statistics"]


def section_statistics(signal: Tensor) -> Tensor:
    """What trees read: per detector mean, standard deviation, lag-1 and lag-4 correlation, 5 %, 50 % and 95 % quantile.

    Args:
        signal: (B, C, L).

    Returns:
        (B, 7 C).
    """
    mean = signal.mean(2, keepdim=True)
    centred = signal - mean
    variance = centred.square().mean(2).clamp(min=1e-8)
    lags = [(centred[:, :, k:] * centred[:, :, :-k]).mean(2) / variance for k in (1, 4)]
    ordered = signal.sort(2).values
    last = signal.shape[2] - 1
    ranks = [ordered[:, :, round(q * last)] for q in (0.05, 0.5, 0.95)]
    return torch.cat([mean.squeeze(2), variance.sqrt(), *lags, *ranks], 1)


class Trees(Regressor):
    """Gradient-boosted trees on statistics of the signal; XGBoost grows them, tensors hold and evaluate them.

    So the weights are ordinary numbers, and predicting needs no XGBoost.

    Args:
        targets: T.
        rounds: trees per target.
        depth: of a tree.
        rate: learning rate.
        seed: of the subsampling.
    """

    least_length = 5  # for the lag-4 correlation

    def __init__(self, targets: int, rounds: int, depth: int, rate: float, seed: int = 0) -> None:
        super().__init__()
        self.targets, self.rounds, self.depth, self.rate, self.seed = targets, rounds, depth, rate, seed
        nodes = torch.zeros(targets, 1, 1)
        self.trees = nn.Module()
        self.trees.register_buffer("feature", nodes.long())
        self.trees.register_buffer("threshold", nodes.clone())
        self.trees.register_buffer("branches", torch.zeros(targets, 1, 1, 2, dtype=torch.int64))
        self.trees.register_buffer("leaf", nodes.clone())
        self._seen: list[tuple[Tensor, Tensor, Tensor]] = []

    def forward(self, signal: Tensor, meta: Tensor | None = None) -> Tensor:
        """Scores (B, T): each tree is descended by all sections at once."""
        rows = section_statistics(signal)
        held: Any = self.trees
        targets, count, _ = held.feature.shape
        at = torch.zeros(rows.shape[0], targets, count, 1, dtype=torch.int64, device=rows.device)

        def of(values: Tensor) -> Tensor:
            return values.expand(rows.shape[0], -1, -1, -1).gather(3, at)

        wide = rows[:, None, None].expand(-1, targets, count, -1)
        for _ in range(self.depth):
            right = (wide.gather(3, of(held.feature)) >= of(held.threshold)).long()
            both = torch.cat([of(held.branches[..., 0]), of(held.branches[..., 1])], 3)
            at = both.gather(3, right)
        return of(held.leaf).sum((2, 3))

    def collect(self, sections: Sections) -> None:
        """Keep the statistics of each section."""
        assert sections.wanted is not None
        rows = section_statistics(sections.signal).float().cpu()
        self._seen.append((sections.index.cpu(), rows, sections.wanted.float().cpu()))

    def solve(self, total: Sum, gather: Gather) -> dict[str, Tensor]:
        """Grow the trees; every rank grows the same ones from the statistics of all."""
        require("xgboost", "sequence")
        import xgboost

        seen = [part for rank in gather(self._seen) for part in rank]
        self._seen = []
        index, rows, scores = (torch.cat(parts) for parts in zip(*seen, strict=True))
        order = index.argsort()
        rows, scores = rows[order], scores[order]
        given = {
            "objective": "reg:squarederror",
            "max_depth": self.depth,
            "eta": self.rate,
            "subsample": 0.8,
            "colsample_bytree": 0.5,
            "min_child_weight": 2,
            "base_score": 0.0,
            "tree_method": "hist",
            "nthread": 1,
            "seed": self.seed,
        }
        grown = []
        for k in range(self.targets):
            table = xgboost.DMatrix(rows.numpy(), scores[:, k].numpy())
            booster = xgboost.train(given, table, self.rounds)
            grown.append([flatten(json.loads(text)) for text in booster.get_dump(dump_format="json")])
        return {f"trees.{name}": value for name, value in stack_trees(grown).items()}

    def collected(self) -> dict[str, Any]:
        """The statistics so far."""
        return {"seen": [list(part) for part in self._seen]}

    def restore(self, state: dict[str, Any]) -> None:
        """Take back what `collected` returned."""
        self._seen = [(part[0], part[1], part[2]) for part in state["seen"]]


_Node = tuple[int, float, int, int, float]


def flatten(root: dict[str, Any]) -> list[_Node]:
    """A tree of XGBoost's JSON as rows (feature, threshold, left, right, leaf); leaves lead back to themselves."""
    rows: dict[int, _Node] = {}
    waiting = [root]
    while waiting:
        node = waiting.pop()
        number = int(node["nodeid"])
        if "leaf" in node:
            rows[number] = (0, 0.0, number, number, float(node["leaf"]))
        else:
            rows[number] = (int(node["split"][1:]), float(node["split_condition"]), node["yes"], node["no"], 0.0)
            waiting += node["children"]
    # numbers have gaps where a node was pruned
    place = {number: i for i, number in enumerate(sorted(rows))}
    return [(f, t, place[a], place[b], leaf) for _, (f, t, a, b, leaf) in sorted(rows.items())]


def stack_trees(grown: list[list[list[_Node]]]) -> dict[str, Tensor]:
    """Rows of all trees of all targets as tensors (T, trees, nodes), filled up with nodes that nothing leads to."""
    most = max(len(tree) for target in grown for tree in target)
    filled = [[tree + [(0, 0.0, 0, 0, 0.0)] * (most - len(tree)) for tree in target] for target in grown]

    def column(i: int, kind: torch.dtype) -> Tensor:
        return torch.tensor([[[node[i] for node in tree] for tree in target] for target in filled], dtype=kind)

    children = torch.stack([column(2, torch.int64), column(3, torch.int64)], 3)
    return {
        "feature": column(0, torch.int64),
        "threshold": column(1, torch.float32),
        "branches": children,
        "leaf": column(4, torch.float32),
    }
