"""What every data module shares: sharded samplers, loaders that resume exactly, facts, and a collector of problems."""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Iterator, Sequence, Sized
from pathlib import Path
from typing import Any, ClassVar, cast

import torch
from torch.utils.data import DataLoader, Dataset, DistributedSampler, default_collate

from zoo import checks
from zoo.base.data import ChoosesSamples, DataContract, TrainingPart
from zoo.errors import BadData, BadInput, TooFewSamples
from zoo.text import printable

__all__ = ["Problems", "ShardSampler", "TrainSampler", "ZooDataModule", "ZooLoader", "data_cache", "even_batches"]

_RANGES: dict[str, checks.Range] = {
    "batch_size": (1, 1 << 30),
    "num_workers": (0, 1 << 16),
    "seed": (0, (1 << 63) - 1),
    "img_size": (1, 100_000),
}

SPLITS = ("train", "val", "test", "predict")


def data_cache() -> Path:
    """Folder of rendered and converted data: `$ZOO_CACHE`, else the platform's cache folder. It may not exist yet."""
    if value := os.environ.get("ZOO_CACHE"):
        return Path(value).expanduser()
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or str(Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = str(Path.home() / "Library" / "Caches")
    else:
        base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "lightning-method-zoo"


class ShardSampler(DistributedSampler[Any]):
    """Gives each rank its own samples in order, none twice and none left out.

    It is a `DistributedSampler` because Lightning replaces every other kind; torch's own repeats samples to even out
    the ranks, which biases a metric.

    Args:
        dataset: anything with a length.
        num_replicas: number of processes.
        rank: this process, 0-based.
        seed: order of a shuffling subclass.

    Raises:
        TooFewSamples: if a rank would get nothing.
    """

    def __init__(self, dataset: Sized, num_replicas: int = 1, rank: int = 0, seed: int = 0) -> None:
        if len(dataset) < num_replicas:
            raise TooFewSamples(
                f"{len(dataset)} samples cannot be shared among {num_replicas} processes: "
                "use at most as many devices as samples, or more data."
            )
        super().__init__(cast(Dataset[Any], dataset), num_replicas, rank, shuffle=False, seed=seed)
        self.start = 0

    def order(self) -> list[int]:
        """Indices of all ranks together, in the order of this epoch."""
        return list(range(len(cast(Sized, self.dataset))))

    def __len__(self) -> int:
        return len(range(self.rank, len(cast(Sized, self.dataset)), self.num_replicas))

    def __iter__(self) -> Iterator[int]:
        mine = self.order()[self.rank :: self.num_replicas][: len(self)]
        return iter(mine[self.start :])


class TrainSampler(ShardSampler):
    """The training twin: order drawn from (seed, epoch), equally many samples on each rank.

    Ranks interleave, so that `world` ranks with batch size `b` see together what one process sees with `b * world`.
    At most `world - 1` samples, other ones in each epoch, are left out, because ranks that step together need equally
    many; `every` keeps them, for methods that combine once per pass.
    """

    def __init__(
        self, dataset: Sized, num_replicas: int = 1, rank: int = 0, seed: int = 0, *, every: bool = False
    ) -> None:
        super().__init__(dataset, num_replicas, rank, seed)
        self.every = every

    def order(self) -> list[int]:
        """Shuffled indices of all ranks together, the same on each of them."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        return torch.randperm(len(cast(Sized, self.dataset)), generator=generator).tolist()

    def __len__(self) -> int:
        return super().__len__() if self.every else len(cast(Sized, self.dataset)) // self.num_replicas


class ZooLoader(DataLoader[Any]):
    """A `DataLoader` that can stop after any batch and continue there.

    Lightning stores `state_dict()` in its checkpoints. The order depends on (seed, epoch) alone, so a position is all
    there is to keep. Iteration starts lazily: Lightning calls `iter()` before it tells the sampler its epoch.
    """

    made_by: ZooDataModule | None = None  # a Trainer that is given loaders alone compares its model with it
    position = 0
    _restored: dict[str, int] | None = None

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        sampler = self.sampler
        start = self._take_start()
        self.position = start
        if hasattr(self.dataset, "set_epoch"):
            self.dataset.set_epoch(getattr(sampler, "epoch", 0))
        skip = start
        if isinstance(sampler, ShardSampler):
            sampler.start, skip = start * (self.batch_size or 1), 0
        for number, batch in enumerate(super().__iter__()):
            if number < skip:  # Lightning put another sampler in (overfit_batches), which cannot start in the middle
                continue
            self.position += 1
            yield batch
        self.position = 0

    def _take_start(self) -> int:
        """Batches to leave out: only once after a restore, and only in the epoch that was interrupted.

        An epoch that Lightning cut short (limits, the sanity check) leaves a position behind that must not count.
        """
        restored, self._restored = self._restored, None
        if restored is None or restored["epoch"] != int(getattr(self.sampler, "epoch", 0)):
            return 0
        return restored["position"] if restored["position"] < len(self) else 0

    def state_dict(self) -> dict[str, int]:
        """Return epoch and number of batches handed out in it."""
        return {"epoch": int(getattr(self.sampler, "epoch", 0)), "position": self.position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue after `state["position"]` batches of epoch `state["epoch"]`."""
        if isinstance(self.sampler, DistributedSampler):
            self.sampler.set_epoch(state["epoch"])
        self.position = state["position"]
        self._restored = dict(state)


class PartOfSet(Dataset[Any]):
    """Some samples of a data set, whose items keep their `index` in the whole set.

    Args:
        data: the whole set.
        part: which samples, and whether they are augmented.
    """

    def __init__(self, data: Dataset[Any], part: TrainingPart) -> None:
        plain = getattr(data, "without_augmentation", None)
        whole: Any = plain() if plain is not None and not part.augment else data
        self.data = whole
        self.indices = list(range(len(self.data))) if part.indices is None else list(part.indices)

    def set_epoch(self, epoch: int) -> None:
        """Number of the epoch, from which augmentation is drawn."""
        if hasattr(self.data, "set_epoch"):
            self.data.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, position: int) -> Any:
        return self.data[self.indices[position]]

    def __getitems__(self, positions: Sequence[int]) -> Any:
        """A batch, as the whole set makes it: at once where it can, else a list of items."""
        chosen = [self.indices[position] for position in positions]
        if hasattr(self.data, "__getitems__"):
            return self.data.__getitems__(chosen)
        return [self.data[index] for index in chosen]


