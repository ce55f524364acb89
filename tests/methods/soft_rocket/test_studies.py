"""What the studies of soft-rocket compare with: features of aeon, and the accuracies that it reaches."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from toys.rocket import responses

import zoo
from zoo.errors import BadInput
from zoo.methods.soft_rocket import studies
from zoo.nn.rocket import Kernels, Rocket

AEON = Path(zoo.__file__).parent / "methods" / "soft_rocket" / "aeon"
KERNELS = ("weights", "lengths", "biases", "dilations", "paddings", "channel_counts", "channels")
SETS = ("GunPoint", "BasicMotions", "ItalyPowerDemand")


@pytest.fixture(scope="module")
def aeon() -> dict[str, np.ndarray]:
    with np.load(AEON / "features.npz") as file:
        return {name: file[name] for name in file.files}


@pytest.mark.parametrize("name", SETS)
def test_equals_aeon(aeon: dict[str, np.ndarray], name: str) -> None:
    x = aeon[f"{name}.x"]
    kernels = Kernels(*(aeon[f"{name}.{key}"] for key in KERNELS))
    found = Rocket.from_kernels(kernels, x.shape[1])(torch.from_numpy(x)).numpy()
    wanted = aeon[f"{name}.features"]
    assert np.abs(found[:, 1::2] - wanted[:, 1::2]).max() < 1e-4
    exact = responses(kernels, x)
    for i, z in enumerate(exact):
        unsure = (np.abs(z) < 1e-5).sum(1)  # rounding decides on which side of 0 they fall
        apart = np.abs(found[:, 2 * i] - wanted[:, 2 * i]) * z.shape[1]
        assert (apart <= unsure + 1e-3).all(), f"kernel {i}"


@pytest.mark.parametrize("name", SETS)
def test_exactness_sees_a_kernel_that_differs(
    aeon: dict[str, np.ndarray], name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert studies.exactness(name).metrics["largest_difference"] < 1e-4
    other = {key: value.copy() for key, value in aeon.items()}
    other[f"{name}.biases"][7] += 0.25
    np.savez(tmp_path / "features.npz", **other)
    monkeypatch.setattr(studies, "_AEON", tmp_path)
    assert studies.exactness(name).metrics["largest_difference"] == pytest.approx(0.25, rel=1e-3)


def small_set(folder: Path, name: str, seed: int) -> None:
    """Two classes of noisy sines, in the layout of the archive."""
    draw = torch.Generator().manual_seed(seed)
    (folder / name).mkdir(parents=True)
    for part in ("TRAIN", "TEST"):
        label = torch.arange(12) % 2
        wave = torch.sin(torch.arange(30) * (0.3 + 0.4 * label[:, None])) + 0.1 * torch.randn(12, 30, generator=draw)
        rows = ["\t".join([str(int(k)), *(f"{v:.5f}" for v in row)]) for k, row in zip(label, wave, strict=True)]
        (folder / name / f"{name}_{part}.tsv").write_text("\n".join(rows) + "\n")


@pytest.mark.parametrize("large", [False, True])
def test_archive_compares_with_the_accuracies_of_aeon(
    large: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs: dict[str, Any] = {"Adiac": 0.75, "Plane": 0.5}
    (tmp_path / f"accuracy{'_large' * large}.json").write_text(json.dumps({"accuracy": theirs}))
    monkeypatch.setattr(studies, "_AEON", tmp_path)
    small_set(tmp_path / "a", "Adiac", 0)
    with pytest.raises(BadInput, match="Plane is in neither"):
        studies.archive(str(tmp_path / "a"), str(tmp_path / "h"), large, kernels=50)
    small_set(tmp_path / "h", "Plane", 1)
    found = studies.archive(str(tmp_path / "a"), str(tmp_path / "h"), large, kernels=50)
    assert found.metrics == {"difference": 0.375, "rank": 1.0, "sets": 2.0}, "both sets are easy: 1 - 0.75 and 1 - 0.5"


def test_the_published_comparison_is_installed_with_the_method() -> None:
    for name, count in (("accuracy.json", 61), ("accuracy_large.json", 14)):
        assert len(json.loads((AEON / name).read_text())["accuracy"]) == count
    assert (AEON / "LICENSE.txt").is_file()
