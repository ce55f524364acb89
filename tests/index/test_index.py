"""The index: schema and its messages, YAML limits, searching, third parties, import cost."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

import zoo
from zoo import errors, index
from zoo.index import Entry, Weights, load_yaml, read_index
from zoo.index import recipes as _index_recipes
from zoo.index.recipes import read_recipe, recipe_of, stages_of

BLOCK: dict[str, Any] = {
    "model": "package.module:Net",
    "data": "package.data:Data",
    "task": "object-detection",
    "summary": "Finds things.",
    "paper": {"title": "Things", "year": 2021, "authors": "A. Author", "arxiv": "2101.00010"},
    "licence": "Apache-2.0",
    "can": ["onnx", "num_classes"],
    "default": "small",
    "aliases": {"thing-finder": "large"},
    "weights": {
        "small": {
            "init": {"num_classes": 2, "class_names": ["a", "b"]},
            "file": "thing-net-small.safetensors",
            "sha256": "ab" * 32,
            "bytes": 10,
            "params": 2,
            "licence": "CC0-1.0",
            "trained_on": {"data": "Things", "licence": "CC0-1.0"},
            "metrics": {"test/map": 0.5},
            "seed": 0,
            "tolerance": 0.01,
        },
        "large": {"recipe": "thing-net/large.yaml", "licence": "CC-BY-NC-4.0", "task": "keypoint-detection"},
    },
}


@pytest.fixture(autouse=True)
def own_index(monkeypatch: pytest.MonkeyPatch) -> None:
    """An index with nothing in it but what the test registers."""
    monkeypatch.setattr(index, "_registered", {})
    monkeypatch.setattr(index, "_cache", {})


def block(**changes: Any) -> dict[str, Any]:
    """A good block with changes; a dotted key reaches inside, None removes."""
    found: dict[str, Any] = yaml.safe_load(yaml.safe_dump(BLOCK))
    for key, value in changes.items():
        *path, last = key.split("__")
        inner = found
        for part in path:
            inner = inner[part]
        if value is None:
            inner.pop(last)
        else:
            inner[last] = value
    return found


def written(folder: Path, **blocks: Any) -> Path:
    path = folder / "index.yaml"
    path.write_text(yaml.safe_dump({k.replace("_", "-"): v for k, v in blocks.items()}, sort_keys=False))
    return path


def read(folder: Path, **changes: Any) -> Entry:
    return read_index(written(folder, thing_net=block(**changes)))["thing-net"]


def test_our_own_index_is_valid() -> None:
    found = read_index(index.index_path(), ordered=True)
    assert list(found) == sorted(found)


def test_good_block(tmp_path: Path) -> None:
    entry = read(tmp_path)
    assert entry.can == ("onnx", "num_classes")
    assert entry.learns == "gradient"
    assert entry.weights["small"].tolerance == 0.01
    assert entry.weights["small"].hub.repo is None
    assert entry.tag("large").task == "keypoint-detection"
    assert entry.tag().task == "object-detection"
    assert index.bundled_path(entry.weights["small"], entry) == tmp_path / "bundled" / "thing-net-small.safetensors"
    assert index.recipe_path(entry, "large") == tmp_path / "recipes" / "thing-net" / "large.yaml"
    with pytest.raises(errors.UnknownName, match="'small'"):
        entry.tag("smal")


@pytest.mark.parametrize(
    ("change", "messages"),
    [
        ({"model": None}, ["thing-net", "'model' is missing"]),
        ({"modell": "a.b:C", "model": None}, ["unknown key 'modell'", "'model'"]),
        ({"model": "a.b.C"}, ["thing-net.model", "package.module:Class"]),
        ({"task": "object-detect"}, ["thing-net.task", "'object-detection'"]),
        ({"can": ["onxx"]}, ["thing-net.can", "'onnx'"]),
        ({"can": "onnx"}, ["thing-net.can", "list"]),
        ({"learns": "slowly"}, ["thing-net.learns", "closed-form"]),
        ({"paper__title": None}, ["thing-net: paper", "'title' is missing"]),
        ({"paper__arxiv": 2101.0001}, ["arxiv", "quoted"]),
        ({"paper__year": "2021"}, ["year"]),
        ({"default": "smal"}, ["thing-net.default", "'small'"]),
        ({"default": None}, ["'default' is missing", "large, small"]),
        ({"aliases__other": "nothing"}, ["aliases.other", "nothing"]),
        ({"aliases__Not_Kebab": "small"}, ["Not_Kebab", "kebab"]),
        ({"registers": {"rule": ["mean"]}}, ["thing-net.registers", "rules, clients, transforms"]),
        ({"registers": {"rules": "mean"}}, ["thing-net.registers", "{rules: [my-rule]}"]),
        ({"registers": {"rules": ["Mean"]}}, ["thing-net.registers"]),
        ({"tiny": {"modle": {}}}, ["tiny", "modle"]),
        ({"weights__small__sha256": "ab" * 31}, ["weights.small.sha256", "64"]),
        ({"weights__small__sha256": "AB" * 32}, ["lower-case"]),
        ({"weights__small__sha256": None}, ["weights.small", "'sha256' is missing", "pinned"]),
        ({"weights__small__bytes": None}, ["'bytes' is missing"]),
        ({"weights__small__file": "other.safetensors"}, ["thing-net-small.safetensors"]),
        ({"weights__small__licence": None}, ["weights.small", "'licence' is missing"]),
        ({"weights__small__trained_on": {"data": "x"}}, ["trained_on", "'licence' is missing"]),
        ({"weights__small__init__class_names": ["a", True]}, ["class_names", "quotes"]),
        ({"weights__small__hub": {"repo": "o/r"}}, ["hub", "go together"]),
        ({"weights__small__hub": {"repo": "o/r", "revision": "main"}}, ["hub.revision", "40"]),
        ({"weights__small__hub": {"repo": "just-a-name", "revision": "0" * 40}}, ["hub.repo", "owner/name"]),
        ({"weights__small__metrics": {"test/map": float("nan")}}, ["metrics"]),
        ({"weights__small__seeds": 1}, ["unknown key 'seeds'", "'seed'"]),
        ({"weights__small__model": "a.b:C"}, ["unknown key 'model'"]),
        ({"weights__large__recipe": "../../etc/x.yaml"}, ["weights.large.recipe", "'..'"]),
        ({"weights__large__recipe": "/etc/x.yaml"}, ["weights.large.recipe"]),
        ({"weights__large__recipe": None}, ["weights.large", "recipe"]),
        ({"weights__own": {"recipe": "a.yaml", "licence": "MIT"}}, ["weights.own", "another name"]),
        ({"weights__Large": {"recipe": "a.yaml", "licence": "MIT"}}, ["weights.Large", "kebab"]),
    ],
    ids=str,
)
def test_messages_name_entry_key_and_fix(tmp_path: Path, change: dict[str, Any], messages: list[str]) -> None:
    with pytest.raises(errors.InvalidIndex) as caught:
        read(tmp_path, **change)
    for message in messages:
        assert message in str(caught.value)


def test_all_problems_at_once_and_order(tmp_path: Path) -> None:
    path = written(tmp_path, thing_net=block(task="x"), other_net=block(model="y", aliases={}), Bad=block())
    with pytest.raises(errors.InvalidIndex) as caught:
        read_index(path, ordered=True)
    text = str(caught.value)
    assert "thing-net.task" in text
    assert "other-net.model" in text
    assert "Bad: an id" in text
    assert "alphabetical" in text


def test_entries_check_themselves(tmp_path: Path) -> None:
    good = read(tmp_path)
    with pytest.raises(errors.InvalidIndex, match="task"):
        dataclasses.replace(good, task="nothing")
    with pytest.raises(errors.InvalidIndex, match="recipe"):
        dataclasses.replace(good, weights={"small": Weights("small", licence="MIT")})


def test_register_resolve_and_aliases(tmp_path: Path) -> None:
    entry = read(tmp_path)
    zoo.register(entry)
    zoo.register(entry)  # the same cell again
    assert index.resolve("thing-net") == (entry, "small")
    assert index.resolve("thing-net:large") == (entry, "large")
    assert index.resolve("thing-finder") == (entry, "large")
    assert index.resolve("thing-finder:small") == (entry, "small")
    assert zoo.info("thing-net:large").task == "keypoint-detection"
    with pytest.raises(errors.UnknownName, match="'thing-net'"):
        index.resolve("thingnet")
    with pytest.raises(errors.UnknownName, match="Tags: large, small"):
        index.resolve("thing-net:medium")
    with pytest.raises(errors.BadInput):
        index.resolve(3)  # type: ignore[arg-type]
    with pytest.raises(errors.InvalidIndex, match="taken"):
        zoo.register(dataclasses.replace(entry, summary="Another."))
    other = dataclasses.replace(entry, id="other-net", weights={}, default=None, aliases={})
    zoo.register(other)
    with pytest.raises(errors.InvalidIndex, match="thing-finder"):
        zoo.register(
            dataclasses.replace(
                other,
                id="third-net",
                aliases={"thing-finder": "x"},
                default="x",
                weights={"x": Weights("x", recipe="x.yaml", licence="MIT")},
            )
        )
    zoo.register(dataclasses.replace(entry, summary="Another."), replace=True)
    assert zoo.info("thing-net").summary == "Another."


def test_list_models(tmp_path: Path) -> None:
    entry = read(tmp_path)
    bare = dataclasses.replace(
        entry, id="bare-net", weights={}, default=None, aliases={}, can=(), paper={"title": "B", "year": 1999}
    )
    zoo.register(entry)
    zoo.register(bare)
    both = ["bare-net", "thing-net"]
    assert zoo.list_models() == both == zoo.list_models("*-NET")
    assert zoo.list_models("bare") == ["bare-net"]  # part of a name
    assert zoo.list_models("NET") == both
    assert zoo.list_models("*finder*") == zoo.list_models("thing-net:l*") == ["thing-net"]
    assert zoo.list_models(task="keypoint-detection") == ["thing-net"]
    assert zoo.list_models(task="object-detection") == both
    assert zoo.list_models(licence="*-nc-*") == ["thing-net"]
    assert zoo.list_models(licence="apache*") == ["bare-net"]
    assert zoo.list_models(pretrained=True) == ["thing-net"]
    assert zoo.list_models(pretrained=False) == ["bare-net"]
    assert zoo.list_models(paper="author") == ["thing-net"] == zoo.list_models(paper="2101.00010")
    assert zoo.list_models(year=1999) == ["bare-net"]
    assert zoo.list_models(year=range(1990, 2022)) == both
    assert zoo.list_models(can="onnx") == ["thing-net"] == zoo.list_models(can=["onnx", "num_classes"])
    assert zoo.list_models(can=["onnx", "compile"]) == [] == zoo.list_models("nothing*")
    with pytest.raises(errors.UnknownName, match="'object-detection'"):
        zoo.list_models(task="object-detecton")
    with pytest.raises(errors.UnknownName, match="'onnx'"):
        zoo.list_models(can="onx")
    with pytest.raises(errors.UnknownName, match=r"Tasks with methods: keypoint-detection, object-detection\.$"):
        zoo.list_models(task="cooking")


def test_a_name_is_all_of_it_where_there_is_one(tmp_path: Path) -> None:
    entry = read(tmp_path)
    zoo.register(entry)
    zoo.register(dataclasses.replace(entry, id="thing-net-two", weights={}, default=None, aliases={}))
    assert zoo.list_models("thing-net") == ["thing-net"]
    assert zoo.list_models("thing-ne") == ["thing-net", "thing-net-two"]


def test_the_nearest_name_has_half_of_what_was_asked_for() -> None:
    assert errors.nearest("yolov8n", ["moon", "alpha-iou-yolo"]) == " Did you mean 'alpha-iou-yolo'?"
    assert errors.nearest("mon", ["moon", "alpha-iou-yolo"]) == " Did you mean 'moon'?"
    assert errors.nearest("zzz", ["moon", "alpha-iou-yolo"]) == ""


HUB_TAGS = """
any-to-any audio-classification audio-text-to-text audio-to-audio automatic-speech-recognition depth-estimation
document-question-answering feature-extraction fill-mask graph-ml image-classification image-feature-extraction
image-segmentation image-text-to-image image-text-to-text image-text-to-video image-to-3d image-to-image
image-to-text image-to-video keypoint-detection mask-generation multiple-choice object-detection other
question-answering reinforcement-learning robotics sentence-similarity summarization table-question-answering
table-to-text tabular-classification tabular-regression tabular-to-text text-classification text-generation
text-ranking text-retrieval text-to-3d text-to-audio text-to-image text-to-speech text-to-video
time-series-forecasting token-classification translation unconditional-image-generation video-classification
video-text-to-text video-to-video visual-document-retrieval visual-question-answering voice-activity-detection
zero-shot-classification zero-shot-image-classification zero-shot-object-detection
"""
"""The Hub's pipeline tags, as @huggingface/tasks 0.21.54 lists them; huggingface_hub ships no list."""


