"""C20-C26: what is saved comes back bit for bit, what does not fit is refused, nothing is ever executed."""

from __future__ import annotations

import hashlib
import io
import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import zoo
from conformance.support import SaveAfter, data_of, different, learned, model_of, names, state_of, trainer_of
from zoo.errors import KeyMismatch, ShapeMismatch, UnknownName
from zoo.index import Entry, golden_path
from zoo.store.folder import golden_problems

executed: list[str] = []


def poison(*args: Any, **kwargs: Any) -> None:
    """What a file must never bring to run."""
    executed.append("poison")
    raise AssertionError("a file's content was executed")


_CHECKPOINTS: dict[str, bytes] = {}


def checkpoint(entry: Entry, folder: Path) -> Path:
    """A .ckpt of a run of one epoch; each test has its own copy."""
    key, path = f"{entry.id} {entry.model} {entry.tiny}", folder / "run.ckpt"
    if key not in _CHECKPOINTS:
        model, data = model_of(entry), data_of(entry)
        trainer = trainer_of(folder, SaveAfter(len(data.train_dataloader()), path))
        trainer.fit(model, data)
        _CHECKPOINTS[key] = path.read_bytes()
    path.write_bytes(_CHECKPOINTS[key])
    return path


def saved(entry: Entry, folder: Path) -> tuple[Any, Path]:
    """A model that has learned, and its folder."""
    model, _ = learned(entry, folder / "run")
    return model, zoo.save(model.eval(), folder / "saved")


def test_c20_checkpoint_reloads(entry: Entry, folder: Path) -> None:
    path = checkpoint(entry, folder)
    held = torch.load(path, weights_only=True)
    again = entry.model_class().load_from_checkpoint(path, weights_only=True)
    assert not different(held["state_dict"], state_of(again))
    model = zoo.load(path)
    published = model.published_state()
    assert not different({k: held["state_dict"][k] for k in published}, dict(published))
    assert model.init_args == again.init_args
    assert not model.training


def test_c20_class_path_of_a_file_is_not_followed(entry: Entry, folder: Path) -> None:
    path = checkpoint(entry, folder)
    held = torch.load(path, weights_only=True)
    here = f"{__name__}.poison"
    for key in ("_class_path", "_instantiator", "_class_name"):
        held["hyper_parameters"][key] = here
        held[key] = here
    torch.save(held, path)
    executed.clear()
    model = zoo.load(path)
    assert isinstance(model, entry.model_class())
    assert not executed


def test_c21_round_trip(entry: Entry, folder: Path) -> None:
    model, place = saved(entry, folder)
    again = zoo.load(place)
    assert type(again) is type(model)
    assert not different(dict(model.published_state()), dict(again.published_state()))
    assert again.init_args == json.loads(json.dumps(model.init_args))
    args = model.example_input()
    with torch.no_grad():
        assert not different(model(*args), again(*args))
    twice = zoo.save(again, folder / "twice")
    first, second = ((p / "model.safetensors").read_bytes() for p in (place, twice))
    assert first == second, "saving again gives the same file"


def test_c21_training_parts_stay_home(entry: Entry, folder: Path) -> None:
    model, place = saved(entry, folder)
    held = load_file(place / "model.safetensors")
    hidden = [k for k in model.state_dict() if model.role_of(k) in ("training", "private")]
    assert not set(hidden) & set(held)
    assert set(zoo.load(place).report.missing) == set(hidden)


def test_c22_golden_output(bundled: tuple[Entry, str]) -> None:
    entry, tag = bundled
    model = zoo.load(f"{entry.id}:{tag}")
    stored = golden_path(entry.weights[tag].file or "", entry)
    assert stored.is_file(), f"`zoo bundle CHECKPOINT {entry.id}:{tag}` writes it"
    assert golden_problems(model, stored) == []


def test_c22_golden_output_would_notice(bundled: tuple[Entry, str]) -> None:
    """Weights that are a little off are told apart."""
    entry, tag = bundled
    model = zoo.load(f"{entry.id}:{tag}")
    # methods without parameters keep what they know in buffers
    learned_values = list(model.parameters()) or [v for v in model.published_state().values() if v.is_floating_point()]
    with torch.no_grad():
        for value in learned_values:
            value.mul_(1.02)
    assert golden_problems(model, golden_path(entry.weights[tag].file or "", entry))


