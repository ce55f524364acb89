"""How much memory arguments from a file may ask for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from zoo.errors import UnsafeFile

__all__ = ["bounded_memory"]


class _Bound(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts what operators allocate. An allocation is only virtual until it is written, so this comes in time."""

    def __init__(self, limit: int, where: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.limit, self.where, self.seen = limit, where, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor) and not result._is_view():
            self.seen = max(self.seen, result.untyped_storage().nbytes())
            if self.seen > self.limit:
                raise UnsafeFile(
                    f"{self.where}: its init values ask for a tensor of {self.seen:,} bytes, far more than its weights "
                    "hold. Do not use this file."
                )
        return result


@contextmanager
def bounded_memory(limit: int, where: str) -> Iterator[None]:
    """Refuse to build a module with a single tensor above `limit` bytes."""
    with _Bound(limit, where):
        yield
