"""The client's side of a deployment: a ClientApp that trains as one process would."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from zoo.errors import BadInput
from zoo.federated.clients import train_client
from zoo.federated.flower.job import Job, build_once, from_bytes, read_file, to_bytes, write_file

__all__ = ["Memory", "clients_of", "make_client"]


def make_client() -> ClientApp:
    """The app that a SuperNode runs.

    Its node config says which clients live there (`clients="0,3,4"`, or Flower's own `partition-id`), and may say where
    their data are (`root`), where to keep their states between runs (`state-dir`), `device`, and `threads`.
    """

    def clients(message: Message, context: Context) -> Message:
        """Which clients live here."""
        content = RecordDict({"config": ConfigRecord({"clients": clients_of(context.node_config)})})
        return Message(content, reply_to=message)

    def train(message: Message, context: Context) -> Message:
        """Train one of them."""
        return Message(_train(message.content, context), reply_to=message)

    app = ClientApp()
    app.query()(clients)
    app.train()(train)
    return app


def clients_of(node_config: Mapping[str, Any]) -> list[int]:
    """Numbers of the clients of a node.

    Raises:
        BadInput: if the node config does not say.
    """
    given = node_config.get("clients", node_config.get("partition-id"))
    try:
        return [int(part) for part in str(given).split(",")]
    except ValueError:
        raise BadInput(
            f"A SuperNode must know its clients: --node-config 'clients=\"0,1,2\"' (or partition-id=0); got {given!r}."
        ) from None


def _train(content: RecordDict, context: Context) -> RecordDict:
    asked, here = content["config"], context.node_config
    client, round = int(asked["client"]), int(asked["round"])
    if client not in clients_of(here):
        raise BadInput(f"Client {client} does not live on this node, which has {here.get('clients')!r}.")
    if threads := int(here.get("threads", 0)):
        torch.set_num_threads(threads)
    root = here.get("root")
    learner, data = build_once(str(asked["job"]), None if root is None else str(root))
    learner.to(_device(str(here.get("device", "auto"))))
    task = next((task for task in data.cohort(round) if task.client == client), None)
    if task is None:
        raise BadInput(f"Client {client} takes no part in round {round}.")
    global_sd = {key: array.clone() for key, array in content["arrays"].to_torch_state_dict().items()}
    memory = Memory(context, Job.from_json(str(asked["job"])), client)
    ctx = learner.context(data, round)
    update, state = train_client(learner, data, task, global_sd, memory.before(round), ctx)
    memory.keep(round, state)
    about = ConfigRecord({"client": client, "round": round})
    if update.extras:
        about["extras"] = to_bytes(update.extras)
    metrics = MetricRecord({"num-examples": update.num_examples, **update.metrics})
    return RecordDict({"arrays": ArrayRecord(update.state), "metrics": metrics, "config": about})


def _device(name: str) -> str:
    return ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name


class Memory:
    """What a client remembers of its last two rounds, in Flower's context and, where asked, in a file.

    Flower's context lasts as long as a run. With `state-dir` in the node config, the memory also survives a server that
    is started again, which is a new run. Two rounds, because a server that died in a round repeats it, and the client
    then has to start from what it knew before.

    Args:
        context: of the node.
        job: of the run; other jobs have other files.
        client: whose memory.
    """

    def __init__(self, context: Context, job: Job, client: int) -> None:
        self.context, self.name = context, f"client-{client}"
        folder = context.node_config.get("state-dir")
        self.path = None if folder is None else Path(str(folder)) / f"{job.fingerprint}-{self.name}.pt"

    def _read(self) -> dict[int, dict[str, Any]]:
        if self.path is not None and (saved := read_file(self.path)) is not None:
            return {int(round): state for round, state in saved.items()}
        kept = self.context.state.get(self.name)
        return {} if kept is None else {int(r): s for r, s in from_bytes(bytes(kept["rounds"])).items()}

    def before(self, round: int) -> dict[str, Any]:
        """What the client knew before a round; empty at first."""
        known = self._read()
        earlier = [r for r in known if r < round]
        return known[max(earlier)] if earlier else {}

    def keep(self, round: int, state: Mapping[str, Any]) -> None:
        """Remember the state after a round."""
        known = self._read()
        earlier = sorted(r for r in known if r < round)[-1:]
        kept = {str(r): known[r] for r in earlier} | {str(round): dict(state)}
        if self.path is not None:
            write_file(self.path, kept)
        else:
            self.context.state[self.name] = ConfigRecord({"rounds": to_bytes(kept)})
