"""Soft ROCKET: random convolution kernels with a pooling that gradients pass, and a ridge head in closed form.

Milne, Xie: "Predicting Surface Texture in Steel Manufacturing at Speed", 2023, arXiv 2301.08527; kernels of ROCKET
(Dempster, Petitjean, Webb, DMKD 2020). With z the responses of a kernel to a series x:

    f    = [ppv_0, max_0, ppv_1, max_1, ...],  max = max_t z                       -> zoo.nn.rocket.Rocket
    ppv  = mean_t 1[z > 0]  (hard)   or   mean_t sigmoid(lambda z - beta)  (soft)
    s    = (f - mean) / scale @ w + b,  w in closed form, penalty by leave-one-out -> zoo.nn.ridge.Ridge
    L    = CE(T s, y)  or  Huber(s, y)                                             -> SoftRocket.tuning_loss
    L + 1e-3 ||w_kernel - w_kernel at start||^2  is minimised, then w solved again -> zoo.nn.rocket.RocketTuner

Frozen kernels need one epoch. With `tune_epochs`, kernels, lambda and head then follow the gradient; the head is solved
again for the tuned kernels; and of all models of the run the one that validates best is what remains.
"""

from zoo.methods.soft_rocket.module import SoftRocket

__all__ = ["SoftRocket"]
