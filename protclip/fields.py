"""Checks of settings when they are created: of the type that a field says, and of the range of a number."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from types import UnionType
from typing import TYPE_CHECKING, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from protclip.errors import ConfigError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Config = TypeVar("Config", bound="DataclassInstance")

WORDS = {
    int: "a whole number",
    float: "a number",
    str: "a string that is not empty",
    bool: "true or false",
    type(None): "null",
}
"""What a type is called to people."""


def check_types(section: str, settings: DataclassInstance) -> None:
    """Refuse a value of another type than its field's, one that its ``Literal`` does not list, and an empty string.

    Args:
        section: what stands before the field's name in the message, such as ``optimizer.``.
        settings: a dataclass.

    Raises:
        ConfigError: naming the field, its value and what is allowed.
    """
    hints = get_type_hints(type(settings))
    for field in fields(settings):
        value, hint = getattr(settings, field.name), hints[field.name]
        if not _fits(value, hint):
            raise ConfigError(f"{section}{field.name}={value!r} must be {_spelled(hint)}.")


def check_number(
    name: str,
    value: float | None,
    *,
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
    below: float | None = None,
    infinite: bool = False,
    hint: str = "",
) -> None:
    """Refuse a number out of its range, NaN, and infinity where that is not asked for; None is not looked at.

    Args:
        name: of the field, with its section.
        value: of the field.
        at_least: the lowest that is allowed.
        above: what it has to be above.
        at_most: the highest that is allowed.
        below: what it has to be below.
        infinite: whether infinity is allowed.
        hint: what else the message says.

    Raises:
        ConfigError: naming the field, its value and what is allowed.
    """
    if value is None:
        return
    inside = (
        not math.isnan(_float(value))
        and (infinite or math.isfinite(_float(value)))
        and (at_least is None or value >= at_least)
        and (above is None or value > above)
        and (at_most is None or value <= at_most)
        and (below is None or value < below)
    )
    if not inside:
        limits = {"at least": at_least, "above": above, "at most": at_most, "below": below}
        allowed = " and ".join(f"{words} {limit}" for words, limit in limits.items() if limit is not None)
        if allowed and not infinite and abs(value) == math.inf:
            allowed = f"finite and {allowed}"
        raise ConfigError(f"{name}={value} must be {allowed or 'a finite number'}{hint and f'; {hint}'}.")


def _float(value: float) -> float:
    try:
        return float(value)
    except OverflowError:  # a whole number of more than 308 digits
        return math.inf


def configured(config: type[Config], values: Mapping[str, Any]) -> Config:
    """A config from values by the names of its fields, those of configs within it among them: what a command line or a
    file gives.

    Args:
        config: a dataclass.
        values: of some fields; the others have their defaults.

    Raises:
        ConfigError: for a name that no field has, a value that is missing, or one that is refused.
    """
    names = [field.name for field, _ in flat_fields(config)]
    if unknown := [name for name in values if name not in names]:
        raise ConfigError(f"unknown setting {unknown[0]}; there are {', '.join(names)}.")
    given = dict[str, Any]()
    for field, hint in _typed_fields(config):
        if isinstance(hint, type) and is_dataclass(hint):
            inner = {within.name for within, _ in flat_fields(hint)}
            given[field.name] = configured(hint, {name: value for name, value in values.items() if name in inner})
        elif field.name in values:
            given[field.name] = values[field.name]
        elif field.default is MISSING and field.default_factory is MISSING:
            raise ConfigError(f"{field.name} is missing: {_spelled(hint)} is needed.")
    return config(**given)


def flat_fields(config: type[DataclassInstance]) -> Iterator[tuple[Field[Any], Any]]:
    """Each field of a dataclass with its type, in order; a dataclass within stands for its own fields."""
    for field, hint in _typed_fields(config):
        if isinstance(hint, type) and is_dataclass(hint):
            yield from flat_fields(hint)
        else:
            yield field, hint


def _typed_fields(config: type[DataclassInstance]) -> Iterator[tuple[Field[Any], Any]]:
    hints = get_type_hints(config)
    return ((field, hints[field.name]) for field in fields(config))


def _fits(value: Any, hint: Any) -> bool:
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Literal:
        return any(type(value) is type(choice) and value == choice for choice in inner)
    if origin in (Union, UnionType):
        return any(_fits(value, one) for one in inner)
    if origin is tuple:
        return isinstance(value, tuple) and all(_fits(one, inner[0]) for one in value)
    if origin is dict:
        return isinstance(value, dict) and all(_fits(k, inner[0]) and _fits(v, inner[1]) for k, v in value.items())
    return hint is Any or _is_a(value, hint)


def _is_a(value: Any, kind: type) -> bool:
    if kind in (int, float):  # a bool is an int to Python
        return isinstance(value, (int, float) if kind is float else int) and not isinstance(value, bool)
    return isinstance(value, kind) and (kind is not str or bool(str(value).strip()))


def _spelled(hint: Any) -> str:
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Literal:
        return " or ".join(map(repr, inner))
    if origin in (Union, UnionType):
        return " or ".join(map(_spelled, inner))
    if origin is tuple:
        return f"a list of {_spelled(inner[0])}"
    if origin is dict:
        return f"a mapping from {_spelled(inner[0])} to {_spelled(inner[1])}"
    return WORDS.get(hint) or f"a {getattr(hint, '__name__', 'value')}"
