"""What callers hand to a model: one item or many, and settings of the call. What cannot be meant is refused by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from numbers import Integral
from typing import Any, Literal, get_args

from protclip.errors import ConfigError, DataError, RequestError

Items = str | Iterable[str]
"""One item, or many in their order."""

LongPolicy = Literal["truncate", "error", "window-mean"]
"""What becomes of a protein that is longer than the model sees."""

Layer = Literal["projection", "hidden"]
"""Where embeddings are taken: in the common space, or before the projection, as the encoder gives them."""

Dtype = Literal["float32", "bfloat16"]
"""Of the matrix products and the attention of a model. Vectors themselves are float32."""
DTYPES: tuple[Dtype, ...] = get_args(Dtype)


def listed(items: Items, what: str) -> tuple[list[str], bool]:
    """The items, and whether it is a single one that was given as it is.

    Args:
        items: a str is one item and never a sequence of letters.
        what: "sequence" or "text", for messages.

    Raises:
        DataError: for what is neither a str nor an iterable of them in an order, naming the first item that is no str.
    """
    if isinstance(items, str):
        return [items], True
    wanted = f"a {what} is a str, and several are a list of str"
    if isinstance(items, bytes | bytearray | Mapping | Set) or not isinstance(items, Iterable):
        raise DataError(f"{what}s: {_shown(items)} was given; {wanted}.")
    try:
        values = list(items)
    except TypeError as error:  # numpy's array of no dimension says that it is iterable
        raise DataError(f"{what}s: {_shown(items)} was given; {wanted}.") from error
    for number, value in enumerate(values, start=1):
        if not isinstance(value, str):
            raise DataError(f"{what} {number} of {len(values)} is {_shown(value)}; {wanted}.")
    return values, False


def check_characters(text: str, what: str) -> None:
    """Refuse half of a surrogate pair, as Python makes of bytes that are not UTF-8: it is no character.

    Raises:
        RequestError: naming the place.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise RequestError(f"{what} holds half of a surrogate pair at character {error.start + 1}.") from error


def check_texts(texts: Sequence[str]) -> None:
    """Refuse an empty text, or one that holds half of a surrogate pair.

    Raises:
        RequestError: naming the place.
    """
    for number, text in enumerate(texts, start=1):
        if not text.strip():
            raise RequestError(f"text {number} of {len(texts)} is empty; remove it.")
        check_characters(text, f"text {number} of {len(texts)}")


def check_pairs(sequences: Sequence[str], texts: Sequence[str]) -> None:
    """Refuse lists of different lengths.

    Raises:
        RequestError: naming both.
    """
    if len(sequences) != len(texts):
        raise RequestError(f"{len(sequences)} sequences and {len(texts)} texts make no pairs; give as many of each.")


def check_one_of(name: str, value: Any, allowed: tuple[Any, ...]) -> None:
    """Refuse a setting that is none of the allowed ones.

    Raises:
        ConfigError: naming them.
    """
    if not any(value is one or (isinstance(value, str) and value == one) for one in allowed):
        raise ConfigError(f"{name}={value!r:.60}: allowed are {', '.join(map(repr, allowed))}.")


def check_count(name: str, value: Any, *, unit: str) -> None:
    """Refuse what is neither None nor a whole number of 1 or more.

    Raises:
        ConfigError: naming what is allowed.
    """
    if value is not None and (type(value) is bool or not isinstance(value, Integral) or int(value) < 1):
        raise ConfigError(f"{name}={value!r:.60}: allowed are a whole number of {unit}, 1 or more, and None.")


def _shown(value: object) -> str:
    text = repr(value)
    text = text if len(text) <= 40 else f"{text[:39]}…"
    return f"{text} ({type(value).__name__})"
