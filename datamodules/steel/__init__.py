"""Laser reflection signals of steel strip with the roughness a stylus measured: a folder, or the simulator.

Layout, below `root`:

    splits.csv                          coil,split: train, val, test, or predict (sections without labels)
    coil_<id>/section_<k>.npz           signal (C, L), pitch_um, speed, ra_um, rpc; optionally rq_um, rz_um, tilt,
                                        power, cutoff_mm, tip_um

Coils, never sections, are split: sections of a coil share its roll's texture, and a model that has seen one of them
knows the others. `SteelStripDataModule.fake(folder)` writes a miniature.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch.utils.data import Dataset

from datamodules.base import Problems, ZooDataModule, data_cache
from datamodules.cache import cached_arrays
from datamodules.fitting import small_set
from datamodules.steel.files import find_sections, read_facts, read_sections, write_fake
from datamodules.worlds import steel_strip
from datamodules.worlds.steel_strip import Sections, StripConfig
from zoo.errors import BadInput, RepositoryNotFound, nearest
from zoo.inputs import tables

__all__ = ["META", "TARGETS", "SteelDataset", "SteelStripDataModule"]

META = ("speed", "tilt", "power")
"""What `meta` holds: line speed in m/s, mean tilt in degrees, laser power relative to its nominal one."""

TARGETS = ("ra", "rq", "rz", "rpc")
"""Roughness parameters: the first three in um, RPc in peaks per 10 mm."""

_log = logging.getLogger(__name__)


class SteelDataset(Dataset[dict[str, Any]]):
    """Sections in memory; items are dicts (see `SteelStripDataModule`).

    Args:
        arrays: `signal` (n, C, L), `meta` (n, 3), `coil` (n,), and `ra`, `rq`, `rz`, `rpc` (n,), NaN where unknown.
        labels: whether items have roughness parameters.
        augment: change the signals of training in ways that keep the label.
        seed: of the augmentation.
    """

    def __init__(self, arrays: dict[str, np.ndarray], labels: bool = True, augment: bool = False, seed: int = 0):
        self.arrays, self.labels, self.augment, self.seed, self.epoch = arrays, labels, augment, seed, 0

    def __len__(self) -> int:
        return len(self.arrays["signal"])

    def set_epoch(self, epoch: int) -> None:
        """Draw other changes in each epoch."""
        self.epoch = epoch

    def __getitem__(self, index: int) -> dict[str, Any]:
        signal = self.arrays["signal"][index]
        if self.augment:
            signal = augmented(signal, np.random.default_rng((self.seed, self.epoch, index)))
        item: dict[str, Any] = {
            "index": index,
            "signal": torch.from_numpy(np.array(signal, np.float32)),
            "meta": torch.from_numpy(np.array(self.arrays["meta"][index], np.float32)),
            "coil": int(self.arrays["coil"][index]),
        }
        if self.labels:
            item |= {name: torch.tensor(float(self.arrays[name][index]), dtype=torch.float32) for name in TARGETS}
        return item


def augmented(signal: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Another signal of the same roughness: gain, offset, noise, direction, crop of 90 % (the rest is reflected).

    Time is not stretched: that would change the slopes' distances and so the roughness.
    """
    length = signal.shape[1]
    kept = round(0.9 * length)
    start = int(rng.integers(length - kept + 1))
    cut = np.pad(signal[:, start : start + kept], ((0, 0), (0, length - kept)), mode="reflect")
    if rng.uniform() < 0.5:
        cut = cut[:, ::-1]
    noise = 0.005 * rng.standard_normal(cut.shape)
    return np.clip(rng.uniform(0.7, 1.3) * cut + rng.uniform(0, 0.03) + noise, 0, 1.2).astype(np.float32)


