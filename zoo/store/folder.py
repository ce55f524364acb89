"""Writing a checkpoint as a folder that anybody can load."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from zoo.base import is_plain
from zoo.base.arguments import without_downloads
from zoo.base.compiled import plain_name
from zoo.base.format import FORMAT
from zoo.base.meeting import data_of
from zoo.errors import BadInput, PrivateWeights
from zoo.files import versions, writing
from zoo.index import TASKS, Entry, entry_of
from zoo.store.build import assemble, notice_of
from zoo.store.hub import Hub
from zoo.store.reference import licences_of, parent_of, reference_of
from zoo.store.sources import CONFIG, GOLDEN, MODEL, find
from zoo.store.tensors import read_state, write_state
from zoo.text import markdown

if TYPE_CHECKING:
    from zoo.base import ZooModule

__all__ = ["card", "golden_problems", "save", "write_golden"]

_OURS = {CONFIG, MODEL, GOLDEN, "README.md", "images"}


def save(module: ZooModule | str | Path, folder: Path, *, with_card: bool = True, half: bool = False) -> Path:
    """See `zoo.store.save`."""
    if isinstance(module, (str, Path)):
        weights = find(reference_of(module), Hub())
        module = assemble(weights, {})
        notice_of(weights)
    folder = folder.expanduser()
    _check_free(folder)
    entry = entry_of(type(module))
    with writing(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        place = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        temporary = place / "new"  # with the user's own permissions; what mkdtemp makes is for its owner only
        temporary.mkdir()
        try:
            config = _write_weights(module, entry, temporary, half=half)
            mine = find(reference_of(temporary), Hub(offline=True))
            mine.trusted = True  # the arguments are those of the module at hand
            again = assemble(mine, {})
            # golden outputs come from what a stranger will load, so they hold for half precision, too
            write_golden(again, temporary / GOLDEN)
            if with_card:
                text = card(entry, config, folder.name, "FOLDER")
                (temporary / "README.md").write_text(text, encoding="utf-8")
            _sync(temporary)
            _replace(temporary, folder)
        finally:
            shutil.rmtree(place, ignore_errors=True)
    return folder


def _check_free(folder: Path) -> None:
    if folder.is_file():
        raise BadInput(f"{folder}: expected a folder, got a file. Choose another name.")
    if not folder.is_dir():
        return
    names = {p.name for p in folder.iterdir()}
    if names and (CONFIG not in names or not names <= _OURS):
        foreign = sorted(names - _OURS) or sorted(names)
        raise BadInput(
            f"{folder}: expected a new folder, or one written by zoo.save(), got other files in it ({foreign[0]}). "
            "Choose another folder."
        )


def _write_weights(module: ZooModule, entry: Entry, folder: Path, *, half: bool) -> dict[str, Any]:
    private = [k for k in module.state_dict() if module.role_of(k) == "private"]
    if private:
        raise PrivateWeights(
            f"{type(module).__name__} holds private parameters, which are never written for others: "
            f"{', '.join(private[:5])}. Save a module without them; for your own use, a Lightning .ckpt keeps all."
        )
    state = {k: v for k, v in module.published_state().items() if isinstance(v, Tensor)}
    # a module trained in a lower precision is stored, and comes back, as float32
    state = {k: v.float() if v.is_floating_point() and v.dtype != torch.float64 else v for k, v in state.items()}
    parameters = {plain_name(name) for name, _ in module.named_parameters(remove_duplicate=False)}
    low = frozenset(k for k in state if half and k in parameters and state[k].dtype == torch.float32)
    sha256 = write_state(state, folder / MODEL, half=low)
    init = {**module.init_args, **without_downloads(type(module), module.init_args)}
    same = [w.tag for w in entry.weights.values() if w.sha256 == sha256]
    config = {
        "format": FORMAT,
        "zoo": entry.id,
        "tag": same[0] if same else None,
        "init": init,
        "facts": _facts(module),
        "sha256": {MODEL: sha256},
        "parent": module.parent,
        "versions": versions("torch", "lightning"),
        "metrics": _metrics(module),
        "licence": licences_of(module.parent)[0],
    }
    (folder / CONFIG).write_bytes(config_text(config))
    return config


def config_text(config: dict[str, Any]) -> bytes:
    """A config.json as it is stored."""
    return (json.dumps(config, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def _facts(module: ZooModule) -> dict[str, Any]:
    """Facts of the data that the module was trained on, where its trainer still knows it."""
    data = data_of(module._trainer) if module._trainer is not None else None
    facts = data.facts() if data is not None and hasattr(data, "facts") else getattr(module, "data_facts", {})
    return dict(facts) if facts and is_plain(facts) else {}


def _metrics(module: ZooModule) -> dict[str, float]:
    if module._trainer is None:
        return {}
    values = {k: float(v) for k, v in module._trainer.callback_metrics.items()}
    return {k: v for k, v in values.items() if math.isfinite(v)}


def _sync(folder: Path) -> None:
    """Make the files durable before the folder takes its name: a power cut must not leave a name with empty files."""
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())


def _replace(temporary: Path, folder: Path) -> None:
    if not folder.exists():
        os.rename(temporary, folder)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        os.rename(folder, old / "was")
        os.rename(temporary, folder)
    except OSError:
        if (old / "was").exists() and not folder.exists():
            os.rename(old / "was", folder)
        raise
    finally:
        shutil.rmtree(old, ignore_errors=True)


# Golden outputs ---------------------------------------------------------------------------------------------------


def _leaves(value: Any, name: str) -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        yield name, value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _leaves(item, f"{name}.{key}")
    elif isinstance(value, (list, tuple)):
        for i, item in enumerate(value):
            yield from _leaves(item, f"{name}.{i}")


def _forward(module: ZooModule, inputs: list[Tensor]) -> dict[str, Tensor]:
    with torch.random.fork_rng(devices=[]), module.inference():
        torch.manual_seed(0)
        return dict(_leaves(module(*(x.to(module.device) for x in inputs)), "output"))


def _example(module: ZooModule) -> list[Tensor]:
    """The example input of a module, always the same; empty, if it has none."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        try:
            return list(module.example_input())
        except NotImplementedError:
            return []


