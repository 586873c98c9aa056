"""The request log: a line of JSON for each request."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping
from logging.handlers import WatchedFileHandler
from typing import Any

from protclip.errors import ConfigError


class RequestLog:
    """Appends to a file, which may be moved away meanwhile, as logrotate does."""

    def __init__(self, path: str, *, with_bodies: bool) -> None:
        """``with_bodies``: write what was asked, too.

        Raises:
            ConfigError: if the file cannot be written.
        """
        self._with_bodies = with_bodies
        self._log = logging.getLogger(f"protclip.requests.{path}")
        self._log.propagate = False
        self._log.setLevel(logging.INFO)
        if self._log.handlers:
            return
        try:
            handler = WatchedFileHandler(path, encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"request_log: {path} cannot be written ({error.strerror}).") from error
        handler.setFormatter(logging.Formatter("%(message)s"))
        self._log.addHandler(handler)

    def write(
        self,
        *,
        scope: Mapping[str, Any],
        request_id: str,
        key: str | None,
        status: int | None,
        seconds: float,
        received_bytes: int,
        sent_bytes: int,
        body: bytes | bytearray,
    ) -> None:
        """Append a request's line.

        Args:
            scope: ASGI's, with the route that has answered.
            request_id: as in the answer's header.
            key: name of the key.
            status: of the answer; None where the client went before it.
            seconds: from the head to the end.
            received_bytes: of the body.
            sent_bytes: of the answer's body.
            body: what was asked.
        """
        line: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "request_id": request_id,
            "key": key,
            "method": scope["method"],
            # The path as the client wrote it may hold anything; the route is one of ours.
            "route": getattr(scope.get("route"), "path", None),
            "status": status,
            "ms": round(seconds * 1e3, 1),
            "received_bytes": received_bytes,
            "sent_bytes": sent_bytes,
        }
        if self._with_bodies:
            line["body"] = body.decode("utf-8", "backslashreplace")
        self._log.info(json.dumps(line))
