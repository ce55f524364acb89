"""Tensors and plain values out of a `torch.save` archive. Nothing that the file names is imported or called.

The pickle in such a file is a small program. This machine knows the instructions that plain values and tensors need,
makes what they describe by its own means, and counts: a file cannot ask for more memory or time than its size explains.
"""

from __future__ import annotations

import struct
from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, cast

from zoo.errors import CorruptFile, UnsafeFile
from zoo.store.foreign import check_plain_size

if TYPE_CHECKING:
    import torch

__all__ = ["Archive", "unpickle", "unpickle_first"]

_MAX_PICKLE = 32 << 20
_MAX_STEPS = 4_000_000
_MAX_CONTAINERS = 1_000_000
_SLACK = 16 << 20

_STORAGES = {
    "BFloat16Storage": "bfloat16",
    "BoolStorage": "bool",
    "ByteStorage": "uint8",
    "CharStorage": "int8",
    "ComplexDoubleStorage": "complex128",
    "ComplexFloatStorage": "complex64",
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "IntStorage": "int32",
    "LongStorage": "int64",
    "ShortStorage": "int16",
    "UntypedStorage": "uint8",
}
_SCALARS = (str, int, float, bool, bytes, complex, type(None))


class Archive(Protocol):
    """A file that holds a program and the storages of its tensors."""

    where: object
    size: int

    def read(self, name: str, most: int) -> bytes:
        """A member as a whole."""

    def storage_size(self, key: str, count: int, width: int) -> int | None:
        """Bytes of a storage, of which the program says that it holds `count` numbers of `width` bytes."""

    def read_into(self, name: str, place: Any) -> None:
        """Read a member into memory of its size."""


class _Mark:
    """Stands on the stack where a list of arguments begins."""


class _Name:
    """A global that the file names: one of a few that are known here, never an object of another module."""

    def __init__(self, name: str) -> None:
        self.name = name


class _Storage:
    """The bytes behind tensors."""

    def __init__(self, key: str, dtype: torch.dtype, count: int) -> None:
        self.key, self.dtype, self.count = key, dtype, count
        self.bytes: Any = None


def unpickle(archive: Archive, *, tensors: bool = True) -> Any:
    """Read what a file holds.

    Args:
        archive: the file.
        tensors: False leaves the bytes of tensors in the file: they come as tensors without memory (device `meta`).

    Returns:
        Dicts, lists, tuples, sets, texts, numbers and tensors.

    Raises:
        UnsafeFile: if it names anything else, or asks for more than its size explains.
        CorruptFile: if it is damaged.
    """
    return unpickle_first(archive, tensors=tensors)[0]


def unpickle_first(archive: Archive, *, tensors: bool = True) -> tuple[Any, int]:
    """As `unpickle`, where further programs may follow; also returns how many bytes were read."""
    machine = _Machine(archive, tensors)
    try:
        result = machine.run()
    except (IndexError, KeyError, struct.error, TypeError, AttributeError, ValueError, OverflowError) as error:
        reason = f"{type(error).__name__} {str(error)[:80]}".strip()
        raise CorruptFile(f"{archive.where}: the checkpoint cannot be read ({reason}). Use another one.") from None
    check_plain_size(result, str(archive.where))
    return result, machine.at


