"""The equations of new-method, against the paper or a slow reference."""

from __future__ import annotations

import torch

from zoo.cli.templates.plain.module import NewMethod


def test_network_is_the_equation() -> None:
    """A literal reference; replace it by the equations of the paper."""
    torch.manual_seed(0)
    model = NewMethod(width=4).eval()
    (x,) = model.example_input()
    body, head = (model.network.get_submodule(name) for name in ("body", "head"))
    w1, b1 = (body.get_parameter(name) for name in ("weight", "bias"))
    w2, b2 = (head.get_parameter(name) for name in ("weight", "bias"))
    torch.testing.assert_close(model(x), (x @ w1.T + b1).relu() @ w2.T + b2)