def test_tasks_are_called_as_on_the_hub() -> None:
    tags = HUB_TAGS.split()
    for name, task in index.TASKS.items():
        assert task.hub is None or task.hub in tags, name
        if name in tags:
            assert task.hub == name, "a pipeline tag means what the Hub means by it"
    assert list(index.TASKS) == sorted(index.TASKS)


def test_every_task_says_what_a_prediction_holds() -> None:
    from zoo.base import RESULTS

    assert set(RESULTS) == set(index.TASKS)
    used = {key for task in index.TASKS.values() for key in task.results}
    assert used == set(index.KEYS), "each key is explained, and nothing else is"
    for name, task in index.TASKS.items():
        assert task.results, name
        assert set(task.prints) <= set(task.results), name


def test_classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "datamodules").mkdir()
    (tmp_path / "datamodules" / "__init__.py").write_text("")
    (tmp_path / "datamodules" / "mine.py").write_text("class Data: ...")
    entry = dataclasses.replace(read(tmp_path), model="collections:OrderedDict", data="datamodules.mine:Data")
    from collections import OrderedDict

    assert entry.model_class() is OrderedDict
    zoo.register(entry)
    assert index.entry_of(OrderedDict) is entry
    assert index.id_of(type("Sub", (OrderedDict,), {})) == "thing-net"
    assert index.id_of(int) is None
    with pytest.raises(errors.UnknownName, match="register"):
        index.entry_of(int)
    with pytest.raises(errors.InvalidIndex, match="OrderedDict"):
        dataclasses.replace(entry, model="collections:OrderdDict").model_class()
    with pytest.raises(errors.InvalidIndex, match="no_such_module"):
        dataclasses.replace(entry, model="no_such_module:X").model_class()
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in [n for n in sys.modules if n.split(".")[0] == "datamodules"]:
        monkeypatch.delitem(sys.modules, name)
    for path in ("datamodules.mine:Data", "datamodules.boxes:Boxes"):  # there, and not there
        with pytest.raises(errors.ShadowedPackage, match="Rename"):
            dataclasses.replace(entry, data=path).data_class()
        for name in [n for n in sys.modules if n.split(".")[0] == "datamodules"]:
            monkeypatch.delitem(sys.modules, name)


