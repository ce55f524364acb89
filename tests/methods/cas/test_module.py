"""CAS against literal references: the suppression, the three joint losses, no label in `forward`, what is refused."""

from __future__ import annotations

import copy
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from toys.oracles import each_ce, each_kl, probs, six_images

from zoo.errors import BadInput
from zoo.methods.cas import CAS, ChannelSuppression
from zoo.methods.cas.activity import ChannelActivity
from zoo.methods.cas.robustness import forced
from zoo.nn.attacks import pgd

EPS = 0.1


def classifier(**init: Any) -> CAS:
    torch.manual_seed(3)
    given: dict[str, Any] = {"network": "resnet10-w4", "channels": 1, "img_size": 12, "num_classes": 4, "eps": EPS}
    return CAS(**{**given, "attack_step": 0.03, "attack_steps": 3, **init})


def batch() -> tuple[Tensor, Tensor, Tensor]:
    return six_images(12)


# The suppression ----------------------------------------------------------------------------------------------------


def test_suppression_against_loops() -> None:
    """f'[n, c] = f[n, c] W[k, c] with k the largest of W g + b, one number at a time."""
    torch.manual_seed(0)
    part, f = ChannelSuppression(5, 3), torch.rand(4, 5, 2, 3)
    out, logits = part(f)
    w, b = (t.detach().numpy() for t in (part.classifier.weight, part.classifier.bias))
    for n in range(4):
        g = [float(f[n, c].mean()) for c in range(5)]
        a = [sum(w[k, c] * g[c] for c in range(5)) + b[k] for k in range(3)]
        np.testing.assert_allclose(logits[n].detach(), a, rtol=1e-5)
        for c in range(5):
            np.testing.assert_allclose(out[n, c].detach(), f[n, c] * w[int(np.argmax(a)), c], rtol=1e-5)


def test_mask_is_linear_in_the_spatial_mean() -> None:
    """Behind the last map the mask may act on the mean: both orders are the same."""
    torch.manual_seed(0)
    part, f = ChannelSuppression(5, 3), torch.rand(4, 5, 2, 3)
    torch.testing.assert_close(part(f)[0].mean((2, 3)), part(f.mean((2, 3)))[0])


def test_masks_are_in_single_precision_under_autocast() -> None:
    part, f = ChannelSuppression(5, 3), torch.rand(4, 5, 2, 3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out, logits = part(f)
    assert logits.dtype == torch.float32
    torch.testing.assert_close(out, part(f)[0])
    assert part(f.bfloat16())[0].dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("network", "extra", "heads"),
    [("cifar-resnet18", 10_260, 2), ("cifar-vgg16", 15_390, 3), ("wrn34-10", 12_820, 2), ("resnet10-w16", 1_940, 2)],
)
def test_places_and_sizes_of_the_paper(network: str, extra: int, heads: int) -> None:
    channels = 1 if network == "resnet10-w16" else 3
    with torch.device("meta"):
        model = CAS(network=network, channels=channels, img_size=28 if channels == 1 else 32)
    assert sum(p.numel() for p in model.suppressions.parameters()) == extra
    assert len(model.suppressions) == heads
    if channels == 1:
        assert sum(p.numel() for p in model.network.parameters()) == 308_538


def test_the_shortcut_of_a_wide_block_is_not_suppressed() -> None:
    """With a mask of zeros the last block of a wide network passes its input on."""
    model = classifier(network="wrn10-1", channels=3, suppress=["block3.layer.0.conv1"]).eval()
    block = model.network.get_submodule("block3.layer.0")
    x = torch.rand(2, 32, 6, 6)
    with model.masks(lambda logits, weight: torch.zeros(len(logits), weight.shape[1])):
        found = block(x)
    y = torch.relu(block.bn1(x))
    silent = block.conv2(torch.relu(block.bn2(torch.zeros(2, 64, 3, 3))))
    torch.testing.assert_close(found, block.convShortcut(y) + silent)


def test_two_basic_blocks_by_hand() -> None:
    """Behind each of the last two blocks, spelled out for the small network."""
    model, (x, _, _) = classifier().eval(), batch()
    plain = copy.deepcopy(model)
    for name in ("layer4", "linear"):
        plain.network.get_submodule(name)._forward_pre_hooks.clear()
    net, (first, second) = plain.network, plain.suppressions
    f = torch.relu(net.bn1(net.conv1(x)))
    f = net.layer3(net.layer2(net.layer1(f)))
    f, a = first(f)
    g, b = second(net.layer4(f))
    found = model.heads(x)
    for value, expected in zip(found, (net.linear(g.mean((2, 3))), a, b), strict=True):
        torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-5)


