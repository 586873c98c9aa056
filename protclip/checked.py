"""Values of a JSON file, checked against a dataclass before anything is made of them.

What a folder says of itself may be damaged or made up: a size may be a text, a list or 10^300.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, TypeVar

from pydantic import Field, TypeAdapter, ValidationError

from protclip.errors import DataError, ProtclipError

Count = Annotated[int, Field(ge=0, le=2**53)]
"""A number of rows or bytes."""
Size = Annotated[int, Field(ge=1, le=2**31 - 1)]
"""A dimension of an array."""
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]

Shape = TypeVar("Shape")


def checked(shape: type[Shape], values: Any, where: str, *, error: type[ProtclipError] = DataError) -> Shape:
    """An instance of a dataclass, or of a typed container, from what JSON gave; keys that it has not are left out.

    Nothing is converted: "3" and true are no numbers.

    Args:
        shape: what is needed.
        values: JSON values.
        where: the file, for the message.
        error: the class to raise.

    Raises:
        ProtclipError: of the given class, naming the first key that is missing or has another type or range.
    """
    try:
        instance = TypeAdapter(shape).validate_json(json.dumps(values), strict=True)
    except ValidationError as found:
        detail = found.errors(include_url=False)[0]
        place = ".".join(str(part) for part in detail["loc"]) or "it"
        value = "" if detail["type"] == "missing" else f" is {_short(detail['input'])}"
        raise error(f"{where}: {place}{value}: {detail['msg']}. Restore the file, or make the folder again.") from found
    return instance


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:59]}…"
