"""Four times as many requests as are answered, for a minute: what becomes of them, and of the server.

    python benchmarks/serve_overload.py            60 s
    python benchmarks/serve_overload.py --quick    10 s; within a minute

``protclip serve`` with a tiny model; requests of 16 proteins. Its capacity is measured with 8 clients that ask over and
over; then requests come at 4 × that rate whatever becomes of them, each on a connection of its own. Shown: statuses,
the longest time to an answer of 200, the replica's memory, and how soon a request is answered as before.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
from report import Claim, write_results
from serve_clients import ask
from serve_inputs import made, random_sequences

from cluster.ports import free_ports

TIMES, SEQUENCES, ALLOWED = 4, 16, {200, 429, 503}
REQUEST_TIMEOUT_S = 30.0
"""The server's own: no answer of 200 comes later."""


def main() -> None:
    """Serve, overload, look."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="10 s")
    quick = parser.parse_args().quick
    body = {"proteins": random_sequences(SEQUENCES)}
    with tempfile.TemporaryDirectory() as folder:
        index, checkpoint = made(Path(folder), 1_000)
        (port,) = free_ports(1)
        command = [sys.executable, "-m", "protclip", "serve", index, "--checkpoint", checkpoint, "--port", str(port)]
        process = subprocess.Popen(command, cwd=Path(__file__).parents[1], stdout=subprocess.PIPE, text=True)
        try:
            assert process.stdout is not None
            if not any(line.startswith("ready") for line in process.stdout):
                raise SystemExit("error: the server did not start.")
            found = measured(f"http://127.0.0.1:{port}/v1/embed", body, process.pid, 10 if quick else 60)
        finally:
            process.terminate()
            process.wait(60)
    statuses = found["statuses"]
    claims = [
        Claim(
            claim="serve_overload_other_statuses",
            value=sum(number for status, number in statuses.items() if status not in ALLOWED),
            target=0,
            unit="answers, at most",
        ),
        Claim(
            claim="serve_overload_longest_200_s", value=found["longest_s"], target=REQUEST_TIMEOUT_S, unit="s, at most"
        ),
        Claim(claim="serve_overload_memory_growth", value=found["grown_mb"], target=300, unit="MB, at most"),
        Claim(claim="serve_overload_normal_after_s", value=found["normal_after_s"], target=5, unit="s, at most"),
    ]
    lines = [
        f"Capacity {found['capacity_per_s']:.1f} requests/s; {TIMES} × as many for {found['seconds']:.0f} s.",
        "",
        "| status | answers |",
        "|---|---|",
        *(f"| {status or 'none'} | {number} |" for status, number in sorted(statuses.items())),
    ]
    write_results("serve_overload", claims, found, "\n".join(lines), quick=quick)


def measured(url: str, body: object, pid: int, seconds: float) -> dict[str, Any]:
    """What was seen; ``statuses`` has 0 for no answer."""
    capacity = ask(url, body, clients=8, seconds=5).per_s
    alone_s = ask(url, body, clients=1, seconds=2).p50_ms / 1e3
    before_mb = most_mb = memory_mb(pid)
    answers: list[tuple[int, float]] = []

    async def one() -> None:
        started = time.monotonic()
        try:
            status = await status_of(url, json.dumps(body).encode())
        except (OSError, asyncio.IncompleteReadError):
            status = 0
        answers.append((status, time.monotonic() - started))

    async def flood() -> None:
        nonlocal most_mb
        tasks: set[asyncio.Task[None]] = set()
        started = time.monotonic()
        looked = 0.0
        while (now := time.monotonic() - started) < seconds:
            while len(tasks) < now * capacity * TIMES:
                tasks.add(asyncio.create_task(one()))
            if now > looked + 1:
                looked, most_mb = now, max(most_mb, await asyncio.to_thread(memory_mb, pid))
            await asyncio.sleep(0.005)
        await asyncio.gather(*tasks)

    asyncio.run(flood())
    ended = time.monotonic()
    while ask(url, body, clients=1, seconds=1).p50_ms / 1e3 > 2 * alone_s and time.monotonic() < ended + 60:
        pass
    return {
        "capacity_per_s": capacity,
        "seconds": seconds,
        "statuses": dict(collections.Counter(status for status, _ in answers)),
        "longest_s": max((took_s for status, took_s in answers if status == 200), default=0.0),
        "grown_mb": most_mb - before_mb,
        "normal_after_s": time.monotonic() - ended,
    }


async def status_of(url: str, body: bytes) -> int:
    """Of one POST on a connection of its own."""
    where = urlsplit(url)
    reader, writer = await asyncio.open_connection(where.hostname, where.port)
    try:
        head = f"POST {where.path} HTTP/1.1\r\nHost: {where.netloc}\r\nContent-Type: application/json\r\n"
        writer.write(head.encode() + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        line = await reader.readuntil(b"\r\n")
        await reader.read()
        return int(line.split()[1])
    finally:
        writer.close()


def memory_mb(pid: int) -> float:
    """Resident memory of the replicas of a server."""
    total = 0
    for process in psutil.Process(pid).children(recursive=True):
        try:
            if any("ServeReplica" in part for part in process.cmdline()[:1]):
                total += process.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return total / 2**20


if __name__ == "__main__":
    main()
