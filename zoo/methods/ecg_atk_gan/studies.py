"""What of the claims needs no training."""

from __future__ import annotations

import torch

from zoo.methods.ecg_atk_gan.network import Discriminator, Generator
from zoo.studies import Outcome, study

__all__ = ["network_parameters"]


@study("parameters")
def network_parameters(part: str = "discriminator", num_classes: int = 4, length: int = 280) -> Outcome:
    """Parameters of one of both networks."""
    made = {"discriminator": Discriminator, "generator": Generator}[part]
    with torch.device("meta"):
        network = made(num_classes, length=length)
    return Outcome({"parameters": float(sum(p.numel() for p in network.parameters()))})
