"""Flower without a network: real strategies, messages and apps, called in this process."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from flwr.supercore.task_identity import TaskIdentity

__all__ = ["LocalGrid"]


class LocalGrid(Grid):
    """Nodes that live in this process, one after the other, for trying out and for tests.

    Args:
        app: what every node runs.
        nodes: node config of each node; see `make_client`.
        broken: called with (node, message) before a node gets a message; True: it dies without an answer and is gone.
    """

    def __init__(
        self,
        app: ClientApp,
        nodes: Sequence[Mapping[str, Any]],
        broken: Callable[[int, Message], bool] | None = None,
    ) -> None:
        # messages take their sender from what Flower's processes are given at their start; there is no public way
        TaskIdentity.task_id = TaskIdentity.run_id = TaskIdentity.node_id = 1
        self.app, self.broken = app, broken
        self._numbers = itertools.count()
        self.contexts: dict[int, Context] = {}
        for config in nodes:
            self.add(config)
        self._replies: dict[str, Message] = {}

    def add(self, config: Mapping[str, Any]) -> int:
        """A node joins; returns its id."""
        node = 100 + next(self._numbers)
        self.contexts[node] = Context(
            run_id=1, node_id=node, node_config=dict(config), state=RecordDict(), run_config={}
        )
        return node

    def set_run(self, run: Any) -> None:
        """Nothing to set."""

    @property
    def run(self) -> Any:
        """There is no run to tell about."""
        raise NotImplementedError("A LocalGrid has no run.")

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """A message to a node."""
        return Message(content, dst_node_id=dst_node_id, message_type=message_type, group_id=group_id, ttl=ttl)

    def get_node_ids(self) -> Iterable[int]:
        """Nodes that are there."""
        return list(self.contexts)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Deliver messages; nodes answer at once."""
        ids = []
        for message in messages:
            ids.append(f"message-{next(self._numbers)}")
            reply = self._deliver(message)
            if reply is not None:
                self._replies[ids[-1]] = reply
        return ids

    def _deliver(self, message: Message) -> Message | None:
        node = message.metadata.dst_node_id
        if node not in self.contexts:
            return None
        if self.broken is not None and self.broken(node, message):
            del self.contexts[node]
            return None
        message.metadata.__dict__["_message_id"] = f"to-{node}"
        before = TaskIdentity.node_id
        TaskIdentity.node_id = node
        try:
            return self.app(message, self.contexts[node])
        except Exception as error:  # as a SuperNode does: the reason travels to the server
            return Message(Error(code=2, reason=f"{type(error).__name__}: {error}"), reply_to=message)
        finally:
            TaskIdentity.node_id = before

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Answers."""
        return [self._replies.pop(key) for key in message_ids if key in self._replies]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Deliver and collect."""
        return self.pull_messages(self.push_messages(messages))
