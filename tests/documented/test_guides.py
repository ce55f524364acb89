"""What the guides print is done: every command and snippet, in the order of its page, from a user's own folder.

Lines that need a network, several machines or hours say so in a comment above their block, and where they are tested.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning
import numpy as np
import pytest
import torch
from documented.blocks import ROOT, blocks_of, commands, pages
from documented.place import Place, picture, run_block
from PIL import Image

import zoo
from datamodules.boxes import BoxesDataModule
from zoo import index

GUIDES = [path for path in pages() if path.parent in (ROOT, ROOT / "docs")]
WRITING = {"add-a-method.md"}
"""Pages whose lines write into a checkout; tests/cli/test_add_a_method.py follows them in a copy of it."""

FEW = ("--data.train_size=32", "--data.val_size=8")
"""Of data that are rendered, where a line brings none of its own: thousands of pictures are drawn otherwise."""

WORDS = {"NAME:TAG": f"rslad:{index.info('rslad').default}"}


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """A user's folder with own data, and the names that snippets take for granted."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    place = Place(tmp_path, monkeypatch, FEW)
    for name in ("my_data", "my_coco"):
        BoxesDataModule(img_size=64).fake(tmp_path / name, "coco")
    for name in ("street.jpg", "picture.jpg", "image.jpg"):
        picture(tmp_path / name)
    rng = np.random.default_rng(0)
    for name in "abcd":
        for number in range(60):
            (tmp_path / "my_images" / name).mkdir(parents=True, exist_ok=True)
            grey = rng.integers(0, 255, (28, 28), dtype=np.uint8)
            Image.fromarray(grey).save(tmp_path / "my_images" / name / f"{number}.png")
    (tmp_path / "mine.yaml").write_text("model: {lr: 0.002}\n")
    pixels = rng.integers(0, 255, (120, 160, 3), dtype=np.uint8)
    place.names |= {
        "zoo": zoo,
        "lightning": lightning,
        "array": pixels,
        "pil_image": Image.fromarray(pixels),
        "mean": [0.5] * 3,
        "std": [0.2] * 3,
        "my_network": torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 8 * 8, 4)),
        "images": torch.rand(8, 3, 8, 8),
        "labels": torch.randint(4, (8,)),
        "data": (torch.rand(8, 3, 8, 8), torch.randint(4, (8,))),
        "my_loss": "ce",
    }
    return place


def lines_of(page: Path) -> list[Any]:
    """What there is to be done on a page."""
    blocks = [b for b in blocks_of(page) if b.why_not("") is None]
    return [line for b in blocks for line in commands(b.code) if b.why_not(line) is None]


@pytest.mark.parametrize("page", [p for p in GUIDES if lines_of(p) and p.name not in WRITING], ids=lambda p: p.name)
@pytest.mark.filterwarnings("ignore")
def test_what_a_page_prints(page: Path, desk: Place) -> None:
    for block in blocks_of(page):
        run_block(block, desk, WORDS)
