"""Algorithms of the swarm against finite differences, literal formulas and sums by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from lightning import seed_everything
from torch import nn
from torch.nn import functional as F

from datamodules.clients import ClientsDataModule
from datamodules.clients.tasks import ClientTask
from zoo.errors import BadInput
from zoo.federated.clients import FedProx, Moon, Work, contrast
from zoo.federated.rules import RoundContext
from zoo.methods.uav_swarm_fl.module import ALGORITHMS, UAVSwarm
from zoo.methods.uav_swarm_fl.studies import change, partitions
from zoo.studies.rounds import Run, run_rounds

SMALL: dict[str, Any] = {"num_clients": 4, "train_size": 60, "val_size": 20, "test_size": 20, "batch_size": 8}


def swarm(**options: Any) -> UAVSwarm:
    seed_everything(0, verbose=False)
    return UAVSwarm(**{"network": "resnet10-w2-gn", "local_epochs": 1, "lr": 0.05, "client_processes": 1, **options})


def trained(rounds: int = 2, data: dict[str, Any] | None = None, **options: Any) -> UAVSwarm:
    found: UAVSwarm = run_rounds(swarm(**options), ClientsDataModule(**{**SMALL, **(data or {})}), rounds).model
    return found


def same(first: UAVSwarm, second: UAVSwarm) -> bool:
    a, b = first.network.state_dict(), second.network.state_dict()
    return all(torch.equal(value, b[key]) for key, value in a.items())


def test_anchor_network_has_its_published_size() -> None:
    count = sum(p.numel() for p in UAVSwarm(network="lenet5", channels=1, img_size=28).network.parameters())
    assert count == 44_426


def test_moon_network() -> None:
    plain = sum(p.numel() for p in UAVSwarm().network.parameters())
    projected = UAVSwarm(algorithm="moon", projection=256)
    head = (84 * 84 + 84) + (84 * 256 + 256) + (256 * 10 + 10)
    assert sum(p.numel() for p in projected.network.parameters()) == plain - (84 * 10 + 10) + head
    logits, z = projected.network.both(torch.rand(3, 1, 28, 28))
    assert logits.shape == (3, 10)
    assert z.shape == (3, 256)
    assert projected.roles() == {"network.head": "head"}


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_algorithm_trains(algorithm: str) -> None:
    start = swarm(algorithm=algorithm)
    found = trained(2, algorithm=algorithm)
    assert not same(start, found)
    assert found.rule.name == (algorithm if algorithm in ("fedadam", "fedadagrad", "fedyogi") else "fedavg")
    assert found.client.name == (algorithm if algorithm in ("fedprox", "moon") else "plain")


# FedProx ------------------------------------------------------------------------------------------------------------


def test_proximal_gradient_against_finite_differences() -> None:
    """The gradient of L(w) + mu/2 ||w - w_t||^2, as the client uses it, at a point away from w_t."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    frozen = network[2].bias.requires_grad_(False)
    x, y = torch.randn(5, 3, dtype=torch.float64), torch.tensor([0, 1, 1, 0, 1])
    parameters = [p for p in network.parameters() if p.requires_grad]
    start = [p.detach() + 0.3 * torch.randn_like(p) for p in parameters]
    algorithm = FedProx(mu=0.7)
    module: Any = None
    work = Work(module, ClientTask(0), network, [], start, parameters, {}, RoundContext(0, 0, (0,), 1))

    def objective() -> torch.Tensor:
        return F.cross_entropy(network(x), y) + algorithm.penalty(work)

    F.cross_entropy(network(x), y).backward()
    algorithm.correct(work)
    step = 1e-6
    for parameter in parameters:
        flat, gradient = parameter.data.view(-1), parameter.grad
        assert gradient is not None
        for i in range(len(flat)):
            flat[i] += step
            above = objective().item()
            flat[i] -= 2 * step
            below = objective().item()
            flat[i] += step
            assert gradient.view(-1)[i].item() == pytest.approx((above - below) / (2 * step), abs=1e-7)
    assert frozen.grad is None, "parameters that are not trained have no term"


