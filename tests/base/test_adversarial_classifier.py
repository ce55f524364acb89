"""The base of adversarial training, by methods that add nothing but their idea."""

from __future__ import annotations

import copy
import fnmatch
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Trainer
from torch import Tensor, nn
from torch.nn import functional as F

from datamodules.images import ImagesDataModule
from zoo.base.adversarial_classifier import CRITERIA, TESTS, AdversarialClassifier
from zoo.errors import BadInput
from zoo.nn import adversarial_losses as losses


class Trained(AdversarialClassifier):
    """What a method with one of the usual criteria has to write."""

    def __init__(
        self,
        criterion: str = "sat",
        num_classes: int = 10,
        class_names: list[str] | None = None,
        channels: int = 1,
        img_size: int = 28,
        network: str = "resnet10-w2",
        eps: float = 0.1,
        attack_step: float = 0.05,
        attack_steps: int = 2,
        eps_warmup: float = 0.0,
        eval_steps: int = 2,
        test_attacks: tuple[str, ...] = ("fgsm", "pgd"),
        beta: float = 5.0,
        lr: float = 0.05,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        schedule: str = "cosine",
        milestones: tuple[int, ...] = (),
    ) -> None:
        super().__init__()

    def loss(self, x: Tensor, y: Tensor, index: Tensor | None = None, share: float = 1.0) -> Tensor:
        return self.criterion(self.hparams["criterion"], x, y, index, share)


class TwoHeads(Trained):
    """A method whose attack looks at other logits than those it predicts with."""

    def make_network(self) -> nn.Module:
        network = super().make_network()
        self.side = nn.Linear(28 * 28, 10)
        return network

    def both(self, image: Tensor) -> Tensor:
        """(N, 2 K)."""
        return torch.cat([self(image), self.side(image.flatten(1))], 1)


def batch(count: int = 6) -> tuple[Tensor, Tensor, Tensor]:
    draw = torch.Generator().manual_seed(7)
    return torch.rand(count, 1, 28, 28, generator=draw), torch.arange(count) % 10, torch.arange(count)


def data() -> ImagesDataModule:
    return ImagesDataModule(train_size=24, val_size=10, test_size=10, batch_size=8)


def trainer(folder: Path, **options: Any) -> Trainer:
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    return Trainer(default_root_dir=folder, num_sanity_val_steps=0, enable_checkpointing=False, **{**quiet, **options})


@pytest.mark.parametrize("criterion", CRITERIA)
def test_criteria_are_the_losses_of_two_passes(criterion: str) -> None:
    """Attack in evaluation mode; x' before x in training mode; the same attack made by hand gives the same loss."""
    x, y, index = batch()
    torch.manual_seed(0)
    model = Trained(criterion).train()
    twin = copy.deepcopy(model)
    passes: list[tuple[bool, Tensor]] = []
    model.network.register_forward_pre_hook(lambda m, args: passes.append((m.training, args[0].detach().clone())))
    torch.manual_seed(1)
    value = model.loss(x, y, index)
    trained = [image for training, image in passes if training]
    expected_passes = {"sat": 1, "natural": 1, "trades": 2, "mart": 2}[criterion]
    assert len(trained) == expected_passes
    assert model.network.training
    if criterion == "natural":
        assert len(passes) == 1
        assert torch.equal(trained[0], x)
        assert value.item() == losses.natural(twin(x), y).item()
        return
    torch.manual_seed(1)
    if criterion == "trades":
        with torch.no_grad():
            target = copy.deepcopy(twin).eval()(x).softmax(1)
        x_adv = twin.attack(x, target, "kl", index)
    else:
        x_adv = twin.attack(x, y, "ce", index)
    torch.testing.assert_close(trained[0], x_adv)
    assert 0.01 < (x_adv - x).abs().max() <= 0.1 + 1e-6
    z_adv = twin(x_adv)
    z = twin(x) if expected_passes == 2 else None
    expected = {
        "sat": lambda: losses.sat(z_adv, y),
        "trades": lambda: losses.trades(z, z_adv, y, 5.0),
        "mart": lambda: losses.mart(z, z_adv, y, 5.0),
    }[criterion]()
    assert value.item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("criterion", ["mart", "trades"])
