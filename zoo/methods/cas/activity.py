"""How active the channels of a layer are, on natural and on attacked images (section 3 of the paper)."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric

__all__ = ["NAMES", "ChannelActivity"]

NAMES = ("activation_ratio", "uniformity", "uniformity_gain", "activity_gap")
"""What `ChannelActivity` computes."""

THRESHOLD = 0.01
"""Share of an image's largest channel from which on a channel counts as active, as in the authors' code."""


class ChannelActivity(Metric):
    """Magnitude and frequency of channels, natural against attacked.

    A channel of an image is active if it exceeds 1 % of the image's largest channel. For each class k, f_k (C,) is the
    share of its images in which each channel is active.

    Args:
        num_classes: K.
    """

    full_state_update = False
    classes: Tensor
    natural: Tensor
    attacked: Tensor
    magnitudes: Tensor

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.add_state("classes", torch.zeros(num_classes), dist_reduce_fx="sum")
        # the number of channels is that of the first batch; a rank without one adds nothing
        for name in ("natural", "attacked"):
            self.add_state(name, torch.zeros(num_classes, 1), dist_reduce_fx="sum")
        self.add_state("magnitudes", torch.zeros(2), dist_reduce_fx="sum")

    def update(self, natural: Tensor, attacked: Tensor, label: Tensor) -> None:
        """Add a batch.

        Args:
            natural: channels (N, C) of the images.
            attacked: those of the attacked images.
            label: (N,).
        """
        self.classes = self.classes + torch.bincount(label, minlength=self.num_classes).to(self.classes)
        for name, channels in (("natural", natural), ("attacked", attacked)):
            values = channels.float()
            active = (values > THRESHOLD * values.amax(1, keepdim=True)).to(self.classes)
            counts = values.new_zeros(self.num_classes, values.shape[1]).index_add_(0, label, active)
            setattr(self, name, getattr(self, name) + counts)
        self.magnitudes = self.magnitudes + torch.stack([natural.float().abs().sum(), attacked.float().abs().sum()])

    def frequencies(self) -> tuple[Tensor, Tensor]:
        """f_k (K, C) of natural and of attacked images; 0 for a class without images."""
        count = self.classes.clamp_min(1)[:, None]
        return self.natural / count, self.attacked / count

    def compute(self) -> dict[str, Tensor]:
        """Numbers by name.

        Returns:
            activation_ratio: mean absolute channel of attacked over that of natural images; uniformity: entropy of
            f_k / sum f_k over log C of natural images, mean over classes, 1 where all channels are equally often
            active; uniformity_gain: what attacked images have more of it; activity_gap: mean over classes and channels
            of |f_k - f_k attacked|.
        """
        there = self.classes > 0
        natural, attacked = (f[there] for f in self.frequencies())
        ratio = self.magnitudes[1] / self.magnitudes[0].clamp_min(1e-12)
        gap = (natural - attacked).abs().mean()
        uniformity = _uniformity(natural)
        return dict(zip(NAMES, (ratio, uniformity, _uniformity(attacked) - uniformity, gap), strict=True))


def _uniformity(frequency: Tensor) -> Tensor:
    """Entropy of frequencies (K, C), each row scaled to a distribution, over that of the uniform one; mean over K."""
    share = frequency / frequency.sum(1, keepdim=True).clamp_min(1e-12)
    entropy = -torch.xlogy(share, share).sum(1)
    return (entropy / torch.log(torch.tensor(float(max(2, frequency.shape[1]))))).mean()
