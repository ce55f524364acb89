"""What server and clients of a deployment have to agree on, and what each of them keeps on its disk."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from zoo.errors import BadInput, CorruptFile, InvalidConfig, ZooError
from zoo.files import write_whole
from zoo.store.archive import TorchArchive
from zoo.store.unpickle import unpickle

if TYPE_CHECKING:
    from zoo.federated.learner import FederatedLearner

__all__ = ["Job", "from_bytes", "read_file", "to_bytes", "write_file"]


@dataclass(frozen=True)
class Job:
    """A method and its data, as plain values that travel with every message.

    A client builds the module from its own index: what arrives names an id and arguments, never code.

    Args:
        method: id in the index.
        model: all arguments of the method.
        data: arguments of the data module except `root`, which each machine has its own of.
    """

    method: str
    model: dict[str, Any]
    data: dict[str, Any]

    @classmethod
    def of(cls, learner: FederatedLearner, data: Any) -> Job:
        """Of a module and a data module.

        Raises:
            InvalidConfig: if the module's class is in no index.
        """
        from zoo.index import id_of

        method = id_of(type(learner))
        if method is None:
            raise InvalidConfig(
                f"{type(learner).__name__} is in no index, so that clients could not build it; zoo.register it there "
                "and here."
            )
        return cls(method, dict(learner.init_args), {k: v for k, v in data.init_args.items() if k not in _LOCAL})

    def to_json(self) -> str:
        """One line, the same for equal jobs."""
        return json.dumps({"method": self.method, "model": self.model, "data": self.data}, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Job:
        """Read what `to_json` wrote.

        Raises:
            BadInput: if it is something else.
        """
        try:
            return cls(**json.loads(text))
        except (TypeError, ValueError) as error:
            raise BadInput(f"This is no job of a federated run: {text[:80]!r} ({error}).") from error

    @property
    def fingerprint(self) -> str:
        """Twelve digits that differ between jobs."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:12]

    def build(self, root: str | None = None) -> tuple[FederatedLearner, Any]:
        """The untrained module, in training mode, and the data module on this machine's data."""
        from zoo.federated.learner import FederatedLearner
        from zoo.index import info
        from zoo.store import load

        learner = load(self.method, weights=False, **self.model)
        if not isinstance(learner, FederatedLearner):
            raise InvalidConfig(f"{self.method} is not trained in federated rounds.")
        entry = info(self.method)
        learner.train()
        return learner, entry.data_class()(**{**self.data, "root": root})


_LOCAL = ("root", "predict_root", "num_workers")
"""Arguments of a data module that belong to a machine, not to a run."""


@lru_cache(maxsize=4)
def build_once(text: str, root: str | None) -> tuple[FederatedLearner, Any]:
    """`Job.build`, kept for further messages to the same process."""
    return Job.from_json(text).build(root)


def to_bytes(value: Any) -> bytes:
    """Nested dicts and lists of tensors and plain values."""
    stream = io.BytesIO()
    torch.save(value, stream)
    return stream.getvalue()


def from_bytes(data: bytes) -> Any:
    """Read what `to_bytes` wrote; executes nothing, and asks for no more memory than the message has bytes.

    Raises:
        UnsafeFile: if it is anything else.
        CorruptFile: if it is damaged.
    """
    return unpickle(TorchArchive(io.BytesIO(data), "a message of the federated run"))


def write_file(path: Path, value: Mapping[str, Any]) -> None:
    """Write a file whole or not at all: if the process is killed, the previous file survives."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, to_bytes(dict(value)))


def read_file(path: Path) -> dict[str, Any] | None:
    """Read it; None if there is none.

    Raises:
        CorruptFile: if it is damaged.
    """
    if not path.exists():
        return None
    try:
        content = from_bytes(path.read_bytes())
    except ZooError as error:
        raise CorruptFile(f"{path} cannot be read ({error}). Remove it to start from the beginning.") from error
    return dict(content)
