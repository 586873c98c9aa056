"""Numbers and classes, as cells of a table or as values of a record."""

from __future__ import annotations

from typing import Any

from protclip.errors import DataError


def number(value: Any, where: str) -> float:
    """The number of a value; a list or array of one is its element. ``nan`` is one, of which the checks tell.

    Raises:
        DataError: naming the place, if it is none.
    """
    try:
        return float(value[0] if not isinstance(value, str) and hasattr(value, "__len__") else value)
    except (TypeError, ValueError, LookupError) as error:
        raise DataError(f"{where}: the label is {str(value)[:100]!r}; it must be a number.") from error


def class_number(value: Any, num_classes: int, where: str) -> int:
    """The class of a value, from 0.

    Raises:
        DataError: naming the place, if it is no whole number below the number of classes.
    """
    found = number(value, where)
    if found not in range(num_classes):
        raise DataError(
            f"{where}: the class is {str(value)[:100]!r}; it must be a whole number from 0 to {num_classes - 1}."
        )
    return int(found)
