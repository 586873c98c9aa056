"""UniProt's REST service and download server, on this machine, with the faults that real ones have."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from urllib.parse import parse_qs, urlsplit

from loopback import listening

XML_HEAD = '<?xml version="1.0" encoding="UTF-8"?>\n<uniprot xmlns="https://uniprot.org/uniprot">\n'
XML_TAIL = "<copyright>\nCC BY 4.0\n</copyright>\n</uniprot>"


@dataclass(kw_only=True)
class UniProtServer:
    """What the server has, what it does wrong, and what it was asked."""

    entries: list[str] = field(default_factory=list)
    """Flat-file entries; every query finds all of them."""
    files: dict[str, bytes] = field(default_factory=dict)
    """Release files."""
    release: str = "2026_03"
    page_faults: list[str] = field(default_factory=list)
    """What becomes of the next requests for pages or files: '' for nothing, or a fault of ``_Handler``."""
    hold_after: int | None = None
    """Pages after which it keeps everybody waiting, until ``go_on`` is set."""
    go_on: threading.Event = field(default_factory=threading.Event)
    waiting: threading.Event = field(default_factory=threading.Event)
    pages: list[int] = field(default_factory=list)
    """First entry of each page that was asked for."""
    ranges: list[str | None] = field(default_factory=list)
    """Range header of each request for a file."""
    queries: list[dict[str, list[str]]] = field(default_factory=list)
    metalink: str | None = None
    """In place of the true one."""
    url: str = ""


@contextlib.contextmanager
def serving(server: UniProtServer) -> Iterator[UniProtServer]:
    """Serve on a free port of the loopback."""
    with listening(_Handler, server):
        try:
            yield server
        finally:
            server.go_on.set()


class _Handler(BaseHTTPRequestHandler):
    state: UniProtServer

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._send(404, b"")

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        name = parts.path.rsplit("/", 1)[-1]
        if parts.path == "/uniprotkb/search":
            self._page(parse_qs(parts.query))
        elif name == "RELEASE.metalink":
            self._send(200, (self.state.metalink or metalink(self.state)).encode())
        elif name in self.state.files:
            self._file(self.state.files[name])
        else:
            self._send(404, b"no such file")

    def _page(self, query: dict[str, list[str]]) -> None:
        state = self.state
        start, size = int(query.get("cursor", ["0"])[0]), int(query["size"][0])
        state.pages.append(start)
        state.queries.append(query)
        if query["query"] == ["nonsense:"]:
            self._send(400, b'{"messages": ["\'nonsense\' is not a valid search field"]}')
            return
        if state.hold_after is not None and len(state.pages) > state.hold_after:
            state.waiting.set()
            state.go_on.wait(30)
        entries = state.entries[start : start + size]
        fault = state.page_faults.pop(0) if state.page_faults else ""
        headers = {
            "X-Total-Results": str(len(state.entries)),
            "X-UniProt-Release": state.release,
            "X-UniProt-Release-Date": "02-September-2026",
        }
        if start + size < len(state.entries) and fault != "no link":
            cursor = f"{state.url}{self.path.split('&cursor=')[0]}&cursor={start + size}"
            headers["Link"] = f'<{cursor}>; rel="next"'
        if fault == "truncate":
            entries = entries[:-1]  # ends well-formed, as UniProt's own server does when it breaks off
        self._send(200, page_body(entries, query["format"][0]), headers, fault)

    def _file(self, data: bytes) -> None:
        asked = self.headers.get("Range")
        self.state.ranges.append(asked)
        fault = self.state.page_faults.pop(0) if self.state.page_faults else ""
        if asked is None or fault == "no range":
            self._send(200, data, {}, fault)
            return
        start = int(asked.removeprefix("bytes=").removesuffix("-"))
        self._send(206, data[start:], {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"}, fault)

    def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None, fault: str = "") -> None:
        if fault in ("429", "503"):
            status, body, headers = int(fault), b"", {"Retry-After": "1"} if fault == "429" else {}
        self.send_response(status)
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        if self.headers.get("Accept-Encoding", "").startswith("gzip") and body:
            body = gzip.compress(body)
            self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[: len(body) // 2] if fault == "drop" else body)


def page_body(entries: list[str], form: str) -> bytes:
    """Entries in a format as the service writes a page of them; for all but the flat file in a short form."""
    names = [entry.split("\nAC   ")[1].split(";")[0] for entry in entries]
    texts = {
        "txt": "".join(entries),
        "tsv": "Entry\tSequence\n" + "".join(f"{name}\tMKV\n" for name in names),
        "fasta": "".join(f">tr|{name}|X >odd\nMKV\nMKV\n" for name in names),
        "xml": XML_HEAD
        + "".join(f"<entry dataset='x'>\n<accession>{name}</accession>\n</entry>\n" for name in names)
        + XML_TAIL,
    }
    return texts[form].encode()


def metalink(server: UniProtServer) -> str:
    """RELEASE.metalink of the server's files, in UniProt's form."""
    listed = "".join(
        f'<file name="{name}"><size>{len(data)}</size><verification><hash type="md5">'
        f"{hashlib.md5(data, usedforsecurity=False).hexdigest()}</hash></verification>"
        f'<resources><url type="https">https://example.org/{name}</url></resources></file>\n'
        for name, data in server.files.items()
    )
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n<metalink xmlns="http://www.metalinker.org/" version="3.0">\n'
        f"<publisher><name>UniProt</name></publisher>\n<version>{server.release}</version>\n"
        f"<files>\n{listed}</files>\n</metalink>\n"
    )
