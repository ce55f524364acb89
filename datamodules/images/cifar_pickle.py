"""Reading the pickles in which CIFAR is published, without the pickle module.

A pickle is a program: it names functions to call, and states to give to the objects that come out. These files need few
kinds of value (text, whole numbers, None, lists, dicts, and arrays of bytes), so this is an interpreter of the few
opcodes that write them. It imports nothing, calls nothing and gives no state to any object of numpy: what names numpy's
functions stands for a word on the stack, and an array is made from a shape and from as many bytes as the shape says.
Nothing nests deeper than lists in a dict, and no text is copied more often than the file holds it, so that no value is
larger than the file, or swells when it is compared.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

__all__ = ["NotCifarError", "read_cifar_pickle"]


class NotCifarError(ValueError):
    """A pickle that holds what no file of CIFAR holds, or one that is damaged."""


# What the names in a pickle stand for: words, which are compared and never called.
_GLOBALS = {
    ("numpy.core.multiarray", "_reconstruct"): "array",
    ("numpy._core.multiarray", "_reconstruct"): "array",
    ("numpy.core.numeric", "_frombuffer"): "array of bytes",
    ("numpy._core.numeric", "_frombuffer"): "array of bytes",
    ("numpy", "ndarray"): "class of arrays",
    ("numpy", "dtype"): "type of numbers",
    ("_codecs", "encode"): "text to bytes",
}
_KINDS: dict[str, tuple[np.dtype[Any], tuple[Any, ...]]] = {
    "u1": (np.dtype(np.uint8), (3, "|", None, None, None, -1, -1, 0)),
    "i8": (np.dtype("<i8"), (3, "<", None, None, None, -1, -1, 0)),
}
"""Name of a type of numbers -> the type, and the state that a pickle gives it."""
_SHORT = 255  # longer texts are the pixels of an array
_MOST_STEPS = 1_000_000  # of a program; the largest file, of CIFAR-100, has about 300,000


class _Name:
    """A global of the pickle."""

    def __init__(self, meaning: str) -> None:
        self.meaning = meaning


class _Kind:
    """A type of numbers."""

    def __init__(self, name: str) -> None:
        self.type, self.state = _KINDS[name]


class _Array:
    """An array that waits for its content, then has it."""

    value: np.ndarray | None = None


_Plain = (int, str, type(None))  # bool is an int


def read_cifar_pickle(data: bytes, kinds: Sequence[str] = ("u1",)) -> dict[str, Any]:
    """The dict in a pickle of CIFAR: of Python 2 as published, or written by Python 3 with protocol 2 to 5.

    Args:
        data: content of the file; arrays are views of it.
        kinds: types of numbers that its arrays may have: `u1` (uint8), `i8` (int64).

    Returns:
        Name -> text, whole number, None, a list of these, or an array. Bytes come as text (Latin-1).

    Raises:
        NotCifarError: for everything else.
    """
    machine = _Machine(data, kinds)
    try:
        content = machine.run()
    except (IndexError, KeyError, UnicodeError) as error:
        raise NotCifarError(f"it is damaged near byte {machine.place}") from error
    if not isinstance(content, dict):
        raise NotCifarError("it holds no dict")
    return {key: value.value if isinstance(value, _Array) else value for key, value in content.items()}


class _Machine:
    """The stack, the values that the pickle refers to again, and what its opcodes do.

    Args:
        data: content of the file.
        kinds: types of numbers that arrays may have.
    """

    def __init__(self, data: bytes, kinds: Sequence[str]) -> None:
        self.data, self.view, self.place = data, memoryview(data), 0
        self.kinds = kinds
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []  # stacks below the marks
        self.memo: dict[int, Any] = {}
        self.encoded = 0

    def run(self) -> Any:
        """What the program leaves behind."""
        for _ in range(_MOST_STEPS):
            code = self.data[self.place]
            self.place += 1
            if code == 0x2E:  # STOP
                if len(self.stack) != 1 or self.below:
                    raise NotCifarError("its program ends in the middle")
                return self.stack[0]
            operation = _OPERATIONS.get(code)
            if operation is None:
                raise NotCifarError(f"it uses the opcode {bytes([code])!r}, which no file of CIFAR needs")
            operation(self)
        raise NotCifarError(f"it has more than {_MOST_STEPS:,} steps")

    # Reading ----------------------------------------------------------------------------------------------------------

    def take(self, count: int) -> memoryview:
        """The next bytes."""
        start, self.place = self.place, self.place + count
        if self.place > len(self.data):
            raise NotCifarError("it is cut short")
        return self.view[start : self.place]

    def number(self, size: int, signed: bool = False) -> int:
        """A whole number of some bytes."""
        return int.from_bytes(self.take(size), "little", signed=signed)

    def long(self) -> int:
        """A whole number that says how many bytes it has."""
        if (size := self.number(1)) > 8:
            raise NotCifarError("it holds a number of more than eight bytes")
        return self.number(size, signed=True)

    def bytes_of(self, size: int) -> str | memoryview:
        """Bytes whose number the next `size` bytes say: short ones as text, pixels as they are."""
        part = self.take(self.number(size))
        return bytes(part).decode("latin1") if len(part) <= _SHORT else part

    def text(self, size: int) -> str:
        """Text whose number of bytes the next `size` bytes say."""
        return bytes(self.take(self.number(size))).decode("utf-8")

    def line(self) -> str:
        """Text up to the end of the line."""
        end = self.data.find(b"\n", self.place, self.place + 200)
        if end < 0:
            raise NotCifarError("it is cut short")
        text = bytes(self.take(end - self.place)).decode("ascii")
        self.place += 1
        return text

    # Opcodes ----------------------------------------------------------------------------------------------------------

    def mark(self) -> None:
        """Begin the items of a tuple, list or dict."""
        self.below.append(self.stack)
        self.stack = []

    def since_mark(self) -> list[Any]:
        """The items since the last mark."""
        items, self.stack = self.stack, self.below.pop()
        return items

    def last(self, count: int) -> list[Any]:
        """The last few values, taken from the stack."""
        if len(self.stack) < count:
            raise NotCifarError("its program ends in the middle")
        values = self.stack[-count:]
        del self.stack[-count:]
        return values

    def named(self, module: Any, name: Any) -> _Name:
        """A global: one of a few words."""
        if not isinstance(module, str) or not isinstance(name, str):
            raise NotCifarError("it asks for something without a name")
        meaning = _GLOBALS.get((module, name))
        if meaning is None:
            raise NotCifarError(f"it asks for {f'{module}.{name}'[:80]!r}, which no file of CIFAR needs")
        return _Name(meaning)

    def remember(self, place: int) -> None:
        """Keep the last value for later."""
        self.memo[place] = self.stack[-1]

    def tuple_of(self, values: list[Any]) -> tuple[Any, ...]:
        """A tuple; what is a tuple in it holds plain values only."""
        for value in values:
            if isinstance(value, tuple) and not all(isinstance(v, _Plain) for v in value):
                raise NotCifarError("it nests tuples")
        return tuple(values)

    def append(self, values: list[Any]) -> None:
        """Put items into the list below."""
        target = self.stack[-1]
        if not isinstance(target, list) or not all(isinstance(v, _Plain) for v in values):
            raise NotCifarError("it has a list of something other than numbers and names")
        target += values

    def insert(self, values: list[Any]) -> None:
        """Put keys and values into the dict below."""
        target = self.stack[-1]
        if not isinstance(target, dict) or len(values) % 2:
            raise NotCifarError("its program does not make a dict")
        for key, value in zip(values[::2], values[1::2], strict=True):
            if not isinstance(key, str) or not isinstance(value, (*_Plain, list, _Array)):
                raise NotCifarError("it has a dict of something other than named values")
            target[key] = value

    def call(self) -> Any:
        """The value that a call of numpy stands for."""
        function, given = self.last(2)
        meaning = function.meaning if isinstance(function, _Name) and isinstance(given, tuple) else None
        if meaning == "array":  # _reconstruct(ndarray, (0,), "b")
            if len(given) == 3 and isinstance(given[0], _Name) and given[0].meaning == "class of arrays":
                return _Array()
        elif meaning == "type of numbers":  # dtype("u1", False, True)
            if len(given) == 3 and isinstance(given[0], str) and given[0] in self.kinds:
                return _Kind(given[0])
        elif meaning == "text to bytes":  # encode("...", "latin1"): bytes, as Python 3 writes them in protocol 2
            if len(given) == 2 and isinstance(given[0], str) and given[1] == "latin1":
                return self.encode(given[0])
        elif meaning == "array of bytes" and len(given) == 4 and isinstance(given[1], _Kind) and given[3] == "C":
            return self.array(given[2], given[0], given[1])  # _frombuffer(bytes, dtype, shape, "C")
        raise NotCifarError("it makes a call that no file of CIFAR needs")

    def build(self) -> None:
        """The state of a type of numbers, or of an array."""
        target, state = self.last(2)
        if isinstance(target, _Kind) and isinstance(state, tuple) and all(isinstance(v, _Plain) for v in state):
            if state != target.state:
                raise NotCifarError("it has an array of something other than bytes")
        elif isinstance(target, _Array) and target.value is None and isinstance(state, tuple) and len(state) == 5:
            version, shape, kind, fortran, content = state
            if version != 1 or not isinstance(kind, _Kind) or fortran is not False:
                raise NotCifarError("it has an array of something other than bytes")
            target.value = self.array(shape, content, kind).value
        else:
            raise NotCifarError("it gives a state to something that has none")
        self.stack.append(target)

    def encode(self, text: str) -> memoryview:
        """Text as bytes; all together at most as many as the file has."""
        self.encoded += len(text)
        if self.encoded > len(self.data):
            raise NotCifarError("it says the same bytes again and again")
        return memoryview(text.encode("latin1"))

    def array(self, shape: Any, content: Any, kind: _Kind) -> _Array:
        """Bytes as an array, if there are as many as the shape says."""
        if isinstance(content, str):
            content = self.encode(content)
        if not isinstance(content, memoryview) or not isinstance(shape, tuple) or len(shape) > 4:
            raise NotCifarError("it has an array without shape or content")
        if not all(type(v) is int and v > 0 for v in shape) or (math.prod(shape) * kind.type.itemsize != len(content)):
            raise NotCifarError("it has an array whose shape does not fit its content")
        made = _Array()
        made.value = np.frombuffer(content, kind.type).reshape(shape)
        return made


def _protocol(machine: _Machine) -> None:
    if not 2 <= machine.number(1) <= 5:
        raise NotCifarError("it is written in a protocol other than 2 to 5")


def _push(make: Callable[[_Machine], Any]) -> Callable[[_Machine], None]:
    def operation(machine: _Machine) -> None:
        value = make(machine)
        machine.stack.append(value)

    return operation


_OPERATIONS: dict[int, Callable[[_Machine], object]] = {
    0x80: _protocol,
    0x95: lambda m: m.take(8),  # FRAME: the length of what follows, for readers of pipes
    0x28: _Machine.mark,
    # plain values
    0x4E: _push(lambda _: None),
    0x88: _push(lambda _: True),
    0x89: _push(lambda _: False),
    0x4B: _push(lambda m: m.number(1)),
    0x4D: _push(lambda m: m.number(2)),
    0x4A: _push(lambda m: m.number(4, signed=True)),
    0x8A: _push(_Machine.long),
    # bytes of Python 2 and 3, a bytearray, text
    0x55: _push(lambda m: m.bytes_of(1)),
    0x54: _push(lambda m: m.bytes_of(4)),
    0x43: _push(lambda m: m.bytes_of(1)),
    0x42: _push(lambda m: m.bytes_of(4)),
    0x8E: _push(lambda m: m.bytes_of(8)),
    0x96: _push(lambda m: m.bytes_of(8)),
    0x8C: _push(lambda m: m.text(1)),
    0x58: _push(lambda m: m.text(4)),
    # tuples, lists, dicts
    0x29: _push(lambda _: ()),
    0x74: _push(lambda m: m.tuple_of(m.since_mark())),
    0x85: _push(lambda m: m.tuple_of(m.last(1))),
    0x86: _push(lambda m: m.tuple_of(m.last(2))),
    0x87: _push(lambda m: m.tuple_of(m.last(3))),
    0x5D: _push(lambda _: []),
    0x61: lambda m: m.append(m.last(1)),
    0x65: lambda m: m.append(m.since_mark()),
    0x7D: _push(lambda _: {}),
    0x73: lambda m: m.insert(m.last(2)),
    0x75: lambda m: m.insert(m.since_mark()),
    # values that occur again
    0x71: lambda m: m.remember(m.number(1)),
    0x72: lambda m: m.remember(m.number(4)),
    0x94: lambda m: m.remember(len(m.memo)),
    0x68: _push(lambda m: m.memo[m.number(1)]),
    0x6A: _push(lambda m: m.memo[m.number(4)]),
    # arrays
    0x63: _push(lambda m: m.named(m.line(), m.line())),
    0x93: _push(lambda m: m.named(*m.last(2))),
    0x52: _push(_Machine.call),
    0x62: _Machine.build,
}