class SteelStripDataModule(ZooDataModule):
    """Sections of steel strip.

    Batch: `index` int64 (B,), `signal` float32 (B, C, L) detector intensities in [0, 1.2] of full scale, `meta` float32
    (B, 3) (see `META`), `coil` int64 (B,), and float32 (B,): `ra`, `rq`, `rz` in um, `rpc` in peaks per 10 mm, NaN
    where a folder has no such label. `predict` has no labels.

    Args:
        root: folder of the data; None for the simulator, whose arguments follow further below.
        format: "folder" (see above), "simulator", or "auto": whichever `root` says.
        batch_size: sections per batch and process.
        num_workers: loader processes.
        seed: order of training, augmentation, which sections have labels; not the simulated world.
        augment: "none" or "light" (gain 0.7-1.3, offset, noise, reversal, crop).
        labelled_fraction: share of the training sections with a label, drawn evenly over the coils.
        train_on: "labelled" sections, or "all" of them, also those without a label (whose parameters are NaN).
        n_coils: simulated coils for training.
        val_coils: simulated coils for validation.
        test_coils: simulated coils for the test.
        sections_per_coil: simulated sections of each coil.
        world_seed: another number gives another world; None: as `seed`.
        cutoff_mm: of the roughness filter, 0.25, 0.8 or 2.5.
        length: L, samples of a simulated section.
        channels: C, simulated detectors.
        pitch_um: distance of two samples in um, a multiple of 4.
        textures: rolls of the coils: some of random, edt, mill.
        gain: laser power at the test, as a factor of that in training.
        offset: background light added at the test, in full scales.
        tilt: tilt of the strip at the test, as a factor of that in training.
        speckle: relative standard deviation of each intensity at the test (0.05 in training).
        test_textures: rolls of the test coils; None: as in training.
        fine: the stylus samples at 1.5 um instead of 4 um.
    """

    input_suffixes: ClassVar[tuple[str, ...]] = tables.SUFFIXES

    def __init__(
        self,
        root: str | None = None,
        format: str = "auto",
        batch_size: int = 64,
        num_workers: int = 0,
        seed: int = 0,
        augment: str = "none",
        labelled_fraction: float = 1.0,
        train_on: str = "labelled",
        n_coils: int = 400,
        val_coils: int = 100,
        test_coils: int = 100,
        sections_per_coil: int = 10,
        world_seed: int | None = 0,
        cutoff_mm: float = 0.8,
        length: int = 256,
        channels: int = 8,
        pitch_um: float = 32.0,
        textures: list[str] | None = None,
        gain: float = 1.0,
        offset: float = 0.0,
        tilt: float = 1.0,
        speckle: float = 0.05,
        test_textures: list[str] | None = None,
        fine: bool = False,
    ) -> None:
        super().__init__(root=root, batch_size=batch_size, num_workers=num_workers, seed=seed)
        _one_of("format", format, ("auto", "folder", "simulator"))
        if format != "auto" and (format == "folder") != (root is not None):
            raise BadInput(f"A folder needs root, the simulator takes none; got format={format!r} and root={root!r}.")
        _one_of("augment", augment, ("none", "light"))
        _one_of("train_on", train_on, ("labelled", "all"))
        if not 0 < labelled_fraction <= 1:
            raise BadInput(f"labelled_fraction: expected above 0 and at most 1, got {labelled_fraction}.")
        for key in ("n_coils", "val_coils", "test_coils", "sections_per_coil"):
            if self.hparams[key] < 1:
                raise BadInput(f"{key}: expected at least 1, got {self.hparams[key]}.")
        for split in ("train", "test"):
            self.world(split)  # refuses what cannot be simulated

    # What the data are --------------------------------------------------------------------------------------------

    def world(self, split: str) -> StripConfig:
        """What the simulator draws for a split."""
        given = self.hparams
        textures = tuple(given["textures"] or ("random", "edt"))
        changed: dict[str, Any] = {}
        if split == "test":
            changed = {key: given[key] for key in ("gain", "offset", "tilt", "speckle")}
            textures = tuple(given["test_textures"] or textures)
        seed = self.seed if given["world_seed"] is None else int(given["world_seed"])
        shape = {"detectors": given["channels"], "length": given["length"], "pitch_um": float(given["pitch_um"])}
        return StripConfig(
            seed=seed, cutoff_mm=float(given["cutoff_mm"]), textures=textures, fine=given["fine"], **shape, **changed
        )

    def _folder(self) -> Path:
        assert self.root is not None
        if not self.root.is_dir():
            raise RepositoryNotFound(
                f"root: expected a folder of coils with splits.csv, but there is nothing at {self.root}."
            )
        return self.root

    @classmethod
    def read_inputs(cls, path: Path, model: Any) -> Iterator[tuple[str, int | None, Any]]:
        """A section as an `.npz` file of the data set, a table (CSV, parquet), or an array of an `.npy` file.

        A table has a row per sample and a column per detector; an array is (detectors, samples), or several sections
        (sections, detectors, samples).
        """
        suffix = path.suffix.lower()
        if suffix in (".csv", ".parquet"):
            yield "", None, tables.read_numbers(path, int(model.hparams["channels"])).T
        elif suffix == ".npy":
            array = np.asarray(tables.read_array(path))
            several = list(array) if array.ndim == 3 else [array]
            for number, section in enumerate(several):
                yield ("", None, section) if len(several) == 1 else ("section", number, section)
        else:
            yield "", None, str(path)

    def read_facts(self) -> dict[str, Any]:
        """Number of detectors and samples, their distance, and the cut-off behind the labels."""
        if self.root is None:
            given = self.hparams
            facts = {k: given[k] for k in ("channels", "length", "pitch_um", "cutoff_mm")}
            return {**facts, "pitch_um": float(facts["pitch_um"]), "cutoff_mm": float(facts["cutoff_mm"])}
        return read_facts(self._folder(), float(self.hparams["cutoff_mm"]))

    def fitting(self, epochs: int) -> dict[str, Any]:
        """Batch and epochs for few sections; length, channels and pitch are facts."""
        return {} if self.root is None else small_set(len(self.split("train")), self.batch_size, epochs)  # type: ignore[arg-type]

    # Data sets ----------------------------------------------------------------------------------------------------

    def prepare_data(self) -> None:
        """Simulate what is needed once per machine (Lightning calls this on one process only)."""
        if self.root is None:
            doing = str(getattr(getattr(getattr(self, "trainer", None), "state", None), "fn", None))
            for split in {"validate": ("val",), "test": ("test",), "predict": ("test",)}.get(doing, ("train", "val")):
                self.sections(split)

    def sections(self, split: str) -> dict[str, np.ndarray]:
        """Arrays of a split: those of `Sections` for the simulator, those of the files for a folder.

        Raises:
            BadData: naming every broken file.
        """
        if self.root is not None:
            return self._read(split)
        given, world = self.hparams, self.world(split)
        coils = int(given[{"train": "n_coils"}.get(split, f"{split}_coils")])
        each = int(given["sections_per_coil"])
        key = {**asdict(world), "split": split, "coils": coils, "each": each, "version": steel_strip.VERSION}
        digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:20]

        def make() -> dict[str, np.ndarray]:
            if coils * each > 1000:
                _log.info(
                    "Simulating %d sections of steel strip (%s), about %.0f s",
                    coils * each,
                    split,
                    0.003 * coils * each,
                )
            drawn: Sections = steel_strip.render(world, split, range(coils), each)
            return {name: getattr(drawn, name) for name in Sections.__dataclass_fields__}

        return cached_arrays(data_cache() / "steel-strip" / f"{split}-{coils}x{each}-{digest}.npz", make)

    def _read(self, split: str) -> dict[str, np.ndarray]:
        problems = Problems(self._folder())
        facts = self.facts()
        where = find_sections(self._folder(), split, problems)
        arrays = read_sections(where, facts["channels"], facts["length"], split != "predict", problems)
        problems.raise_if_any()
        return arrays

    def dataset(self, split: str) -> SteelDataset:
        """Build one split."""
        if split == "predict":
            own = self.root is not None and find_sections(self._folder(), "predict", Problems(self._folder()))
            return SteelDataset(self.sections("predict" if own else "test"), labels=False)
        arrays = self.sections(split)
        if split != "train":
            return SteelDataset(arrays)
        known = self._labelled(arrays["coil"])
        if self.hparams["train_on"] == "all":
            # their labels must not leak into anything
            hidden = {name: np.where(known, arrays[name], np.float32("nan")) for name in TARGETS}
            arrays = {**arrays, **hidden}
        else:
            arrays = {name: array[known] for name, array in arrays.items()}
        return SteelDataset(arrays, augment=self.hparams["augment"] == "light", seed=self.seed)

    def _labelled(self, coil: np.ndarray) -> np.ndarray:
        """Which training sections have a label: (n,) bool; as many of each coil as possible."""
        count = max(1, round(float(self.hparams["labelled_fraction"]) * len(coil)))
        rng = np.random.default_rng((self.seed, 17))
        order = rng.permutation(len(coil))
        turn = np.zeros(len(coil), np.int64)  # how many of the same coil come before it
        for one in np.unique(coil):
            mine = order[coil[order] == one]
            turn[mine] = np.arange(len(mine))
        chosen = order[np.argsort(turn[order], kind="stable")][:count]
        return np.isin(np.arange(len(coil)), chosen)

    def fake(self, folder: str | Path, format: str | None = None) -> Path:
        """Write a miniature of the layout into `folder` and return it: six coils, a few sections each."""
        _one_of("format", format or "folder", ("folder",))
        given = self.hparams
        config = StripConfig(
            detectors=given["channels"], length=given["length"], pitch_um=float(given["pitch_um"]), cutoff_mm=0.25
        )
        return write_fake(Path(folder), config)


def _one_of(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise BadInput(f"{name}: expected one of {', '.join(known)}, got {value!r}.{nearest(value, known)}")
