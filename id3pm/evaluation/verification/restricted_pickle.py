"""Reads pickles of bytes, texts, numbers, lists, tuples and uint8 arrays, and nothing else; imports and calls nothing.

`pickle.Unpickler` with a `find_class` that refuses does not import, but its C code still allocates what the file asks
for: gigabytes from a few bytes. This reader interprets the opcodes that `pickletools.genops` lists. It knows no class:
names in the file are texts that are compared with the few ways in which numpy and Python write bytes and arrays.
"""

from __future__ import annotations

import dataclasses
import io
import pickletools
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from id3pm.errors import InvalidInputError

MAX_OPERATIONS = 2_000_000
"""Most opcodes. Twelve thousand pictures as numpy arrays take 250 000; each can make one small object."""
WHAT_IS_READ = "only bytes, texts, numbers, lists, tuples and uint8 or bool arrays are read"


@dataclasses.dataclass(frozen=True)
class Name:
    """A global that the file names: compared, never imported."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"[:200]


@dataclasses.dataclass
class DType:
    """numpy.dtype as pickled: kind and size alone, `u1` or `b1`."""

    code: str


@dataclasses.dataclass
class Array:
    """numpy.ndarray as pickled; `data` is `None` until its state has been read."""

    data: bytes | None = None


_MARK = object()
_DROPPED = frozenset({"PROTO", "FRAME"})
_CONSTANTS = frozenset(
    {"BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"}
    | {"BININT", "BININT1", "BININT2", "LONG1", "INT"}
)
_PYTHON_2_TEXTS = frozenset({"BINSTRING", "SHORT_BINSTRING"})
_LITERALS: Mapping[str, Any] = MappingProxyType({"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()})
_PUT, _GET = frozenset({"PUT", "BINPUT", "LONG_BINPUT"}), frozenset({"GET", "BINGET", "LONG_BINGET"})
_TUPLES: Mapping[str, int] = MappingProxyType({"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3})
_MULTIARRAY = frozenset({"numpy.core.multiarray", "numpy._core.multiarray"})
_NUMERIC = frozenset({"numpy.core.numeric", "numpy._core.numeric"})


def loads(data: bytes) -> Any:
    """The object in a pickle: bytes, str, int, bool, `None`, list, tuple, or `Array` for an array.

    Memory stays below some times the size of `data` plus 200 bytes for each of `MAX_OPERATIONS`.

    Raises:
        InvalidInputError: It holds or names anything else, or is damaged.
    """
    try:
        return _Machine(len(data)).run(data)
    except InvalidInputError:
        raise
    except (AttributeError, IndexError, KeyError, OverflowError, TypeError, ValueError) as error:
        raise InvalidInputError(f"the pickle is damaged: {error or type(error).__name__}") from error


class _Machine:
    """Stack and memo of one pickle.

    Args:
        budget: Bytes that conversions of texts to bytes may make together: a memoised text could be converted
            without end.
    """

    def __init__(self, budget: int) -> None:
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}
        self._budget = budget

    def run(self, data: bytes) -> Any:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(io.BytesIO(data))):
            if count >= MAX_OPERATIONS:
                raise InvalidInputError(f"the pickle has more than {MAX_OPERATIONS} opcodes, which is the limit")
            if opcode.name == "STOP":
                break
            self._step(opcode.name, argument)
        if len(self._stack) != 1 or self._stack[0] is _MARK:
            raise InvalidInputError(f"the pickle is damaged: it ends with {len(self._stack)} objects, not one")
        return self._stack[0]

    def _step(self, name: str, argument: Any) -> None:
        if name in _DROPPED:
            return
        if name in _CONSTANTS:
            # One copy of a bytearray here, so that arrays made of it again and again share its bytes.
            self._stack.append(bytes(argument) if isinstance(argument, bytearray) else argument)
        elif name in _PYTHON_2_TEXTS:  # pickletools gives them as Latin-1; Python 2 made no difference to bytes
            self._stack.append(argument.encode("latin-1"))
        elif name in _LITERALS:
            self._stack.append(_LITERALS[name])
        elif name in _PUT:
            self._memo[argument] = self._top()
        elif name in _GET:
            self._stack.append(self._memo[argument])
        elif name in _TUPLES:
            self._stack.append(tuple(self._pop() for _ in range(_TUPLES[name]))[::-1])
        elif name == "GLOBAL":
            self._stack.append(Name(*argument.split(" ", 1)))
        elif name in _OPERATIONS:
            _OPERATIONS[name](self)
        else:
            raise InvalidInputError(f"the pickle has the opcode {name}: {WHAT_IS_READ}")

    def _pop(self) -> Any:
        value = self._stack.pop()
        if value is _MARK:
            raise ValueError("a mark lies where an object is needed")
        return value

    def _top(self) -> Any:
        if self._stack[-1] is _MARK:
            raise ValueError("a mark lies where an object is needed")
        return self._stack[-1]

    def _to_mark(self) -> list[Any]:
        items: list[Any] = []
        while (item := self._stack.pop()) is not _MARK:
            items.append(item)
        return items[::-1]

    def _extend(self, items: list[Any]) -> None:
        target = self._top()
        if not isinstance(target, list):
            raise ValueError(f"items are appended to {type(target).__name__}")
        target.extend(items)

    def mark(self) -> None:
        self._stack.append(_MARK)

    def empty_list(self) -> None:
        self._stack.append([])

    def marked_list(self) -> None:
        self._stack.append(self._to_mark())

    def marked_tuple(self) -> None:
        self._stack.append(tuple(self._to_mark()))

    def append(self) -> None:
        item = self._pop()
        self._extend([item])

    def appends(self) -> None:
        self._extend(self._to_mark())

    def memoize(self) -> None:
        self._memo[len(self._memo)] = self._top()

    def stack_global(self) -> None:
        name, module = self._pop(), self._pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise ValueError("a name is no text")
        self._stack.append(Name(module, name))

    def reduce(self) -> None:
        arguments, function = self._pop(), self._pop()
        if not isinstance(function, Name):
            raise InvalidInputError(f"the pickle calls {type(function).__name__}: {WHAT_IS_READ}")
        self._stack.append(self._made(function, arguments))

    def build(self) -> None:
        state, target = self._pop(), self._top()
        if isinstance(target, DType):
            return  # byte order and field names mean nothing to one-byte numbers
        if not isinstance(target, Array):
            raise InvalidInputError(f"the pickle sets attributes of {type(target).__name__}: {WHAT_IS_READ}")
        _, _, dtype, _, data = state
        target.data = _raw(dtype, data)

    def _made(self, function: Name, arguments: tuple[Any, ...]) -> Any:
        if function == Name("_codecs", "encode"):  # how Python 3 writes bytes in protocols 0 to 2
            text, encoding = arguments
            self._budget -= len(text)
            if encoding != "latin1" or self._budget < 0:
                raise ValueError("texts are converted to bytes that no picture needs")
            return text.encode("latin-1")
        if function in (Name("__builtin__", "bytes"), Name("builtins", "bytes")) and arguments == ():
            return b""
        if function == Name("numpy", "dtype"):
            return DType(_text(arguments[0]))
        if function.module in _MULTIARRAY and function.name == "_reconstruct":
            return Array()
        if function.module in _MULTIARRAY and function.name == "scalar":
            dtype, data = arguments
            return _raw(dtype, data) != b"\0"
        if function.module in _NUMERIC and function.name == "_frombuffer":  # protocol 5
            data, dtype = arguments[:2]
            return Array(_raw(dtype, data))
        raise InvalidInputError(f"the pickle names {function}: {WHAT_IS_READ}")


_OPERATIONS: Mapping[str, Callable[[_Machine], None]] = MappingProxyType(
    {
        "MARK": _Machine.mark,
        "EMPTY_LIST": _Machine.empty_list,
        "LIST": _Machine.marked_list,
        "TUPLE": _Machine.marked_tuple,
        "APPEND": _Machine.append,
        "APPENDS": _Machine.appends,
        "MEMOIZE": _Machine.memoize,
        "STACK_GLOBAL": _Machine.stack_global,
        "REDUCE": _Machine.reduce,
        "BUILD": _Machine.build,
    }
)


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode("latin-1")
    if not isinstance(value, str):
        raise ValueError(f"a dtype is {type(value).__name__}")
    return value


def _raw(dtype: Any, data: Any) -> bytes:
    if not isinstance(dtype, DType):
        raise ValueError(f"the dtype of an array is {type(dtype).__name__}")
    if dtype.code.lstrip("|") not in ("u1", "b1"):
        raise InvalidInputError(f"the pickle has an array of {dtype.code:.40}: {WHAT_IS_READ}")
    if not isinstance(data, bytes):
        raise ValueError(f"the bytes of an array are {type(data).__name__}")
    return data
