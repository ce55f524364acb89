"""The server's side of a deployment: a Flower strategy around a rule, checkpoints after every round."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg

from zoo.errors import BadInput, InvalidConfig
from zoo.federated.clients import working
from zoo.federated.flower.job import Job, from_bytes, read_file, write_file
from zoo.federated.learner import FederatedLearner
from zoo.federated.rules import ClientUpdate, StateDict

__all__ = ["RuleStrategy", "serve"]

_log = logging.getLogger(__name__)
CHECKPOINT = "server.pt"


class RuleStrategy(FedAvg):
    """Rounds of a federated method over Flower's nodes.

    The cohort comes from the data module and the clients' numbers from the nodes, so that the same clients do the same
    work as in one process. Clients that do not answer in time, or answer with an error, are missing in that round only.

    Args:
        learner: the method; its rule aggregates.
        data: its data module; only who takes part in which round is asked of it.
        start: w_t to start from.
        first_round: t.
        rule_state: of the rule, before that round.
        wait: seconds to wait for the clients of the first round; then it starts with those that are there.
        saved: called after each round with round, model, state of the rule and metrics.
    """

    def __init__(
        self,
        learner: FederatedLearner,
        data: Any,
        start: StateDict,
        *,
        first_round: int = 0,
        rule_state: Mapping[str, Any] | None = None,
        wait: float = 300.0,
        saved: Callable[[int, StateDict, dict[str, Any], dict[str, float]], None] | None = None,
    ) -> None:
        super().__init__(fraction_evaluate=0.0)
        if type(learner).craft is not FederatedLearner.craft:
            raise InvalidConfig(
                f"{type(learner).__name__}.craft changes updates with knowledge of all of them, which clients on "
                "machines of their own do not have; simulate it in one process."
            )
        self.learner, self.data, self.job = learner, data, Job.of(learner, data)
        self.global_sd, self.first_round, self.wait, self.saved = dict(start), first_round, wait, saved
        self.rule_state = dict(learner.rule.init_state(start) if rule_state is None else rule_state)
        self.nodes: dict[int, int] = {}
        self._asked: set[int] = set()
        self._begun = False

    def summary(self) -> None:
        """Say what is trained."""
        _log.info("%s, rule %r, from round %d on", self.job.method, self.learner.rule, self.first_round)

    # Who is there -------------------------------------------------------------------------------------------------

    def find(self, grid: Grid, wanted: Iterable[int]) -> dict[int, int]:
        """Client -> node, of the wanted clients that can be reached; asks nodes that came since."""
        wanted, until = list(wanted), time.monotonic() + self.wait
        while True:
            here = set(grid.get_node_ids())
            if fresh := sorted(here - self._asked):
                self._ask(grid, fresh)
            self._asked &= here
            self.nodes = {client: node for client, node in self.nodes.items() if node in here}
            reached = {client: self.nodes[client] for client in wanted if client in self.nodes}
            # once training has begun, missing clients are not waited for
            if len(reached) == len(wanted) or (self._begun and reached) or time.monotonic() >= until:
                break
            time.sleep(min(1.0, self.wait))
        if absent := [client for client in wanted if client not in reached]:
            _log.warning("clients %s cannot be reached and are missing in this round", absent)
        if wanted and not reached:
            raise BadInput(
                f"None of the clients {wanted[:10]} could be reached within {self.wait:g} s. Each SuperNode must say "
                "which clients it has: --node-config 'clients=\"0,1\"'."
            )
        return reached

    def _ask(self, grid: Grid, nodes: list[int]) -> None:
        messages = [Message(RecordDict(), dst_node_id=node, message_type=MessageType.QUERY) for node in nodes]
        for reply in grid.send_and_receive(messages, timeout=max(self.wait, 1.0)):
            node = reply.metadata.src_node_id
            if reply.has_error():  # it is asked again in the next round
                _log.warning("node %d: %s", node, reply.error.reason)
                continue
            self._asked.add(node)
            for client in reply.content["config"]["clients"]:
                self.nodes[int(client)] = node  # of two nodes with one client, the later one: it was started again

    # A round ------------------------------------------------------------------------------------------------------

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """One message for each client of the cohort whose work will count."""
        round = self.first_round + server_round - 1
        tasks = list(working(self.data.cohort(round), self.learner.client))
        nodes = self.find(grid, [task.client for task in tasks])
        self._begun = True
        messages = []
        for client, node in nodes.items():
            about = ConfigRecord({"client": client, "round": round, "job": self.job.to_json()})
            content = RecordDict({"arrays": arrays, "config": about})
            messages.append(Message(content, dst_node_id=node, message_type=MessageType.TRAIN, group_id=str(round)))
        return messages

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Apply the rule to the answers; also if there are none, so that the state counts the round."""
        round = self.first_round + server_round - 1
        answered, failed = self._check_and_log_replies(list(replies), is_train=True, validate=False)
        for reply in failed:
            _log.warning("round %d: node %d failed: %s", round, reply.metadata.src_node_id, reply.error.reason)
        updates = [_update(reply.content) for reply in answered if _of(reply.content, round)]
        ctx = self.learner.context(self.data, round)
        new, state, metrics = self.learner.rule(self.global_sd, updates, ctx, self.rule_state)
        if total := sum(update.num_examples for update in updates):
            metrics["loss"] = sum(u.num_examples * u.metrics.get("loss", 0.0) for u in updates) / total
        self.learner.round_done(ctx, metrics)
        self.global_sd, self.rule_state = new, state
        metrics = {key: value for key, value in metrics.items() if "/" not in key}  # of single clients may be thousands
        if self.saved is not None:
            self.saved(round, new, state, metrics)
        return ArrayRecord(new), MetricRecord(metrics)


