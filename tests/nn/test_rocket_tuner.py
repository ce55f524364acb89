"""The run that tunes kernels: its stages, what it keeps and goes back to, and what a resumed run is told."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import nn

from zoo.nn.ridge import RidgeHead
from zoo.nn.rocket import Rocket, RocketTuner


class Owner(nn.Module):
    """Kernels, head and a temperature, to which each beginning of tuning adds 1."""

    def __init__(self, epochs: int = 3, **options: Any) -> None:
        super().__init__()
        self.rocket = Rocket(4, 20, pooling="soft", trainable=True)
        self.head = RidgeHead(8, 2, trainable=True)
        self.register_buffer("temperature", torch.zeros(()))
        self.temperature: torch.Tensor
        self.tuner = RocketTuner(self, epochs, 0.1, **{"kept_with_head": ("temperature",), **options})

    def begin_tuning(self) -> None:
        self.temperature.add_(1)

    def move(self, by: float = 1.0) -> None:
        """What a training step does to the kernels."""
        with torch.no_grad():
            self.rocket.weights.add_(by)
            self.head.weight.add_(by)


def run(owner: Owner, losses: list[float], first: int = 0, steps: int = 2) -> list[str]:
    """An epoch per validation loss, in which tuning moves the kernels by 1 a step; the stages."""
    seen = []
    for epoch, loss in enumerate(losses, first):
        for _ in range(steps):
            stage = owner.tuner.enter(epoch)
            if stage == "tune":
                owner.move()
        seen.append(stage)
        owner.tuner.finish_epoch()
        owner.tuner.consider(loss, last=False)
    return seen


def test_stages_follow_each_other() -> None:
    owner = Owner()
    assert run(owner, [5.0, 4.0, 3.0, 2.0, 1.0, 1.0]) == ["solve", "tune", "tune", "tune", "resolve", "done"]
    assert float(owner.temperature) == 1, "prepared once"


def test_without_epochs_of_tuning_every_epoch_solves() -> None:
    owner = Owner(0)
    assert run(owner, [5.0] * 3) == ["solve"] * 3
    assert owner.tuner.start == {}


def test_patience_ends_tuning() -> None:
    # what an epoch brought is known after its validation, when the next one has been chosen
    assert run(Owner(9, patience=1), [5.0, 4.0, 4.5, 4.6, 4.7, 1.0]) == ["solve", *["tune"] * 3, "resolve", "done"]
    assert run(Owner(9, patience=1), [5.0, 4.0, 3.0, 2.0, 1.0]) == ["solve", *["tune"] * 4]


@pytest.mark.parametrize(("best", "moves"), [(0, 0), (2, 4), (3, 6)])
def test_the_best_model_remains(best: int, moves: int) -> None:
    owner = Owner()
    start = copy.deepcopy(owner.state_dict())
    losses = [5.0] * 5
    losses[best] = 1.0
    run(owner, losses)
    torch.testing.assert_close(owner.rocket.weights, start["rocket.weights"] + moves)
    torch.testing.assert_close(owner.head.weight, start["head.weight"] + moves)
    assert float(owner.temperature) == (1 if best else 0), "what belongs to a model comes back with it"


def test_a_model_whose_loss_is_nan_is_never_the_best() -> None:
    owner = Owner(1)
    start = owner.rocket.weights.detach().clone()
    assert owner.tuner.consider(math.nan, last=False) is False
    run(owner, [5.0, math.nan, math.nan])
    assert torch.equal(owner.rocket.weights, start)


def test_equal_losses_keep_the_earlier_model_and_are_unbeaten() -> None:
    owner = Owner()
    before = owner.rocket.weights.detach().clone()
    assert owner.tuner.consider(2.0, last=False)
    owner.move()
    assert owner.tuner.consider(2.0, last=False)
    assert not owner.tuner.consider(3.0, last=True)
    assert torch.equal(owner.rocket.weights, before)


def test_a_run_that_is_cut_short_keeps_its_best_model() -> None:
    owner = Owner(9)
    run(owner, [5.0, 4.0])
    best = owner.rocket.weights.detach().clone()
    owner.tuner.enter(2)
    owner.move()
    owner.tuner.consider(9.0, last=True)
    assert torch.equal(owner.rocket.weights, best)


@pytest.mark.parametrize(("for_best", "moves"), [(True, 2), (False, 6)])
def test_the_head_is_solved_for_the_best_or_the_last_kernels(for_best: bool, moves: int) -> None:
    owner = Owner(solve_for_best=for_best)
    start = owner.rocket.weights.detach().clone()
    run(owner, [5.0, 1.0, 2.0, 3.0])
    assert owner.tuner.enter(4) == "resolve"
    torch.testing.assert_close(owner.rocket.weights, start + moves)


def test_distance_is_that_from_where_tuning_began() -> None:
    owner = Owner()
    owner.move(7.0)
    run(owner, [5.0, 4.0])
    with torch.no_grad():
        owner.rocket.biases[0] += 3
    distance = owner.tuner.distance()
    assert float(distance.detach()) == pytest.approx(4 * owner.rocket.weights.numel() + 9, rel=1e-5)
    distance.backward()
    torch.testing.assert_close(owner.rocket.weights.grad, torch.full_like(owner.rocket.weights, 4.0))


def test_frozen_parts_are_not_optimised() -> None:
    owner = Owner()
    for parameter in owner.rocket.parameters():
        parameter.requires_grad_(False)
    (group,) = owner.tuner.optimizer(1.0, 0.5).param_groups
    assert group["lr"] == 0.5
    assert [id(p) for p in group["params"]] == [id(p) for p in owner.head.parameters()]


def test_another_run_begins_at_the_first_stage() -> None:
    owner = Owner()
    run(owner, [5.0, 1.0, 2.0, 3.0, 4.0])
    assert run(owner, [5.0] * 5) == ["solve", "tune", "tune", "tune", "resolve"]
    assert owner.tuner.best_loss == 5.0, "the other run may have had other data"


@pytest.mark.parametrize("epoch", range(6))
def test_a_resumed_run_goes_on_where_it_was(epoch: int) -> None:
    losses = [5.0, 4.0, 2.0, 3.0, 2.5, 2.5]
    whole, first = Owner(), Owner()
    run(whole, losses)
    run(first, losses[:epoch])
    second = Owner()
    second.load_state_dict(first.state_dict())
    second.tuner.load_state(first.tuner.state())
    run(second, losses[epoch:], epoch)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name
    assert whole.tuner.best_loss == second.tuner.best_loss


@pytest.mark.parametrize(("epoch", "stage"), [(1, "tune"), (3, "tune"), (4, "resolve")])
def test_states_that_lack_the_stage_are_read(epoch: int, stage: str) -> None:
    """Earlier checkpoints of one of the methods hold no more than this."""
    old, new = Owner(solve_for_best=False), Owner(solve_for_best=False)
    run(old, [5.0, 4.0, 3.0, 2.0][:epoch])
    new.load_state_dict(old.state_dict())
    new.tuner.load_state({key: old.tuner.state()[key] for key in ("start", "best", "best_loss")})
    assert new.tuner.enter(epoch) == old.tuner.enter(epoch) == stage
    assert new.tuner.tuned == old.tuner.tuned
    assert new.tuner.best_loss == old.tuner.best_loss
    assert float(new.temperature) == 1, "prepared in the epoch in which tuning begins, and only there"