# Third parties ----------------------------------------------------------------------------------------------------


def distribution(folder: Path, name: str, value: str, files: dict[str, str], *, record: bool = True) -> None:
    """An installed package that would fail if it were imported."""
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[zoo.index]\n{name} = {value}\n")
    (folder / name).mkdir()
    (folder / name / "__init__.py").write_text("raise RuntimeError('imported')")
    for file, text in files.items():
        (folder / name / file).write_text(text)
    lines = [f"{name}/{file},," for file in files] if record else []
    (info / "RECORD").write_text("\n".join([f"{name}/__init__.py,,", *lines]) + "\n")


@pytest.mark.parametrize("form", ["{}/models.yaml", "{}:models.yaml"])
@pytest.mark.parametrize("record", [True, False])
def test_third_party_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str, record: bool) -> None:
    text = yaml.safe_dump({"thing-net": block()})
    distribution(tmp_path, "thirdparty", form.format("thirdparty"), {"models.yaml": text}, record=record)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(index, "_cache", None)
    assert "thing-net" in zoo.list_models()
    assert "thirdparty" not in sys.modules
    assert zoo.info("thing-net").source == str(tmp_path / "thirdparty" / "models.yaml")


def test_packages_that_only_a_finder_knows_are_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = yaml.safe_dump({"thing-net": block()})
    distribution(tmp_path, "hidden", "hidden:models.yaml", {"models.yaml": text})

    class Finder:
        @staticmethod
        def find_spec(name: str, path: Any = None, target: Any = None) -> None:
            return None

        @staticmethod
        def find_distributions(context: Any) -> Any:
            from importlib.metadata import MetadataPathFinder

            return MetadataPathFinder.find_distributions(context.__class__(name=context.name, path=[str(tmp_path)]))

    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, Finder])
    monkeypatch.setattr(index, "_cache", None)
    assert "thing-net" in zoo.list_models()