def _of(content: RecordDict, round: int) -> bool:
    """Whether an answer belongs to this round; late ones of a former round do not."""
    return int(content["config"]["round"]) == round


def _update(content: RecordDict) -> ClientUpdate:
    metrics = {key: float(value) for key, value in content["metrics"].items()}
    count, about = int(metrics.pop("num-examples")), content["config"]
    state = {key: value.clone() for key, value in content["arrays"].to_torch_state_dict().items()}
    extras = from_bytes(bytes(about["extras"])) if "extras" in about else {}
    return ClientUpdate(int(about["client"]), count, state, metrics, extras)


def serve(
    grid: Grid,
    learner: FederatedLearner,
    data: Any,
    *,
    rounds: int,
    folder: str | Path | None = None,
    wait: float = 300.0,
    timeout: float = 3600.0,
    evaluate: Callable[[FederatedLearner], Mapping[str, float]] | None = None,
) -> list[dict[str, float]]:
    """Train over Flower's nodes, or continue where a server that died had stopped.

    Args:
        grid: of the run.
        learner: the method; holds the last global model afterwards.
        data: its data module.
        rounds: in all, those of former servers included.
        folder: where the checkpoint is written after each round; None: nowhere.
        wait: seconds to wait for the clients of the first round.
        timeout: seconds to wait for answers in a round.
        evaluate: called after each round with the module; what it returns is kept with the round's metrics.

    Returns:
        Metrics of each round.

    Raises:
        InvalidConfig: if the folder holds the checkpoint of another run.
    """
    job, path = Job.of(learner, data), None if folder is None else Path(folder) / CHECKPOINT
    saved = (read_file(path) if path is not None else None) or {}
    if saved and saved["job"] != job.to_json():
        raise InvalidConfig(f"{path} belongs to a run with other settings; choose another folder or remove it.")
    start, history = saved.get("model") or learner.global_state(), list(saved.get("history") or [])

    def finish(round: int, model: StateDict, state: dict[str, Any], metrics: dict[str, float]) -> None:
        learner.network.load_state_dict(model)
        scores = {} if evaluate is None else {k: float(v) for k, v in evaluate(learner).items()}
        history.append({"round": float(round), **metrics, **scores})
        if scores:
            _log.info("round %d: %s", round, ", ".join(f"{k} {v:.4g}" for k, v in scores.items()))
        if path is not None:
            write_file(path, {"job": job.to_json(), "model": model, "rule": state, "history": history})

    learner.network.load_state_dict(start)
    done = len(history)
    if done < rounds:
        strategy = RuleStrategy(
            learner, data, start, first_round=done, rule_state=saved.get("rule"), wait=wait, saved=finish
        )
        strategy.start(grid, ArrayRecord(start), num_rounds=rounds - done, timeout=timeout)
    return history


def validate(learner: FederatedLearner, data: Any) -> dict[str, float]:
    """Metrics of the global model on the server's validation data, by Lightning."""
    import lightning

    trainer = lightning.Trainer(
        accelerator="auto", devices=1, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False,
    )  # fmt: skip
    modes = {name: module.training for name, module in learner.named_modules()}
    with torch.random.fork_rng():
        (metrics,) = trainer.validate(learner, data, verbose=False)
    for name, module in learner.named_modules():
        module.training = modes[name]
    learner.cpu()
    return dict(metrics)
