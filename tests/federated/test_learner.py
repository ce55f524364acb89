"""FederatedLearner: a round by hand, equality of all ways to run one, resuming, what goes wrong."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning import Callback, seed_everything
from lightning.pytorch.callbacks import Checkpoint, EarlyStopping, ModelCheckpoint
from torch import nn
from toys.learners import ToyClients, ToyLearner, apart, learn, state_of, trainer_of

from zoo.errors import BadInput, InvalidConfig, ZooError
from zoo.federated.clients import FedProx
from zoo.federated.processes import ClientProcessDied, in_processes
from zoo.federated.rules import ClientUpdate, RoundContext

HARD: dict[str, Any] = {
    "rule": "fedadam",
    "client": "moon",
    "local": {"policy": "persistent", "milestones": (1,)},
}
"""Everything that must be remembered: moments of the server and of the clients, previous models."""


@pytest.fixture(autouse=True)
def one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# One round ----------------------------------------------------------------------------------------------------------


def test_rounds_by_hand(tmp_path: Path) -> None:
    """Federated averaging as one would write it down without this package."""
    found = learn(tmp_path, dropout=0.0, fit={"max_epochs": 2})
    seed_everything(0, verbose=False)
    start, data = ToyLearner(dropout=0.0), ToyClients()
    weights = state_of(start)
    for round in range(2):
        results, sizes = [], [float(len(rows)) for rows in data.rows]
        for client in range(5):
            network = start.network
            network.load_state_dict(weights)
            network.train()
            optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
            for batch in data.client_loader(client, round, 2):
                optimizer.zero_grad()
                loss, _ = start.local_step(network, batch)
                loss.backward()
                optimizer.step()
            results.append({k: v.detach().clone() for k, v in network.state_dict().items()})
        for key in weights:
            if key.endswith("num_batches_tracked"):
                weights[key] = torch.stack([r[key] for r in results]).max()
            else:
                mean = sum(n * r[key].double() for n, r in zip(sizes, results, strict=True)) / sum(sizes)
                weights[key] = mean.float()  # type: ignore[union-attr]
    for key, value in state_of(found).items():
        torch.testing.assert_close(value, weights[key], rtol=1e-6, atol=1e-7)


def test_one_client_is_plain_training(tmp_path: Path) -> None:
    found = learn(tmp_path, {"clients": 1}, fit={"max_epochs": 2}, local={"policy": "persistent"}, dropout=0.0)
    seed_everything(0, verbose=False)
    alone, data = ToyLearner(dropout=0.0), ToyClients(1)
    optimizer = torch.optim.SGD(alone.network.parameters(), lr=0.1, momentum=0.9)
    for round in range(2):
        for batch in data.client_loader(0, round, 2):
            optimizer.zero_grad()
            alone.local_step(alone.network, batch)[0].backward()
            optimizer.step()
    assert apart(found, alone) == 0


@pytest.mark.parametrize("ways", [{"per_step": 1}, {"per_step": 2}, {"processes": 2}, {"processes": 7, "per_step": 3}])
def test_bits_do_not_depend_on_how_clients_are_run(ways: dict[str, int], tmp_path: Path) -> None:
    expected = learn(tmp_path, **HARD)
    found = learn(tmp_path, {"per_step": ways.get("per_step", 0)}, **HARD, client_processes=ways.get("processes", 1))
    assert apart(expected, found) == 0
    assert found.client_states.keys() == expected.client_states.keys() == set(range(5))
    for client, state in expected.client_states.items():
        for key, value in state["previous"].items():
            assert torch.equal(value, found.client_states[client]["previous"][key])


@pytest.mark.parametrize("processes", [1, 2])
def test_random_state_is_untouched(processes: int, tmp_path: Path) -> None:
    states: list[Any] = []

    class Look(Callback):
        def on_train_batch_start(self, *_: Any) -> None:
            states.append((torch.get_rng_state(), np.random.get_state()[1].tolist()))  # type: ignore[index]

        def on_train_batch_end(self, *_: Any) -> None:
            states.append((torch.get_rng_state(), np.random.get_state()[1].tolist()))  # type: ignore[index]

    learn(tmp_path, None, Look(), client_processes=processes)
    for before, after in zip(states[::2], states[1::2], strict=True):
        assert torch.equal(before[0], after[0])
        assert before[1] == after[1]


def test_seed_of_the_data_decides(tmp_path: Path) -> None:
    first, again, other = (learn(tmp_path, {"seed": seed}) for seed in (0, 0, 1))
    assert apart(first, again) == 0
    assert apart(first, other) > 0


def test_learning_rate_falls_by_round() -> None:
    local = ToyLearner(local={"milestones": (2, 5), "decay": 0.1}).local
    assert [round(local.lr_in(r), 6) for r in (0, 1, 2, 4, 5, 9)] == [0.1, 0.1, 0.01, 0.01, 0.001, 0.001]


def test_fresh_and_persistent_momentum_differ(tmp_path: Path) -> None:
    fresh, persistent = learn(tmp_path), learn(tmp_path, local={"policy": "persistent"})
    assert apart(fresh, persistent) > 0
    assert not fresh.client_states
    assert all("momentum_buffer" in s["optimizer"]["state"][0] for s in persistent.client_states.values())


def test_a_second_fit_starts_anew(tmp_path: Path) -> None:
    learner = learn(tmp_path, **HARD)
    before = state_of(learner)
    trainer_of(tmp_path).fit(learner, ToyClients())
    twice = state_of(learner)
    seed_everything(0, verbose=False)
    other = ToyLearner(**HARD)
    other.network.load_state_dict(before)
    trainer_of(tmp_path).fit(other, ToyClients())
    assert all(torch.equal(v, twice[k]) for k, v in state_of(other).items())


# Who takes part -------------------------------------------------------------------------------------------------------


def test_fedavg_drops_stragglers(tmp_path: Path) -> None:
    slow = {"stragglers": 1.0, "straggler_work": (0.3, 0.6)}
    seed_everything(0, verbose=False)
    start = state_of(ToyLearner())
    idle = learn(tmp_path, slow)
    assert all(torch.equal(v, start[k]) for k, v in state_of(idle).items()), "nobody finished"
    partial = learn(tmp_path, slow, client="fedprox", client_options={"mu": 0.0})
    assert any(not torch.equal(v, start[k]) for k, v in state_of(partial).items())
    assert apart(partial, learn(tmp_path)) > 0


def test_fedprox_without_stragglers_and_mu_is_fedavg(tmp_path: Path) -> None:
    assert apart(learn(tmp_path), learn(tmp_path, client="fedprox", client_options={"mu": 0.0})) == 0
    assert apart(learn(tmp_path), learn(tmp_path, client="fedprox", client_options={"mu": 1.0})) > 0


def test_partial_work_is_a_share_of_the_steps(tmp_path: Path) -> None:
    steps: dict[int, float] = {}

    class Look(Callback):
        def on_train_batch_end(self, trainer: Any, learner: Any, *_: Any) -> None:
            steps.update({u.client_id: u.metrics["steps"] for u in learner._updates})

    data = {"stragglers": 1.0, "straggler_work": (0.3, 0.6), "per_step": 1}
    learn(tmp_path, data, Look(), client="fedprox", fit={"max_epochs": 1})
    tasks = {task.client: task for task in ToyClients(**data).cohort(0)}
    module = ToyClients()
    assert steps, "answers of a round are kept until its last step"
    for client, count in steps.items():
        total = len(module.client_loader(client, 0, 2))
        assert count == max(1, int(np.ceil(tasks[client].share_of_work * total)))


def test_lost_links(tmp_path: Path) -> None:
    seed_everything(0, verbose=False)
    start = state_of(ToyLearner())
    found = learn(tmp_path, {"link_loss": 1.0})
    assert all(torch.equal(v, start[k]) for k, v in state_of(found).items())
    some = learn(tmp_path, {"link_loss": 0.5}, **HARD)
    assert 0 < len(some.client_states) <= 5


# Checkpoints ------------------------------------------------------------------------------------------------------


class SaveAfter(Checkpoint):
    def __init__(self, batches: int, path: Path) -> None:
        self.left, self.path = batches, path

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        self.left -= 1
        if self.left == 0:
            trainer.save_checkpoint(self.path)


@pytest.mark.parametrize("after", [1, 3, 5, 6, 8])
def test_resume_in_the_middle_of_a_round(after: int, tmp_path: Path) -> None:
    """Two clients a step, three steps a round; participation, links and stragglers draw numbers of their own."""
    data = {"clients": 6, "per_step": 2, "link_loss": 0.1, "stragglers": 0.3}
    path = tmp_path / "middle.ckpt"
    whole = learn(tmp_path, data, SaveAfter(after, path), **HARD)
    seed_everything(99, verbose=False)
    again = ToyLearner(**HARD)
    trainer_of(tmp_path).fit(again, ToyClients(**data), ckpt_path=path, weights_only=True)
    assert apart(whole, again) == 0
    assert all(torch.equal(v, again.rule_state[k]) for k, v in whole.rule_state.items() if isinstance(v, torch.Tensor))


def test_checkpoints_and_early_stopping_see_rounds(tmp_path: Path) -> None:
    keep = ModelCheckpoint(dirpath=tmp_path, filename="{epoch}", save_top_k=-1, monitor="val/sum", save_last=True)
    stop = EarlyStopping("val/sum", patience=1, min_delta=1e9)
    learn(tmp_path, None, keep, stop, fit={"max_epochs": 9})
    assert sorted(p.name for p in tmp_path.glob("*.ckpt")) == ["epoch=0.ckpt", "epoch=1.ckpt", "last.ckpt"]
    held = torch.load(tmp_path / "epoch=1.ckpt", weights_only=True)
    assert held["global_step"] == 2, "one step of the optimiser per round"


def test_client_states_stay_out_of_published_weights(tmp_path: Path) -> None:
    learner = learn(tmp_path, **HARD)
    assert learner.client_states
    assert set(learner.published_state()) == {f"network.{k}" for k in learner.network.state_dict()}


# What goes wrong --------------------------------------------------------------------------------------------------


class Broken(ToyLearner):
    """Client 2 has a sample that no number fits."""

    def client_batch(self, client: int, batch: dict[str, Any]) -> dict[str, Any]:
        return {**batch, "row": batch["row"] * float("nan")} if client == 2 else batch


@pytest.mark.parametrize("processes", [1, 2])
def test_not_a_number(processes: int, tmp_path: Path) -> None:
    seed_everything(0, verbose=False)
    learner = Broken(client_processes=processes)
    before = state_of(learner)
    with pytest.raises(BadInput, match="client 2"):
        trainer_of(tmp_path).fit(learner, ToyClients())
    assert all(torch.equal(v, before[k]) for k, v in state_of(learner).items()), "the global model is as it was"

    seed_everything(0, verbose=False)
    dropping = Broken(rule_options={"non_finite": "drop"}, client_processes=processes)
    trainer = trainer_of(tmp_path)
    trainer.fit(dropping, ToyClients())
    assert trainer.callback_metrics["train/dropped"] == 1
    assert all(bool(torch.isfinite(v).all()) for v in state_of(dropping).values())


def test_a_killed_process_is_told(tmp_path: Path) -> None:
    class Killed(ToyLearner):
        def client_batch(self, client: int, batch: dict[str, Any]) -> dict[str, Any]:
            if client == 3:
                os._exit(9)
            return batch

    learner = Killed(client_processes=2)
    before = state_of(learner)
    with pytest.raises(ClientProcessDied, match="exit code 9"):
        trainer_of(tmp_path).fit(learner, ToyClients())
    assert all(torch.equal(v, before[k]) for k, v in state_of(learner).items())


def test_errors_of_processes_are_raised_here() -> None:
    def work(job: int) -> int:
        if job == 3:
            raise BadInput("job three")
        return job * job

    assert in_processes(work, [5, 1, 4], 2) == [25, 1, 16]
    with pytest.raises(BadInput, match="job three"):
        in_processes(work, [1, 2, 3, 4], 2)


def test_data_without_clients(tmp_path: Path) -> None:
    loader = torch.utils.data.DataLoader([{"index": torch.tensor(0)}])
    with pytest.raises(InvalidConfig, match="ClientsDataModule"):
        trainer_of(tmp_path).fit(ToyLearner(), loader)


def test_loss_scaling_is_refused(tmp_path: Path) -> None:
    learner = ToyLearner()
    trainer = trainer_of(tmp_path)
    trainer.datamodule = ToyClients()  # type: ignore[attr-defined]
    learner._trainer = trainer
    trainer.strategy.connect(learner)
    trainer.strategy.precision_plugin.precision = "16-mixed"
    with pytest.raises(InvalidConfig, match="bf16-mixed"):
        learner.setup("fit")


def test_a_client_without_data(tmp_path: Path) -> None:
    data = ToyClients()
    data.rows[1] = data.rows[1][:0]
    with pytest.raises(ZooError, match="client 1"):
        trainer_of(tmp_path).fit(ToyLearner(), data)


def test_a_batch_of_one_where_statistics_need_more(tmp_path: Path) -> None:
    data = ToyClients()
    data.rows[2] = data.rows[2][:5]  # batches of four
    with pytest.raises(BadInput, match=r"client 2 .*drop_last"):
        trainer_of(tmp_path).fit(ToyLearner(), data)


def test_wrong_number_of_processes() -> None:
    with pytest.raises(BadInput, match="client_processes"):
        ToyLearner(client_processes=0)


# Scopes and knowledge of others ------------------------------------------------------------------------------------


class Groups(ToyLearner):
    """Even clients share one body, odd ones none; heads stay at home."""

    def group_of(self, client: int) -> str | None:
        return "even" if client % 2 == 0 else None


def test_scopes(tmp_path: Path) -> None:
    scope = [["head", "local"], ["body", "group:even"]]
    seed_everything(0, verbose=False)
    learner = Groups(scope=scope)
    start, sent = state_of(learner), {}

    class Look(Callback):
        def on_train_batch_end(self, trainer: Any, module: Any, *_: Any) -> None:
            sent.update({u.client_id: set(u.state) for u in module._updates})

    trainer_of(tmp_path, Look(), max_epochs=2).fit(learner, ToyClients(per_step=1))
    norm = {k for k in start if k.startswith("norm")}
    assert sent[2] == norm | {"body.weight", "body.bias"}
    assert sent[1] == norm
    end = state_of(learner)
    assert torch.equal(end["head.weight"], start["head.weight"]), "heads never leave the clients"
    assert not torch.equal(end["body.weight"], start["body.weight"])
    heads = [state["local"]["head.weight"] for state in learner.client_states.values()]
    assert len(heads) == 5
    assert all(not torch.equal(head, start["head.weight"]) for head in heads)


def test_attackers_may_know_the_others(tmp_path: Path) -> None:
    class Omniscient(ToyLearner):
        def craft(self, updates: list[ClientUpdate], ctx: RoundContext) -> list[ClientUpdate]:
            assert [u.client_id for u in updates] == [0, 1, 2, 3, 4]
            mean = {k: torch.stack([u.state[k].double() for u in updates[1:]]).mean(0) for k in updates[0].state}
            forged = {k: -v.to(updates[0].state[k].dtype) for k, v in mean.items()}
            return [ClientUpdate(0, updates[0].num_examples, forged), *updates[1:]]

    seed_everything(0, verbose=False)
    forged = Omniscient()
    trainer_of(tmp_path).fit(forged, ToyClients())
    assert apart(forged, learn(tmp_path)) > 0


def test_frozen_parts_are_neither_trained_nor_sent(tmp_path: Path) -> None:
    seed_everything(0, verbose=False)
    learner = ToyLearner()
    learner.freeze("network.body")
    start = state_of(learner)
    trainer_of(tmp_path).fit(learner, ToyClients())
    assert torch.equal(state_of(learner)["body.weight"], start["body.weight"])
    assert not torch.equal(state_of(learner)["head.weight"], start["head.weight"])
    learner.freeze()
    with pytest.raises(InvalidConfig, match="frozen"):
        trainer_of(tmp_path).fit(learner, ToyClients())


def test_replicas_are_hidden() -> None:
    learner = ToyLearner()
    copy = learner.replica()
    assert copy is learner.replica()
    assert copy is not learner.replica("other")
    assert len(list(learner.parameters())) == len(list(copy.parameters()))
    assert not any(isinstance(m, nn.Module) and m is copy for m in learner.modules())


def test_fedprox_prefers_the_start() -> None:
    with pytest.raises(BadInput, match="mu"):
        FedProx(-1.0)
