"""Pictures made to harm: programs under a picture's name, and small files that unpack to gigabytes."""

from __future__ import annotations

import re
import struct
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from memory import grown
from PIL import Image

from datamodules.boxes import BoxesDataModule
from datamodules.images import ImagesDataModule
from zoo.errors import BadInput, ZooError
from zoo.inputs.images import FORMATS, SUFFIXES, _cost, open_picture, read_image

MEGABYTE = 1 << 20

POSTSCRIPT = b"""%!PS-Adobe-3.0 EPSF-3.0
%%BoundingBox: 0 0 64 64
%%EndComments
newpath 0 0 moveto 64 64 lineto stroke
showpage
"""


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that is there once a program called gs has been run."""
    log, folder = tmp_path / "gs-was-run", tmp_path / "bin"
    folder.mkdir()
    (folder / "gs").write_text(f"#!{sys.executable}\nopen({str(log)!r}, 'a').write('run')\nprint('10.0')\n")
    (folder / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))
    from PIL import EpsImagePlugin

    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)  # Pillow looks for the program once
    return log


def class_folders(folder: Path, content: bytes) -> Path:
    for name in ("a", "b"):
        place = folder / "train" / name
        place.mkdir(parents=True)
        for i in range(4):
            (place / f"{i}.png").write_bytes(content)
    return folder


def boxes(folder: Path, content: bytes) -> Path:
    root = BoxesDataModule().fake(folder, "coco")
    for path in root.rglob("*.jpg"):
        path.write_bytes(content)
    return root


@pytest.mark.parametrize("name", ["x.png", "x.jpg", "x.eps"])
def test_no_program_is_run_on_a_picture(name: str, tmp_path: Path, calls: Path) -> None:
    path = tmp_path / name
    path.write_bytes(POSTSCRIPT)
    with Image.open(path) as image, pytest.raises(Exception, match=r".*"):  # Pillow alone would run it
        image.load()
    assert calls.exists(), "the test has no program to guard against"
    calls.unlink()
    with pytest.raises(BadInput, match=re.escape(str(path))):
        read_image(path)
    assert not calls.exists()


def test_no_program_is_run_on_a_data_set(tmp_path: Path, calls: Path) -> None:
    with pytest.raises(ZooError, match=r"0\.png"):
        ImagesDataModule(root=str(class_folders(tmp_path / "images", POSTSCRIPT)), format="folders").facts()
    with pytest.raises(ZooError, match=r"\.jpg: image: expected an image in a known format"):
        BoxesDataModule(root=str(boxes(tmp_path / "boxes", POSTSCRIPT)), format="coco").split("train")
    unchecked = BoxesDataModule(root=str(tmp_path / "boxes"), format="coco", check_images=False)
    with pytest.raises(ZooError, match=r"\.jpg"):
        unchecked.split("train")[0]
    assert not calls.exists()


def test_every_listed_ending_opens_and_no_other_format_does(tmp_path: Path) -> None:
    picture = Image.new("RGB", (8, 8))
    for suffix in SUFFIXES:
        picture.save(tmp_path / f"x{suffix}")
        with open_picture(tmp_path / f"x{suffix}") as image:
            assert image.format in FORMATS
    for format in ("PCX", "ICO", "TGA", "SGI", "ICNS", "PDF", "EPS"):
        path = tmp_path / "other.png"
        Image.new("RGB", (32, 32)).save(path, format=format)
        with pytest.raises(BadInput, match="known format"):
            read_image(path)


def test_pillow_opens_files_in_no_other_way(checkout: Path) -> None:
    """Whoever opens a picture says which formats are meant."""
    opened = re.compile(r"Image\.open\((?:[^()]|\([^()]*\))*\)")
    for folder in ("zoo", "datamodules"):
        for path in sorted((checkout / folder).rglob("*.py")):
            for call in opened.findall(path.read_text(encoding="utf-8")):
                assert "formats=" in call, f"{path.relative_to(checkout)}: {call}"


# Bombs ----------------------------------------------------------------------------------------------------------------


def png(side: int, bits: int, colour: int, extra: bytes = b"") -> bytes:
    """A black PNG whose rows compress to almost nothing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    samples = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    row = b"\0" * (1 + (side * bits * samples + 7) // 8)
    packer = zlib.compressobj(9)
    body = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()
    header = struct.pack(">IIBBBBB", side, side, bits, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def transparent(bits: int) -> bytes:
    data = struct.pack(">H", 0)
    return struct.pack(">I", 2) + b"tRNS" + data + struct.pack(">I", zlib.crc32(b"tRNS" + data))


def gif(side: int) -> bytes:
    """A GIF that ends where its pixels should begin."""
    screen = b"GIF89a" + struct.pack("<HHBBB", side, side, 0x80, 0, 0) + b"\0\0\0\xff\xff\xff"
    control = b"!\xf9\x04\x01\0\0\0\0"
    return screen + control + b"," + struct.pack("<HHHHB", 0, 0, side, side, 0) + b"\x02\x02\x4c\x01\x00;"


BOMBS: dict[str, Callable[[], bytes]] = {
    "one bit, transparent": lambda: png(13_300, 1, 0, transparent(1)),
    "16 bits": lambda: png(13_300, 16, 0),
    "transparent colours": lambda: png(13_300, 8, 6),
    "palette": lambda: gif(13_300),
    "more pixels than Pillow takes": lambda: gif(60_000),
}


@pytest.mark.parametrize("case", BOMBS)
def test_picture_bombs_are_refused_before_they_are_decoded(case: str, tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(BOMBS[case]())
    assert path.stat().st_size < 2 * MEGABYTE

    def refused() -> None:
        with pytest.raises(BadInput, match=r"x\.png: expected at most \d+ megapixels, which take 1024 MiB to decode"):
            read_image(path)

    assert grown(refused) < 50 * MEGABYTE


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "CMYK", "RGBA", "LA", "I;16", "F"])
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif", ".gif"])
def test_the_largest_pictures_that_are_decoded_stay_within_the_budget(mode: str, suffix: str, tmp_path: Path) -> None:
    """A sixteenth of a gibibyte instead of one: the costs per pixel are constants."""
    side = 2048
    if mode in ("I;16", "F"):
        picture = Image.fromarray(np.zeros((side, side), np.uint16 if mode == "I;16" else np.float32))
    else:
        picture = Image.new("L", (side, side), 7).convert(mode)
    path, small = tmp_path / f"x{suffix}", tmp_path / f"small{suffix}"
    exif = Image.Exif()
    exif[0x0112] = 6
    try:
        picture.save(path, **({"exif": exif} if suffix in (".jpg", ".png") else {}))
        picture.crop((0, 0, 8, 8)).save(small)
    except (OSError, ValueError):
        pytest.skip("no such files")
    read_image(small)  # loads the libraries
    with open_picture(path) as image:
        allowed = _cost(image) * side**2
    assert grown(lambda: read_image(path)) < allowed + 3 * MEGABYTE


def test_png_with_a_part_of_gigabytes(tmp_path: Path) -> None:
    """What stands in front of a part says how long it is; Pillow asks for that much memory at the end of a picture."""
    path = tmp_path / "x.png"
    Image.new("RGB", (64, 64), "red").save(path)
    data = path.read_bytes()
    place = data.index(b"IDAT") - 4
    path.write_bytes(data[:place] + struct.pack(">I", (2 << 30) - 1) + data[place + 4 :])

    def refused() -> None:
        with pytest.raises(BadInput, match=r"x\.png: .*a part of 2,147,483,647 bytes in a file of"):
            read_image(path)

    assert grown(refused) < 50 * MEGABYTE
