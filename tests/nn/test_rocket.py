"""ROCKET features: against a slow literal reference, and whatever must not change them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from toys.rocket import responses

from zoo.errors import BadInput
from zoo.nn.rocket import POOLINGS, Kernels, Rocket, sample_kernels, standardise_series


def literal(kernels: Kernels, x: np.ndarray) -> np.ndarray:
    return np.stack([f(z) for z in responses(kernels, x) for f in (lambda z: (z > 0).mean(1), lambda z: z.max(1))], 1)


def series(count: int, channels: int, length: int, seed: int = 0) -> Tensor:
    return torch.randn(count, channels, length, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("channels", [1, 2, 7, 20])
def test_equals_the_definition(channels: int) -> None:
    rocket, x = Rocket(60, 40, channels, seed=3), series(3, channels, 40)
    np.testing.assert_allclose(rocket(x).numpy(), literal(rocket.kernels(), x.numpy()), atol=2e-5)


def test_kernels_of_any_padding() -> None:
    """Not only none and half: groups must keep them apart."""
    kernels = sample_kernels(40, 40, 2, seed=1)
    kernels.paddings = np.arange(40) % 5 * 3
    x = series(2, 2, 40)
    found = Rocket.from_kernels(kernels, 2)(x).numpy()
    np.testing.assert_allclose(found, literal(kernels, x.numpy()), atol=2e-5)


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_one_product_per_dilation_gives_the_same(pooling: str, dtype: torch.dtype) -> None:
    """Paddings from none to half, so that kernels of one dilation respond at different places."""
    kernels = sample_kernels(90, 40, 2, seed=1)
    kernels.paddings = np.array([(9 * i) % (1 + (n - 1) * d // 2) for i, (n, d) in enumerate(
        zip(kernels.lengths.tolist(), kernels.dilations.tolist(), strict=True)
    )])  # fmt: skip
    rocket = Rocket.from_kernels(kernels, 2, pooling=pooling, shift=0.5).to(dtype)
    assert rocket.merged is not None
    assert len(rocket.merged.groups) < len(rocket.convolution.groups)
    for x in (1e3 * series(5, 2, 40).to(dtype), series(1, 2, 57).to(dtype)):
        merged = rocket(x)
        alone, rocket.merged = rocket.merged, None
        apart = rocket(x)
        rocket.merged = alone
        torch.testing.assert_close(merged, apart, rtol=1e-5, atol=1e-5)


def test_kernels_of_even_and_odd_length_are_kept_apart() -> None:
    """With dilation 2, both may keep the length, but their centres differ."""
    lengths, dilations = np.array([8, 9, 7, 8]), np.array([2, 2, 2, 1])
    paddings, counts = np.array([7, 8, 6, 3]), np.ones(4, int)
    weights = np.random.default_rng(0).standard_normal(lengths.sum()).astype(np.float32)
    kernels = Kernels(weights, lengths, np.zeros(4, np.float32), dilations, paddings, counts, np.zeros(4, int))
    rocket, x = Rocket.from_kernels(kernels, 1), series(2, 1, 40)
    assert rocket.merged is None
    np.testing.assert_allclose(rocket(x).numpy(), literal(kernels, x.numpy()), atol=2e-5)


def test_zero_does_not_count_as_positive() -> None:
    kernels = Kernels(np.zeros(7, np.float32), *(np.array([v]) for v in (7, 0.0, 1, 3, 1)), np.array([0]))
    kernels.biases = kernels.biases.astype(np.float32)
    for pooling in ("hard", "straight-through"):
        assert Rocket.from_kernels(kernels, 1, pooling=pooling)(torch.ones(1, 1, 20))[0].tolist() == [0.0, 0.0]


@pytest.mark.parametrize("pooling", POOLINGS)
def test_blocks_order_and_threads_change_nothing(pooling: str) -> None:
    rocket = Rocket(150, 50, 3, seed=2, pooling=pooling)
    x = series(37, 3, 50)
    wanted = rocket(x)
    close: dict[str, Any] = {"atol": 2e-5, "rtol": 1e-5}
    for size in (1, 5_000, 1 << 26):
        other = Rocket.from_kernels(rocket.kernels(), 3, pooling=pooling, block_bytes=size)
        torch.testing.assert_close(other(x), wanted, **close)
    order = torch.randperm(37, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(rocket(x[order]), wanted[order], **close)
    torch.testing.assert_close(torch.cat([rocket(row[None]) for row in x]), wanted, **close)
    threads = torch.get_num_threads()
    try:
        for number in (1, 2, 3):
            torch.set_num_threads(number)
            torch.testing.assert_close(rocket(x), wanted, **close)
            torch.testing.assert_close(rocket(x[:1]), wanted[:1], **close)
            assert torch.get_num_threads() == number
            assert torch.equal(rocket(x), rocket(x))
    finally:
        torch.set_num_threads(threads)


def test_order_of_kernels_is_kept() -> None:
    first = Rocket(30, 40, 1, seed=0)
    kernels = first.kernels()
    order = np.random.default_rng(0).permutation(30)
    pieces = np.split(kernels.weights, np.cumsum(kernels.lengths)[:-1])
    fields = [kernels.lengths, kernels.biases, kernels.dilations, kernels.paddings, kernels.channel_counts]
    mixed = Kernels(np.concatenate([pieces[i] for i in order]), *(f[order] for f in fields), kernels.channels)
    x = series(4, 1, 40)
    wanted = first(x).view(4, 30, 2)[:, torch.as_tensor(order)].flatten(1)
    torch.testing.assert_close(Rocket.from_kernels(mixed, 1)(x), wanted, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_differentiable_path_gives_the_same(pooling: str) -> None:
    kernels = sample_kernels(50, 40, 2, seed=4)
    x, lengths = series(6, 2, 40), torch.tensor([40, 33, 40, 38, 35, 39])
    kernels.paddings = np.where(kernels.paddings > 0, kernels.paddings, 12)  # so that the short ones fit
    fixed = Rocket.from_kernels(kernels, 2, pooling=pooling)
    learned = Rocket.from_kernels(kernels, 2, pooling=pooling, trainable=True)
    tight = Rocket.from_kernels(kernels, 2, pooling=pooling, trainable=True, block_bytes=64)  # recomputes in backward
    for given in (None, lengths):
        torch.testing.assert_close(learned(x, given), fixed(x, given), atol=2e-5, rtol=1e-5)
        torch.testing.assert_close(tight(x, given), fixed(x, given), atol=2e-5, rtol=1e-5)
    for rocket in (learned, tight):
        rocket(x).square().sum().backward()
    torch.testing.assert_close(learned.weights.grad, tight.weights.grad)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_traced_path_gives_the_same(pooling: str) -> None:
    kernels, x = sample_kernels(50, 40, 3, seed=4), series(6, 3, 40)
    wanted = Rocket.from_kernels(kernels, 3, pooling=pooling, trainable=True)
    traced = Rocket.from_kernels(kernels, 3, pooling=pooling, trainable=True, block_bytes=0)
    torch.testing.assert_close(traced(x), wanted(x), atol=2e-5, rtol=1e-5)
    for rocket in (wanted, traced):
        rocket(x).square().sum().backward()
    torch.testing.assert_close(traced.weights.grad, wanted.weights.grad, atol=1e-3, rtol=1e-4)


def test_tracing_takes_few_operations() -> None:
    """Exporting takes time with the number of operations, and there may be hundreds of groups."""
    rocket, x = Rocket(60, 40, 2), series(2, 2, 40)
    program = torch.export.export(rocket, (x,), dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=64)},))
    computed = [node for node in program.graph.nodes if node.op == "call_function"]
    assert len(computed) < 14 * len(rocket.convolution.groups) + 20


def test_soft_gradient_by_finite_differences() -> None:
    rocket = Rocket(8, 24, 2, seed=5, pooling="soft", sharpness=5.0, shift=0.7, trainable=True).double()
    x = series(3, 2, 24).double()
    torch.autograd.gradcheck(
        lambda w, b, s: torch.func.functional_call(rocket, {"weights": w, "biases": b, "log_sharpness": s}, (x,)),
        tuple(p.detach().clone().requires_grad_() for p in (rocket.weights, rocket.biases, rocket.log_sharpness)),
        atol=1e-6,
    )


def test_straight_through_is_hard_forwards_and_soft_backwards() -> None:
    kernels, x = sample_kernels(20, 30, 1, seed=6), series(4, 1, 30)
    made = {p: Rocket.from_kernels(kernels, 1, pooling=p, trainable=True) for p in POOLINGS}
    torch.testing.assert_close(made["straight-through"](x), made["hard"](x))
    for pooling in ("soft", "straight-through"):
        made[pooling](x)[:, ::2].sum().backward()
    torch.testing.assert_close(made["soft"].weights.grad, made["straight-through"].weights.grad)
    assert made["soft"].weights.grad.abs().sum() > 0  # type: ignore[union-attr]


def test_soft_tends_to_hard() -> None:
    kernels, x = sample_kernels(200, 100, 1, seed=7), standardise_series(series(10, 1, 100).cumsum(2))
    hard = Rocket.from_kernels(kernels, 1)(x)[:, ::2]
    gaps = []
    for sharpness in (1.0, 5.0, 10.0, 100.0):
        soft = Rocket.from_kernels(kernels, 1, pooling="soft", sharpness=sharpness)(x)[:, ::2]
        gaps.append(float((soft - hard).abs().mean()))
    assert gaps == sorted(gaps, reverse=True)
    assert gaps[-1] < 0.005


def test_unequal_lengths_equal_each_series_alone() -> None:
    rocket = Rocket(80, 30, 2, seed=8)
    x, lengths = series(5, 2, 50), torch.tensor([50, 30, 41, 36, 44])
    found = rocket(x, lengths)  # what lies behind the ends is garbage, and must not matter
    for i, n in enumerate(lengths.tolist()):
        torch.testing.assert_close(found[i], rocket(x[i : i + 1, :, :n])[0], atol=2e-5, rtol=1e-5)


def test_sampling_follows_the_paper() -> None:
    found = sample_kernels(4000, 150, 6, seed=0)
    assert set(found.lengths) == {7, 9, 11}
    assert found.biases.min() >= -1
    assert found.biases.max() < 1
    assert abs(found.biases.mean()) < 0.05
    reach = (found.lengths - 1) * found.dilations
    assert reach.max() <= 149
    assert (np.isin(found.paddings, [0]) | (2 * found.paddings == reach)).all()
    assert 0.45 < (found.paddings > 0).mean() < 0.55
    assert found.channel_counts.min() == 1
    assert found.channel_counts.max() == 6
    assert 0.3 < (found.channel_counts == 1).mean() < 0.42  # log2(2) / log2(7)
    at, place = 0, 0
    for n, taps in zip(found.channel_counts, found.lengths, strict=True):
        assert np.abs(found.weights[at : at + n * taps].reshape(n, taps).mean(1)).max() < 1e-6
        assert len(set(found.channels[place : place + n])) == n
        at, place = at + n * taps, place + n
    assert at == len(found.weights)
    again, other = sample_kernels(4000, 150, 6, seed=0), sample_kernels(4000, 150, 6, seed=1)
    assert np.array_equal(found.weights, again.weights)
    assert not np.array_equal(found.biases, other.biases)


def test_state_dict_brings_the_kernels_back() -> None:
    first, second, x = Rocket(50, 60, 1, seed=0), Rocket(50, 60, 1, seed=0), series(3, 1, 60)
    with torch.no_grad():
        first.weights.mul_(2)
    first(x), second(x)
    second.load_state_dict(first.state_dict())
    assert torch.equal(first(x), second(x))
    with torch.no_grad():
        second.biases.add_(1)
    torch.testing.assert_close(second(x)[:, 1::2], first(x)[:, 1::2] + 1)


def test_too_short_names_the_kernel() -> None:
    rocket = Rocket(100, 100, 1, seed=0)
    with pytest.raises(BadInput, match=r"kernel \d+ has (7|9|11) points with dilation \d+ and padding 0"):
        rocket(series(2, 1, 20))
    with pytest.raises(BadInput, match="at least 12"):
        Rocket(10, 8)
    rocket(series(2, 1, 200))  # longer ones are legal


@pytest.mark.parametrize("wrong", [torch.zeros(3, 50), torch.zeros(3, 2, 50), torch.zeros(3, 1, 50, dtype=torch.int64)])
def test_wrong_shapes_are_named(wrong: Tensor) -> None:
    with pytest.raises(BadInput, match=r"float \(series, 1 channel, points\)"):
        Rocket(10, 50)(wrong)


def test_bad_arguments_are_named() -> None:
    with pytest.raises(BadInput, match="hard"):
        Rocket(10, 50, pooling="hrd")
    with pytest.raises(BadInput, match="sharpness"):
        Rocket(10, 50, sharpness=0)
    with pytest.raises(BadInput, match="num_kernels"):
        Rocket(0, 50)


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("weights", lambda v: v[:-1]),
        ("channels", lambda v: v + 9),
        ("dilations", lambda v: v * 0),
        ("paddings", lambda v: v - 100),
        ("channel_counts", lambda v: v + 1),
        ("biases", lambda v: v[1:]),
    ],
)
def test_arrays_that_do_not_fit_together_are_refused(field: str, change: Any) -> None:
    kernels = sample_kernels(10, 40, 2)
    setattr(kernels, field, change(getattr(kernels, field)))
    with pytest.raises(BadInput, match="do not fit together"):
        Rocket.from_kernels(kernels, 2)


def test_standardising() -> None:
    x = series(3, 2, 40) * 5 + 100
    x[0, 1] = 7.0
    done = standardise_series(x)
    np.testing.assert_allclose(done[1].mean(1), 0, atol=1e-5)
    np.testing.assert_allclose(done[1].std(1, correction=0), 1, atol=1e-4)
    assert (done[0, 1] == 0).all()
    lengths = torch.tensor([40, 25, 31])
    for i, n in enumerate(lengths.tolist()):
        alone = standardise_series(x[i : i + 1, :, :n])[0]
        torch.testing.assert_close(standardise_series(x, lengths)[i, :, :n], alone, atol=1e-5, rtol=1e-5)
