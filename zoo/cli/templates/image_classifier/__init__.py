"""New method: say in one sentence what it does and what it promises.

    Authors, "Title", venue year. Say which sections this package follows.

Equations, with the names of the code (those of the example, to be replaced):

    h = pool(relu(conv(x)))        features (n, width)               (1)   `Network`
    L = -log softmax(W h + b)[y]   cross-entropy                     (2)   `training_step`

Where the paper is silent: say what was chosen, and why.
"""

from zoo.cli.templates.image_classifier.module import NewMethod

__all__ = ["NewMethod"]
