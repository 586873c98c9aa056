"""Searches with and without explanations beside them: what becomes of their latency, and how long explanations take.

    python benchmarks/serve_explain.py            5 minutes on a quiet machine
    python benchmarks/serve_explain.py --quick    within a minute

``protclip serve`` with two models, one after the other: a tiny one, whose searches take the least time, and one of the
width and depth of ESM-2 8M on both sides. Clients search for a text over and over, one or eight of them; alone, and
while another client asks for explanations of proteins of 300 to 1,000 residues, one after the other. Both take turns.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import requests
from report import Claim, write_results
from serve_clients import Rate, ask
from serve_inputs import QUESTION, TEXT, TINY, made

from cluster.ports import free_ports

SHAPES = {
    "tiny": TINY,
    "ESM-2 8M": {"hidden_size": 320, "num_hidden_layers": 6, "num_attention_heads": 20, "intermediate_size": 1280},
}
CLIENTS = (1, 8)
TIMES, EXPLAIN_S = 3, 10.0
"""At most so many times as long with explanations; seconds that one may take."""


def main() -> None:
    """Serve, ask, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="3 s and one pair of each")
    quick = parser.parse_args().quick
    cases = [case for name, shape in SHAPES.items() for case in served(name, shape, quick=quick)]
    took_s = [one["took_s"] for case in cases for one in case["explanations"]]
    claims = [
        Claim(
            claim="serve_explain_search_p99_ratio",
            value=max(case["ratio"] for case in cases),
            target=TIMES,
            unit="x, at most",
        ),
        Claim(claim="serve_explain_longest_s", value=max(took_s), target=EXPLAIN_S, unit="s, at most"),
        Claim(
            claim="serve_explain_failed",
            value=sum(rate["failed"] for case in cases for rate in (*case["alone"], *case["beside"])),
            target=0,
            unit="searches, at most",
        ),
    ]
    lines = [
        "Searches: median of the pairs. Explanations: stride 1 was asked.",
        "",
        "| model | clients | p50 alone | p50 beside | p99 alone | p99 beside | p99 ratio | searches/s alone | beside "
        "| explanations | s, median | longest | strides |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for case in cases:
        alone, beside = (
            {key: statistics.median(rate[key] for rate in case[which]) for key in ("p50_ms", "p99_ms", "per_s")}
            for which in ("alone", "beside")
        )
        seconds = [one["took_s"] for one in case["explanations"]]
        strides = sorted({one["stride"] for one in case["explanations"]})
        lines.append(
            f"| {case['model']} | {case['clients']} | {alone['p50_ms']:.1f} ms | {beside['p50_ms']:.1f} ms "
            f"| {alone['p99_ms']:.1f} ms | {beside['p99_ms']:.1f} ms | {case['ratio']:.2f} "
            f"| {alone['per_s']:.0f} | {beside['per_s']:.0f} | {len(seconds)} | {statistics.median(seconds):.2f} "
            f"| {max(seconds):.2f} | {strides[0]} to {strides[-1]} |"
        )
    write_results("serve_explain", claims, {"cases": cases}, "\n".join(lines), quick=quick)


def served(name: str, shape: dict[str, int], *, quick: bool) -> list[dict[str, Any]]:
    """What was seen of a model, for each number of clients."""
    with tempfile.TemporaryDirectory() as folder:
        index, checkpoint = made(Path(folder), 20_000, shape)
        (port,) = free_ports(1)
        command = [sys.executable, "-m", "protclip", "serve", index, "--checkpoint", checkpoint, "--port", str(port)]
        process = subprocess.Popen(command, cwd=Path(__file__).parents[1], stdout=subprocess.PIPE, text=True)
        try:
            assert process.stdout is not None
            if not any(line.startswith("ready") for line in process.stdout):
                raise SystemExit("error: the server did not start.")
            url = f"http://127.0.0.1:{port}"
            with Explanations(url):  # what is done once is not measured
                ask(f"{url}/v1/search", QUESTION, clients=8, seconds=3)
            return [{"model": name, **compared(url, clients, quick=quick)} for clients in CLIENTS]
        finally:
            process.terminate()
            process.wait(180)


def compared(url: str, clients: int, *, quick: bool) -> dict[str, Any]:
    """Searches alone and beside explanations, in turns."""
    alone: list[Rate] = []
    beside: list[Rate] = []
    explanations: list[dict[str, Any]] = []
    for _ in range(1 if quick else 3):
        alone.append(ask(f"{url}/v1/search", QUESTION, clients=clients, seconds=3 if quick else 8))
        with Explanations(url) as asked:
            beside.append(ask(f"{url}/v1/search", QUESTION, clients=clients, seconds=3 if quick else 8))
        explanations += asked.answers
    p99_alone, p99_beside = (statistics.median(rate.p99_ms for rate in rates) for rates in (alone, beside))
    as_json = [[{key: getattr(rate, key) for key in Rate.__slots__} for rate in rates] for rates in (alone, beside)]
    return {
        "clients": clients,
        "alone": as_json[0],
        "beside": as_json[1],
        "ratio": p99_beside / p99_alone,
        "explanations": explanations,
    }


class Explanations:
    """A client that asks for one explanation after the other while the block runs, and for one at least."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._ask)
        self.answers: list[dict[str, Any]] = []

    def __enter__(self) -> Explanations:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _ask(self) -> None:
        generator, session = np.random.default_rng(0), requests.Session()
        while not self._end.is_set():
            size = int(generator.integers(300, 1_001))
            sequence = "".join(generator.choice(list("ACDEFGHIKLMNPQRSTVWY"), size=size))
            began = time.monotonic()
            answer = session.post(f"{self._url}/v1/explain", json={"sequence": sequence, "text": TEXT}, timeout=60)
            answer.raise_for_status()
            took_s = time.monotonic() - began
            self.answers.append({"residues": size, "stride": answer.json()["stride"], "took_s": took_s})


if __name__ == "__main__":
    main()
