"""Flower in one process, without Ray or sockets: equal bits, states of clients, deaths of clients and servers."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch

import zoo
from zoo.errors import BadInput, CorruptFile, InvalidConfig
from zoo.federated.learner import FederatedLearner
from zoo.federated.rules import StateDict, create_rule

pytest.importorskip("flwr", reason="the extra federated needs Python 3.11")

import tomllib

from zoo.federated import flower
from zoo.federated.flower.client_app import clients_of

MODEL: dict[str, Any] = {"network": "resnet10-w4-gn", "local_epochs": 1, "lr": 0.05}
DATA: dict[str, Any] = {
    "num_clients": 6, "batch_size": 8, "train_size": 72, "val_size": 20, "test_size": 7, "min_client_size": 2,
    "partition": "dirichlet-0.5",
}  # fmt: skip
NODES: list[dict[str, Any]] = [{"clients": "5,0,2"}, {"partition-id": 1}, {"clients": "3,4"}]


@pytest.fixture(autouse=True)
def one_thread_and_no_noise() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    logging.getLogger("flwr").setLevel(logging.ERROR)
    yield
    torch.set_num_threads(before)


def parts(model: dict[str, Any] | None = None, data: dict[str, Any] | None = None) -> tuple[FederatedLearner, Any]:
    lightning.seed_everything(0, verbose=False)
    learner = zoo.load("uav-swarm-fl", weights=False, **{**MODEL, **(model or {})}).train()
    assert isinstance(learner, FederatedLearner)
    return learner, zoo.datamodule("uav-swarm-fl", **{**DATA, **(data or {})})


def one_process(rounds: int = 3, **given: Any) -> StateDict:
    learner, data = parts(**given)
    trainer = lightning.Trainer(
        max_epochs=rounds, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, num_sanity_val_steps=0, limit_val_batches=0,
    )  # fmt: skip
    trainer.fit(learner, data)
    return learner.global_state()


def over_flower(rounds: int = 3, grid: Any = None, given: Any = None, **options: Any) -> tuple[StateDict, list[Any]]:
    learner, data = parts(**(given or {}))
    grid = grid or flower.LocalGrid(flower.make_client(), NODES)
    history = flower.serve(grid, learner, data, rounds=rounds, **{"wait": 0.0, **options})
    return learner.global_state(), history


def equal(one: StateDict, other: StateDict) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


CASES: dict[str, dict[str, Any]] = {
    "fedavg": {},
    "fedprox, persistent Adam": {
        "model": {"algorithm": "fedprox", "optimizer": "adam", "optimizer_policy": "persistent", "lr": 0.003}
    },
    "moon": {"model": {"algorithm": "moon", "projection": 16}},
    "fedadam": {"model": {"algorithm": "fedadam", "eta": 0.1}},
    "krum": {"model": {"rule": "krum"}},
    "median, noise": {"model": {"rule": "median", "transforms": [{"name": "noise", "std": 0.01}]}},
    "ewwa": {"model": {"rule": "ewwa-official"}},
    "batch statistics": {"model": {"network": "cifar-resnet8"}},
    "a real swarm": {
        "model": {"algorithm": "fedprox"},
        "data": {"participation": 0.7, "link_loss": 0.2, "stragglers": 0.5, "seed": 3},
    },
}


@pytest.mark.parametrize("case", list(CASES))
def test_the_same_bits_as_one_process(case: str) -> None:
    found, history = over_flower(given=CASES[case])
    assert equal(found, one_process(**CASES[case]))
    assert [row["round"] for row in history] == [0, 1, 2]


def test_clients_remember_in_flowers_context() -> None:
    grid = flower.LocalGrid(flower.make_client(), NODES)
    over_flower(2, grid, given={"model": {"algorithm": "moon", "projection": 16}})
    first, second, third = grid.contexts.values()
    assert sorted(first.state) == ["client-0", "client-2", "client-5"]
    assert sorted(second.state) == ["client-1"]
    learner, data = parts({"algorithm": "moon", "projection": 16})
    memory = flower.Memory(third, flower.Job.of(learner, data), 3)
    assert memory.before(0) == {}
    one, two = memory.before(1)["previous"], memory.before(2)["previous"]
    assert one.keys() == learner.global_state().keys()
    assert not equal(one, two)


# Deaths ---------------------------------------------------------------------------------------------------------------


def without(lost: dict[int, set[int]], rounds: int = 3, **given: Any) -> StateDict:
    """One process, in which some clients are missing in some rounds."""
    from zoo.federated.clients import train_client, working

    learner, data = parts(**given)
    state, remembered = learner.rule.init_state(learner.global_state()), {}
    for round in range(rounds):
        ctx, weights, updates = learner.context(data, round), learner.global_state(), []
        for task in working(data.cohort(round), learner.client):
            if task.client not in lost.get(round, set()):
                known = remembered.get(task.client, {})
                update, remembered[task.client] = train_client(learner, data, task, weights, known, ctx)
                updates.append(update)
        new, state, _ = learner.rule(weights, updates, ctx, state)
        learner.network.load_state_dict(new)
    return learner.global_state()


def test_a_client_that_fails_is_missing_in_that_round_only(caplog: pytest.LogCaptureFixture) -> None:
    app = flower.make_client()
    inner = app._registered_funcs["train.default"]

    def fails(message: Any, context: Any) -> Any:
        if message.content["config"]["client"] == 2 and message.content["config"]["round"] == 1:
            raise MemoryError("no room")
        return inner(message, context)

    app._registered_funcs["train.default"] = fails
    found, history = over_flower(grid=flower.LocalGrid(app, NODES))
    assert [row["clients"] for row in history] == [6, 5, 6]
    assert "MemoryError: no room" in caplog.text
    assert equal(found, without({1: {2}}))


def test_a_machine_that_dies_is_missing_until_it_is_back(caplog: pytest.LogCaptureFixture) -> None:
    died: list[int] = []

    def dies(node: int, message: Any) -> bool:
        if not died and message.metadata.group_id == "1" and message.content["config"]["client"] == 3:
            died.append(node)
            return True
        return False

    grid = flower.LocalGrid(flower.make_client(), NODES, dies)
    back: list[int] = []

    def comes_back(learner: Any) -> dict[str, float]:
        if died and len(back) == 1:  # after the round that followed the one in which it died
            grid.add({"clients": "3,4"})
        if died:
            back.append(1)
        return {}

    found, history = over_flower(4, grid, evaluate=comes_back)
    assert [row["clients"] for row in history] == [6, 4, 4, 6]
    assert "clients [3, 4] cannot be reached" in caplog.text
    assert equal(found, without({1: {3, 4}, 2: {3, 4}}, 4))


def test_late_answers_of_a_former_round_do_not_count() -> None:
    app = flower.make_client()
    inner, kept = app._registered_funcs["train.default"], []

    def late(message: Any, context: Any) -> Any:
        reply = inner(message, context)
        if message.content["config"]["client"] != 0:
            return reply
        kept.append(reply.content)
        reply.content = kept[0]
        return reply

    app._registered_funcs["train.default"] = late
    found, history = over_flower(2, flower.LocalGrid(app, NODES))
    assert [row["clients"] for row in history] == [6, 5]
    assert equal(found, without({1: {0}}, 2))


def test_nobody_answers() -> None:
    app = flower.make_client()

    def fails(message: Any, context: Any) -> Any:
        raise RuntimeError("broken")

    app._registered_funcs["train.default"] = fails
    found, history = over_flower(2, flower.LocalGrid(app, NODES))
    learner, _ = parts()
    assert equal(found, learner.global_state())
    assert [row["clients"] for row in history] == [0, 0]


class Killed(BaseException):
    """The server's process ends."""


