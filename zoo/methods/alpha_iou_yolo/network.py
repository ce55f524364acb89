"""The zoo's own one-stage detector network: CSP backbone, path-aggregation neck, decoupled anchor-free head.

Written from the ideas of CSPNet, PANet, FCOS and TOOD.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.errors import BadInput, InvalidConfig, UnknownName, nearest
from zoo.nn.timm_models import create_timm

SIZES: dict[str, tuple[float, float]] = {
    "p": (0.125, 0.34),
    "n": (0.25, 0.34),
    "s": (0.5, 0.34),
    "m": (0.75, 0.67),
    "l": (1.0, 1.0),
}
"""Width and depth multiples of a size."""

STRIDES = (8, 16, 32)


def widths(size: str) -> list[int]:
    """Channels of the five stages of a size, rounded to 8.

    Raises:
        UnknownName: if there is no such size.
    """
    if size not in SIZES:
        raise UnknownName(f"size must be one of {', '.join(SIZES)}, got {size!r}.{nearest(size, SIZES)}")
    return [max(8, round(c * SIZES[size][0] / 8) * 8) for c in (64, 128, 256, 512, 1024)]


class Conv(nn.Sequential):
    """Convolution without bias, batch normalisation, SiLU."""

    def __init__(self, ci: int, co: int, k: int = 1, s: int = 1, groups: int = 1) -> None:
        super().__init__(
            nn.Conv2d(ci, co, k, s, k // 2, groups=groups, bias=False),
            nn.BatchNorm2d(co, eps=1e-3, momentum=0.03),
            nn.SiLU(),
        )
        self.fan_in = ci // groups * k * k

    def forward(self, x: Tensor) -> Tensor:
        """(B, ci, H, W) -> (B, co, H / s, W / s)."""
        conv: Any = self._modules["0"]
        norm: Any = self._modules["1"]
        if self.training or torch.is_grad_enabled() or torch.compiler.is_compiling():
            # not in place: autograd would keep a copy of the input
            return F.silu(norm(conv(x)))
        positions = x.shape[0] * x.shape[2] * x.shape[3] // conv.stride[0] ** 2
        if positions > 2 * self.fan_in:
            # scaling the weights is cheaper than one more pass over the output; nothing is kept, so nothing goes stale
            scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
            bias = norm.bias - norm.running_mean * scale
            weight = conv.weight * scale[:, None, None, None]
            out = F.conv2d(x, weight, bias, conv.stride, conv.padding, 1, conv.groups)
            return F.silu(out, inplace=True)
        return F.silu(norm(conv(x)), inplace=True)


class Bottleneck(nn.Module):
    """1x1 and 3x3 convolution, with a residual connection if asked for."""

    def __init__(self, c: int, residual: bool) -> None:
        super().__init__()
        self.layers = nn.Sequential(Conv(c, c, 1), Conv(c, c, 3))
        self.residual = residual

    def forward(self, x: Tensor) -> Tensor:
        """(B, c, H, W) -> the same shape."""
        return x + self.layers(x) if self.residual else self.layers(x)


class CSP(nn.Module):
    """Cross-stage partial block: half of the channels go through `n` bottlenecks, half pass by."""

    def __init__(self, ci: int, co: int, n: int, residual: bool = True) -> None:
        super().__init__()
        self.split = Conv(ci, co, 1)  # both 1x1 convolutions of the two paths at once
        self.blocks = nn.Sequential(*[Bottleneck(co // 2, residual) for _ in range(n)])
        self.join = Conv(co, co, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, ci, H, W) -> (B, co, H, W)."""
        through, past = self.split(x).chunk(2, 1)
        return self.join(torch.cat([self.blocks(through), past], 1))


class SPP(nn.Module):
    """Spatial pyramid pooling with windows 5, 9 and 13, as a cascade of 5x5 maxima (which is the same)."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.reduce = Conv(c, c // 2, 1)
        self.join = Conv(c * 2, c, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, c, H, W) -> the same shape."""
        parts = [self.reduce(x)]
        for _ in range(3):
            parts.append(F.max_pool2d(parts[-1], 5, 1, 2))
        return self.join(torch.cat(parts, 1))


