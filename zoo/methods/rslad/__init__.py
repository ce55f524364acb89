"""RSLAD: a small network learns robustness from the soft labels of a robust one.

Zi, Zhao, Ma, Jiang: "Revisiting Adversarial Robustness Distillation: Robust Soft Labels Make Student Better", ICCV
2021, arXiv 2108.07969. Student S, frozen robust teacher T, p softmax of logits, KL(a || b) = sum_k a_k log(a_k / b_k):

    x'   = argmax over ||x' - x||_inf <= eps of KL(p_T(x) || p_S(x'))         -> RSLAD.worst_case
    L    = w KL(p_T(x) || p_S(x')) + (1 - w) KL(p_T(x) || p_S(x)),  w = 5/6   -> rslad_loss

T sees clean images only and no true label is used. The methods that the paper compares with are the same class with
another `method`; `RSLAD.baseline` has them, and `zoo.nn.adversarial_losses` their equations:

    sat     CE(S(x'), y)                                                     x' from CE        Madry et al. 2018
    trades  CE(S(x), y) + beta KL(p_S(x) || p_S(x'))                         x' from the KL    Zhang et al. 2019
    ard     (1 - a) CE(S(x), y) + a t^2 KL(p_T(x) || p_S(x'))                x' from CE        Goldblum et al. 2020
    iad     ard, its term + (1 - p_T(y | x')^b) KL(p_S(x) || p_S(x'))        x' from CE        Zhu et al. 2022, IAD-I
    natural CE(S(x), y)
"""

from zoo.methods.rslad.module import METHODS, RSLAD, rslad_loss

__all__ = ["METHODS", "RSLAD", "rslad_loss"]
