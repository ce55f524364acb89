"""Images that belong to clients: federated learning on everything that `datamodules.images` reads.

The training split is a data set of *clients*: an epoch of Lightning's loop is a round, a sample is a client's task in
it, and the images a client trains on come from `client_loader`. Validation, test and predict are images of everyone.

    iid            dealt at random
    shards-N       N shards of the images sorted by class for each client (pathological non-IID)
    dirichlet-A    class shares by a Dirichlet distribution; the smaller A, the more skewed
    labels-N       N classes for each client
    quantity-A     equal classes, sizes by a Dirichlet distribution
    group          one person, flight or machine belongs to one client as a whole
    spatial        a compact territory for each client

Groups and places come with LandCoverMap (flights) and CelebA (identities). For class folders they are the folders
between class and file (CLASS/ENTITY/*.jpg) or a `metadata.csv` with `file_name` and `group`, or `x` and `y`; in npz
files the arrays `groups` and `positions`.
"""

from __future__ import annotations

import logging
import warnings
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from datamodules.base import ZooLoader, even_batches
from datamodules.clients.marks import folder_groups, folder_positions
from datamodules.clients.partition import Partition, Shares, no_groups
from datamodules.clients.picture import counts_picture, counts_table, table_csv
from datamodules.clients.tasks import ClientTask, CohortSampler, CohortSet, LocalBatches, LocalSet, Swarm
from datamodules.images import ImagesDataModule
from datamodules.images.celeba import celeba_identities
from datamodules.images.dataset import FileSource, ImageSet
from zoo.errors import BadInput

__all__ = ["ClientTask", "ClientsDataModule"]

_log = logging.getLogger(__name__)
_EACH = 20  # pictures of a client, at least