class Backbone(nn.Module):
    """CSP backbone; returns the features of strides 8, 16 and 32."""

    def __init__(self, size: str) -> None:
        super().__init__()
        c, depth = widths(size), SIZES[size][1]

        def repeat(k: int) -> int:
            return max(1, round(k * depth))

        self.p3 = nn.Sequential(
            Conv(3, c[0], 3, 2),
            Conv(c[0], c[1], 3, 2),
            CSP(c[1], c[1], repeat(3)),
            Conv(c[1], c[2], 3, 2),
            CSP(c[2], c[2], repeat(9)),
        )
        self.p4 = nn.Sequential(Conv(c[2], c[3], 3, 2), CSP(c[3], c[3], repeat(9)))
        self.p5 = nn.Sequential(Conv(c[3], c[4], 3, 2), SPP(c[4]), CSP(c[4], c[4], repeat(3)))

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, 3, H, W) in [0, 1] -> three feature maps."""
        p3 = self.p3(x)
        p4 = self.p4(p3)
        return [p3, p4, self.p5(p4)]


class TimmBackbone(nn.Module):
    """Any timm backbone with features of strides 8, 16 and 32, brought to the neck's widths by 1x1 convolutions.

    Args:
        name: timm model name, with its tag if wanted.
        channels: widths of the three outputs.
        pretrained: let timm fetch its published weights.
        weights: file with the backbone's weights (`.safetensors` or `.pth`), instead of a download.

    Raises:
        UnknownName: if timm has no such model.
        InvalidConfig: if its features do not have the strides 8, 16 and 32.
    """

    def __init__(self, name: str, channels: list[int], pretrained: bool = False, weights: str | None = None) -> None:
        super().__init__()
        import timm

        try:
            probe = create_timm(name, features_only=True, pretrained=False)
            reductions = probe.feature_info.reduction()
        except (RuntimeError, AttributeError) as error:
            raise InvalidConfig(
                f"timm's {name!r} offers no feature maps, so it cannot be a backbone: {error}"
            ) from error
        if missing := [s for s in STRIDES if s not in reductions]:
            raise InvalidConfig(f"backbone {name!r} has features of strides {reductions}; {missing} are missing.")
        levels = tuple(len(reductions) - 1 - reductions[::-1].index(s) for s in STRIDES)
        self.body = create_timm(name, features_only=True, pretrained=pretrained, out_indices=levels)
        if weights is not None:
            load_backbone(self.body, weights)
        known: Any = timm.get_pretrained_cfg(name)
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(known.mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(known.std).view(3, 1, 1), persistent=False)
        widths_there: list[int] = probe.feature_info.channels()
        self.adapt = nn.ModuleList(Conv(widths_there[level], co, 1) for level, co in zip(levels, channels, strict=True))

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, 3, H, W) in [0, 1] -> three feature maps; normalised as the backbone was trained."""
        features = self.body((x - self.mean) / self.std)
        return [layer(f) for layer, f in zip(self.adapt, features, strict=True)]


def load_backbone(body: nn.Module, path: str) -> None:
    """Copy a file's weights into a backbone, by name, or by order where every shape agrees.

    The second way reads torchvision's layout of an architecture that timm has too.

    Raises:
        BadInput: if the file is missing or is another architecture.
    """
    from pathlib import Path

    from zoo.store.checkpoint import read_torch_file
    from zoo.store.tensors import read_state

    if not Path(path).is_file():
        raise BadInput(f"backbone_weights: no file {path!r}.")
    if Path(path).suffix == ".safetensors":
        state = read_state(path)[0]
    else:
        state = read_torch_file(path)
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise BadInput(f"backbone_weights: {path!r}: expected a dict of tensors, got {type(state).__name__}.")
    wanted = body.state_dict()
    if not set(wanted) <= set(state):
        names, values = list(wanted), list(state.values())[: len(wanted)]
        if len(values) < len(names) or any(wanted[n].shape != v.shape for n, v in zip(names, values, strict=True)):
            lost = [k for k in wanted if k not in state]
            raise BadInput(
                f"backbone_weights: {path!r} is not this backbone: {len(lost)} of its {len(wanted)} tensors are not in "
                f"the file ({', '.join(lost[:3])}, ...), and the shapes do not agree in order either."
            )
        state = dict(zip(names, values, strict=True))
    body.load_state_dict({k: state[k] for k in wanted})


class Neck(nn.Module):
    """Path aggregation: coarse features are added to fine ones, and those to the coarse ones again."""

    def __init__(self, size: str) -> None:
        super().__init__()
        _, _, c3, c4, c5 = widths(size)
        n = max(1, round(3 * SIZES[size][1]))
        self.lateral5 = Conv(c5, c4, 1)
        self.top4 = CSP(c4 * 2, c4, n, residual=False)
        self.lateral4 = Conv(c4, c3, 1)
        self.top3 = CSP(c3 * 2, c3, n, residual=False)
        self.down3 = Conv(c3, c3, 3, 2)
        self.bottom4 = CSP(c3 * 2, c4, n, residual=False)
        self.down4 = Conv(c4, c4, 3, 2)
        self.bottom5 = CSP(c4 * 2, c5, n, residual=False)

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        """Three feature maps -> three of the same shapes."""
        p3, p4, p5 = features
        l5 = self.lateral5(p5)
        l4 = self.lateral4(self.top4(torch.cat([_twice(l5), p4], 1)))
        n3 = self.top3(torch.cat([_twice(l4), p3], 1))
        n4 = self.bottom4(torch.cat([self.down3(n3), l4], 1))
        n5 = self.bottom5(torch.cat([self.down4(n4), l5], 1))
        return [n3, n4, n5]


