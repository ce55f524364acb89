"""STS-Join: which trajectories were together, for how long, without seeing where anybody was exactly.

Chang, Qi, Tanin, Ma, Samet: "Sub-trajectory Similarity Join with Obfuscation", SSDBM 2021, arXiv 2106.03355.

    CDDS(A, B; delta)      = total time with |A(t) - B(t)| <= delta, both moving straight between points  -> cdds
    Join(Q, P; delta, eps) = { (q, p) : CDDS(q, p; delta) >= eps }                                        -> join
    E = tolerance + radius >= sup_t |T(t) - T~(t)|,  T~ what a client reports of T                        -> obfuscate
    CDDS(A~, B~; delta - 2E) <= CDDS(A, B; delta) <= CDDS(A~, B~; delta + 2E)                          -> lower, upper
    prune if upper < eps, accept if lower >= eps, else ask the two clients                                -> JoinServer

Nothing is trained: `fit` goes once over the tracks and builds the index, a space-time hash in float64, which is what a
checkpoint holds. Hash, simplification and noise are this project's; the definition and the promises are the paper's.
Exact means to a nanosecond, for times and places as float64 holds them; see `cdds`.
"""

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
