"""Transfer attacks against literal loops, and the momentum attack against the Adversarial Robustness Toolbox."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.errors import BadInput
from zoo.nn.attacks import di_fgsm, mean_logits, mi_fgsm, ti_fgsm, transfer
from zoo.nn.attacks.transferable import diverse, gaussian_kernel

EPS = 0.1


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Tanh(), nn.Flatten(), nn.Linear(4 * 36, 4)).eval()


def setting(count: int = 5) -> tuple[nn.Module, Tensor, Tensor]:
    return network(), torch.rand(count, 1, 8, 8, generator=torch.Generator().manual_seed(2)), torch.arange(count) % 4


def literal(net: nn.Module, x: Tensor, y: Tensor, momentum: float, kernel: Tensor | None = None) -> Tensor:
    """One sample and one pixel at a time where that says something."""
    out = []
    for n in range(len(x)):
        adv, g = x[n : n + 1].clone(), torch.zeros_like(x[n : n + 1])
        for _ in range(10):
            adv.requires_grad_()
            (grad,) = torch.autograd.grad(F.cross_entropy(net(adv), y[n : n + 1]), adv)
            if kernel is not None:
                reach = kernel.shape[0] // 2
                padded = F.pad(grad[0, 0], [reach] * 4)
                side = 2 * reach + 1
                cut = [[padded[i : i + side, j : j + side] for j in range(8)] for i in range(8)]
                grad = torch.tensor([[(part * kernel).sum() for part in row] for row in cut])[None, None]
            g = momentum * g + grad / grad.abs().mean()
            adv = (adv.detach() + EPS / 10 * g.sign()).clamp(x[n] - EPS, x[n] + EPS).clamp(0, 1)
        out.append(adv)
    return torch.cat(out)


@pytest.mark.parametrize("momentum", [0.0, 0.7, 1.0])
def test_momentum_by_a_literal_loop(momentum: float) -> None:
    net, x, y = setting()
    torch.testing.assert_close(mi_fgsm(net, x, y, eps=EPS, momentum=momentum), literal(net, x, y, momentum))


def test_smoothed_gradients_by_a_literal_loop() -> None:
    net, x, y = setting()
    kernel = gaussian_kernel(3)
    assert kernel.sum().item() == pytest.approx(1)
    assert kernel[1, 1] == kernel.max()
    torch.testing.assert_close(ti_fgsm(net, x, y, eps=EPS), literal(net, x, y, 1.0, kernel))


def test_momentum_is_the_toolboxs() -> None:
    from art.attacks.evasion import MomentumIterativeMethod
    from art.estimators.classification import PyTorchClassifier

    net, x, y = setting(40)
    wrapped = PyTorchClassifier(net, nn.CrossEntropyLoss(), (1, 8, 8), 4, clip_values=(0, 1), device_type="cpu")
    attack = MomentumIterativeMethod(
        wrapped, norm=np.inf, eps=EPS, eps_step=EPS / 10, decay=1.0, max_iter=10, verbose=False
    )
    theirs = torch.from_numpy(attack.generate(x.numpy(), F.one_hot(y, 4).numpy()))
    ours = mi_fgsm(net, x, y, eps=EPS)
    assert (ours - theirs).abs().gt(1e-5).float().mean() < 0.02  # a sign of a gradient near 0 may differ


def test_diverse_inputs_are_interpolated_and_padded() -> None:
    """Each sample is one of the sizes, at one of the places, with zeros around; none changes at probability 0."""
    _, x, _ = setting(40)
    index = torch.arange(40)
    assert torch.equal(diverse(x, 0.0, 0.6, 0, index, 0), x)
    found = diverse(x, 1.0, 0.6, 0, index, 0)
    sizes = set()
    for one, original in zip(found, x, strict=True):
        options = []
        for size in range(4, 9):
            resized = F.interpolate(original[None], size=(size, size), mode="bilinear")[0]
            free = range(9 - size)
            options += [(size, F.pad(resized, [j, 8 - size - j, i, 8 - size - i])) for i in free for j in free]
        hits = [size for size, option in options if torch.allclose(option, one, atol=1e-5)]
        assert len(hits) == 1
        sizes.add(hits[0])
    assert sizes == {4, 5, 6, 7, 8}


def test_diversity_belongs_to_the_sample() -> None:
    net, x, y = setting(6)
    whole = di_fgsm(net, x, y, eps=EPS, rate=0.6)
    parts = [di_fgsm(net, x[k : k + 1], y[k : k + 1], eps=EPS, rate=0.6, index=torch.tensor([k])) for k in range(6)]
    torch.testing.assert_close(whole, torch.cat(parts))
    assert not torch.equal(whole, mi_fgsm(net, x, y, eps=EPS))


def test_an_ensemble_is_the_weighted_mean_of_logits() -> None:
    net, x, y = setting()
    other = network(1)
    mean = mean_logits([net, other], [3, 1])
    torch.testing.assert_close(mean(x), 0.75 * net(x) + 0.25 * other(x))
    torch.testing.assert_close(mi_fgsm([net, other], x, y, eps=EPS, weights=[3, 1]), mi_fgsm(mean, x, y, eps=EPS))


def test_modes_come_back_and_examples_stay_in_the_ball() -> None:
    net, x, y = setting()
    other = network(1).train()
    for attack in (mi_fgsm, di_fgsm, ti_fgsm):
        with torch.inference_mode():
            found = attack([net, other], x, y, eps=EPS)
        assert other.training
        assert not net.training
        assert (found - x).abs().max() <= EPS + 1e-6
        assert found.min() >= 0
        assert found.max() <= 1
    assert other[1].num_batches_tracked == 0


def test_transfer_takes_the_surrogate_that_fools() -> None:
    net, x, y = setting(40)
    others = [network(1), network(2)]
    alone = [net(mi_fgsm(s, x, y, eps=EPS)).argmax(1) == y for s in others]
    found = transfer(net, x, y, surrogates=others, attack=mi_fgsm, eps=EPS)
    assert torch.equal(net(found).argmax(1) == y, alone[0] & alone[1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"eps": 8}, "8/255"),
        ({"steps": 0}, "steps"),
        ({"momentum": -1}, "momentum"),
        ({"diversity": 2}, "diversity"),
        ({"rate": 0}, "rate"),
        ({"kernel": 4}, "odd"),
        ({"norm": "l2"}, "linf"),
        ({"weights": [1.0, 1.0]}, "weights"),
    ],
)
def test_bad_options_are_named(options: dict[str, object], message: str) -> None:
    net, x, y = setting()
    models = [net, net, net] if "weights" in options else net
    with pytest.raises(BadInput, match=message):
        mi_fgsm(models, x, y, **{"eps": EPS, **options})  # type: ignore[arg-type]


def test_models_of_other_classes_are_named() -> None:
    net, x, y = setting()
    other = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    with pytest.raises(BadInput, match="same classes"):
        mi_fgsm([net, other], x, y, eps=EPS)
    with pytest.raises(BadInput, match="at least one"):
        mi_fgsm([], x, y, eps=EPS)