def _twice(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="nearest")


class HeadLevel(nn.Module):
    """Decoupled head of one level: a stem, two 3x3 layers each for classes and box, 1x1 predictors."""

    def __init__(self, ci: int, c: int, num_classes: int, separable: bool) -> None:
        super().__init__()

        def layer() -> list[nn.Module]:
            return [Conv(c, c, 3, groups=c), Conv(c, c, 1)] if separable else [Conv(c, c, 3)]

        self.stem = Conv(ci, c, 1)
        self.class_layers = nn.Sequential(*layer(), *layer())
        self.box_layers = nn.Sequential(*layer(), *layer())
        self.classes = nn.Conv2d(c, num_classes, 1)
        self.box = nn.Conv2d(c, 4, 1)
        nn.init.constant_(self.classes.bias, -math.log((1 - 0.01) / 0.01))  # type: ignore[arg-type]
        nn.init.normal_(self.classes.weight, std=0.01)
        nn.init.normal_(self.box.weight, std=0.01)
        nn.init.constant_(self.box.bias, 2.0)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, ci, H, W) -> class logits (B, H*W, K) and raw distances (B, H*W, 4)."""
        x = self.stem(x)
        logits = self.classes(self.class_layers(x)).flatten(2).transpose(1, 2)
        return logits, self.box(self.box_layers(x)).flatten(2).transpose(1, 2)


class DetectorNetwork(nn.Module):
    """Backbone, neck and head.

    Args:
        num_classes: K.
        size: one of `SIZES`; with a timm backbone, that of neck and head.
        backbone: timm model name, or None for the zoo's own backbone.
        pretrained_backbone: fetch timm's weights.
        backbone_weights: file with the backbone's weights.
    """

    def __init__(
        self,
        num_classes: int,
        size: str = "n",
        backbone: str | None = None,
        pretrained_backbone: bool = False,
        backbone_weights: str | None = None,
    ) -> None:
        super().__init__()
        c = widths(size)[2:]
        if backbone is None:
            if pretrained_backbone or backbone_weights is not None:
                raise InvalidConfig("pretrained_backbone and backbone_weights need the name of a timm backbone.")
            self.backbone: nn.Module = Backbone(size)
        else:
            self.backbone = TimmBackbone(backbone, c, pretrained_backbone, backbone_weights)
        self.neck = Neck(size)
        width = max(c[0], 32)
        self.head = nn.ModuleList(HeadLevel(ci, width, num_classes, size in ("p", "n")) for ci in c)

    def forward(self, images: Tensor) -> dict[str, Any]:
        """Raw predictions of every anchor point.

        Args:
            images: float (B, 3, H, W) in [0, 1], sides multiples of 32.

        Returns:
            logits (B, A, K); boxes (B, A, 4) xyxy pixels; points (A, 2) pixels; strides (A,), with
            A = sum of H W / s^2 over the strides.
        """
        features = self.neck(self.backbone(images))
        levels = [head(f) for head, f in zip(self.head, features, strict=True)]
        logits = torch.cat([c for c, _ in levels], 1)
        raw = torch.cat([b for _, b in levels], 1)
        shapes = [(int(f.shape[2]), int(f.shape[3])) for f in features]
        points, strides = anchor_points(shapes, raw.device)
        return {"logits": logits, "boxes": decode(raw, points, strides), "points": points, "strides": strides}


def anchor_points(shapes: list[tuple[int, int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Centres (A, 2) of all cells in pixels, x first, and their strides (A,)."""
    points, strides = [], []
    for (height, width), stride in zip(shapes, STRIDES, strict=True):
        y = (torch.arange(height, device=device, dtype=torch.float32) + 0.5) * stride
        x = (torch.arange(width, device=device, dtype=torch.float32) + 0.5) * stride
        points.append(torch.stack(torch.meshgrid(x, y, indexing="xy"), -1).reshape(-1, 2))
        strides.append(torch.full((height * width,), float(stride), device=device))
    return torch.cat(points), torch.cat(strides)


def decode(raw: Tensor, points: Tensor, strides: Tensor) -> Tensor:
    """Boxes from raw distances to the four sides, in float32.

    `(l, t, r, b) = softplus(raw) * stride`, so a point always lies inside its own box: the IoU with an object around
    that point is never 0 and the plain power loss has a gradient at every positive.

    Args:
        raw: (B, A, 4).
        points: (A, 2) pixels.
        strides: (A,) pixels.

    Returns:
        xyxy pixels (B, A, 4).
    """
    with torch.autocast(raw.device.type, enabled=False):
        distances = F.softplus(raw.float()) * strides[:, None]
        return torch.cat([points - distances[..., :2], points + distances[..., 2:]], -1)
