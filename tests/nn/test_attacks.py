"""Attacks: equations against slow references, and the promises of the module's docstring."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from toys.attacks import accuracy, data, network, trained

from zoo.errors import BadInput, UnknownName
from zoo.nn.attacks import (
    apgd,
    apgd_targeted,
    attack_mode,
    cw_margin,
    fgsm,
    input_gradient,
    pgd,
    square,
    transfer,
    uniform_noise,
)
from zoo.nn.attacks.auto_pgd import checkpoints
from zoo.nn.attacks.core import LOSSES
from zoo.nn.attacks.square_search import _bump, _pair, share

ATTACKS = {
    "fgsm": fgsm,
    "pgd": partial(pgd, steps=5),
    "pgd-best": partial(pgd, steps=5, keep="best", restarts=2),
    "cw": partial(cw_margin, steps=5),
    "apgd-ce": partial(apgd, steps=10, restarts=2),
    "apgd-dlr": partial(apgd, steps=10, loss="dlr"),
    "apgd-t": partial(apgd_targeted, steps=5, targets=2),
    "square": partial(square, queries=30),
    "noise": lambda model, x, y, **options: uniform_noise(x, **options),
}


@pytest.fixture(scope="module")
def victim() -> tuple[nn.Module, Tensor, Tensor]:
    _, _, x, y = data()
    return trained(), x[:24], y[:24]


# Losses -----------------------------------------------------------------------------------------------------------


def test_losses_equal_literal_sums() -> None:
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(6, 5, generator=generator, dtype=torch.float64)
    y = torch.tensor([0, 1, 2, 3, 4, 0])
    p = torch.rand(6, 5, generator=generator, dtype=torch.float64).softmax(1)
    p[0] = torch.tensor([1.0, 0, 0, 0, 0])  # 0 log 0 = 0
    for i in range(6):
        row, true = z[i].tolist(), int(y[i])
        total = sum(math.exp(v) for v in row)
        ordered = sorted(row, reverse=True)
        others = max(v for k, v in enumerate(row) if k != true)
        wanted = (true + 1) % 5
        expected = {
            "ce": -math.log(math.exp(row[true]) / total),
            "margin": others - row[true],
            "dlr": -(row[true] - others) / (ordered[0] - ordered[2]),
            "kl": sum(
                a * (math.log(a) - math.log(math.exp(v) / total)) for a, v in zip(p[i].tolist(), row, strict=True) if a
            ),
            "dlr-targeted": -(row[true] - row[wanted]) / (ordered[0] - (ordered[2] + ordered[3]) / 2),
        }
        for name, value in expected.items():
            target = {"kl": p[i : i + 1], "dlr-targeted": torch.tensor([[true, wanted]])}.get(name, y[i : i + 1])
            assert LOSSES[name](z[i : i + 1], target).item() == pytest.approx(value, abs=1e-9), name


def test_kl_of_one_hot_is_cross_entropy_even_for_certain_logits() -> None:
    z = torch.tensor([[40.0, -40.0, 3.0], [0.1, 0.2, 0.3]], requires_grad=True)
    y = torch.tensor([1, 2])
    one_hot = F.one_hot(y, 3).float()
    torch.testing.assert_close(LOSSES["kl"](z, one_hot), LOSSES["ce"](z, y))
    (grad,) = torch.autograd.grad(LOSSES["kl"](z, one_hot).sum(), z)
    assert grad.isfinite().all()


# PGD --------------------------------------------------------------------------------------------------------------


def reference_pgd(model: nn.Module, x: Tensor, y: Tensor, start: Tensor, eps: float, step: float, steps: int) -> Tensor:
    """One sample and one pixel at a time."""
    found = []
    for clean, label, begin in zip(x, y, start, strict=True):
        point = begin[None].clone()
        for _ in range(steps):
            leaf = point.clone().requires_grad_()
            grad = torch.autograd.grad(F.cross_entropy(model(leaf), label[None]), leaf)[0].flatten().tolist()
            values = []
            for now, slope, centre in zip(point.flatten().tolist(), grad, clean.flatten().tolist(), strict=True):
                moved = now + step * (0 if slope == 0 else math.copysign(1, slope))
                values.append(min(max(moved, centre - eps, 0.0), centre + eps, 1.0))
            point = torch.tensor(values, dtype=x.dtype).view_as(point)
        found.append(point[0])
    return torch.stack(found)


def test_pgd_equals_a_literal_loop(victim: tuple[nn.Module, Tensor, Tensor]) -> None:
    model, x, y = victim
    model, x, y = network(2).double().eval(), x[:4].double(), y[:4]
    start = uniform_noise(x, eps=0.1, seed=3)
    expected = reference_pgd(model, x, y, start, 0.1, 0.03, 4)
    found = pgd(model, x, y, eps=0.1, step=0.03, steps=4, seed=3)
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)


def test_l2_steps_have_the_length_asked_for() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(9, 3)).double()
    x = torch.full((2, 1, 3, 3), 0.5, dtype=torch.float64)
    y = torch.tensor([0, 1])
    found = pgd(model, x, y, eps=0.2, step=0.05, steps=1, norm="l2", start="none")
    grad = input_gradient(model, x, y)
    expected = x + 0.05 * grad / grad.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    torch.testing.assert_close(found, expected)
    far = pgd(model, x, y, eps=0.2, step=0.05, steps=10, norm="l2", start="none")
    torch.testing.assert_close((far - x).flatten(1).norm(dim=1), torch.full((2,), 0.2, dtype=torch.float64))


def test_training_costs_exactly_one_forward_and_one_input_backward_per_step() -> None:
    model = network(2).eval()
    passes, backward = [], []
    model.register_forward_hook(lambda *_: passes.append(1))
    model[0].register_full_backward_hook(lambda *_: backward.append(1))
    touched: list[int] = []
    for parameter in model.parameters():
        parameter.register_hook(lambda grad: touched.append(1))
    x, y = torch.rand(4, 1, 28, 28), torch.arange(4)
    pgd(model, x, y, eps=0.1, steps=7)
    assert (len(passes), len(backward), touched) == (7, 7, [])


def test_best_point_is_never_worse_than_the_last(victim: tuple[nn.Module, Tensor, Tensor]) -> None:
    model, x, y = victim
    options = {"eps": 0.12, "step": 0.06, "steps": 8}
    last, best = pgd(model, x, y, **options), pgd(model, x, y, keep="best", **options)
    with torch.no_grad():
        fooled_last, fooled = model(last).argmax(1) != y, model(best).argmax(1) != y
        loss_last, loss = (LOSSES["ce"](model(point), y) for point in (last, best))
    assert not (fooled_last & ~fooled).any()
    assert (loss >= loss_last - 1e-6)[~fooled].all()


def test_soft_targets_and_gaussian_start(victim: tuple[nn.Module, Tensor, Tensor]) -> None:
    model, x, _ = victim
    with torch.no_grad():
        p = model(x).softmax(1)
    found = pgd(model, x, p, eps=0.1, step=0.02, steps=10, loss="kl", start="gaussian")
    with torch.no_grad():
        before, after = LOSSES["kl"](model(x), p), LOSSES["kl"](model(found), p)
    assert (after > before).all()
    start = pgd(model, x, p, eps=0.1, steps=0, loss="kl", start="gaussian", noise=0.01)
    moved = (start - x)[(x > 0.1) & (x < 0.9)]
    assert moved.std().item() == pytest.approx(0.01, rel=0.1)


def test_a_given_start_and_a_given_loss(victim: tuple[nn.Module, Tensor, Tensor]) -> None:
    model, x, y = victim
    start = uniform_noise(x, eps=0.1, seed=5)
    torch.testing.assert_close(pgd(model, x, y, eps=0.1, seed=5), pgd(model, x, y, eps=0.1, start=start))
    wanted = (y + 1) % 10
    found = pgd(
        model, x, wanted, eps=0.5, steps=40, keep="best",
        loss=lambda z, t: -F.cross_entropy(z, t, reduction="none"), success=lambda z, t: z.argmax(1) == t,
    )  # fmt: skip
    assert accuracy(model, found, wanted) > 0.9


# What all share ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("name", ATTACKS)
def test_inside_ball_and_range(name: str, norm: str, victim: tuple[nn.Module, Tensor, Tensor]) -> None:
    model, x, y = victim
    eps = 0.1 if norm == "linf" else 1.0
    found = ATTACKS[name](model, x, y, eps=eps, norm=norm)
    delta = (found - x).flatten(1).double()
    distance = delta.abs().amax(1) if norm == "linf" else delta.norm(dim=1)
    assert distance.max() <= eps + 1e-6
    assert distance.min() > 0
    assert found.min() >= 0
    assert found.max() <= 1
    assert not found.requires_grad
    assert (found - x).abs().max() > 0.9 * eps if norm == "linf" else True


@pytest.mark.parametrize("name", ATTACKS)
def test_radius_zero_changes_nothing(name: str, victim: tuple[nn.Module, Tensor, Tensor]) -> None:
    model, x, y = victim
    torch.testing.assert_close(ATTACKS[name](model, x, y, eps=0.0), x, atol=0, rtol=0)


@pytest.mark.parametrize("name", ATTACKS)
def test_batch_size_and_order_change_nothing(name: str, victim: tuple[nn.Module, Tensor, Tensor]) -> None:
    """In double precision, where the rounding of differently shaped matrix products does not flip signs."""
    model, x, y = victim
    import copy

    model, x = copy.deepcopy(model).double(), x.double()
    index = torch.arange(100, 100 + len(x))
    whole = ATTACKS[name](model, x, y, eps=0.1, seed=7, index=index)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    parts = torch.empty_like(x)
    for rows in order.split(5):
        torch.manual_seed(int(rows[0]))  # the global generator must not matter
        parts[rows] = ATTACKS[name](model, x[rows], y[rows], eps=0.1, seed=7, index=index[rows])
    torch.testing.assert_close(parts, whole, atol=1e-9, rtol=0)
    if name != "fgsm":
        other = ATTACKS[name](model, x, y, eps=0.1, seed=8, index=index)
        assert (other - whole).abs().max() > 1e-3


@pytest.mark.parametrize("name", ATTACKS)
def test_leaves_no_trace_in_the_model(name: str, victim: tuple[nn.Module, Tensor, Tensor]) -> None:
    _, x, y = victim
    torch.manual_seed(0)
    model = nn.Sequential(network(2), nn.Dropout(0.5))
    model[0][0].weight.requires_grad_(False)
    model.train()
    model[0][1].eval()
    state = {k: v.clone() for k, v in model.state_dict().items()}
    modes = [part.training for part in model.modules()]
    needs = [p.requires_grad for p in model.parameters()]
    generator = torch.get_rng_state()
    with torch.inference_mode():
        found = ATTACKS[name](model, x * 1.0, y + 0, eps=0.1)
    assert (found - x).abs().max() > 0
    assert [part.training for part in model.modules()] == modes
    assert [p.requires_grad for p in model.parameters()] == needs
    assert all(p.grad is None for p in model.parameters())
    assert torch.equal(torch.get_rng_state(), generator)
    for key, value in model.state_dict().items():
        assert torch.equal(value, state[key]), key


def test_modes_come_back_after_an_error() -> None:
    class Broken(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise RuntimeError("broken")

    model = nn.Sequential(nn.Dropout(), Broken()).train()
    model[0].eval()
    with pytest.raises(RuntimeError, match="broken"):
        pgd(model, torch.rand(2, 3), torch.tensor([0, 1]), eps=0.1)
    assert [part.training for part in model.modules()] == [True, False, True]


def test_mode_keep_and_methods_of_modules() -> None:
    seen: list[bool] = []

    class Net(nn.Module):
        def logits(self, x: Tensor) -> Tensor:
            seen.append(self.training)
            return x[:, :3] * 2

        forward = logits

    model = Net().train()
    x, y = torch.rand(2, 4), torch.tensor([0, 1])
    pgd(model.logits, x, y, eps=0.1, steps=1)
    pgd(model, x, y, eps=0.1, steps=1, mode="keep")
    assert seen == [False, True]
    assert model.training
    with attack_mode(lambda x: x):
        assert torch.is_grad_enabled()


def test_inside_autocast_the_loss_stays_in_single_precision(victim: tuple[nn.Module, Tensor, Tensor]) -> None:
    model, x, y = victim
    types: list[torch.dtype] = []

    def loss(z: Tensor, target: Tensor) -> Tensor:
        types.append((z @ z.T).dtype)
        return F.cross_entropy(z, target, reduction="none")

    with torch.autocast("cpu", torch.bfloat16):
        found = pgd(model, x, y, eps=0.1, steps=3, loss=loss)
        logits = model(x)
    assert logits.dtype == torch.bfloat16
    assert set(types) == {torch.float32}
    assert found.dtype == torch.float32


def test_half_precision_inputs_come_back_in_single_precision(victim: tuple[nn.Module, Tensor, Tensor]) -> None:
    model, x, y = victim
    assert pgd(model, x.bfloat16(), y, eps=0.1, steps=1).dtype == torch.float32


# APGD -------------------------------------------------------------------------------------------------------------


def test_checkpoints_of_the_paper() -> None:
    assert checkpoints(100) == [22, 41, 57, 70, 80, 87, 93, 99]
    assert checkpoints(1) == [1]


def test_apgd_finds_the_maximum_of_a_concave_function() -> None:
    """f(x) = -|x - c|^2 with c inside the ball: the step must shrink to get there, a fixed one oscillates."""
    c = torch.tensor([[0.53, 0.46], [0.41, 0.57]], dtype=torch.float64)
    x = torch.full((2, 2), 0.5, dtype=torch.float64)
    row = torch.arange(2)

    def loss(z: Tensor, target: Tensor) -> Tensor:
        return -(z - c[target]).square().sum(1)

    options = {"eps": 0.1, "loss": loss, "success": lambda z, t: torch.zeros(len(z), dtype=torch.bool), "check": False}
    found = apgd(lambda x: x, x, row, steps=100, **options)
    assert (found - c).abs().max() < 1e-3
    assert (found - c).abs().max() < (pgd(lambda x: x, x, row, steps=100, step=0.2, **options) - c).abs().max()


def test_apgd_is_at_least_as_strong_as_pgd(victim: tuple[nn.Module, Tensor, Tensor]) -> None:
    model, _, _ = victim
    _, _, x, y = data()
    x, y = x[:200], y[:200]
    strong = accuracy(model, apgd(model, x, y, eps=0.1, steps=50), y)
    assert strong <= accuracy(model, pgd(model, x, y, eps=0.1, steps=50, keep="best"), y) + 0.005
    targeted = accuracy(model, apgd_targeted(model, x, y, eps=0.1, steps=20), y)
    assert targeted <= accuracy(model, apgd(model, x, y, eps=0.1, loss="dlr", steps=20), y) + 0.01


# Square -----------------------------------------------------------------------------------------------------------


def test_shares_of_the_paper() -> None:
    got = [share(i, 10_000) for i in (0, 10, 11, 50, 51, 201, 501, 1001, 2001, 4001, 6001, 8001)]
    assert got == [0.8 / 2**k for k in (0, 0, 1, 1, 2, 3, 4, 5, 6, 7, 8, 9)]


def test_bumps_have_unit_length_and_opposite_halves() -> None:
    for side in (3, 5, 9):
        pair = _pair(side)
        assert pair.shape == (side, side)
        assert pair.norm().item() == pytest.approx(1, abs=1e-6)
        assert (pair[: side // 2] > 0).all()
        assert (pair[side // 2 :] < 0).all()
    assert _bump(3, 3)[1, 1] == _bump(3, 3).max()


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_square_only_ever_lowers_the_margin(norm: str, victim: tuple[nn.Module, Tensor, Tensor]) -> None:
    model, x, y = victim
    eps = 0.08 if norm == "linf" else 0.8
    values = []
    with torch.no_grad():
        for queries in (1, 10, 100):
            values.append(LOSSES["margin"](model(square(model, x, y, eps=eps, norm=norm, queries=queries)), y))
    standing = values[1] < 0
    assert (values[1] >= values[0] - 1e-6)[standing].all()
    assert (values[2] >= values[1] - 1e-6)[values[2] < 0].all()
    assert values[2].mean() > values[0].mean()


def test_square_needs_no_gradient(victim: tuple[nn.Module, Tensor, Tensor]) -> None:
    model, x, y = victim

    def opaque(x: Tensor) -> Tensor:
        return torch.from_numpy(model(x).detach().numpy())

    assert accuracy(model, square(opaque, x, y, eps=0.3, queries=100), y) < accuracy(model, x, y)
    with pytest.raises(BadInput, match=r"no gradient.*square"):
        pgd(opaque, x, y, eps=0.3)


# Transfer ---------------------------------------------------------------------------------------------------------


def test_transfer_uses_no_gradient_of_the_model_and_takes_the_better_surrogate(
    victim: tuple[nn.Module, Tensor, Tensor],
) -> None:
    model, x, y = victim
    with torch.no_grad():
        labels = model(x).argmax(1)

    def opaque(x: Tensor) -> Tensor:
        return model(x).detach()

    random = network(2).eval()
    one = transfer(opaque, x, labels, surrogates=[random], eps=0.3, steps=10)
    both = transfer(opaque, x, labels, surrogates=[random, model], eps=0.3, steps=10)
    assert accuracy(model, both, labels) < accuracy(model, one, labels)
    with pytest.raises(BadInput, match="at least one surrogate"):
        transfer(model, x, y, surrogates=[], eps=0.1)


# Bad input --------------------------------------------------------------------------------------------------------


def test_bad_input_is_named(victim: tuple[nn.Module, Tensor, Tensor]) -> None:
    model, x, y = victim
    cases = [
        ({"eps": 8.0}, r"eps = 8 is outside the input range.*8/255"),
        ({"eps": -0.1}, "eps must be a finite number"),
        ({"eps": float("nan")}, "eps must be a finite number"),
        ({"eps": 0.1, "norm": "l1"}, "norm must be"),
        ({"eps": 0.1, "steps": -1}, "steps must be"),
        ({"eps": 0.1, "restarts": 0}, "restarts must be"),
        ({"eps": 0.1, "start": "random"}, "start must be"),
        ({"eps": 0.1, "start": x[:2]}, "start must have the shape"),
        ({"eps": 0.1, "keep": "first"}, "keep must be"),
        ({"eps": 0.1, "mode": "train"}, "mode must be"),
        ({"eps": 0.1, "bounds": (1, 0)}, "bounds must be"),
        ({"eps": 0.1, "index": torch.arange(3)}, "index must be"),
        ({"eps": 0.1, "step": -1.0}, "step must be"),
        ({"eps": 0.1, "loss": lambda z, t: F.cross_entropy(z, t)}, "one value per sample"),
    ]
    for options, message in cases:
        with pytest.raises(BadInput, match=message):
            pgd(model, x, y, **options)
    with pytest.raises(UnknownName, match="'ce'"):
        pgd(model, x, y, eps=0.1, loss="cee")
    with pytest.raises(BadInput, match=r"got values from 0 to 255.*Divide by 255"):
        pgd(model, x * 255, y, eps=0.1)
    with pytest.raises(BadInput, match="Put mean and standard deviation into the model"):
        pgd(model, (x - 0.13) / 0.3, y, eps=0.1)
    with pytest.raises(BadInput, match="got values"):
        pgd(model, x * float("nan"), y, eps=0.1)
    with pytest.raises(BadInput, match="float inputs"):
        pgd(model, (x * 255).byte(), y, eps=0.1)
    with pytest.raises(BadInput, match="one entry for each of the 24"):
        pgd(model, x, y[:3], eps=0.1)
    with pytest.raises(BadInput, match="probabilities"):
        pgd(nn.Sequential(model, nn.Softmax(1)), x, y, eps=0.1)
    with pytest.raises(BadInput, match="must return one float tensor"):
        pgd(lambda x: {"logits": model(x)}, x, y, eps=0.1)
    with pytest.raises(BadInput, match="not finite"):
        pgd(lambda x: model(x) / 0, x, y, eps=0.1)
    with pytest.raises(BadInput, match="images"):
        square(model, x[:, 0, 0], y, eps=0.1)
    with pytest.raises(BadInput, match="3 classes"):
        apgd(lambda x: model(x)[:, :2], x, y % 2, eps=0.1, loss="dlr")
    with pytest.raises(BadInput, match="4 classes"):
        apgd_targeted(lambda x: model(x)[:, :3], x, y % 3, eps=0.1)


def test_logarithms_of_probabilities_are_logits(victim: tuple[nn.Module, Tensor, Tensor]) -> None:
    model, x, y = victim
    log_softmax = nn.Sequential(model, nn.LogSoftmax(1))
    for attack in (partial(pgd, steps=3), partial(apgd, steps=5, loss="dlr")):
        same = attack(model, x.double().float(), y, eps=0.1)
        close = (same - attack(log_softmax, x, y, eps=0.1)).abs() < 1e-5
        assert close.float().mean() > 0.99


def test_inputs_without_bounds() -> None:
    model = nn.Linear(5, 3)
    x = 10 * torch.randn(4, 5, generator=torch.Generator().manual_seed(0))
    found = pgd(model, x, torch.tensor([0, 1, 2, 0]), eps=2.0, bounds=None)
    assert ((found - x).abs().max() - 2).abs() < 1e-4
