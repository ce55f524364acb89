"""`zoo predict`: what it reads, what it writes while it runs, and what is left when it stops."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from toys import cli as cli_toys
from toys.cli import failure, output, run

import zoo
from zoo import cli, index
from zoo.base.detector import best_boxes
from zoo.cli.devices import device_of
from zoo.cli.predict import paths
from zoo.cli.predict.files import Growing
from zoo.errors import BadInput, MissingExtra
from zoo.inputs import video

DETECTOR = "alpha-iou-yolo"


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """An empty folder, and the toy in the index."""
    monkeypatch.chdir(tmp_path)
    cli_toys.register(tmp_path)
    yield tmp_path
    index._registered.pop("toy-net", None)


@pytest.fixture
def saved(place: Path) -> Path:
    """Weights of the toy, which reads a JSON file with four numbers."""
    torch.manual_seed(1)
    return zoo.save(cli_toys.ToyNet(class_names=[f"c{i}" for i in range(10)]), place / "saved")


@pytest.fixture(scope="module")
def scene() -> Image.Image:
    """A picture with two digits."""
    from datamodules.worlds.digit_scenes import SceneConfig, render

    return Image.fromarray(render(SceneConfig(), "test", 1)[0])


def rows(folder: Path, count: int) -> list[str]:
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        (folder / f"row{i}.json").write_text(json.dumps([i, 1.0, -1.0, 0.5]))
    return [str(folder / f"row{i}.json") for i in range(count)]


def found(place: Path, name: str = "results.json") -> Any:
    return json.loads((place / "out" / name).read_text(encoding="utf-8"))


# What it reads ----------------------------------------------------------------------------------------------------


def test_folders_wildcards_and_lists(
    saved: Path, place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    files = rows(place / "in", 3)
    rows(place / "in" / "deeper", 1)
    (place / "in" / ".hidden.json").write_text("no row")
    out = output(capsys, "predict", saved, "in")
    assert [line.split(":")[0] for line in out.splitlines()] == [
        "in/deeper/row0.json",
        *(f"in/row{i}.json" for i in range(3)),
    ]
    assert len(output(capsys, "predict", saved, "in/row*.json").splitlines()) == 3
    assert len(output(capsys, "predict", saved, "in/**/row0.json").splitlines()) == 2
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join(files) + "\n\n"))
    assert [line.split(": c")[0] for line in output(capsys, "predict", saved, "-").splitlines()] == files
    (place / "empty").mkdir()
    assert "expected a folder with files" in failure(capsys, "predict", saved, "empty")
    assert "No file fits the pattern in/*.npz" in failure(capsys, "predict", saved, "in/*.npz")
    assert "Download it first" in failure(capsys, "predict", saved, "https://example.org/row.json")


def test_a_second_run_does_not_read_what_the_first_wrote(place: Path, scene: Image.Image) -> None:
    scene.save(place / "a.png")
    for _ in range(2):
        assert run("predict", DETECTOR, ".", "--out", ".") == 0
        assert [row["input"] for row in json.loads((place / "results.json").read_text())] == ["a.png"]
    assert run("predict", DETECTOR, ".", "--out", "inside") == 0
    assert run("predict", DETECTOR, "a.png", ".", "--out", "inside") == 0


def test_each_frame_of_an_animation(place: Path, scene: Image.Image, capsys: pytest.CaptureFixture[str]) -> None:
    grey = Image.new("RGB", scene.size, "grey")
    scene.save(place / "film.gif", save_all=True, append_images=[grey, scene])
    scene.save(place / "film.tif", save_all=True, append_images=[grey])
    scene.save(place / "still.gif")
    assert run("predict", DETECTOR, "film.gif", "film.tif", "still.gif", "--out", "out", "--batch-size", 2) == 0
    results = found(place)
    assert [(row["input"], row.get("frame")) for row in results] == [
        ("film.gif", 0),
        ("film.gif", 1),
        ("film.gif", 2),
        ("film.tif", 0),
        ("film.tif", 1),
        ("still.gif", None),
    ]
    assert results[0]["names"] == results[2]["names"] != []
    assert results[1]["names"] == []
    assert len({row["picture"] for row in results}) == 6
    assert all((place / "out" / row["picture"]).is_file() for row in results)
    assert "film.gif, frame 1: nothing found" in output(capsys, "predict", DETECTOR, "film.gif")


class FakeFrame:
    """What PyAV hands out, as far as it is used."""

    def __init__(self, pixels: np.ndarray) -> None:
        self.pixels = pixels
        self.height, self.width = pixels.shape[:2]

    def to_ndarray(self, format: str) -> np.ndarray:
        assert format == "rgb24"
        return self.pixels


class FakeContainer:
    def __init__(self, frames: list[np.ndarray]) -> None:
        self.frames = frames

    def __enter__(self) -> FakeContainer:
        return self

    def __exit__(self, *args: object) -> None:
        pass

    def decode(self, video: int) -> Any:
        for frame in self.frames:
            yield FakeFrame(frame)


def test_each_frame_of_a_video(place: Path, scene: Image.Image, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = np.asarray(scene)
    (place / "film.mp4").write_bytes(b"a film")
    module = types.ModuleType("av")
    module.open = lambda path: FakeContainer([pixels, pixels])  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "av", module)
    assert run("predict", DETECTOR, "film.mp4", "--out", "out", "--save", "yolo") == 0
    assert [row["frame"] for row in found(place)] == [0, 1]
    assert len(list((place / "out" / "labels-predicted").glob("film-*.txt"))) == 2
    module.open = lambda path: FakeContainer([])  # type: ignore[attr-defined]
    with pytest.raises(BadInput, match=r"film\.mp4: expected a video that can be decoded, got no frame"):
        list(video.read_video(place / "film.mp4"))


def test_frames_by_opencv_are_red_first(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frame = np.zeros((2, 3, 3), np.uint8)
    frame[..., 2] = 200  # OpenCV stores blue, green, red

    class Capture:
        def __init__(self, path: str) -> None:
            self.left = 2

        def get(self, key: int) -> float:
            return 3.0

        def read(self) -> tuple[bool, np.ndarray]:
            self.left -= 1
            return self.left >= 0, frame

        def release(self) -> None:
            pass

    module = types.ModuleType("cv2")
    module.VideoCapture, module.CAP_PROP_FRAME_WIDTH, module.CAP_PROP_FRAME_HEIGHT = Capture, 3, 4  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "av", None)
    monkeypatch.setitem(sys.modules, "cv2", module)
    (place / "film.avi").write_bytes(b"a film")
    frames = list(video.read_video(place / "film.avi"))
    assert len(frames) == 2
    assert frames[0][0, 0].tolist() == [200, 0, 0]


def test_a_video_without_a_decoder_names_the_extra(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    monkeypatch.setitem(sys.modules, "cv2", None)
    (place / "film.mp4").write_bytes(b"a film")
    assert 'pip install "lightning-method-zoo[video]"' in failure(capsys, "predict", DETECTOR, "film.mp4")
    with pytest.raises(MissingExtra):
        video.read_video(place / "film.mp4")


# What cannot be used ----------------------------------------------------------------------------------------------


def test_files_that_cannot_be_used(saved: Path, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = rows(place / "in", 5)
    Path(files[3]).write_text("[1, 2]")
    words = ("predict", saved, *files, "--out", "out")
    capsys.readouterr()
    assert run(*words) == 2
    told = capsys.readouterr().err.splitlines()
    assert told == ["3 results are in out", f"error: {files[3]}: Expected four numbers."]
    assert [row["input"] for row in found(place)] == files[:3], "what came before the mistake is kept"
    capsys.readouterr()
    assert run(*words, "gone.json", "--on-error", "skip") == 1
    said = capsys.readouterr()
    assert [row["input"] for row in found(place)] == [*files[:3], files[4]]
    assert "left out: There is no file gone.json" in said.err
    assert "row3.json: Expected four numbers." in said.err
    assert "2 of 6 files were left out" in said.err


def test_a_broken_animation_keeps_what_came_before(place: Path, scene: Image.Image) -> None:
    other = scene.transpose(Image.Transpose.ROTATE_90)
    scene.save(place / "film.gif", save_all=True, append_images=[other, scene, other])
    data = (place / "film.gif").read_bytes()
    (place / "film.gif").write_bytes(data[: len(data) * 5 // 8])
    scene.save(place / "good.png")
    assert run("predict", DETECTOR, "film.gif", "good.png", "--out", "out", "--on-error", "skip") == 1
    inputs = [row["input"] for row in found(place)]
    assert inputs[-1] == "good.png"
    assert inputs.count("film.gif") in (1, 2, 3)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("--threshold abc", "threshold: expected a number, got 'abc'"),
        ("--threshold 2", "threshold: expected a number from 0 to 1, got 2"),
        ("--threshold .nan", "threshold: expected a number, got nan"),
        ("--iou -1", "iou: expected a number from 0 to 1, got -1"),
        ("--most 0", "most: expected a number at least 1, got 0"),
        ("--most 1.5", "most: expected a whole number, got 1.5"),
        ("--agnostic 3", "agnostic: expected true or false, got 3"),
        ("--threshold [", "--threshold: '[' is no value"),
        ("--treshold 0.3", "has no option 'treshold'. Did you mean 'threshold'"),
        ("--no-picture", "Did you mean '--no-pictures'"),
        ("--device gpu", "--device: 'gpu' is none of auto, cpu, cuda, cuda:1, mps"),
        ("--device cuda:999", "--device cuda:999: this machine has"),
        ("--batch-size 0", "--batch-size must be at least 1, got 0"),
        ("--save csv", "--save csv writes files: say where with --out DIR"),
        (
            "--save geojson --out out",
            "--save geojson: results of object-detection can be saved as csv, json, yolo, coco",
        ),
        ("--save cvs --out out", "Did you mean 'csv'"),
        ("--on-error ignore", "'ignore' is none of stop, skip"),
    ],
)
def test_mistakes_are_one_line(
    words: str, expected: str, place: Path, scene: Image.Image, capsys: pytest.CaptureFixture[str]
) -> None:
    scene.save(place / "a.png")
    assert expected in failure(capsys, "predict", DETECTOR, "a.png", *words.split())
    assert not (place / "out").exists()


def test_the_device_is_the_gpu_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for count, expected in ((0, "cpu"), (2, "cuda")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda count=count: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda count=count: count)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
        assert device_of("auto") == expected
    assert device_of("cuda:1") == "cuda:1"
    with pytest.raises(BadInput, match="this machine has 2 CUDA devices"):
        device_of("cuda:2")


# What it writes ---------------------------------------------------------------------------------------------------


def test_formats_of_detections(place: Path, scene: Image.Image) -> None:
    scene.save(place / "a.png")
    turned = scene.getexif()
    turned[0x0112] = 6  # stored lying; both sides are equal unless it is made wider
    wide = Image.new("RGB", (320, 160))
    wide.paste(scene, (80, 0))
    wide.save(place / "7.jpg", exif=turned, quality=95)
    Image.new("RGB", (64, 64)).save(place / "nothing.png")
    words = ("--out", "out", "--save", "csv,yolo,coco,json")
    assert run("predict", DETECTOR, "a.png", "7.jpg", "nothing.png", *words) == 0
    first, second, third = found(place)
    with (place / "out" / "results.csv").open(encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    assert len(table) == len(first["boxes"]) + len(second["boxes"])
    assert third["boxes"] == []
    assert [float(table[0][k]) for k in ("x1", "y1", "x2", "y2")] == first["boxes"][0]
    assert table[0]["name"] == first["names"][0]
    assert float(table[0]["score"]) == first["scores"][0]
    coco = found(place, "coco-results.json")
    assert [row["image_id"] for row in coco] == ["a"] * len(first["boxes"]) + [7] * len(second["boxes"])
    assert coco[0]["category_id"] == first["labels"][0] + 1
    labels = place / "out" / "labels-predicted"
    assert (labels / "nothing.txt").read_text() == ""
    assert (labels / "classes.txt").read_text().splitlines() == zoo.load(DETECTOR).class_names
    line = next(iter((labels / "7.txt").read_text().splitlines()), None)
    if line is not None:  # the picture is upright 160 x 320, whatever its file stores
        x1, y1, x2, y2 = second["boxes"][0]
        expected = [(x1 + x2) / 320, (y1 + y2) / 640, (x2 - x1) / 160, (y2 - y1) / 320]
        assert [float(v) for v in line.split()[1:5]] == pytest.approx(expected, abs=1e-5)


def test_a_table_of_classes(saved: Path, place: Path) -> None:
    files = rows(place / "in", 2)
    assert run("predict", saved, *files, "--out", "out", "--save", "csv") == 0
    with (place / "out" / "results.csv").open(encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    for row, other in zip(table, found(place), strict=True):
        assert row["input"] == other["input"]
        assert row["name"] == other["name"]
        assert float(row["score"]) == other["probs"][other["label"]]
        assert [float(row[f"probability c{i}"]) for i in range(10)] == other["probs"]


def test_no_pictures(saved: Path, place: Path) -> None:
    assert run("predict", saved, *rows(place / "in", 2), "--out", "out", "--no-pictures") == 0
    assert [p.name for p in (place / "out").iterdir()] == ["results.json"]
    assert "picture" not in found(place)[0]


def test_an_input_of_that_name_is_kept(saved: Path, place: Path) -> None:
    for name in ("results.csv", "results.json"):
        (place / name).write_text("[1, 2, 3, 4]")
    assert run("predict", saved, "results.csv", "results.json", "--out", ".", "--save", "csv") == 0
    assert (place / "results.csv").read_text() == (place / "results.json").read_text() == "[1, 2, 3, 4]"
    assert len(json.loads((place / "results-predicted.json").read_text())) == 2
    assert len((place / "results-predicted.csv").read_text().splitlines()) == 3


def test_small_pictures_are_enlarged_and_others_are_not(place: Path, scene: Image.Image) -> None:
    scene.save(place / "small.png")
    scene.resize((400, 400)).save(place / "large.png")
    assert run("predict", DETECTOR, "small.png", "large.png", "--out", "out") == 0
    assert Image.open(place / "out" / "small-predicted.png").size == (320, 320)
    assert Image.open(place / "out" / "large-predicted.png").size == (400, 400)


def test_results_are_written_while_it_runs(
    saved: Path, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Files of earlier batches are complete while a later one is computed, and after Ctrl-C."""
    files = rows(place / "in", 60)
    seen: list[int] = []
    own = cli_toys.ToyNet.predict_step

    def step(self: Any, batch: Any, *args: Any, **options: Any) -> Any:
        path = place / "out" / "results.json"
        seen.append(len(json.loads(path.read_text())) if path.exists() else 0)
        if len(seen) == 8:
            raise KeyboardInterrupt
        return own(self, batch, *args, **options)

    monkeypatch.setattr(cli_toys.ToyNet, "predict_step", step)
    capsys.readouterr()
    assert run("predict", saved, *files, "--out", "out", "--save", "csv", "--json", "--batch-size", 5) == 130
    assert seen == [0, 0, 0, 5, 10, 15, 20, 25]
    said = capsys.readouterr()
    assert [row["input"] for row in json.loads(said.out)] == files[:35]
    assert "35 results are in out" in said.err
    assert [row["input"] for row in found(place)] == files[:35]
    assert len((place / "out" / "results.csv").read_text().splitlines()) == 36
    assert len(list((place / "out").glob("*.png"))) == 35
    assert not list((place / "out").glob("*.tmp"))


