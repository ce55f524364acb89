"""Loading and saving without a Hub: roles, class counts, folders, checkpoints, golden outputs."""

from __future__ import annotations

import json
import sys
import time
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

sys.path.insert(0, str(Path(__file__).parents[1] / "hub"))

from toys import hub as toys

import zoo
from zoo import errors, index
from zoo.store import load_into, read_state
from zoo.store import reference as _store_reference
from zoo.store.folder import golden_problems
from zoo.store.reference import licences_of, parent_of, reference_of, references_of


@pytest.fixture(autouse=True)
def own_index(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index, "_registered", {})


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    """The toy in the index with a bundled file; returns a folder with the same weights."""
    zoo.register(toys.entry())
    folder = zoo.save(toys.trained(), tmp_path / "saved")
    model = (folder / "model.safetensors").read_bytes()
    (tmp_path / "bundled").mkdir()
    (tmp_path / "bundled" / "toy-net-small.safetensors").write_bytes(model)
    about = toys.weights(sha256=sha256(model).hexdigest(), bytes=len(model), file="toy-net-small.safetensors")
    base = toys.entry(tmp_path / "index.yaml")
    base = toys.with_weights(base, about)
    zoo.register(toys.with_weights(base, toys.weights("planned", recipe="toy-net/planned.yaml")), replace=True)
    return folder


def same(a: torch.nn.Module, b: torch.nn.Module, *, skip: tuple[str, ...] = ("teacher",)) -> bool:
    theirs = b.state_dict()
    return all(torch.equal(v, theirs[k]) for k, v in a.state_dict().items() if not k.startswith(skip))


def test_bundled_load(toy: Path) -> None:
    module = zoo.load("toy-net")
    assert isinstance(module, toys.ToyNet)
    assert not module.training
    assert same(module, toys.trained())
    report = module.report
    assert report is not None
    assert report.name == "toy-net:small"
    assert report.pinned
    assert report.source.startswith("bundled")
    assert report.missing == ["teacher.weight", "teacher.bias"]
    assert not report.unexpected + report.reinitialised
    assert "twin.weight" in report.loaded
    assert module.twin.weight is module.body.weight
    assert report.dtype == "float32"
    assert "bundled" in str(report)
    assert module.parent == "toy-net:small"
    assert module.class_names == ["a", "b", "c"]
    assert zoo.verify("toy-net:small")[0].ok


def test_references(toy: Path, tmp_path: Path) -> None:
    """What each kind of name stands for; the order of index and folders is tested with what load says."""
    small = reference_of("toy-net")
    assert (small.kind, small.name, small.tag, small.is_pinned) == ("index", "toy-net:small", "small", True)
    assert small.bundled == tmp_path / "bundled" / "toy-net-small.safetensors"
    assert reference_of(small) is small
    other = reference_of("toy-net:small", "v2")
    assert (other.repo, other.revision, other.is_pinned) == (None, "v2", False)
    assert reference_of("toy-net:planned").bundled is None
    remote = reference_of("hf://owner/repo@v1")
    assert (remote.kind, remote.repo, remote.revision, remote.entry) == ("hub", "owner/repo", "v1", None)
    assert (reference_of(toy).kind, reference_of(str(toy)).path) == ("folder", toy)
    with pytest.raises(errors.BadInput, match="is local"):
        reference_of(toy, "v1")
    assert [r.name for r in references_of("toy-net")] == ["toy-net:small", "toy-net:planned"]
    assert [r.name for r in references_of(["toy-net:planned"])] == ["toy-net:planned"]
    assert parent_of(None) is None is parent_of("gone:tag") is parent_of("hf://no repo")
    assert parent_of("hf://owner/repo@v1") == remote
    assert licences_of("toy-net:small")[0] == small.indexed[1].licence
    assert licences_of("hf://owner/repo") == (None, None) == licences_of(None)