class ClientsDataModule(ImagesDataModule):
    """Images shared among clients.

    Training batch, a process's clients of a round (or `clients_per_step` of them): `index` int64 (B,), the clients'
    ids; `round` int64 (B,); `share_of_work` float64 (B,); `link_up` bool (B,). Batches of `client_loader`, validation
    and test: `index` int64 (B,), `image` float32 (B, C, S, S) in [0, 1], `label` int64 (B,); predict has no label.

    Cohorts, lost links, stragglers, and the order and augmentation of a client's images are drawn from (seed, round,
    client) alone: equal on all ranks and machines, in whatever order clients train.

    Args:
        root: folder of the data or an npz file; None for embedded data.
        format: fashion-mnist, mnist, cifar-10, cifar-100, svhn, eurosat, celeba, gtsrb, gtsrb-roi, folders, npz, or
            auto to find out. Without a root: fashion-mnist (auto), mnist, or land-cover, whose flights suit `group` and
            `spatial`.
        img_size: side S; None keeps that of the data.
        channels: 1 or 3; None keeps that of the data.
        batch_size: images of a client's local step, and of a batch of validation and test.
        num_workers: loader processes; data in memory need none.
        seed: of the run: cohorts, links, stragglers, order, augmentation; never who owns which image.
        num_clients: K; 0: as many as there are groups.
        partition: iid, shards-N, dirichlet-A, labels-N, quantity-A, group or spatial.
        min_client_size: images that each client must have; draws that leave one with fewer are repeated. None: one
            batch of 32 or half of an equal share, whichever is smaller, for dirichlet and quantity; else 1.
        partition_seed: another number gives images to other clients.
        participation: share of the clients that take part in a round, in (0, 1].
        link_loss: probability that a participant's update does not reach the server.
        stragglers: probability that a participant is slow.
        straggler_work: least and largest share of its local steps that a slow one gets done.
        clients_per_step: clients per training step and process, so that a run can stop within a round; 0: a process's
            whole share of the cohort.
        drop_last: leave out the smaller last batch of a client's pass, unless it is the only one.
        val_size: images held out for validation, before clients get theirs.
        train_size: images shared among the clients.
        test_size: images to test on.
        split_seed: another number holds out and chooses other images.
        crop: pixels of zero padding from which training images are cropped at random.
        flip: probability of a horizontal flip of training images.
        attribute: which of CelebA's attributes is the label.
        predict_root: folder of images for `predict`; None: the test split.
    """

    classes_are_whole = False

    def __init__(
        self,
        root: str | None = None,
        format: str = "auto",
        img_size: int | None = None,
        channels: int | None = None,
        batch_size: int = 32,
        num_workers: int = 0,
        seed: int = 0,
        num_clients: int = 10,
        partition: str = "iid",
        min_client_size: int | None = None,
        partition_seed: int = 0,
        participation: float = 1.0,
        link_loss: float = 0.0,
        stragglers: float = 0.0,
        straggler_work: tuple[float, float] = (0.1, 1.0),
        clients_per_step: int = 0,
        drop_last: bool = False,
        val_size: float | None = None,
        train_size: float | None = None,
        test_size: float | None = None,
        split_seed: int = 0,
        crop: int = 0,
        flip: float = 0.0,
        attribute: str = "Smiling",
        predict_root: str | None = None,
    ) -> None:
        super().__init__(
            root=root,
            format=format,
            img_size=img_size,
            channels=channels,
            batch_size=batch_size,
            num_workers=num_workers,
            seed=seed,
            val_size=val_size,
            train_size=train_size,
            test_size=test_size,
            split_seed=split_seed,
            crop=crop,
            flip=flip,
            attribute=attribute,
            predict_root=predict_root,
        )
        self.partition = Partition.parse(partition)
        self._check_numbers()
        self._shares: Shares | None = None
        self._clients: dict[int, ImageSet] = {}

    def _check_numbers(self) -> None:
        """Refuse unusable arguments now, not when the first round begins."""
        given = self.hparams
        if given["num_clients"] < 1 and not (given["num_clients"] == 0 and self.partition.kind == "group"):
            raise BadInput(f"num_clients: expected at least 1, or 0 with partition=group; got {given['num_clients']}.")
        if not 0 < given["participation"] <= 1:
            raise BadInput(
                f"participation: expected a share of the clients in (0, 1], got {given['participation']}: a cohort "
                "cannot be larger than the swarm."
            )
        for key in ("link_loss", "stragglers"):
            if not 0 <= given[key] <= 1:
                raise BadInput(f"{key}: expected a probability in [0, 1], got {given[key]}.")
        work = given["straggler_work"]
        if len(work) != 2 or not 0 < work[0] <= work[1] <= 1:
            raise BadInput(f"straggler_work: expected two shares, 0 < least <= largest <= 1, got {work}.")
        for key, least in (("clients_per_step", 0), ("min_client_size", 1)):
            if given[key] is not None and given[key] < least:
                raise BadInput(f"{key}: expected at least {least}, got {given[key]}.")

    # Who owns what ------------------------------------------------------------------------------------------------

    @cached_property
    def num_clients(self) -> int:
        """K."""
        if given := int(self.hparams["num_clients"]):
            return given
        if (groups := self._groups()) is None:
            raise no_groups()
        return len(np.unique(groups))

    @cached_property
    def swarm(self) -> Swarm:
        """Who takes part in which round."""
        given = self.hparams
        low, high = given["straggler_work"]
        luck = given["link_loss"], given["stragglers"], (float(low), float(high))
        return Swarm(self.num_clients, given["participation"], *luck, self.seed)

    @cached_property
    def images(self) -> ImageSet:
        """The training images of all clients together."""
        images = super().dataset("train")
        assert images.labels is not None
        return images

    def shares(self) -> list[np.ndarray]:
        """Positions in `images` of each client's own ones, int64 (n_k,), rising; none belongs to two clients.

        Raises:
            BadInput: if the partition does not fit the data.
            BadData: if it needs groups or places and there are none.
        """
        if self._shares is None:
            labels, kind = self.images.labels, self.partition.kind
            assert labels is not None
            groups = self._groups() if kind == "group" or (kind == "spatial" and self.format == "land-cover") else None
            self._shares = self.partition.share(
                labels,
                self.num_clients,
                self.hparams["partition_seed"],
                least=self.hparams["min_client_size"],
                groups=groups,
                positions=self._positions() if kind == "spatial" else None,
            )
            if self._shares.retries:
                _log.info(
                    f"partition {self.partition.name}: {self._shares.retries} draws repeated, in which a client had "
                    "fewer images than min_client_size"
                )
            if self._shares.left_out:
                warnings.warn(
                    f"partition {self.partition.name}: {self._shares.left_out} of {len(labels)} training images are of "
                    "classes that no client drew, and are left out",
                    stacklevel=2,
                )
        return self._shares.parts

    def client_names(self) -> list[str] | None:
        """What each client is called by the folders or names of its groups; None where clients are mere numbers."""
        groups = self._groups() if self.partition.kind == "group" else None
        if groups is None or groups.dtype.kind != "U":
            return None
        return [", ".join(np.unique(groups[share]).tolist()) for share in self.shares()]

    def _groups(self) -> np.ndarray | None:
        return self._marks("groups")

    def _positions(self) -> np.ndarray | None:
        return self._marks("positions")

    def _marks(self, name: str) -> np.ndarray | None:
        """Groups or positions of `images`, if the data have them."""
        source = self.images.source
        if not isinstance(source, FileSource):
            marks = getattr(self._arrays("train"), name)
        elif self.format == "celeba":
            marks = celeba_identities(self._celeba(), source.paths) if name == "groups" else None
        else:
            read = folder_groups if name == "groups" else folder_positions
            marks = read(self._where(), self._folders("train") or {}, source.paths)
        return None if marks is None else marks[self.images.chosen]

    def _known(self, client: int) -> int:
        if not 0 <= client < self.num_clients:
            raise BadInput(f"client: expected 0 to {self.num_clients - 1}, got {client}.")
        return client

    # What fits the user's data ------------------------------------------------------------------------------------

    def fitting(self, epochs: int) -> dict[str, Any]:
        """As for pictures; clients are the groups if the pictures have any, else as many as there are pictures for."""
        better = super().fitting(epochs)
        if self.root is None:
            return better
        groups, count = self._groups(), len(self.images)
        most = max(2, count // _EACH)
        if groups is not None and 1 < len(np.unique(groups)) <= most:
            clients = {"data.partition": "group", "data.num_clients": 0}
        else:
            clients = {"data.num_clients": min(int(self.hparams["num_clients"]) or most, most)}
        return better | {k: v for k, v in clients.items() if self.hparams[k.removeprefix("data.")] != v}

    def _small_set(self, count: int, epochs: int) -> dict[str, Any]:
        return super()._small_set(max(1, count // max(1, int(self.hparams["num_clients"]))), epochs)

    # What a client has --------------------------------------------------------------------------------------------

    def client_size(self, client: int) -> int:
        """Images of a client."""
        return len(self.shares()[self._known(client)])

    def client_dataset(self, client: int) -> ImageSet:
        """A client's training images; `index` counts within the client."""
        if client not in self._clients:
            mine = self.images.chosen[self.shares()[self._known(client)]]
            seed = self.swarm.augment_seed(client)
            self._clients[client] = ImageSet(self.images.source, mine, self.images.augment, seed)
        return self._clients[client]

    def client_loader(self, client: int, round: int, epochs: int = 1) -> DataLoader[Any]:
        """All local batches of a client in a round: `epochs` passes over its images, each in its own order.

        Order and augmentation follow from (seed, round, client) alone, and the first passes are those of a loader with
        fewer. A straggler stops after `ClientTask.steps(len(loader))` batches. Iterating again gives the same batches.

        Args:
            client: id.
            round: 0-based.
            epochs: E, passes over the client's images.

        Raises:
            BadInput: if there is no such client, or epochs is below 1.
        """
        if epochs < 1:
            raise BadInput(f"epochs: a client needs at least one pass over its images, got {epochs}.")
        local = LocalSet(self.client_dataset(client), round, epochs)
        seed = self.swarm.order_seed(round, client)
        size = len(local.images)
        return DataLoader(
            local,
            batch_sampler=LocalBatches(size, self.batch_size, epochs, seed, self.hparams["drop_last"]),
            num_workers=self.num_workers,
            collate_fn=type(self).collate,
            pin_memory=torch.cuda.is_available(),
            # its own generator: a loader must not draw from the global random state
            generator=torch.Generator().manual_seed(seed),
        )

    def cohort(self, round: int) -> list[ClientTask]:
        """The tasks of a round, by rising client id: the same on all ranks and machines.

        Args:
            round: 0-based.
        """
        return self.swarm.cohort(round)

    # Report -------------------------------------------------------------------------------------------------------

    def class_counts(self) -> np.ndarray:
        """Images of each client and class, int64 (K, C)."""
        labels, classes = self.images.labels, self.facts()["num_classes"]
        assert labels is not None
        return np.stack([np.bincount(labels[share], minlength=classes) for share in self.shares()])

    def partition_report(self) -> list[dict[str, Any]]:
        """A row per client: `client`, `name` where its group has one, `images`, `label NAME` for each class, `skew`.

        `skew` is the total variation distance between its shares of the classes and everyone's, in [0, 1).
        """
        return counts_table(self.class_counts(), self.facts()["class_names"], self.client_names())

    def partition_picture(self) -> Image.Image:
        """A bar per client, as long as its number of images, divided by class."""
        counts = self.class_counts()
        title = f"{counts.sum():,} training images of {len(counts)} clients, {self.partition.name}"
        return counts_picture(counts, self.facts()["class_names"], title, self.client_names())

    def write_partition(self, folder: str | Path) -> None:
        """Write the report as `partition.csv` and `partition.png` into a folder, made if needed."""
        place = Path(folder)
        place.mkdir(parents=True, exist_ok=True)
        (place / "partition.csv").write_text(table_csv(self.partition_report()), encoding="utf-8")
        self.partition_picture().save(place / "partition.png")

    def setup(self, stage: str) -> None:
        """Write the report into the run's folder when training starts; a run without a logger has none."""
        trainer = self.trainer
        if stage != "fit" or trainer is None or not trainer.loggers:
            return
        folder = trainer.log_dir  # all ranks ask: the first one's answer is sent to the others
        if folder is not None and trainer.is_global_zero:
            self.write_partition(folder)

    # Splits -------------------------------------------------------------------------------------------------------

    def dataset(self, split: str) -> Dataset[Any]:  # type: ignore[override]
        """Build one split: clients for training, images else."""
        if split != "train":
            return super().dataset(split)
        return CohortSet(self.swarm, [len(share) for share in self.shares()])

    def samples(self, split: str) -> Dataset[Any]:
        """The images behind a split, for checks that read them all."""
        if split != "train":
            return self.split(split)
        self.shares()
        return self.images

    def loader(self, split: str) -> ZooLoader:
        """A loader over a split; that of training hands out this process's clients of a round.

        Raises:
            BadInput: if a step is to take more clients than there are in a round.
        """
        if split != "train":
            return super().loader(split)
        cohort = self.split("train")
        assert isinstance(cohort, CohortSet)
        world, rank = self._place()
        sampler = CohortSampler(cohort, world, rank, self.seed)  # refuses fewer clients than processes
        wanted = self.hparams["clients_per_step"] or -(-len(cohort) // world)
        if wanted > len(cohort):
            raise BadInput(f"clients_per_step={wanted}: there are {len(cohort)} clients in a round; use 0 for all.")
        return ZooLoader(
            cohort,
            batch_size=even_batches(len(cohort), world, wanted),
            sampler=sampler,
            collate_fn=type(self).collate,
            generator=torch.Generator().manual_seed(self.seed),
        )
