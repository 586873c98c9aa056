"""A HuggingFace hub on this machine, as far as uploading one repository and downloading some asks for it."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import unquote, urlsplit

from loopback import listening

COMMIT = "c0ffee" + "0" * 34


@dataclass(kw_only=True)
class HubServer:
    """What was uploaded, and by whom."""

    files: dict[str, bytes] = field(default_factory=dict)
    """Of the repository lab/tiny."""
    others: dict[str, dict[str, bytes]] = field(default_factory=dict)
    """Of further repositories."""
    asked: list[str] = field(default_factory=list)
    """Paths of the requests to read."""
    repos: list[dict[str, Any]] = field(default_factory=list)
    """Bodies of the requests to make a repository."""
    tokens: set[str | None] = field(default_factory=set)
    commits: list[dict[str, Any]] = field(default_factory=list)
    url: str = ""


@contextlib.contextmanager
def serving(server: HubServer) -> Iterator[HubServer]:
    """Serve on a free port of the loopback."""
    with listening(_Handler, server):
        yield server


class _Handler(BaseHTTPRequestHandler):
    state: HubServer

    def log_message(self, *_: object) -> None:
        pass

    def do_POST(self) -> None:
        self.state.tokens.add(self.headers.get("Authorization"))
        body = self._body()
        path = urlsplit(self.path).path
        if path == "/api/repos/create":
            self.state.repos.append(json.loads(body))
            self._json({"url": f"{self.state.url}/lab/tiny", "id": "lab/tiny"})
        elif path == "/api/validate-yaml":
            self._json({"errors": [], "warnings": []})
        elif "/preupload/" in path:
            asked = json.loads(body)["files"]
            answers = [{"path": file["path"], "uploadMode": "regular", "shouldIgnore": False} for file in asked]
            self._json({"files": answers})
        elif "/commit/" in path:
            for line in body.splitlines():
                entry = json.loads(line)
                if entry["key"] == "header":
                    self.state.commits.append(entry["value"])
                elif entry["key"] == "file":
                    self.state.files[entry["value"]["path"]] = base64.b64decode(entry["value"]["content"])
            self._json(
                {"success": True, "commitOid": COMMIT, "commitUrl": f"{self.state.url}/lab/tiny/commit/{COMMIT}"}
            )
        else:
            self._json({"error": f"unknown {path}"}, status=404)

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.state.asked.append(path)
        for repo, files in {"lab/tiny": self.state.files, **self.state.others}.items():
            if path == f"/api/models/{repo}" or path.startswith(f"/api/models/{repo}/revision/"):
                siblings = [{"rfilename": name, "size": len(data)} for name, data in files.items()]
                self._json({"id": repo, "sha": COMMIT, "siblings": siblings, "private": False})
                return
            if path.startswith(f"/api/models/{repo}/tree/"):
                self._json(
                    [
                        {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
                        for name, data in files.items()
                    ]
                )
                return
            if path.startswith(f"/{repo}/resolve/"):
                self._file(files.get(path.split("/", 5)[5]))
                return
        self._json({"error": f"unknown {path}"}, status=404)

    do_HEAD = do_GET

    def _file(self, data: bytes | None) -> None:
        if data is None:
            self._json({"error": "no such file"}, status=404)
            return
        self.send_response(200)
        self.send_header("ETag", f'"{hashlib.sha1(data).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self._send(data)

    def _json(self, value: Any, *, status: int = 200) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self._send(json.dumps(value).encode())

    def _send(self, data: bytes) -> None:
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)
