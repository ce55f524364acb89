"""CAS: channels that do not belong to the predicted class are suppressed, in late layers of a robust classifier.

Bai, Zeng, Jiang, Xia, Ma, Wang: "Improving Adversarial Robustness via Channel-wise Activation Suppressing", ICLR 2021,
arXiv 2103.08307. Adversarial training lowers the activation of all channels, but attacked images still excite channels
that natural ones of their class do not. An auxiliary classifier at S late places sees the mean of each channel, and
the row of its weights that belongs to a class multiplies the channels:

    g  = spatial mean of f                         f (N, C, H, W) a feature map
    a  = W g + b                                   auxiliary logits (N, K)
    f' = f W[c],  c = y in training, argmax a else                            -> ChannelSuppression
    L  = l(z) + b_c / S sum_s l(a_s)                                          -> CAS.over_heads

l is the criterion of the training, on the final logits z and on each of the auxiliary ones; the attack of the training
increases the same sum, through the mask of the predicted class:

    sat     CE(x')                                                                       x' from CE
    trades  CE(x) + beta KL(p(x) || p(x'))                                               x' from the KL
    mart    BCE(x') + beta KL(p(x) || p(x')) (1 - p_y(x)), p_y of the final logits       x' from CE

What the paper leaves open, and what is done here: where the mask sits in other networks than the three of the paper
(before the head alone); W is part of the same weight decay as everything else, as in the authors' code; the epochs of
their adversarial training, 200, are 120 here, since it overfits after the second drop of the rate. The mask jumps where
the largest auxiliary logit changes, which hides gradients: `zoo.methods.cas.robustness` has the attacks that aim at it.
"""

from zoo.methods.cas.module import CAS
from zoo.methods.cas.suppression import ChannelSuppression

__all__ = ["CAS", "ChannelSuppression"]
