"""The DigitScenes simulator, its assets and its cache."""

from __future__ import annotations

import hashlib
import os
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datamodules import assets
from datamodules.boxes import scenes as cache
from datamodules.boxes.scenes import load_scenes, scenes_path
from datamodules.worlds import digit_scenes
from datamodules.worlds import render as _render
from datamodules.worlds.digit_scenes import SHAPES, SPLITS, SceneConfig, compose, render
from zoo.errors import BadInput

CONFIG = SceneConfig(size=96)


def iou(a: np.ndarray, b: np.ndarray) -> float:
    across, down = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    inter = max(across, 0) * max(down, 0)
    return float(inter / (np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - inter))


def test_assets_are_whole_and_small() -> None:
    images, labels = assets.digits()
    assert images.shape == (5000, 28, 28)
    assert (labels == np.repeat(np.arange(10), 500)).all()
    for name, info in assets.photograph_info().items():
        content = assets.photographs()[name].read_bytes()
        assert hashlib.sha256(content).hexdigest() == info["sha256"], name
        assert info["licence"] in ("public domain", "CC0-1.0")
        assert info["author"]
        assert info["origin"]
    on_disk = {path.stem for path in (assets.FOLDER / "photographs").iterdir()}
    assert on_disk == set(assets.photographs())
    assert sum(path.stat().st_size for path in assets.FOLDER.rglob("*") if path.is_file()) < 20e6


def test_splits_share_no_photograph_and_no_digit(monkeypatch: pytest.MonkeyPatch) -> None:
    names = [set(assets.photographs(split)) for split in SPLITS]
    assert all(names)
    assert sum(map(len, names)) == len(set().union(*names)) == len(assets.photographs())
    images, labels = assets.digits()
    used: dict[str, set[tuple[int, int]]] = {split: set() for split in SPLITS}
    for split in SPLITS:

        def spy(glyph: np.ndarray, *args: float, split: str = split, **kwargs: float) -> np.ndarray | None:
            offset = (glyph.__array_interface__["data"][0] - images.__array_interface__["data"][0]) // 784
            used[split].add((int(labels[offset]), int(offset % 500)))
            return _render.glyph_alpha(glyph, *args, **kwargs)  # type: ignore[arg-type]

        monkeypatch.setattr(digit_scenes, "glyph_alpha", spy)
        for index in range(25):
            render(CONFIG, split, index)
    for split, (low, high) in {"train": (0, 400), "val": (400, 450), "test": (450, 500)}.items():
        assert used[split]
        assert all(low <= number < high for _, number in used[split])
    assert {label for label, _ in used["train"]} == set(range(10))


def test_scene_depends_only_on_config_split_and_index() -> None:
    first = [render(CONFIG, "train", index) for index in range(4)]
    for index in (3, 1, 0, 2):
        again = render(CONFIG, "train", index)
        assert all(np.array_equal(a, b) for a, b in zip(first[index], again, strict=True))
    assert not np.array_equal(first[0][0], render(CONFIG, "val", 0)[0])
    assert not np.array_equal(first[0][0], render(SceneConfig(size=96, seed=1), "train", 0)[0])


def test_boxes_are_inside_apart_and_of_the_stated_sizes() -> None:
    counts, heights = set(), []
    for index in range(60):
        image, boxes, labels = render(SceneConfig(), "train", index)
        assert image.shape == (160, 160, 3)
        assert image.dtype == np.uint8
        assert boxes.dtype == np.float32
        assert labels.dtype == np.int64
        assert boxes.min() >= 0
        assert boxes.max() <= 160
        counts.add(len(boxes))
        heights += (boxes[:, 3] - boxes[:, 1]).tolist()
        for i in range(len(boxes)):
            assert all(iou(boxes[i], boxes[j]) < 0.3 for j in range(i))
    assert counts == {1, 2, 3, 4, 5, 6}
    assert min(heights) < 25
    assert max(heights) > 65


