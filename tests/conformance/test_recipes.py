"""Every recipe of the index runs, also the full-scale ones: with tiny sizes, on a folder of the real layout."""

from __future__ import annotations

import contextlib
import inspect
from pathlib import Path
from typing import Any

import pytest

from conformance.test_training import flags
from zoo import training
from zoo.errors import BadInput
from zoo.index import Entry, entries, load_yaml, recipe_path

# what only the machine for the full run has, and what only its length needs
TRAINER = {
    "fast_dev_run": True,
    "accelerator": "cpu",
    "devices": 1,
    "strategy": "auto",
    "sync_batchnorm": False,
    "max_epochs": 1,
}


def recipes() -> list[Any]:
    """Entry and tag of every recipe."""
    found = [(e, t) for e in entries().values() for t in e.weights if recipe_path(e, t) and recipe_path(e, t).is_file()]
    return [pytest.param(e, t, id=f"{e.id}:{t}") for e, t in found]


def words_of(whose: Entry, tag: str, folder: Path) -> list[str]:
    """The command line that runs a recipe with tiny sizes, on a folder of the layout it names."""
    entry = whose.tag(tag)
    recipe = load_yaml(recipe_path(whose, tag))
    data, model = dict(entry.tiny.get("data", {})), dict(entry.tiny.get("model", {}))
    if form := (recipe.get("data") or {}).get("format"):  # a recipe that names a layout needs a folder of it
        beside = {k: v for k, v in recipe["data"].items() if k == "extra"}  # a file that is written beside the layout
        made = entry.data_class()(**data, **beside)
        data |= {"format": form, "batch_size": 2}
        with contextlib.suppress(BadInput):  # a simulated world has no layout, and needs none
            more = {"images": 80} if "images" in inspect.signature(made.fake).parameters else {}
            data["root"] = str(made.fake(folder / "real", format=form, **more))
    facts = entry.data_class()(**data).facts()
    stages = {f"{whose.id}:{stage}" for stage in recipe.get("after") or []}
    own = {k for k, v in (recipe.get("model") or {}).items() if isinstance(v, str) and v in stages}
    # what the recipe takes from a stage is part of what is tested
    model = {k: v for k, v in model.items() if k not in facts and k not in own}
    # weights by name would be of the full size, and downloads are for the full run
    model |= {k: False for k in (recipe.get("model") or {}) if k.startswith("pretrained")}
    words = [*flags("data", {**data, "num_workers": 0}), *flags("model", model), *flags("trainer", TRAINER)]
    return ["fit", "--zoo", f"{whose.id}:{tag}", "--weights", "null", *words]


def train_stages(whose: Entry, tag: str, folder: Path) -> list[str]:
    """Train, with tiny sizes, the stages a recipe comes after and that have no weights; returns where they are."""
    missing = [t for t in load_yaml(recipe_path(whose, tag)).get("after") or [] if whose.weights[t].sha256 is None]
    place = f"--trainer.default_root_dir={folder / 'runs'}"
    for stage in missing:
        short = {"fast_dev_run": False, "limit_train_batches": 1, "limit_val_batches": 1}
        training.run(
            [
                *words_of(whose, stage, folder),
                *flags("trainer", short),
                *(train_stages(whose, stage, folder) or [place]),
            ]
        )
    return [place] if missing else []


@pytest.mark.parametrize(("whose", "tag"), recipes())
def test_recipe_runs(whose: Entry, tag: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    where = train_stages(whose, tag, folder)
    done = training.run([*words_of(whose, tag, folder), *where])
    assert done.trainer.global_step >= 1
    assert done.trainer.state.finished
    assert {p.name for p in folder.iterdir()} <= ({"real", "runs"} if where else {"real"})
