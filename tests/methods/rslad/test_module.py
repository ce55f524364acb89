"""RSLAD's equations against literal references, its baselines, the teacher's role, and what is refused."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning import Trainer
from PIL import Image
from torch import Tensor, nn
from toys.oracles import probs, six_images

from datamodules.images import ImagesDataModule
from datamodules.images.read import FASHION_NAMES
from zoo.errors import BadInput, InvalidConfig
from zoo.inputs.images import fit_square
from zoo.methods.rslad.module import METHODS, RSLAD
from zoo.nn.adversarial_losses import kl
from zoo.nn.classifiers import create_classifier

EPS = 0.1


def student(method: str = "rslad", **init: Any) -> RSLAD:
    torch.manual_seed(3)
    given = {"network": "resnet10-w2", "channels": 1, "img_size": 8, "eps": EPS, "attack_step": 0.03} | init
    return RSLAD(method=method, num_classes=4, attack_steps=3, **given)


def teacher_net() -> nn.Module:
    torch.manual_seed(5)
    return create_classifier("resnet10-w3", 4, 1)


def batch() -> tuple[Tensor, Tensor, Tensor]:
    return six_images(8)


def slow_kl(p: np.ndarray, q: np.ndarray) -> float:
    """Sum over classes, mean over samples, in double precision and one number at a time."""
    total = 0.0
    for a, b in zip(p.astype(np.float64), q.astype(np.float64), strict=True):
        total += sum(x * (np.log(x) - np.log(y)) for x, y in zip(a, b, strict=True))
    return total / len(p)


def slow_ce(z: Tensor, y: Tensor) -> float:
    return float(-np.log(probs(z)[np.arange(len(y)), y.numpy()]).mean())


# Equations --------------------------------------------------------------------------------------------------------


def test_kl_against_a_slow_reference() -> None:
    torch.manual_seed(0)
    a, b = torch.randn(5, 7), torch.randn(5, 7)
    assert kl(a.log_softmax(1), b.log_softmax(1)).item() == pytest.approx(slow_kl(probs(a), probs(b)), rel=1e-5)
    assert kl(a.log_softmax(1), a.log_softmax(1)).item() == pytest.approx(0, abs=1e-6)


def test_kl_is_the_authors_loss_up_to_the_stated_factor() -> None:
    """They average over classes as well, and add 1e-5 inside the logarithm of the teacher."""
    torch.manual_seed(0)
    t, s = torch.randn(8, 10), torch.randn(8, 10)
    p, log_q = t.softmax(1), s.log_softmax(1)
    theirs = (-log_q * p + torch.log(p + 1e-5) * p).mean()
    assert 0.1 * kl(t.log_softmax(1), log_q).item() == pytest.approx(theirs.item(), rel=1e-3)


def test_one_hot_teacher_gives_cross_entropy() -> None:
    """With certain soft labels the loss equals cross-entropy times `kl_scale`."""
    x, y, index = batch()
    sure = lambda images: 200.0 * torch.nn.functional.one_hot(y, 4).float()  # noqa: E731
    model = student(kl_scale=0.1, adversarial_weight=0.0).teach(sure)
    with torch.no_grad():
        expected = 0.1 * slow_ce(copy.deepcopy(model).train()(x), y)
    model.attack = lambda x, *args: x  # type: ignore[method-assign]
    model.network.eval()
    found = model.train().loss(x, y, index)
    assert found.item() == pytest.approx(expected, rel=1e-4)


class Recorded:
    """Keeps what the student was attacked with."""

    def __init__(self, model: RSLAD) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.adv: Tensor | None = None
        original = model.attack

        def attack(*args: Any, **options: Any) -> Tensor:
            self.calls.append(args)
            self.adv = original(*args, **options)
            return self.adv

        model.attack = attack  # type: ignore[method-assign]


@pytest.mark.parametrize("method", METHODS)
def test_losses_by_hand(method: str) -> None:
    """Each method's equation in double precision, from the logits of the same two passes in the same order."""
    x, y, index = batch()
    net = teacher_net()
    init = {"alpha": 0.7, "temperature": 2.0, "iad_power": 0.4, "kl_scale": 0.5, "beta": 3.0, "adversarial_weight": 0.6}
    model = student(method, **init).teach(net).train()
    twin = copy.deepcopy(model)
    seen = Recorded(model)
    found = model.loss(x, y, index).item()
    if method == "natural":
        assert found == pytest.approx(slow_ce(twin(x), y), rel=1e-4)
        return
    assert seen.adv is not None
    with torch.no_grad():
        z_adv, z, t = twin(seen.adv), twin(x), net(x)
        t_adv = net(seen.adv)
    ps, ps_adv, pt = probs(z), probs(z_adv), probs(t)
    soft = 4 * slow_kl(probs(t / 2), probs(z_adv / 2))
    distrust = 1 - probs(t_adv)[np.arange(6), y.numpy()] ** 0.4
    each = [slow_kl(a[None], b[None]) for a, b in zip(ps, ps_adv, strict=True)]
    expected = {
        "sat": slow_ce(z_adv, y),
        "trades": slow_ce(z, y) + 3 * slow_kl(ps, ps_adv),
        "ard": 0.7 * soft + 0.3 * slow_ce(z, y),
        "iad": 0.7 * (soft + float(np.mean(distrust * each))) + 0.3 * slow_ce(z, y),
        "rslad": 0.5 * (0.6 * slow_kl(pt, ps_adv) + 0.4 * slow_kl(pt, ps)),
    }[method]
    assert found == pytest.approx(expected, rel=1e-3)
    assert seen.calls[0][2] == ("kl" if method in ("rslad", "trades") else "ce")


