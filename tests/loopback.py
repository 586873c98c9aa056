"""HTTP servers of tests on a free port of the loopback."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@contextlib.contextmanager
def listening(handler: type[BaseHTTPRequestHandler], state: Any) -> Iterator[None]:
    """Serve until the block ends; the handler finds ``state`` as its attribute, and ``state.url`` is set."""
    with ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (handler,), {"state": state})) as http:
        http.daemon_threads = True
        state.url = f"http://127.0.0.1:{http.server_port}"
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield
        finally:
            http.shutdown()
