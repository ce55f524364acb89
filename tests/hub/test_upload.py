"""Pushing and publishing with the real client, and what another person then loads."""

from __future__ import annotations

import json
import shutil
from hashlib import sha256
from pathlib import Path

import pytest
import torch
import yaml
from hub_server import LoopbackHub
from toys import hub as toys

import zoo
from zoo import errors, index
from zoo.store.publication import pin

OWNER = "token-of-owner"


@pytest.fixture(autouse=True)
def toy() -> None:
    zoo.register(toys.entry())


def same(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    theirs = b.state_dict()
    return all(torch.equal(v, theirs[k]) for k, v in a.state_dict().items() if not k.startswith("teacher"))


@pytest.fixture
def elsewhere(home: Path) -> Path:
    """Empties the cache: another person's machine."""
    shutil.rmtree(home, ignore_errors=True)
    return home


def test_push_then_another_person_loads(hub: LoopbackHub, home: Path) -> None:
    module = toys.trained(class_names=["cat", "dog", "owl"])
    module.parent = "hf://owner/toy@" + "1" * 40
    about = zoo.push(module, "owner/mine", endpoint=hub.url, token=OWNER, tag="v1", licence="MIT")
    assert about.hub == index.Pin("owner/mine", hub.state.repos["owner/mine"].branches["main"])
    assert about.licence == "MIT"
    assert about.init["class_names"] == ["cat", "dog", "owl"]
    repo = hub.state.repos["owner/mine"]
    assert repo.private
    assert repo.tags["v1"] == about.hub.revision
    assert len(repo.history) == 2  # the repository's own first, then one
    tree = repo.commits[str(about.hub.revision)]
    assert set(tree) >= {"README.md", "config.json", "model.safetensors", "golden.safetensors"}
    card = tree["README.md"].decode()
    assert yaml.safe_load(card.split("---")[1])["base_model"] == "owner/toy"
    assert 'zoo.load("hf://owner/mine")' in card
    shutil.rmtree(home, ignore_errors=True)
    theirs = zoo.load("hf://owner/mine@v1", endpoint=hub.url, token=OWNER)
    assert same(theirs, module)
    assert theirs.class_names == ["cat", "dog", "owl"]
    x = torch.randn(4, 5)
    assert torch.equal(theirs(x), module(x))
    with pytest.raises(errors.Unauthorized):
        zoo.load("hf://owner/mine", endpoint=hub.url)


def test_push_again_sends_nothing(hub: LoopbackHub, tmp_path: Path) -> None:
    folder = zoo.save(toys.trained(), tmp_path / "saved")
    first = zoo.push(folder, "owner/mine", endpoint=hub.url, token=OWNER, tag="v1")
    hub.requests.clear()
    assert zoo.push(folder, "owner/mine", endpoint=hub.url, token=OWNER, tag="v1") == first
    assert not hub.count("PUT")
    assert not hub.count("POST", "/commit/")
    with pytest.raises(errors.RepositoryChanged, match="never moves"):
        zoo.push(toys.trained(7), "owner/mine", endpoint=hub.url, token=OWNER, tag="v1")
    second = zoo.push(toys.trained(7), "owner/mine", endpoint=hub.url, token=OWNER, tag="v2")
    assert second.hub != first.hub


def test_push_refusals(hub: LoopbackHub, tmp_path: Path) -> None:
    module = toys.trained()
    with pytest.raises(errors.Unauthorized, match="token"):
        zoo.push(module, "owner/mine", endpoint=hub.url)
    with pytest.raises(errors.Unauthorized, match="403"):
        zoo.push(module, "owner/mine", endpoint=hub.url, token="token-of-other")
    with pytest.raises(errors.BadInput, match="owner/repo"):
        zoo.push(module, "mine", endpoint=hub.url, token=OWNER)
    zoo.register(toys.entry(name="secret-net", cls=toys.SecretNet))
    hub.requests.clear()
    with pytest.raises(errors.PrivateWeights):
        zoo.push(toys.trained(cls=toys.SecretNet), "owner/mine", endpoint=hub.url, token=OWNER)
    folder = zoo.save(module, tmp_path / "saved")
    (folder / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(errors.CorruptFile):
        zoo.push(folder, "owner/mine", endpoint=hub.url, token=OWNER)
    assert not hub.requests


def test_push_onto_somebody_elses_commit(hub: LoopbackHub) -> None:
    zoo.push(toys.trained(), "owner/mine", endpoint=hub.url, token=OWNER)
    hub.race("owner/mine")
    with pytest.raises(errors.RepositoryChanged, match="push again"):
        zoo.push(toys.trained(7), "owner/mine", endpoint=hub.url, token=OWNER)
    about = zoo.push(toys.trained(7), "owner/mine", endpoint=hub.url, token=OWNER)
    tree = hub.state.repos["owner/mine"].commits[str(about.hub.revision)]
    assert "notes.txt" in tree
    assert sha256(tree["model.safetensors"]).hexdigest() == about.sha256


def test_push_finds_out_that_the_hub_serves_something_else(hub: LoopbackHub) -> None:
    fault = hub.fault("corrupt", "model.safetensors")
    with pytest.raises(errors.CorruptFile):
        zoo.push(toys.trained(), "owner/mine", endpoint=hub.url, token=OWNER)
    fault.times = 0
    assert zoo.push(toys.trained(), "owner/mine", endpoint=hub.url, token=OWNER)


INDEX = """\
# A comment at the top.
toy-net:
  model: toys.hub:ToyNet
  data: toys.hub:ToyData
  task: image-classification
  summary: A toy.   # a comment
  paper: {title: On Toys, year: 2020}
  licence: Apache-2.0
  default: small
  weights:
    # about the small one
    small:
      init: {width: 4, num_classes: 3, class_names: [a, b, c]}
      file: toy-net-small.safetensors
      sha256: "%s"
      bytes: %d
      params: 50
      hub: {repo: null, revision: null}  # written by publish
      licence: Apache-2.0
      trained_on: {data: nothing, licence: CC0-1.0}
    wide:

      init: {width: 6, num_classes: 3}
      file: toy-net-wide.safetensors
      sha256: "%s"
      bytes: %d
      params: 70
      licence: Apache-2.0
      trained_on: {data: nothing, licence: CC0-1.0}
      metrics: {test/accuracy: 0.5}
    planned: {recipe: toy-net/planned.yaml, licence: MIT}
"""


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An index file with two trained tags and their bundled files."""
    (tmp_path / "bundled").mkdir()
    facts: list[object] = []
    for tag, module in (("small", toys.trained()), ("wide", toys.trained(3, width=6, class_names=None))):
        data = (zoo.save(module, tmp_path / "saved" / tag) / "model.safetensors").read_bytes()
        (tmp_path / "bundled" / f"toy-net-{tag}.safetensors").write_bytes(data)
        facts += [sha256(data).hexdigest(), len(data)]
    path = tmp_path / "checkpoints.yaml"
    path.write_text(INDEX % tuple(facts))
    monkeypatch.setattr(index, "_registered", {})
    monkeypatch.setattr(index, "index_path", lambda: path)
    monkeypatch.setattr(index, "_beside", lambda entry: tmp_path)
    monkeypatch.setattr(index, "_cache", None)
    return path


def test_publish_pins_and_everybody_pulls(hub: LoopbackHub, checkout: Path, home: Path) -> None:
    before = {name: zoo.load(f"toy-net:{name}").state_dict() for name in ("small", "wide")}
    text = checkout.read_text()
    dry = zoo.publish(namespace="owner", endpoint=hub.url, token=OWNER, dry_run=True)
    assert [r.where for r in dry] == ["owner/toy-net-small", "owner/toy-net-wide"]
    assert not hub.requests
    rows = zoo.publish(namespace="owner", endpoint=hub.url, token=OWNER)
    assert all(r.ok for r in rows), rows
    after = checkout.read_text().splitlines()
    commits = {t: hub.state.repos[f"owner/toy-net-{t}"].branches["main"] for t in ("small", "wide")}
    line = f'      hub: {{repo: owner/toy-net-small, revision: "{commits["small"]}"}}  # written by publish'
    assert line in after
    assert [x for x in after if "hub:" not in x] == [x for x in text.splitlines() if "hub:" not in x]
    assert all(len(hub.state.repos[f"owner/toy-net-{t}"].history) == 2 for t in commits)
    shutil.rmtree(checkout.parent / "bundled")
    shutil.rmtree(home, ignore_errors=True)
    for tag, state in before.items():
        module = zoo.load(f"toy-net:{tag}", endpoint=hub.url)
        assert module.report.source == f"hub: owner/toy-net-{tag}@{commits[tag]}"
        assert all(torch.equal(v, module.state_dict()[k]) for k, v in state.items() if not k.startswith("teacher"))
        assert zoo.load(f"hf://owner/toy-net-{tag}", endpoint=hub.url).report.sha256 == module.report.sha256
    config = json.loads(hub.state.repos["owner/toy-net-wide"].commits[commits["wide"]]["config.json"])
    assert config["tag"] == "wide"
    assert config["metrics"] == {"test/accuracy": 0.5}
    assert all(r.ok for r in zoo.verify(remote=True, endpoint=hub.url))


def test_publish_again_sends_nothing(hub: LoopbackHub, checkout: Path) -> None:
    zoo.publish(namespace="owner", endpoint=hub.url, token=OWNER)
    text = checkout.read_text()
    hub.requests.clear()
    rows = zoo.publish(namespace="owner", endpoint=hub.url, token=OWNER)
    assert [r.why.split(" at ")[0] for r in rows] == ["already there"] * 2
    assert checkout.read_text() == text
    assert {m for m, _ in hub.requests} == {"GET"}


def test_publish_goes_on_after_a_stop(hub: LoopbackHub, checkout: Path) -> None:
    fault = hub.fault(503, "/lfs/", method="PUT")
    rows = zoo.publish("toy-net:small", namespace="owner", endpoint=hub.url, token=OWNER)
    assert [r.ok for r in rows] == [False]
    assert "repo: null" in checkout.read_text()
    fault.times = 0
    # stopped after the commit, before the index was written
    rows = zoo.publish("toy-net:small", namespace="owner", endpoint=hub.url, token=OWNER)
    assert rows[0].ok, rows
    pinned = checkout.read_text()
    checkout.write_text(pinned.replace(pinned.split("hub: ")[1].split("}")[0], "{repo: null, revision: null"))
    index.refresh()
    hub.requests.clear()
    assert all(r.ok for r in zoo.publish("toy-net:small", namespace="owner", endpoint=hub.url, token=OWNER))
    assert checkout.read_text() == pinned
    assert not hub.count("PUT")


def test_publish_one_failure_does_not_stop_the_others(hub: LoopbackHub, checkout: Path) -> None:
    path = checkout.parent / "bundled" / "toy-net-small.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\x07")
    rows = zoo.publish(namespace="owner", endpoint=hub.url, token=OWNER)
    assert [r.ok for r in rows] == [False, True], rows
    assert "sha256" in rows[0].why
    assert "owner/toy-net-small" not in hub.state.repos
    rows = zoo.publish(namespace="owner", endpoint=hub.url, token="token-of-other")
    assert not rows[0].ok


def test_pin_refuses_layouts_it_cannot_edit(checkout: Path) -> None:
    commit = "a" * 40
    text = checkout.read_text()
    odd = text.replace("hub: {repo: null, revision: null}", "hub:\n        repo: null\n        revision: null")
    for broken in (odd, text.replace("  weights:\n", "  weights: &anchor\n")):
        checkout.write_text(broken)
        with pytest.raises(errors.InvalidIndex):
            pin(checkout, "toy-net", "small", "owner/x", commit)
        assert checkout.read_text() == broken
    assert [p.name for p in checkout.parent.iterdir() if p.name.startswith(".")] == []
