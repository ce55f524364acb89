"""The command `zoo`, in process: finding, using, exporting, checking data, starting a method, mistakes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from toys import cli as cli_toys
from toys.cli import failure, output, run

import zoo
from zoo import cli, index, store


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """An empty folder and the toy in the index, with weights in the folder `saved`."""
    monkeypatch.chdir(tmp_path)
    cli_toys.register(tmp_path)
    yield tmp_path
    index._registered.pop("toy-net", None)


@pytest.fixture
def saved(place: Path) -> Path:
    torch.manual_seed(1)
    return zoo.save(cli_toys.ToyNet(class_names=[f"c{i}" for i in range(10)]), place / "saved")


@pytest.fixture
def rows(place: Path) -> list[str]:
    """Two input files."""
    for i in range(2):
        (place / f"row{i}.json").write_text(json.dumps([i, 1.0, -1.0, 0.5]))
    return ["row0.json", "row1.json"]


# Overview and mistakes --------------------------------------------------------------------------------------------


def test_an_error_without_a_name_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*args: Any) -> int:
        raise RuntimeError("two\nlines")

    monkeypatch.setattr(cli, "_dispatch", broken)
    assert run("list") == 1
    assert capsys.readouterr().err == "error: RuntimeError: two lines (not foreseen; --debug shows where)\n"
    with pytest.raises(RuntimeError):
        run("list", "--debug")


def test_overview_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    out = output(capsys, "--help")
    assert all(name in out for name in cli.COMMANDS)
    assert output(capsys, code=2) == out
    assert output(capsys, "--version") == f"zoo {zoo.__version__}\n"


@pytest.mark.parametrize("name", [name for name in cli.COMMANDS if name != "train"])
def test_help_of_a_command_shows_examples(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    out = output(capsys, name, "--help")
    assert f"zoo {name} " in out
    assert "examples:" in out


def test_help_of_train(capsys: pytest.CaptureFixture[str]) -> None:
    assert "zoo train fit --zoo NAME --data.root DIR" in output(capsys, "train", "--help")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("lst", "There is no command 'lst'. Did you mean 'list'"),
        ("list --taks x", "Unknown flag --taks. Did you mean '--task'"),
        ("list --task object-detecton", "Did you mean 'object-detection'"),
        ("info", "name. Help: zoo info --help"),
        ("info toy-nt", "Did you mean 'toy-net'"),
        ("data chek toy-net DIR", "Did you mean 'check'"),
        ("data check toy-net", "Which folder?"),
        ("data check toy-net nowhere", "There is no folder nowhere"),
        ("predict toy-net gone.jpg", "There is no file gone.jpg"),
        ("predict toy-net here --out", "--out"),
        ("export toy-net --format onx", "Did you mean 'onnx'"),
        ("pull toy-net:ten-x", "has no tag 'ten-x'"),
        ("train toy-net --trainer.devies 2", "Did you mean '--trainer.devices'"),
        ("train --zoo toy-net --trainer.devies 2", "Did you mean '--trainer.devices'"),
        ("new image-clasification my-net", "Did you mean 'image-classification'"),
        ("new image-classification MyNet", "not kebab-case"),
        ("new image-classification toy-net", "'toy-net' is taken by toy-net"),
    ],
)
def test_mistakes_are_one_line(words: str, expected: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "here").write_text("")
    assert expected in failure(capsys, *words.split())


def test_debug_shows_the_traceback() -> None:
    with pytest.raises(zoo.errors.UnknownName):
        run("info", "toy-nt", "--debug")


def test_listing_imports_no_torch() -> None:
    code = "import sys; from zoo.cli import main; main(['list']); main(['--help']); assert 'torch' not in sys.modules"
    env = {**os.environ, "PYTHONPATH": str(Path(cli.__file__).parents[2])}
    subprocess.run([sys.executable, "-c", code], check=True, env=env, stdout=subprocess.DEVNULL, timeout=60)


# list and info ----------------------------------------------------------------------------------------------------


def test_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert re.search(r"toy-net +tabular-classification", output(capsys, "list", "toy-*"))
    found = json.loads(output(capsys, "list", "*TOY-net*", "--json"))
    assert [entry["id"] for entry in found] == ["toy-net"]
    assert re.search(r"^toy-net ", output(capsys, "list", "oy-ne"), re.MULTILINE)
    assert found[0]["weights"]["ten-s"]["init"] == {"size": "s", "num_classes": 10}
    assert "No method matches" in output(capsys, "list", "toy-net", "--pretrained", code=1)


def test_list_shows_size_and_headline(capsys: pytest.CaptureFixture[str]) -> None:
    entry = index.entries()["toy-net"]
    ready = replace(
        entry.weights["ten-n"],
        file="toy-net-ten-n.safetensors",
        sha256="0" * 64,
        bytes=1_234_567,
        params=98_700,
        metrics={"test/accuracy": 0.91234},
        trained_on={"data": "clouds", "licence": "CC0-1.0"},
    )
    index.register(replace(entry, weights={**entry.weights, "ten-n": ready}), replace=True)
    line = next(line for line in output(capsys, "list").splitlines() if line.startswith("toy-net"))
    assert "ten-n" in line
    assert "98.7 k  1.23 MB  test/accuracy 0.9123  CC0-1.0" in line
    out = output(capsys, "info", "toy-net")
    assert "data licence     CC0-1.0" in out
    assert 'zoo.load("toy-net")' in out


def test_info(capsys: pytest.CaptureFixture[str]) -> None:
    out = output(capsys, "info", "toy-net")
    assert "weights toy-net:ten-n  (default)" in out
    assert "weights toy-net:ten-s" in out
    assert "weights=False" in out  # nothing is trained
    assert "predicts      logits, probs, label, name" in out
    one = output(capsys, "info", "toy-net:ten-s")
    assert "toy-net:ten-n" not in one
    assert json.loads(output(capsys, "info", "toy-net:ten-s", "--json"))["tag"] == "ten-s"


# predict ----------------------------------------------------------------------------------------------------------


def test_predict(saved: Path, rows: list[str], place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = output(capsys, "predict", saved, *rows)
    assert out.startswith("row0.json: c")
    found = json.loads(output(capsys, "predict", saved, *rows, "--json", "--out", "out"))
    assert [row["input"] for row in found] == rows
    assert len(found[0]["probs"]) == 10
    assert sorted(p.name for p in (place / "out").iterdir()) == [
        "results.json",
        "row0-predicted.png",
        "row1-predicted.png",
    ]
    assert json.loads((place / "out" / "results.json").read_text()) == found


def test_predict_never_overwrites_inputs(saved: Path, place: Path) -> None:
    text = "[1, 2, 3, 4]"
    (place / "deep").mkdir()
    names = ["results.json", "row-predicted.json", "row.json", "deep/row.json"]
    for name in names:
        (place / name).write_text(text)
    assert run("predict", saved, *names, "--out", ".") == 0
    assert all((place / name).read_text() == text for name in names)
    assert len(json.loads((place / "results-predicted.json").read_text())) == 4
    assert len(list(place.glob("*.png"))) == 4


def test_predict_passes_options(saved: Path, rows: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run("predict", saved, *rows, "--top", "3") == 0
    assert "has no option 'topp'. Did you mean 'top'" in failure(capsys, "predict", saved, *rows, "--topp=3")
    assert "Did you mean '--json'" in failure(capsys, "predict", saved, *rows, "--jsn")


def test_long_results_go_to_files(place: Path) -> None:
    from zoo.cli.predict.results import plain

    array = np.zeros((60, 60))
    assert plain(array, None, "a")["shape"] == [60, 60]
    assert plain(torch.zeros(60, 60), place, "a")["file"] == "a.npy"
    assert np.load(place / "a.npy").shape == (60, 60)
    assert plain(torch.tensor([0.1, 2.0]), None, "a") == [0.1, 2.0]


# export, pull, verify ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["export", "onnx"])
def test_export_compares_numbers(kind: str, saved: Path, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if kind == "onnx":
        pytest.importorskip("onnxruntime")
        pytest.importorskip("onnxscript")
    out = output(capsys, "export", saved, "--format", kind)
    assert "largest difference from the module" in out
    name = "toy-net.pt2" if kind == "export" else "toy-net.onnx"
    assert (place / name).is_file()
    assert "exists" in failure(capsys, "export", saved, "--format", kind)
    assert run("export", saved, "--format", kind, "--out", "other", "--tolerance", "-1") == 1


def test_export_only_what_the_entry_can(capsys: pytest.CaptureFixture[str]) -> None:
    index.register(replace(index.entries()["toy-net"], can=("export",)), replace=True)
    assert "does not support --format onnx. It can: export" in failure(capsys, "export", "toy-net")


def test_verify_and_pull(capsys: pytest.CaptureFixture[str]) -> None:
    out = output(capsys, "verify", "toy-net")
    assert re.search(r"^-      toy-net:ten-n .*not trained yet, only a recipe$", out, re.MULTILINE)
    assert re.search(r"^0 checked, 0 wrong; [1-9] without a file here$", out, re.MULTILINE)
    assert "toy-net" in failure(capsys, "pull", "toy-net")


def test_push_and_publish_hand_over_to_the_store(
    saved: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls: dict[str, Any] = {}

    def push(module: Any, repo: str, **options: Any) -> Any:
        calls["push"] = (module, repo, options)
        return index.Weights("x", hub=index.Pin(repo, "a" * 40), sha256="b" * 64, licence="MIT")

    def publish(names: Any, **options: Any) -> Any:
        calls["publish"] = (names, options)
        return [store.Row("a:b", "me/a-b", True, "done"), store.Row("a:c", "me/a-c", False, "no token")]

    monkeypatch.setattr("zoo.store.push", push)
    monkeypatch.setattr("zoo.store.publish", publish)
    assert f"hf://me/it@{'a' * 40}" in output(capsys, "push", saved, "me/it", "--licence", "MIT")
    assert calls["push"][2] == {"private": True, "tag": None, "licence": "MIT", "endpoint": None}
    assert "WRONG  a:c" in output(capsys, "publish", "--namespace", "me", code=1)
    assert calls["publish"][0] is None
    assert "OWNER/NAME" in failure(capsys, "push", saved, "it")
    assert "There is no checkpoint" in failure(capsys, "push", "gone.ckpt", "me/it")
    assert "--namespace" in failure(capsys, "publish")


# data -------------------------------------------------------------------------------------------------------------


def test_data(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "classes.json" in output(capsys, "data", "fake", "toy-net", "mini", "--format", "json")
    assert "not empty" in failure(capsys, "data", "fake", "toy-net", "mini")
    assert json.loads(output(capsys, "data", "facts", "toy-net", "mini"))["num_classes"] == 3
    assert json.loads(output(capsys, "data", "facts", "toy-net"))["num_classes"] == 10
    assert "no problems found" in output(capsys, "data", "check", "toy-net", "mini")
    (place / "mini" / "classes.json").write_text("[]")
    out = output(capsys, "data", "check", "toy-net", "mini", code=1)
    assert "2 problems:" in out
