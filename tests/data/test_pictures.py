"""Reading pictures: values by what is stated about them, all frames or none, upright."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps, TiffImagePlugin

import zoo
from datamodules.boxes import BoxesDataModule
from datamodules.boxes.records import read_image as read_image_with_boxes
from datamodules.images import ImagesDataModule
from zoo.errors import BadData, BadInput, ZooError
from zoo.inputs.images import from_pil, read_frames, read_image, to_pixels

READERS = (read_image, read_image_with_boxes)


def save(path: Path, values: np.ndarray, **options: Any) -> Path:
    Image.fromarray(values).save(path, **options)
    return path


def ramp(largest: float, kind: Any) -> np.ndarray:
    return np.linspace(0, largest, 80).reshape(8, 10).astype(kind)


# Values by type -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".png", ".tif", ".pgm"])
@pytest.mark.parametrize("largest", [255, 256, 4095, 65535])
def test_brightness_of_16_bits_does_not_depend_on_the_brightest_pixel(
    largest: int, suffix: str, tmp_path: Path
) -> None:
    """65535 is white, whatever else the picture holds."""
    values = ramp(largest, np.uint16)
    path = save(tmp_path / f"x{suffix}", values)
    for read in READERS:
        np.testing.assert_array_equal(read(path)[..., 0], np.floor(values / 257 + 0.5))


@pytest.mark.parametrize("order", ["I;16", "I;16B"])
def test_brightness_of_both_byte_orders(order: str) -> None:
    values = ramp(65535, np.uint16)
    image = Image.frombytes(order, (10, 8), values.astype("<u2" if order == "I;16" else ">u2").tobytes())
    np.testing.assert_array_equal(from_pil(image)[..., 1], np.floor(values / 257 + 0.5))


def test_brightness_by_a_stated_range(tmp_path: Path) -> None:
    """Cameras of 12 bits write 16; TIFF can say so."""
    values = ramp(4095, np.uint16)
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[281] = 4095
    tags.tagtype[281] = 3
    path = save(tmp_path / "x.tif", values, tiffinfo=tags)
    for read in READERS:
        np.testing.assert_array_equal(read(path)[..., 2], np.floor(values * (255 / 4095) + 0.5))


def test_fractions_in_files_are_those_in_arrays(tmp_path: Path) -> None:
    values = ramp(1, np.float32)
    path = save(tmp_path / "x.tif", values)
    for read in READERS:
        assert np.abs(read(path)[..., 0].astype(int) - to_pixels(values)[..., 0]).max() <= 1
        assert int(read(path).max()) == 255
    half = save(tmp_path / "half.tif", values / 2)
    assert int(read_image(half).max()) == 128


@pytest.mark.parametrize("largest", [1.0001, 238.0, 3000.0, float("nan"), float("inf")])
def test_fractions_of_an_unknown_range_are_refused_in_files_and_arrays(largest: float, tmp_path: Path) -> None:
    values = ramp(1, np.float32)
    values[3, 4] = largest
    path = save(tmp_path / "x.tif", values)
    for item in (path, values, torch.from_numpy(values)[None], Image.fromarray(values)):
        with pytest.raises(BadInput, match=r"must have values in \[0, 1\]"):
            to_pixels(item)
    with pytest.raises(BadData, match=r"x\.tif.*must have values in \[0, 1\]"):
        read_image_with_boxes(path)


def test_negative_fractions_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"got \[-0\.5, 0\]"):
        read_image(save(tmp_path / "x.tif", ramp(-0.5, np.float32)))


@pytest.mark.parametrize("largest", [255, 65535, 2**31 - 1])
def test_integers_of_an_unknown_range_are_refused(largest: int, tmp_path: Path) -> None:
    path = save(tmp_path / "x.tif", ramp(largest, np.int32))
    for item in (path, Image.fromarray(ramp(largest, np.int32))):
        with pytest.raises(BadInput, match="32-bit or signed integers"):
            to_pixels(item)


def test_advice_about_the_range_is_right(tmp_path: Path) -> None:
    """To divide by the maximum would change the brightness."""
    values = ramp(238, np.float32)
    with pytest.raises(BadInput, match=r"got \[0, 238\]; divide by 255"):
        to_pixels(values)
    model = zoo.load("rslad", weights=False)
    with pytest.raises(BadInput, match="divide by 255"):
        model.predict(values)
    with pytest.raises(BadInput) as caught:
        to_pixels(ramp(3000, np.float32))
    assert "divide" not in str(caught.value)


@pytest.mark.parametrize("kind", ["folders", "coco"])
def test_deep_pictures_train_with_the_brightness_of_their_neighbours(kind: str, tmp_path: Path) -> None:
    """A dark and a bright 16-bit picture of one camera keep their ratio in both image data modules."""
    if kind == "folders":
        for name in ("a", "b"):
            (tmp_path / "train" / name).mkdir(parents=True)
            for number, largest in enumerate((200, 60_000)):
                save(tmp_path / "train" / name / f"{number}.png", np.full((32, 32), largest, np.uint16))
        data: Any = ImagesDataModule(root=str(tmp_path), val_size=1, test_size=1).split("train")
        read = [float(data.source.take(np.array([i])).max()) for i in range(2)]
    else:
        root = BoxesDataModule().fake(tmp_path / "coco", "coco", images=2)
        for number, path in enumerate(sorted((root / "train2017").iterdir())):
            with Image.open(path) as image:
                size = image.size[::-1]
            path.unlink()
            save(path.with_suffix(".png"), np.full(size, (200, 60_000)[number], np.uint16))
        text = (root / "annotations/instances_train2017.json").read_text()
        (root / "annotations/instances_train2017.json").write_text(text.replace(".jpg", ".png"))
        boxes: Any = BoxesDataModule(root=str(root), format="coco", img_size=64).split("train")
        read = [float(boxes.source.image(i).max()) for i in range(2)]
    assert read == [1.0, 233.0]


# Several pictures in a file -------------------------------------------------------------------------------------------


def animation(path: Path, frames: int = 3) -> Path:
    pictures = [Image.new("RGB", (16, 12), (80 * i, 0, 0)) for i in range(frames)]
    pictures[0].save(path, save_all=True, append_images=pictures[1:])
    return path


@pytest.mark.parametrize("suffix", [".gif", ".png", ".webp", ".tif"])
def test_a_file_of_several_pictures_is_not_read_as_its_first(suffix: str, tmp_path: Path) -> None:
    path = animation(tmp_path / f"x{suffix}")
    for item in (path, str(path)):
        with pytest.raises(BadInput, match=rf"x\{suffix}: expected a file with one picture, got an animation"):
            to_pixels(item)
    with pytest.raises(BadData, match="one picture"):
        read_image_with_boxes(path)
    frames = list(read_frames(path))
    assert [frame.shape for frame in frames] == [(12, 16, 3)] * 3
    assert np.abs(np.array([int(frame[..., 0].max()) for frame in frames]) - [0, 80, 160]).max() <= 3
    single = animation(tmp_path / f"y{suffix}", 1)
    assert to_pixels(single).shape == (12, 16, 3)
    assert len(list(read_frames(single))) == 1


def test_a_file_of_several_pictures_is_named_in_a_data_set(tmp_path: Path) -> None:
    for name, number in itertools.product("ab", range(8)):
        (tmp_path / "train" / name).mkdir(parents=True, exist_ok=True)
        animation(tmp_path / "train" / name / f"{number}.gif", 2 if number == 7 else 1)
    data: Any = ImagesDataModule(root=str(tmp_path), val_size=1, test_size=1)
    with pytest.raises(ZooError, match=r"7\.gif: expected a file with one picture"):
        data.split("train").source.take(np.arange(16))


def test_smaller_copies_in_a_file_do_not_count(tmp_path: Path) -> None:
    """Maps and scans hold their own previews, photographs of telephones a second picture for brighter screens."""
    full, preview = Image.new("L", (64, 64), 9), Image.new("L", (16, 16), 200)
    preview.encoderinfo = {"tiffinfo": {254: 1}}  # type: ignore[attr-defined]
    full.save(tmp_path / "x.tif", save_all=True, append_images=[preview])
    with Image.open(tmp_path / "x.tif") as image:
        assert image.n_frames == 2  # type: ignore[attr-defined]
        image.seek(1)
        assert image.tag_v2[254] == 1  # type: ignore[attr-defined]
    assert int(read_image(tmp_path / "x.tif").max()) == 9
    full.save(tmp_path / "x.jpg", format="MPO", save_all=True, append_images=[preview])
    assert read_image(tmp_path / "x.jpg").shape == (64, 64, 3)


# Upright --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_turned_as_pillow_turns_it(orientation: int, mode: str, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "x.png"
    noise = np.random.default_rng(0).integers(0, 256, (5, 9, 3), np.uint8)
    Image.fromarray(noise).convert(mode).save(path, exif=exif)
    with Image.open(path) as image:
        expected = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    for read in READERS:
        found = read(path)
        np.testing.assert_array_equal(found, expected)
        assert found.flags.c_contiguous


def test_a_folder_in_place_of_a_picture_is_called_one(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="it is a folder: give a list of its files"):
        read_image(tmp_path)
    with pytest.raises(BadInput, match="no such image file"):
        read_image(tmp_path / "none.png")
