"""Config files of strangers: the classes that they name are listed and asked for, and not imported before."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest
from toys import cli as toys

from zoo import training
from zoo.index import entries
from zoo.training import consent

FIT = ["fit", "--zoo", "toy-net"]
EVIL = """\
from pathlib import Path
from lightning import Callback

Path("imported").touch()


class Evil(Callback):
    def __init__(self, note: str = "") -> None:
        Path("built").touch()
"""
HIDDEN = {
    "a callback": "trainer: {callbacks: [{class_path: evilmod.Evil}]}",
    "a callback by name alone": "trainer: {callbacks: evilmod.Evil}",
    "one of several": "trainer: {callbacks: [lightning.pytorch.callbacks.ModelSummary, evilmod.Evil]}",
    "a class that does not exist": "trainer: {callbacks: [{class_path: evilmod.Missing}]}",
    "a logger": "trainer: {logger: evilmod.Evil}",
    "a strategy": "trainer: {strategy: {class_path: evilmod.Evil}}",
    "an optimiser": "optimizer: evilmod.Evil",
    "a schedule": "lr_scheduler: {class_path: evilmod.Evil}",
    "an argument of a trusted class": (
        "trainer: {callbacks: [{class_path: lightning.pytorch.callbacks.LambdaCallback, "
        "init_args: {on_fit_start: evilmod.Evil}}]}"
    ),
    "an argument of the model": "model: {width: {class_path: evilmod.Evil}}",
    "an argument of the data": "data: {size: {class_path: evilmod.Evil}}",
    "the model": "model: {class_path: evilmod.Evil}",
    "a dotted key": "trainer.callbacks: evilmod.Evil",
    "another file": "trainer: sub/more.yaml",
    "another file, two deep": "trainer: {callbacks: sub/callbacks.txt}",
    "the whole model in another file": "model: sub/model",
    "through an attribute of torch": "trainer: {callbacks: [{class_path: torch.serialization.io.FileIO}]}",
    "a function of torch": "trainer: {callbacks: [{class_path: torch.load, init_args: {f: sub/x}}]}",
}


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "evilmod", raising=False)
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    monkeypatch.delenv("ZOO_TRUSTED_CLASSES", raising=False)
    toys.register(tmp_path)
    (tmp_path / "evilmod.py").write_text(EVIL)
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "more.yaml").write_text("callbacks: [{class_path: evilmod.Evil}]")
    (tmp_path / "sub" / "callbacks.txt").write_text("[{class_path: evilmod.Evil}]")
    (tmp_path / "sub" / "model").write_text("{width: {class_path: evilmod.Evil}}")
    return tmp_path


@pytest.mark.parametrize("more", [[], ["--print_config"], ["--help"], ["--help-all"]], ids=str)
@pytest.mark.parametrize("case", HIDDEN)
def test_classes_are_listed_and_not_imported(
    place: Path, case: str, more: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    (place / "handed.yaml").write_text(HIDDEN[case])
    assert training.main([*FIT, "--config", "handed.yaml", *more]) == 2
    said = capsys.readouterr().err
    assert "handed.yaml" in said
    assert "was not imported" in said
    assert "add --trust" in said
    assert "evilmod." in said or "'torch." in said
    assert "evilmod" not in sys.modules
    assert not (place / "imported").exists()


def test_files_that_flags_name_are_read_too(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for flag in (["--trainer=sub/more.yaml"], ["--trainer.callbacks", "sub/callbacks.txt"], ["--model", "sub/model"]):
        assert training.main([*FIT, *flag, "--print_config"]) == 2
        assert "evilmod.Evil" in capsys.readouterr().err
    assert not (place / "imported").exists()


def test_without_anybody_to_ask_it_must_be_said(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "mine.yaml").write_text(HIDDEN["a callback"])
    assert training.main([*FIT, "--config", "mine.yaml", "--trust", "--print_config"]) == 0
    assert "class_path: evilmod.Evil" in capsys.readouterr().out


def test_own_flags_are_not_asked_about(place: Path) -> None:
    words = [*FIT, "--trainer.callbacks=evilmod.Evil", "--trainer.fast_dev_run", "true"]
    assert training.main(words) == 0
    assert (place / "built").exists()


@pytest.mark.parametrize(("answer", "code"), [("y\n", 0), ("n\n", 2), ("\n", 2), ("", 2)])
def test_a_terminal_is_asked(
    place: Path, answer: str, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    terminal = io.StringIO(answer)
    terminal.isatty = lambda: True  # type: ignore[method-assign]
    monkeypatch.setattr(sys, "stdin", terminal)
    monkeypatch.setenv("ZOO_TRUSTED_CLASSES", "")
    (place / "handed.yaml").write_text(HIDDEN["a callback"])
    words = [*FIT, "--config", "handed.yaml", "--print_config"]
    assert training.main(words) == code
    said = capsys.readouterr().err
    assert "handed.yaml: trainer.callbacks[0].class_path: 'evilmod.Evil'" in said
    assert (place / "imported").exists() == (code == 0)
    if code == 0:  # processes that are started from here inherit the answer, for these classes only
        assert training.main(words) == 0
        (place / "handed.yaml").write_text(HIDDEN["a callback"].replace("Evil", "Other"))
        assert training.main(words) == 2


def test_escape_sequences_are_not_printed(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "handed.yaml").write_text('trainer: {callbacks: [{class_path: "evil\\e[2Jmod.Evil"}]}')
    assert training.main([*FIT, "--config", "handed.yaml"]) == 2
    assert "\x1b" not in capsys.readouterr().err


def test_what_a_run_saved_is_not_asked_about(place: Path) -> None:
    words = [*FIT, "--trainer.max_epochs", "1", "--trainer.callbacks=lightning.pytorch.callbacks.ModelSummary"]
    words += ["--optimizer", "torch.optim.SGD", "--optimizer.lr", "0.1", "--trainer.limit_train_batches", "1"]
    assert training.main(words) == 0
    saved = next(place.rglob("config.yaml"))
    assert "ModelSummary" in saved.read_text()
    assert consent.foreign_classes(str(saved), entries()["toy-net"]) == []
    assert training.main(["fit", "--config", str(saved), "--print_config"]) == 0


def test_texts_that_only_look_like_classes(place: Path) -> None:
    (place / "weights.ckpt").write_bytes(b"\x00 no settings")
    (place / "mine.yaml").write_text(
        "ckpt_path: weights.ckpt\nweights: weights.ckpt\ntrainer: {default_root_dir: runs.new, precision: 16-mixed}\n"
        "data: {root: weights.ckpt}\nmodel: {backbone: resnet10t.c3_in1k}\n"
    )
    assert consent.foreign_classes("mine.yaml", entries()["toy-net"]) == []


def test_files_that_name_each_other_end(place: Path) -> None:
    for number in range(40):
        (place / f"f{number}").write_text(f"trainer: f{number + 1}")
    (place / "circle").write_text("trainer: circle")
    (place / "binary.yaml").write_text("trainer: noise")
    (place / "noise").write_bytes(bytes(range(256)))
    assert consent.foreign_classes("circle", entries()["toy-net"]) == []
    for name in ("f0", "binary.yaml"):
        assert training.main([*FIT, "--config", name]) == 2
