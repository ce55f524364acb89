"""FedKL: clients keep a key and two small layers to themselves, without which shared gradients say little about data.

Ren, Deng, Xie, Ma, Ma: "Gradient Leakage Defense with Key-Lock Module for Federated Learning", 2023, arXiv 2305.04095.
Gradients of a layer z = W x + b are functions of its input x, and of the true network an attacker can compute them for
any guess of x. In a locked layer a client's private key k, drawn once, decides how the normalised map is scaled:

    (1)  z    = W * x + b                     the convolution, shared
    (2)  zn   = (z - mean(z)) / std(z)        batch normalisation without parameters
    (3)  g    = act(A k + a)                  scale, one number for each channel; A, a: private lock layer
    (4)  h    = act'(B k + b')                shift; B, b': private lock layer
    (5)  out  = g zn + h

(`KeyLock2d`). The first convolution is locked, or with `layers: all` every one; then (g, h) of a block are the keys of
the next. A round is one of federated averaging (`FedKL`): client i loads the shared weights, puts its own lock back,
trains both on its data, and sends the shared weights only. Without lock, (5) is out = zn.

    official    act = act' = ReLU, keys uniform on [0, 1): half of the channels start closed, and two such keys have a
                cosine of 0.75, so that a wrong key in the right lock is nearly right
    strong      act = softplus with a = log(e - 1), so that g starts near 1; act' = identity; keys of +-1, of mean zero

This is no encryption: nothing is proven, and a client that takes part knows the shared weights and how locks are made.
"""

from zoo.methods.fedkl.lock import KeyLock2d, LockedNetwork, lockify
from zoo.methods.fedkl.module import PRESETS, FedKL

__all__ = ["PRESETS", "FedKL", "KeyLock2d", "LockedNetwork", "lockify"]
