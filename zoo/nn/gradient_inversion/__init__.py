"""Pictures from gradients: what an attacker who sees the gradient of a batch can reconstruct of it.

The attacker knows the network and the gradient g of the loss on private pictures, draws dummy pictures x', and moves
them until their gradient matches:

    DLG          min  sum_l ||g_l(x', y') - g_l||^2, y' free or known, L-BFGS        Zhu, Liu, Han 2019
    iDLG         as DLG, with the label read off the gradient of the last layer      Zhao, Mopuri, Bilen 2020
    inverting    min  1 - cos(g(x', y), g) + w TV(x'), Adam on the signs             Geiping et al. 2020

`invert` does all three; `SETTINGS` holds them. A network is a function of pictures to logits, so that the caller
decides what of it is known. The functions keep the network's parameters as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo import checks
from zoo.errors import BadInput

__all__ = [
    "DISTANCES",
    "SETTINGS",
    "Inversion",
    "Settings",
    "cosine_distance",
    "gradient_of",
    "infer_label",
    "invert",
    "label_counts",
    "parameters_of",
    "squared_distance",
    "total_variation",
]


@dataclass(frozen=True)
class Settings:
    """How dummy pictures are moved.

    Attributes:
        optimizer: `lbfgs`, or `adam`.
        steps: of the optimiser; one of L-BFGS computes up to 20 gradients.
        lr: its rate.
        distance: of gradients, `squared` or `cosine`.
        tv: weight of the total variation.
        signs: whether Adam gets the signs of the gradient only.
        start: `normal` or `uniform` numbers to start from.
        clip: whether pictures are kept within [0, 1] after each step.
    """

    optimizer: str = "lbfgs"
    steps: int = 100
    lr: float = 1.0
    distance: str = "squared"
    tv: float = 0.0
    signs: bool = False
    start: str = "normal"
    clip: bool = False

    def __post_init__(self) -> None:
        checks.one_of("optimizer", self.optimizer, ("lbfgs", "adam"))
        checks.one_of("distance", self.distance, DISTANCES)
        checks.one_of("start", self.start, ("normal", "uniform"))
        checks.at_least("steps", self.steps, 1)
        checks.above("lr", self.lr, 0)
        checks.at_least("tv", self.tv, 0)


@dataclass
class Inversion:
    """What an attack has reconstructed.

    Attributes:
        image: (N, C, H, W).
        label: (N,), given, inferred or optimised.
        distance: of the gradients in the end, without the total variation.
        curve: (step, distance) now and then.
        extra: further variables that were optimised.
    """

    image: Tensor
    label: Tensor
    distance: float
    curve: list[tuple[float, float]] = field(default_factory=list)
    extra: list[Tensor] = field(default_factory=list)


# Gradients --------------------------------------------------------------------------------------------------------


def gradient_of(
    network: Callable[[Tensor], Tensor],
    parameters: Sequence[Tensor],
    image: Tensor,
    label: Tensor,
    *,
    create_graph: bool = False,
) -> tuple[Tensor, ...]:
    """Gradient of the mean cross-entropy with respect to parameters; zeros for those that do not matter.

    Args:
        network: pictures (N, C, H, W) -> logits (N, K).
        parameters: of which the gradient is taken.
        image: (N, C, H, W).
        label: (N,) classes, or (N, K) probabilities.
        create_graph: whether the result can be differentiated again.
    """
    with torch.enable_grad():
        loss = F.cross_entropy(network(image), label)
        gradients = torch.autograd.grad(loss, list(parameters), create_graph=create_graph, allow_unused=True)
    return tuple(torch.zeros_like(p) if g is None else g for g, p in zip(gradients, parameters, strict=True))


def squared_distance(first: Sequence[Tensor], second: Sequence[Tensor]) -> Tensor:
    """Sum of the squared differences of all entries."""
    return torch.stack([((a - b) ** 2).sum() for a, b in zip(first, second, strict=True)]).sum()


def cosine_distance(first: Sequence[Tensor], second: Sequence[Tensor]) -> Tensor:
    """1 - cos of the two gradients as single vectors, in [0, 2]."""
    dot = torch.stack([(a * b).sum() for a, b in zip(first, second, strict=True)]).sum()
    norms = [torch.stack([(g**2).sum() for g in side]).sum().sqrt() for side in (first, second)]
    return 1 - dot / (norms[0] * norms[1]).clamp_min(torch.finfo(dot.dtype).tiny)


DISTANCES: dict[str, Callable[[Sequence[Tensor], Sequence[Tensor]], Tensor]] = {
    "squared": squared_distance,
    "cosine": cosine_distance,
}
"""Distances of gradients by name."""


def total_variation(image: Tensor) -> Tensor:
    """Mean absolute difference of neighbours downwards plus that to the right, of pictures (N, C, H, W)."""
    return image.diff(dim=2).abs().mean() + image.diff(dim=3).abs().mean()


SETTINGS = {
    "dlg": Settings(),
    "idlg": Settings(),
    "inverting": Settings("adam", steps=2000, lr=0.1, distance="cosine", tv=1e-6, signs=True, clip=True),
}
"""The attacks of the literature by name; iDLG is DLG with the inferred label."""


# Labels -----------------------------------------------------------------------------------------------------------


def infer_label(bias_gradient: Tensor) -> Tensor:
    """The class (1,) of a single picture from the gradient (K,) of the last layer's bias: its only negative entry.

    The gradient is p - onehot(y) with p the softmax, so that the entry of the true class alone is below zero.
    """
    return bias_gradient.argmin().view(1)


def label_counts(bias_gradient: Tensor, count: int) -> Tensor:
    """Classes (count,) of a batch from the gradient (K,) of the last layer's bias, in ascending order.

    One picture of a class moves its entry by about -1/count, so the lowest entry is counted and raised by that, as
    often as there are pictures. Exact where the network has learned nothing yet and predicts all classes alike.

    Args:
        bias_gradient: of the mean loss.
        count: number of pictures.
    """
    left, classes = bias_gradient.detach().clone(), []
    for _ in range(count):
        lowest = int(left.argmin())
        classes.append(lowest)
        left[lowest] += 1 / count
    return torch.tensor(sorted(classes))


# Attack -----------------------------------------------------------------------------------------------------------


def invert(
    network: Callable[[Tensor], Tensor],
    parameters: Sequence[Tensor],
    target: Sequence[Tensor],
    shape: Sequence[int],
    label: Tensor | None = None,
    *,
    settings: Settings | str = "dlg",
    num_classes: int | None = None,
    extra: Sequence[Tensor] = (),
    seed: int = 0,
    steps: int | None = None,
) -> Inversion:
    """Reconstruct pictures from a gradient.

    Args:
        network: pictures -> logits, as far as the attacker knows it; it may use the tensors of `extra`.
        parameters: those whose gradient is known.
        target: their gradient, of the mean cross-entropy of the private batch.
        shape: (N, C, H, W) of the pictures.
        label: (N,) classes, where they are known; None: they are optimised, too, as DLG does.
        settings: of the optimisation, or a name of `SETTINGS`.
        num_classes: K; needed without labels.
        extra: variables that are optimised jointly, such as a guessed key; leaves that require gradients.
        seed: of the dummy pictures.
        steps: in place of those of the settings.

    Returns:
        The pictures with the smallest distance on the way; a run that diverges keeps those from before.

    Raises:
        BadInput: if gradients and parameters do not fit, or labels are missing.
    """
    how = SETTINGS[settings] if isinstance(settings, str) else settings
    how = how if steps is None else replace(how, steps=steps)
    if [t.shape for t in target] != [p.shape for p in parameters]:
        raise BadInput(f"target: expected {len(parameters)} gradients of the shapes of the parameters.")
    if label is None and num_classes is None:
        raise BadInput("num_classes is needed where the labels are optimised.")
    draw = torch.Generator().manual_seed(seed)
    device, kind = parameters[0].device, parameters[0].dtype
    made = torch.randn if how.start == "normal" else torch.rand
    image = made(tuple(shape), generator=draw).to(device, kind).requires_grad_()
    variables, soft = [image, *extra], None
    if label is None:
        soft = torch.randn(shape[0], int(num_classes or 0), generator=draw).to(device, kind).requires_grad_()
        variables.append(soft)
    best = _minimise(network, parameters, [t.detach() for t in target], image, label, soft, variables, how)
    return Inversion(best.image, best.label, best.distance, best.curve, [e.detach().clone() for e in extra])


def _minimise(
    network: Callable[[Tensor], Tensor],
    parameters: Sequence[Tensor],
    target: Sequence[Tensor],
    image: Tensor,
    label: Tensor | None,
    soft: Tensor | None,
    variables: list[Tensor],
    how: Settings,
) -> Inversion:
    """Move the variables; `soft` holds the logits of labels that are not known."""
    best = Inversion(image.detach().clone(), torch.zeros(len(image), dtype=torch.long), float("inf"))
    optimizer: torch.optim.Optimizer = (
        torch.optim.LBFGS(variables, lr=how.lr) if how.optimizer == "lbfgs" else torch.optim.Adam(variables, lr=how.lr)
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        wanted = label if soft is None else soft.softmax(1)
        assert wanted is not None
        gradients = gradient_of(network, parameters, image, wanted, create_graph=True)
        distance = DISTANCES[how.distance](gradients, target)
        loss = distance + how.tv * total_variation(image) if how.tv else distance
        for variable, gradient in zip(variables, torch.autograd.grad(loss, variables), strict=True):
            variable.grad = gradient.sign() if how.signs and variable is image else gradient
        value = float(distance.detach())
        if value < best.distance:
            classes = wanted.argmax(1) if soft is not None else wanted
            best.image, best.label, best.distance = image.detach().clone(), classes.detach().clone(), value
        return loss.detach()

    with torch.enable_grad():
        for step in range(how.steps):
            loss = float(optimizer.step(closure))  # type: ignore[arg-type]
            if how.clip:
                with torch.no_grad():
                    image.clamp_(0, 1)
            if step % max(1, how.steps // 20) == 0:
                best.curve.append((float(step), best.distance))
            if not loss < float("inf"):
                break  # diverged: L-BFGS without line search may
    return best


def parameters_of(network: nn.Module) -> list[Tensor]:
    """What a client trains of a network, in the order of its gradient."""
    return [p for p in network.parameters() if p.requires_grad]
