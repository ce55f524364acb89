"""The tensors of a module's state without its state dict: the same ones, whatever happens to the layers."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations
from torchmetrics import MeanMetric

from zoo.training.state_tensors import StateTensors


class Odd(nn.Module):
    """A shared layer, a buffer that is not stored, and one that is."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(2, 3)
        self.again = self.first
        self.norm = nn.BatchNorm1d(3)
        self.mean = MeanMetric()
        self.held = nn.ParameterList([nn.Parameter(torch.ones(2))])
        self.register_buffer("mask", torch.tensor([float("-inf")]), persistent=False)
        self.register_buffer("level", torch.tensor(1.0))
        self.register_parameter("none", None)


def same(module: nn.Module, state: StateTensors) -> None:
    names, tensors = state.get()
    wanted = {k: v for k, v in module.state_dict(keep_vars=True).items() if isinstance(v, torch.Tensor)}
    assert names == list(wanted)
    pairs = zip(names, tensors, wanted.values(), strict=True)
    assert all(a is b or (name.startswith("mean.") and torch.equal(a, b)) for name, a, b in pairs)


def grow(module: Odd) -> None:
    module.last = nn.Linear(3, 3)


def shrink(module: Odd) -> None:
    del module.norm


def replace_layer(module: Odd) -> None:
    module.norm = nn.BatchNorm1d(3)


def replace_buffer(module: Odd) -> None:
    module.level = torch.tensor(2.0)


def replace_parameter(module: Odd) -> None:
    module.first.weight = nn.Parameter(torch.zeros(3, 2))


def drop_parameter(module: Odd) -> None:
    module.first.bias = None


def store_the_mask(module: Odd) -> None:
    module.register_buffer("mask", module.mask, persistent=True)


def hook(module: Odd) -> None:
    def drop(module: nn.Module, held: dict[str, torch.Tensor], prefix: str, about: object) -> None:
        held.pop("level")

    module.norm = nn.BatchNorm1d(3)
    module._register_state_dict_hook(drop)


def extra(module: Odd) -> None:
    module.last = type("Extra", (nn.Linear,), {"get_extra_state": lambda self: {"a": 1}})(2, 2)


def keep_counts(module: Odd) -> None:
    module.mean = MeanMetric()
    module.mean.persistent(True)


def parametrise(module: Odd) -> None:
    parametrizations.weight_norm(module.first)


CHANGES = [
    grow, shrink, replace_layer, replace_buffer, replace_parameter, drop_parameter, store_the_mask, hook, extra,
    keep_counts, parametrise,
]  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_changes_of_layers_are_noticed(change: Callable[[Odd], None]) -> None:
    module = Odd()
    state = StateTensors(module)
    same(module, state)
    assert state.plain
    change(module)
    same(module, state)
    same(module, state)
    assert state.plain == (change not in (hook, extra, keep_counts))


def test_names_stay_one_list_while_nothing_changes() -> None:
    module = Odd()
    state = StateTensors(module)
    names = state.get()[0]
    replace_buffer(module)
    assert state.get()[0] is names
