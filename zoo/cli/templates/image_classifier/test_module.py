"""The equations of new-method, against the paper or a slow reference."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from zoo.cli.templates.image_classifier.module import NewMethod


def test_network_is_the_equation() -> None:
    """A literal reference; replace it by the equations of the paper."""
    torch.manual_seed(0)
    model = NewMethod(width=4).eval()
    (x,) = model.example_input()
    state = model.state_dict()
    hidden = F.conv2d(x, state["network.conv.weight"], state["network.conv.bias"], padding=1).relu().mean((2, 3))
    torch.testing.assert_close(model(x), hidden @ state["network.linear.weight"].T + state["network.linear.bias"])
