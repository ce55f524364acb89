"""A federated learner and clients without images: rows whose label says which of two numbers is larger."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning
import torch
from lightning import Callback, LightningDataModule, Trainer, seed_everything
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from datamodules.base import ZooLoader, even_batches
from datamodules.clients.tasks import CohortSampler, CohortSet, Swarm
from zoo.federated.clients import LocalTraining, ParamScope, create_client
from zoo.federated.learner import FederatedLearner
from zoo.federated.rules import create_rule
from zoo.streams import hash64


class ToyClients(LightningDataModule):
    """Clients of unequal sizes, of which every third has the labels the other way round in part."""

    num_workers = 0

    def __init__(self, clients: int = 5, seed: int = 0, per_step: int = 0, **swarm: Any) -> None:
        super().__init__()
        self.num_clients, self.seed, self.per_step = clients, seed, per_step
        self.swarm = Swarm(clients, seed=seed, **swarm)
        draw = torch.Generator().manual_seed(7)
        self.rows = [torch.randn(7 + 4 * client, 4, generator=draw) for client in range(clients)]

    def cohort(self, round: int) -> Any:
        return self.swarm.cohort(round)

    def client_size(self, client: int) -> int:
        return len(self.rows[client])

    def client_loader(self, client: int, round: int, epochs: int = 1) -> Any:
        rows = self.rows[client]
        label = (rows[:, 0] > rows[:, 1]).long()
        batches = []
        for epoch in range(epochs):
            order = torch.randperm(len(rows), generator=_generator(self.seed, round, client, epoch))
            batches += [{"row": rows[part], "label": label[part]} for part in order.split(4)]
        return batches

    def train_dataloader(self) -> ZooLoader:
        cohort = CohortSet(self.swarm, [len(rows) for rows in self.rows])
        world, rank = self.trainer.world_size, self.trainer.global_rank
        size = even_batches(len(cohort), world, self.per_step or -(-len(cohort) // world))
        return ZooLoader(cohort, batch_size=size, sampler=CohortSampler(cohort, world, rank))

    def val_dataloader(self) -> DataLoader:
        return DataLoader(TensorDataset(torch.zeros(1)))


def _generator(*numbers: int) -> torch.Generator:
    return torch.Generator().manual_seed(hash64(*numbers))


class ToyLearner(FederatedLearner):
    """Two layers with dropout, so that the random state matters."""

    def __init__(
        self,
        rule: str = "fedavg",
        rule_options: dict[str, Any] | None = None,
        client: str = "plain",
        client_options: dict[str, Any] | None = None,
        scope: list[list[str]] | None = None,
        client_processes: int | None = 1,
        dropout: float = 0.2,
        local: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        network = nn.Sequential()
        network.add_module("body", nn.Linear(4, 6))
        network.add_module("norm", nn.BatchNorm1d(6))
        network.add_module("drop", nn.Dropout(dropout))
        network.add_module("head", nn.Linear(6, 2))
        self.federate(
            network,
            create_rule(rule, **(rule_options or {})),
            create_client(client, **(client_options or {})),
            LocalTraining(**{"lr": 0.1, "momentum": 0.9, "epochs": 2, **(local or {})}),
            scope=ParamScope([tuple(pair) for pair in scope or []]),  # type: ignore[misc]
            client_processes=client_processes,
        )

    def forward(self, row: Tensor) -> Tensor:
        return self.network(row)

    def local_step(self, network: nn.Module, batch: dict[str, Any]) -> tuple[Tensor, Tensor | None]:
        parts: Any = network
        z = parts.drop(torch.relu(parts.norm(parts.body(batch["row"]))))
        return F.cross_entropy(parts.head(z), batch["label"]), z

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val/sum", sum(p.double().sum() for p in self.network.parameters()).float())  # type: ignore[union-attr]


def trainer_of(folder: Path, *callbacks: Callback, **options: Any) -> Trainer:
    quiet: dict[str, Any] = {
        "accelerator": "cpu",
        "devices": 1,
        "logger": False,
        "enable_checkpointing": any(isinstance(c, lightning.pytorch.callbacks.Checkpoint) for c in callbacks),
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "max_epochs": 3,
    }
    return Trainer(default_root_dir=str(folder), callbacks=list(callbacks), **{**quiet, **options})


def learn(folder: Path, data: dict[str, Any] | None = None, *callbacks: Callback, fit: Any = None, **model: Any) -> Any:
    """A trained toy; `fit` holds options of the trainer."""
    seed_everything(0, verbose=False)
    learner = ToyLearner(**model)
    trainer_of(folder, *callbacks, **(fit or {})).fit(learner, ToyClients(**(data or {})))
    return learner


def state_of(learner: Any) -> dict[str, Tensor]:
    return {k: v.detach().clone() for k, v in learner.network.state_dict().items()}


def apart(first: Any, second: Any) -> float:
    """Largest difference of two learners' networks."""
    a, b = state_of(first), state_of(second)
    return max(float((a[k].double() - b[k].double()).abs().max()) for k in a)
