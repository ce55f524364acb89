"""New method: say in one sentence what it does and what it promises.

    Authors, "Title", venue year. Say which sections this package follows.

Equations, with the names of the code (those of the example, to be replaced):

    x' = argmax L_ce over ||x' - x||_inf <= eps                       (1)   `attack` of the base
    L = KL(softmax(f(x)) || softmax(f(x'))) beta + L_ce(f(x), y)      (2)   `loss`

Where the paper is silent: say what was chosen, and why.
"""

from zoo.cli.templates.adversarial_classifier.module import NewMethod

__all__ = ["NewMethod"]
