"""Gradient matching: distances and labels against their formulas, and pictures that come back."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.errors import BadInput
from zoo.nn.classifiers import create_classifier
from zoo.nn.gradient_inversion import (
    SETTINGS,
    Settings,
    cosine_distance,
    gradient_of,
    infer_label,
    invert,
    label_counts,
    parameters_of,
    squared_distance,
    total_variation,
)


def victim(seed: int = 0) -> nn.Module:
    """The network of DLG with its wide weights."""
    torch.manual_seed(seed)
    network = create_classifier("strided-lenet", 10, 1, img_size=12)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.uniform_(-0.5, 0.5)
    return network


def test_gradient_is_that_of_backward() -> None:
    network = victim()
    x, y = torch.rand(3, 1, 12, 12), torch.tensor([1, 2, 2])
    found = gradient_of(network, parameters_of(network), x, y)
    F.cross_entropy(network(x), y).backward()
    for gradient, parameter in zip(found, network.parameters(), strict=True):
        assert torch.equal(gradient, parameter.grad)
    soft = gradient_of(network, parameters_of(network), x, F.one_hot(y, 10).float())
    assert all(torch.allclose(a, b, atol=1e-7) for a, b in zip(found, soft, strict=True))


def test_distances() -> None:
    a, b = [torch.tensor([1.0, 2.0]), torch.tensor([[3.0]])], [torch.tensor([1.0, 0.0]), torch.tensor([[-1.0]])]
    assert float(squared_distance(a, b)) == pytest.approx(4 + 16)
    assert float(cosine_distance(a, b)) == pytest.approx(1 - (1 - 3) / (14**0.5 * 2**0.5))
    assert float(cosine_distance(a, [3 * v for v in a])) == pytest.approx(0, abs=1e-6)
    zeros = [torch.zeros(2), torch.zeros(1, 1)]
    assert torch.isfinite(cosine_distance(a, zeros))
    image = torch.tensor([[[[0.0, 1.0], [2.0, 4.0]]]])
    assert float(total_variation(image)) == pytest.approx((2 + 3) / 2 + (1 + 2) / 2)


def test_the_label_of_one_picture_is_the_negative_entry() -> None:
    network = victim()
    for label in range(10):
        y = torch.tensor([label])
        *_, bias = gradient_of(network, parameters_of(network), torch.rand(1, 1, 12, 12), y)
        assert torch.equal(infer_label(bias), y)
        assert int((bias < 0).sum()) == 1


def test_labels_of_a_batch_are_counted() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 6))
    with torch.no_grad():
        network[1].weight.mul_(0.01)
        network[1].bias.zero_()
    y = torch.tensor([0, 0, 0, 3, 5])
    *_, bias = gradient_of(network, parameters_of(network), torch.rand(5, 1, 2, 2), y)
    assert label_counts(bias, 5).tolist() == y.tolist()


def test_a_linear_layer_with_bias_gives_its_input_away() -> None:
    """dL/dW = dL/dz x^T and dL/db = dL/dz: the ratio is the input, to rounding."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    x = torch.rand(1, 1, 4, 4)
    weight, bias = gradient_of(network, parameters_of(network), x, torch.tensor([1]))
    assert torch.allclose(weight[0] / bias[0], x.flatten(), atol=1e-5)


@pytest.mark.parametrize("known", [True, False])
def test_dlg_gets_the_picture_back(known: bool) -> None:
    network = victim()
    before = [p.clone() for p in network.parameters()]
    x, y = smooth(), torch.tensor([4])
    target = gradient_of(network, parameters_of(network), x, y)
    label = infer_label(target[-1]) if known else None
    found = invert(network, parameters_of(network), target, x.shape, label, num_classes=10, steps=60)
    assert float(F.mse_loss(found.image, x)) < 1e-3
    assert found.label.tolist() == [4]
    assert found.distance < 1e-4
    assert all(torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True))
    assert all(p.grad is None for p in network.parameters())


def test_inverting_gradients_gets_the_picture_back() -> None:
    network = victim()
    x, y = smooth(), torch.tensor([4])
    target = gradient_of(network, parameters_of(network), x, y)
    found = invert(network, parameters_of(network), target, x.shape, y, settings="inverting", steps=300)
    assert float(F.mse_loss(found.image, x)) < 0.02
    assert 0 <= float(found.image.min()) <= float(found.image.max()) <= 1
    assert found.curve[0][1] > found.curve[-1][1]


def test_another_gradient_gives_another_picture() -> None:
    """What is matched is the gradient: that of other weights leads elsewhere."""
    network, other = victim(), victim(1)
    x, y = smooth(), torch.tensor([4])
    target = gradient_of(other, parameters_of(other), x, y)
    found = invert(network, parameters_of(network), target, x.shape, y, steps=20)
    assert float(F.mse_loss(found.image, x)) > 0.05


def test_further_variables_are_moved_too() -> None:
    """A factor that the attacker does not know is found with the picture."""
    torch.manual_seed(0)
    layer = nn.Linear(16, 3)
    factor = torch.tensor(1.0, requires_grad=True)
    network = lambda x: layer(factor * x.flatten(1))  # noqa: E731
    x, y = torch.rand(1, 1, 4, 4), torch.tensor([1])
    target = gradient_of(lambda z: layer(2 * z.flatten(1)), list(layer.parameters()), x, y)
    slow = Settings("adam", steps=500, lr=0.05, start="uniform")
    found = invert(network, list(layer.parameters()), target, x.shape, y, settings=slow, extra=[factor])
    assert found.distance < 1e-4
    assert torch.allclose(found.extra[0] * found.image, 2 * x, atol=0.05)


def test_mistakes_are_named() -> None:
    network = victim()
    wrong = [torch.zeros(1)]
    with pytest.raises(BadInput, match="target: expected 8 gradients"):
        invert(network, parameters_of(network), wrong, (1, 1, 12, 12), torch.tensor([0]))
    with pytest.raises(BadInput, match="num_classes"):
        invert(network, parameters_of(network), [torch.zeros_like(p) for p in network.parameters()], (1, 1, 12, 12))
    for options, said in (
        ({"optimizer": "sgd"}, "optimizer"),
        ({"distance": "l1"}, "distance"),
        ({"steps": 0}, "steps"),
        ({"lr": 0.0}, "lr"),
    ):
        with pytest.raises(BadInput, match=said):
            Settings(**options)  # type: ignore[arg-type]
    assert SETTINGS["idlg"] == SETTINGS["dlg"]


def smooth() -> Tensor:
    """A picture (1, 1, 12, 12) of smooth shades."""
    across = torch.linspace(0, 3, 12)
    return (0.5 + 0.4 * torch.sin(across)[:, None] * torch.cos(across)[None]).view(1, 1, 12, 12)
