"""What can be said about the suppression without training anything."""

from __future__ import annotations

import torch

from zoo.methods.cas.module import CAS
from zoo.studies import Outcome, study

__all__ = ["extra_parameters"]


@study("parameters")
def extra_parameters(network: str = "cifar-resnet18", channels: int = 3, img_size: int = 32) -> Outcome:
    """Parameters that the suppression adds to a network."""
    with torch.device("meta"):
        model = CAS(network=network, channels=channels, img_size=img_size)
    return Outcome({"parameters": float(sum(p.numel() for p in model.suppressions.parameters()))})