def test_listing_asks_no_package_where_none_has_an_index() -> None:
    """Reading what is installed takes as long as all else that a listing does."""
    code = (
        "import sys, zoo; zoo.list_models(); "
        "print(sorted({'importlib.metadata', 'email', 'zipfile', 'difflib', 'hashlib'} & set(sys.modules)))"
    )
    found = [d for d in importlib.metadata.distributions() if "zoo.index" in (d.read_text("entry_points.txt") or "")]
    if found:
        pytest.skip("a package with an index is installed")
    env = {**os.environ, "PYTHONPATH": str(Path(zoo.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_no_package_gives_its_id_to_the_class_of_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = next(iter(index.read_index(index.index_path()).values()))
    bare = {"aliases": None, "weights": None, "default": None}
    theirs = block(model="bthing.models:Net", data=ours.data, **bare)
    stolen = {"aa-evil": block(model=ours.model, data=ours.data, **bare), "ab-evil": theirs}
    for name, text in (("athief", stolen), ("bthing", {"thing-net": theirs}), ("cthief", {"zz-evil": theirs})):
        distribution(tmp_path, name, f"{name}/models.yaml", {"models.yaml": yaml.safe_dump(text)})
    (tmp_path / "bthing" / "__init__.py").write_text("")
    (tmp_path / "bthing" / "models.py").write_text("class Net: ...")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(index, "_cache", None)
    assert {"aa-evil", "ab-evil", "zz-evil", "thing-net", ours.id} <= set(index.entries())
    assert index.id_of(ours.model_class()) == ours.id
    assert index.id_of(type("Sub", (ours.model_class(),), {})) == ours.id
    assert index.id_of(zoo.info("zz-evil").model_class()) == "thing-net"
    zoo.register(dataclasses.replace(zoo.info("zz-evil"), id="my-own", source="register()"))
    assert index.id_of(zoo.info("zz-evil").model_class()) == "thing-net"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("broken/models.yaml", "thing-net: {model: 3}"),
        ("broken/models.yaml", "a: [1"),
        ("broken/models.yaml", "a: !!python/object/apply:os.system [ls]"),
        ("broken/missing.yaml", ""),
        ("broken/../../models.yaml", ""),
    ],
)
def test_broken_third_party_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str, text: str) -> None:
    distribution(tmp_path, "broken", value, {"models.yaml": text})
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(index, "_cache", None)
    with pytest.warns(RuntimeWarning, match="broken"):
        zoo.list_models()
    zoo.list_models()  # told once


