"""A request's body: its form with the server's limits in it, how it is read, and what the schema says of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler, ValidationError
from pydantic_core import CoreSchema

from protclip.errors import RequestError
from serve.errors import describe_problems
from serve.settings import Limits

MAX_PROBLEMS = 100
"""With more wrong fields they are counted, and not named."""

_limits: ContextVar[Limits] = ContextVar("limits", default=Limits())  # noqa: B039  # it is frozen


@dataclass(frozen=True)
class AtMost:
    """The longest list by its name in Limits: it is counted before its items are looked at."""

    limit: str

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        schema: Any = handler(source)
        return {**schema, "max_length": getattr(_limits.get(), self.limit)}


class Form(BaseModel):
    """A request's body."""

    # Strict: "k": "5" and "k": true are mistakes to name, not values to guess.
    model_config = ConfigDict(extra="forbid", strict=True)

    @classmethod
    def reworded(cls, problems: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
        """What pydantic found, where the fields of the form need other words."""
        return problems


AForm = TypeVar("AForm", bound=Form)


def with_limits(limits: Limits, form: type[AForm]) -> type[AForm]:
    """A form with the server's limits in it."""
    token = _limits.set(limits)
    try:
        return type(form.__name__, (form,), {"__doc__": form.__doc__, "__module__": form.__module__})
    finally:
        _limits.reset(token)


def parse(form: type[AForm], body: bytes) -> AForm:
    """A body as its form.

    Raises:
        RequestError: if it is none, naming the first problems.
    """
    try:
        return form.model_validate_json(body)
    except ValidationError as error:
        if (count := error.error_count()) > MAX_PROBLEMS:
            fields = ", ".join(form.model_fields)
            raise RequestError(
                f"body: {count} of its values are wrong; the fields of this route are {fields}."
            ) from None
        problems = [dict(problem) for problem in error.errors(include_url=False, include_input=False)]
        raise RequestError(describe_problems(form.reworded(problems))) from None


def exactly_one(*kinds: str, needs: Mapping[str, Mapping[str, Any]]) -> Callable[[dict[str, Any]], None]:
    """Into a form's JSON schema: one of these fields is there, all others are absent or null.

    Args:
        kinds: the fields.
        needs: kind → what other fields must be beside it.
    """

    def add(schema: dict[str, Any]) -> None:
        shown = schema["properties"]
        schema["oneOf"] = [
            {
                "title": kind,
                "required": [kind],
                "properties": {
                    **{other: {"type": "null"} for other in kinds if other != kind},
                    **needs.get(kind, {}),
                    kind: {"type": shown[kind]["anyOf"][0]["type"]},
                },
            }
            for kind in kinds
        ]

    return add
