"""Batch normalisation that can be differentiated twice cheaply: for losses that contain gradients.

PyTorch computes the second derivative of batch statistics by some thirty operations on whole maps, which takes more
time than the convolutions around them. Here the first derivative is a function of its own with its derivative by hand.
With x^ = (x - mean) r, r = (variance + eps)^-1/2, g the gradient that arrives and u the one that arrives for gx, all
means over batch and places of a channel:

    gx      = w r (g - mean g - x^ mean(g x^))
    for g   : w r (u - mean u - x^ mean(u x^))
    for x   : -w r^2 (d u + c g + (Q - 2 c d) x^ - d mean u - c mean g),   c = mean(u x^), d = mean(g x^)
    for w   : M r Q,   Q = mean(u g) - mean u mean g - c d,  M values in each mean
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

__all__ = ["TwiceBatchNorm2d", "twice_differentiable"]


def _mean(values: Tensor) -> Tensor:
    return values.mean((0, 2, 3), keepdim=True)


def _like(values: Tensor, other: Tensor) -> Tensor:
    """In the memory layout of another tensor: operations on two layouts are many times slower."""
    last = other.is_contiguous(memory_format=torch.channels_last) and not other.is_contiguous()
    return values.contiguous(memory_format=torch.channels_last) if last else values


def _sum(one: Tensor | None, other: Tensor) -> Tensor:
    return other if one is None else one + other


class _Gradient(torch.autograd.Function):
    """(g, x^, w, r) -> gradients for x, w and the bias; `x` stands for the values that x^ was made of."""

    @staticmethod
    def forward(ctx: Any, g: Tensor, x: Tensor, weight: Tensor, normal: Tensor, r: Tensor) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        g = _like(g, normal)
        mean, slope = _mean(g), _mean(g * normal)
        scale = weight.view(1, -1, 1, 1) * r
        gx = torch.addcmul(g - mean, normal, slope, value=-1).mul_(scale)
        ctx.save_for_backward(g, weight, normal, r, mean, slope)
        count = g.numel() // g.shape[1]
        return gx, slope.flatten() * count, mean.flatten() * count

    @staticmethod
    @once_differentiable
    def backward(  # type: ignore[override]
        ctx: Any, u: Tensor | None, for_weight: Tensor | None, for_bias: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        g, weight, normal, r, mean, slope = ctx.saved_tensors
        count = g.numel() // g.shape[1]
        scale = weight.view(1, -1, 1, 1) * r
        to_g: Tensor | None = None
        to_x: Tensor | None = None
        to_weight: Tensor | None = None
        if u is not None:
            u = _like(u, normal)
            a, c = _mean(u), _mean(u * normal)
            q = _mean(u * g) - a * mean - c * slope
            to_g = torch.addcmul(u - a, normal, c, value=-1).mul_(scale)
            inner = torch.addcmul(u * slope, g, c).addcmul_(normal, q - 2 * c * slope).sub_(slope * a + c * mean)
            to_x = inner.mul_(-scale * r)
            to_weight = (count * r * q).flatten()
        if for_weight is not None:
            each = for_weight.view(1, -1, 1, 1)
            to_g = _sum(to_g, each * normal)
            to_x = _sum(to_x, each * r * torch.addcmul(g - mean, normal, slope, value=-1))
        if for_bias is not None:
            to_g = _sum(to_g, for_bias.view(1, -1, 1, 1).expand_as(g))
        return to_g, to_x, to_weight, None, None


class _Normalised(torch.autograd.Function):
    """Batch normalisation with the statistics of the batch."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, centred: Tensor, variance: Tensor, eps: float
    ) -> Tensor:
        r = torch.rsqrt(variance + eps)
        normal = centred * r
        ctx.save_for_backward(x, weight, normal, r)
        return torch.addcmul(bias.view(1, -1, 1, 1), normal, weight.view(1, -1, 1, 1))

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        x, weight, normal, r = ctx.saved_tensors
        gx, gw, gb = _Gradient.apply(g, x, weight, normal, r)
        return gx, gw, gb, None, None, None


class TwiceBatchNorm2d(nn.BatchNorm2d):
    """`nn.BatchNorm2d`, with the same parameters and numbers, whose second derivative in training mode is cheap."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> the same shape."""
        if not (self.training and self.affine and torch.is_grad_enabled()) or x.dtype != self.weight.dtype:
            return super().forward(x)
        with torch.no_grad():
            mean = _mean(x)
            centred = x - mean
            variance = _mean(centred.square())  # `var_mean` is many times slower in the layout channels_last
            self._follow(mean.flatten(), variance.flatten(), x.numel() // x.shape[1])
        out: Tensor = _Normalised.apply(x, self.weight, self.bias, centred, variance, self.eps)
        return out

    def _follow(self, mean: Tensor, variance: Tensor, count: int) -> None:
        """Move the running statistics towards those of a batch."""
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        rate = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, rate)
        self.running_var.lerp_(variance * (count / max(1, count - 1)), rate)


def twice_differentiable(network: nn.Module) -> nn.Module:
    """Let every `nn.BatchNorm2d` of a network be a `TwiceBatchNorm2d`; parameters and names stay.

    Args:
        network: changed in place, and returned.
    """
    for part in network.modules():
        if type(part) is nn.BatchNorm2d:
            part.__class__ = TwiceBatchNorm2d
    return network