# YAML -------------------------------------------------------------------------------------------------------------


def test_yaml_reads_plain_files(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("a: &x {b: [1, 2.5, text, null, true]}\nc: *x\nd: {<<: *x, e: 1}\n")
    value = {"b": [1, 2.5, "text", None, True]}
    assert load_yaml(tmp_path / "a.yaml") == {"a": value, "c": value, "d": {**value, "e": 1}}
    assert load_yaml("") is None
    with pytest.raises(errors.RepositoryNotFound):
        load_yaml(tmp_path / "b.yaml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3\n", "line 3.*'a' is given twice"),
        ("x:\n  - {k: 1, k: 2}\n", "'k' is given twice"),
        ("a:\n  [1, 2", "line"),
        ("a:\n\t- b", "line 2"),
        ("{[1, 2]: 3}", "cannot be a key"),
        ("a: 2021-13-45", "quotes"),
    ],
)
def test_yaml_mistakes(text: str, message: str) -> None:
    with pytest.raises(errors.InvalidConfig, match=message):
        load_yaml(text, error=errors.InvalidConfig)


def test_import_is_light() -> None:
    code = "import sys, zoo; zoo.list_models(); print(sorted({'torch', 'lightning', 'numpy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_public_names() -> None:
    import pkgutil

    submodules = {m.name for m in pkgutil.iter_modules(zoo.__path__)} - {"errors"}
    assert not submodules & set(zoo.__all__)
    assert set(zoo.__all__) <= set(dir(zoo))
    for name in zoo.__all__:
        assert getattr(zoo, name) is not None
    with pytest.raises(AttributeError, match="'load'"):
        zoo.lod  # noqa: B018


