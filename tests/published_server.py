"""Zenodo's API, the authors' repository and a plain web server, on this machine, with the faults of real ones."""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import unquote, urlsplit

from loopback import listening

from protclip.published import RECORD


@dataclass(kw_only=True)
class PublishedServer:
    """What the servers have, what they do wrong, and what they were asked."""

    files: dict[str, bytes] = field(default_factory=dict)
    """Of the record on Zenodo."""
    pages: dict[str, bytes] = field(default_factory=dict)
    """Path → what a plain web server answers; the repository's ``/raw/config.json`` among them."""
    license: str | None = "cc-by-4.0"
    checksums: dict[str, str] = field(default_factory=dict)
    """In place of the true ones."""
    faults: list[str] = field(default_factory=list)
    """What becomes of the next requests for files of the record: '' for nothing, 'drop' or '503'."""
    ranges: list[str | None] = field(default_factory=list)
    """Range header of each request for a file of the record."""
    hold: threading.Event | None = None
    """Where there is one, files of the record wait for it."""
    waiting: threading.Event = field(default_factory=threading.Event)
    url: str = ""

    @property
    def api_url(self) -> str:
        """What stands for https://zenodo.org/api."""
        return f"{self.url}/api"

    @property
    def config_url(self) -> str:
        """Of the authors' config.json."""
        return f"{self.url}/raw/config.json"

    def record(self) -> dict[str, Any]:
        """The API's answer, in the form of Zenodo's."""
        listed = [
            {
                "id": name,
                "key": name,
                "size": len(data),
                "checksum": self.checksums.get(name) or f"md5:{hashlib.md5(data, usedforsecurity=False).hexdigest()}",
                "links": {"self": f"{self.api_url}/records/{RECORD}/files/{name}/content"},
            }
            for name, data in self.files.items()
        ]
        metadata: dict[str, Any] = {"title": "ProtAnno", "access_right": "open", "creators": [{"name": "Zhou"}]}
        if self.license is not None:
            metadata["license"] = {"id": self.license}
        return {
            "id": RECORD,
            "doi": f"10.5281/zenodo.{RECORD}",
            "metadata": metadata,
            "files": listed,
            "revision": 4,
            "state": "done",
        }


@contextlib.contextmanager
def serving(server: PublishedServer) -> Iterator[PublishedServer]:
    """Serve on a free port of the loopback."""
    with listening(_Handler, server):
        yield server


class _Handler(BaseHTTPRequestHandler):
    state: PublishedServer

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._send(404, b"")

    def do_GET(self) -> None:
        state, path = self.state, unquote(urlsplit(self.path).path)
        record = f"/api/records/{RECORD}"
        if path == record:
            self._send(200, json.dumps(state.record()).encode())
        elif path.startswith(f"{record}/files/"):
            data = state.files.get(path.split("/")[5])
            self._file(data) if data is not None else self._send(404, b"no such file")
        elif path in state.pages:
            self._send(200, state.pages[path])
        else:
            self._send(404, b"no such page")

    def _file(self, data: bytes) -> None:
        state, asked = self.state, self.headers.get("Range")
        state.ranges.append(asked)
        if state.hold is not None:
            state.waiting.set()
            state.hold.wait(30)
        fault = state.faults.pop(0) if state.faults else ""
        start = 0 if asked is None else int(asked.removeprefix("bytes=").removesuffix("-"))
        headers = {} if asked is None else {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"}
        self._send(200 if asked is None else 206, data[start:], headers, fault)

    def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None, fault: str = "") -> None:
        if fault == "503":
            status, body, headers = 503, b"", {}
        self.send_response(status)
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[: len(body) // 2] if fault == "drop" else body)