class _Machine:
    """Executes the instructions of one pickle."""

    def __init__(self, archive: Archive, tensors: bool) -> None:
        self.archive, self.tensors = archive, tensors
        self.data = archive.read("data.pkl", _MAX_PICKLE)
        self.at = 0
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.storages: dict[str, _Storage] = {}
        self.views: set[tuple[Any, ...]] = set()
        self.containers = 0
        self.seen = 0  # bytes of all views of tensors
        self.held = 0  # bytes of all storages

    def run(self) -> Any:
        """Execute until STOP; returns what is then on top."""
        steps: dict[int, Callable[[], None]] = {ord(code): getattr(self, name) for code, name in _STEPS.items()}
        for _ in range(_MAX_STEPS):
            code = self.data[self.at]
            self.at += 1
            if code == 0x2E:  # STOP
                return self._result()
            step = steps.get(code)
            if step is None:
                self.refuse(f"the instruction {code:#04x}")
            step()
        return self.refuse(f"more than {_MAX_STEPS:,} instructions")

    def refuse(self, what: str) -> NoReturn:
        """Stop, because a file of tensors and plain values has no such thing."""
        raise UnsafeFile(
            f"{self.archive.where}: expected tensors and plain values only, got {what}. A checkpoint that would "
            "execute code, or ask for memory without end, looks like this. Nothing was executed; do not use this file."
        )

    def take(self, count: int) -> bytes:
        """The next bytes of the program."""
        part = self.data[self.at : self.at + count]
        if len(part) != count:
            raise ValueError("it ends too early")
        self.at += count
        return part

    def number(self, form: str) -> int:
        """The next number of the program."""
        value: int = struct.unpack(form, self.take(struct.calcsize(form)))[0]
        return value

    def _result(self) -> Any:
        (result,) = self.stack
        if self.seen > 2 * self.held + _SLACK:
            self.refuse(f"tensors of {self.seen:,} bytes in a file that holds {self.held:,}")
        return result

    def made(self, value: Any) -> None:
        """Push a new container; their number is bounded, since one costs a byte here and hundreds in memory."""
        self.containers += 1
        if self.containers > _MAX_CONTAINERS:
            self.refuse(f"more than {_MAX_CONTAINERS:,} lists")
        self.stack.append(value)

    def marked(self) -> list[Any]:
        """What lies above the last mark."""
        for start in range(len(self.stack) - 1, -1, -1):
            if self.stack[start] is _Mark:
                items = self.stack[start + 1 :]
                del self.stack[start:]
                return items
        raise ValueError("no mark")

    # Instructions -------------------------------------------------------------------------------------------------

    def proto(self) -> None:
        self.take(1)

    def mark(self) -> None:
        self.made(_Mark)

    def none(self) -> None:
        self.stack.append(None)

    def false(self) -> None:
        self.stack.append(False)

    def true(self) -> None:
        self.stack.append(True)

    def int_4(self) -> None:
        self.stack.append(self.number("<i"))

    def int_2(self) -> None:
        self.stack.append(self.number("<H"))

    def int_1(self) -> None:
        self.stack.append(self.number("<B"))

    def long(self) -> None:
        self.stack.append(int.from_bytes(self.take(self.number("<B")), "little", signed=True))

    def real(self) -> None:
        self.stack.append(struct.unpack(">d", self.take(8))[0])

    def text(self) -> None:
        self.stack.append(self.take(self.number("<I")).decode("utf-8"))

    def short_text(self) -> None:
        self.stack.append(self.take(self.number("<B")).decode("ascii"))

    def empty_dict(self) -> None:
        self.made({})

    def empty_list(self) -> None:
        self.made([])

    def empty_tuple(self) -> None:
        self.stack.append(())

    def empty_set(self) -> None:
        self.made(set())

    def tuple_1(self) -> None:
        self._pack(1)

    def tuple_2(self) -> None:
        self._pack(2)

    def tuple_3(self) -> None:
        self._pack(3)

    def _pack(self, count: int) -> None:
        items = self.stack[-count:]
        if len(items) != count:
            raise ValueError("too few values")
        del self.stack[-count:]
        self.made(tuple(items))

    def tuple_all(self) -> None:
        self.made(tuple(self.marked()))

    def append(self) -> None:
        value = self.stack.pop()
        self._list().append(value)

    def appends(self) -> None:
        values = self.marked()
        self._list().extend(values)

    def _list(self) -> list[Any]:
        target = self.stack[-1]
        if type(target) is not list:
            self.refuse("values appended to something that is no list")
        return target

    def set_item(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._fill([key, value])

    def set_items(self) -> None:
        self._fill(self.marked())

    def _fill(self, pairs: list[Any]) -> None:
        target = self.stack[-1]
        if type(target) not in (dict, OrderedDict, Counter) or len(pairs) % 2:
            self.refuse("keys of something that is no dict")
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            target[self.key(key)] = value

    def key(self, value: Any) -> Any:
        """A key of a dict or a member of a set: what is nested could take for ever to hash."""
        flat = type(value) is tuple and len(value) < 64 and all(isinstance(v, _SCALARS) for v in value)
        if not flat and not isinstance(value, _SCALARS):
            self.refuse("a key that is not plain")
        return value

    def put_1(self) -> None:
        self.memo[self.number("<B")] = self.stack[-1]

    def put_4(self) -> None:
        self.memo[self.number("<I")] = self.stack[-1]

    def get_1(self) -> None:
        self.stack.append(self.memo[self.number("<B")])

    def get_4(self) -> None:
        self.stack.append(self.memo[self.number("<I")])

    def name(self) -> None:
        end = self.data.find(b"\n", self.at, self.at + 200)
        last = self.data.find(b"\n", end + 1, end + 200) if end >= 0 else -1
        if last < 0:
            self.refuse("a global without a name")
        module, name = self.data[self.at : end].decode("ascii"), self.data[end + 1 : last].decode("ascii")
        self.at = last + 1
        module = {"__builtin__": "builtins", "torch.storage": "torch"}.get(module, module)
        full = f"{module}.{name}"
        known = full in _CALLS or (module == "torch" and (name in _STORAGES or _dtype(name) is not None))
        if not known:
            self.refuse(f"the global {full[:100]!r}")
        self.stack.append(_dtype(name) if module == "torch" and _dtype(name) is not None else _Name(full))

    def reduce(self) -> None:
        arguments, called = self.stack.pop(), self.stack.pop()
        if type(called) is not _Name or called.name not in _CALLS or type(arguments) is not tuple:
            self.refuse("a call of something that is no known constructor")
        self.made(getattr(self, _CALLS[called.name])(*arguments))

    def build(self) -> None:
        """State dicts carry the versions of their layers as an attribute; nothing else has a state here."""
        state, target = self.stack.pop(), self.stack[-1]
        if type(target) is not OrderedDict or not isinstance(state, dict) or set(state) - {"_metadata"}:
            self.refuse("the state of an object")
        target.__dict__.update(state)

    def storage(self) -> None:
        kind, named, key, _, count, *view = self.stack.pop()
        whole = isinstance(key, str) and type(count) is int and view in ([], [None])  # files before 1.6 name a view
        if kind != "storage" or type(named) is not _Name or not whole:
            self.refuse("a reference that is no storage")
        dtype = _dtype(_STORAGES.get(named.name.removeprefix("torch."), ""))
        size = None if dtype is None else self.archive.storage_size(key, count, dtype.itemsize)
        if dtype is None or size is None or count < 0 or count * dtype.itemsize != size:
            raise ValueError(f"storage {key[:20]!r} has {size} bytes")
        if (known := self.storages.get(key)) is None:
            known = self.storages[key] = _Storage(key, dtype, count)
            self.held += size
        if known.dtype != dtype:
            self.refuse("a storage with two types of numbers")
        self.stack.append(known)

    # Constructors -------------------------------------------------------------------------------------------------

    def ordered(self, pairs: Any = ()) -> OrderedDict[Any, Any]:
        mapping: OrderedDict[Any, Any] = OrderedDict()
        for key, value in pairs:
            mapping[self.key(key)] = value
        return mapping

    def counter(self, counts: Any = None) -> Counter[Any]:
        if counts is not None and type(counts) is not dict:
            self.refuse("counts that are no dict")
        return Counter(counts or {})

    def members(self, values: Any = ()) -> set[Any]:
        if type(values) is not list and values != ():
            self.refuse("a set of something that is no list")
        return {self.key(value) for value in values}

    def encoded(self, text: Any, encoding: Any) -> bytes:
        if not isinstance(text, str) or encoding != "latin1":
            self.refuse("bytes in another encoding")
        return text.encode("latin1")

    def complex_number(self, real: Any, imaginary: Any) -> complex:
        if type(real) is not float or type(imaginary) is not float:
            self.refuse("a complex number that is none")
        return complex(real, imaginary)

    def lengths(self, sizes: Any = ()) -> Any:
        import torch

        return torch.Size(_whole(sizes))

    def device(self, kind: Any, index: Any = None) -> Any:
        """Where a value lay; here everything lies in main memory."""
        import torch

        return torch.device("cpu")

    def tensor_3(self, storage: Any, offset: Any, size: Any, stride: Any, _g: Any, _h: Any, dtype: Any, *_: Any) -> Any:
        import torch

        if not isinstance(dtype, torch.dtype):
            self.refuse("a type of numbers that is none")
        return self._view(storage, offset, size, stride, dtype)

    def tensor_2(self, storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> Any:
        return self._view(storage, offset, size, stride, storage.dtype)

    def parameter(self, data: Any, requires_grad: Any, *_: Any) -> Any:
        import torch

        if not isinstance(data, torch.Tensor):
            self.refuse("a parameter that is no tensor")
        floats = data.is_floating_point() or data.is_complex()
        return torch.nn.Parameter(data, requires_grad=bool(requires_grad) and floats)

    def _view(self, storage: Any, offset: Any, size: Any, stride: Any, dtype: torch.dtype) -> Any:
        """A tensor, if it lies inside its storage."""
        import torch

        if type(storage) is not _Storage:
            self.refuse("a tensor without storage")
        size, stride = _whole(size), _whole(stride)
        (offset,) = _whole((offset,))
        total = storage.count * storage.dtype.itemsize // dtype.itemsize
        numel = 1
        for length in size:
            numel *= length
        last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True)) if numel else 0
        if len(size) > 64 or (numel and last >= total) or numel >= 1 << 62:
            raise ValueError(f"a tensor of shape {list(size)[:8]} does not lie inside its storage")
        view = (storage.key, offset, size, stride, dtype)
        self.seen += 0 if view in self.views else numel * dtype.itemsize
        self.views.add(view)
        if self.seen > 2 * self.archive.size + _SLACK:
            self.refuse(f"tensors of {self.seen:,} bytes in a file of {self.archive.size:,}")
        if not self.tensors:
            return torch.empty_strided(size, stride, dtype=dtype, device="meta")
        return torch.empty(0, dtype=dtype).set_(self._bytes(storage), offset, size, stride)

    def _bytes(self, storage: _Storage) -> Any:
        import torch

        if storage.bytes is None:
            # memory of torch's own allocator: results must not depend on where a file put its numbers
            place = torch.empty(storage.count * storage.dtype.itemsize, dtype=torch.uint8)
            if len(place):
                self.archive.read_into(f"data/{storage.key}", memoryview(cast(Any, place.numpy())))
            storage.bytes = place.untyped_storage()
        return storage.bytes


