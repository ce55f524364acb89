"""Training by the three criteria, the schedule, the frozen parameters, the Lipschitz probe, and what is refused."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Trainer
from torch import Tensor

from datamodules.images import ImagesDataModule
from zoo.errors import BadInput
from zoo.methods.robust_wrn import RobustWRN
from zoo.methods.robust_wrn.lipschitz import local_lipschitz

EPS = 0.1


def model(criterion: str = "sat", **init: Any) -> RobustWRN:
    torch.manual_seed(3)
    given: dict[str, Any] = {
        "widths": [4, 6, 8, 6],
        "depths": [1, 1, 1],
        "network": "16-r",
        "channels": 1,
        "img_size": 8,
    }
    given |= {"num_classes": 4, "eps": EPS, "attack_step": 0.03, "attack_steps": 3}
    return RobustWRN(criterion=criterion, **(given | init))


def batch() -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(7)
    return torch.rand(6, 1, 8, 8), torch.tensor([0, 1, 2, 3, 0, 1]), torch.arange(6)


def run(folder: Path, trained: RobustWRN, epochs: int, **options: Any) -> Trainer:
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    trainer = Trainer(default_root_dir=folder, max_epochs=epochs, num_sanity_val_steps=0, **{**quiet, **options})
    trainer.fit(trained, ImagesDataModule(train_size=16, val_size=10, test_size=20, batch_size=8))
    return trainer


def fmnist(**init: Any) -> RobustWRN:
    return model(**({"num_classes": 10, "img_size": 28, "attack_steps": 1, "eval_steps": 2} | init))


# Criteria ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("criterion", ["sat", "trades", "mart"])
def test_criteria_against_the_formulas(criterion: str) -> None:
    """The value in double precision, from the logits of the same passes on the same x'."""
    x, y, index = batch()
    trained = model(criterion, beta=4.0).train()
    twin, seen = copy.deepcopy(trained), {}
    attack = trained.attack

    def spied(*args: Any, **options: Any) -> Tensor:
        seen["adv"], seen["loss"] = attack(*args, **options), args[2]
        return seen["adv"]

    trained.attack = spied  # type: ignore[method-assign]
    found = trained.loss(x, y, index).item()
    with torch.no_grad():
        q = twin(seen["adv"]).double().softmax(1)
        p = twin(x).double().softmax(1)
    rows = range(6)
    ce = -sum(q[i, y[i]].log().item() for i in rows) / 6
    each = [(p[i] * (p[i] / q[i]).log()).sum().item() for i in rows]
    wrong = [max(q[i, k].item() for k in range(4) if k != y[i]) for i in rows]
    doubt = [1.0000001 - p[i, y[i]].item() for i in rows]
    expected = {
        "sat": ce,
        "trades": -sum(p[i, y[i]].log().item() for i in rows) / 6 + 4 * sum(each) / 6,
        "mart": ce
        - sum(torch.tensor(1.0001 - w).log().item() for w in wrong) / 6
        + 4 * sum(a * b for a, b in zip(each, doubt, strict=True)) / 6,
    }[criterion]
    assert found == pytest.approx(expected, rel=1e-4)
    assert seen["loss"] == ("kl" if criterion == "trades" else "ce")


@pytest.mark.parametrize(("criterion", "passes"), [("sat", 4), ("trades", 6), ("mart", 5)])
def test_passes_and_their_modes(criterion: str, passes: int) -> None:
    """Three steps in evaluation mode, the target of trades once before them, then training mode, x' first."""
    x, y, index = batch()
    trained = model(criterion).train()
    modes: list[tuple[bool, bool]] = []
    trained.network.register_forward_hook(
        lambda net, *_: modes.append((net.training, any(p.requires_grad for p in net.parameters())))
    )
    trained.loss(x, y, index)
    last = 1 if criterion == "sat" else 2
    assert len(modes) == passes
    assert modes[-3 - last : -last] == [(False, False)] * 3  # frozen while the attack runs
    assert modes[-last:] == [(True, True)] * last
    assert trained.network.bn1.num_batches_tracked == last  # type: ignore[union-attr]