def test_fedprox_stays_nearer_to_the_global_model() -> None:
    start = swarm().network.state_dict()

    def distance(model: UAVSwarm) -> float:
        return math.sqrt(sum(float((v - start[k]).square().sum()) for k, v in model.network.state_dict().items()))

    apart = [distance(trained(1, algorithm="fedprox", mu=mu)) for mu in (0.0, 1.0, 10.0)]
    assert apart[0] > apart[1] > apart[2] > 0


def test_without_stragglers_and_mu_fedprox_is_fedavg() -> None:
    assert same(trained(algorithm="fedprox", mu=0.0), trained(algorithm="fedavg"))


def test_stragglers_count_for_fedprox_only() -> None:
    slow = {"stragglers": 1.0, "straggler_work": (0.4, 0.5)}
    assert same(trained(data=slow), swarm())
    partial = trained(data=slow, algorithm="fedprox", mu=0.0)
    assert not same(partial, swarm(algorithm="fedprox"))
    assert not same(partial, trained(algorithm="fedprox", mu=0.0))


# MOON ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [0.1, 0.5, 1.0])
def test_contrast_against_the_literal_logarithm(temperature: float) -> None:
    torch.manual_seed(1)
    z, near, far = (torch.randn(7, 5, dtype=torch.float64) for _ in range(3))
    total = 0.0
    for i in range(7):

        def cosine(other: torch.Tensor, i: int = i) -> float:
            return float(z[i] @ other[i] / (z[i].norm() * other[i].norm()))

        up = math.exp(cosine(near) / temperature)
        total += -math.log(up / (up + math.exp(cosine(far) / temperature)))
    assert float(contrast(z, near, far, temperature)) == pytest.approx(total / 7, abs=1e-12)
    assert float(contrast(z, near, near, temperature)) == pytest.approx(math.log(2))


def test_moon_has_no_term_in_a_clients_first_round() -> None:
    assert same(trained(1, algorithm="moon", mu=5.0), trained(1, algorithm="moon", mu=0.0))
    assert not same(trained(2, algorithm="moon", mu=5.0), trained(2, algorithm="moon", mu=0.0))


def test_moon_keeps_the_model_of_the_clients_last_round() -> None:
    one = trained(1, algorithm="moon")
    assert sorted(one.client_states) == [0, 1, 2, 3]
    sizes = [ClientsDataModule(**SMALL).client_size(k) for k in range(4)]
    key = "head.weight"
    mean = sum(n * one.client_states[k]["previous"][key].double() for k, n in enumerate(sizes)) / sum(sizes)
    torch.testing.assert_close(one.network.state_dict()[key], mean.float())  # type: ignore[union-attr]


def test_moon_needs_a_temperature() -> None:
    with pytest.raises(BadInput, match="temperature"):
        Moon(temperature=0.0)


# FedOpt -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ["fedadam", "fedadagrad", "fedyogi"])
def test_two_server_steps_by_hand(algorithm: str) -> None:
    """One element, one client that moves it by +0.2 and then by -0.1; tau 1e-3, v starts at tau^2."""
    rule = UAVSwarm(algorithm=algorithm, eta=0.5).rule
    from zoo.federated.rules import ClientUpdate

    b1, b2, tau = rule.beta1, getattr(rule, "beta2", None), rule.tau  # type: ignore[attr-defined]
    w, m, v = 1.0, 0.0, tau**2
    sd = {"w": torch.tensor([w])}
    state = rule.init_state(sd)
    for round, move in enumerate((0.2, -0.1)):
        update = ClientUpdate(0, 5, {"w": sd["w"] + move})
        sd, state, _ = rule(sd, [update], RoundContext(round, 0, (0,), 1), state)
        d = move
        m = b1 * m + (1 - b1) * d
        if algorithm == "fedadam":
            v = b2 * v + (1 - b2) * d * d
        elif algorithm == "fedyogi":
            v = v - (1 - b2) * d * d * math.copysign(1.0, v - d * d)
        else:
            v = v + d * d
        w = w + 0.5 * m / (math.sqrt(v) + tau)
        assert float(sd["w"]) == pytest.approx(w, rel=1e-5)


