"""Batch normalisation with a second derivative by hand: the numbers of PyTorch's, to every order that losses use."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from zoo.nn.batch_norm import TwiceBatchNorm2d, twice_differentiable
from zoo.nn.classifiers import create_classifier


def layer(momentum: float | None = 0.1) -> TwiceBatchNorm2d:
    torch.manual_seed(0)
    bn = TwiceBatchNorm2d(3, momentum=momentum).double()
    nn.init.uniform_(bn.weight), nn.init.uniform_(bn.bias)
    return bn


def test_first_and_second_derivative_by_finite_differences() -> None:
    bn = layer()
    x = torch.randn(3, 3, 2, 2, dtype=torch.float64, requires_grad=True)

    def function(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return torch.func.functional_call(bn, {"weight": weight, "bias": bias}, (x,))

    assert torch.autograd.gradcheck(function, (x, bn.weight, bn.bias))
    assert torch.autograd.gradgradcheck(function, (x, bn.weight, bn.bias))


@pytest.mark.parametrize("momentum", [0.1, None])
def test_numbers_and_statistics_are_those_of_the_plain_layer(momentum: float | None) -> None:
    bn = layer(momentum)
    plain = nn.BatchNorm2d(3, momentum=momentum).double()
    plain.load_state_dict(bn.state_dict())
    for seed in range(3):
        x = torch.randn(4, 3, 5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        torch.testing.assert_close(bn(x), plain(x))
    torch.testing.assert_close(bn.state_dict(), plain.state_dict())
    torch.testing.assert_close(bn.eval()(x), plain.eval()(x))


def test_gradients_of_gradients_are_those_of_the_plain_network() -> None:
    torch.manual_seed(0)
    plain = create_classifier("resnet10-w4-softplus", 4, 1).to(memory_format=torch.channels_last).double()
    ours = twice_differentiable(copy.deepcopy(plain))
    assert any(type(part) is TwiceBatchNorm2d for part in ours.modules())
    found = []
    for net in (plain, ours):
        x = torch.rand(6, 1, 12, 12, generator=torch.Generator().manual_seed(1)).double().requires_grad_()
        z = net(x)
        (gradient,) = torch.autograd.grad(z[:, 0].sum(), x, create_graph=True)
        (z.square().sum() + gradient.square().sum()).backward()
        found.append([p.grad for p in net.parameters()])
    torch.testing.assert_close(found[1], found[0])