@pytest.mark.parametrize(("criterion", "spread"), [("sat", 0.03), ("mart", 0.03), ("trades", 0.001)])
def test_starts_of_the_training_attack(criterion: str, spread: float) -> None:
    """Gaussian: by the step for sat and mart, by 0.001 for trades; other starts by name."""
    x = torch.full((40, 1, 8, 8), 0.5)
    y, index = torch.zeros(40, dtype=torch.int64), torch.arange(40)
    starts: dict[str, Tensor] = {}
    for start in ("gaussian", "uniform", "none"):
        name = "kl_start" if criterion == "trades" else "ce_start"
        trained = model(criterion, attack_steps=0, eps=0.3, **{name: start})
        attack = trained.attack
        trained.attack = lambda *a, f=attack, s=start, **o: starts.setdefault(s, f(*a, **o))  # type: ignore
        trained.loss(x, y, index)
    assert (starts["gaussian"] - x).std().item() == pytest.approx(spread, rel=0.05)
    assert (starts["uniform"] - x).std().item() == pytest.approx(0.3 / 3**0.5, rel=0.05)
    assert torch.equal(starts["none"], x)


def test_parameters_are_trained_again_after_an_error() -> None:
    x, y, index = batch()
    trained = model().train()
    trained.freeze("network.stem_conv")
    before = {name: p.requires_grad for name, p in trained.named_parameters()}

    def broken(*_: Any) -> Tensor:
        assert not any(p.requires_grad for p in trained.parameters())
        raise RuntimeError("in the middle of the attack")

    with pytest.raises(RuntimeError, match="in the middle"):
        trained.attack(x, y, broken, index)
    assert {name: p.requires_grad for name, p in trained.named_parameters()} == before
    assert trained.network.training
    assert sum(before.values()) == len(before) - 1


def test_radius_rises_as_a_cosine(tmp_path: Path) -> None:
    """eps = a + (e - a) (1 - cos(pi t)) / 2 within the warm-up, e after it."""
    trained = fmnist(eps_warmup=2.0, warmup_shape="cosine", warmup_from=0.025)
    radii: list[float] = []
    loss = trained.loss
    trained.loss = lambda x, y, index, share: radii.append(share * EPS) or loss(x, y, index, share)  # type: ignore
    run(tmp_path, trained, 3, limit_val_batches=0)
    expected = [0.025, 0.025 + 0.075 * (1 - 0.5**0.5) / 2, 0.0625, 0.025 + 0.075 * (1 + 0.5**0.5) / 2, 0.1, 0.1]
    assert radii == pytest.approx(expected)


# Optimiser --------------------------------------------------------------------------------------------------------


def test_learning_rate_at_75_and_90_percent(tmp_path: Path) -> None:
    """Of 100 epochs: a tenth from epoch 75 on, a hundredth from epoch 90 on; milestones of 1 to 7 epochs too."""
    trained = fmnist(criterion="natural")
    rates: dict[int, float] = {}

    def begin() -> None:
        rates[trained.current_epoch] = trained.trainer.optimizers[0].param_groups[0]["lr"]

    trained.on_train_epoch_start = begin  # type: ignore[method-assign]
    run(tmp_path, trained, 100, limit_val_batches=0, limit_train_batches=1)
    assert [rates[e] for e in (0, 74, 75, 89, 90, 99)] == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001, 0.001])
    trained.trainer = Trainer(max_epochs=-1, max_steps=200, logger=False, enable_progress_bar=False, accelerator="cpu")
    assert trained.milestones() == ([150, 180], False)
    for epochs in range(1, 41):
        trained.trainer = Trainer(max_epochs=epochs, logger=False, enable_progress_bar=False, accelerator="cpu")
        (first, second), counts_epochs = trained.milestones()
        assert counts_epochs
        assert [e >= first for e in range(epochs)] == [4 * e >= 3 * epochs for e in range(epochs)]
        assert [e >= second for e in range(epochs)] == [10 * e >= 9 * epochs for e in range(epochs)]


def test_head_has_its_own_decay() -> None:
    trained = model(head_weight_decay=0.01)
    groups = trained.parameter_groups()
    assert [len(group["params"]) for group in groups] == [len(list(trained.parameters())) - 2, 2]
    assert groups[1]["params"] == list(trained.network.fc.parameters())  # type: ignore[union-attr]
    assert groups[1]["weight_decay"] == 0.01
    assert len(model().parameter_groups()) == len(list(trained.parameters()))


# Lipschitz --------------------------------------------------------------------------------------------------------