class Problems:
    """Collects what is wrong with a user's files, so that one error lists it all.

    Args:
        where: the folder or file as the user knows it.
        shown: how many problems the message spells out; all are in `BadData.problems`.
    """

    def __init__(self, where: str | Path, shown: int = 20) -> None:
        self.where = str(where)
        self.shown = shown
        self.lines: list[str] = []

    def add(self, file: str | Path, field: str, expected: str, got: object) -> None:
        """Note that `field` of `file` should be `expected` but is `got`."""
        self.lines.append(printable(f"{file}: {field}: expected {expected}, got {got}"))

    def __len__(self) -> int:
        return len(self.lines)

    def raise_if_any(self, advice: str = "Correct or remove these entries and run again.") -> None:
        """Raise one error that lists all problems.

        Raises:
            BadData: if anything was added.
        """
        if not self.lines:
            return
        count = len(self.lines)
        lines = [f"{count} problem{'s' if count > 1 else ''} in {self.where}:"]
        lines += [f"  {line}" for line in self.lines[: self.shown]]
        if count > self.shown:
            lines.append(f"  ... and {count - self.shown} more")
        raise BadData("\n".join([*lines, advice]), self.lines)


class ZooDataModule(DataContract):
    """Base of all data modules.

    A subclass implements `read_facts()`, `dataset(split)` and `fake(folder)`; it calls `super().__init__(...)` with the
    common arguments and keeps its own ones as attributes or in `self.hparams` (every constructor argument is saved).

    Args:
        root: folder of the user's data; None means the embedded data set, without any download.
        batch_size: samples per batch and process.
        num_workers: loader processes; 0 loads in the training process.
        seed: order of the training samples, augmentation, and whatever is drawn at random.
    """

    input_suffixes: ClassVar[tuple[str, ...]] = ()
    """Endings of the files that `zoo predict` takes from a folder; empty for all."""

    whole_folders: ClassVar[bool] = False
    """Whether a folder is one input of `predict`, not its files."""

    describes_data: ClassVar[tuple[str, ...]] = ("format", "train_size", "val_size", "test_size")
    """Arguments that say what certain data are like or how many of them to use, not how to train: those of a recipe
    do not hold for a user's own folder."""

    def __init__(self, root: str | None = None, batch_size: int = 32, num_workers: int = 0, seed: int = 0) -> None:
        super().__init__()
        self.save_hyperparameters(logger=False)
        checks.arguments(type(self).__init__, dict(self.hparams), _RANGES)
        if batch_size < 1:
            raise BadInput(f"batch_size must be at least 1, got {batch_size}.")
        if num_workers < 0:
            raise BadInput(f"num_workers must be at least 0, got {num_workers}.")
        self.root = None if root is None else Path(root).expanduser()
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.seed = seed
        self._facts: dict[str, Any] | None = None
        self._datasets: dict[str, Dataset[Any]] = {}

    @property
    def init_args(self) -> dict[str, Any]:
        """Constructor arguments, with which it can be built again; a parent may have others, which it was given."""
        names = inspect.signature(type(self)).parameters
        return {k: v for k, v in self.hparams.items() if k in names}

    def __repr__(self) -> str:
        defaults = inspect.signature(type(self)).parameters
        given = [f"{k}={v!r}" for k, v in self.init_args.items() if v != defaults[k].default]
        return f"{type(self).__name__}({', '.join(given)})"

    # What a subclass fills in -------------------------------------------------------------------------------------

    def read_facts(self) -> dict[str, Any]:
        """Read what a model must know (`num_classes`, `class_names`, ...); under a second, nothing decoded."""
        raise NotImplementedError(f"{type(self).__name__} must implement read_facts()")

    def dataset(self, split: str) -> Dataset[Any]:
        """Build the data set of `train`, `val`, `test` or `predict`; items are dicts with an int `index`."""
        raise NotImplementedError(f"{type(self).__name__} must implement dataset()")

    def fake(self, folder: str | Path) -> Path:
        """Write a miniature of the real on-disk layout into `folder` and return it."""
        raise NotImplementedError(f"{type(self).__name__} must implement fake()")

    @classmethod
    def read_inputs(cls, path: Path, model: Any) -> Iterator[tuple[str, int | None, Any]]:
        """Inputs of `predict` in one file, for methods that do not take its path.

        Args:
            path: of a file in one of the formats that the data module reads.
            model: the method that will predict.

        Yields:
            What the number counts (`series`, `section`) and the number, or "" and None if the file is one input; and
            what `model.predict` takes.
        """
        yield "", None, str(path)

    @staticmethod
    def collate(items: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Join items into a batch dict; a static method, so that loader processes can be spawned."""
        return default_collate(list(items))

    # What the subclass gets ---------------------------------------------------------------------------------------

    def facts(self) -> dict[str, Any]:
        """What the data say about a model's arguments; read once."""
        if self._facts is None:
            self._facts = self.read_facts()
        return dict(self._facts)

    def fitting(self, epochs: int) -> dict[str, Any]:
        """Settings that fit the user's data better than a recipe's: `data.NAME`, `model.NAME`, `trainer.NAME` -> value.

        A run takes those that the user has not chosen, and of the model's those that its recipe sets.

        Args:
            epochs: as many as the recipe trains.
        """
        return {}

    @property
    def has_class_names(self) -> bool:
        """Whether the data say what their classes are called; where they do not, the names in `facts` are numbers."""
        return True

    def split(self, name: str) -> Dataset[Any]:
        """The data set of a split, built once."""
        if name not in SPLITS:
            raise BadInput(f"split must be one of {', '.join(SPLITS)}, got {name!r}.")
        if name not in self._datasets:
            self._datasets[name] = self.dataset(name)
        return self._datasets[name]

    def samples(self, split: str) -> Dataset[Any]:
        """The samples that checking a user's folder must read, where those of a split are something else."""
        return self.split(split)

    def loader(self, split: str) -> ZooLoader:
        """A loader over a split; training order is shuffled, the others are not."""
        data = self.split(split)
        world, rank = self._place()
        train = split == "train"
        every = train and self._needs_every_sample()
        part = self._part(data) if train else TrainingPart()
        if part.indices is not None or not part.augment:
            data = PartOfSet(data, part)
        place: dict[str, Any] = {"num_replicas": world, "rank": rank, "seed": self.seed}
        sized = cast(Sized, data)
        sampler = self.train_sampler(sized, place, every) if train else ShardSampler(sized, **place)
        batch_size = even_batches(len(sized), world, self.batch_size) if every else self.batch_size
        if part.batch_size is not None:
            batches = -(-len(sampler) // part.batch_size)
            batch_size, every = -(-len(sampler) // batches), True
        return ZooLoader(
            data,
            batch_size=batch_size,
            sampler=sampler,
            num_workers=self.num_workers,
            collate_fn=type(self).collate,
            # a partial last batch would give batch statistics of very few samples
            drop_last=train and not every and len(sampler) >= batch_size,
            pin_memory=torch.cuda.is_available(),
            # its own generator: the loader must not draw from the global random state, which the module restores
            generator=torch.Generator().manual_seed(self.seed),
        )

    def train_sampler(self, data: Sized, place: dict[str, Any], every: bool) -> TrainSampler:
        """Order of the training samples; a format whose samples are of several kinds overrides this.

        Args:
            data: the training split.
            place: `num_replicas`, `rank` and `seed`.
            every: whether each epoch must show every sample.
        """
        return TrainSampler(data, **place, every=every)

    def _needs_every_sample(self) -> bool:
        module = getattr(getattr(self, "trainer", None), "lightning_module", None)
        return bool(getattr(module, "every_sample", False))

    def _part(self, data: Dataset[Any]) -> TrainingPart:
        module = getattr(getattr(self, "trainer", None), "lightning_module", None)
        return module.training_part(data) if isinstance(module, ChoosesSamples) else TrainingPart()

    def _place(self) -> tuple[int, int]:
        trainer = getattr(self, "trainer", None)
        if trainer is not None:
            return int(trainer.world_size), int(trainer.global_rank)
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            return torch.distributed.get_world_size(), torch.distributed.get_rank()
        return 1, 0

    def _signed(self, loader: ZooLoader) -> ZooLoader:
        loader.made_by = self
        return loader

    def train_dataloader(self) -> ZooLoader:
        """Shuffled training loader."""
        return self._signed(self.loader("train"))

    def val_dataloader(self) -> ZooLoader:
        """Validation loader."""
        return self._signed(self.loader("val"))

    def test_dataloader(self) -> ZooLoader:
        """Test loader."""
        return self._signed(self.loader("test"))

    def predict_dataloader(self) -> ZooLoader:
        """Loader of samples without labels."""
        return self._signed(self.loader("predict"))


def even_batches(samples: int, world: int, batch_size: int) -> int:
    """The smallest batch size from the given one on with which every rank has equally many batches.

    Lightning talks between the ranks in each training step, so ranks with unequal numbers of batches would hang.
    """
    most, fewest = -(-samples // world), samples // world
    while -(-most // batch_size) != -(-fewest // batch_size):
        batch_size += 1
    return batch_size
