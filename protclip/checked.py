"""Values of a JSON file, checked against a dataclass before anything is made of them.

What a folder says of itself may be damaged or made up: a size may be a text, a list or 10^300. Pydantic is not used,
since a machine that only embeds or trains has none.
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from protclip.errors import DataError, ProtclipError


@dataclass(frozen=True, slots=True)
class Between:
    """Bounds of a whole number, both allowed."""

    low: int
    high: int


@dataclass(frozen=True, slots=True)
class IsTime:
    """A text is a time that says its zone, as ISO 8601."""


Count = Annotated[int, Between(0, 2**53)]
"""A number of rows or bytes."""
Size = Annotated[int, Between(1, 2**31 - 1)]
"""A dimension of an array."""
Sha256 = Annotated[str, re.compile("[0-9a-f]{64}")]
Time = Annotated[str, IsTime()]

Shape = TypeVar("Shape")


def checked(
    shape: type[Shape],
    values: Any,
    where: str,
    *,
    error: type[ProtclipError] = DataError,
    remedy: str = "Restore the file, or make the folder again",
) -> Shape:
    """An instance of a dataclass, or of a typed container, from what JSON gave; keys that it has not are left out.

    Nothing is converted: "3", 3.0 and true are no whole numbers.

    Args:
        shape: what is needed.
        values: JSON values.
        where: the file, for the message.
        error: the class to raise.
        remedy: what to do, for the message.

    Raises:
        ProtclipError: of the given class, naming the first key that is missing or has another type or range.
    """
    try:
        made: Shape = _make(shape, values, "")
    except _WrongError as wrong:
        raise error(f"{where}: {wrong}. {remedy}.") from None
    return made


class _WrongError(Exception):
    def __init__(self, place: str, value: Any, needed: str) -> None:
        text = repr(value) if isinstance(value, str | int | float) or not value else type(value).__name__
        text = text if len(text) <= 60 else f"{text[:59]}…"
        super().__init__(f"{place.removeprefix('.') or 'the whole'} is {text}; {needed} is needed")


class _MissingError(_WrongError):
    def __init__(self, place: str) -> None:
        Exception.__init__(self, f"{place.removeprefix('.')} is missing")


def _make(shape: Any, value: Any, place: str) -> Any:
    """The value as the type says it."""
    if dataclasses.is_dataclass(shape):
        return _instance(shape, value, place)
    if (make := _CONTAINERS.get(get_origin(shape))) is not None:
        return make(get_args(shape), value, place)
    if shape is float and type(value) is int and abs(value) < 2**53:
        return float(value)
    if shape is not Any and type(value) is not shape:
        raise _WrongError(place, value, _NAMES[shape])
    return value


def _instance(shape: Any, value: Any, place: str) -> Any:
    if not isinstance(value, dict):
        raise _WrongError(place, value, "an object")
    hints = get_type_hints(shape, include_extras=True)
    made = {}
    for field in dataclasses.fields(shape):
        if field.name in value:
            made[field.name] = _make(hints[field.name], value[field.name], f"{place}.{field.name}")
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise _MissingError(f"{place}.{field.name}")
    return shape(**made)


def _bounded(args: tuple[Any, ...], value: Any, place: str) -> Any:
    made, bound = _make(args[0], value, place), args[1]
    if isinstance(bound, Between):
        if not bound.low <= made <= bound.high:
            raise _WrongError(place, value, f"a whole number from {bound.low} to {bound.high}")
    elif isinstance(bound, IsTime):
        if not _is_time(made):
            raise _WrongError(place, value, "a time such as 2026-11-28T05:11:13+00:00")
    elif not bound.fullmatch(made):
        raise _WrongError(place, value, f"a text like {bound.pattern}")
    return made


def _is_time(text: str) -> bool:
    try:
        return datetime.fromisoformat(text).tzinfo is not None
    except ValueError:
        return False


def _one_of(args: tuple[Any, ...], value: Any, place: str) -> Any:
    for shape in args[:-1]:
        with contextlib.suppress(_WrongError):
            return _make(shape, value, place)
    return _make(args[-1], value, place)


def _choice(args: tuple[Any, ...], value: Any, place: str) -> Any:
    if type(value) is not str or value not in args:
        raise _WrongError(place, value, f"one of {', '.join(map(repr, args))}")
    return value


def _mapping(args: tuple[Any, ...], value: Any, place: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _WrongError(place, value, "an object")
    return {name: _make(args[1], inner, f"{place}.{name:.80}") for name, inner in value.items()}


def _tuple(args: tuple[Any, ...], value: Any, place: str) -> tuple[Any, ...]:
    if not isinstance(value, list) or (args[-1] is not ... and len(value) != len(args)):
        raise _WrongError(place, value, "a list" if args[-1] is ... else f"a list of {len(args)}")
    shapes = [args[0]] * len(value) if args[-1] is ... else args
    return tuple(
        _make(shape, inner, f"{place}.{i}") for i, (shape, inner) in enumerate(zip(shapes, value, strict=True))
    )


_CONTAINERS: dict[Any, Callable[[tuple[Any, ...], Any, str], Any]] = {
    Annotated: _bounded,
    Union: _one_of,
    types.UnionType: _one_of,
    Literal: _choice,
    dict: _mapping,
    Mapping: _mapping,
    tuple: _tuple,
}
_NAMES = {int: "a whole number", float: "a number", str: "a text", bool: "true or false", types.NoneType: "null"}
