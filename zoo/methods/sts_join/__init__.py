"""STS-Join: which trajectories were together, for how long, without seeing where anybody was exactly."""

from zoo.methods.sts_join.module import (
    CDDS,
    JoinResults,
    JoinServer,
    STSIndex,
    STSJoin,
    TrajectoryClient,
    cdds,
    cdds_intervals,
    clients_of,
    simplify,
    sts_join_bruteforce,
)

__all__ = [
    "CDDS",
    "JoinResults",
    "JoinServer",
    "STSIndex",
    "STSJoin",
    "TrajectoryClient",
    "cdds",
    "cdds_intervals",
    "clients_of",
    "simplify",
    "sts_join_bruteforce",
]
