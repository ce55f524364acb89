"""Trajectories from files or from the commuter simulator: `TracksDataModule`.

The training tracks are the ones to index; those of `val`, `test` and `predict` are queries.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch.utils.data import Dataset

from datamodules.base import ZooDataModule
from datamodules.tracks.fake import write_fake
from datamodules.worlds.commuters import CityConfig, traveller
from zoo import checks
from zoo.errors import BadInput, nearest
from zoo.inputs import tables
from zoo.inputs.tracks import COUNTED, FORMATS, POLICIES, Projection, Track, names_of, pad_tracks, plane_of, read_tracks

__all__ = ["TracksDataModule", "TracksDataset", "pad_tracks"]


class TracksDataset(Dataset[dict[str, Any]]):
    """Tracks as items: `xyt` (L, 3) float64 in metres and seconds, `traj_id`, `name`, `index`."""

    def __init__(self, tracks: Sequence[tuple[int, str, np.ndarray]]) -> None:
        self.tracks = list(tracks)

    def __len__(self) -> int:
        return len(self.tracks)

    def __getitem__(self, index: int) -> dict[str, Any]:
        number, name, xyt = self.tracks[index]
        return {"index": index, "xyt": torch.from_numpy(np.ascontiguousarray(xyt)), "traj_id": number, "name": name}


class TracksDataModule(ZooDataModule):
    """Tracks as padded batches: `xyt` (B, L, 3) float64, `length` (B,), `traj_id` (B,), `name` (B strings).

    Without `root`, commuters of a simulated city, in metres and seconds of its day. With it, files in one of the
    formats csv, geojson, gpx, kml, gpkg, geolife, tdrive, porto and flights; tracks are sorted by time, second rows of
    one time, tracks of a single point and empty files are dropped (`cleaned` counts them); broken rows are errors that
    name file and row, or dropped and counted, too.

    Args:
        root: folder of track files, or one file.
        batch_size: tracks per batch.
        num_workers: loader processes.
        seed: of the split and of the simulator.
        format: of the files; recognised if None.
        columns: meaning (id, lon, lat, x, y, t) -> name of the CSV column, where common names do not tell.
        files: wildcard of the files below root, instead of the format's own.
        limit: read at most so many tracks.
        every: of each so many seconds keep the first point only; None keeps all.
        on_error: "raise" names broken rows and files, "skip" leaves them out and counts them in `cleaned`.
        origin: [longitude, latitude, seconds since 1970] of the plane; the data's own centre and begin if None. A model
            that was made elsewhere needs its own: `model.hparams.origin`.
        val_share: share of the files' tracks that are queries of validation; 0: all. All tracks are indexed, these too.
        test_share: share of the files' tracks that are queries of the test; 0: all. All tracks are indexed, these too.
        train_size: tracks of the simulator that are indexed.
        val_size: tracks of the simulator that are queries of validation.
        test_size: tracks of the simulator that are queries of the test.
        noise: of the simulator's positions, metres.
        together: share of the simulator's tracks that follow another one for a while.
    """

    whole_folders: ClassVar[bool] = True

    describes_data: ClassVar[tuple[str, ...]] = (*ZooDataModule.describes_data, "columns", "files", "limit", "origin")

    def __init__(
        self,
        root: str | None = None,
        batch_size: int = 32,
        num_workers: int = 0,
        seed: int = 0,
        format: str | None = None,
        columns: dict[str, str] | None = None,
        files: str | None = None,
        limit: int | None = None,
        every: float | None = None,
        on_error: str = "raise",
        origin: list[float] | None = None,
        val_share: float = 0.1,
        test_share: float = 0.1,
        train_size: int = 300,
        val_size: int = 41,
        test_size: int = 61,
        noise: float = 0.0,
        together: float = 0.5,
    ) -> None:
        super().__init__(root, batch_size, num_workers, seed)
        if format is not None and format not in FORMATS:
            raise BadInput(f"format must be one of {', '.join(FORMATS)}, got {format!r}.{nearest(format, FORMATS)}")
        if every is not None and not every > 0:
            raise BadInput(f"every must be a positive number of seconds, got {every}.")
        if not (0 <= val_share <= 1 and 0 <= test_share <= 1):
            raise BadInput(f"val_share and test_share must be shares from 0 to 1, got {val_share} and {test_share}.")
        checks.one_of("on_error", on_error, POLICIES)
        self._format = format
        self._columns, self._files, self._limit = columns, files, limit
        self._every, self._origin = every, origin
        self._shares = (val_share, test_share)
        self._sizes = {"train": train_size, "val": val_size, "test": test_size, "predict": test_size}
        leaders = max(1, -(-train_size // 3))
        self.city = CityConfig(seed=seed, leaders=leaders, noise=noise, together=together)
        self.cleaned = dict.fromkeys(COUNTED, 0)
        self._tracks: list[Track] | None = None

    # Reading ------------------------------------------------------------------------------------------------------

    def tracks(self) -> list[Track]:
        """All tracks of `root`, tidied, thinned if asked for; read once.

        Raises:
            BadInput: for a missing folder, or tracks in degrees next to tracks in metres.
            BadData: listing broken files.
        """
        if self._tracks is None:
            assert self.root is not None
            options = (self._format, self._columns, self._files, self._limit, self._every, self.hparams["on_error"])
            self._tracks, self.cleaned = read_tracks(self.root, *options)
        return self._tracks

    def projection(self) -> Projection | None:
        """The plane; None for tracks in metres."""
        return None if self.root is None else plane_of(self.tracks(), self._origin, self.root)

    @classmethod
    def read_inputs(cls, path: Path, model: Any) -> Iterator[tuple[str, int | None, Any]]:
        """A file or folder of tracks as it is; tables (`.parquet`), and arrays (points, 3) of x, y, t.

        An `.npy` file holds one track, or several (tracks, points, 3); an `.npz` file one in each array.
        """
        suffix = path.suffix.lower()
        if suffix == ".parquet":
            yield "", None, tables.read_parquet(path)
        elif suffix in (".npy", ".npz"):
            content = tables.read_array(path)
            several = (
                list(content.values())
                if isinstance(content, Mapping)
                else list(content)
                if content.ndim == 3
                else [content]
            )
            for number, track in enumerate(several):
                yield ("", None, track) if len(several) == 1 else ("track", number, track)
        else:
            yield "", None, str(path)

    def read_facts(self) -> dict[str, Any]:
        """`origin` of the plane; None for metres."""
        plane = self.projection()
        return {"origin": plane.origin if plane is not None else None}

    # Splits -------------------------------------------------------------------------------------------------------

    def dataset(self, split: str) -> TracksDataset:
        """Tracks of a split; of files, `train` (the index) and `predict` are all of them."""
        if self.root is None:
            made = [(i, traveller(self.city, split, i)) for i in range(self._sizes[split])]
            return TracksDataset([(i, t.name, t.xyt) for i, t in made])
        tracks, plane = self.tracks(), self.projection()
        names = names_of(tracks)
        parts = []
        for i in self._numbers(split, len(tracks)):
            track = tracks[i]
            xyt = np.column_stack([track.positions, track.times]) if plane is None else plane.place(track)
            parts.append((i, names[i], xyt))
        return TracksDataset(parts)

    def _numbers(self, split: str, count: int) -> list[int]:
        """Places of a split's tracks. Nothing is learned from a track, so none is kept out of the index."""
        share = {"val": self._shares[0], "test": self._shares[1]}.get(split, 0)
        if not share:
            return list(range(count))
        order = np.random.default_rng([self.seed, 17]).permutation(count)
        chosen = order if split == "val" else order[::-1]  # other queries in the test, as far as there are enough
        return sorted(chosen[: max(1, round(share * count))].tolist())

    @staticmethod
    def collate(items: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Pad to the longest track."""
        xyt, length = pad_tracks([item["xyt"] for item in items])
        numbers = {k: torch.tensor([item[k] for item in items], dtype=torch.int64) for k in ("index", "traj_id")}
        return {**numbers, "xyt": xyt, "length": length, "name": [item["name"] for item in items]}

    def fake(self, folder: str | Path, format: str | None = None, tracks: int = 17) -> Path:
        """Write a miniature of a real layout into `folder` and return it.

        Args:
            folder: where to; made if needed.
            format: one of `FORMATS`; None: this module's own format (csv by default).
            tracks: how many.
        """
        kind = format or self._format or "csv"
        if kind not in FORMATS:
            raise BadInput(f"format must be one of {', '.join(FORMATS)}, got {kind!r}.{nearest(kind, FORMATS)}")
        return write_fake(Path(folder), kind, tracks)
