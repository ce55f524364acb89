"""ECG-ATK-GAN: a classifier of heartbeats that is the discriminator of a conditional GAN and knows attacked beats.

Hossain, Kamran, Tavakkoli, Ma: "ECG-ATK-GAN: Robustness Against Adversarial Attacks on ECGs Using Conditional
Generative Adversarial Networks", AMAI workshop at MICCAI 2022, arXiv 2110.09983. Beats are attacked on a plain
classifier once, before the training; clean and attacked beats together are E'. Each has a class y and a flag t, whether
it is attacked:

    D(x) = (s, a, c)    real or generated, attacked or not, class          -> network.Discriminator
    G(x, z, y)          another beat of the class                          -> network.Generator

    D step   MSE(s(x), 1) + CE(a(x), t) + CE(c(x), y), and for G(x, z, y) the same with 0 in place of 1
    G step   MSE(s(G), 1) + 10 CE(a(G), t) + 10 CE(c(G), y), with D frozen                             -> losses
    E'       FGSM, BIM, PGD with eps 0.01, C&W with eps 0.1, on the plain classifier                   -> crafting

`forward` gives the class logits, D alone predicts; G augments. The plain classifier is D's trunk and class head:
`gan=False, mix="none"`. `mix="online"` attacks the network as it stands in each step, which is no part of the paper.

Robust means robust to beats that were attacked on another network. An attacker who knows this network is another
matter: the card shows both.

Where the paper and its code are silent, or where its code is a slip, we chose:

- Each training beat has one attacked copy, its attack drawn by the beat's number; in each step half of the batch is
  attacked. BIM and PGD take 10 steps of eps / 4.
- The black-box attacks of the authors' code run with no iterations. They are left out of the mix; `square` and `smooth`
  may be added.
- z is uniform in [0, 1] after a Gaussian filter with sigma 4. The code draws zeros: `zero_latent=True`.
- D's running statistics are those of real beats: generated ones are normalised by their own batch and leave no trace.
  In the G step its dropout and statistics rest, and its gradient passes. s goes through a sigmoid, a and c are
  logits.
- 40 epochs of batch 128 at full scale; patients, not beats, are split; R peaks stand at the middle of a beat.
- The map of classes has K channels (the code's reshape fits K = 2 only); the skip of a residual block leaves after its
  convolution, as in the code, not from the block's input, as in the figure.
"""

from zoo.methods.ecg_atk_gan.crafting import ATTACKS, craft
from zoo.methods.ecg_atk_gan.losses import discriminator_loss, generator_loss
from zoo.methods.ecg_atk_gan.module import ECGATKGAN
from zoo.methods.ecg_atk_gan.network import Discriminator, Generator, smooth_latent

__all__ = [
    "ATTACKS",
    "ECGATKGAN",
    "Discriminator",
    "Generator",
    "craft",
    "discriminator_loss",
    "generator_loss",
    "smooth_latent",
]