def test_inner_maximisation_against_a_literal_loop() -> None:
    """Algorithm of the paper, spelled out: evaluation mode, sign steps, ball, range."""
    x, _, index = batch()
    model = student().eval()
    target = torch.randn(6, 4).softmax(1)
    torch.manual_seed(11)
    found = model.attack(x, target, "kl", index)
    from zoo.nn.attacks import pgd

    torch.manual_seed(11)
    seed = int(torch.randint(2**31, ()))
    adv = pgd(model, x, target, eps=EPS, steps=0, loss="kl", start="gaussian", seed=seed, index=index)
    assert 0 < (adv - x).abs().mean() < 0.002
    for _ in range(3):
        adv.requires_grad_()
        value = (target * (target.log() - model(adv).log_softmax(1))).sum()
        (grad,) = torch.autograd.grad(value, adv)
        adv = adv.detach() + 0.03 * grad.sign()
        adv = torch.minimum(torch.maximum(adv, x - EPS), x + EPS).clamp(0, 1)
    torch.testing.assert_close(found, adv)
    assert (found - x).abs().max() <= EPS + 1e-6


def test_attack_in_evaluation_mode_and_loss_in_training_mode() -> None:
    x, y, index = batch()
    model = student().teach(teacher_net()).train()
    modes: list[tuple[bool, bool]] = []
    model.network.register_forward_hook(lambda m, a, o: modes.append((m.training, torch.is_grad_enabled())))
    model.loss(x, y, index)
    assert [training for training, _ in modes] == [False] * 3 + [True] * 2
    assert model.network.training
    assert model.network.bn1.num_batches_tracked == 2  # type: ignore[union-attr]


def test_hard_labels_and_weight() -> None:
    x, y, index = batch()
    net = teacher_net()

    def loss(**init: Any) -> float:
        torch.manual_seed(1)
        return student(**init).teach(net).train().loss(x, y, index).item()

    soft, both = loss(), loss(hard="both")
    assert loss(hard="adversarial") != pytest.approx(soft)
    assert loss(hard="both", adversarial_weight=0.0) == pytest.approx(loss(hard="clean", adversarial_weight=0.0))
    assert both != pytest.approx(soft)
    assert loss(kl_scale=1.0) == pytest.approx(10 * soft, rel=1e-4)


def test_rslad_uses_no_label() -> None:
    x, y, index = batch()
    found = []
    for labels in (y, (y + 1) % 4):
        torch.manual_seed(2)
        found.append(student().teach(teacher_net()).train().loss(x, labels, index))
    assert torch.equal(found[0], found[1])


# Teacher ----------------------------------------------------------------------------------------------------------


