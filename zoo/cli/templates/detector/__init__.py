"""New method: say in one sentence what it does and what it promises.

    Authors, "Title", venue year. Say which sections this package follows.

Equations, with the names of the code (those of the example, to be replaced):

    b = p + stride (-exp(l), -exp(t), exp(r), exp(d))   box of the point p       (1)   `raw`
    L = BCE(logits, points inside the boxes) + (1 - IoU of those points)  (2)   `loss`

Where the paper is silent: say what was chosen, and why.
"""

from zoo.cli.templates.detector.module import NewMethod

__all__ = ["NewMethod"]
