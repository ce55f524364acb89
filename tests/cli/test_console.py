"""What a session shows: short texts of objects, options in help, no noise, and a command that ends at once."""

from __future__ import annotations

import inspect
import os
import pydoc
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning import Trainer
from toys.cli import ToyData, ToyNet

import zoo
from zoo import index
from zoo.robustness.report import RobustnessReport
from zoo.text import plain_warnings
from zoo.training.display import Bar, Summary

ROOT = Path(__file__).parents[2]


def run(code: str, **env: str) -> subprocess.CompletedProcess[str]:
    """A program in a process of its own."""
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", **env},
        capture_output=True,
        text=True,
        check=False,
    )


# Texts ------------------------------------------------------------------------------------------------------------


def test_objects_are_one_line_in_a_notebook() -> None:
    model = zoo.load("alpha-iou-yolo")
    report = model.report
    assert report is not None
    shown = [repr(report), repr(index.info("alpha-iou-yolo")), model._repr_html_()]
    assert all(len(text) < 200 and "\n" not in text for text in shown), shown
    assert "alpha-iou-yolo" in shown[0]
    assert f"{len(report.loaded)} tensors" in shown[0]
    assert "object-detection" in shown[2]
    assert "network" in str(model), "print still lists the layers"
    assert "sha256" in str(report)
    robust = RobustnessReport("net", 10, 100, 0.1, "linf", 0, 0.9, 0.5)
    assert (
        repr(robust)
        == "<RobustnessReport net: 10 samples, eps 0.1 (linf): clean 90.0%, worst case 50.0%; print() tells all>"
    )
    assert "this is the number to quote" in str(robust)


def test_a_data_module_shows_what_was_given() -> None:
    assert repr(ToyData()) == "ToyData()"
    assert repr(ToyData(batch_size=3, seed=1)) == "ToyData(batch_size=3, seed=1)"


def test_joined_tracks_are_one_line() -> None:
    model = zoo.load("sts-join")
    found = model.predict(np.asarray(model.example_input()[0][0]))
    assert "\n" not in repr(found)
    assert f"{len(found.pairs)} pairs" in repr(found)


@pytest.mark.parametrize("name", ["alpha-iou-yolo", "sts-join"])
def test_help_names_the_options(name: str) -> None:
    """Options of predict_step stand in the signature and in the text of predict, and in no other class's."""
    cls = index.entries()[name].model_class()
    own = [p for p in inspect.signature(cls.predict_step).parameters if p not in ("self", "batch", "batch_idx")]
    assert own
    parameters = inspect.signature(cls.predict).parameters
    text = pydoc.render_doc(cls.predict, renderer=pydoc.plaintext)
    for option in own:
        assert option in parameters
        assert f"    {option}: " in text
    assert "options:" not in text
    other = index.entries()["rslad"].model_class()
    assert not set(own) & set(inspect.signature(other.predict).parameters)


# Noise ------------------------------------------------------------------------------------------------------------


def test_warnings_of_a_command_are_one_line() -> None:
    code = """
import sys, warnings
from zoo import cli
from zoo.cli import show
former = warnings.formatwarning
show.run_list = lambda options: warnings.warn("left out 3 boxes") or 0
sys.exit(cli.main(["list"]) or warnings.formatwarning is not former)
"""
    done = run(code)
    assert done.stderr == "warning: left out 3 boxes\n"
    assert done.returncode == 0
    former = warnings.formatwarning
    with pytest.raises(KeyError), plain_warnings():
        raise KeyError
    assert warnings.formatwarning is former


def test_a_run_shows_neither_versions_nor_operations_that_nobody_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer = Trainer(
        max_epochs=1,
        accelerator="cpu",
        default_root_dir=tmp_path,
        callbacks=[Bar(), Summary()],
        limit_train_batches=2,
        log_every_n_steps=1,
    )
    model = ToyNet()
    trainer.fit(model, ToyData())
    assert "v_num" not in Bar().get_metrics(trainer, model)
    out = capsys.readouterr().out
    assert "FLOPs" not in out
    assert "130 of 130 parameters are trained" in out
    assert "head" in out


# Start and end ----------------------------------------------------------------------------------------------------


def test_the_first_prediction_imports_little_that_lightning_does_not() -> None:
    """Seconds of a cold start: what loading and predicting add to `import lightning`."""
    code = (
        "import sys, lightning; before = {n.split('.')[0] for n in sys.modules}\n"
        "import numpy as np, zoo\n"
        "zoo.load('alpha-iou-yolo').predict(np.zeros((64, 64, 3), np.uint8))\n"
        "zoo.load('rslad').predict(np.zeros((64, 64, 3), np.uint8))\n"
        "print(*sorted({n.split('.')[0] for n in sys.modules} - before))"
    )
    done = run(code)
    assert done.returncode == 0, done.stderr
    heavy = {
        "timm",
        "pandas",
        "sklearn",
        "faster_coco_eval",
        "pycocotools",
        "matplotlib",
        "tensorboard",
        "onnx",
        "flwr",
    }
    assert not heavy & set(done.stdout.split())
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("words", "code"), [(["list"], 0), (["info", "no-such-method"], 2), ([], 2), (["train", "no-such-method"], 2)]
)
def test_the_command_keeps_its_exit_code(words: list[str], code: int) -> None:
    """A mistake is answered before torch is imported, which takes seconds."""
    start = f"import sys; sys.argv = ['zoo', *{words!r}]; sys.modules['torch'] = None"
    done = run(f"{start}; from zoo.cli import console; console()")
    assert done.returncode == code
    said = (done.stdout or done.stderr).strip()
    assert said
    assert "Traceback" not in said
    assert all(f"'{word}'" in said for word in words if word == "no-such-method")


def test_the_command_ends_at_once_and_in_order(tmp_path: Path) -> None:
    """What was registered for the end is called, threads are waited for, streams flushed; nothing is taken apart."""
    code = f"""
import atexit, sys, tempfile, threading, time
from pathlib import Path
from zoo import cli

class Slow:
    def __del__(self):
        time.sleep(60)

def main():
    global slow
    slow = Slow()
    atexit.register(lambda: Path({str(tmp_path / "end")!r}).write_text("called"))
    threading.Thread(target=lambda: (time.sleep(0.3), Path({str(tmp_path / "thread")!r}).write_text("done"))).start()
    global folder
    folder = tempfile.TemporaryDirectory(dir={str(tmp_path)!r})
    sys.stdout.write("the last line without an end")
    return 7

cli.main = main
sys.argv = ["zoo", "list"]
cli.console()
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )
    assert done.returncode == 7, done.stderr
    assert done.stdout == "the last line without an end"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["end", "thread"]


def test_a_reader_that_left_is_no_error(tmp_path: Path) -> None:
    words = f"{sys.executable} -m zoo list | true"
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {words}"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0
    assert done.stderr == ""


def test_predict_with_options_still_pickles_and_copies() -> None:
    import copy
    import pickle

    model = ToyNet()
    again = pickle.loads(pickle.dumps(copy.deepcopy(model)))
    batch = torch.zeros(1, 4)
    assert torch.equal(again(batch), model(batch))