def data(**init: Any) -> ImagesDataModule:
    return ImagesDataModule(**({"train_size": 24, "val_size": 10, "test_size": 10, "batch_size": 8} | init))


def run(folder: Path, model: RSLAD, epochs: int = 1, **options: Any) -> Trainer:
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    trainer = Trainer(default_root_dir=folder, max_epochs=epochs, num_sanity_val_steps=0, **{**quiet, **options})
    trainer.fit(model, data(), ckpt_path=None)
    return trainer


def fmnist(method: str = "rslad", **init: Any) -> RSLAD:
    given = {"network": "resnet10-w2", "channels": 1, "img_size": 28, "eps": EPS, "attack_steps": 1, "eval_steps": 1}
    return RSLAD(method=method, **(given | {"schedule": "cosine", "lr": 0.05} | init))


def test_teacher_by_checkpoint_is_frozen_and_only_named(tmp_path: Path) -> None:
    run(tmp_path, fmnist("natural")).save_checkpoint(tmp_path / "teacher.ckpt")
    model = fmnist(teacher=str(tmp_path / "teacher.ckpt"))
    trainer = run(tmp_path, model, epochs=2)
    assert model.teacher is not None
    taught = model.teacher.model
    assert isinstance(taught, RSLAD)
    assert not any(m.training for m in taught.modules())
    assert not any(p.requires_grad for p in taught.parameters())
    assert not [k for k in model.state_dict() if "teacher" in k]
    before = RSLAD.load_from_checkpoint(tmp_path / "teacher.ckpt", weights_only=True).state_dict()
    assert all(torch.equal(v, before[k]) for k, v in taught.state_dict().items())
    trainer.save_checkpoint(tmp_path / "student.ckpt")
    held = torch.load(tmp_path / "student.ckpt", weights_only=True)
    assert held["teacher"]["name"] == str(tmp_path / "teacher.ckpt")
    assert len(held["teacher"]["sha256"]) == 64
    assert not [k for k in held["state_dict"] if "teacher" in k]


def test_resuming_with_another_teacher_is_refused(tmp_path: Path) -> None:
    for seed in (0, 1):
        torch.manual_seed(seed)
        run(tmp_path, fmnist("natural")).save_checkpoint(tmp_path / f"{seed}.ckpt")
    trainer = run(tmp_path, fmnist(teacher=str(tmp_path / "0.ckpt")))
    trainer.save_checkpoint(tmp_path / "student.ckpt")
    (tmp_path / "0.ckpt").write_bytes((tmp_path / "1.ckpt").read_bytes())
    again = Trainer(logger=False, max_epochs=2, enable_progress_bar=False, accelerator="cpu", default_root_dir=tmp_path)
    with pytest.raises(InvalidConfig, match="The teacher of this run had weights"):
        again.fit(
            fmnist(teacher=str(tmp_path / "0.ckpt")), data(), ckpt_path=tmp_path / "student.ckpt", weights_only=True
        )


def test_teacher_from_a_foreign_file(tmp_path: Path) -> None:
    torch.save({"state_dict": create_classifier("wrn10-1", 10, 1).state_dict()}, tmp_path / "t.pt")
    run(tmp_path, fmnist(teacher=str(tmp_path / "t.pt"), teacher_network="wrn10-1"))
    with pytest.raises(BadInput, match="teacher_network"):
        run(tmp_path, fmnist(teacher=str(tmp_path / "t.pt")))


def test_no_teacher_is_told_before_training(tmp_path: Path) -> None:
    for method in ("rslad", "ard", "iad"):
        with pytest.raises(InvalidConfig, match="teacher"):
            run(tmp_path, fmnist(method))


def test_a_teacher_is_a_function() -> None:
    for wrong in ("x", 3):
        with pytest.raises(BadInput, match="expected a module or a function of tensors, got"):
            student().teach(wrong)  # type: ignore[arg-type]