# Arguments ----------------------------------------------------------------------------------------------------------


def test_a_swarm_of_one_with_one_epoch_is_plain_sgd() -> None:
    data = ClientsDataModule(**{**SMALL, "num_clients": 1})
    found = run_rounds(swarm(weight_decay=0.0), data, 1).model
    alone = swarm(weight_decay=0.0)
    optimizer = torch.optim.SGD(alone.network.parameters(), lr=0.05, momentum=0.9)
    for batch in data.client_loader(0, 0, 1):
        optimizer.zero_grad()
        F.cross_entropy(alone(batch["image"]), batch["label"]).backward()
        optimizer.step()
    assert same(found, alone)


def test_transforms_change_what_is_sent() -> None:
    free = trained(1)
    still = trained(1, transforms=[{"name": "clip", "norm": 1e-9}])
    for key, value in still.network.state_dict().items():
        torch.testing.assert_close(value, swarm().network.state_dict()[key], atol=1e-6, rtol=0)
    noisy = trained(1, transforms=[{"name": "noise", "std": 0.1}])
    assert not same(free, noisy)
    assert same(noisy, trained(1, transforms=[{"name": "noise", "std": 0.1}]))


def test_features_are_what_the_last_layer_sees() -> None:
    for algorithm, size in (("fedavg", 84), ("moon", 256)):
        model = UAVSwarm(algorithm=algorithm).eval()
        image = torch.rand(1, 28, 28)
        result = model.predict(image)[0]
        assert result["features"].shape == (size,)
        last = model.network.get_submodule("linear" if size == 84 else "head")
        with torch.inference_mode():
            torch.testing.assert_close(last(result["features"]), result["logits"])


def test_normalisation_is_inside() -> None:
    plain, inside = swarm(), swarm(mean=[0.3], std=[0.5])
    x = torch.rand(2, 1, 28, 28)
    torch.testing.assert_close(inside(x), plain.network((x - 0.3) / 0.5))


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"algorithm": "fedporx"}, "fedprox"),
        ({"mean": [0.5]}, "mean and std"),
        ({"class_names": ["a"]}, "class_names"),
        ({"local_epochs": 0}, "local_epochs"),
        ({"optimizer": "sdg"}, "sgd"),
        ({"transforms": [{"name": "clip"}]}, "clip"),
        ({"rule": "medina"}, "median"),
        ({"algorithm": "fedprox", "mu": -1.0}, "mu"),
    ],
)
def test_bad_arguments_are_named(options: dict[str, Any], told: str) -> None:
    with pytest.raises((BadInput, LookupError), match=told):
        UAVSwarm(**options)


def test_study_of_partitions() -> None:
    found = partitions("fedavg", rounds=2, images=400)
    assert set(found.metrics) == set(partitions.metrics)  # type: ignore[attr-defined]
    accuracies = [found.metrics[name] for name in ("iid", "dirichlet", "labels_2", "labels_1")]
    assert found.metrics["worst"] == min(accuracies)
    assert found.metrics["loss_labels_1"] == pytest.approx(accuracies[0] - accuracies[3])
    assert all(len(points) == 2 for points in found.curves.values())


def test_change_is_the_mean_step() -> None:
    values = [0.9, 0.1, 0.2, 0.4, 0.3]
    assert change(Run(None, None, 0.0, values), last=3) == pytest.approx((0.1 + 0.2 + 0.1) / 3)