@pytest.mark.parametrize("moment", ["while clients train", "after a round"])
@pytest.mark.parametrize(
    "model",
    [{"algorithm": "fedadam"}, {"algorithm": "moon", "projection": 16}, {"optimizer_policy": "persistent"}],
    ids=["server moments", "previous models", "client moments"],
)
def test_a_server_that_died_goes_on(moment: str, model: dict[str, Any], tmp_path: Path) -> None:
    nodes = [{**node, "state-dir": str(tmp_path / "clients")} for node in NODES]

    def dies(node: int, message: Any) -> bool:
        if message.metadata.group_id == "1" and message.content["config"]["client"] == 4:
            raise Killed
        return False

    grid = flower.LocalGrid(flower.make_client(), nodes, dies if moment == "while clients train" else None)
    calls: list[int] = []

    def evaluate(learner: Any) -> dict[str, float]:
        calls.append(1)
        if moment == "after a round" and len(calls) == 2:
            raise Killed  # before the checkpoint of its round is written
        return {"val/calls": float(len(calls))}

    with pytest.raises(Killed):
        over_flower(3, grid, {"model": model}, folder=tmp_path / "run", evaluate=evaluate)
    # a new run: Flower's contexts are gone, the files are not
    again = flower.LocalGrid(flower.make_client(), nodes)
    found, history = over_flower(3, again, {"model": model}, folder=tmp_path / "run", evaluate=evaluate)
    assert equal(found, one_process(model=model))
    assert [row["round"] for row in history] == [0, 1, 2]
    assert history[0]["val/calls"] == 1  # of the first server
    assert not list(tmp_path.rglob("*.tmp"))
    same, _ = over_flower(3, again, {"model": model}, folder=tmp_path / "run")  # nothing is left to do
    assert equal(same, found)


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    over_flower(1, folder=tmp_path)
    with pytest.raises(InvalidConfig, match="belongs to a run with other settings"):
        over_flower(2, given={"model": {"lr": 0.01}}, folder=tmp_path)
    (tmp_path / "server.pt").write_bytes((tmp_path / "server.pt").read_bytes()[:1000])
    with pytest.raises(CorruptFile, match=r"server.pt cannot be read .*Remove it to start from the beginning"):
        over_flower(2, folder=tmp_path)


