"""Images that belong to clients: federated learning on everything that `datamodules.images` reads."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from datamodules._clients_partition import iid
from datamodules._clients_tasks import ClientTask, CohortSampler, CohortSet, LocalBatches, LocalSet, Swarm
from datamodules._images_dataset import ImageSet
from datamodules.base import ZooLoader, _even_batches
from datamodules.images import ImagesDataModule
from zoo.errors import BadInput

__all__ = ["ClientTask", "ClientsDataModule"]


class ClientsDataModule(ImagesDataModule):
    """Images shared among clients. The training split is a data set of clients, one epoch of it is one round.

    Training batch (as many clients as `clients_per_step`): `index` int64 (B,), the clients' ids; `round` int64 (B,);
    `share_of_work` float64 (B,); `link_up` bool (B,). Their images come from `client_loader`. Validation, test and
    predict batches are those of `ImagesDataModule`.

    Args:
        root: as in `ImagesDataModule`, likewise format, img_size, channels, sizes, crop, flip, split_seed, predict_root.
        batch_size: images of a local step, and of an evaluation batch.
        num_clients: K.
        partition: who owns what.
        participation: share of the clients that take part in a round.
        link_loss: probability that a participant's update is lost.
        stragglers: probability that a participant is slow.
        straggler_work: least and largest share of its local steps that a slow one gets done.
        clients_per_step: clients per training step and process; 0: a process's whole share of the cohort.
    """

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
        min_client_size: int = 10,
        partition_seed: int = 0,
        participation: float = 1.0,
        link_loss: float = 0.0,
        stragglers: float = 0.0,
        straggler_work: tuple[float, float] = (0.1, 1.0),
        clients_per_step: int = 0,
        val_size: float | None = None,
        train_size: float | None = None,
        test_size: float | None = None,
        split_seed: int = 0,
        crop: int = 0,
        flip: float = 0.0,
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
            predict_root=predict_root,
        )
        low, high = straggler_work
        self.num_clients = num_clients
        self.swarm = Swarm(num_clients, participation, link_loss, stragglers, (low, high), seed)
        self._images: ImageSet | None = None
        self._shares: list[np.ndarray] | None = None
        self._clients: dict[int, ImageSet] = {}

    # Who owns what ------------------------------------------------------------------------------------------------

    def images(self) -> ImageSet:
        """The training images of all clients together."""
        if self._images is None:
            self._images = super().dataset("train")
        return self._images

    def shares(self) -> list[np.ndarray]:
        """Positions in `images()` of each client's own ones, int64 (n_k,), rising."""
        if self._shares is None:
            labels = self.images().labels
            assert labels is not None
            self._shares = iid(labels, self.num_clients, np.random.default_rng(self.hparams["partition_seed"]))
        return self._shares

    def client_size(self, client: int) -> int:
        """Images of a client."""
        return len(self.shares()[self._known(client)])

    def client_dataset(self, client: int) -> ImageSet:
        """A client's training images; items as in `ImagesDataModule`, `index` counts within the client."""
        if client not in self._clients:
            images, mine = self.images(), self.shares()[self._known(client)]
            seed = self.swarm.augment_seed(client)
            self._clients[client] = ImageSet(images.source, images.chosen[mine], images.augment, seed)
        return self._clients[client]

    def client_loader(self, client: int, round: int, epochs: int = 1) -> DataLoader[Any]:
        """All local batches of a client in a round: `epochs` passes, each in its own order.

        Order and augmentation follow from (seed, round, client) alone. A straggler takes the first
        `share_of_work` of them.

        Args:
            client: id.
            round: 0-based.
            epochs: E, passes over the client's images.
        """
        local = LocalSet(self.client_dataset(client), round, epochs)
        seed = self.swarm.order_seed(round, client)
        return DataLoader(
            local,
            batch_sampler=LocalBatches(self.client_size(client), self.batch_size, epochs, seed),
            num_workers=self.num_workers,
            collate_fn=type(self).collate,
            pin_memory=torch.cuda.is_available(),
            # its own generator: a loader must not draw from the global random state
            generator=torch.Generator().manual_seed(seed),
        )

    def cohort(self, round: int) -> list[ClientTask]:
        """The tasks of a round, by rising client id: the same on all ranks and machines."""
        return self.swarm.cohort(round)

    def _known(self, client: int) -> int:
        if not 0 <= client < self.num_clients:
            raise BadInput(f"client: expected 0 to {self.num_clients - 1}, found {client}.")
        return client

    # Splits -------------------------------------------------------------------------------------------------------

    def dataset(self, split: str) -> Dataset[Any]:  # type: ignore[override]
        """Build one split: clients for training, images else."""
        if split != "train":
            return super().dataset(split)
        return CohortSet(self.swarm, [len(share) for share in self.shares()])

    def loader(self, split: str) -> ZooLoader:
        """A loader over a split; that of training hands out a round's clients."""
        if split != "train":
            return super().loader(split)
        cohort = self.split("train")
        assert isinstance(cohort, CohortSet)
        world, rank = self._place()
        wanted = self.hparams["clients_per_step"] or -(-len(cohort) // world)
        return ZooLoader(
            cohort,
            batch_size=_even_batches(len(cohort), world, wanted),
            sampler=CohortSampler(cohort, world, rank, self.seed),
            collate_fn=type(self).collate,
            generator=torch.Generator().manual_seed(self.seed),
        )
