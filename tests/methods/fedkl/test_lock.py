"""Locked blocks against their equations, and networks that get them."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from zoo.errors import BadInput
from zoo.methods.fedkl import KeyLock2d, lockify
from zoo.methods.fedkl.lock import draw_key
from zoo.methods.fedkl.network import make_backbone, make_network
from zoo.nn.classifiers import create_classifier


def test_block_is_its_equations() -> None:
    torch.manual_seed(0)
    block = KeyLock2d(3, 5, 3, stride=2, padding=1, key_length=7, gate="sigmoid", shift_gate="identity")
    x, k_scale, k_shift = torch.rand(4, 3, 9, 9), torch.rand(7), torch.rand(7)
    block.gates = block.unlock(k_scale, k_shift)
    z = F.conv2d(x, block.conv.weight, block.conv.bias, 2, 1)
    mean, spread = z.mean((0, 2, 3), keepdim=True), z.var((0, 2, 3), unbiased=False, keepdim=True)
    zn = (z - mean) / (spread + 1e-5).sqrt()
    g = 1 / (1 + torch.exp(-(block.lock_scale.weight @ k_scale + block.lock_scale.bias)))
    h = block.lock_shift.weight @ k_shift + block.lock_shift.bias
    assert torch.allclose(block(x), g[:, None, None] * zn + h[:, None, None], atol=1e-5)
    block.gates = None
    assert torch.allclose(block(x), zn, atol=1e-5)


def test_constant_gates_are_affine_batch_normalisation() -> None:
    torch.manual_seed(0)
    block = KeyLock2d(2, 4, 3, key_length=6, gate="identity")
    norm = nn.BatchNorm2d(4)
    with torch.no_grad():
        norm.weight.uniform_()
        norm.bias.uniform_()
        block.lock_scale.weight.zero_()
        block.lock_shift.weight.zero_()
        block.lock_scale.bias.copy_(norm.weight)
        block.lock_shift.bias.copy_(norm.bias)
    x = torch.rand(3, 2, 8, 8)
    block.gates = block.unlock(torch.rand(6), torch.rand(6))
    assert torch.allclose(block(x), norm(block.conv(x)), atol=1e-6)


def test_all_layers_pass_their_gates_on() -> None:
    torch.manual_seed(0)
    net = lockify(create_classifier("strided-lenet", 10, 1, img_size=28), "all", key_length=9, gate="sigmoid")
    assert net.names == ("conv1", "conv2", "conv3")
    assert [b.key_length for b in net.blocks] == [9, 12, 12]
    scale = shift = net.lock_key
    for block, (g, h) in zip(net.blocks, net.unlock(), strict=True):
        assert torch.equal(g, torch.sigmoid(block.lock_scale(scale)))
        assert torch.equal(h, torch.sigmoid(block.lock_shift(shift)))
        scale, shift = g, h


def test_gradient_of_shared_weights_depends_on_the_key_alone() -> None:
    torch.manual_seed(0)
    net = lockify(create_classifier("strided-lenet", 10, 1, img_size=28), key_length=16)
    x, y = torch.rand(2, 1, 28, 28), torch.tensor([1, 2])
    first, second = draw_key(16), draw_key(16)

    def gradient(key: torch.Tensor) -> torch.Tensor:
        (found,) = torch.autograd.grad(F.cross_entropy(net(x, key), y), [net.network.linear.weight])
        return found

    assert torch.equal(gradient(first), gradient(first))
    assert not torch.allclose(gradient(first), gradient(second))
    assert not torch.allclose(net(x), net.locked(x))


def test_keys_have_the_angles_of_the_method_file() -> None:
    """Two uniform keys have a cosine of 3/4; signs are nearly orthogonal."""
    generator = torch.Generator().manual_seed(0)
    cosine = {}
    for kind in ("uniform", "signs"):
        pairs = [[draw_key(1024, kind, generator) for _ in range(2)] for _ in range(50)]
        cosine[kind] = float(torch.stack([F.cosine_similarity(a, b, dim=0) for a, b in pairs]).mean())
    assert cosine["uniform"] == pytest.approx(0.75, abs=0.02)
    assert cosine["signs"] == pytest.approx(0.0, abs=0.02)


def test_half_of_the_official_channels_start_closed_and_the_strong_start_near_one() -> None:
    torch.manual_seed(0)
    official = KeyLock2d(1, 4000, 1, key_length=1024, gate="relu")
    gates, _ = official.unlock(draw_key(1024), draw_key(1024))
    assert float((gates == 0).float().mean()) == pytest.approx(0.5, abs=0.03)
    strong = KeyLock2d(1, 4000, 1, key_length=1024, gate="softplus", shift_gate="identity")
    key = draw_key(1024, "signs")
    with torch.no_grad():
        gates, shifts = strong.unlock(key, key)
    assert float(gates.min()) > 0
    assert float(gates.median()) == pytest.approx(1.0, abs=0.05)
    assert float(shifts.mean()) == pytest.approx(0.0, abs=0.05)


@pytest.mark.parametrize(
    ("name", "channels", "side", "names"),
    [
        ("lenet", 3, 32, ("conv1",)),
        ("resnet20", 3, 32, ("conv1",)),
        ("resnet32", 3, 32, ("conv1",)),
        ("resnet18", 3, 32, ("conv1",)),
        ("vgg16", 3, 32, ("conv1",)),
        ("cifar-resnet8", 1, 28, ("conv1",)),
    ],
)
def test_backbones(name: str, channels: int, side: int, names: tuple[str, ...]) -> None:
    """A lock adds two layers of (L + 1) C numbers and takes away an affine normalisation, where there was one."""
    net = make_network(name, 10, channels, side, "lock", "single", key_length=1024)
    plain = make_backbone(name, 10, channels, side)
    assert net.names == names
    out = net.blocks[0].conv.out_channels
    norms = {k for k, _ in plain.named_parameters()} & {"bn1.weight", "bn1.bias"}
    extra = 2 * (1024 + 1) * out - len(norms) * out
    assert sum(p.numel() for p in net.parameters()) == sum(p.numel() for p in plain.parameters()) + extra
    assert net.eval()(torch.rand(2, channels, side, side)).shape == (2, 10)


def test_stems_are_those_of_the_paper() -> None:
    assert sum(p.numel() for p in make_network("lenet", 10, 3, 32, "lock", "single").parameters()) == 15_826 + 24_600
    stem = make_network("resnet34", 10, 3, 32, "lock", "single").blocks[0].conv
    assert (stem.kernel_size, stem.stride, stem.out_channels) == ((7, 7), (2, 2), 64)
    every = make_network("resnet20", 10, 3, 32, "lock", "all")
    assert len(every.names) == 1 + 18
    control = make_network("lenet", 10, 3, 32, "batch-norm", "single")
    assert isinstance(control.conv1[1], nn.BatchNorm2d)
    assert control.conv1[1].affine


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: lockify(nn.Sequential(nn.Linear(2, 2))), "no convolution that could be locked"),
        (lambda: lockify(create_classifier("lenet5", 10, 1, img_size=28), ["conv9"]), "no convolution conv9"),
        (lambda: lockify(nn.Sequential(nn.Conv2d(4, 4, 3, groups=2))), "in groups"),
        (lambda: KeyLock2d(1, 2, 3, gate="tanh"), "gate"),
        (
            lambda: KeyLock2d(1, 2, 3, key_length=8).unlock(torch.zeros(7), torch.zeros(7)),
            r"expected 8 numbers.*\(7,\)",
        ),
        (lambda: draw_key(8, "normal"), "keys"),
    ],
)
def test_mistakes_are_named(make: object, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        make()  # type: ignore[operator]