def test_c23_other_class_count(num_classes_entry: Entry, folder: Path) -> None:
    model, place = saved(num_classes_entry, folder)
    count = model.hparams.num_classes + 2
    other = zoo.load(place, num_classes=count)
    assert other.hparams.num_classes == count
    heads = {k for k in model.published_state() if model.role_of(k) == "head"}
    assert heads
    assert heads <= set(other.report.reinitialised)
    before, after = model.published_state(), other.published_state()
    assert before.keys() == after.keys()
    rest = before.keys() - heads
    assert not different({k: before[k] for k in rest}, {k: after[k] for k in rest})
    assert any(before[k].shape != after[k].shape for k in heads)
    named = [f"kind {i}" for i in range(count)]
    assert zoo.load(place, class_names=named).hparams.class_names == named
    assert not zoo.load(place).report.reinitialised


def test_c24_foreign_keys_are_refused(entry: Entry, folder: Path) -> None:
    model, place = saved(entry, folder)
    if not (strict := [k for k in load_file(place / "model.safetensors") if model.role_of(k) is None]):
        strict = list(load_file(place / "model.safetensors"))
    key = strict[0]
    tamper(place, lambda held: held | {"renamed.weight": held.pop(key)})
    with pytest.raises(KeyMismatch, match=r"renamed\.weight"):
        zoo.load(place)
    place = zoo.save(model, folder / "other")
    plain = [k for k, v in load_file(place / "model.safetensors").items() if model.role_of(k) != "elastic" and v.ndim]
    for key in plain[:1]:
        tamper(place, lambda held: held | {key: torch.cat([held[key], held[key]])})  # noqa: B023
        with pytest.raises(ShapeMismatch, match=key.replace(".", r"\.")):
            zoo.load(place)


def tamper(place: Path, change: Any) -> None:
    """Change the tensors of a folder, and its hash with them."""
    path, config = place / "model.safetensors", place / "config.json"
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        about = file.metadata()
    save_file(change(load_file(path)), path, about)
    text = json.loads(config.read_text())
    text["sha256"]["model.safetensors"] = hashlib.sha256(path.read_bytes()).hexdigest()
    config.write_text(json.dumps(text))


def test_c25_freeze(gradient_entry: Entry, folder: Path) -> None:
    model, data = model_of(gradient_entry), data_of(gradient_entry)
    parts = sorted({k.split(".")[0] for k, p in model.named_parameters() if p.requires_grad})
    part = parts[0]
    trainable = {k for k, p in model.named_parameters() if p.requires_grad and not k.startswith(f"{part}.")}
    if not trainable:
        part = next(k for k, p in model.named_parameters() if p.requires_grad).rpartition(".")[0]
        trainable = {k for k, p in model.named_parameters() if p.requires_grad and not k.startswith(f"{part}.")}
    model.freeze(part)
    assert {k for k, p in model.named_parameters() if p.requires_grad} == trainable
    if not model.automatic_optimization:
        return  # which of several optimisers still has something to do is the method's business
    before = state_of(model)
    trainer_of(folder, limit_train_batches=2, limit_val_batches=0).fit(model, data)
    under = [k for k in before if k.startswith(f"{part}.")]
    after = state_of(model)
    moved = different({k: before[k] for k in under}, {k: after[k] for k in under})
    assert not moved, f"frozen, yet changed: {names(moved)}"
    assert different(before, after), "the rest still learns"
    model.unfreeze()
    with pytest.raises(UnknownName):
        model.freeze("no_such_part")


def test_c26_no_unpickler(entry: Entry, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, place = saved(entry, folder)
    for module, name in ((pickle, "load"), (pickle, "loads"), (pickle, "Unpickler"), (torch, "load")):
        monkeypatch.setattr(module, name, poison)
    executed.clear()
    zoo.load(place)
    assert not executed


def test_c26_bundled_without_unpickler(bundled: tuple[Entry, str], monkeypatch: pytest.MonkeyPatch) -> None:
    entry, tag = bundled
    entry.model_class()
    for module, name in ((pickle, "load"), (pickle, "loads"), (pickle, "Unpickler"), (torch, "load")):
        monkeypatch.setattr(module, name, poison)
    executed.clear()
    zoo.load(f"{entry.id}:{tag}")
    assert not executed


def test_c26_pickles_are_refused(entry: Entry, folder: Path) -> None:
    """A .ckpt with anything but tensors and plain values in it is not read."""

    class Bomb:
        def __reduce__(self) -> Any:
            return poison, ()

    raw = io.BytesIO()
    torch.save({"state_dict": {}, "zoo": {"id": entry.id, "format": 1}, "extra": Bomb()}, raw)
    path = folder / "hostile.ckpt"
    path.write_bytes(raw.getvalue())
    executed.clear()
    with pytest.raises(zoo.errors.ZooError):
        zoo.load(path)
    assert not executed