def test_a_name_is_resolved_once(toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    monkeypatch.setattr(_store_reference, "resolve", lambda name: seen.append(name) or index.resolve(name))
    zoo.load("toy-net")
    assert seen == ["toy-net"]


def test_untrained(toy: Path) -> None:
    module = zoo.load("toy-net", weights=False, width=6)
    assert module.body.out_features == 6
    assert module.num_classes == 3
    assert module.report.source == "untrained"
    with pytest.raises(errors.NotOnHub, match="zoo train toy-net:planned"):
        zoo.load("toy-net:planned")
    assert zoo.load("toy-net:planned", weights=False)


def test_names_that_do_not_exist(toy: Path, tmp_path: Path) -> None:
    with pytest.raises(errors.UnknownName, match="'toy-net'"):
        zoo.load("toynet")
    with pytest.raises(errors.BadInput, match="'width'"):
        zoo.load("toy-net", widht=3)
    for path in (tmp_path / "nothing", "./nothing", "nothing.ckpt"):
        with pytest.raises(errors.RepositoryNotFound, match="nothing"):
            zoo.load(path)
    with pytest.raises(errors.BadInput, match="URL"):
        zoo.load("https://example.org/weights.ckpt")
    with pytest.raises(errors.BadInput, match="hf://owner/repo"):
        zoo.load("hf://one-part")
    with pytest.raises(errors.BadInput, match="folder"):
        zoo.load(toy / "model.safetensors")
    with pytest.raises(errors.BadInput, match="bundled"):
        zoo.load("toy-net", source="elsewhere")
    with pytest.raises(errors.NotOnHub):
        zoo.load("toy-net", source="hub")
    with pytest.raises(errors.NotOnHub):
        zoo.pull("toy-net")
    (tmp_path / "empty").mkdir()
    with pytest.raises(errors.RepositoryNotFound, match=r"config\.json"):
        zoo.load(tmp_path / "empty")


@pytest.mark.parametrize("where", ["bundled", "folder"])
def test_class_counts(toy: Path, where: str) -> None:
    name = "toy-net" if where == "bundled" else toy
    kept = zoo.load(name, num_classes=3)
    assert same(kept, toys.trained())
    assert kept.class_names == ["a", "b", "c"]
    fresh = zoo.load(name, num_classes=5)
    assert fresh.report.reinitialised == ["head.weight", "head.bias"]
    assert fresh.head.out_features == 5
    assert fresh.hparams["class_names"] is None
    assert same(fresh, toys.trained(), skip=("teacher", "head"))
    named = zoo.load(name, class_names=["x", "y"])
    assert named.num_classes == 2
    assert named.class_names == ["x", "y"]
    assert named.report.reinitialised
    renamed = zoo.load(name, class_names=["x", "y", "z"])
    assert renamed.report.reinitialised
    assert not same(renamed, toys.trained())
    assert not zoo.load(name, class_names=["a", "b", "c"]).report.reinitialised
    for bad in (
        {"num_classes": 2, "class_names": ["x"]},
        {"class_names": ["x", "x"]},
        {"class_names": []},
        {"class_names": "abc"},
        {"num_classes": 0},
        {"num_classes": "3"},
    ):
        with pytest.raises(errors.BadInput, match="class"):
            zoo.load(name, **bad)  # type: ignore[arg-type]


def test_names_for_weights_without_names(tmp_path: Path) -> None:
    zoo.register(toys.entry())
    folder = zoo.save(toys.trained(class_names=None), tmp_path / "saved")
    module = zoo.load(folder, class_names=["x", "y", "z"])
    assert not module.report.reinitialised
    assert module.class_names == ["x", "y", "z"]


def test_other_shapes_are_refused_by_name(toy: Path) -> None:
    with pytest.raises(errors.ShapeMismatch, match=r"body.weight: the file has \[4, 5\], the module \[6, 5\]"):
        zoo.load("toy-net", width=6)
    module = toys.ToyNet(width=6)
    before = {k: v.clone() for k, v in module.state_dict().items()}
    with pytest.raises(errors.ShapeMismatch):
        load_into(module, "toy-net")
    assert all(torch.equal(v, before[k]) for k, v in module.state_dict().items())
    assert module.report is None


def test_load_into(toy: Path) -> None:
    module = toys.ToyNet(num_classes=3, class_names=["a", "b", "c"]).train()
    report = load_into(module, "toy-net")
    assert same(module, toys.trained())
    assert module.training
    assert module.report is report
    module = toys.ToyNet(num_classes=3, class_names=["a", "b", "d"])
    assert load_into(module, toy).reinitialised
    zoo.register(toys.entry(name="secret-net", cls=toys.SecretNet))
    other = torch.nn.Linear(2, 2)
    with pytest.raises(errors.BadInput, match="ToyNet"):
        load_into(other, "toy-net")  # type: ignore[arg-type]


def test_elastic_buffer_takes_the_shape_of_the_file(toy: Path) -> None:
    module = zoo.load("toy-net")
    assert module.table.shape == (3, 2)
    assert "table" in dict(module.named_buffers())


def rewrite(folder: Path, change: Any) -> None:
    """Alter the tensors of a saved folder, with a config that agrees."""
    state = load_file(folder / "model.safetensors")
    change(state)
    save_file(state, folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())
    config["sha256"]["model.safetensors"] = sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("norm.running_mean"), "norm.running_mean: in the module, not in the file"),
        (lambda s: s.update(extra=torch.ones(1)), "extra: in the file, not in the module"),
        (lambda s: s.update({"table": s["table"].double()}), "table: the file has torch.float64"),
        (lambda s: s.update({"norm.running_mean": s["norm.running_mean"].half()}), "half precision is for parameters"),
        (lambda s: s.update({"norm.num_batches_tracked": torch.ones(())}), "num_batches_tracked"),
        (lambda s: s.update({"norm.weight": s["norm.weight"].bfloat16()}), "bfloat16"),
    ],
)
def test_key_and_dtype_mismatch(toy: Path, change: Any, message: str) -> None:
    rewrite(toy, change)
    with pytest.raises(errors.KeyMismatch, match=message):
        zoo.load(toy)