# The losses ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("criterion", ["sat", "trades", "mart", "natural"])
def test_joint_losses_by_hand(criterion: str) -> None:
    """Main plus b_c times the mean over the auxiliary heads, in double precision, from the passes in the same order."""
    x, y, index = batch()
    model = classifier(criterion=criterion, beta=3.0, aux_weight=1.5).train()
    twin = copy.deepcopy(model)
    seen: list[Tensor] = []
    original = model.attack

    def attack(*args: Any, **options: Any) -> Tensor:
        seen.append(original(*args, **options))
        return seen[-1]

    model.attack = attack  # type: ignore[method-assign]
    found = model.loss(x, y, index).item()
    with torch.no_grad():
        if criterion == "natural":
            clean = attacked = _labelled(twin, x, y)
        else:
            attacked, clean = _labelled(twin, seen[0], y), _labelled(twin, x, y)
    values = []
    for z, z_adv in zip(clean, attacked, strict=True):
        if criterion == "natural":
            value = each_ce(z, y)
        elif criterion == "sat":
            value = each_ce(z_adv, y)
        elif criterion == "trades":
            value = each_ce(z, y) + 3 * each_kl(z, z_adv)
        else:
            q = probs(z_adv)
            q[np.arange(6), y.numpy()] = -1
            doubt = 1 - probs(clean[0])[np.arange(6), y.numpy()]  # of the final logits for every head
            value = each_ce(z_adv, y) - np.log(1.0001 - q.max(1)) + 3 * each_kl(z, z_adv) * doubt
        values.append(float(value.mean()))
    assert found == pytest.approx(values[0] + 1.5 * (values[1] + values[2]) / 2, rel=1e-4)
    assert len(seen) == (criterion != "natural")


def _labelled(model: CAS, x: Tensor, y: Tensor) -> list[Tensor]:
    z, auxiliary = model.forward_train(x, y)
    return [z, *auxiliary]


@pytest.mark.parametrize("loss", ["ce", "kl"])
def test_the_attack_ascends_the_joint_loss_with_predicted_masks(loss: str) -> None:
    """Literal sign steps on the joint loss, in evaluation mode; the labels do not choose the masks."""
    x, y, index = batch()
    model = classifier(aux_weight=0.7).train()
    torch.manual_seed(11)
    found = model.worst_case(x, y, loss, index)
    assert model.training
    assert model.network.bn1.training
    model.eval()
    torch.manual_seed(11)
    start = {"start": "gaussian"} if loss == "kl" else {}
    seed = int(torch.randint(2**31, ()))
    adv = pgd(model, x, y, eps=EPS, steps=0, seed=seed, index=index, **start)  # type: ignore[arg-type]
    with torch.no_grad():
        targets = [z.softmax(1) for z in model.heads(x)]
    for _ in range(3):
        adv = adv.requires_grad_()
        values = []
        for z, p in zip(model.heads(adv), targets, strict=True):
            log_q = z.log_softmax(1)
            values.append(-log_q[torch.arange(6), y] if loss == "ce" else (p * (p.log() - log_q)).sum(1))
        total = (values[0] + 0.7 * (values[1] + values[2]) / 2).sum()
        step = 0.03 * torch.autograd.grad(total, adv)[0].sign()
        adv = torch.minimum(torch.maximum(adv.detach() + step, x - EPS), x + EPS).clamp(0, 1)
    torch.testing.assert_close(found, adv, rtol=1e-5, atol=1e-5)


def test_without_suppression_it_is_the_plain_criterion() -> None:
    x, y, index = batch()
    model = classifier(suppress=[], criterion="trades").train()
    twin = copy.deepcopy(model)
    torch.manual_seed(1)
    found = model.loss(x, y, index)
    torch.manual_seed(1)
    torch.testing.assert_close(found, twin.criterion("trades", x, y, index))
    assert model.predict([x[0]])[0]["aux_labels"].numel() == 0


# Labels and masks ---------------------------------------------------------------------------------------------------


def test_forward_never_sees_a_label() -> None:
    """Evaluating with permuted labels changes no prediction, though the training's pass does change with them."""
    x, y, _ = batch()
    model = classifier().eval()
    rest = {"image": x, "index": torch.arange(6)}
    results = [model.predict_step({**rest, "label": labels}) for labels in (y, y.flip(0))]
    for key in ("logits", "aux_labels", "agreement"):
        assert torch.equal(results[0][key], results[1][key])
    assert not torch.allclose(model.forward_train(x, y)[0], model.forward_train(x, (y + 1) % 4)[0])


def test_masks_are_put_back_after_an_error() -> None:
    model, (x, y, _) = classifier().eval(), batch()
    before = model(x)
    with pytest.raises(RuntimeError, match="stop"), model.masks(lambda _, weight: weight[y]):
        raise RuntimeError("stop")
    assert torch.equal(model(x), before)
    assert not any(part.listeners for part in model.suppressions)


def test_threads_keep_their_masks_and_answers_apart() -> None:
    model, (x, y, _) = classifier().eval(), batch()
    expected = model.predict(list(x))
    labelled = model.forward_train(x, y)[0]

    def use(number: int) -> bool:
        if number % 2:
            return torch.equal(model.forward_train(x, y)[0], labelled)
        results = model.predict(list(x))
        return all(torch.equal(a["aux_labels"], b["aux_labels"]) for a, b in zip(results, expected, strict=True))

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(use, range(64)))


