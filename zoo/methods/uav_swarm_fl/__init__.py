"""A swarm of UAVs learns one classifier from images that never leave them."""

from zoo.methods.uav_swarm_fl.module import ALGORITHMS, UAVSwarm

__all__ = ["ALGORITHMS", "UAVSwarm"]