def _whole(values: Any) -> tuple[int, ...]:
    if not isinstance(values, (tuple, list)) or not all(type(v) is int and 0 <= v < 1 << 62 for v in values):
        raise ValueError("a shape that is none")
    return tuple(values)


def _dtype(name: str) -> torch.dtype | None:
    import torch

    dtype = getattr(torch, name, None) if name.isalnum() or "_" in name else None
    return dtype if isinstance(dtype, torch.dtype) else None


_STEPS = {
    "\x80": "proto",
    "(": "mark",
    "N": "none",
    "\x89": "false",
    "\x88": "true",
    "J": "int_4",
    "M": "int_2",
    "K": "int_1",
    "\x8a": "long",
    "G": "real",
    "X": "text",
    "U": "short_text",
    "}": "empty_dict",
    "]": "empty_list",
    ")": "empty_tuple",
    "\x8f": "empty_set",
    "\x85": "tuple_1",
    "\x86": "tuple_2",
    "\x87": "tuple_3",
    "t": "tuple_all",
    "a": "append",
    "e": "appends",
    "s": "set_item",
    "u": "set_items",
    "q": "put_1",
    "r": "put_4",
    "h": "get_1",
    "j": "get_4",
    "c": "name",
    "R": "reduce",
    "b": "build",
    "Q": "storage",
}
"""Instructions of pickle's protocol 2, as `torch.save` writes it."""

_CALLS = {
    "collections.OrderedDict": "ordered",
    "collections.Counter": "counter",
    "builtins.set": "members",
    "builtins.complex": "complex_number",
    "_codecs.encode": "encoded",
    "torch.Size": "lengths",
    "torch.device": "device",
    "torch._utils._rebuild_tensor_v2": "tensor_2",
    "torch._utils._rebuild_tensor_v3": "tensor_3",
    "torch._utils._rebuild_parameter": "parameter",
}
"""What a file may name, and the constructor here that makes it."""