# Recipes ----------------------------------------------------------------------------------------------------------


def test_recipes_are_read_once_until_they_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = read(tmp_path)
    with pytest.raises(errors.InvalidConfig, match=r"large\.yaml.*thing-net:large"):
        read_recipe(entry, "large")
    path = index.recipe_path(entry, "large")
    path.parent.mkdir(parents=True)
    path.write_text("after: [small]\nmodel: {width: 3}\n")
    recipe = read_recipe(entry, "large")
    assert stages_of(recipe) == ["small"]
    recipe["model"]["width"] = 4  # whoever changes what was read does not change the recipe
    calls: list[Path] = []
    monkeypatch.setattr(_index_recipes, "load_yaml", lambda path: calls.append(path) or load_yaml(path))
    assert read_recipe(entry, "large")["model"] == {"width": 3}
    assert not calls
    path.write_text("model: {width: 10}\n")
    assert read_recipe(entry, "large") == {"model": {"width": 10}}
    assert calls == [path]
    path.write_text("[1]")
    with pytest.raises(errors.InvalidConfig, match="expected sections"):
        read_recipe(entry, "large")


def test_tags_without_a_recipe(tmp_path: Path) -> None:
    entry = read(tmp_path)
    assert read_recipe(entry, None) == {} == read_recipe(entry, "small")
    assert recipe_of(entry, None) is None is recipe_of(entry, "small")
    path = index.recipe_path(entry, "small")  # a file at the usual place needs no line in the index
    path.parent.mkdir(parents=True)
    path.write_text("minutes: 3\n")
    assert recipe_of(entry, "small") == path
    assert read_recipe(entry, "small") == {"minutes": 3}