def test_fit_and_test_log_what_is_declared(tmp_path: Path, criterion: str) -> None:
    model = Trained(criterion, test_attacks=TESTS)
    run = trainer(tmp_path, max_epochs=1)
    run.fit(model, data())
    assert {"train/loss", "val/loss", "val/accuracy", "val/robust"} == set(run.callback_metrics)
    (values,) = run.test(model, data(), verbose=False)
    names = {name.removeprefix("test/") for name in values}
    assert names == set(model.logged)
    assert all(any(fnmatch.fnmatch(name, known) for known in model.logged) for name in names)
    each = [value for name, value in values.items() if name.startswith("test/robust_")]
    assert values["test/robust"] <= min(each)
    assert values["test/robust"] <= values["test/accuracy"]
    assert values["test/mean"] == pytest.approx((values["test/robust"] + values["test/accuracy"]) / 2, abs=1e-6)


def test_worst_case_counts_images_that_every_attack_leaves_right(tmp_path: Path) -> None:
    """Two attacks that fool different images are together worse than each of them."""
    model = Trained(test_attacks=("fgsm", "pgd"))
    model.eval()
    x, _, index = batch(8)
    with torch.no_grad():
        label = model(x).argmax(1)
    wrong = (label + 1) % 10
    fooled = {"fgsm": torch.arange(8) < 2, "pgd": torch.arange(8) >= 5}

    def attacked(name: str, batch: dict[str, Any]) -> Tensor:
        return torch.where(fooled[name][:, None, None, None], batch["image"] + 100, batch["image"])

    model.attacked = attacked  # type: ignore[method-assign]
    model.forward = lambda image: (  # type: ignore[method-assign]
        F.one_hot(torch.where(image.flatten(1).mean(1) > 50, wrong, label), 10).float()
    )
    model.evaluate_step("test", {"image": x, "label": label, "index": index})
    values = {name: float(model.scores["test", name].compute()) for name in model.scores.names("test")}
    assert values["accuracy"] == 1
    assert values["robust_fgsm"] == 6 / 8
    assert values["robust_pgd"] == 5 / 8
    assert values["robust"] == 3 / 8


def test_an_attack_may_look_at_other_logits() -> None:
    """Another method of the module is attacked, in evaluation mode too, and with a loss of its own."""
    x, y, index = batch()
    model = TwoHeads().train()
    modes: list[bool] = []
    model.network.register_forward_hook(lambda m, a, o: modes.append(m.training))

    def side(z: Tensor, target: Tensor) -> Tensor:
        assert z.shape == (6, 20)
        return F.cross_entropy(z[:, 10:], target, reduction="none")

    x_adv = model.attack(x, y, side, index, model=model.both, start="none")
    assert modes == [False, False]
    assert model.network.training
    weight = model.side.weight.detach()
    grad = (model.side(x.flatten(1)).softmax(1) - F.one_hot(y, 10)) @ weight
    first = (x + 0.05 * grad.detach().sign().view_as(x)).clamp(0, 1)
    second = (model.side(first.flatten(1)).softmax(1) - F.one_hot(y, 10)) @ weight
    expected = torch.minimum(torch.maximum(first + 0.05 * second.detach().sign().view_as(x), x - 0.1), x + 0.1)
    torch.testing.assert_close(x_adv, expected.clamp(0, 1))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"eps": 8}, "8/255"),
        ({"attack_steps": -1}, "attack_steps must be at least 0"),
        ({"eval_steps": 0}, "eval_steps must be at least 1"),
        ({"eps_warmup": -1.0}, "eps_warmup"),
        ({"test_attacks": ("fsgm",)}, "Did you mean 'fgsm'"),
        ({"test_attacks": ()}, "test_attacks: expected at least one"),
        ({"schedule": "cosin"}, "Did you mean 'cosine'"),
        ({"class_names": ["a"]}, "1 class_names were given for 10 classes"),
    ],
)
def test_arguments_are_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(BadInput, match=says):
        Trained(**options)
    with pytest.raises(BadInput, match="Did you mean 'trades'"):
        Trained().criterion("tradse", *batch())
