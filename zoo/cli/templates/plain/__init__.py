"""New method: say in one sentence what it does and what it promises.

    Authors, "Title", venue year. Say which sections this package follows.

Equations, with the names of the code (those of the example, to be replaced):

    h = relu(W1 x + b1)        hidden features         (1)   `Network`
    o = W2 h + b2              outputs                 (2)   `forward`
    L = |o - y|^2 / m          squared error           (3)   `training_step`

Where the paper is silent: say what was chosen, and why.
"""

from zoo.cli.templates.plain.module import NewMethod

__all__ = ["NewMethod"]