def test_lipschitz_against_a_literal_loop() -> None:
    x, _, _ = batch()
    torch.manual_seed(1)
    x_adv = (x + EPS * (2 * torch.rand_like(x) - 1)).clamp(0, 1)
    x_adv[5] = x[5]
    trained = model().train()
    found, found_kl = trained.local_lipschitz(x, x_adv), trained.local_lipschitz(x, x_adv, "kl")
    assert trained.network.training
    assert not found.requires_grad
    net = trained.network.eval()
    with torch.no_grad():
        for i in range(5):
            z, z_adv = net(x[i : i + 1])[0].double(), net(x_adv[i : i + 1])[0].double()
            below = max(abs(a - b) for a, b in zip(x[i].flatten().tolist(), x_adv[i].flatten().tolist(), strict=True))
            above = sum(abs(a - b) for a, b in zip(z.tolist(), z_adv.tolist(), strict=True))
            assert found[i].item() == pytest.approx(above / below, rel=1e-4)
            p, q = z.softmax(0).tolist(), z_adv.softmax(0).tolist()
            divergence = sum(a * (math.log(a) - math.log(b)) for a, b in zip(p, q, strict=True))
            assert found_kl[i].item() == pytest.approx(divergence / below, rel=1e-2, abs=1e-5)
    assert found[5] == 0
    with pytest.raises(BadInput, match="distance"):
        trained.local_lipschitz(x, x_adv, "l2")


def test_a_linear_network_has_its_own_constant() -> None:
    """For z = W x the constant under one sign step of a single row is known exactly."""
    torch.manual_seed(0)
    w = torch.randn(3, 5, dtype=torch.float64)
    x = torch.rand(4, 5, dtype=torch.float64)
    x_adv = x + 0.2 * w[0].sign()
    found = local_lipschitz(x @ w.T, x_adv @ w.T, x, x_adv)
    torch.testing.assert_close(found, (w @ w[0].sign()).abs().sum().expand(4))


def test_evaluation_logs_the_probe(tmp_path: Path) -> None:
    trained = fmnist(test_attacks=["pgd"])
    run(tmp_path, trained, 1)
    trainer = Trainer(logger=False, enable_progress_bar=False, accelerator="cpu", default_root_dir=tmp_path)
    data = ImagesDataModule(train_size=16, val_size=10, test_size=20, batch_size=8)
    found = trainer.test(trained, data, verbose=False)[0]
    values = []
    for part in data.test_dataloader():
        values.append(trained.local_lipschitz(part["image"], trained.attacked("pgd", part)))
    assert found["test/lipschitz"] == pytest.approx(torch.cat(values).mean().item(), rel=1e-4)
    assert found["test/lipschitz_kl"] > 0


# Arguments --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"eps": 8.0}, "8/255"),
        ({"eps": 0.0}, "eps"),
        ({"criterion": "trade"}, "trades"),
        ({"beta": -1.0}, "beta"),
        ({"head_weight_decay": -1.0}, "head_weight_decay"),
        ({"ce_start": "normal"}, "ce_start"),
        ({"kl_start": "gauss"}, "gaussian"),
        ({"eval_start": "pgd"}, "eval_start"),
        ({"warmup_shape": "cos"}, "warmup_shape"),
        ({"warmup_from": 0.2}, "warmup_from: expected a radius from 0 to eps"),
        ({"milestones": [75, 90]}, "shares of the epochs"),
        ({"schedule": "share"}, "schedule"),
        ({"mean": [0.5]}, "mean and std"),
        ({"class_names": ["a"]}, "class_names"),
        ({"test_attacks": ["pdg"]}, "pgd"),
    ],
)
def test_arguments_are_refused(given: dict[str, Any], told: str) -> None:
    with pytest.raises(BadInput, match=told):
        model(**given)


def test_distributions_of_labels() -> None:
    """Mixed labels weigh the cross-entropies; mart, which has no definition for them, says so."""
    x, y, index = batch()
    mixed = 0.5 * (torch.nn.functional.one_hot(y, 4) + torch.nn.functional.one_hot((y + 1) % 4, 4)).float()
    for criterion in ("sat", "trades"):
        assert model(criterion).train().loss(x, mixed, index).isfinite()
    with pytest.raises(BadInput, match="cutmix"):
        model("mart").train().loss(x, mixed, index)
