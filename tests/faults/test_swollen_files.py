"""Small files that would take gigabytes or minutes: npz, gzip, idx, XML, series of unequal length."""

from __future__ import annotations

import contextlib
import gzip
import io
import re
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from memory import grown

from datamodules.boxes import BoxesDataModule
from datamodules.images import ImagesDataModule
from datamodules.series import SeriesDataModule
from datamodules.steel import SteelStripDataModule
from zoo.errors import BadData, ZooError
from zoo.inputs import UnreadableError, swollen
from zoo.inputs.arrays import open_arrays
from zoo.inputs.xml_files import read_xml

MEGABYTE = 1 << 20


def header(shape: str, dtype: str = "|u1") -> bytes:
    """The start of an array file with any shape."""
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}"
    text += " " * (63 - (10 + len(text)) % 64) + "\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()


def npz(path: Path, members: dict[str, bytes], compress: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compress) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return path


def array(value: Any) -> bytes:
    raw = io.BytesIO()
    np.save(raw, np.asarray(value))
    return raw.getvalue()


def zeros(path: Path, shapes: dict[str, tuple[tuple[int, ...], str]]) -> Path:
    """An npz of zeros, deflated in blocks."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, (shape, dtype) in shapes.items():
            left = int(np.prod(shape)) * np.dtype(dtype).itemsize
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                file.write(header(str(shape), np.dtype(dtype).str))
                while left:
                    file.write(bytes(size := min(left, 16 * MEGABYTE)))
                    left -= size
    return path


def images(root: Path) -> None:
    ImagesDataModule(root=str(root)).split("train")


def series(root: Path) -> None:
    SeriesDataModule(root=str(root)).facts()


def steel(root: Path) -> None:
    data = SteelStripDataModule(root=str(root))
    data.facts()
    data.split("train")


def place_for(reader: Callable[[Path], None], tmp_path: Path) -> tuple[Path, Path]:
    """A good folder for a reader, and the npz file in it that will be replaced."""
    if reader is images:
        root = ImagesDataModule().fake(tmp_path / "data", "npz")
        return root, root / "train.npz"
    if reader is series:
        root = SeriesDataModule(length=32).fake(tmp_path / "data", "npz")
        return root, root / "Fake_TRAIN.npz"
    root = SteelStripDataModule(length=64).fake(tmp_path / "data")
    return root, root / "coil_000" / "section_0.npz"


READERS = {"images": (images, "images", "labels"), "series": (series, "x", "y"), "steel": (steel, "signal", "ra_um")}


@pytest.mark.parametrize("kind", READERS)
def test_deflated_zeros_are_refused_before_they_are_unpacked(kind: str, tmp_path: Path) -> None:
    """200 MB in 200 kB, as bytes and as numbers of eight bytes."""
    read, content, labels = READERS[kind]
    root, path = place_for(read, tmp_path)
    for dtype, size in (("u1", 200 * MEGABYTE), ("f8", 25 * MEGABYTE)):
        shape = (size // 784, 28, 28) if kind == "images" else (size // 784, 784)
        zeros(path, {content: (shape, dtype), labels: ((9,), "u1")})
        assert path.stat().st_size < MEGABYTE

        def refused() -> None:
            with pytest.raises(ZooError, match=re.escape(path.name)):
                read(root)

        assert grown(refused) < 100 * MEGABYTE


@pytest.mark.parametrize("kind", READERS)
def test_what_is_within_the_budget_takes_a_small_multiple_of_it(kind: str, tmp_path: Path) -> None:
    """Many tiny samples, long lists of labels and names: 60 MB each of which becomes more in memory."""
    read, content, labels = READERS[kind]
    root, path = place_for(read, tmp_path)
    count = 25 * MEGABYTE
    several = (count, 1, 1) if kind == "images" else (count, 1)
    zeros(path, {content: (several, "u1"), labels: ((count,), "u1"), "class_names": ((count // 4,), "U1")})

    def whatever() -> None:
        with contextlib.suppress(ZooError):
            read(root)

    start = time.monotonic()
    assert grown(whatever) < 1024 * MEGABYTE
    assert time.monotonic() - start < 60


HEADERS = {
    "terabytes": header("(99999999999,)"),
    "more than the file holds": header("(100, 28, 28)") + bytes(100),
    "less than the file holds": header("(1, 2, 2)") + bytes(100),
    "a giant number": header("(" + "9" * 400 + ",)"),
    "a negative side": header("(-1, 4)") + bytes(4),
    "an empty giant": header("(10000000000000, 0)"),
    "texts of no length": header("(10000000000000,)", "<U0"),
    "objects": header("(1,)", "|O") + b"\x80\x02N.",
    "records": header("(1,)", "[('a', '<f8')]") + bytes(8),
    "cut in a bracket": header("((1, 2")[:-3] + b"   ",
    "no tuple": header("5"),
    "no dict": b"\x93NUMPY\x01\x00\x06\x00[1, 2]",
    "no header": b"plain bytes",
    "nothing": b"",
    "another version": b"\x93NUMPY\x09\x00" + bytes(20),
    "one number": array(5),
    "a text": array("word"),
}


@pytest.mark.parametrize("kind", READERS)
@pytest.mark.parametrize("case", HEADERS)
def test_array_headers_that_lie_are_named(case: str, kind: str, tmp_path: Path) -> None:
    read, content, labels = READERS[kind]
    root, path = place_for(read, tmp_path)
    with zipfile.ZipFile(path) as archive:
        good = {name.removesuffix(".npy"): archive.read(name) for name in archive.namelist()}
    for victim in (content, labels):
        if (case, victim) == ("one number", "ra_um"):  # which it is
            continue
        npz(path, {**good, victim: HEADERS[case]})
        with pytest.raises(BadData, match=re.escape(path.name)):
            read(root)


@pytest.mark.parametrize("version", [0, 99, 255])
def test_an_archive_of_another_version_is_named(version: int, tmp_path: Path) -> None:
    root, path = place_for(images, tmp_path)
    damaged = bytearray(path.read_bytes())
    entry = damaged.index(b"PK\x01\x02")
    damaged[entry + 6] = version  # that which is needed to extract
    damaged[entry + 8] |= 1  # encrypted
    path.write_bytes(bytes(damaged))
    with pytest.raises(BadData, match=r"train\.npz"):
        images(root)


def test_arrays_are_what_numpy_wrote(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    arrays = {
        "c": rng.normal(size=(5, 7)),
        "fortran": np.asfortranarray(rng.normal(size=(5, 7, 2)).astype(np.float32)),
        "big": rng.integers(0, 9, 11).astype(">i4"),
        "names": np.array(["a", "bcd"]),
        "bytes": np.array([b"a", b"bcd"]),
        "flags": np.array([True, False]),
        "one": np.array(2.5),
        "empty": np.zeros((0, 4)),
        "complex": np.array([1 + 2j]),
    }
    for write in (np.savez, np.savez_compressed):
        write(tmp_path / "x.npz", **arrays)  # type: ignore[arg-type]
        with open_arrays(tmp_path / "x.npz") as file:
            assert file.names == list(arrays)
            for name in set(arrays) - {"complex"}:
                found = file[name]
                np.testing.assert_array_equal(found, arrays[name])
                assert found.dtype == arrays[name].dtype
                assert found.flags.f_contiguous == arrays[name].flags.f_contiguous
            assert file.get("other") is None
            with pytest.raises(UnreadableError, match="complex: numbers or texts"):
                file["complex"]


def test_a_damaged_array_is_noticed(tmp_path: Path) -> None:
    """The archive's checksum is compared, as by np.load."""
    path = npz(tmp_path / "x.npz", {"a": array(np.arange(1000))})
    damaged = bytearray(path.read_bytes())
    damaged[damaged.index(b"NUMPY") + 500] ^= 4
    path.write_bytes(bytes(damaged))
    with pytest.raises(UnreadableError, match="CRC"), open_arrays(path) as file:
        file["a"]


