"""What a part of a sharded deployment is told with each call, and how it gives back what went wrong.

What a part raises of our own errors it gives back as a value, so that what a call raises is always Ray's.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from protclip.errors import ProtclipError
from serve import context
from serve.errors import OverloadedError

Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True, slots=True)
class Call:
    """What a part has to know of the request that it is asked for."""

    request_id: str
    holds: str
    """What the part is meant to hold: while an application is deployed anew, replicas of the old one answer too."""
    left_s: float
    """Seconds until nobody waits for it any more: clocks of two machines differ."""


class OtherPartError(Exception):
    """The replica holds something else than what is asked for."""


def this_call(holds: str) -> Call:
    """In a gateway: of the request that it answers."""
    request = context.current.get()
    if request is None:  # of the gateway itself, when it starts
        return Call(request_id="", holds=holds, left_s=float("inf"))
    return Call(request_id=request.request_id, holds=holds, left_s=request.deadline - time.monotonic())


async def answer(call: Call, holds: str, work: Callable[[], Awaitable[Result]]) -> Result | Exception:
    """In a replica of a part, which holds something: do the work in the request's context, and give its error back."""
    if call.holds != holds:
        return OtherPartError()
    deadline = time.monotonic() + call.left_s
    context.current.set(context.RequestContext(request_id=call.request_id, deadline=deadline))
    try:
        return await work()
    except (ProtclipError, OverloadedError) as error:
        return error