def test_changed_folder_is_refused(toy: Path) -> None:
    path = toy / "model.safetensors"
    data = path.read_bytes()
    path.write_bytes(data[:-1] + b"\x07")
    with pytest.raises(errors.CorruptFile, match="sha256"):
        zoo.load(toy)
    path.unlink()
    with pytest.raises(errors.RepositoryNotFound, match=r"model\.safetensors"):
        zoo.load(toy)


def test_changed_bundled_file_is_refused(toy: Path, tmp_path: Path) -> None:
    path = tmp_path / "bundled" / "toy-net-small.safetensors"
    data = path.read_bytes()
    for bad, error in ((data[:-1] + b"\x07", errors.CorruptFile), (data[:-9], errors.TruncatedFile)):
        path.write_bytes(bad)
        with pytest.warns(RuntimeWarning, match="next source"), pytest.raises(error, match="sha256"):
            zoo.load("toy-net")
        assert [(r.ok, "sha256" in r.why) for r in zoo.verify("toy-net:small")] == [(False, True)]
    path.unlink()
    with pytest.raises(errors.NotOnHub, match="zoo train"):
        zoo.load("toy-net")
    assert not zoo.verify("toy-net:small")[0].ok


def test_saved_folder(toy: Path) -> None:
    module = zoo.load("toy-net")
    assert {p.name for p in toy.iterdir()} == {"config.json", "golden.safetensors", "model.safetensors", "README.md"}
    config = json.loads((toy / "config.json").read_text())
    assert config["zoo"] == "toy-net"
    assert config["init"]["class_names"] == ["a", "b", "c"]
    assert config["format"] == 1
    assert config["parent"] is None
    assert "teacher.weight" not in load_file(toy / "model.safetensors")
    again = zoo.load(toy)
    assert same(again, module)
    assert again.report.pinned
    assert not golden_problems(again, toy / "golden.safetensors")
    with torch.no_grad():
        again.head.bias += 1
    assert "output" in golden_problems(again, toy / "golden.safetensors")[0]
    copy = zoo.save(module, toy.parent / "copy")
    config = json.loads((copy / "config.json").read_text())
    assert config["parent"] == "toy-net:small"
    assert config["tag"] == "small"


def test_save_replaces_its_own_folders_only(toy: Path, tmp_path: Path) -> None:
    zoo.save(toys.trained(5), toy)
    assert same(zoo.load(toy), toys.trained(5))
    (tmp_path / "mine").mkdir()
    zoo.save(toys.trained(), tmp_path / "mine")
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "thesis.tex").write_text("years of work")
    for folder in ("mine", "foreign", "foreign/thesis.tex"):
        with pytest.raises(errors.BadInput, match="Choose another"):
            zoo.save(toys.trained(), tmp_path / folder)
    assert (tmp_path / "foreign" / "thesis.tex").read_text() == "years of work"
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]