def test_a_large_file_that_is_not_compressed_is_no_bomb(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    np.savez(path, a=np.zeros(swollen(0) // 8 + 1000))
    with open_arrays(path) as file:
        assert len(file["a"]) == swollen(0) // 8 + 1000
    np.savez_compressed(path, a=np.zeros(swollen(0) // 8 + 1000))
    with pytest.raises(UnreadableError, match=r"np\.savez writes without compression"), open_arrays(path) as file:
        file["a"]


# gzip -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("said", [(10, 28, 28), (1_000_000, 28, 28), (2**32 - 1, 2**32 - 1, 2**32 - 1)])
def test_packed_idx_files_are_read_as_far_as_their_header_says(said: tuple[int, ...], tmp_path: Path) -> None:
    root = ImagesDataModule().fake(tmp_path, "mnist")
    path = next(root.rglob("train-images*"))
    content = bytes([0, 0, 8, 3]) + b"".join(side.to_bytes(4, "big") for side in said) + bytes(784 * MEGABYTE // 4)
    path.write_bytes(gzip.compress(content, 9))
    assert path.stat().st_size < MEGABYTE
    del content

    def refused() -> None:
        with pytest.raises(BadData, match=r"train-images.*size: expected"):
            images(root)

    assert grown(refused) < 100 * MEGABYTE


# XML ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", [10_000, 1_000_000])
def test_nested_xml_is_refused_at_once(depth: int, tmp_path: Path) -> None:
    root = BoxesDataModule().fake(tmp_path, "voc")
    listed = next(root.rglob("ImageSets/Main/train*.txt")).read_text().split()[0]
    victim = next(root.rglob(f"Annotations/{listed}.xml"))
    victim.write_bytes(b"<annotation>" + b"<a>" * depth + b"</a>" * depth + b"</annotation>")
    start = time.process_time()
    with pytest.raises(BadData, match=rf"{listed}\.xml: XML.*nested deeper than 64"):
        BoxesDataModule(root=str(root)).split("train")
    assert time.process_time() - start < 6


def test_large_xml_is_refused_before_it_is_parsed(tmp_path: Path) -> None:
    path = tmp_path / "x.xml"
    path.write_bytes(b"<a>" + b"<b/>" * (5 * MEGABYTE) + b"</a>")

    def refused() -> None:
        with pytest.raises(UnreadableError, match="at most 16,777,216 bytes"):
            read_xml(path)

    assert grown(refused) < 40 * MEGABYTE


# Unequal series -------------------------------------------------------------------------------------------------------


def test_one_long_series_among_many_short_ones_is_refused(tmp_path: Path) -> None:
    """Filled up with zeros they would take 40 GB."""
    for part in ("TRAIN", "TEST"):
        rows = [",".join(["1.5"] * 1_000_000) + ":a", *["1.0,2.5:b"] * 10_000]
        head = "@problemName x\n@timeStamps false\n@equalLength false\n@classLabel true a b\n@data\n"
        (tmp_path / f"Own_{part}.ts").write_text(head + "\n".join(rows))

    def refused() -> None:
        with pytest.raises(BadData, match=r"series 0: expected a length like that of the others \(about 2 points\)"):
            series(tmp_path)

    assert grown(refused) < 400 * MEGABYTE
