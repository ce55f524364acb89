"""Clients keep their keys: what is sent, saved and shared; locks of one's own; bad keys."""

from __future__ import annotations

import io
import stat
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Trainer, seed_everything

import zoo
from datamodules.clients import ClientsDataModule
from zoo.errors import BadInput, PrivateWeights
from zoo.federated.clients import train_client
from zoo.federated.rules import ClientUpdate
from zoo.methods.fedkl import FedKL

TINY: dict[str, Any] = {"channels": 1, "img_size": 28, "key_length": 16, "lr": 0.1, "client_processes": 1}
DATA: dict[str, Any] = {"num_clients": 3, "batch_size": 8, "train_size": 48, "val_size": 12, "test_size": 8}


def trained(rounds: int = 2, **model: Any) -> tuple[FedKL, list[ClientUpdate]]:
    """A short run, and what its clients sent."""
    seed_everything(0, verbose=False)
    sent: list[ClientUpdate] = []

    class Watched(FedKL):
        def craft(self, updates: list[ClientUpdate], ctx: Any) -> list[ClientUpdate]:
            sent.extend(updates)
            return updates

    learner = Watched(**{**TINY, **model})
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = Trainer(max_epochs=rounds, accelerator="cpu", devices=1, enable_model_summary=False, **quiet)
    trainer.fit(learner, ClientsDataModule(**DATA))
    learner.trainer = None
    return learner, sent


@pytest.fixture(scope="module")
def run() -> tuple[FedKL, list[ClientUpdate]]:
    return trained()


def fresh_of(learner: FedKL) -> FedKL:
    """A module of the same weights, without what clients keep."""
    other = FedKL(**TINY)
    other.load_state_dict({k: v.clone() for k, v in learner.state_dict().items()})
    return other


def leaks(learner: FedKL, raw: bytes) -> list[str]:
    """Names of private tensors of any client of which 32 bytes in a row are in `raw`."""
    found = []
    for client, state in learner.client_states.items():
        for name, value in state["local"].items():
            held = value.contiguous().numpy().tobytes()
            if any(held[i : i + 32] in raw for i in range(0, len(held) - 31, 32)):
                found.append(f"client {client}: {name}")
    return found


def bytes_of(state: dict[str, torch.Tensor]) -> bytes:
    return b"".join(value.contiguous().numpy().tobytes() for value in state.values())


def test_updates_hold_no_key(run: tuple[FedKL, list[ClientUpdate]]) -> None:
    learner, sent = run
    assert len(sent) == 6
    for update in sent:
        assert not [name for name in update.state if "lock" in name]
        assert {"network.conv1.conv.weight", "network.conv1.norm.running_mean"} <= set(update.state)
        assert leaks(learner, bytes_of(update.state)) == []
    assert leaks(learner, bytes_of(learner.client_states[1]["local"])), "the search finds what is there"


def test_each_client_has_a_lock_of_its_own_and_keeps_its_key(run: tuple[FedKL, list[ClientUpdate]]) -> None:
    learner, _ = run
    keys = [learner.client_states[c]["local"]["lock_key"] for c in range(3)]
    assert not any(torch.equal(keys[a], keys[b]) for a, b in ((0, 1), (0, 2), (1, 2)))
    first, _ = trained(rounds=1)
    for client, key in enumerate(keys):
        assert torch.equal(first.client_states[client]["local"]["lock_key"], key), "drawn once, a constant after that"
        before, after = (m.client_states[client]["local"]["network.conv1.lock_scale.weight"] for m in (first, learner))
        assert not torch.equal(before, after), "the lock layers are trained"


def test_keys_of_the_system_differ_from_run_to_run() -> None:
    (first, _), (second, _) = (trained(rounds=1, key_source="system") for _ in range(2))
    one, other = (m.client_states[0]["local"]["lock_key"] for m in (first, second))
    assert not torch.equal(one, other)


def test_what_is_saved_holds_no_key(run: tuple[FedKL, list[ClientUpdate]], tmp_path: Path) -> None:
    learner = fresh_of(run[0])
    assert torch.equal(learner.network.lock_key, run[0].client_states[0]["local"]["lock_key"]), "that of client 0"
    place = zoo.save(learner.eval(), tmp_path / "saved")
    for path in place.rglob("*"):
        if path.is_file():
            assert leaks(run[0], path.read_bytes()) == [], path.name
    again = zoo.load(place)
    x = torch.rand(2, 1, 28, 28)
    assert torch.equal(again(x), learner(x))


