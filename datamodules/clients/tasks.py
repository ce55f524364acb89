"""What a round asks of which client: cohorts, lost links, stragglers, and the order of a client's images.

Everything is drawn from (seed, round, client) by `zoo.streams`, never from a rank, an order or a generator that others
use, so that one process, ranks and other machines see the same.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch.utils.data import Dataset, Sampler

from datamodules.base import ShardSampler
from datamodules.images.dataset import ImageSet
from zoo.streams import generator_for, hash64

__all__ = ["ClientTask", "CohortSampler", "CohortSet", "LocalBatches", "LocalSet", "Swarm"]

_COHORT, _LINK, _WORK, _ORDER, _AUGMENT = -1, -2, -3, -4, -5  # names of streams, next to (seed, round, client)


@dataclass(frozen=True)
class ClientTask:
    """One client's part in a round.

    Attributes:
        client: id, 0-based.
        share_of_work: share of the local steps the client gets done, in (0, 1]; 1 unless it is a straggler.
        link_up: whether its update reaches the server.
    """

    client: int
    share_of_work: float = 1.0
    link_up: bool = True

    def steps(self, of: int) -> int:
        """How many of its local steps the client gets done: at least one."""
        return max(1, math.ceil(self.share_of_work * of))


@dataclass(frozen=True)
class Swarm:
    """Who takes part, whose link fails, who is slow.

    Attributes:
        clients: K.
        participation: share of the clients in each round, in (0, 1]; at least one takes part.
        link_loss: probability that a participant's update is lost.
        stragglers: probability that a participant is slow.
        straggler_work: least and largest share of the local steps that a slow one gets done.
        seed: of the run.
    """

    clients: int
    participation: float = 1.0
    link_loss: float = 0.0
    stragglers: float = 0.0
    straggler_work: tuple[float, float] = (0.1, 1.0)
    seed: int = 0

    @property
    def cohort_size(self) -> int:
        """Clients per round."""
        return max(1, round(self.participation * self.clients))

    def cohort(self, round: int) -> list[ClientTask]:
        """The tasks of a round, by rising client id."""
        if self.cohort_size == self.clients:
            chosen = list(range(self.clients))
        else:
            drawn = generator_for(self.seed, round, _COHORT).choice(self.clients, self.cohort_size, replace=False)
            chosen = sorted(drawn.tolist())
        return [self._task(round, client) for client in chosen]

    def order_seed(self, round: int, client: int) -> int:
        """Names the order of a client's images in a round."""
        return hash64(self.seed, round, client, _ORDER)

    def augment_seed(self, client: int) -> int:
        """Names a client's augmentation."""
        return hash64(self.seed, client, _AUGMENT)

    def _task(self, round: int, client: int) -> ClientTask:
        """A client's luck does not depend on who else takes part."""
        if not self.link_loss and not self.stragglers:  # the usual case, for swarms of thousands
            return ClientTask(client)
        lost = generator_for(self.seed, round, client, _LINK).random() < self.link_loss
        slow, share = generator_for(self.seed, round, client, _WORK).random(2).tolist()
        low, high = self.straggler_work
        return ClientTask(client, low + (high - low) * share if slow < self.stragglers else 1.0, not lost)


class CohortSet(Dataset[dict[str, Any]]):
    """The cohort of a round as a data set: `set_epoch(round)` brings on the next one.

    Args:
        swarm: who takes part.
        sizes: images of each client.
    """

    def __init__(self, swarm: Swarm, sizes: Sequence[int]) -> None:
        self.swarm, self.sizes = swarm, list(sizes)
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Draw the cohort of round number `epoch`."""
        self.epoch = epoch
        self.tasks = self.swarm.cohort(epoch)

    def __len__(self) -> int:
        return self.swarm.cohort_size

    def __getitem__(self, index: int) -> dict[str, Any]:
        """`index`: the client's id; `round`; `share_of_work`; `link_up`."""
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        task = self.tasks[index]
        return {
            "index": task.client,
            "round": self.epoch,
            "share_of_work": task.share_of_work,
            "link_up": task.link_up,
        }

    def order(self, world: int) -> list[int]:
        """Positions of the tasks such that every `world`-th one from each start on makes shares of about equal work.

        The largest first, each to the process that has least to do among those that have not yet as many clients as
        the others.
        """
        work = [task.share_of_work * self.sizes[task.client] for task in self.tasks]
        room = [len(range(rank, len(work), world)) for rank in range(world)]
        mine: list[list[int]] = [[] for _ in range(world)]
        load = [0.0] * world
        for i in sorted(range(len(work)), key=lambda i: (-work[i], i)):
            rank = min((r for r in range(world) if len(mine[r]) < room[r]), key=lambda r: (load[r], r))
            mine[rank].append(i)
            load[rank] += work[i]
        return [mine[position % world][position // world] for position in range(len(work))]


class CohortSampler(ShardSampler):
    """Shares the clients of a round among the ranks, none twice and none left out, with about equal work."""

    def order(self) -> list[int]:
        """Positions of all ranks together; the same on each of them."""
        cohort: Any = self.dataset
        cohort.set_epoch(self.epoch)
        return cohort.order(self.num_replicas)


class LocalSet(Dataset[dict[str, Any]]):
    """A client's images as one round sees them: item `i` is image `i % n` in local epoch `i // n`.

    Args:
        images: of the client.
        round: 0-based.
        epochs: E, passes over the images in the round.
    """

    def __init__(self, images: ImageSet, round: int, epochs: int = 1) -> None:
        self.images, self.round, self.epochs = images, round, epochs

    def __len__(self) -> int:
        return self.epochs * len(self.images)

    def __getitems__(self, indices: Sequence[int]) -> dict[str, Any]:
        """A batch, which must lie within one local epoch; augmentation is drawn from (seed, client, round, epoch)."""
        epoch, first = divmod(indices[0], len(self.images))
        view = copy(self.images)  # other rounds share the images, not the epoch
        view.set_epoch(hash64(self.round, epoch))
        return view.__getitems__([first, *(i - epoch * len(self.images) for i in indices[1:])])

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        return {key: value[0] for key, value in self.__getitems__([index % len(self)]).items()}


class LocalBatches(Sampler[list[int]]):
    """Batches of `LocalSet`: each local epoch in its own order, its last batch smaller if need be.

    Args:
        size: n, images of the client.
        batch_size: of local training.
        epochs: E.
        seed: that of (run, round, client).
        drop_last: leave out the smaller last batch of an epoch, unless it is the only one.
    """

    def __init__(self, size: int, batch_size: int, epochs: int, seed: int, drop_last: bool = False) -> None:
        self.size, self.batch_size, self.epochs, self.seed = size, batch_size, epochs, seed
        self.per_epoch = size // batch_size if drop_last and size >= batch_size else -(-size // batch_size)

    def __len__(self) -> int:
        return self.epochs * self.per_epoch

    def __iter__(self) -> Iterator[list[int]]:
        for epoch in range(self.epochs):
            order = np.random.default_rng((self.seed, epoch)).permutation(self.size) + epoch * self.size
            for start in range(0, self.per_epoch * self.batch_size, self.batch_size):
                yield order[start : start + self.batch_size].tolist()
