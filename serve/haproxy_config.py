"""HAProxy's configuration as Ray Serve writes it, made into one for a server of ours.

``serve.haproxy`` has it run before each start of HAProxy, as a program of its own that needs nothing but Python:
``python haproxy_config.py FILE ADDRESS`` rewrites the file. Ray's template (2.60) is in
``ray/serve/_private/haproxy_templates.py``.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

BUFFER_BYTES = 65_536
"""Of a request, head and body: what fits is whole before a replica hears of it, and can be sent to another one."""
MARK = "# rewritten by protclip\n"
TIMEOUTS = {
    "http-request": "10s",  # for a whole head, and a body that fits into a buffer
    "http-keep-alive": "60s",
    "client": "60s",  # between two parts of a body or an answer; longer than a request may take
    "server": "60s",
}
LOCAL = (
    (r"^    bind :", "    bind 127.0.0.1:"),  # metrics
    (r"^  bind \*:", "  bind 127.0.0.1:"),  # statistics
)
ERRORS = {
    400: ("BadRequest", "this is no HTTP request that can be read."),
    408: ("RequestTimeoutError", "the request was not whole within 10 s."),
    500: ("InternalError", "The server failed on this request; its log says why."),
    502: ("BadGateway", "the replica broke off; ask again."),
    503: ("ServiceUnavailable", "no replica takes this request now; ask again later."),
    504: ("GatewayTimeout", "no replica answered in time; ask again later."),
}
"""What HAProxy says of a request. Where a head is not whole, or cannot be read, it has a page of its own for 400 and
408 that no setting reaches (2.8)."""
NO_APPLICATION = ("NoApplication", "no application answers at this path, or none yet.")
"""Of another type than the application's own 404, ``NotFound``: this one passes when the application has started."""
REQUEST_ID = "%[var(txn.request_id)]"
OWN_ID = "%[unique-id]"
"""Where a request is refused before the frontend's rules, which set the variable."""


def rewrite(text: str, address: str) -> str:
    """The configuration with the pages of statistics and metrics on the loopback, time limits, and errors in our form.

    Args:
        text: as Ray has written it.
        address: host:port of the frontend. Ray has it listen where the replicas do.

    Raises:
        ValueError: if it is not laid out as Ray 2.60 does.
    """
    if text.startswith(MARK):  # Ray checks a file before it starts HAProxy with it
        return text
    for pattern, line in LOCAL:
        text = _replace(pattern, line, text)
    # Ray has one answer for these three, an error 500; a backend's own time limits would override ours.
    text = re.sub(r"^    errorfile 50[234] .*\n", "", text, flags=re.M)
    text = re.sub(rf"^    timeout (?:{'|'.join(TIMEOUTS)}) .*\n", "", text, flags=re.M)
    # With splicing, one in some fifty connections whose body was refused half-way hung until the client's time limit.
    text = re.sub(r"^    option splice-.*\n", "", text, flags=re.M)
    defaults = [f"timeout {name} {value}" for name, value in TIMEOUTS.items()]
    # A replica hears of a request when it has come, as far as a buffer holds it; then it can be sent to another, too.
    defaults += ["option http-buffer-request", "unique-id-format %[uuid,regsub(-,,g)]"]
    defaults += [
        f"http-error status {status} {_answer(*error, OWN_ID if status < 500 else REQUEST_ID)}"
        for status, error in ERRORS.items()
    ]
    text = _after(r"^defaults\n    mode http\n", defaults, text)
    request_id = [
        # The whole of the last one, as a replica takes it: without f, a comma would part it.
        "http-request set-var(txn.request_id) req.fhdr(x-request-id,-1)",
        "http-request set-var(txn.request_id) unique-id unless { var(txn.request_id) -m reg ^[A-Za-z0-9._-]{1,128}$ }",
        f"http-request set-header x-request-id {REQUEST_ID}",
    ]
    text = _replace(r"^frontend http_frontend\n    bind .*$", f"frontend http_frontend\n    bind {address}", text)
    text = _after(r"^frontend http_frontend\n    bind .*\n", request_id, text)
    no_route = "backend default_backend\n    http-request return status 404"
    text = _replace(rf"^{no_route} .*$", f"{no_route} {_answer(*NO_APPLICATION, REQUEST_ID)}", text)
    for listens in re.findall(r"^\s*bind\s+(.*?)\s*$", text, flags=re.M):
        if listens != address and not re.fullmatch(r"127\.0\.0\.1:[^,]+", listens):
            raise ValueError(f"HAProxy would listen on {listens}, beside {address} and the loopback.")
    return MARK + text


def _answer(kind: str, message: str, request_id: str) -> str:
    body = json.dumps({"error": {"type": kind, "message": message, "request_id": request_id}})
    headers = f"hdr X-Request-Id {request_id} hdr X-Content-Type-Options nosniff hdr Cache-Control no-store"
    retry = " hdr Retry-After 1" if kind == "ServiceUnavailable" else ""
    return f"content-type application/json lf-string '{body}' {headers}{retry}"


def _after(pattern: str, lines: list[str], text: str) -> str:
    block = "".join(f"    {line}\n" for line in lines)
    return _substitute(pattern, lambda match: match[0] + block, text)


def _replace(pattern: str, line: str, text: str) -> str:
    return _substitute(pattern, lambda _: line, text)


def _substitute(pattern: str, line: Callable[[re.Match[str]], str], text: str) -> str:
    text, found = re.subn(pattern, line, text, flags=re.M)
    if found != 1:
        raise ValueError(f"HAProxy's configuration has {pattern!r} {found} times; Ray 2.60 writes it once.")
    return text


if __name__ == "__main__":
    path = Path(sys.argv[1])
    path.write_text(rewrite(path.read_text(), sys.argv[2]))
