"""Sharing from the command line and from a module, licences that travel, and the whole index at once."""

from __future__ import annotations

import logging
import re
import shutil
from collections import Counter
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest
import torch
import yaml
from hub_server import LoopbackHub
from toys import hub as toys

import zoo
from zoo import cli, errors, index
from zoo.index import licences as _licences

OWNER = "token-of-owner"


@pytest.fixture(autouse=True)
def start(monkeypatch: pytest.MonkeyPatch) -> None:
    _licences.forget()
    zoo.register(toys.entry())


def published(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {k: v for k, v in module.state_dict().items() if not k.startswith("teacher")}


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(v, b[k]) for k, v in a.items())


# Commands ---------------------------------------------------------------------------------------------------------


def test_push_command(
    hub: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_TOKEN", OWNER)
    folder = zoo.save(toys.trained(), tmp_path / "saved")
    words = ["push", str(folder), "owner/mine", "--endpoint", hub.url, "--tag", "v1", "--licence", "mit", "--public"]
    assert cli.main(words) == 0
    said = capsys.readouterr().out
    assert 'zoo.load("hf://owner/mine@v1")' in said
    assert not hub.state.repos["owner/mine"].private
    assert equal(published(zoo.load("hf://owner/mine@v1", endpoint=hub.url)), published(toys.trained()))
    assert cli.main(["push", str(tmp_path / "no"), "owner/mine"]) == 2
    assert cli.main(["push", str(folder), "owner/other", "--endpoint", hub.url]) == 0
    assert hub.state.repos["owner/other"].private


def test_module_push(hub: LoopbackHub) -> None:
    about = zoo.push(toys.trained(), "owner/mine", endpoint=hub.url, token=OWNER, licence="MIT")
    assert about.hub.repo == "owner/mine"
    assert hub.state.repos["owner/mine"].branches["main"] == about.hub.revision


# Licences ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("licence", "permissive"),
    [
        ("Apache-2.0", True),
        ("mit", True),
        ("BSD-3-Clause (digits), public domain and CC0-1.0 (photographs)", True),
        ("CC-BY-4.0 (annotations)", True),
        ("CC-BY-NC-4.0", False),
        ("GPL-3.0", False),
        ("MIT and CC-BY-NC-SA-4.0", False),
        ("research only", False),
        ("", False),
        (None, False),
    ],
)
def test_which_licences_restrict(licence: str | None, permissive: bool) -> None:
    assert _licences.is_permissive(licence) is permissive


def restricted(hub: LoopbackHub, folder: Path, tmp_path: Path) -> None:
    """The toy in the index, under a licence that restricts."""
    files = {p.name: p.read_bytes() for p in folder.iterdir()}
    commit, model = hub.add("owner/toy", files), files["model.safetensors"]
    about = toys.published("owner/toy", commit, sha256(model).hexdigest(), len(model))
    about = replace(about, licence="CC-BY-NC-4.0", trained_on={"data": "faces", "licence": "research only"})
    zoo.register(toys.with_weights(toys.entry(tmp_path / "index.yaml"), about), replace=True)


