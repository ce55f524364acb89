"""What can be said about the network without training anything."""

from __future__ import annotations

from zoo.methods.dh_at.network import Aggregator
from zoo.studies import Outcome, study

__all__ = ["aggregator_parameters"]


@study("parameters")
def aggregator_parameters(num_classes: int = 10) -> Outcome:
    """Parameters of the network that merges the heads."""
    return Outcome({"parameters": float(sum(p.numel() for p in Aggregator(num_classes).parameters()))})