def test_forced_masks_are_those_of_the_images_as_they_were() -> None:
    """Each place keeps the row of its own second class, however the images change."""
    model, (x, _, _) = classifier().eval(), batch()
    rows = [a.topk(2, 1).indices[:, 1] for a in model.heads(x)[1:]]
    choices = forced(1)(model, x)
    other = 1 - x
    with model.masks(choices):
        found = model(other)
    with model.masks([lambda _, weight, k=k: weight[k] for k in rows]):
        expected = model(other)
    assert torch.equal(found, expected)
    assert not torch.allclose(found, model(other))


def test_a_test_measures_activity_under_the_joint_attack() -> None:
    """With the very examples that were scored, and not at all without that attack."""
    x, y, index = batch()
    model = classifier(test_attacks=["joint"], eval_steps=2).eval()
    given = {"image": x, "label": y, "index": index}
    model.test_step(given)
    expected = ChannelActivity(4)
    expected.update(model.last_channels(x), model.last_channels(model.attacked("joint", given)), y)
    found = model.scores["test", "activity"].compute()
    for name, value in expected.compute().items():
        torch.testing.assert_close(found[name], value)
    assert "activity" not in classifier(test_attacks=["pgd"]).scores.names("test")


def test_no_gradient_through_the_choice_of_a_row() -> None:
    """Where no prediction changes, the gradient is that of a fixed mask."""
    model, (x, _, _) = classifier().eval(), batch()
    chosen = [a.argmax(1) for a in model.heads(x)[1:]]
    rows = iter(chosen)

    def fixed(_: Tensor, weight: Tensor) -> Tensor:
        return weight[next(rows)]

    inputs = [x.clone().requires_grad_() for _ in range(2)]
    model(inputs[0]).sum().backward()
    with model.masks(fixed):
        model(inputs[1]).sum().backward()
    torch.testing.assert_close(inputs[0].grad, inputs[1].grad)


def test_a_copy_has_suppressions_of_its_own() -> None:
    model, (x, _, _) = classifier().eval(), batch()
    twin, before = copy.deepcopy(model), model(x)
    with torch.no_grad():
        for part in twin.suppressions:
            part.classifier.weight.zero_()
    assert torch.equal(model(x), before)
    assert not torch.allclose(twin(x), before)


def test_agreement_says_whether_all_heads_say_the_label() -> None:
    x, _, _ = batch()
    for result in classifier().eval().predict(list(x)):
        assert result["agreement"] == all(k == result["label"] for k in result["aux_labels"])


# Activity -----------------------------------------------------------------------------------------------------------


def test_activity_by_hand() -> None:
    metric = ChannelActivity(2)
    natural = torch.tensor([[1.0, 0.5, 0.0, 0.005], [2.0, 0.0, 0.0, 0.1]])
    attacked = torch.tensor([[1.0, 0.5, 0.3, 0.2], [2.0, 1.0, 0.5, 0.1]])
    metric.update(natural, attacked, torch.tensor([0, 0]))  # no image of class 1
    found = {name: float(value) for name, value in metric.compute().items()}
    share = np.array([2, 1, 0, 1]) / 4  # channel 3 of the first image is below 1 % of its largest
    entropy = -sum(s * np.log(s) for s in share if s) / np.log(4)
    assert found["uniformity"] == pytest.approx(entropy, rel=1e-5)
    assert found["uniformity_gain"] == pytest.approx(1.0 - entropy, rel=1e-5)
    assert found["activity_gap"] == pytest.approx((0 + 0.5 + 1 + 0.5) / 4, rel=1e-5)
    assert found["activation_ratio"] == pytest.approx(5.6 / 3.605, rel=1e-5)


# What is refused ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"suppress": ["layer9"]}, "no layer 'layer9'.*layer"),
        ({"suppress": ["linear", "linear"]}, "given twice"),
        ({"suppress": [""]}, "no layer ''"),
        ({"eps": 8}, "8/255"),
        ({"criterion": "at"}, "criterion.*sat"),
        ({"test_attacks": ["joined"]}, "test_attacks.*joint"),
        ({"aux_weight": -1.0}, "aux_weight"),
        ({"beta": -1.0}, "beta"),
        ({"network": "cifar-vgg16", "img_size": 28}, "img_size: VGG16 takes pictures of at least 32x32"),
    ],
)
def test_wrong_arguments(given: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        classifier(**given)


def test_a_layer_that_takes_no_map() -> None:
    with pytest.raises(BadInput, match="takes no map"):
        classifier(network="timm/vit_tiny_patch16_224", img_size=224, suppress=["blocks.0.mlp.fc1"])


def test_nothing_is_left_on_the_network_by_looking() -> None:
    model = classifier(suppress=[])
    hooks: list[nn.Module] = [m for m in model.network.modules() if m._forward_pre_hooks]
    assert not hooks
    assert model.network.bn1.training
    assert torch.equal(model.network.bn1.running_mean, torch.zeros(4))
