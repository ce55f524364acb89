"""A swarm of UAVs learns one classifier from images that never leave them.

Hu, Ren, Deng, Xie: "Distributed Learning for UAV Swarms", 2024, arXiv 2410.15882, compares four algorithms on such
swarms. With weights w_t of round t, w_k of client k after its local training, n_k its samples, p_k = n_k / sum n:

    fedavg      w_{t+1} = sum_k p_k w_k                                                      McMahan et al. 2017
    fedprox     clients minimise L_k(w) + mu/2 ||w - w_t||^2; then fedavg                    Li et al. 2020
    fedadam     d = sum_k p_k (w_k - w_t);  m = b1 m + (1 - b1) d;  v = b2 v + (1 - b2) d^2; Reddi et al. 2021
                w_{t+1} = w_t + eta m / (sqrt(v) + tau)
    fedadagrad  v = v + d^2
    fedyogi     v = v - (1 - b2) d^2 sign(v - d^2)
    moon        clients minimise L_k(w) + mu l_con (below); then      fedavg               Li, He, Song 2021

The server's part is in `zoo.federated.rules`, the clients' in `zoo.federated.clients` (l_con: `Moon`). Who takes part
in a round, whose link fails and who is slow are arguments of the data module.
"""

from zoo.methods.uav_swarm_fl.module import ALGORITHMS, UAVSwarm

__all__ = ["ALGORITHMS", "UAVSwarm"]
