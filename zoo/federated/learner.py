"""Federated learning as a Lightning module: one epoch is one round.

In round t the server holds w_t, the state dict of `network`. For each client of the cohort that this process serves,
`collect` trains a replica from w_t on the client's own data (`clients.py`); at the end of the epoch `update` hands the
answers to the aggregation rule (`rules.py`), and the result becomes w_{t+1} inside the last training step, so that
validation, checkpoints, early stopping and resuming are those of any Lightning run. With several processes (strategy
`fed_ddp`) each trains its share of the cohort, and the rule combines them.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from zoo import checks
from zoo.base import RoundModule
from zoo.errors import InvalidConfig
from zoo.federated.clients import ClientAlgorithm, LocalTraining, ParamScope, train_client, working
from zoo.federated.clients.transforms import UpdateTransform, create_transform
from zoo.federated.processes import can_fork, in_processes
from zoo.federated.ranks import comm_of_run
from zoo.federated.rules import ClientUpdate, RoundContext, Rule, StateDict

__all__ = ["LOCAL_ARGUMENTS", "FederatedLearner"]

_DATA = ("cohort", "client_loader", "client_size", "num_clients")
_PREFIX = "network."
LOCAL_ARGUMENTS = {
    **{name: name for name in ("lr", "optimizer", "momentum", "nesterov", "weight_decay", "milestones")},
    "local_epochs": "epochs",
    "optimizer_policy": "policy",
}
"""Hyper-parameter -> attribute of `LocalTraining`."""


class FederatedLearner(RoundModule):
    """Base of federated methods.

    A subclass builds its network, calls `federate`, and implements `local_step`, `forward` and the evaluation of the
    global model. It may override `client_batch` (attacks on data), `group_of` (groups of clients that share entries),
    and `craft` (clients that see the others' updates).

    Data come from a module with `cohort(round)`, `client_loader(client, round, epochs)`, `client_size(client)` and
    `num_clients`, such as `datamodules.clients`.
    """

    network: nn.Module
    """What is learned together. Everything else in the module is the method's own."""

    def federate(
        self,
        network: nn.Module,
        rule: Rule,
        client: ClientAlgorithm | None = None,
        local: LocalTraining | None = None,
        *,
        scope: ParamScope | None = None,
        transforms: Sequence[UpdateTransform] = (),
        client_processes: int | None = None,
    ) -> None:
        """Configure the federated run. Call it last in the constructor.

        Args:
            network: the global model.
            rule: how updates become the next global model.
            client: how clients train; None: plainly.
            local: settings of local training.
            scope: which entries are shared with whom; None: all with everybody.
            transforms: what updates go through on the client.
            client_processes: processes that train a rank's clients side by side, with one thread each; 1: this process
                alone, with the threads it has; None: as many as torch has threads, where networks are on the CPU and
                processes can be forked.
        """
        if client_processes is not None:
            checks.at_least("client_processes", client_processes, 1)
        self.network, self.rule = network, rule
        self.client, self.local = client or ClientAlgorithm(), local or LocalTraining()
        self.scope, self.transforms = scope or ParamScope(), tuple(transforms)
        self.client_processes = client_processes
        self.client_states: dict[int, dict[str, Any]] = {}
        self.rule_state: dict[str, Any] | None = None
        self._replicas: dict[str, list[nn.Module]] = {}
        self._updates: list[ClientUpdate] = []
        self._changed: dict[int, dict[str, Any]] = {}
        self._resumed = False

    def local_training(self) -> LocalTraining:
        """Settings of local training: the hyper-parameters of that meaning that the method has, defaults for the rest.

        These are local_epochs, lr, optimizer, momentum, nesterov, weight_decay, optimizer_policy and milestones.
        """
        options = {field: self.hparams[name] for name, field in LOCAL_ARGUMENTS.items() if name in self.hparams}
        options["milestones"] = tuple(options.get("milestones") or ())
        return LocalTraining(**options)

    def update_transforms(self) -> list[UpdateTransform]:
        """What updates go through on the client, from the hyper-parameter `transforms`."""
        return [create_transform(options) for options in self.hparams.get("transforms") or []]

    # What a subclass fills in -------------------------------------------------------------------------------------

    def local_step(self, network: nn.Module, batch: dict[str, Any]) -> tuple[Tensor, Tensor | None]:
        """Loss of a client's batch, and the representation (n, d) that contrastive algorithms compare, or None.

        Args:
            network: of the kind of `self.network`; use its weights, not those of `self.network`.
            batch: on its device.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement local_step()")

    def client_batch(self, client: int, batch: dict[str, Any]) -> dict[str, Any]:
        """A client's batch on the module's device. Attacks on data override it, and call it first."""
        if self.device.type == "cpu":
            return batch
        return self.transfer_batch_to_device(batch, self.device, 0)  # type: ignore[no-any-return]

    def group_of(self, client: int) -> str | None:
        """The group in `scope` to which a client belongs."""
        return None

    def craft(self, updates: list[ClientUpdate], ctx: RoundContext) -> list[ClientUpdate]:
        """Change updates with knowledge of all of them; for attackers that are given this knowledge.

        Args:
            updates: of the whole round, by client; with several processes, on each of them.
            ctx: the round.

        Returns:
            As many, of the same clients.
        """
        return updates

    def round_done(self, ctx: RoundContext, metrics: Mapping[str, float]) -> None:
        """Called after each aggregation with all metrics of the rule; the same on all processes."""

    # Clients ------------------------------------------------------------------------------------------------------

    def replica(self, name: str = "client") -> nn.Module:
        """A copy of the network to train, with the network's modes and frozen parts; the same object for one name."""
        if name not in self._replicas:
            self._replicas[name] = [copy.deepcopy(self.network)]  # a list hides it from state_dict and parameters
        made = self._replicas[name][0].to(self.device)
        for own, model in zip(made.modules(), self.network.modules(), strict=True):
            own.training = model.training
        for own_parameter, parameter in zip(made.parameters(), self.network.parameters(), strict=True):
            own_parameter.requires_grad_(parameter.requires_grad)
        return made

    def global_state(self) -> StateDict:
        """The network's state dict as clients receive it: copies in host memory."""
        return {k: v.detach().to("cpu", copy=True).contiguous() for k, v in self.network.state_dict().items()}

    def context(self, data: Any, round: int) -> RoundContext:
        """The round, as client algorithms and rules see it."""
        cohort = tuple(task.client for task in data.cohort(round))
        return RoundContext(round, int(data.seed), cohort, int(data.num_clients))

    def collect(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Train the clients of a batch; what the round has learned so far stays outside the module's weights."""
        data = self._clients()
        ids = set(batch["index"].tolist())
        tasks = [task for task in data.cohort(self.current_epoch) if task.client in ids]
        ready = sorted(working(tasks, self.client), key=lambda t: -t.share_of_work * data.client_size(t.client))
        ctx, global_sd = self.context(data, self.current_epoch), self.global_state()

        def work(task: Any) -> tuple[dict[str, Any], dict[str, Any]]:
            update, state = train_client(self, data, task, global_sd, self.client_states.get(task.client, {}), ctx)
            return _plain(update), state

        count = self._processes(data)
        if count > 1 and len(ready) > 1:
            answers = in_processes(work, ready, count)
        else:
            answers = [work(task) for task in ready]
        for update, state in answers:
            self._updates.append(ClientUpdate(**update))
            self._changed[update["client_id"]] = state

    def _processes(self, data: Any) -> int:
        wanted = self.client_processes
        if self.device.type != "cpu" or not can_fork() or getattr(data, "num_workers", 0) > 0:
            return 1  # processes that have children cannot be forked for a while, and a GPU cannot be forked at all
        return torch.get_num_threads() if wanted is None else wanted

    def _clients(self) -> Any:
        data = getattr(self.trainer, "datamodule", None)
        if missing := [name for name in _DATA if not hasattr(data, name)]:
            raise InvalidConfig(
                f"{type(self).__name__} trains on clients: fit it with a ClientsDataModule, or one that has "
                f"{', '.join(_DATA)}; {type(data).__name__} lacks {', '.join(missing)}."
            )
        return data

    # Rounds -------------------------------------------------------------------------------------------------------

    def update(self) -> dict[str, Tensor]:
        """Aggregate what all processes collected; logs the mean local loss and the rule's metrics."""
        data = self._clients()
        ctx, global_sd = self.context(data, self.current_epoch), self.global_state()
        if self.rule_state is None:
            self.rule_state = self.rule.init_state(global_sd)
        new, state, metrics = self.rule(global_sd, self._crafted(ctx), ctx, self.rule_state, comm_of_run())
        self._log_round(metrics)
        self.round_done(ctx, metrics)
        for changed in self.gather(self._changed):  # each process keeps all, since any may serve a client next time
            self.client_states |= {c: s for c, s in changed.items() if s}
        self.rule_state = state
        self._updates, self._changed = [], {}
        return {_PREFIX + name: value for name, value in new.items()}

    def _crafted(self, ctx: RoundContext) -> list[ClientUpdate]:
        if type(self).craft is FederatedLearner.craft:
            return self._updates
        mine = {u.client_id for u in self._updates}
        together = [ClientUpdate(**u) for part in self.gather([_plain(u) for u in self._updates]) for u in part]
        return [u for u in self.craft(sorted(together, key=lambda u: u.client_id), ctx) if u.client_id in mine]

    def _log_round(self, metrics: Mapping[str, float]) -> None:
        parts = self.gather([(u.num_examples, u.metrics["loss"]) for u in self._updates])
        losses = [pair for part in parts for pair in part]
        # metrics of single clients or entries may be thousands
        values = {f"train/{name}": float(value) for name, value in metrics.items() if "/" not in name}
        if total := sum(n for n, _ in losses):
            values["train/loss"] = sum(n * loss for n, loss in losses) / total
        self.log_dict(values, on_step=False, on_epoch=True, batch_size=1)

    # Lightning ----------------------------------------------------------------------------------------------------

    def setup(self, stage: str) -> None:
        """Refuse what rounds cannot do.

        Raises:
            InvalidConfig: for data without clients, and for `16-mixed`, whose loss scaling belongs to one optimiser.
        """
        super().setup(stage)
        if stage != "fit":
            return
        self._clients()
        if self.trainer.precision == "16-mixed":
            raise InvalidConfig(
                "Clients have optimisers of their own, without loss scaling: use bf16-mixed or 32-true."
            )

    def on_fit_start(self) -> None:
        """Forget the rounds of another run, unless a checkpoint is resumed."""
        super().on_fit_start()
        if not self._resumed:
            self.client_states, self.rule_state = {}, None
            self._updates, self._changed = [], {}
        self._resumed = False
        self._replicas = {}

    def collected_state(self) -> dict[str, Any]:
        """Answers of an unfinished round."""
        return {"updates": [_plain(u) for u in self._updates], "changed": self._changed}

    def load_collected_state(self, state: dict[str, Any]) -> None:
        """Continue the unfinished round."""
        self._updates = [ClientUpdate(**u) for u in state["updates"]]
        self._changed = dict(state["changed"])

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what rule and clients remember."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["federated"] = {"rule": self.rule_state, "clients": self.client_states}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore it."""
        super().on_load_checkpoint(checkpoint)
        saved = checkpoint.get("federated") or {}
        self.rule_state, self.client_states = saved.get("rule"), dict(saved.get("clients") or {})
        self._resumed = True


def _plain(update: ClientUpdate) -> dict[str, Any]:
    """An update as dicts of tensors and numbers, which checkpoints and pipes take."""
    return {name: getattr(update, name) for name in ("client_id", "num_examples", "state", "metrics", "extras")}