def test_ctrl_c_and_kill_leave_valid_files(place: Path, scene: Image.Image) -> None:
    """A real process, stopped hard in the middle."""
    (place / "in").mkdir()
    for i in range(300):
        scene.save(place / "in" / f"{i:03d}.bmp")
    words = ["-m", "zoo", "predict", DETECTOR, "in", "--out", "out", "--batch-size", "2", "--save", "coco"]
    env = {**os.environ, "PYTHONPATH": str(Path(cli.__file__).parents[2])}
    with subprocess.Popen([sys.executable, *words], env=env, stdout=subprocess.PIPE, cwd=place) as process:
        assert process.stdout is not None
        for _ in range(7):
            assert process.stdout.readline()
        process.kill()
    results = found(place)
    assert 7 <= len(results) < 300
    assert {row["file_name"] for row in found(place, "coco-results.json")} <= {row["input"] for row in results}
    assert all((place / "out" / row["picture"]).is_file() for row in results)


def test_a_growing_file_is_complete_after_each_addition(tmp_path: Path) -> None:
    path = tmp_path / "list.json"
    path.write_text("from an earlier run, and much longer than what follows " * 9)
    file = Growing(path, "[\n", "\n]\n", ",\n")
    assert path.read_text().startswith("from an earlier run")
    expected: list[int] = []
    for part in ([1, 2], [], [3], [4, 5, 6]):
        expected += part
        file.add([str(v) for v in part])
        assert json.loads(path.read_text()) == expected
    file.close()
    empty = Growing(tmp_path / "empty.json", "[\n", "\n]\n", ",\n")
    empty.close()
    assert json.loads((tmp_path / "empty.json").read_text()) == []


