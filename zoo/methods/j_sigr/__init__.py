"""J-SIGR: a classifier with flat logits, whose input gradients are kept only where its answer depends on the image.

Liu, Wu, Li, Boussaid, Bennamoun, Xie, Liang: "Jacobian norm with Selective Input Gradient Regularization for
interpretable adversarial defense", Pattern Recognition 145, 2024, arXiv 2207.13036. Without adversarial training, the
Jacobian of the network is kept small, and its input gradient is penalised where a perturbation of the image does not
change the answer, so that the gradient becomes a readable map. For a batch of N images x with labels y:

    L   = CE(f(x), y) + lam_J R_J + lam_S R_S                                            -> JSIGR.training_step
    R_J = mean ||J||_F^2,   J = df/dx (K x D), f the logits                              -> losses.jacobian_norm
          ||J||_F^2 ~ (K / n) sum_i ||d(v_i . f)/dx||^2, v_i random unit vectors of R^K
    S_g = 1/2 ||softmax f(x) - softmax f(x_g)||^2,  x_g = x (1 - M_g) + blur(x) M_g      -> perturbation_saliency
          M_g a Gaussian bump at the place g of a grid; enlarged, divided by its maximum
    m   = 1 where S < tau max S, else 0                                                  -> losses.selection
    R_S = mean ||m * G||_2^2,   G = d log p_y / dx                                       -> losses.selective_norm

S is computed for all training images every few epochs and cached by their numbers                -> cache.SaliencyCache

Why it should help: f(x + d) is about f(x) + J d, so an answer survives while ||d|| ||J_i - J_j|| is less than the
margin between the classes i and j; a smaller J flattens those directions that networks have in common, along which
examples made on another network transfer.

This is re-derived from the abstracts: the paper's method section was not available and its public code holds the attack
alone. Known from there are the two terms and that perturbation decides where gradients are penalised. Everything else
is our definition: logits rather than probabilities in J (those saturate, and the penalty would vanish for confident
images, which masks gradients), n = 1 random vector, the Gaussian grid, tau, weights, schedules.
"""

from zoo.methods.j_sigr.cache import SaliencyCache
from zoo.methods.j_sigr.losses import jacobian_norm, log_probability_gradient, selection, selective_norm
from zoo.methods.j_sigr.module import JSIGR

__all__ = ["JSIGR", "SaliencyCache", "jacobian_norm", "log_probability_gradient", "selection", "selective_norm"]
