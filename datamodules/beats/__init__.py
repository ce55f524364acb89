"""Heartbeats: simulated, of PhysioNet recordings (`wfdb`, extra `medical`), or of tables of beats that are cut already.

    root=None                simulated patients (`datamodules.worlds.ecg_beats`)
    format wfdb              100.hea, 100.dat, 100.atr below root, as in MIT-BIH; patient001/s0010_re.* as in PTB
    format ts, tsv, npz      NAME_TRAIN and NAME_TEST as `datamodules.series` reads them, a beat a row, such as ECG5000

No patient is in two splits: beats of one patient look alike, and a model that has seen some of them knows the others.
`split=intra` mixes them on purpose, as much of the literature does. Each beat is scaled to [0, 1] by the minimum and
range of its recording, which stay in the batch; a table knows no recordings, so each beat has its own.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch.utils.data import Dataset

from datamodules.base import Problems, ZooDataModule, data_cache
from datamodules.beats.fake import write_records, write_tables
from datamodules.beats.records import (
    AAMI,
    DIAGNOSES,
    DS1,
    DS2,
    Beats,
    beats_of_file,
    find_records,
    join,
    patient_of,
    read_beats,
    share_records,
)
from datamodules.cache import cached_arrays
from datamodules.fitting import small_set
from datamodules.series import SeriesDataModule
from datamodules.series.table import share_out
from datamodules.worlds import ecg_beats as world
from zoo import checks
from zoo.errors import BadData, BadInput

__all__ = ["AAMI", "DIAGNOSES", "DS1", "DS2", "FORMATS", "BeatsDataModule", "BeatsDataset", "beats_of_file"]

FORMATS = ("auto", "simulator", "wfdb", "ts", "tsv", "npz")
_TABLES = ("ts", "tsv", "npz")
_NUMBER = {"train": 0, "val": 1, "test": 2}


class BeatsDataset(Dataset[dict[str, Any]]):
    """Beats in memory; items are dicts (see `BeatsDataModule`).

    Args:
        beats: of one split, in mV or the table's unit.
        labelled: whether items have labels.
    """

    def __init__(self, beats: Beats, labelled: bool = True) -> None:
        span = np.maximum(beats.span, np.finfo(np.float32).tiny)
        scaled = np.clip((beats.beat - beats.low[:, None]) / span[:, None], 0, 1)
        self.series = torch.from_numpy(scaled.astype(np.float32))[:, None]
        self.beats, self.labelled = beats, labelled

    def __len__(self) -> int:
        return len(self.series)

    def __getitem__(self, index: int) -> dict[str, Any]:
        item: dict[str, Any] = {"index": index, "series": self.series[index]}
        if self.labelled:
            item["label"] = int(self.beats.label[index])
        values = {name: torch.tensor(float(getattr(self.beats, name)[index])) for name in ("rr", "low", "span")}
        return item | {"patient": int(self.beats.patient[index])} | values


class BeatsDataModule(ZooDataModule):
    """Beats of an electrocardiogram, one lead.

    Batch: `index` int64 (B,), `series` float32 (B, 1, L) in [0, 1] with the R peak at point L // 2, `label` int64 (B,),
    `patient` int64 (B,), -1 where unknown, and float32 (B,): `rr` seconds since the beat before (0 where unknown),
    `low` and `span`, minimum and range in mV: series * span + low is the beat in mV, and eps * span is eps in mV.

    Args:
        root: folder of recordings or tables; None for simulated patients.
        format: simulator, wfdb, ts, tsv, npz, or auto to find out.
        name: of the table, where the folder has several.
        batch_size: beats per batch and process.
        num_workers: loader processes.
        seed: order of the training beats.
        lead: of recordings, such as MLII or ii; empty for the first of MLII, II, ECG, or else the first channel.
        rate: samples a second; recordings of another rate are resampled.
        length: L, points of a beat that is cut from a recording or simulated.
        target: of recordings, the class of each beat (`beats`), or `diagnosis`: normal or abnormal.
        split: `inter`: no patient in two splits; `intra`: the beats of all patients are mixed.
        val_share: share of the training patients (of a table: beats) for validation.
        resplit: of a table: join both files and draw this share of each class for training and validation.
        split_seed: of these draws.
        train_size: simulated beats for training.
        val_size: simulated beats for validation.
        test_size: simulated beats for the test.
        beats_per_patient: simulated beats of each patient.
        world_seed: other numbers give other patients.
    """

    input_suffixes: ClassVar[tuple[str, ...]] = (".hea", *SeriesDataModule.input_suffixes)

    describes_data: ClassVar[tuple[str, ...]] = (
        *ZooDataModule.describes_data,
        "name",
        "resplit",
        "split_seed",
        "split",
        "target",
        "lead",
    )

    def __init__(
        self,
        root: str | None = None,
        format: str = "auto",
        name: str | None = None,
        batch_size: int = 64,
        num_workers: int = 0,
        seed: int = 0,
        lead: str = "",
        rate: float = world.RATE,
        length: int = world.LENGTH,
        target: str = "beats",
        split: str = "inter",
        val_share: float = 0.2,
        resplit: float | None = None,
        split_seed: int = 0,
        train_size: int = 8000,
        val_size: int = 2000,
        test_size: int = 4000,
        beats_per_patient: int = 40,
        world_seed: int = 0,
    ) -> None:
        super().__init__(root, batch_size, num_workers, seed)
        checks.one_of("format", format, FORMATS)
        checks.one_of("target", target, ("beats", "diagnosis"))
        checks.one_of("split", split, ("inter", "intra"))
        checks.at_least("rate", rate, 50)
        checks.at_least("length", length, 16)
        for key in ("train_size", "val_size", "test_size", "beats_per_patient"):
            checks.at_least(key, self.hparams[key], 1)
        if not 0 <= val_share < 1 or (resplit is not None and not 0 < resplit < 1):
            raise BadInput(f"val_share must lie in [0, 1) and resplit in (0, 1), got {val_share} and {resplit}.")
        self._tables: SeriesDataModule | None = None
        self._records: dict[str, Beats] = {}

    @classmethod
    def from_arrays(
        cls, train: tuple[Any, Any], test: tuple[Any, Any] | None = None, **options: Any
    ) -> BeatsDataModule:
        """Use beats that are cut already.

        Args:
            train: beats (M, L) or (M, 1, L) in any unit, or a table with one in each row, and M labels.
            test: the same; None: a third of `train`, drawn by `split_seed`.
            options: arguments of the class.

        Raises:
            BadInput: for other shapes.
        """
        made = cls(**{"resplit": 2 / 3 if test is None else None, **options})
        given = {key: made.hparams[key] for key in ("val_share", "resplit", "split_seed")}
        made._tables = SeriesDataModule.from_arrays(train, test, target="label", unequal="refuse", **given)
        return made

    @classmethod
    def read_inputs(cls, path: Path, model: Any) -> Iterator[tuple[str, int | None, Any]]:
        """All beats of a WFDB recording, or the rows of a table of beats."""
        if path.suffix.lower() == ".hea":
            for number, beat in enumerate(model.split_inputs(str(path))):
                yield "beat", number, beat
        else:
            yield from SeriesDataModule.read_inputs(path, model)

    # What the data are --------------------------------------------------------------------------------------------

    @property
    def kind(self) -> str:
        """`simulator`, `wfdb` or `tables`.

        Raises:
            BadInput: if the format and the folder contradict each other.
        """
        given = self.hparams["format"]
        if self._tables is not None:
            return "tables"
        if self.root is None:
            if given not in ("auto", "simulator"):
                raise BadInput(f"format={given} reads files: set data.root, or data.format=simulator.")
            return "simulator"
        if given == "simulator":
            raise BadInput(f"The simulator reads no folder: leave data.root out, or data.format; got {self.root}.")
        if given == "auto":
            return "wfdb" if self.root.is_dir() and next(self.root.rglob("*.hea"), None) is not None else "tables"
        return "tables" if given in _TABLES else given

    def tables(self) -> SeriesDataModule:
        """Reader of the folder's tables."""
        if self._tables is None:
            given = {key: self.hparams[key] for key in ("name", "val_share", "resplit", "split_seed")}
            self._tables = SeriesDataModule(
                str(self.root), format=self.hparams["format"], target="label", unequal="refuse", **given
            )
        return self._tables

    def read_facts(self) -> dict[str, Any]:
        """`num_classes`, `class_names`, `channels`, `length`, and `scaling`: by `record` or by `beat`."""
        facts: dict[str, Any] = {"channels": 1, "length": int(self.hparams["length"]), "scaling": "record"}
        kind = self.kind
        names: tuple[str, ...] = world.CLASS_NAMES
        if kind == "tables":
            table = self.tables().table()
            if table.series.shape[1] != 1:
                where = self.root or "These beats"
                raise BadData(f"{where}: expected beats of one lead, got {table.series.shape[1]} channels.")
            names = tuple(table.class_names or ())
            facts |= {"length": table.series.shape[2], "scaling": "beat"}
        elif kind == "wfdb":
            assert self.root is not None
            find_records(self.root)
            names = DIAGNOSES if self.hparams["target"] == "diagnosis" else names
        return {"num_classes": len(names), "class_names": list(names), **facts}

    def fitting(self, epochs: int) -> dict[str, Any]:
        """Batch and epochs for few beats; length and classes are facts."""
        if self.kind == "simulator":
            return {}
        return small_set(len(self.split("train")), self.batch_size, epochs)  # type: ignore[arg-type]

    # Data sets ----------------------------------------------------------------------------------------------------

    def dataset(self, split: str) -> BeatsDataset:
        """Build one split; that of `predict` is the test split without labels."""
        part, kind = "test" if split == "predict" else split, self.kind
        beats = {"simulator": self._simulated, "wfdb": self._read, "tables": self._shared}[kind](part)
        if not len(beats.beat):
            where = self.root or "These beats"
            raise BadData(f"{where}: the split {part} is empty. Give more patients, or change val_share.")
        return BeatsDataset(beats, labelled=split != "predict")

    def _simulated(self, part: str) -> Beats:
        given = self.hparams
        key = {k: given[k] for k in (f"{part}_size", "beats_per_patient", "world_seed", "length", "rate")}
        digest = hashlib.sha256(json.dumps([part, key, world.VERSION]).encode()).hexdigest()[:20]

        def make() -> dict[str, np.ndarray]:
            return world.ecg_beats(
                given[f"{part}_size"],
                (given["world_seed"], _NUMBER[part], 1),
                beats_per_patient=given["beats_per_patient"],
                length=given["length"],
                rate=given["rate"],
            )

        arrays = cached_arrays(data_cache() / "ecg-beats" / f"{part}-{digest}.npz", make)
        patient = 3 * arrays["patient"] + _NUMBER[part]  # other people in each split
        return Beats(**{**arrays, "patient": patient})

    def _read(self, part: str) -> Beats:
        """Beats of all recordings of a split.

        Raises:
            BadData: naming every recording that cannot be used.
        """
        if part in self._records:
            return self._records[part]
        assert self.root is not None
        given, root = self.hparams, self.root
        everything = find_records(root)
        patients = {name: i for i, name in enumerate(sorted({patient_of(r, root) for r in everything}))}
        mixed = given["split"] == "intra"
        chosen = everything if mixed else share_records(everything, root, part, given["val_share"], given["split_seed"])
        problems, parts = Problems(root), []
        for record in chosen:
            read = read_beats(record, patients[patient_of(record, root)], dict(given), problems)
            parts += [] if read is None else [read]
        problems.raise_if_any("Correct or remove these recordings and run again.")
        beats = join(parts, given["length"])
        if mixed:
            order = np.random.default_rng((given["split_seed"], 3)).permutation(len(beats.beat))
            test = round(0.25 * len(order))
            val = test + round(given["val_share"] * (len(order) - test))
            rows = np.sort({"test": order[:test], "val": order[test:val], "train": order[val:]}[part])
            beats = Beats(*(getattr(beats, f.name)[rows] for f in fields(Beats)))
        self._records[part] = beats
        return beats

    def _shared(self, part: str) -> Beats:
        self.facts()  # refuses several channels
        table, hp = self.tables().table(), self.hparams
        rows = share_out(table, part, hp["val_share"], hp["resplit"], hp["split_seed"])
        beat = table.series[torch.as_tensor(rows)][:, 0].double().numpy()
        low, span = beat.min(1), np.ptp(beat, axis=1)
        if not span.all():
            where = self.root or "These beats"
            raise BadData(f"{where}: beat {int(rows[int(span.argmin())])} is a flat line: expected an ECG.")
        return Beats(
            beat.astype(np.float32),
            table.targets[torch.as_tensor(rows)].numpy(),
            np.full(len(rows), -1),
            np.zeros(len(rows), np.float32),
            low.astype(np.float32),
            span.astype(np.float32),
        )

    def fake(self, folder: str | Path, format: str | None = None) -> Path:
        """Write a miniature and return the folder: beats in `npz` (the default) or `tsv`, or `wfdb` recordings."""
        chosen = format or (given if (given := self.hparams["format"]) in ("wfdb", "tsv") else "npz")
        checks.one_of("format", chosen, ("npz", "tsv", "wfdb"))
        if chosen == "wfdb":
            return write_records(Path(folder), self.hparams["target"])
        return write_tables(Path(folder), chosen, self.hparams["length"], self.hparams["rate"])
