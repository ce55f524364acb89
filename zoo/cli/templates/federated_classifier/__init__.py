"""New method: say in one sentence what it does and what it promises.

    Authors, "Title", venue year. Say which sections this package follows.

Equations, with the names of the code (those of the example, to be replaced):

    w_k = argmin of cross-entropy on client k, from w, by SGD         (1)   `local_training` of the base
    w   = sum_k n_k w_k / sum_k n_k                                   (2)   `make_rule`

Where the paper is silent: say what was chosen, and why.
"""

from zoo.cli.templates.federated_classifier.module import NewMethod

__all__ = ["NewMethod"]
