"""RobustWRN: where a wide residual network spends its width and depth decides how robust it becomes.

Huang, Wang, Erfani, Gu, Bailey, Ma: "Exploring Architectural Ingredients of Adversarially Robust Deep Neural Networks",
NeurIPS 2021, arXiv 2110.03825. Three stages of widths 16 k1, 32 k2, 64 k3 and depths d1, d2, d3:

    more parameters do not necessarily help; less capacity in the last stage can;
    R: k3 = 2/5 k1 = 2/5 k2, so that 34-R has (k1, k2, k3) = (20, 20, 8)          -> RobustWideResNet, CONFIGURATIONS

The network f is trained on x' = argmax over ||x' - x||_inf <= eps by one of three criteria, which all networks share
(`zoo.nn.adversarial_losses`; p and q are the softmax of f(x) and f(x')):

    sat     CE(f(x'), y)                                x' from CE, start x + step N(0, I)         Madry et al. 2018
    trades  CE(f(x), y) + beta KL(p || q)               x' from the KL, start x + 0.001 N(0, I)    Zhang et al. 2019
    mart    BCE(f(x'), y) + beta KL(p || q) (1 - p_y)   x' from CE, as sat                         Wang et al. 2020

The learning rate falls to a tenth at 75 % and to a hundredth at 90 % of the epochs. The paper explains the gain by the
local Lipschitz constant, smaller for networks that are narrow at their end:

    L(x) = ||f(x) - f(x')||_1 / ||x - x'||_inf, x' by PGD                             -> local_lipschitz
"""

from zoo.methods.robust_wrn.lipschitz import local_lipschitz
from zoo.methods.robust_wrn.module import RobustWRN
from zoo.methods.robust_wrn.network import ACTIVATIONS, CONFIGURATIONS, Configuration, RobustWideResNet, multiply_adds

__all__ = [
    "ACTIVATIONS",
    "CONFIGURATIONS",
    "Configuration",
    "RobustWRN",
    "RobustWideResNet",
    "local_lipschitz",
    "multiply_adds",
]