def test_notice_once(hub: LoopbackHub, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    restricted(hub, zoo.save(toys.trained(), tmp_path / "saved"), tmp_path)
    with caplog.at_level(logging.WARNING, "zoo"):
        for _ in range(3):
            zoo.load("toy-net", endpoint=hub.url)
    said = [r.getMessage() for r in caplog.records if r.name == "zoo"]
    assert len(said) == 1
    assert "CC-BY-NC-4.0" in said[0]
    assert "research only" in said[0]


def test_no_notice_for_permissive_or_own_weights(
    hub: LoopbackHub, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = zoo.save(toys.trained(), tmp_path / "saved")
    zoo.push(folder, "owner/mine", endpoint=hub.url, token=OWNER, licence="MIT")
    with caplog.at_level(logging.WARNING, "zoo"):
        zoo.load(folder)
        zoo.load("hf://owner/mine", endpoint=hub.url, token=OWNER)
        assert not caplog.records
        zoo.push(folder, "owner/unstated", endpoint=hub.url, token=OWNER)
        zoo.load("hf://owner/unstated", endpoint=hub.url, token=OWNER)
    assert "without a licence" in caplog.records[0].getMessage()


def test_licences_travel(hub: LoopbackHub, tmp_path: Path, home: Path, caplog: pytest.LogCaptureFixture) -> None:
    restricted(hub, zoo.save(toys.trained(), tmp_path / "saved"), tmp_path)
    mine = zoo.load("toy-net", endpoint=hub.url)
    with torch.no_grad():
        mine.head.bias += 1
    about = zoo.push(mine, "owner/mine", endpoint=hub.url, token=OWNER)
    tree = hub.state.repos["owner/mine"].commits[str(about.hub.revision)]
    card = tree["README.md"].decode()
    assert yaml.safe_load(card.split("---")[1])["license"] == "cc-by-nc-4.0"
    for line in ("- code: Apache-2.0", "- weights: CC-BY-NC-4.0", "which these weights descend from: research only"):
        assert line in card
    caplog.clear()
    zoo.load("hf://owner/mine", endpoint=hub.url, token=OWNER)
    assert "CC-BY-NC-4.0" in caplog.text
    other = zoo.push(toys.trained(9), "owner/odd", endpoint=hub.url, token=OWNER, licence="My own terms, v2")
    head = yaml.safe_load(
        hub.state.repos["owner/odd"].commits[str(other.hub.revision)]["README.md"].decode().split("---")[1]
    )
    assert (head["license"], head["license_name"]) == ("other", "my-own-terms-v2")


def test_licences_in_list_and_info(hub: LoopbackHub, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    restricted(hub, zoo.save(toys.trained(), tmp_path / "saved"), tmp_path)
    assert zoo.list_models("toy*", licence="cc-by-nc*") == ["toy-net"]
    assert zoo.list_models("toy*", licence="apache*") == []
    assert cli.main(["list", "--licence", "cc-by-nc-*"]) == 0
    assert "toy-net" in capsys.readouterr().out
    assert cli.main(["info", "toy-net"]) == 0
    said = capsys.readouterr().out
    for pattern in (r"code licence\s+Apache-2.0", r"weights licence\s+CC-BY-NC-4.0", r"data licence\s+research only"):
        assert re.search(pattern, said)


# The whole index --------------------------------------------------------------------------------------------------


def move_index(folder: Path, text: str, bundled: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> Path:
    """An index file of the test's own, with the files beside it."""
    (folder / "bundled").mkdir(parents=True)
    for name, data in bundled.items():
        (folder / "bundled" / name).write_bytes(data)
    path = folder / "checkpoints.yaml"
    path.write_text(text, encoding="utf-8")
    monkeypatch.setattr(index, "_registered", {})
    monkeypatch.setattr(index, "index_path", lambda: path)
    monkeypatch.setattr(index, "_beside", lambda entry: folder)
    monkeypatch.setattr(index, "_cache", None)
    return path


def trained_tags() -> list[str]:
    return [f"{e.id}:{t}" for e in index.entries().values() for t, w in e.weights.items() if w.sha256]


def publish_and_pull_everything(hub: LoopbackHub, path: Path, home: Path) -> None:
    """Publish all, remove the bundled files and the cache, and load all again from the Hub."""
    names = trained_tags()
    before = {name: zoo.load(name).published_state() for name in names}
    untouched = [line for line in path.read_text(encoding="utf-8").splitlines() if "hub:" not in line]
    rows = zoo.publish(namespace="owner", endpoint=hub.url, token=OWNER)
    assert [r.name for r in rows] == names
    assert all(r.ok for r in rows), rows
    check_requests(hub, names)
    shutil.rmtree(path.parent / "bundled")
    shutil.rmtree(home, ignore_errors=True)
    for name in names:
        entry, tag = index.resolve(name)
        module = zoo.load(name, endpoint=hub.url)
        assert module.report is not None
        assert module.report.source == f"hub: owner/{entry.id}-{tag}@{entry.weights[str(tag)].hub.revision}"
        assert equal(before[name], module.published_state()), name
    hub.requests.clear()
    for name in names:
        assert zoo.load(name, endpoint=hub.url).report.source.startswith("cache")
    rows = zoo.publish(namespace="owner", endpoint=hub.url, token=OWNER)
    assert not [r for r in rows if "already there" not in r.why]
    assert {m for m, _ in hub.requests} <= {"GET"}
    now = path.read_text(encoding="utf-8").splitlines()
    assert [line for line in now if "hub:" not in line] == untouched


def check_requests(hub: LoopbackHub, names: list[str]) -> None:
    """One sequence per checkpoint, one commit each, and no file sent or fetched twice."""
    repos = [f"owner/{name.replace(':', '-')}" for name in names]
    owners = [next((r for r in repos if f"/{r}/" in f"{p}/" or f"/{r}.git/" in p), None) for _, p in hub.requests]
    sequence = [r for i, r in enumerate(owners) if r and r not in owners[:i]]
    assert sequence == repos
    seen = [r for r in owners if r]
    assert seen == sorted(seen, key=repos.index)
    sent = Counter(p for m, p in hub.requests if m == "PUT")
    assert not [p for p, count in sent.items() if count > 1]
    for repo in repos:
        assert hub.count("POST", f"{repo}/commit/") == 1
    # large files are served from another address, named by their hash
    fetched = Counter(p for m, p in hub.requests if m == "GET" and p.startswith("/lfs/"))
    assert sum(p.endswith("model.safetensors") for p in fetched) == len(names)
    assert not [p for p, count in fetched.items() if count > 1]


TOYS = """\
toy-net:
  model: toys.hub:ToyNet
  data: toys.hub:ToyData
  task: image-classification
  summary: A toy.
  paper: {{title: On Toys, year: 2020}}
  licence: Apache-2.0
  default: tag-0
  weights:
{tags}"""

TAG = """\
    tag-{number}:
      init: {{width: {width}, num_classes: 3}}
      file: toy-net-tag-{number}.safetensors
      sha256: "{sha256}"
      bytes: {bytes}
      params: 50
      licence: Apache-2.0
      trained_on: {{data: nothing, licence: CC0-1.0}}
      hub: {{repo: null, revision: null}}  # by publish
"""


def test_whole_index_of_toys(hub: LoopbackHub, tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tags, files = [], {}
    for number in range(3):
        module = toys.trained(number, width=4 + number, class_names=None)
        data = (zoo.save(module, tmp_path / str(number)) / "model.safetensors").read_bytes()
        files[f"toy-net-tag-{number}.safetensors"] = data
        tags.append(TAG.format(number=number, width=4 + number, sha256=sha256(data).hexdigest(), bytes=len(data)))
    path = move_index(tmp_path / "index", TOYS.format(tags="".join(tags)), files, monkeypatch)
    publish_and_pull_everything(hub, path, home)


def test_each_checkpoint_takes_its_own_evaluation_results_along(
    hub: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = (zoo.save(toys.trained(0), tmp_path / "saved") / "model.safetensors").read_bytes()
    tags = [TAG.format(number=n, width=4, sha256=sha256(data).hexdigest(), bytes=len(data)) for n in range(2)]
    files = {f"toy-net-tag-{n}.safetensors": data for n in range(2)}
    card = move_index(tmp_path / "index", TOYS.format(tags="".join(tags)), files, monkeypatch).parent / "model_cards"
    text = "- dataset: {id: owner/cats, task_id: acc}\n  value: 0.5\n"
    (card / "toy-net" / ".eval_results").mkdir(parents=True)
    (card / "toy-net" / "README.md").write_text("# toy-net\n")
    (card / "toy-net" / ".eval_results" / "tag-1.yaml").write_text(text)
    assert all(row.ok for row in zoo.publish(namespace="owner", endpoint=hub.url, token=OWNER))
    trees = [hub.state.repos[f"owner/toy-net-tag-{n}"] for n in range(2)]
    found = [{k: v for k, v in t.commits[t.branches["main"]].items() if k.startswith(".eval_results/")} for t in trees]
    assert found == [{}, {".eval_results/tag-1.yaml": text.encode()}]


def real_index(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the real index with the weights that are here."""
    source = index.index_path()
    files: dict[str, bytes] = {}
    for entry in index.entries().values():
        for weights in entry.weights.values():
            if entry.source == str(source) and weights.sha256 and index.bundled_path(weights, entry).is_file():
                files[str(weights.file)] = index.bundled_path(weights, entry).read_bytes()
    assert files, "no weights of the index are bundled"
    text = source.read_text(encoding="utf-8")
    cards = source.parent / "model_cards"
    folder.mkdir()
    if cards.is_dir():
        shutil.copytree(cards, folder / "model_cards")
    return move_index(folder, text, files, monkeypatch)


@pytest.mark.slow
def test_whole_real_index(hub: LoopbackHub, tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index, "_registered", {})
    path = real_index(tmp_path / "index", monkeypatch)
    publish_and_pull_everything(hub, path, home)


def test_default_of_the_real_index(
    hub: LoopbackHub, tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One checkpoint of the real index in the quick tests; all of them in the slow ones."""
    monkeypatch.setattr(index, "_registered", {})
    real_index(tmp_path / "index", monkeypatch)
    name = trained_tags()[0]
    before = zoo.load(name).published_state()
    rows = zoo.publish(name, namespace="owner", endpoint=hub.url, token=OWNER)
    assert all(r.ok for r in rows), rows
    shutil.rmtree(tmp_path / "index" / "bundled")
    shutil.rmtree(home, ignore_errors=True)
    assert equal(before, zoo.load(name, endpoint=hub.url).published_state())


def test_dry_run_command(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = (zoo.save(toys.trained(0), tmp_path / "saved") / "model.safetensors").read_bytes()
    tag = TAG.format(number=0, width=4, sha256=sha256(data).hexdigest(), bytes=len(data))
    move_index(tmp_path / "index", TOYS.format(tags=tag), {"toy-net-tag-0.safetensors": data}, monkeypatch)
    assert cli.main(["publish", "--namespace", "owner", "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "owner/toy-net-tag-0" in said
    assert "would be published" in said
    with pytest.raises(errors.NotOnHub):
        zoo.pull("toy-net")
