"""EWWA-FL as a method: sizes, variants, contributions. The rule itself is tested with the other rules."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from lightning import seed_everything
from PIL import Image

from datamodules.clients import ClientsDataModule
from zoo.errors import BadInput
from zoo.federated.rules import ClientUpdate, RoundContext
from zoo.methods.ewwa_fl.module import EWWAFL, VARIANTS
from zoo.methods.ewwa_fl.studies import three_clients
from zoo.nn.classifiers import create_classifier
from zoo.studies.rounds import run_rounds

SMALL: dict[str, Any] = {"num_clients": 3, "train_size": 60, "val_size": 20, "test_size": 20, "batch_size": 8}
GREY: dict[str, Any] = {"network": "lenet5", "channels": 1, "img_size": 28, "client_processes": 1, "lr": 0.05}


def made(**options: Any) -> EWWAFL:
    seed_everything(0, verbose=False)
    return EWWAFL(**{**GREY, **options})


def trained(rounds: int = 2, data: dict[str, Any] | None = None, **options: Any) -> EWWAFL:
    found: EWWAFL = run_rounds(made(**options), ClientsDataModule(**{**SMALL, **(data or {})}), rounds).model
    return found


def size_of(name: str, **options: Any) -> int:
    return sum(p.numel() for p in create_classifier(name, 10, **options).parameters())


def test_networks_have_their_published_sizes() -> None:
    assert sum(p.numel() for p in EWWAFL().network.parameters()) == 15_826
    # He et al. 2016, table 6: 0.27 M and 0.46 M; option A has no parameters in its shortcuts
    assert size_of("cifar-resnet20") == 269_722
    assert size_of("cifar-resnet32") == 464_154
    assert size_of("cifar-resnet8-gn") == size_of("cifar-resnet8") == 75_290
    x = torch.rand(2, 3, 32, 32)
    for name in ("strided-lenet", "cifar-resnet8-gn", "cifar-resnet20"):
        assert create_classifier(name, 7)(x).shape == (2, 7)


def test_padded_shortcut_against_its_definition() -> None:
    """Option A: every other pixel, zeros for the new channels."""
    block = create_classifier("cifar-resnet8", 10).get_submodule("layer2")[0].eval()  # type: ignore[index]
    for norm in (block.bn1, block.bn2):  # the residual branch becomes zero
        torch.nn.init.zeros_(norm.weight)
    x = torch.rand(2, 16, 8, 8)
    out = block(x)
    torch.testing.assert_close(out[:, 8:24], x[:, :, ::2, ::2])
    assert not out[:, :8].any()
    assert not out[:, 24:].any()


def test_variants_choose_the_rule() -> None:
    paper, official = made().rule, made(variant="official").rule
    assert (paper.normaliser, paper.moments, paper.sign) == ("softmax", "per-client", "signed")  # type: ignore[attr-defined]
    assert (official.normaliser, official.moments) == ("log", "shared")  # type: ignore[attr-defined]
    assert not paper.order_sensitive
    assert official.order_sensitive
    mixed = made(variant="official", moments="per-client").rule
    assert (mixed.normaliser, mixed.moments) == ("log", "per-client")  # type: ignore[attr-defined]
    for server in ("adam", "adagrad", "yogi"):
        assert made(server=server).rule.optimiser == server  # type: ignore[attr-defined]
    assert made(algorithm="fedavg").rule.weighting == "uniform"  # type: ignore[attr-defined]


def answers(order: list[int]) -> list[ClientUpdate]:
    """Updates of three clients whose numbers are dealt anew; the same weights whatever their numbers."""
    found = []
    for number, who in enumerate(order):
        draw = torch.Generator().manual_seed(who)
        found.append(ClientUpdate(number, 5, {"w": torch.randn(50, generator=draw)}))
    return found


@pytest.mark.parametrize("variant", list(VARIANTS))
def test_only_the_official_variant_depends_on_the_order_of_clients(variant: str) -> None:
    rule, sd = made(variant=variant).rule, {"w": torch.zeros(50)}
    ctx = RoundContext(0, 0, (0, 1, 2), 3)
    first = rule(sd, answers([10, 11, 12]), ctx, rule.init_state(sd))[0]["w"]
    other = rule(sd, answers([12, 10, 11]), ctx, rule.init_state(sd))[0]["w"]
    assert torch.allclose(first, other, atol=1e-6) == (variant == "paper")


def test_one_client_gets_its_own_weights_back() -> None:
    one = trained(1, {"num_clients": 1})
    mean = trained(1, {"num_clients": 1}, algorithm="fedavg")
    for key, value in one.network.state_dict().items():
        torch.testing.assert_close(value, mean.network.state_dict()[key], atol=1e-7, rtol=1e-6)


def test_it_is_not_the_mean() -> None:
    found, mean = trained(1), trained(1, algorithm="fedavg")
    assert any(
        not torch.allclose(v, mean.network.state_dict()[k], atol=1e-5) for k, v in found.network.state_dict().items()
    )


def test_momentum_persists_by_default() -> None:
    assert trained(1).client_states.keys() == {0, 1, 2}
    assert not trained(1, optimizer_policy="fresh").client_states


def test_contributions() -> None:
    model = trained(3)
    rows = model.contribution_report()
    entries = list(model.network.state_dict())
    assert len(rows) == 3 * 3 * len(entries)
    for round in range(3):
        for entry in entries:
            shares = [r["share"] for r in rows if r["round"] == round and r["entry"] == entry]
            assert len(shares) == 3
            assert sum(shares) == pytest.approx(1.0, abs=1e-6)
            assert all(0 < s < 1 for s in shares)
    picture = model.contribution_picture()
    assert isinstance(picture, Image.Image)
    assert len(np.unique(np.asarray(picture).reshape(-1, 3), axis=0)) > 20, "shares differ, and so do colours"
    rows[0]["share"] = 7.0
    assert model.contribution_report()[0]["share"] != 7.0, "a copy"


def test_baselines_have_no_contributions() -> None:
    model = trained(1, algorithm="fedadam", eta=0.01)
    assert model.contribution_report() == []
    with pytest.raises(BadInput, match="contributions"):
        model.contribution_picture()


def test_random_shares_are_a_control() -> None:
    """As spread as the computed ones, in the first round, where both see the same updates."""
    ours, control = trained(1), trained(1, shares="random")
    assert any(not torch.equal(v, control.network.state_dict()[k]) for k, v in ours.network.state_dict().items())


@pytest.mark.parametrize(
    ("options", "told"),
    [({"algorithm": "fedavgg"}, "fedavg"), ({"variant": "papre"}, "paper"), ({"server": "sgd"}, "adam")],
)
def test_bad_arguments_are_named(options: dict[str, Any], told: str) -> None:
    with pytest.raises(BadInput, match=told):
        EWWAFL(**options)


def test_study_of_three_clients() -> None:
    found = three_clients(rounds=2, images=120)
    assert set(found.metrics) == set(three_clients.metrics)  # type: ignore[attr-defined]
    (curve,) = found.curves.values()
    assert found.metrics["area"] == pytest.approx(sum(y for _, y in curve) / 2)
    assert found.metrics["early"] == curve[0][1]
    assert found.metrics["failed"] == float(found.metrics["accuracy"] < 0.2)
