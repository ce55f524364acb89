"""Values of kinds that no file should hold: named, wherever they stand."""

from __future__ import annotations

import io
import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from datamodules.boxes.records import image_size
from datamodules.images import ImagesDataModule
from datamodules.steel import SteelStripDataModule
from zoo.claims.results import read_results
from zoo.errors import BadData, ZooError
from zoo.inputs import UnreadableError
from zoo.inputs.json_files import parse_json, read_json
from zoo.methods.steel_roughness.inputs import read_section


def section(path: Path, **values: Any) -> Path:
    rng = np.random.default_rng(0)
    held = {"signal": rng.random((2, 64), np.float32), "speed": 6.0, "tilt": 0.0, "power": 1.0, "ra_um": 1.0, **values}
    np.savez(path, **held)
    return path


@pytest.mark.parametrize("value", ["fast", np.array([1.0, 2.0]), np.nan, np.array("1970-01-01", "M8[s]").astype("U")])
def test_the_speed_of_a_section_is_a_number(value: Any, tmp_path: Path) -> None:
    with pytest.raises(ZooError, match=r"section\.npz.*speed: expected a number"):
        read_section(section(tmp_path / "section.npz", speed=value), 0, 2, None, True)
    assert read_section(section(tmp_path / "section.npz", speed=np.array([[7.0]])), 0, 2, None, True)[1][0] == 7.0


def test_a_label_in_brackets_is_a_number(tmp_path: Path) -> None:
    root = SteelStripDataModule(length=64).fake(tmp_path)
    path = sorted(root.glob("coil_000/*.npz"))[0]
    with np.load(path) as held:
        arrays = {name: held[name] for name in held.files}
    np.savez(path, **(arrays | {"ra_um": np.array([[2.5]])}))
    data: Any = SteelStripDataModule(root=str(root))
    assert 2.5 in {float(data.split("train")[i]["ra"]) for i in range(len(data.split("train")))}
    np.savez(path, **(arrays | {"ra_um": np.array(["rough"])}))
    with pytest.raises(BadData, match="ra_um: expected a number above 0, got rough"):
        SteelStripDataModule(root=str(root)).split("train")


def test_a_label_beyond_all_classes(tmp_path: Path) -> None:
    labels = np.array([0, 1, 2_000_000_000])
    np.savez(tmp_path / "train.npz", images=np.zeros((3, 8, 8), np.uint8), labels=labels)
    with pytest.raises(BadData, match=r"train\.npz: labels: expected 0 to 99999, got 0 to 2000000000"):
        ImagesDataModule(root=str(tmp_path)).facts()


def test_pixels_before_the_orientation_are_damaged(tmp_path: Path) -> None:
    raw = io.BytesIO()
    Image.new("RGB", (40, 30)).save(raw, "PNG")
    content = raw.getvalue()
    start = content.index(b"IDAT")
    size = int.from_bytes(content[start - 4 : start], "big")
    broken = b"\x00" * size
    checksum = zlib.crc32(b"IDAT" + broken).to_bytes(4, "big")
    path = tmp_path / "a.png"
    path.write_bytes(content[: start + 4] + broken + checksum + content[start + 8 + size :])
    with pytest.raises(UnreadableError, match="to its end"):
        image_size(path)


@pytest.mark.parametrize("text", ['{"runs": {}, "format": null}', '{"runs": {}, "format": []}', "[" * 100_000, "[]"])
def test_results_of_another_format(text: str, tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_text(text)
    with pytest.raises(ZooError, match=r"results\.json"):
        read_results(path)


def test_json_is_read_as_python_reads_it(tmp_path: Path) -> None:
    value = {"a": [1, -2.5, True, None, '[[[{\\"'], "b": {"c": [[1, 2], {}]}, "n": 123456789012345678}
    for coding in ("utf-8", "utf-8-sig", "utf-16"):
        (tmp_path / "a.json").write_text(json.dumps(value), encoding=coding)
        assert read_json(tmp_path / "a.json") == value
    assert parse_json("[" * 64 + "]" * 64) == json.loads("[" * 64 + "]" * 64)
    assert parse_json(f'["{"[" * 100}", [], "\\"{"{" * 90}"]')[1] == []
    with pytest.raises(UnreadableError, match="nested deeper than 64"):
        parse_json("[" * 65 + "]" * 65)
    assert parse_json("[1" + "0" * 400 + "]") == [float("inf")]
    assert parse_json("[-" + "9" * 5000 + ', 1, "1234567890123456789012"]') == [
        float("-inf"),
        1,
        "1234567890123456789012",
    ]
    (tmp_path / "a.json").write_bytes(b"")
    with pytest.raises(UnreadableError, match="an empty file"):
        read_json(tmp_path / "a.json")
