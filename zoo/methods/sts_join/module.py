"""The join as a Lightning module; the paper and its equations stand in `zoo.methods.sts_join`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise
from typing import Any, ClassVar

import torch
from PIL import Image
from torch import Tensor

from zoo.base import RoundModule
from zoo.base.meeting import data_of, facts_of
from zoo.errors import BadInput, InvalidConfig
from zoo.inputs.tracks import Projection, Track, origin_of, pad_tracks, tracks_of
from zoo.methods.sts_join.candidates import GUARD, JoinPlan
from zoo.methods.sts_join.clients import JoinServer, TrajectoryClient, clients_of, simplify
from zoo.methods.sts_join.distance import CDDS, cdds, cdds_intervals
from zoo.methods.sts_join.index import PRECISION, STSIndex, make_table
from zoo.methods.sts_join.inputs import JoinResults, in_plane, one_input, part_of, why_no_pair, why_nothing
from zoo.methods.sts_join.join import JoinResult, finish, join, partial_join, share_of
from zoo.methods.sts_join.motions import Motions, motions_of
from zoo.methods.sts_join.oracle import all_durations, sts_join_bruteforce
from zoo.methods.sts_join.picture import draw_join, features_of

__all__ = [
    "CDDS",
    "JoinResults",
    "JoinServer",
    "STSIndex",
    "STSJoin",
    "TrajectoryClient",
    "cdds",
    "cdds_intervals",
    "clients_of",
    "simplify",
    "sts_join_bruteforce",
]


def _check_precision(batch: dict[str, Any]) -> None:
    """Lightning rounds batches to its precision before any step sees them."""
    if batch["xyt"].dtype != torch.float64:
        raise InvalidConfig(PRECISION)


class STSJoin(RoundModule):
    """The join with an index of the tracks it was fitted to.

    Args:
        delta: metres within which two tracks are together.
        eps: seconds for which they have to be, in all.
        gap: seconds; across a longer step between two points of a track there is no motion.
        tolerance: metres by which clients simplify what they report.
        radius: metres by which they displace each point of it; with either above 0 the index holds reports only.
        min_run: seconds; only contiguous runs of at least this length count.
        width: seconds of a time bin of the index; chosen from the data if None.
        cell: side of the index's cells in metres; chosen from the data if None.
        origin: longitude, latitude and seconds since 1970 of the index's plane; None for tracks in metres.
    """

    task = "trajectory-join"
    monitor = ("val/recall", "max")
    logged = ("recall", "precision", "error", "pairs")
    parameter_roles: ClassVar[dict[str, str]] = {"table": "elastic"}

    option_ranges: ClassVar[dict[str, tuple[float, float]]] = dict.fromkeys(("delta", "eps", "min_run"), (0, 1e12))

    def __init__(
        self,
        delta: float = 50.0,
        eps: float = 60.0,
        gap: float = 120.0,
        tolerance: float = 0.0,
        radius: float = 0.0,
        min_run: float = 0.0,
        width: float | None = None,
        cell: float | None = None,
        origin: list[float] | None = None,
    ) -> None:
        super().__init__()
        JoinPlan(delta, eps, 0.0, min_run)  # refuses what makes no sense
        for name, value in (("tolerance", tolerance), ("radius", radius)):
            if not 0 <= value < float("inf"):
                raise BadInput(f"{name} must be at least 0 metres, got {value}.")
        for name, given in (("gap", gap), ("width", width), ("cell", cell)):
            if given is not None and not given > 0:
                raise BadInput(f"{name} must be positive, got {given}.")
        self.table = STSIndex()
        self.reading: dict[str, Any] = {}
        self.clients: Mapping[int, TrajectoryClient] = {}
        self.seen: list[tuple[Tensor, Tensor, Tensor, list[str]]] = []
        self.scores: list[tuple[int, int, int, float]] = []  # per batch: true, reported, common pairs, largest error
        self._reference: tuple[Any, Tensor, Tensor, Tensor] | None = None

    # Building the index -------------------------------------------------------------------------------------------

    def collect(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Keep the batch's tracks; an error names what is no motion."""
        _check_precision(batch)
        motions_of(batch["xyt"], batch["length"], self.hparams["gap"], batch["name"])
        self.seen.append((batch["traj_id"].cpu(), batch["xyt"].cpu(), batch["length"].cpu(), list(batch["name"])))

    def update(self) -> dict[str, Tensor]:
        """The index of all ranks' tracks, in the order of their numbers. Ranks share what clients would send."""
        shares = self.gather([self._reported(part) for part in self.seen])
        self.seen = []
        tracks = sorted((t for share in shares for part in share for t in part), key=lambda t: t[0])
        return {f"table.{name}": value for name, value in self._table(tracks).items()}

    def _reported(self, part: tuple[Tensor, Tensor, Tensor, list[str]]) -> list[tuple[int, str, Tensor, Tensor]]:
        """Number, name, segments and runs of a batch's tracks, as their owners would report them."""
        ids, xyt, length, names = part
        hp, motions = self.hparams, motions_of(xyt, length, self.hparams["gap"], names)
        reported: list[tuple[int, str, Tensor, Tensor]] = []
        for number, client in clients_of(motions, hp["tolerance"], hp["radius"], ids=ids.tolist()).items():
            report = client.obfuscate().motions if self.error else client._raw
            reported.append((number, names[len(reported)], report.segments, report.run))
        return reported

    @property
    def error(self) -> float:
        """E, the bound on how far reports are from the truth, metres."""
        return float(self.hparams["tolerance"] + self.hparams["radius"])

    def _table(self, tracks: Sequence[tuple[int, str, Tensor, Tensor]]) -> dict[str, Tensor]:
        rows = [t[2] for t in tracks]
        owner = torch.repeat_interleave(torch.tensor([len(r) for r in rows], dtype=torch.int64))
        run = torch.cat([t[3] for t in tracks]) if tracks else owner
        fresh = torch.ones_like(run)
        fresh[1:] = (run[1:] != run[:-1]) | (owner[1:] != owner[:-1])
        segments = torch.cat(rows) if rows else torch.zeros(0, 6, dtype=torch.float64)
        motions = Motions(segments, owner, fresh.cumsum(0) - 1, len(tracks))
        ids = torch.tensor([t[0] for t in tracks], dtype=torch.int64)
        hp = self.hparams
        options = {"reach": hp["delta"] + 2 * self.error, "error": self.error, "width": hp["width"], "cell": hp["cell"]}
        return make_table(motions, ids, [t[1] for t in tracks], **options)

    def index(self, tracks: Any, *, reading: dict[str, Any] | None = None, **settings: Any) -> STSJoin:
        """A module with an index of other tracks: save it, push it, or join with it.

        Args:
            tracks: as for `predict`: arrays (L, 3), tables, files, or a list of them.
            reading: `columns`, `format` and `on_error` of tables and files, as for `predict`.
            settings: constructor arguments that differ from this module's.

        Raises:
            BadInput: if a track is no motion.
        """
        given = {**self.init_args, "width": None, "cell": None, **settings}
        inputs = {f"track {i}": item for i, item in enumerate(self.split_inputs(tracks))}
        read = {name: tracks_of(item, name, **(reading or {})) for name, item in inputs.items()}
        if "origin" not in settings:  # files and tables bring their own plane
            given["origin"] = origin_of(read.values())
        named = [t for name, part in read.items() for t in in_plane(part, given["origin"], name)]
        made = type(self)(**given)
        xyt, length = pad_tracks([xyt for _, xyt in named])
        part = (torch.arange(len(named)), xyt, length, [name for name, _ in named])
        made.table.fill(made._table(made._reported(part) if named else []))
        return made.to(self.device).eval()  # type: ignore[return-value]

    def collected_state(self) -> dict[str, Any]:
        """Tracks so far."""
        return {"seen": [list(part) for part in self.seen]}

    def load_collected_state(self, state: dict[str, Any]) -> None:
        """Go on with them."""
        self.seen = [(ids, xyt, length, list(names)) for ids, xyt, length, names in state["seen"]]

    def setup(self, stage: str) -> None:
        """Take the plane of the data over when fitting; refuse data in another plane otherwise, and low precision."""
        super().setup(stage)
        if self.table.segments.dtype != torch.float64:
            raise InvalidConfig(PRECISION)
        data = data_of(self.trainer)
        theirs = facts_of(data).get("origin") if hasattr(data, "facts") else self.hparams["origin"]
        if stage == "fit":
            self.hparams["origin"] = theirs
        elif theirs != self.hparams["origin"] and len(self.table):
            raise InvalidConfig(
                f"The index has its plane at {self.hparams['origin']} and the data theirs at {theirs}: distances "
                f"would be wrong. Set data.origin to {self.hparams['origin']}, or fit an index to these data."
            )

    # Joining ------------------------------------------------------------------------------------------------------

    def plan(self, **changes: Any) -> JoinPlan:
        """The join that the hyper-parameters ask for, with changes; slack is the index's own error."""
        hp = self.hparams
        usual = {"delta": hp["delta"], "eps": hp["eps"], "min_run": hp["min_run"], "slack": float(self.table.error)}
        return JoinPlan(**{**usual, **{k: v for k, v in changes.items() if v is not None}})

    def forward(self, xyt: Tensor) -> Tensor:
        """Seconds within delta of tracks and all N tracks of the index, (B, N); upper bounds if it is obfuscated.

        Args:
            xyt: (B, L, 3) float64, x and y in metres, t in seconds.
        """
        length = torch.full((len(xyt),), xyt.shape[1], device=xyt.device)
        result = join(motions_of(xyt, length, self.hparams["gap"]), self.table, self.plan(eps=0.0))
        seconds = xyt.new_zeros(len(xyt), len(self.table), dtype=torch.float64)
        seconds[result.query, result.track] = result.upper
        return seconds

    def example_input(self) -> tuple[Tensor, ...]:
        """Three tracks of 30 points, half a delta beside the first ones of the index, if it has any."""
        from zoo.methods.sts_join.motions import positions

        share = torch.linspace(0.02, 0.98, 30, dtype=torch.float64, device=self.device)
        tracks = []
        for number in range(3):
            rows = self.table.segments[self.table.owner == number % max(len(self.table), 1)]
            if len(rows):
                times = rows[0, 0] + share * (rows[-1, 1] - rows[0, 0])
                at = torch.searchsorted(rows[:, 0].contiguous(), times, right=True) - 1
                xy = positions(rows[at], torch.minimum(times, rows[at, 1])) + 0.3 * self.hparams["delta"]
            else:
                times, xy = 600 * share, torch.stack([700 * share, 300.0 * number + 50 * share], 1)
            tracks.append(torch.cat([xy, times[:, None]], 1))
        return (torch.stack(tracks),)

    def predict_step(
        self,
        batch: dict[str, Any],
        batch_idx: int = 0,
        *,
        delta: float | None = None,
        eps: float | None = None,
        min_run: float | None = None,
    ) -> dict[str, Any]:
        """Partners of every track of a batch in the index.

        Args:
            batch: as from `make_batch` or the data module.
            batch_idx: unused.
            delta: metres; the module's own if None.
            eps: seconds; the module's own if None.
            min_run: seconds; the module's own if None.

        Returns:
            Lists over the queries: `pairs` (K, 2) int64, the query's number and the indexed track's; `durations` (K,)
            float64 seconds; `intervals`, K tensors (R, 2) of seconds; `certain` (K,) bool, False where an obfuscated
            index cannot tell (then durations are upper bounds); `names`, K pairs of names; `stats`, counts of work.
        """
        motions = motions_of(batch["xyt"], batch["length"], self.hparams["gap"], batch["name"])
        plan = self.plan(delta=delta, eps=eps, min_run=min_run)
        return self._answer(join(motions, self.table, plan), motions, plan, batch)

    def _answer(self, result: JoinResult, motions: Motions, plan: JoinPlan, batch: dict[str, Any]) -> dict[str, Any]:
        result, seconds, certain = self._settled(result, motions, plan)
        known, ids = self.table.track_names, self.table.ids
        numbers = torch.stack([batch["traj_id"].to(ids.device)[result.query], ids[result.track]], 1)
        spans = torch.split(torch.stack([result.start, result.end], 1), result.offsets.diff().tolist())
        sizes = torch.bincount(result.query, minlength=motions.count).tolist()
        both = zip(result.query.tolist(), result.track.tolist(), strict=True)
        named = [(batch["name"][query], known[track]) for query, track in both]
        ends = [0, *accumulate(sizes)]
        parts = [slice(*borders) for borders in pairwise(ends)]
        return {
            "pairs": list(torch.split(numbers, sizes)),
            "durations": list(torch.split(seconds, sizes)),
            "intervals": [list(spans[part]) for part in parts],
            "certain": list(torch.split(certain, sizes)),
            "names": [named[part] for part in parts],
            "stats": [{k: int(v[i]) for k, v in result.counts.items()} for i in range(motions.count)],
        }

    def _settled(self, result: JoinResult, motions: Motions, plan: JoinPlan) -> tuple[JoinResult, Tensor, Tensor]:
        """Ask the clients, if they are at hand, about all pairs of an obfuscated index."""
        if plan.slack == 0 or not self.clients:
            return result, result.upper, result.certain
        server = JoinServer(plan.delta, plan.eps, plan.min_run, index=self.table, numbers=self.table.ids.tolist())
        known = {i: self.clients[n] for i, n in enumerate(server.numbers)} if plan.same else {}
        queries = known or clients_of(motions, 0.0, 0.0)
        values = [server.ask(result, k, queries[int(result.query[k])], self.clients) for k in range(len(result.query))]
        seconds = torch.tensor(values, dtype=torch.float64)
        keep = (seconds >= plan.eps - GUARD) & (seconds > 0)
        return result.subset(keep), seconds[keep], torch.ones(int(keep.sum()), dtype=torch.bool)

    def make_batch(self, items: Sequence[Any]) -> dict[str, Any]:
        """All tracks of the inputs, padded: arrays (L, 3) of x, y, t, tables, or files; see `tracks_of`."""
        origin = self.hparams["origin"]
        inputs = {f"input {i}": item for i, item in enumerate(items)}
        named = [t for name, item in inputs.items() for t in in_plane(self._read(item, name), origin, name)]
        xyt, length = pad_tracks([xyt for _, xyt in named])
        number = torch.zeros(len(named), dtype=torch.int64)
        return {"index": torch.arange(len(named)), "traj_id": number, "xyt": xyt, "length": length,
                "name": [name for name, _ in named]}  # fmt: skip

    def check_options(self, options: dict[str, Any]) -> None:
        """Refuse what is no option of a join; how tables and files are read is for their readers to check."""
        super().check_options({k: v for k, v in options.items() if k not in ("columns", "format", "on_error")})

    def _read(self, item: Any, name: str) -> list[Track]:
        return tracks_of(item, name, **self.reading)

    def predict(
        self,
        inputs: Any,
        *,
        batch_size: int = 256,
        columns: dict[str, str] | None = None,
        format: str | None = None,
        on_error: str = "raise",
        **options: Any,
    ) -> JoinResults:
        """Partners of one input or of a list, each an array (L, 3) of x, y, t, a table, or a file of tracks.

        Args:
            inputs: as above; tables and files may hold several tracks.
            batch_size: tracks joined at once.
            columns: meaning (id, t, lon, lat, x, y) -> column of a table or CSV file, where common names do not tell.
            format: of files; recognised if None. This and the other two hold for `show` until the next call.
            on_error: "raise" names broken rows and files, "skip" leaves them out.
            options: `delta`, `eps`, `min_run`.

        Returns:
            One dict per input, with `pairs` counted within it; the list itself has `pairs`, `durations` and `intervals`
            of all inputs as arrays, `to_dataframe()`, and `note`, which says why there are no pairs.

        Raises:
            BadInput: if an input or an option cannot be used.
        """
        if type(batch_size) is not int or batch_size < 1:
            raise BadInput(f"batch_size: expected a whole number of at least 1, got {batch_size!r}.")
        self.check_options(options)
        self.reading = {"columns": columns, "format": format, "on_error": on_error}
        answers: list[dict[str, Any]] = []
        spans: list[tuple[float, float]] = []
        with self.inference():
            for item in self.split_inputs(inputs):
                rows = self.transfer_batch_to_device(self.make_batch([item]), self.device, 0)
                parts = [self.predict_step(part_of(rows, slice(i, i + batch_size)), 0, **options)
                         for i in range(0, len(rows["index"]), batch_size)]  # fmt: skip
                answers.append(one_input(parts))
                inside = [rows["xyt"][i, : int(n), 2] for i, n in enumerate(rows["length"])]
                gap = self.hparams["gap"]
                spans += [(float(t[0]), float(t[-1])) for t in inside if (t.diff() <= gap).any()]
        origin = self.hparams["origin"]
        results = JoinResults(answers, None if origin is None else origin[2])
        if answers and not len(results.pairs):
            hp = {**self.hparams, **{k: v for k, v in options.items() if v is not None}}
            results.note = why_nothing(self.table, spans, hp["delta"], hp["eps"], hp["gap"])
        return results

    def self_join(self, **options: Any) -> JoinResults:
        """All pairs among the indexed tracks, each once; options and `note` as in `predict`."""
        self.check_options(options)
        plan = self.plan(**options, same=True)
        if plan.slack:
            plan = self.plan(**options, same=True, slack=2 * plan.slack)
        answers = []
        if len(self.table):
            motions = self.table.motions
            batch = {"traj_id": self.table.ids, "name": self.table.track_names}
            with self.inference():
                whole = self._answer(join(motions, self.table, plan), motions, plan, batch)
            answers.append(one_input([whole], own=True))
        origin = self.hparams["origin"]
        results = JoinResults(answers, None if origin is None else origin[2])
        if not len(results.pairs):
            results.note = why_no_pair(self.table, plan.delta, plan.eps, self.hparams["gap"])
        return results

    def join_over_ranks(self, query: Motions, plan: JoinPlan | None = None) -> JoinResult:
        """A join whose time axis is shared among the ranks, with one gather; all ranks call it and get everything.

        Each rank looks at its own time bins only. Integer sums make the result equal to one process bit for bit.
        """
        plan = plan or self.plan()
        rank, world = 0, 1
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            rank, world = torch.distributed.get_rank(), torch.distributed.get_world_size()
        parts = self.gather(partial_join(query, self.table, share_of(plan, self.table, rank, world)))
        return finish(parts, plan, len(self.table))

    # Evaluation ---------------------------------------------------------------------------------------------------

    def validation_step(self, batch: dict[str, Any], batch_idx: int = 0) -> None:
        """Compare with brute force."""
        self._compare(batch)

    def test_step(self, batch: dict[str, Any], batch_idx: int = 0) -> None:
        """Compare with brute force."""
        self._compare(batch)

    def on_validation_epoch_end(self) -> None:
        """Log `val/recall` and its relatives."""
        self._log_counts("val")

    def on_test_epoch_end(self) -> None:
        """Log `test/recall` and its relatives."""
        self._log_counts("test")

    def _compare(self, batch: dict[str, Any]) -> None:
        """Pairs of the batch against those of the training tracks, by brute force over the raw motions."""
        _check_precision(batch)
        ids, xyt, length = self._truth_tracks()
        hp = self.hparams
        with torch.inference_mode():
            answer = self.predict_step(batch)
        seconds = all_durations(
            batch["xyt"].cpu(), batch["length"].cpu(), xyt, length, hp["delta"], hp["gap"], far=True
        )
        ours = torch.zeros_like(seconds)
        places = {int(n): i for i, n in enumerate(ids)}
        for row, (pairs, value) in enumerate(zip(answer["pairs"], answer["durations"], strict=True)):
            columns = [places[int(n)] for n in pairs[:, 1] if int(n) in places]
            ours[row, columns] = value.cpu()
        true, got = (seconds >= hp["eps"] - GUARD) & (seconds > 0), ours > 0
        both = true & got
        worst = float((ours - seconds)[both].abs().max()) if both.any() else 0.0
        self.scores.append((int(true.sum()), int(got.sum()), int(both.sum()), worst))

    def _truth_tracks(self) -> tuple[Tensor, Tensor, Tensor]:
        """Numbers, points and lengths of the tracks that should be in the index; their owners stand by to be asked."""
        data = data_of(self._trainer) if self._trainer is not None else None
        if self._reference is None or self._reference[0] is not data:
            if data is None:
                raise BadInput("Scoring needs the indexed tracks: give a datamodule, not loaders.")
            tracks = data.split("train")
            rows = type(data).collate([tracks[i] for i in range(len(tracks))])
            self._reference = (data, rows["traj_id"], rows["xyt"], rows["length"])
            if self.error:
                motions = motions_of(rows["xyt"], rows["length"], self.hparams["gap"], rows["name"])
                self.clients = clients_of(motions, 0.0, 0.0, ids=rows["traj_id"].tolist())
        return self._reference[1:]

    def _log_counts(self, stage: str) -> None:
        rows = [row for share in self.gather(self.scores) for row in share]
        self.scores = []
        true, reported, common = (sum(row[i] for row in rows) for i in range(3))
        self.log(f"{stage}/recall", common / true if true else 1.0, prog_bar=True)
        self.log(f"{stage}/precision", common / reported if reported else 1.0)
        self.log(f"{stage}/error", max((row[3] for row in rows), default=0.0))
        self.log(f"{stage}/pairs", float(reported))

    def show(self, inputs: Any, result: dict[str, Any]) -> Image.Image:
        """Draw the tracks of an input, their partners, and the pieces on which they were together."""
        named = in_plane(self._read(inputs, "input"), self.hparams["origin"], "input")
        return draw_join([xyt for _, xyt in named], result, self.table)

    def geo_features(self, inputs: Any, result: dict[str, Any]) -> list[dict[str, Any]]:
        """The pieces of an input's tracks on which they had a partner, as lines in degrees, with names and times.

        Raises:
            BadInput: for an index in metres, which is nowhere on the earth.
        """
        return features_of(in_plane(self._read(inputs, "input"), self.hparams["origin"], "input"), result,
                           Projection.of(self.hparams["origin"]))  # fmt: skip
