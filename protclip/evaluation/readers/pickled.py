"""Values of a pickle, without unpickling: TAPE and PEER keep their records so.

``pickle`` runs what a file says. Here its opcodes are read, and of them only those that make dicts, lists, tuples,
strings, bytes, numbers, None and NumPy's arrays and numbers; what a file would call is looked up in a short table, and
anything else is refused. Formats: PEP 307, PEP 3154, and NumPy's ``ndarray.__reduce__``.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from protclip.errors import DataError

_ALLOWED = "dicts, lists, tuples, strings, bytes, numbers, None and NumPy's arrays of numbers"
_NAMES = {
    "numpy dtype": "dtype",
    "numpy ndarray": "ndarray",
    "_codecs encode": "encode",
    "__builtin__ bytes": "bytes",
    **{f"numpy.{core}.multiarray {name}": name for core in ("core", "_core") for name in ("_reconstruct", "scalar")},
}
_KINDS = "biuf"
MAX_VALUES = 1 << 16
"""Of one record; a few bytes can name one list within another often enough to fill any memory."""


@dataclass(frozen=True, slots=True)
class _Name:
    """What a pickle would call."""

    name: str


@dataclass(slots=True)
class _DType:
    """A type of NumPy's, in two steps as pickles have it."""

    code: str
    order: str = "<"
    """``<``, ``>``, or ``|`` where there is none."""

    def made(self) -> np.dtype[Any]:
        dtype = np.dtype(self.code).newbyteorder(">" if self.order == ">" else "<")
        if dtype.kind not in _KINDS:
            raise ValueError(f"an array of the type {dtype}")
        return dtype


@dataclass(slots=True)
class _Array:
    """An array of NumPy's, in two steps as pickles have it; None before the second."""

    values: np.ndarray | None = None


class _Mark:
    pass


def read_pickled(data: bytes, where: str) -> Any:
    """The value of a pickle.

    Args:
        data: the pickle, of protocol 2 to 4.
        where: names it in messages.

    Raises:
        DataError: if it is no pickle, is damaged, or holds anything but what the module allows, or over MAX_VALUES.
    """
    try:
        return _finished(_run(pickletools.genops(data)), iter(range(MAX_VALUES)))
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, RecursionError) as error:
        raise DataError(
            f"{where}: is no pickle of {_ALLOWED} ({str(error)[:200]}); nothing else is read, since a pickle may run "
            "programs. Fetch the file again."
        ) from error


def _run(opcodes: Iterator[tuple[pickletools.OpcodeInfo, Any, int | None]]) -> Any:
    stack: list[Any] = []
    memo: dict[int, Any] = {}
    for opcode, argument, _ in opcodes:
        match opcode.name:
            case "PROTO" | "FRAME":
                pass
            case "STOP":
                return stack.pop()
            case "MARK":
                stack.append(_Mark())
            case "MEMOIZE":
                memo[len(memo)] = stack[-1]
            case "BINPUT" | "LONG_BINPUT":
                memo[argument] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[argument])
            case name if name in _LITERALS:
                stack.append(argument)
            case name:
                if name not in _MAKERS:
                    raise ValueError(f"the opcode {name}")
                _MAKERS[name](stack, argument)
    raise ValueError("no end")


_LITERALS = {
    *("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"),
    *("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
}


def _marked(stack: list[Any]) -> list[Any]:
    """What stands above the last mark, taken off with it."""
    place = max(place for place, value in enumerate(stack) if isinstance(value, _Mark))
    taken = stack[place + 1 :]
    del stack[place:]
    return taken


def _set_items(stack: list[Any], items: list[Any]) -> None:
    target = stack[-1]
    if not isinstance(target, dict) or len(items) % 2:
        raise ValueError("items of what is no dict")
    target.update(zip(items[::2], items[1::2], strict=True))


def _append(stack: list[Any], items: list[Any]) -> None:
    if not isinstance(stack[-1], list):
        raise ValueError("elements of what is no list")
    stack[-1].extend(items)


def _popped(stack: list[Any], count: int) -> list[Any]:
    if len(stack) < count:
        raise ValueError("an empty stack")
    taken = stack[len(stack) - count :]
    del stack[len(stack) - count :]
    return taken


def _name(stack: list[Any], name: str) -> None:
    if name not in _NAMES:
        raise ValueError(f"the name {name!r}")
    stack.append(_Name(_NAMES[name]))


def _call(stack: list[Any]) -> None:
    called, arguments = _popped(stack, 2)
    if not isinstance(called, _Name):
        raise ValueError(f"a call of {called!r}")
    match called.name, arguments:
        case "dtype", (str(code), *_):
            stack.append(_DType(code))
        case "_reconstruct", (_Name("ndarray"), *_):
            stack.append(_Array())
        case "scalar", (_DType() as dtype, bytes(data)):
            stack.append(np.frombuffer(data, dtype.made(), 1)[0].item())
        case "encode", (str(text), "latin1"):  # bytes, as Python 3 writes them for Python 2
            stack.append(text.encode("latin1"))
        case "bytes", ():
            stack.append(b"")
        case _:
            raise ValueError(f"a call of {called.name}")


def _build(stack: list[Any]) -> None:
    target, state = _popped(stack, 2)
    match target, state:
        case _DType(), (int(), str(order), *_):
            target.order = order
        case _Array(), (int(), tuple(shape), _DType() as dtype, in_columns, bytes(data)):
            values = np.frombuffer(data, dtype.made())
            target.values = values.reshape(shape, order="F" if in_columns else "C")
        case _:
            raise ValueError("a state of an unknown object")
    stack.append(target)


_MAKERS: dict[str, Callable[[list[Any], Any], None]] = {
    "NONE": lambda stack, _: stack.append(None),
    "NEWTRUE": lambda stack, _: stack.append(True),
    "NEWFALSE": lambda stack, _: stack.append(False),
    "EMPTY_DICT": lambda stack, _: stack.append({}),
    "EMPTY_LIST": lambda stack, _: stack.append([]),
    "EMPTY_TUPLE": lambda stack, _: stack.append(()),
    "TUPLE": lambda stack, _: stack.append(tuple(_marked(stack))),
    "TUPLE1": lambda stack, _: stack.append(tuple(_popped(stack, 1))),
    "TUPLE2": lambda stack, _: stack.append(tuple(_popped(stack, 2))),
    "TUPLE3": lambda stack, _: stack.append(tuple(_popped(stack, 3))),
    "APPEND": lambda stack, _: _append(stack, _popped(stack, 1)),
    "APPENDS": lambda stack, _: _append(stack, _marked(stack)),
    "SETITEM": lambda stack, _: _set_items(stack, _popped(stack, 2)),
    "SETITEMS": lambda stack, _: _set_items(stack, _marked(stack)),
    "GLOBAL": _name,
    "STACK_GLOBAL": lambda stack, _: _name(stack, " ".join(_popped(stack, 2))),
    "REDUCE": lambda stack, _: _call(stack),
    "BUILD": lambda stack, _: _build(stack),
}


def _finished(value: Any, budget: Iterator[int]) -> Any:
    """The value with its arrays in place, of no more values than the budget has."""
    if next(budget, None) is None:
        raise ValueError(f"more than {MAX_VALUES:,} values")
    match value:
        case _Array(values=np.ndarray() as values):
            return values
        case _Array() | _DType() | _Name() | _Mark():
            raise ValueError("an unfinished object")
        case dict():
            return {_finished(key, budget): _finished(inner, budget) for key, inner in value.items()}
        case list() | tuple():
            return type(value)([_finished(inner, budget) for inner in value])
        case _:
            return value