def test_save_leaves_nothing_when_it_fails(toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import errno

    before = {p.name: p.read_bytes() for p in toy.iterdir()}
    bad = toys.trained()
    with torch.no_grad():
        bad.head.weight[0, 0] = float("nan")
    with pytest.raises(errors.UnsafeFile, match=r"head\.weight"):
        zoo.save(bad, toy)

    def full(self: Path, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(errors.DiskFull, match="another folder"):
            zoo.save(toys.trained(), toy)
        with pytest.raises(errors.DiskFull):
            zoo.save(toys.trained(), tmp_path / "new")
    assert {p.name: p.read_bytes() for p in toy.iterdir()} == before
    assert {p.name for p in tmp_path.iterdir()} == {"saved", "bundled"}


def test_half_precision(tmp_path: Path) -> None:
    zoo.register(toys.entry())
    module = toys.trained()
    folder = zoo.save(module, tmp_path / "half", half=True)
    state = load_file(folder / "model.safetensors")
    assert state["head.weight"].dtype == torch.float16
    assert state["norm.running_mean"].dtype == torch.float32
    again = zoo.load(folder)
    assert all(p.dtype == torch.float32 for p in again.parameters())
    assert again.report.dtype == "float16"
    assert torch.equal(again.head.weight, module.head.weight.half().float())
    assert not golden_problems(again, folder / "golden.safetensors", rtol=1e-6, atol=1e-7)
    with torch.no_grad():
        module.head.weight[0, 0] = 1e6
    with pytest.raises(errors.BadInput, match="65504"):
        zoo.save(module, tmp_path / "large", half=True)


def test_bfloat16_module_comes_back_as_float32(tmp_path: Path) -> None:
    zoo.register(toys.entry())
    folder = zoo.save(toys.trained().bfloat16(), tmp_path / "low")
    assert zoo.load(folder).head.weight.dtype == torch.float32


def test_private_weights_are_not_written(tmp_path: Path) -> None:
    zoo.register(toys.entry(name="secret-net", cls=toys.SecretNet))
    with pytest.raises(errors.PrivateWeights, match=r"teacher\.weight"):
        zoo.save(toys.trained(cls=toys.SecretNet), tmp_path / "x")
    assert not list(tmp_path.iterdir())


def test_unregistered_class_says_how(tmp_path: Path) -> None:
    with pytest.raises(errors.UnknownName, match="register"):
        zoo.save(toys.trained(), tmp_path / "x")


def test_pretrained_arguments_are_off_when_weights_follow(toy: Path, tmp_path: Path) -> None:
    module = toys.trained()
    module.hparams["pretrained_backbone"] = True
    module.hparams["backbone_weights"] = str(tmp_path / "private-folder" / "backbone.pth")
    folder = zoo.save(module, tmp_path / "pretrained")
    assert "private-folder" not in (folder / "config.json").read_text()
    config = json.loads((folder / "config.json").read_text())
    config["init"]["pretrained_backbone"] = True
    (folder / "config.json").write_text(json.dumps(config))
    assert same(zoo.load(folder), module)
    assert same(zoo.load("toy-net", pretrained_backbone=True), toys.trained())
    with pytest.raises(RuntimeError, match="would download"):
        zoo.load("toy-net", weights=False, pretrained_backbone=True)


def checkpoint(module: toys.ToyNet, path: Path, **changes: Any) -> Path:
    """What Lightning's ModelCheckpoint writes."""
    content: dict[str, Any] = {
        "state_dict": module.state_dict(),
        "hyper_parameters": {**module.hparams, "_instantiator": "lightning.pytorch.cli.instantiate_module"},
        "pytorch-lightning_version": "2.6.6",
    }
    module.on_save_checkpoint(content)
    torch.save({**content, **changes}, path)
    return path


def test_lightning_checkpoint(toy: Path, tmp_path: Path) -> None:
    module = toys.trained(3)
    module.parent = "toy-net:small"
    path = checkpoint(module, tmp_path / "last.ckpt")
    for name in (path, str(path)):
        again = zoo.load(name)
        assert same(again, module, skip=())
        assert again.report.source.startswith("checkpoint")
        assert not again.training
    assert again.parent == "toy-net:small"
    assert not again.report.pinned
    fresh = zoo.load(path, num_classes=5)
    assert {k.split(".")[0] for k in fresh.report.reinitialised} == {"head", "teacher"}
    folder = zoo.save(path, tmp_path / "from-checkpoint")
    assert same(zoo.load(folder), module)
    assert json.loads((folder / "config.json").read_text())["parent"] == "toy-net:small"
    with pytest.raises(errors.FormatTooNew):
        zoo.load(checkpoint(module, tmp_path / "new.ckpt", zoo={"id": "toy-net", "format": 99}))
    with pytest.raises(errors.BadInput, match="register"):
        zoo.load(checkpoint(module, tmp_path / "foreign.ckpt", zoo={"id": None}))
    with pytest.raises(errors.BadInput, match="state_dict"):
        zoo.load(checkpoint(module, tmp_path / "odd.ckpt", state_dict=None))


def test_configs(toy: Path) -> None:
    good = json.loads((toy / "config.json").read_text())

    def with_config(**changes: Any) -> Path:
        config = {k: v for k, v in {**good, **changes}.items() if v != "gone"}
        (toy / "config.json").write_text(json.dumps(config))
        return toy

    for changes, error, message in (
        ({"format": 2}, errors.FormatTooNew, "pip install -U"),
        ({"zoo": "toy-nett"}, errors.UnknownName, "'toy-net'"),
        ({"init": {"widht": 4}}, errors.InvalidConfig, "'width'"),
        ({"init": {"width": "wide"}}, errors.InvalidConfig, "cannot be built"),
        ({"init": [1]}, errors.InvalidConfig, "init"),
        ({"inits": {}}, errors.InvalidConfig, "'init'"),
        ({"zoo": "gone"}, errors.InvalidConfig, "'zoo'"),
        ({"sha256": "gone"}, errors.InvalidConfig, "sha256"),
        ({"sha256": {"model.safetensors": "0" * 64}}, errors.CorruptFile, "0000"),
    ):
        with pytest.raises(error, match=message):
            zoo.load(with_config(**changes))
    assert zoo.load(with_config())


def test_datamodule(toy: Path, tmp_path: Path) -> None:
    assert zoo.datamodule("toy-net", batch_size=5).batch_size == 5
    with pytest.raises(errors.BadInput, match="'batch_size'"):
        zoo.datamodule("toy-net", bach_size=5)
    recipe = tmp_path / "recipes" / "toy-net" / "planned.yaml"
    recipe.parent.mkdir(parents=True)
    for text in ("data: {size: 99, batch_size: 7}", "data: {class_path: toys.hub.ToyData, init_args: {size: 99}}"):
        recipe.write_text(f"zoo: toy-net:planned\n{text}\n")
        data = zoo.datamodule("toy-net:planned", batch_size=3)
        assert (data.size, data.batch_size, data.root) == (99, 3, None)
        data = zoo.datamodule("toy-net:planned", root=tmp_path)
        assert (data.size, data.root) == (99, str(tmp_path))  # the recipe still decides the rest


def test_reading_is_fast(tmp_path: Path) -> None:
    """Read, hash, check: no more than a few passes over the bytes (measured against hashing alone)."""
    path = tmp_path / "large.safetensors"
    save_file({str(i): torch.rand(1 << 18) for i in range(8)}, path)  # 8 MB
    data = path.read_bytes()

    def seconds(run: Any) -> float:
        times = []
        for _ in range(5):
            start = time.perf_counter()
            run()
            times.append(time.perf_counter() - start)
        return min(times)

    assert seconds(lambda: read_state(path)) < 6 * seconds(lambda: sha256(data).hexdigest()) + 0.02


def test_read_only_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import errno

    def refuse(*args: Any, **kwargs: Any) -> str:
        raise OSError(errno.EROFS, "Read-only file system")

    zoo.register(toys.entry())
    monkeypatch.setattr("tempfile.mkdtemp", refuse)
    with pytest.raises(errors.NotWritable, match="Choose a folder"):
        zoo.save(toys.trained(), tmp_path / "x")