def test_an_open_module_is_neither_saved_nor_pushed(run: tuple[FedKL, list[ClientUpdate]], tmp_path: Path) -> None:
    (path, *_) = run[0].write_keys(tmp_path / "keys")
    opened = fresh_of(run[0])
    opened.unlock(path)
    with pytest.raises(PrivateWeights, match="lock_key"):
        zoo.save(opened.eval(), tmp_path / "saved")
    with pytest.raises(PrivateWeights, match="lock_key"):
        zoo.push(opened, "nobody/nothing", endpoint="http://127.0.0.1:9", token="none")
    assert not (tmp_path / "saved").exists() or not list((tmp_path / "saved").rglob("*.safetensors"))


def test_key_files_come_back_and_are_their_owners(run: tuple[FedKL, list[ClientUpdate]], tmp_path: Path) -> None:
    learner = run[0]
    paths = learner.write_keys(tmp_path / "keys")
    assert [p.name for p in paths] == [f"client_{c}.key.safetensors" for c in range(3)]
    assert all(stat.S_IMODE(p.stat().st_mode) == 0o600 for p in paths)
    other = fresh_of(learner).eval()
    x = torch.rand(3, 1, 28, 28)
    results = {key: other.predict(list(x), key=key) for key in ("", *map(str, paths))}
    assert [r[0]["unlocked"] for r in results.values()] == [False, True, True, True]
    assert len({float(r[0]["probs"].max()) for r in results.values()}) == 4, "each lock gives other numbers"
    other.unlock(paths[1])
    with torch.no_grad():
        wanted = other(x).softmax(1)
    assert torch.allclose(torch.stack([r["probs"] for r in results[str(paths[1])]]), wanted)
    assert not fresh_of(learner).unlocked


def test_statistics_can_stay_at_home() -> None:
    learner, sent = trained(rounds=1, share_statistics=False)
    assert not [name for name in sent[0].state if "running" in name]
    assert "network.conv1.norm.running_mean" in learner.client_states[0]["local"]


def test_the_control_has_nothing_to_hide() -> None:
    learner, sent = trained(rounds=1, control="batch-norm")
    assert learner.lock_state() == {}
    assert set(sent[0].state) == set(learner.network.state_dict())
    with pytest.raises(BadInput, match="no lock"):
        learner.unlock({})
    with pytest.raises(BadInput, match="no client has a key"):
        learner.write_keys("nowhere")


@pytest.mark.parametrize("kind", ["missing", "no tensors", "another length", "another network"])
def test_bad_keys_are_named(kind: str, run: tuple[FedKL, list[ClientUpdate]], tmp_path: Path) -> None:
    path = tmp_path / "bad.key.safetensors"
    said = {"missing": "is no file", "no tensors": "cannot be read", "another network": "has no"}.get(kind)
    if kind == "no tensors":
        path.write_bytes(b"\x00broken\xff" * 9)
    if kind == "another length":
        said = r"lock_key of shape \(16,\), got \(8,\)"
        other, _ = trained(rounds=1, key_length=8)
        path = other.write_keys(tmp_path)[0]
    if kind == "another network":
        from safetensors.torch import save_file

        save_file({"x": torch.zeros(2)}, path)
    learner = fresh_of(run[0])
    before = {k: v.clone() for k, v in learner.state_dict().items()}
    with pytest.raises(BadInput, match=said):
        learner.predict(torch.rand(1, 28, 28), key=str(path))
    assert all(torch.equal(v, before[k]) for k, v in learner.state_dict().items())
    assert not learner.unlocked


def test_a_client_trains_alike_wherever_it_is() -> None:
    """Its lock depends on seed and number, not on the lock that the server's module happens to hold."""
    data = ClientsDataModule(**DATA)
    data.prepare_data()
    data.setup("fit")
    locals_ = []
    for seed in (1, 2):
        seed_everything(0, verbose=False)
        learner = FedKL(**TINY)
        torch.manual_seed(seed)
        learner.network.reset_lock()
        task = next(t for t in data.cohort(0) if t.client == 1)
        update, state = train_client(learner, data, task, learner.global_state(), {}, learner.context(data, 0))
        raw = io.BytesIO()
        torch.save({**update.state, **state["local"]}, raw)
        locals_.append(raw.getvalue())
    assert locals_[0] == locals_[1]
