"""How much memory, and how many layers, arguments from a file may ask for."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any, NoReturn

import torch
from torch import Tensor, nn
from torch.nn.modules import module as hooks
from torch.nn.parameter import is_lazy
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from zoo.checks import limited_work
from zoo.errors import UnsafeFile

__all__ = ["bounded", "largest_tensor"]

_SLACK = 1 << 29
"""What only training needs, such as a teacher, is not in the file, which says nothing about its size then."""
_COPIES = 4
"""A file in half precision doubles when it is read, and some constructors build a network twice."""
_MODULES = 2_000
_BYTES_PER_MODULE = 1_000
_WORK = 1 << 23


class _Largest(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Refuses tensors above a size before they are made.

    Args:
        most: bytes.
        where: for messages.
    """

    def __init__(self, most: int, where: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.most, self.where = most, where

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        self.check(_wanted(func, args, kwargs))
        result = func(*args, **kwargs)
        self.check(_largest(result))
        return result

    def check(self, size: int) -> None:
        """Compare bytes with the limit."""
        if size > self.most:
            self.refuse(f"tensors of {size:,} bytes", self.most)

    def refuse(self, what: str, most: int) -> NoReturn:
        """Say what was asked for."""
        raise UnsafeFile(
            f"{self.where}: its init values ask for {what}, far more than its weights explain (at most {most:,}). Do "
            "not use this file."
        )


class _Bound(_Largest):  # type: ignore[no-untyped-call]
    """Counts what a constructor makes, and stops it before it makes more than a file explains.

    Args:
        size: bytes of the file.
        where: for messages.
    """

    def __init__(self, size: int, where: str) -> None:
        super().__init__(_SLACK + _COPIES * size, where)
        self.most_modules = _MODULES + size // _BYTES_PER_MODULE
        self.thread = threading.get_ident()
        self.held = self.modules = 0

    # Hooks of torch that see each registration, of all threads ----------------------------------------------------

    def on_module(self, owner: nn.Module, name: str, child: nn.Module | None) -> None:
        """Count a layer."""
        if threading.get_ident() == self.thread:
            self.modules += 1
            if self.modules > self.most_modules:
                self.refuse(f"{self.modules:,} layers and more", self.most_modules)

    def on_tensor(self, owner: nn.Module, name: str, tensor: Tensor | None) -> None:
        """Count a parameter or a buffer."""
        if threading.get_ident() == self.thread and isinstance(tensor, Tensor) and not is_lazy(tensor):
            self.held += tensor.numel() * tensor.element_size()
            self.check(self.held)


def _wanted(func: Any, args: Any, kwargs: dict[str, Any]) -> int:
    """Bytes that an operator is about to allocate; 0 where only running it would tell."""
    if func._schema.is_mutable:
        return 0
    with_device = any(argument.name == "device" for argument in func._schema.arguments)
    try:
        virtual_args, virtual = tree_map(_virtual, (args, kwargs))
        return _largest(func(*virtual_args, **(virtual | ({"device": torch.device("meta")} if with_device else {}))))
    except (RuntimeError, NotImplementedError, TypeError, ValueError) as error:
        return 1 << 63 if "overflow" in str(error).lower() else 0


def _virtual(value: Any) -> Any:
    """A tensor of that shape without memory."""
    if not isinstance(value, Tensor):
        return value
    return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device="meta")


def _largest(result: Any) -> int:
    tensors = [t for t in tree_leaves(result) if isinstance(t, Tensor) and not t._is_view()]
    return max((t.untyped_storage().nbytes() for t in tensors), default=0)


@contextmanager
def bounded(size: int, where: str) -> Iterator[None]:
    """Refuse to build more than the weights of a file of `size` bytes explain.

    Tensors are counted together as they are registered, each single one before it is made; layers are counted, too, and
    so is work that torch does not see, where a constructor says it (`zoo.checks.work`).

    Args:
        size: bytes of the file whose config the arguments are from.
        where: for messages.

    Raises:
        UnsafeFile: as soon as it is too much.
    """
    bound = _Bound(size, where)
    with ExitStack() as stack:
        for register, hook in (
            (hooks.register_module_module_registration_hook, bound.on_module),
            (hooks.register_module_parameter_registration_hook, bound.on_tensor),
            (hooks.register_module_buffer_registration_hook, bound.on_tensor),
        ):
            stack.callback(register(hook).remove)  # type: ignore[operator]
        stack.enter_context(limited_work(_WORK + _COPIES * size, where))
        stack.enter_context(bound)
        yield


def largest_tensor(most: int, where: str) -> AbstractContextManager[Any]:
    """Refuse to make a single tensor above `most` bytes, with `UnsafeFile`."""
    return _Largest(most, where)
