"""Clients that ask over and over: wrk where it is installed, else sockets of our own in a process of its own."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np

WRK_SCRIPT = """
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.body = {body}
function done(summary, latency, requests)
  local errors = summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.timeout
  io.write(string.format("RESULT %d %d %d %d %d\\n", summary.requests, summary.duration,
    latency:percentile(50), latency:percentile(99), errors + summary.errors.status))
end
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rate:
    """What some clients saw."""

    per_s: float
    p50_ms: float
    p99_ms: float
    failed: int
    """Answers other than 200, and none."""


def ask(url: str, body: object, *, clients: int, seconds: float) -> Rate:
    """POST a body from so many connections, each of which asks again when it is answered."""
    text = json.dumps(body)
    if shutil.which("wrk") is None:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            return pool.apply(_ask_with_sockets, (url, text, clients, seconds))
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "ask.lua"
        script.write_text(WRK_SCRIPT.replace("{body}", json.dumps(text)))  # a string of JSON is one of Lua's
        command = ["wrk", "-t1", f"-c{clients}", f"-d{max(1, round(seconds))}s", "--timeout", "60s", "-s", str(script)]
        done = subprocess.run([*command, url], capture_output=True, text=True, check=True).stdout
    (line,) = (line for line in done.splitlines() if line.startswith("RESULT "))
    requests, duration_us, p50_us, p99_us, failed = map(int, line.split()[1:])
    return Rate(per_s=requests / duration_us * 1e6, p50_ms=p50_us / 1e3, p99_ms=p99_us / 1e3, failed=failed)


def _ask_with_sockets(url: str, text: str, clients: int, seconds: float) -> Rate:
    where, body = urlsplit(url), text.encode()
    head = f"POST {where.path} HTTP/1.1\r\nHost: {where.netloc}\r\nContent-Type: application/json\r\n"
    request = head.encode() + b"Content-Length: %d\r\n\r\n" % len(body) + body
    took_s: list[float] = []
    failed = 0
    end = time.monotonic() + seconds

    async def client() -> None:
        nonlocal failed
        reader, writer = await asyncio.open_connection(where.hostname, where.port)
        while (started := time.monotonic()) < end:
            writer.write(request)
            status, *headers = (await reader.readuntil(b"\r\n\r\n")).lower().split(b"\r\n")
            (length,) = (int(line[15:]) for line in headers if line.startswith(b"content-length:"))
            await reader.readexactly(length)
            took_s.append(time.monotonic() - started)
            failed += b" 200 " not in status
        writer.close()

    async def all_clients() -> None:
        await asyncio.gather(*(client() for _ in range(clients)))

    started = time.monotonic()
    asyncio.run(all_clients())
    p50_s, p99_s = np.percentile(took_s, [50, 99])
    return Rate(per_s=len(took_s) / (time.monotonic() - started), p50_ms=p50_s * 1e3, p99_ms=p99_s * 1e3, failed=failed)
