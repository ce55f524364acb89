"""New method: say in one sentence what it does and what it promises.

    Authors, "Title", venue year. Say which sections this package follows.

Equations, with the names of the code (those of the example, to be replaced):

    h = mean over time of relu(conv(x))    features (n, width)         (1)   `Network`
    o = W h + b                            logits, or values           (2)   `forward`
    L = cross-entropy, or squared error                                (3)   `training_step`

Where the paper is silent: say what was chosen, and why.
"""

from zoo.cli.templates.series.module import NewMethod

__all__ = ["NewMethod"]
