"""DH-AT against literal references: the aggregator, both strategies, what rests in which phase, what is refused."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning import Callback, Trainer
from torch import Tensor, nn
from toys.oracles import probs, six_images

from datamodules.images import ImagesDataModule
from zoo.base.modes import rest
from zoo.errors import BadInput
from zoo.methods.dh_at import Aggregator, DualHeadAT
from zoo.methods.dh_at.joint import joint_loss, reverse_smoothing, weights_at
from zoo.methods.dh_at.robustness import adaptive_attacks
from zoo.nn.attacks import pgd
from zoo.nn.classifiers import create_classifier

EPS = 0.1


def classifier(**init: Any) -> DualHeadAT:
    torch.manual_seed(3)
    given: dict[str, Any] = {"network": "wrn10-1-s2", "channels": 1, "img_size": 12, "num_classes": 4, "eps": EPS}
    return DualHeadAT(**{**given, "attack_step": 0.03, "attack_steps": 3, **init})


def batch() -> tuple[Tensor, Tensor, Tensor]:
    return six_images(12)


# The network --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kernel", [2, 16])
def test_aggregator_against_loops(kernel: int) -> None:
    """Every pair of classes, every place and every feature one at a time."""
    torch.manual_seed(0)
    net = Aggregator(4, kernel).eval()
    for bn in (net.bn1, net.bn2):
        bn.running_mean.uniform_(-1, 1)
        bn.running_var.uniform_(0.5, 2)
    z = torch.randn(3, 2, 4)
    found = net(z[:, 0], z[:, 1]).detach().numpy()
    value = {name: t.detach().double().numpy() for name, t in net.state_dict().items()}

    def normalised(v: float, bn: str, k: int) -> float:
        scale = value[f"{bn}.weight"][k] / np.sqrt(value[f"{bn}.running_var"][k] + 1e-5)
        return float((v - value[f"{bn}.running_mean"][k]) * scale + value[f"{bn}.bias"][k])

    for n in range(3):
        u = np.zeros((4, 8))
        for k in range(4):
            for f in range(8):
                w = value["conv1.weight"][f, :, 0]
                raw = w[0] * float(z[n, 0, k]) + w[1] * float(z[n, 1, k]) + value["conv1.bias"][f]
                u[k, f] = max(0.0, normalised(raw, "bn1", f))
        features = []
        for i in range(4):
            for j in range(i + 1, 4):
                for f in range(8):
                    row = []
                    for out in range(16):
                        w = value["conv2.weight"][out, :, 0]
                        row.append(normalised(w[0] * u[i, f] + w[1] * u[j, f] + value["conv2.bias"][out], "bn2", out))
                    features += [np.mean(row[s : s + kernel]) for s in range(0, 16, kernel)]
        expected = value["linear.weight"] @ np.array(features) + value["linear.bias"]
        np.testing.assert_allclose(found[n], expected, rtol=1e-4, atol=1e-5)


def test_sizes_of_the_paper() -> None:
    with torch.device("meta"):
        network: Any = DualHeadAT().network
    count = lambda part: sum(p.numel() for p in part.parameters())  # noqa: E731
    assert count(network.merge) == 28_930
    assert network.merge.linear.in_features == 2_880
    assert count(network.main) + count(network.conv1) + count(network.block1) == 46_160_474
    assert 44.0e6 < count(network.second) < 44.1e6
    with torch.device("meta"):
        many: Any = DualHeadAT(network="wrn10-1", num_classes=100).network
    assert many.merge.linear.in_features == 4_950 * 8


def test_the_main_head_is_the_whole_network() -> None:
    """With its weights the plain network gives the main logits."""
    model, (x, _, _) = classifier().eval(), batch()
    plain = create_classifier("wrn10-1-s2", 4, 1).eval()
    state = {k.removeprefix("main."): v for k, v in model.network.state_dict().items()}
    plain.load_state_dict({k: v for k, v in state.items() if not k.startswith(("second.", "merge."))})
    torch.testing.assert_close(model.main_logits(x), plain(x))
    torch.testing.assert_close(model.forward_heads(x)[0], plain(x))


def test_merging_by_the_mean_and_by_one_head() -> None:
    x, _, _ = batch()
    model = classifier(merge="mean").eval()
    main, second, merged = model.forward_heads(x)
    torch.testing.assert_close(merged, (main + second) / 2)
    torch.testing.assert_close(model.sum_logits(x), main + second)
    single = classifier(strategy="single", merge="main").eval()
    assert torch.equal(single(x), single.main_logits(x))
    assert not any("second" in name or "merge" in name for name, _ in single.named_parameters())


# The joint strategy -------------------------------------------------------------------------------------------------


def test_joint_loss_against_loops() -> None:
    torch.manual_seed(1)
    main, main_adv, second, second_adv = (2 * torch.randn(40, 4) for _ in range(4))
    y = torch.randint(4, (40,))
    weights = (0.7, 1.3, 0.9, 0.2)
    p, q, a, a_adv = (probs(z) for z in (main, main_adv, second, second_adv))

    def smoothed(row: np.ndarray, label: int, s: float) -> np.ndarray:
        factor = 1 + s * row[label] / (1.0001 - row[label])
        return np.array([v if k == label else v * factor for k, v in enumerate(row)])

    total, kinds = 0.0, set()
    for n in range(40):
        label = int(y[n])
        value = -0.7 * np.log(p[n, label]) + 1.3 * np.sum(p[n] * np.log(p[n] / q[n]))
        if p[n].argmax() == label:
            s = 1.0 if q[n].argmax() == label else 1.1
            kinds.add(s)
            t = smoothed(q[n], label, s)
            value += 0.9 * np.sum(t * np.log(t / a_adv[n]))
        t = smoothed(p[n], label, 0.9)
        total += value + 0.2 * np.sum(t * np.log(t / a[n]))
    assert kinds == {1.0, 1.1}
    found = joint_loss(main, main_adv, second, second_adv, y, weights).item()
    assert found == pytest.approx(total / 40, rel=1e-5)


def test_reverse_smoothing_is_a_fixed_target_of_the_stated_sum() -> None:
    p = torch.tensor([[0.7, 0.2, 0.1]], requires_grad=True)
    target = reverse_smoothing(p, torch.tensor([0]), 0.9)
    assert not target.requires_grad
    assert target.sum().item() == pytest.approx(1 + 0.9 * 0.7, abs=1e-3)
    assert target[0, 0].item() == pytest.approx(0.7)


def test_weights_fall_five_times() -> None:
    assert weights_at((1, 1, 1, 0.1), 0.59) == [1, 1, 1, 0.1]
    assert weights_at((1, 1, 1, 0.1), 0.75) == pytest.approx([0.95**2, 0.95**2, 0.8**2, 0.1 * 0.8**2])
    assert weights_at((1, 1, 1, 0.1), 1.0) == pytest.approx([0.95**5, 0.95**5, 0.8**5, 0.1 * 0.8**5])


def test_the_joint_attack_sees_the_main_head_only() -> None:
    """Literal KL ascent on the main head, from noise as wide as eps."""
    x, y, index = batch()
    model = classifier(strategy="joint", merge="mean").train()
    seen: list[Tensor] = []
    original = model.attack

    def attack(*args: Any, **options: Any) -> Tensor:
        seen.append(original(*args, **options))
        return seen[-1]

    model.attack = attack  # type: ignore[method-assign]
    torch.manual_seed(11)
    model.loss(x, y, index)
    model.eval()
    torch.manual_seed(11)
    seed = int(torch.randint(2**31, ()))
    adv = pgd(model, x, y, eps=EPS, steps=0, start="gaussian", noise=EPS, seed=seed, index=index)
    with torch.no_grad():
        p = copy.deepcopy(classifier(strategy="joint", merge="mean")).eval().main_logits(x).softmax(1)
    fresh = classifier(strategy="joint", merge="mean").eval()  # the pass in training mode changed the statistics
    for _ in range(3):
        adv = adv.requires_grad_()
        value = (p * (p.log() - fresh.main_logits(adv).log_softmax(1))).sum()
        step = 0.03 * torch.autograd.grad(value, adv)[0].sign()
        adv = torch.minimum(torch.maximum(adv.detach() + step, x - EPS), x + EPS).clamp(0, 1)
    torch.testing.assert_close(seen[0], adv, rtol=1e-5, atol=1e-5)


# The phases ---------------------------------------------------------------------------------------------------------


class Watch(Callback):
    """What changed in each epoch, by part of the network, and the learning rate at its beginning."""

    def __init__(self) -> None:
        self.changed: list[set[str]] = []
        self.rates: list[float] = []
        self.before: dict[str, Tensor] = {}

    def on_train_epoch_start(self, trainer: Trainer, pl_module: Any) -> None:
        self.before = {k: v.clone() for k, v in pl_module.network.state_dict().items()}
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    def on_train_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        after = pl_module.network.state_dict()
        self.changed.append({k.split(".")[0] for k, v in after.items() if not torch.equal(v, self.before[k])})


def fitted(folder: Path, epochs: int = 6, **init: Any) -> tuple[DualHeadAT, Watch]:
    model = classifier(num_classes=10, img_size=28, attack_steps=1, eval_steps=1, **init)
    data = ImagesDataModule(batch_size=10, train_size=20, val_size=10, test_size=10)
    watch = Watch()
    options: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    options |= {"accelerator": "cpu", "enable_checkpointing": False, "default_root_dir": folder, "callbacks": [watch]}
    Trainer(max_epochs=epochs, limit_val_batches=1, **options).fit(model, data)
    return model, watch


def test_each_phase_trains_its_part_and_nothing_else_moves(tmp_path: Path) -> None:
    """Weights, momentum and batch statistics of what rests are equal to the last bit, also after a validation."""
    model, watch = fitted(tmp_path, phases=[2, 2, 2], lr=0.1)
    main, second, merged = {"conv1", "block1", "main"}, {"second"}, {"merge"}
    assert watch.changed == [main, main, second, second, merged, merged]
    assert all(p.requires_grad for p in model.parameters())
    assert watch.rates[0] == watch.rates[2] == watch.rates[4] == 0.1


def test_fewer_epochs_than_phases_are_said(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="max_epochs=2 is less than one for each of the phases"):
        _, watch = fitted(tmp_path, epochs=2, phases=[2, 2, 2])
    assert "second" in watch.changed[0]


def test_what_the_user_froze_stays_frozen(tmp_path: Path) -> None:
    model = classifier(num_classes=10, img_size=28, attack_steps=1, eval_steps=1, phases=[1, 1, 1])
    model.freeze("network.conv1")
    data = ImagesDataModule(batch_size=10, train_size=20, val_size=10, test_size=10)
    before = model.network.conv1.weight.clone()
    options: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    Trainer(max_epochs=3, accelerator="cpu", enable_checkpointing=False, default_root_dir=tmp_path, **options).fit(
        model, data
    )
    assert torch.equal(model.network.conv1.weight, before)
    assert not model.network.conv1.weight.requires_grad
    assert model.network.main.fc.weight.requires_grad


def test_shares_of_the_epochs() -> None:
    model = classifier()
    assert model.ends(260) == [100, 200, 260]
    assert model.ends(19) == [7, 15, 19]
    assert model.ends(3) == [1, 2, 3]
    assert model.ends(2) == [0, 0, 2]  # too few for three phases: the merged logits train everything
    assert classifier(merge="mean").ends(10) == [5, 10, 10]
    assert classifier(phases=[10, 0, 0]).ends(4) == [4, 4, 4]


def test_rates_fall_within_each_phase(tmp_path: Path) -> None:
    """A tenth after 75 % and 90 % of a head's epochs, and after 25, 40 and 50 of 60 of the aggregator's."""
    _, watch = fitted(tmp_path, epochs=12, phases=[4, 4, 4], lr=0.1)
    assert watch.rates == pytest.approx([0.1, 0.1, 0.1, 0.01] * 2 + [0.1, 0.1, 0.01, 0.001])


@pytest.mark.parametrize(("strategy", "merge"), [("single", "main"), ("joint", "mean")])
def test_rates_of_the_other_strategies_are_those_of_a_head(strategy: str, merge: str, tmp_path: Path) -> None:
    _, watch = fitted(tmp_path, epochs=10, strategy=strategy, merge=merge, lr=0.1)
    assert watch.rates == pytest.approx([0.1] * 8 + [0.01, 0.001])


@pytest.mark.parametrize("kind", ["bfloat16", "double"])
def test_heads_take_the_type_of_the_network(kind: str) -> None:
    model, (x, _, _) = classifier().eval(), batch()
    expected = model.forward_heads(x)
    getattr(model, kind)()
    for z, wanted in zip(model.forward_heads(x), expected, strict=True):
        torch.testing.assert_close(z, wanted, rtol=0.1, atol=0.1)
    assert len(model.predict(list(x))) == 6


def test_what_an_error_left_at_rest_is_trained_again(tmp_path: Path) -> None:
    model = classifier(num_classes=10, img_size=28, attack_steps=1, eval_steps=1, phases=[1, 1, 1])
    rest(model, "network.main")
    data = ImagesDataModule(batch_size=10, train_size=20, val_size=10, test_size=10)
    before = model.network.main.fc.weight.clone()
    options: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    options |= {"accelerator": "cpu", "enable_checkpointing": False, "default_root_dir": tmp_path}
    Trainer(max_epochs=3, **options).fit(model, data)
    assert not torch.equal(model.network.main.fc.weight, before)


# Predictions, and what is refused -----------------------------------------------------------------------------------


def test_predictions_hold_the_logits_of_the_heads() -> None:
    model, (x, _, _) = classifier().eval(), batch()
    results = model.predict(list(x))
    main, second, merged = model.forward_heads(x)
    for n, result in enumerate(results):
        for key, expected in (("main_logits", main), ("second_logits", second), ("logits", merged)):
            torch.testing.assert_close(result[key], expected[n])


@pytest.mark.parametrize("name", ["pgd-main", "pgd-second", "pgd-sum"])
def test_attacks_on_one_head_raise_its_loss(name: str) -> None:
    x, y, index = batch()
    model = classifier().eval()
    adv = model.attacked(name, {"image": x, "label": y, "index": index})
    logits = getattr(model, f"{name.removeprefix('pgd-')}_logits")
    with torch.no_grad():
        loss = [nn.functional.cross_entropy(logits(images), y).item() for images in (x, adv)]
    assert loss[1] > loss[0]
    assert (adv - x).abs().max() <= EPS + 1e-6


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"network": "resnet10-w4"}, "wide residual network"),
        ({"strategy": "both"}, "strategy.*staged"),
        ({"merge": "main"}, "'staged' takes network or mean"),
        ({"strategy": "joint"}, "'joint' takes mean"),
        ({"phases": [1, 1]}, "three shares"),
        ({"phases": [0, 1, 1]}, "the first above 0"),
        ({"joint_weights": [1, 1]}, "four weights"),
        ({"pool_kernel": 3}, "divisor of 16"),
        ({"criterion": "natural"}, "criterion.*sat"),
        ({"num_classes": 1}, "at least 2"),
        ({"eps": 8}, "8/255"),
        ({"test_attacks": ["pgd-third"]}, "pgd-third"),
        ({"schedule": "shares"}, "schedule: expected one of steps, cosine"),
        ({"phases": [float("inf"), 1, 1]}, "phases"),
        ({"joint_weights": [-1, 1, 1, 1]}, "joint_weights"),
        ({"beta_second": -1.0}, "beta_second"),
        ({"pool_kernel": 0}, "pool_kernel"),
    ],
)
def test_wrong_arguments(given: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        classifier(**given)


# Attacks on the parts of the answer ---------------------------------------------------------------------------------


def test_adaptive_attacks_fool_the_part_they_aim_at() -> None:
    model = classifier().eval()
    x, y, _ = batch()
    attacks = adaptive_attacks(model)
    assert list(attacks) == [f"{part}-{how}" for part in ("main", "second", "sum", "all") for how in ("ce", "margin")]
    aimed: dict[str, Any] = {"main": model.main_logits, "second": model.second_logits, "sum": model.sum_logits}
    for name, attack in attacks.items():
        x_adv = attack(model, x, y)
        assert (x_adv - x).abs().max() <= EPS + 1e-6
        assert x_adv.min() >= 0
        assert x_adv.max() <= 1
        part = aimed.get(name.partition("-")[0])
        if part is not None and name.endswith("-ce"):
            with torch.no_grad():
                before, after = (nn.functional.cross_entropy(part(images), y) for images in (x, x_adv))
            assert after > before + 0.01
    assert adaptive_attacks(classifier(strategy="single", merge="main")) == {}
