"""What the guides print is done: every command and snippet, in the order of its page, from a user's own folder.

Trainings are cut to two batches and one process; nothing else is changed. What needs a network, several machines, or
hours is listed in `ELSEWHERE`, with where it is tested instead; a line that is neither done nor listed fails.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning import Trainer
from PIL import Image

import zoo
from datamodules.boxes import BoxesDataModule
from zoo import cli, training

ROOT = Path(__file__).parents[1]
PAGES = ["README.md", *(f"docs/{name}.md" for name in ("own-data", "robustness", "series", "trajectories", "claims"))]
PAGES += [f"docs/{name}.md" for name in ("closed-networks", "multi-gpu", "sharing", "predict", "federated")]
_BLOCK = re.compile(r"^```(python|bash)\n(.*?)^```$", re.MULTILINE | re.DOTALL)

SHORT = ["--trainer.max_epochs=1", "--trainer.limit_train_batches=2", "--trainer.limit_val_batches=1"]
SHORT += ["--trainer.limit_test_batches=1", "--trainer.accelerator=cpu", "--trainer.devices=1", "--trainer.num_nodes=1"]
SHORT += ["--trainer.strategy=auto", "--trainer.precision=32-true", "--data.num_workers=0"]

ELSEWHERE = {
    r"make (demo|test)": "by hand before each release: they install",
    r"pip |hf |export |#|curl ": "of other programs",
    r"torchrun|srun|python -m torch": "several processes or machines: tests/conformance/test_ranks.py",
    r"zoo (new|bundle|card) ": "they write into a checkout: tests/cli, tests/card",
    r"find .* \|": "a pipe of the shell: tests/cli/test_predict.py",
    r"pytest": "the tests themselves",
    r"python benchmarks/": "hours; tests/test_benchmarks.py runs them on small sizes",
    r"python (?!train\.py)": "programs of the user's, written above in the page",
    r"zoo (push|publish|pull)": "the Hub: tests/hub",
    r"zoo predict .*film\.mp4": "a video needs the extra: tests/cli/test_predict.py",
    r"zoo data fetch": "publishers' servers: tests/data",
    r"zoo reproduce \S+ (?!--dry-run|.*--dry-run)": "training for hours: tests/claims",
    r"zoo verify NAME|zoo evaluate (NAME|runs/NAME)": "names to be filled in: tests/cli",
    r"zoo convert |zoo evaluate wrn-34-r": "a published file of another project: tests/store/test_conversion.py",
    r"zoo train robust-wrn:cifar10-34-r-extra": "data of 1.5 GB: tests/data/test_images_extra.py",
    r"flwr|flower-|openssl|zoo .*--flower": "a server and its clients: tests/federated",
}
SKIPPED_PYTHON = ("hf://", "flwr", "ServerApp", "ClientApp")
"""Words of snippets that need the Hub or servers."""


def blocks(page: str) -> list[tuple[str, str]]:
    return _BLOCK.findall((ROOT / page).read_text(encoding="utf-8"))


def lines(block: str) -> list[list[str]]:
    """Commands of a block as words: continued lines joined, comments left out, scripts of batch systems not read."""
    if block.startswith("#!"):
        return []
    joined = block.replace("\\\n", " ")
    return [words for line in joined.splitlines() if (words := shlex.split(line, comments=True))]


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A user's folder with own data, and the names that snippets take for granted."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    rng = np.random.default_rng(0)
    for name in ("my_data", "my_coco"):
        BoxesDataModule(img_size=64).fake(tmp_path / name, "coco")
    pixels = rng.integers(0, 255, (120, 160, 3), dtype=np.uint8)
    for name in ("street.jpg", "picture.jpg", "image.jpg"):
        Image.fromarray(pixels).save(tmp_path / name)
    for name in "abcd":
        for number in range(60):
            (tmp_path / "my_images" / name).mkdir(parents=True, exist_ok=True)
            grey = rng.integers(0, 255, (28, 28), dtype=np.uint8)
            Image.fromarray(grey).save(tmp_path / "my_images" / name / f"{number}.png")
    (tmp_path / "mine.yaml").write_text("model: {lr: 0.002}\n")
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 8 * 8, 4))
    return {
        "zoo": zoo,
        "lightning": __import__("lightning"),
        "array": pixels,
        "pil_image": Image.fromarray(pixels),
        "mean": [0.5] * 3,
        "std": [0.2] * 3,
        "my_network": network,
        "images": torch.rand(8, 3, 8, 8),
        "labels": torch.randint(4, (8,)),
        "data": (torch.rand(8, 3, 8, 8), torch.randint(4, (8,))),
        "my_loss": "ce",
    }


@contextmanager
def short_trainers() -> Iterator[None]:
    """Trainers of snippets do two batches in one process; the command line has flags for that."""
    original = Trainer.__init__

    def short(self: Trainer, *args: Any, **options: Any) -> None:
        cut = {"max_epochs": 1, "limit_train_batches": 2, "limit_val_batches": 1, "limit_test_batches": 1}
        options = {k: v for k, v in options.items() if k not in ("devices", "strategy", "precision", "num_nodes")}
        original(self, *args, **{**options, **cut, "accelerator": "cpu", "devices": 1})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "__init__", short)
        yield


def listed(line: str) -> bool:
    return any(re.match(pattern, line) for pattern in ELSEWHERE)


def do(words: list[str]) -> None:
    """One command, as printed; trainings are cut."""
    line = " ".join(words)
    if words[:2] == ["python", "train.py"]:
        code = training.main([*words[2:], *SHORT])
    elif words[0] == "zoo":
        cut = SHORT if words[1] == "train" and not {"--help", "--print_config"} & set(words) else []
        if cut and "--data.root" not in words and "--ckpt_path" not in words:
            cut = [*cut, "--data.train_size=32", "--data.val_size=8"]  # thousands of pictures are drawn otherwise
        try:
            code = cli.main([*words[1:], *cut])
        except SystemExit as end:  # --help, --print_config
            code = int(end.code or 0)
    else:
        raise AssertionError(f"{line}: neither done nor listed")
    assert code == 0, f"{line}: ended with {code}"


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.filterwarnings("ignore")
def test_what_a_page_prints(page: str, desk: dict[str, Any]) -> None:
    done = 0
    for kind, block in blocks(page):
        if kind == "python":
            if not any(word in block for word in SKIPPED_PYTHON):
                with short_trainers():
                    exec(compile(block, page, "exec"), desk)
                done += 1
            continue
        for words in lines(block):
            if not listed(" ".join(words)):
                do(words)
                done += 1
    assert done or page in ("docs/multi-gpu.md", "docs/sharing.md"), f"{page}: nothing was done"