def test_teacher_with_other_classes_or_probabilities(tmp_path: Path) -> None:
    x, y, index = batch()
    with pytest.raises(BadInput, match="tells 7 classes apart, this model 4"):
        student().teach(create_classifier("resnet10-w2", 7, 1)).loss(x, y, index)
    net = teacher_net()
    with pytest.raises(BadInput, match="probabilities"):
        student().teach(lambda images: net(images).softmax(1)).loss(x, y, index)
    trainer = run(tmp_path, fmnist("natural"))
    trainer.save_checkpoint(tmp_path / "teacher.ckpt")
    small = RSLAD(num_classes=4, network="resnet10-w2", channels=1, teacher=str(tmp_path / "teacher.ckpt"))
    small.trainer = trainer
    with pytest.raises(BadInput, match="has 10 classes, this model 4"):
        small.find_other("teacher")
    names = [*FASHION_NAMES[1:], FASHION_NAMES[0]]
    order = RSLAD(class_names=names, network="resnet10-w2", channels=1, teacher=str(tmp_path / "teacher.ckpt"))
    with pytest.raises(BadInput, match="classes in the same order"):
        order.find_other("teacher")


# Arguments and inputs ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"eps": 8.0}, "8/255"),
        ({"eps": 0.0}, "eps"),
        ({"eps": -0.1}, "eps"),
        ({"method": "rslda"}, "rslad"),
        ({"hard": "all"}, "hard"),
        ({"schedule": "linear"}, "schedule"),
        ({"test_attacks": ["pdg"]}, "pgd"),
        ({"adversarial_weight": 1.5}, "adversarial_weight"),
        ({"mean": [0.5]}, "mean and std"),
        ({"class_names": ["a"]}, "class_names"),
        ({"attack_steps": -1}, "attack_steps"),
    ],
)
def test_arguments_are_refused(given: dict[str, Any], told: str) -> None:
    with pytest.raises(BadInput, match=told):
        RSLAD(**({"network": "resnet10-w2", "channels": 1} | given))


def test_images_outside_the_range_are_refused() -> None:
    x, y, index = batch()
    with pytest.raises(BadInput, match="Divide by 255"):
        student("sat").loss(255 * x, y, index)
    with pytest.raises(BadInput, match=r"\[0, 1\]"):
        student().predict(3 * torch.rand(1, 8, 8))
    with pytest.raises(BadInput, match="images"):
        student()(torch.rand(2, 3, 8, 8))


def test_prediction_keeps_float_inputs_as_they_are() -> None:
    model = student().eval()
    x = torch.rand(3, 1, 8, 8)
    found = model.predict(x)
    with torch.no_grad():
        torch.testing.assert_close(torch.stack([f["logits"] for f in found]), model(x))
    assert [f["name"] for f in found] == [str(int(f["label"])) for f in found]


def test_prediction_of_a_picture_without_warnings(recwarn: pytest.WarningsRecorder) -> None:
    picture = Image.fromarray(np.full((8, 8), 51, dtype=np.uint8))
    found, expected = student().eval().predict([picture, torch.full((1, 8, 8), 0.2)])
    torch.testing.assert_close(found["logits"], expected["logits"])
    assert not recwarn.list
    assert fit_square(np.zeros((5, 7, 3), dtype=np.uint8), 5, 1).flags.writeable  # torch warns once per process only


def test_warmup_raises_eps_linearly(tmp_path: Path) -> None:
    model = fmnist("sat", eps_warmup=2.0)
    shares: list[float] = []
    loss = model.loss
    model.loss = lambda x, y, index, share: shares.append(share) or loss(x, y, index, share)  # type: ignore
    run(tmp_path, model, epochs=3, limit_val_batches=0)
    assert shares == pytest.approx([0, 1 / 6, 2 / 6, 3 / 6, 4 / 6, 5 / 6, 1, 1, 1])


def test_evaluation_worst_case_is_below_each_attack(tmp_path: Path) -> None:
    model = fmnist("natural", test_attacks=["fgsm", "pgd", "cw", "apgd-ce", "apgd-dlr"])
    run(tmp_path, model, epochs=2)
    trainer = Trainer(logger=False, enable_progress_bar=False, accelerator="cpu", default_root_dir=tmp_path)
    found = trainer.test(model, data(), verbose=False)[0]
    each = [v for k, v in found.items() if k.startswith("test/robust_")]
    assert len(each) == 5
    assert found["test/robust"] <= min(each) <= found["test/accuracy"]
