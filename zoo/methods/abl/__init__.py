"""ABL, anti-backdoor learning: a clean classifier from data of which an unknown part carries a backdoor.

Li, Lyu, Koren, Lyu, Li, Ma: "Anti-Backdoor Learning: Training Clean Models on Poisoned Data", NeurIPS 2021, arXiv
2110.11571. Pictures with a trigger are learned much faster than the others, so a network that trains for a few epochs
recognises them by their loss, and forgets the backdoor when it then unlearns the pictures it knows best. T epochs, l
the cross-entropy, gamma the floor of the loss, p the share that is isolated:

    epochs < T_te   L1 = sign(l - gamma) l              local gradient ascent (LGA)     -> losses.isolation_loss
                    L1 = |l - gamma| + gamma            flooding, its alternative
    at T_te         D_b = the floor(p n) training pictures of lowest l, D_c the others  -> isolation.lowest
    then            L2 = E_{D_c}[l]                     fine-tuning                     -> ABL.training_step
    at last         L2 = -E_{D_b}[l]                    unlearning, global gradient ascent

One `fit` goes through the three phases by the number of the epoch. The data module hands out the part that a phase
trains on; isolation works with the numbers of the pictures, never with copies of them.

The paper writes L2 = E_{D_c}[l] - E_{D_b}[l] in one line; in its code the two follow each other, as here. L1 reads per
sample, and is computed from the mean of a batch in all code in circulation: `reduction` chooses, and the default is the
mean. Our own choices: the training set is shuffled in all phases; accuracy counts all classes (the code in circulation
leaves out the target class, whose recall is what ascent may destroy; `accuracy_without_target` is that number).
"""

from zoo.methods.abl.isolation import Isolation, lowest
from zoo.methods.abl.losses import isolation_loss
from zoo.methods.abl.module import ABL

__all__ = ["ABL", "Isolation", "isolation_loss", "lowest"]
