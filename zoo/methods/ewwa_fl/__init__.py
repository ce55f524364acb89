"""EWWA-FL: the server weights every element of the model by its own shares over the clients.

Hu, Ren, Hu, Deng, Xie: "An Element-Wise Weights Aggregation Method for Federated Learning", ICDM Workshops 2023, arXiv
2404.15919. A mean gives a client one weight for its whole model; where clients differ, shares per element are said to
learn faster and to end more accurate. In round t = 0, 1, ... clients i = 1..K return weights w_i, and per element

    (1)  g_i = w_t - w_i                             pseudo-gradient
    (2)  m_i = b1 m_i + (1 - b1) g_i                 first moment
    (3)  v_i = b2 v_i + (1 - b2) g_i^2               second moment: adam
               v_i + g_i^2                           adagrad
               v_i - (1 - b2) g_i^2 sign(v_i - g_i^2)   yogi
    (4)  u_i = s_t m_i / (sqrt(v_i) + eps)           normalised step, s_t = sqrt(1 - b2^(t+1)) / (1 - b1^(t+1))
    (5)  p_i = exp(u_i) / sum_j exp(u_j)             shares
    (6)  w_{t+1} = sum_i p_i w_i

which is `EWWA` in `rule.py`. The released code differs from this text in two respects; `variant` chooses:

    paper      as above
    official   (5) p_i = c_i / sum_j c_j, c_i = log(u_i - u_min + 1) + 1e-8, u_min over all clients and entries;
               (2), (3) one m and one v, which the clients update one after the other

Clients take one local epoch with an optimiser whose momentum persists over rounds (`EWWAFL`).
"""

from zoo.methods.ewwa_fl.module import EWWAFL, VARIANTS

__all__ = ["EWWAFL", "VARIANTS"]
