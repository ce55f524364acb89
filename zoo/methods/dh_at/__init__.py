"""DH-AT: two heads with different trades between accuracy and robustness, merged by a small network.

Jiang, Ma, Erfani, Bailey: "Dual Head Adversarial Training", IJCNN 2021, arXiv 2104.10377. A wide residual network is
split behind its first stage. Its second and third stage with the classifier are the main head; a second head of the
same form sees the same map; an aggregator turns both logits into one answer:

    h        = stage1(stem(x))                              shared                  -> DualHead.shared
    z1, z2   = main(h), second(h)                           (N, K) each             -> DualHead.heads
    u        = ReLU BN conv(z1, z2), 2 -> 8                 a vector of 8 for each class
    v        = BN conv(u_i, u_j), 2 -> 16                   for every pair of classes i < j, along the 8
    z        = linear(mean of neighbouring features of v)   (N, K)                  -> Aggregator

With l(f, beta) a criterion of adversarial training of a network f, for TRADES CE(f(x), y) + beta KL(p(x) || p(x')):

    staged   1. l(main, beta_main = 6), everything before it included
             2. l(second, beta_second = 3), stem, stage 1 and main head at rest
             3. l(z, beta_merged = 3), only the aggregator; the attack goes through both heads
    joint    b0 CE(z1) + b1 KL(p || q) + b2 (success + failure) + b3 KL(R(p, 0.9) || a)      -> dh_at.joint
    single   l(main, beta_main): the network of the comparison

What the paper leaves open, and what is done here. The published script trains the second head behind a stem of its own
and then puts it behind that of the main one; here it is trained behind the stem that it will see, which is the only
reading in which both belong together. A head at rest is in evaluation mode, so that its batch statistics stay, too.
The published aggregator pools 16 features with stride 2 but expects 8 values; 2 with stride 2 gives these. After the
joint strategy, whose aggregator is never trained, the mean of both logits is the answer.
"""

from zoo.methods.dh_at.module import DualHeadAT
from zoo.methods.dh_at.network import Aggregator, DualHead

__all__ = ["Aggregator", "DualHead", "DualHeadAT"]
