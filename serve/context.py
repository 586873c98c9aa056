"""What is known of the request that is being answered, for the layers below the routes."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class RequestContext:
    """Set by the guard before the application is called."""

    request_id: str
    """As in the header X-Request-Id of the answer, in error bodies and in the log."""
    deadline: float
    """In the clock of ``time.monotonic``: nobody waits for an answer after it."""


current: ContextVar[RequestContext | None] = ContextVar("protclip_request", default=None)
"""None outside a request."""
