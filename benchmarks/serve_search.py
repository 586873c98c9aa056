"""Searches a second over HTTP, beside a route that does nothing and beside the server as it was. Some 10 minutes.

    python benchmarks/serve_search.py            100,000 vectors of 512; 20 s for each number of clients
    python benchmarks/serve_search.py --quick    12,000 vectors, 1 s; within 2 minutes

All on this machine, clients (wrk where it is installed), proxy and replicas together: a tiny encoder, seeded vectors in
clusters, one question by text, 10 answers. All three applications stand in one Ray behind one proxy and are asked in
turns, first behind HAProxy, then behind Serve's own proxy, which was the old chain's: ours behind HAProxy is compared
with the old chain behind the latter. Embedding is compared with ``embed_proteins`` in one process with as many threads.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from report import Claim, write_results
from serve_clients import Rate, ask
from serve_inputs import QUESTION, made, random_sequences

from cluster.ports import free_ports
from protclip.trained_model import ProtCLIP

PATHS = {"application": "/v1/search", "noop": "/noop/", "old chain": "/old/search"}
MODES = {"HAProxy": "1", "Serve's proxy": "0"}
CLIENTS = (1, 8, 32)
SEQUENCES_PER_REQUEST = 64


def main() -> None:
    """Build, measure each mode, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="12,000 vectors, 1 s; within 2 minutes")
    quick = parser.parse_args().quick
    seconds = 1 if quick else 20
    modes: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        index, checkpoint = made(Path(folder), 12_000 if quick else 100_000)
        for name, variable in MODES.items():
            with Server(index, checkpoint, variable) as server:
                modes[name] = server.measured(seconds)
                if name == "HAProxy":
                    embedding = embedded(server.url, checkpoint, seconds)
    new, proxied = modes["HAProxy"]["rates"], modes["Serve's proxy"]["rates"]
    ours, noop = new["application"], new["noop"]
    claims = [
        Claim(claim="serve_search_32_clients_per_s", value=ours[32].per_s, target=1000, unit="searches/s"),
        Claim(claim="serve_search_over_noop", value=ours[32].per_s / noop[32].per_s, target=0.4, unit="x"),
        Claim(
            claim="serve_search_over_old_chain",
            value=ours[32].per_s / proxied["old chain"][32].per_s,
            target=8,
            unit="x",
        ),
        Claim(
            claim="serve_search_1_client_p50_over_noop_ms",
            value=ours[1].p50_ms - noop[1].p50_ms,
            target=2,
            unit="ms, at most",
        ),
        Claim(claim="serve_embed_over_python", value=embedding["ratio"], target=0.9, unit="x"),
        Claim(claim="serve_replica_memory", value=modes["HAProxy"]["replica_mb"], unit="MB"),
    ]
    figures = {
        "modes": {
            name: {
                **mode,
                "rates": {
                    app: {clients: asdict(rate) for clients, rate in rates.items()}
                    for app, rates in mode["rates"].items()
                },
            }
            for name, mode in modes.items()
        },
        "embedding": embedding,
    }
    write_results("serve", claims, figures, tables(modes, embedding), quick=quick)


class Server:
    """The applications behind one proxy, in a process of their own."""

    def __init__(self, index: str, checkpoint: str, haproxy: str) -> None:
        (port,) = free_ports(1)
        self.url = f"http://127.0.0.1:{port}"
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("serve_apps.py")), str(port), index, checkpoint],
            cwd=Path(__file__).parents[1],
            env={**os.environ, "RAY_SERVE_ENABLE_HA_PROXY": haproxy},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Server:
        assert self.process.stdout is not None
        if not any(line == "ready\n" for line in self.process.stdout):
            raise SystemExit("error: the applications did not start.")
        return self

    def __exit__(self, *_: object) -> None:
        self.process.communicate(timeout=60)

    def measured(self, seconds: float) -> dict[str, Any]:
        """The rate of each application for each number of clients, and the memory of each kind of process."""
        rates: dict[str, dict[int, Rate]] = {app: {} for app in PATHS}
        for path in PATHS.values():
            ask(self.url + path, QUESTION, clients=8, seconds=min(seconds, 3))  # warm
        for clients in CLIENTS:
            for app, path in PATHS.items():
                rates[app][clients] = ask(self.url + path, QUESTION, clients=clients, seconds=seconds)
        return {"rates": rates, **self._memory()}

    def _memory(self) -> dict[str, float]:
        """MB that a process has alone, and a share of what it shares."""
        old = noop = ours = 0.0
        for process in psutil.Process(self.process.pid).children(recursive=True):
            try:
                name, mb = process.cmdline()[0], process.memory_full_info().pss / 2**20
            except (psutil.NoSuchProcess, IndexError):
                continue
            ours += mb if ":application:Replica" in name else 0
            noop += mb if ":noop:" in name else 0
            old += mb if ":old:" in name or ":proteins:" in name else 0
        return {"replica_mb": ours, "noop_mb": noop, "old_chain_mb": old}


def embedded(url: str, checkpoint: str, seconds: float) -> dict[str, float]:
    """Sequences a second over HTTP and in Python, measured in turns."""
    sequences = random_sequences(SEQUENCES_PER_REQUEST)
    model = ProtCLIP.from_pretrained(checkpoint)
    body = {"proteins": sequences, "encoding_format": "base64"}
    torch.set_num_threads(os.cpu_count() or 1)
    served, direct = [], []
    for _ in range(3):
        rate = ask(f"{url}/v1/embed", body, clients=2, seconds=max(1, seconds / 3))
        assert not rate.failed, rate
        served.append(rate.per_s * SEQUENCES_PER_REQUEST)
        started, number = time.monotonic(), 0
        while time.monotonic() < started + max(1, seconds / 3):
            model.embed_proteins(sequences)
            number += SEQUENCES_PER_REQUEST
        direct.append(number / (time.monotonic() - started))
    ratios = [one / other for one, other in zip(served, direct, strict=True)]
    return {"served": float(np.median(served)), "python": float(np.median(direct)), "ratio": float(np.median(ratios))}


def tables(modes: dict[str, Any], embedding: dict[str, float]) -> str:
    """For readers."""
    lines = [
        "| proxy | application | "
        + " | ".join(f"{n} client{'s' * (n > 1)}: /s, p50, p99 ms" for n in CLIENTS)
        + " | failed |",
        "|---|---|" + "---|" * (len(CLIENTS) + 1),
    ]
    for mode, measured in modes.items():
        for app, rates in measured["rates"].items():
            cells = [f"{rate.per_s:,.0f}, {rate.p50_ms:.1f}, {rate.p99_ms:.1f}" for rate in rates.values()]
            failed = sum(rate.failed for rate in rates.values())
            lines.append(f"| {mode} | {app} | {' | '.join(cells)} | {failed} |")
    memory = modes["HAProxy"]
    return "\n".join(
        [
            *lines,
            "",
            f"Embedding {SEQUENCES_PER_REQUEST} sequences a request, 2 clients: {embedding['served']:,.0f} "
            f"sequences/s; embed_proteins: {embedding['python']:,.0f}.",
            f"Memory (PSS): replica {memory['replica_mb']:,.0f} MB, no-op {memory['noop_mb']:,.0f} MB, old chain "
            f"{memory['old_chain_mb']:,.0f} MB in four processes.",
        ]
    )


if __name__ == "__main__":
    main()
