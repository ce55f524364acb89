"""Time series: UCR, UEA and TSER folders (`.ts`), tab-separated text, `.npz`, arrays, and embedded artificial series.

Layout below `root` (or below `root/NAME`): NAME_TRAIN and NAME_TEST with one of the endings

    .ts    the archives' format: @ lines, then channels separated by ":" and values by ",", the target last
    .tsv   one series a line, its target first; missing values at the end mean that it is shorter (also .txt)
    .npz   x (series, channels, points) or (series, points), y (series,), and length (series,) where they are unequal

`SeriesDataModule.fake(folder)` writes a miniature of each to look at.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.utils.data import Dataset

from datamodules.base import ZooDataModule
from datamodules.fitting import small_set
from datamodules.series.fake import write_fake
from datamodules.series.files import read_series
from datamodules.series.table import Table, check_arrays, make_table, share_out
from datamodules.worlds.cylinder_bell_funnel import CLASS_NAMES, cylinder_bell_funnel
from zoo.errors import BadData, BadInput, RepositoryNotFound, nearest
from zoo.inputs import tables
from zoo.inputs.series import split_series

__all__ = ["FORMATS", "SeriesDataModule", "SeriesDataset"]

FORMATS = ("auto", "ts", "tsv", "npz", "cbf")
_ENDINGS = {"ts": (".ts",), "tsv": (".tsv", ".txt"), "npz": (".npz",)}
_WORLD = {"train": 0, "val": 1, "test": 2}


class SeriesDataset(Dataset[dict[str, Any]]):
    """Series of one split as items.

    Args:
        series: float32 (M, C, L), zeros behind the end of shorter ones.
        lengths: int (M,), or None where all are of length L.
        targets: int64 labels or float32 values (M,); None for series to predict.
        labelled: whether the targets are labels.
    """

    def __init__(self, series: Tensor, lengths: Tensor | None, targets: Tensor | None, labelled: bool) -> None:
        self.series, self.lengths, self.targets = series, lengths, targets
        self.key = "label" if labelled else "value"

    def __len__(self) -> int:
        return len(self.series)

    def __getitem__(self, index: int) -> dict[str, Any]:
        item: dict[str, Any] = {"index": index, "series": self.series[index]}
        if self.targets is not None:
            item[self.key] = self.targets[index]
        return item if self.lengths is None else item | {"length": self.lengths[index]}


class SeriesDataModule(ZooDataModule):
    """Time series with a class or a value each.

    Batch: `index` int64 (B,), `series` float32 (B, C, L) (float64 where float32 would lose what varies), `label` int64
    (B,) or `value` float32 (B,), and for series of unequal length `length` int64 (B,), behind which `series` is 0.

    Args:
        root: folder of the data; None for the embedded cylinder-bell-funnel series.
        format: ts, tsv, npz, cbf, or auto to find out.
        name: of the data set, where the folder has several.
        batch_size: series per batch and process.
        num_workers: loader processes.
        seed: order of the training series.
        target: `label`, `value`, or `auto`: what a .ts header says, else labels unless there are fractions. An embedded
            series has its standard deviation as value.
        val_share: share of the training series for validation, equal in each class. 0: the test split validates,
            which is only for methods that select nothing.
        resplit: join both files and draw this share of each class for training and validation. None: the files' split.
        split_seed: of these draws.
        unequal: series of unequal length: `mask` them, or `refuse`.
        missing: missing values: `refuse` names them, `interpolate` fills them linearly.
        train_size: number of embedded series for training.
        val_size: number of embedded series for validation.
        test_size: number of embedded series for the test.
        length: of embedded series.
    """

    input_suffixes: ClassVar[tuple[str, ...]] = (".ts", ".tsv", ".txt", *tables.SUFFIXES)

    describes_data: ClassVar[tuple[str, ...]] = (
        *ZooDataModule.describes_data,
        "name",
        "resplit",
        "split_seed",
        "length",
    )

    def __init__(
        self,
        root: str | None = None,
        format: str = "auto",
        name: str | None = None,
        batch_size: int = 64,
        num_workers: int = 0,
        seed: int = 0,
        target: str = "auto",
        val_share: float = 0.2,
        resplit: float | None = None,
        split_seed: int = 0,
        unequal: str = "mask",
        missing: str = "refuse",
        train_size: int = 120,
        val_size: int = 60,
        test_size: int = 300,
        length: int = 128,
    ) -> None:
        super().__init__(root, batch_size, num_workers, seed)
        for argument, value, known in (
            ("format", format, FORMATS),
            ("target", target, ("auto", "label", "value")),
            ("unequal", unequal, ("mask", "refuse")),
            ("missing", missing, ("refuse", "interpolate")),
        ):
            if value not in known:
                raise BadInput(f"There is no {argument} {value!r}.{nearest(value, known)} Known: {', '.join(known)}.")
        if not 0 <= val_share < 1 or (resplit is not None and not 0 < resplit < 1):
            raise BadInput(f"val_share must lie in [0, 1) and resplit in (0, 1), got {val_share} and {resplit}.")
        if min(train_size, val_size, test_size) < 1 or length < 8:
            raise BadInput(
                f"train_size, val_size and test_size must be at least 1 and length at least 8, got {train_size}, "
                f"{val_size}, {test_size} and {length}."
            )
        self.embedded = root is None
        self._table: Table | None = None

    @classmethod
    def from_arrays(
        cls,
        train: tuple[Any, Any],
        test: tuple[Any, Any] | None = None,
        **options: Any,
    ) -> SeriesDataModule:
        """Use arrays.

        Args:
            train: series (M, C, L), (M, L), a list of (C, L_i), or tables (one with a series per row, or a list with a
                row per point and a column per channel), and M labels (numbers or text) or values.
            test: the same; None: a third of `train`, drawn by `split_seed`.
            options: arguments of the class.

        Raises:
            BadInput: for other shapes.
        """
        for part, where in ((train, "train"), (test, "test")):
            if part is not None and not (isinstance(part, (tuple, list)) and len(part) == 2):
                got = type(part).__name__
                raise BadInput(f"{where}: expected a pair of series and targets, as in from_arrays((X, y)), got {got}.")
        made = cls(**{"resplit": 2 / 3 if test is None else None, **options})
        made.embedded = False
        files = [check_arrays(*part, where) for part, where in ((train, "train"), (test, "test")) if part is not None]
        made._table = make_table(files, ["train", "test"][: len(files)], made.hparams)
        return made

    @classmethod
    def read_inputs(cls, path: Path, model: Any) -> Iterator[tuple[str, int | None, Any]]:
        """Series of one file: those of the archives' formats, whose targets are left out, and tables of numbers.

        A table (CSV, parquet) is one series, a row per point and a column per channel; with a single channel and
        several columns, a row is a series. An array (`.npy`) is (points,), (channels, points) or (series, channels,
        points).
        """
        channels, suffix = int(model.hparams["channels"]), path.suffix.lower()
        if suffix in (".csv", ".parquet"):
            table = tables.read_numbers(path, channels)
            if table.shape[1] != channels and channels != 1:
                raise BadInput(
                    f"{path}: expected a row per point and {channels} columns, one per channel; got {table.shape[1]}."
                )
            series = [table.T] if table.shape[1] == channels else list(table)
        elif suffix == ".npy":
            series = split_series(tables.read_array(path), channels)
        elif suffix in (".ts", ".tsv", ".txt", ".npz"):
            series = list(read_series(path).series)
        else:
            raise BadInput(f"{path}: expected series in a file ending in {', '.join(cls.input_suffixes)}.")
        for number, values in enumerate(series):
            yield ("", None, values) if len(series) == 1 else ("series", number, values)

    # Reading ------------------------------------------------------------------------------------------------------

    def table(self) -> Table:
        """All series of both files, read once.

        Raises:
            BadData: naming everything that cannot be used.
        """
        if self._table is None:
            files = self.files()
            self._table = make_table([read_series(path) for path in files], list(map(str, files)), self.hparams)
        return self._table

    def files(self) -> list[Path]:
        """The two files of the data set.

        Raises:
            RepositoryNotFound: if there are none.
            BadInput: if there are several sets and no `name`.
        """
        root, wanted, name = self.root, self.hparams["format"], self.hparams["name"]
        assert root is not None
        if not root.is_dir():
            raise RepositoryNotFound(f"{root}: expected a folder with NAME_TRAIN and NAME_TEST files, got none.")
        kinds = [wanted] if wanted in _ENDINGS else list(_ENDINGS)
        endings = [e for kind in kinds for e in _ENDINGS[kind]]
        places = [root, *([root / name] if name else sorted(p for p in root.iterdir() if p.is_dir()))]
        pairs = {}
        for ending in reversed(endings):
            for place in places:
                for path in sorted(place.glob(f"*_TRAIN{ending}")) if place.is_dir() else ():
                    pairs[path.name.removesuffix(f"_TRAIN{ending}")] = path
        if name is not None:
            pairs = {k: v for k, v in pairs.items() if k == name}
        if len(pairs) > 1:
            raise BadInput(f"{root} holds several data sets; set data.name to one of {', '.join(sorted(pairs)[:20])}.")
        if not pairs:
            raise RepositoryNotFound(
                f"{root}: expected {name or 'NAME'}_TRAIN and {name or 'NAME'}_TEST ending in {', '.join(endings)}."
            )
        train = next(iter(pairs.values()))
        test = train.with_name(train.name.replace("_TRAIN.", "_TEST."))
        if not test.is_file():
            raise RepositoryNotFound(
                f"{test}: expected the test series beside {train.name}, but there is no such file."
            )
        return [train, test]

    def _refuse_no_root(self) -> None:
        if self.hparams["format"] not in ("auto", "cbf"):
            raise BadInput(
                f"format={self.hparams['format']} reads files: set data.root to the folder of NAME_TRAIN and NAME_TEST "
                "(`zoo data list` shows sets that can be fetched), or data.format=cbf for the embedded series."
            )

    def read_facts(self) -> dict[str, Any]:
        """`num_classes` and `class_names` (0 and none in regression), `channels`, and `length`, the shortest one."""
        if self.embedded:
            self._refuse_no_root()
            length = int(self.hparams["length"])
            if self.hparams["target"] == "value":
                return {"num_classes": 0, "targets": 1, "channels": 1, "length": length}
            return {"num_classes": 3, "class_names": list(CLASS_NAMES), "channels": 1, "length": length}
        table = self.table()
        facts: dict[str, Any] = {"channels": table.series.shape[1], "length": int(table.lengths.min())}
        if table.class_names is None:
            return {"num_classes": 0, "targets": 1, **facts}
        return {"num_classes": len(table.class_names), "class_names": list(table.class_names), **facts}

    def fitting(self, epochs: int) -> dict[str, Any]:
        """Batch and epochs for few series; length, channels and classes are facts."""
        return {} if self.embedded else small_set(len(self.split("train")), self.batch_size, epochs)  # type: ignore[arg-type]

    def dataset(self, split: str) -> SeriesDataset:
        """Series of a split; those of `predict` are the test series without their targets."""
        part = "test" if split == "predict" else split
        if self.embedded:
            self._refuse_no_root()
            size, length = int(self.hparams[f"{part}_size"]), int(self.hparams["length"])
            series, labels = cylinder_bell_funnel(size, length, (_WORLD[part], 1994))
            classes = self.hparams["target"] != "value"
            values = labels if classes else series.std(axis=(1, 2))
            targets = None if split == "predict" else torch.from_numpy(values)
            return SeriesDataset(torch.from_numpy(series), None, targets, classes)
        table, hp = self.table(), self.hparams
        chosen = torch.as_tensor(share_out(table, part, hp["val_share"], hp["resplit"], hp["split_seed"]))
        if len(chosen) == 0:
            where = self.root or "These series"
            raise BadData(f"{where}: the split {part} is empty. Give more series, or change val_share or resplit.")
        lengths = table.lengths[chosen] if bool((table.lengths != table.series.shape[2]).any()) else None
        targets = None if split == "predict" else table.targets[chosen]
        return SeriesDataset(table.series[chosen], lengths, targets, table.class_names is not None)

    def fake(self, folder: str | Path, format: str | None = None, name: str = "Fake") -> Path:
        """Write cylinder-bell-funnel series in the layout of `format` (ts by default) and return the folder."""
        chosen = format or ("ts" if self.hparams["format"] in ("auto", "cbf") else self.hparams["format"])
        if chosen not in _ENDINGS:
            raise BadInput(f"There is no layout {chosen!r}.{nearest(chosen, _ENDINGS)} Known: {', '.join(_ENDINGS)}.")
        return write_fake(Path(folder), chosen, name, int(self.hparams["length"]))