# The apps -------------------------------------------------------------------------------------------------------------


def test_the_server_app_ends_with_a_model_that_loads(tmp_path: Path) -> None:
    from flwr.app import Context, RecordDict

    config = {
        "zoo": "uav-swarm-fl",
        "rounds": 2,
        "model": "{network: resnet10-w4-gn, local_epochs: 1, lr: 0.05}",
        "data": "{num_clients: 6, batch_size: 8, train_size: 72, val_size: 20, min_client_size: 2}",
        "folder": str(tmp_path / "run"),
        "wait": 0.0,
    }
    context = Context(run_id=1, node_id=1, node_config={}, state=RecordDict(), run_config=config)
    flower.server(flower.LocalGrid(flower.client, NODES), context)
    module = zoo.load(tmp_path / "run" / "model")
    saved = torch.load(tmp_path / "run" / "server.pt", weights_only=True)
    assert equal(saved["model"], module.network.state_dict())
    assert all({"val/accuracy", "val/loss", "loss", "clients"} <= row.keys() for row in saved["history"])
    assert module.predict(zoo.datamodule("uav-swarm-fl", test_size=2).dataset("test")[0]["image"])[0]["probs"].sum()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"round": 3}, "No option 'round'. Did you mean 'rounds'"),
        ({"rounds": "3"}, "rounds: expected int, got '3'"),
        ({"model": "lr=0.1"}, "model: expected a mapping"),
        ({"data": "{a: ["}, "is not YAML"),
    ],
)
def test_options_of_a_run(given: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        flower.settings({"zoo": "uav-swarm-fl", **given})
    assert flower.settings({"zoo": "uav-swarm-fl", "model": "{lr: 0.1}"})["model"] == {"lr": 0.1}


def test_a_deployment_names_its_method(checkout: Path) -> None:
    """The example app names none, so that no machine trains what nobody asked for."""
    app = tomllib.loads((checkout / "examples" / "flower" / "pyproject.toml").read_text())["tool"]["flwr"]["app"]
    for config in ({}, {"zoo": " "}, app["config"]):
        with pytest.raises(
            BadInput, match=r"zoo: name the method .*\[tool.flwr.app.config\] .* --run-config 'zoo=\"ID"
        ):
            flower.settings(config)
    wanted = {**app["config"], "zoo": "uav-swarm-fl"}
    assert flower.settings(wanted) == flower.settings({"zoo": "uav-swarm-fl"}), "the defaults are the same"


def test_nodes_must_know_their_clients(caplog: pytest.LogCaptureFixture) -> None:
    assert clients_of({"clients": "4,2"}) == [4, 2]
    assert clients_of({"partition-id": 3, "num-partitions": 9}) == [3]
    grid = flower.LocalGrid(flower.make_client(), [{}])
    with pytest.raises(BadInput, match=r"None of the clients .* could be reached .* --node-config"):
        over_flower(1, grid)
    assert "A SuperNode must know its clients" in caplog.text


def test_knowledge_of_others_cannot_travel() -> None:
    learner, data = parts()

    class Omniscient(type(learner)):  # type: ignore[misc]
        def craft(self, updates: Any, ctx: Any) -> Any:
            return updates

    learner.__class__ = Omniscient
    with pytest.raises(InvalidConfig, match=r"simulate it in one process"):
        flower.RuleStrategy(learner, data, learner.global_state())


def test_jobs_carry_no_code() -> None:
    learner, data = parts()
    job = flower.Job.of(learner, data)
    assert flower.Job.from_json(job.to_json()) == flower.Job.from_json(flower.Job.from_json(job.to_json()).to_json())
    with pytest.raises(zoo.errors.UnknownName):
        flower.Job("os:system", {}, {}).build()
    with pytest.raises(BadInput, match="no job of a federated run"):
        flower.Job.from_json("[1]")
    with pytest.raises(InvalidConfig, match="not trained in federated rounds"):
        flower.Job("soft-rocket", {}, {}).build()


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("sys.modules['flwr'] = None", 'pip install "lightning-method-zoo[federated]"'),
        ("sys.version_info = (3, 10, 9)", "MissingExtra: Flower needs Python 3.11 or newer"),
    ],
)
def test_without_flower_the_extra_is_named(missing: str, message: str) -> None:
    code = f"import sys, zoo.errors, zoo.federated; {missing}; import zoo.federated.flower"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert found.returncode == 1
    assert message in found.stderr


def test_rules_are_those_of_one_process() -> None:
    learner, data = parts({"rule": "krum"})
    assert type(flower.RuleStrategy(learner, data, learner.global_state()).learner.rule) is type(create_rule("krum"))