def test_names_are_distinct_and_never_those_of_inputs() -> None:
    names = paths.Names(["a/x.jpg", "b/x.jpg", "x-2.jpg", "y.jpg", "y-predicted.jpg"])
    asked = [names.of(p) for p in ("a/x.jpg", "b/x.jpg", "x-2.jpg", "y.jpg", "y-predicted.jpg")]
    assert asked == ["x", "x-2", "x-2-2", "y-2", "y-predicted"]


def test_no_bar_without_a_terminal(saved: Path, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("predict", saved, *rows(place / "in", 3))
    assert capsys.readouterr().err == ""


def test_a_bar_on_a_terminal(
    saved: Path, place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    monkeypatch.setenv("FORCE_COLOR", "1")
    files = rows(place / "in", 3)
    capsys.readouterr()
    run("predict", saved, *files)
    said = capsys.readouterr()
    assert "3/3" in re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", said.err)
    assert len(said.out.splitlines()) == 3, "lines of results go to standard output as ever"


# Detectors --------------------------------------------------------------------------------------------------------


def test_one_object_has_one_class_if_wanted() -> None:
    boxes = torch.tensor([[[10.0, 10, 50, 50], [11, 10, 50, 50], [100, 100, 120, 120]]])
    scores = torch.tensor([[[0.9, 0.1], [0.2, 0.8], [0.1, 0.7]]])
    batch = {"scale": torch.ones(1), "pad": torch.zeros(1, 2), "size": torch.tensor([[160, 160]])}
    usual = best_boxes(boxes, scores, batch, 0.5)[0]
    assert usual["labels"].tolist() == [0, 1, 1]
    one = best_boxes(boxes, scores, batch, 0.5, agnostic=True)[0]
    assert one["labels"].tolist() == [0, 1]
    assert one["boxes"][1].tolist() == [100, 100, 120, 120]


def test_texts_of_two_classes_on_one_box_can_both_be_read() -> None:
    from zoo.pictures.boxes import _place

    draw = ImageDraw.Draw(Image.new("RGB", (200, 200)))
    from PIL import ImageFont

    font = ImageFont.load_default(size=11)
    first = _place(draw, [50, 80, 120, 150], "8 0.46", font, [])
    second = _place(draw, [51, 80, 120, 150], "6 0.38", font, [first])
    assert second[1] >= first[3]