def write_golden(module: ZooModule, path: Path) -> None:
    """Write inputs and outputs of a module; none, if it has no example input."""
    if not (inputs := _example(module)):
        return
    tensors = {f"input.{i}": x for i, x in enumerate(inputs)} | _forward(module, inputs)
    write_state({k: v.clone() for k, v in tensors.items()}, path, finite=False)


def golden_problems(module: ZooModule, path: Path, *, rtol: float = 1e-3, atol: float = 1e-4) -> list[str]:
    """Compare a module with the golden outputs of its weights; an empty list means they agree."""
    wanted, _ = read_state(path, finite=False)
    names = [name for name in wanted if name.startswith("input.")]
    if sorted(names) != sorted(f"input.{i}" for i in range(len(names))):
        return [f"expected inputs input.0, input.1, ..., got {', '.join(sorted(names))[:200]}"]
    if len(names) != len(_example(module)):
        return [f"expected {len(_example(module))} inputs, got {len(names)}"]
    try:
        outputs = _forward(module, [wanted[f"input.{i}"] for i in range(len(names))])
    except (RuntimeError, ValueError, TypeError, IndexError, KeyError, AssertionError) as error:
        return [f"its inputs cannot be used: {type(error).__name__}: {str(error).splitlines()[:1]}"[:300]]
    expected = {k: v for k, v in wanted.items() if not k.startswith("input.")}
    problems = [f"{k}: no such output" for k in expected.keys() ^ outputs.keys()]
    for name in sorted(expected.keys() & outputs.keys()):
        ours, theirs = outputs[name].cpu(), expected[name]
        if ours.shape != theirs.shape:
            problems.append(f"{name}: expected {list(theirs.shape)}, got {list(ours.shape)}")
        elif not torch.allclose(ours.double(), theirs.double(), rtol=rtol, atol=atol, equal_nan=True):
            problems.append(f"{name}: differs by up to {(ours.double() - theirs.double()).abs().max():.3g}")
    return problems


def card(entry: Entry, config: dict[str, Any], name: str, address: str, licence: str | None = None) -> str:
    """A short README.md with the Hub's header: what it is, how to load it, what it was made from, how good it is."""
    parent, names, metrics = config.get("parent"), config["init"].get("class_names"), config.get("metrics")
    head: dict[str, Any] = {"library_name": "lightning-method-zoo"}
    head |= {"pipeline_tag": tag} if (tag := TASKS[entry.task].hub) else {}
    head |= {"tags": list(dict.fromkeys([entry.id, entry.task, "pytorch-lightning"]))}
    licence = licence or config.get("licence")
    # the Hub knows SPDX ids in lower case; anything else must be called "other" with a name
    known = licence is not None and " " not in licence
    head |= {"license": licence.lower()} if licence and known else {}
    head |= {"license": "other", "license_name": _slug(licence)} if licence and not known else {}
    head |= {"base_model": origin.repo} if (origin := parent_of(parent)) and origin.repo else {}
    lines = ["---", *(f"{key}: {json.dumps(value)}" for key, value in head.items())]
    lines += ["---", "", f"# {markdown(name)}", ""]
    lines += [entry.summary, ""]
    lines += [f"Classes: {', '.join(map(markdown, names))}", ""] if names else []
    lines += [f"Made from {markdown(parent)}.", ""] if parent else []
    usage = ["import zoo", "", f'model = zoo.load("{address}")', "print(model.report)"]
    lines += ["```python", *usage, "```", ""]
    lines += ["## Licences", "", *_licence_lines(entry, parent, licence, config.get("trained_on")), ""]
    if metrics:
        lines += ["| metric | value |", "|---|---|", *(f"| {markdown(k)} | {v:.4g} |" for k, v in metrics.items()), ""]
    return "\n".join(lines)


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:60]


def _licence_lines(
    entry: Entry, parent: str | None, licence: str | None, trained_on: dict[str, Any] | None = None
) -> list[str]:
    """Code, weights and data, each with its licence or the plain statement that none is known."""
    lines = [f"- code: {entry.licence}", f"- weights: {markdown(licence or 'not stated')}"]
    data = trained_on or {}
    if data:
        about, its = str(data.get("data", "training")), str(data.get("licence", "not stated"))
        lines.append(f"- data ({markdown(about)}): {markdown(its)}")
    if parent and (inherited := licences_of(parent)[1]):
        lines.append(f"- data of {markdown(parent)}, which these weights descend from: {inherited}")
    elif not data:
        lines.append("- data: not stated")
    return lines
