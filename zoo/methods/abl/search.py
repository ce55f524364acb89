"""Search for a trigger: the smallest change that turns pictures into a class, for each class (Neural Cleanse).

Wang et al.: "Neural Cleanse: Identifying and Mitigating Backdoor Attacks in Neural Networks", IEEE S&P 2019. For a
class k, a mask m in [0, 1] (H, W) and a pattern r in [0, 1] (C, H, W) minimise

    CE(f((1 - m) x + m r), k) + lambda |m|_1

over pictures x of the other classes; lambda rises while almost all pictures are turned, and falls otherwise. A class
with a backdoor needs a much smaller mask than the others. With norms n_k = |m_k|_1 of the smallest mask that still
turns the pictures, the anomaly index of class k is (median(n) - n_k) / (1.4826 median|n - median(n)|): above 2 is an
outlier.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo import checks
from zoo.errors import BadInput

__all__ = ["TriggerSearch", "anomaly_index", "search_triggers"]

_CONSISTENT = 1.4826  # makes the median absolute deviation that of a normal distribution
_PATIENCE = 5  # steps in a row before lambda changes


@dataclass(frozen=True)
class TriggerSearch:
    """What a search returns.

    Attributes:
        masks: (K, H, W) in [0, 1].
        patterns: (K, C, H, W) in [0, 1].
        norms: (K,) sum of each mask.
        success: (K,) share of the pictures that each mask turns into its class.
        anomaly: (K,) anomaly index; above 2 means that the mask is suspiciously small.
    """

    masks: Tensor
    patterns: Tensor
    norms: Tensor
    success: Tensor
    anomaly: Tensor

    @property
    def outliers(self) -> list[int]:
        """Classes that a backdoor may lead to: small masks that do turn most of the pictures."""
        return [int(k) for k in ((self.anomaly > 2) & (self.success > 0.5)).nonzero().flatten()]


def anomaly_index(norms: Tensor) -> Tensor:
    """How many robust standard deviations each norm lies below the median, (K,).

    Args:
        norms: (K,).
    """
    middle = norms.quantile(0.5)  # of an even number, the mean of the two in the middle
    spread = _CONSISTENT * (norms - middle).abs().quantile(0.5)
    return (middle - norms) / spread.clamp(min=1e-12)


def search_triggers(
    model: Callable[[Tensor], Tensor],
    images: Tensor,
    labels: Tensor,
    *,
    steps: int = 300,
    batch_size: int = 64,
    lr: float = 0.1,
    cost: float = 1e-3,
    goal: float = 0.99,
    seed: int = 0,
) -> TriggerSearch:
    """Search a trigger for every class.

    Args:
        model: maps images (N, C, H, W) in [0, 1] to logits (N, K); in evaluation mode.
        images: (N, C, H, W) clean pictures, some hundred of all classes.
        labels: (N,).
        steps: of Adam, for each class.
        batch_size: pictures in a step.
        lr: learning rate.
        cost: lambda at the start.
        goal: share of a batch that counts as turned.
        seed: of the start and the batches.

    Raises:
        BadInput: if there are no pictures, or only of one class, or if their values are not in [0, 1].
    """
    checks.at_least("steps", steps, 1)
    checks.at_least("batch_size", batch_size, 1)
    if images.ndim != 4 or not 0 < len(images) == len(labels) or int(labels.min()) == int(labels.max()):
        raise BadInput(f"trigger search needs pictures (N, C, H, W) of several classes, got {tuple(images.shape)}.")
    if not images.is_floating_point() or not bool(((images >= 0) & (images <= 1)).all()):
        raise BadInput(
            "trigger search needs pictures of floating-point values in [0, 1], as the masks and patterns are, got "
            f"{images.dtype} from {images.min().item():g} to {images.max().item():g}: divide bytes by 255."
        )
    draw = torch.Generator().manual_seed(seed)
    frozen = model.parameters() if isinstance(model, nn.Module) else ()
    flags = [(p, p.requires_grad) for p in frozen]
    for parameter, _ in flags:
        parameter.requires_grad_(False)
    try:
        with torch.inference_mode(False), torch.enable_grad():
            classes = model(images[:1].clone()).shape[1]
            results = []
            for k in range(classes):
                others = images[labels != k].clone()
                results.append(_search(model, others, k, steps, batch_size, lr, cost, goal, draw))
    finally:
        for parameter, flag in flags:
            parameter.requires_grad_(flag)
    masks, patterns, success = (torch.stack(part) for part in zip(*results, strict=True))
    norms = masks.sum((1, 2))
    return TriggerSearch(masks, patterns, norms, success, anomaly_index(norms))


def _search(
    model: Callable[[Tensor], Tensor],
    x: Tensor,
    target: int,
    steps: int,
    batch_size: int,
    lr: float,
    cost: float,
    goal: float,
    draw: torch.Generator,
) -> tuple[Tensor, Tensor, Tensor]:
    """Smallest mask (H, W) that turns almost all pictures into a class, its pattern, and what share it turns."""
    size = x.shape[1:]
    raw = torch.randn(1 + size[0], *size[1:], generator=draw).to(x.device).requires_grad_()
    optimizer = torch.optim.Adam([raw], lr=lr, betas=(0.5, 0.9))
    best: tuple[float, Tensor] = (float("inf"), raw.detach().clone())
    above = below = 0
    for _ in range(steps):
        part = x[torch.randint(len(x), (min(batch_size, len(x)),), generator=draw).to(x.device)]
        mask, pattern = raw[0].sigmoid(), raw[1:].sigmoid()
        logits = model((1 - mask) * part + mask * pattern).float()
        wanted = torch.full((len(part),), target, device=x.device)
        turned = (logits.argmax(1) == target).float().mean().item()
        norm = mask.sum()
        if turned >= goal and norm.item() < best[0]:
            best = (norm.item(), raw.detach().clone())
        above, below = (above + 1, 0) if turned >= goal else (0, below + 1)
        if above >= _PATIENCE or below >= _PATIENCE:
            cost, above, below = cost * 1.5 if above else cost / 1.5**1.5, 0, 0
        loss: Tensor = F.cross_entropy(logits, wanted) + cost * norm
        raw.grad = torch.autograd.grad(loss, raw)[0]
        optimizer.step()
    chosen = best[1] if best[0] < float("inf") else raw.detach()
    mask, pattern = chosen[0].sigmoid(), chosen[1:].sigmoid()
    with torch.no_grad():
        said = model((1 - mask) * x + mask * pattern).argmax(1)
    return mask, pattern, (said == target).float().mean()