@pytest.mark.parametrize("shapes", [False, True])
def test_boxes_are_the_tight_bounds_of_alpha(monkeypatch: pytest.MonkeyPatch, shapes: bool) -> None:
    drawn: list[tuple[np.ndarray, int, int]] = []

    def spy(image: np.ndarray, alpha: np.ndarray, left: int, top: int, *args: object) -> None:
        drawn.append((alpha, left, top))
        _render.blend(image, alpha, left, top, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(digit_scenes, "blend", spy)
    for index in range(20):
        drawn.clear()
        _, boxes, _ = render(SceneConfig(shapes=shapes, classes=SHAPES if shapes else None), "val", index)
        assert len(drawn) == len(boxes)
        for (alpha, left, top), box in zip(drawn, boxes, strict=True):
            ys, xs = np.nonzero(alpha > 127)
            assert box.tolist() == [xs.min() + left, ys.min() + top, xs.max() + 1 + left, ys.max() + 1 + top]


def test_ink_is_visible_inside_its_box() -> None:
    config = SceneConfig(objects=(1, 1), heights=(60.0, 80.0))
    for index in range(10):
        image, boxes, _ = render(config, "test", index)
        x1, y1, x2, y2 = boxes[0].astype(int)
        inside = image[y1:y2, x1:x2].reshape(-1, 3).astype(float) @ [0.30, 0.59, 0.11]
        assert inside.std() > 8


def test_classes_and_shapes() -> None:
    config = SceneConfig(size=96, classes=("7", "star", "2"), shapes=True)
    found = {int(label) for index in range(15) for label in render(config, "train", index)[2]}
    assert found == {0, 1, 2}
    assert config.names == ("7", "star", "2")
    with pytest.raises(BadInput, match="shapes=True"):
        SceneConfig(classes=("star",))
    with pytest.raises(BadInput, match="none twice"):
        SceneConfig(classes=("1", "1"))
    with pytest.raises(BadInput, match="split"):
        render(config, "training", 0)


def test_compose_puts_the_wanted_digits_on_a_whole_photograph(tmp_path: Path) -> None:
    image, boxes, labels = compose("lemur", 3, (320, 224), [4, "2", 7])
    assert image.size == (320, 224)
    assert labels.tolist() == [4, 2, 7]
    assert (boxes[:, 2:] <= [320, 224]).all()
    again = compose("lemur", 3, (320, 224), [4, 2, 7])
    assert np.array_equal(np.asarray(image), np.asarray(again[0]))
    path = tmp_path / "own.png"
    Image.new("L", (40, 30), 200).save(path)
    assert compose(path, 0, (64, 64), heights=(18, 20))[0].size == (64, 64)
    with pytest.raises(BadInput, match="Did you mean 'lemur'"):
        compose("lemurr", 3)


def test_cache_round_trip_and_damage(tmp_path: Path) -> None:
    fresh = load_scenes(CONFIG, "val", 5, None)
    cached = load_scenes(CONFIG, "val", 5, tmp_path)
    assert isinstance(cached.images, np.memmap)
    stem = scenes_path(CONFIG, "val", 5, tmp_path)
    files = [stem.with_name(stem.name + suffix) for suffix in (".npy", ".npz")]
    assert sorted(files) == sorted(stem.parent.iterdir())
    content = {file: file.read_bytes() for file in files}

    def damaged(file: Path, data: bytes) -> None:
        file.write_bytes(data)
        again = load_scenes(CONFIG, "val", 5, tmp_path)
        assert np.array_equal(again.images, fresh.images)
        assert np.array_equal(again.boxes, fresh.boxes)
        assert file.read_bytes() == content[file] or file.suffix == ".npz"

    for file in files:
        whole = content[file]
        flipped = bytearray(whole)
        flipped[len(whole) // 2] ^= 255
        for data in (whole[: len(whole) // 2], b"", b"something else", bytes(flipped)):
            damaged(file, data)


def test_cache_key_covers_every_parameter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    variants = [
        scenes_path(config, split, count, tmp_path)
        for config in (CONFIG, SceneConfig(size=64), SceneConfig(size=96, seed=1), SceneConfig(size=96, shapes=True))
        for split in ("train", "val")
        for count in (3, 4)
    ]
    variants.append(scenes_path(SceneConfig(size=96, classes=("1",)), "train", 3, tmp_path))
    before = scenes_path(CONFIG, "train", 3, tmp_path)
    monkeypatch.setattr(digit_scenes, "VERSION", digit_scenes.VERSION + 1)
    variants.append(scenes_path(CONFIG, "train", 3, tmp_path))
    assert len(set(variants)) == len(variants)
    assert before in variants


def test_killed_writer_leaves_nothing_that_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(file: object, array: np.ndarray) -> None:
        file.write(b"half")  # type: ignore[attr-defined]
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(cache.np, "save", killed)
        with pytest.raises(KeyboardInterrupt):
            load_scenes(CONFIG, "val", 3, tmp_path)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    # kill -9 leaves a temporary file behind; nobody takes it for data
    stem = scenes_path(CONFIG, "val", 3, tmp_path)
    left = [stem.with_name(f"{stem.name}.npy.{name}.tmp") for name in ("old", "new")]
    for path in left:
        path.write_bytes(b"half")
    os.utime(left[0], (0, 0))
    assert len(load_scenes(CONFIG, "val", 3, tmp_path)) == 3
    assert [path.exists() for path in left] == [False, True]


def test_two_writers_at_once(tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: load_scenes(CONFIG, "val", 4, tmp_path), range(4)))
    assert all(np.array_equal(each.images, found[0].images) for each in found)
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == 2


def test_unwritable_cache_works_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("a file where the folder should be")
    with pytest.warns(UserWarning, match="cannot be written.*ZOO_CACHE"):
        scenes = load_scenes(CONFIG, "val", 2, blocked)
    assert len(scenes) == 2

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.warns(UserWarning, match="No space left"):
        assert len(load_scenes(CONFIG, "val", 2, tmp_path / "full")) == 2
    assert [path for path in (tmp_path / "full").rglob("*") if path.is_file()] == []


def test_number_of_scenes_does_not_change_them(tmp_path: Path) -> None:
    few, more = load_scenes(CONFIG, "val", 2, None), load_scenes(CONFIG, "val", 4, None)
    assert np.array_equal(few.images, more.images[:2])


def test_extra_photographs_are_for_training_only() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert all(path.is_file() for path in assets.extra_photographs().values())
    for split in ("val", "test"):
        assert digit_scenes._photographs(split, True) == digit_scenes._photographs(split, False)
