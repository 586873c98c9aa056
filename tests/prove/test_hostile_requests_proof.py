"""No request stops the others: a good client beside each hostile kind, in both modes."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pytest
from hostile import KINDS, Times, beside
from running import Running
from tiny_model import random_sequences, tiny_model, write_protein_index

from benchmarks.report import Claim, write_results
from serve.haproxy import haproxy_binary

SECONDS = 12
"""Beside each kind: longer than the server waits for what does not come."""
MIN_REQUESTS = 200
"""Of the good client, for a p99."""


@pytest.mark.prove
def test_a_good_clients_p99_beside_each_hostile_kind_is_below_three_times_its_own(tmp_path):
    model = tiny_model()
    model.save_pretrained(str(tmp_path / "checkpoint"))
    index = write_protein_index(tmp_path, model, random_sequences(60))
    claims, figures, rows = [], {}, []
    assert haproxy_binary() is not None, "the HAProxy of ray[serve] does not run here"
    for mode, haproxy in (("haproxy", "1"), ("ordinary", "0")):
        home = tmp_path / mode
        home.mkdir()
        env = {"HOME": str(home), "RAY_SERVE_ENABLE_HA_PROXY": haproxy}
        with Running(index, str(tmp_path / "checkpoint"), env=env) as server:
            server.wait_ready()
            beside(None, server.port, 3)  # warm
            quiet, _ = beside(None, server.port, SECONDS)
            rows.append(row(mode, "alone", quiet, quiet, {}, server.peak_mb()))
            found: dict[str, Any] = {"alone": {**asdict(quiet), "peak_mb": server.peak_mb()}}
            for kind, (_, allowed) in KINDS.items():
                times, statuses = beside(kind, server.port, SECONDS)
                rows.append(row(mode, kind, times, quiet, statuses, server.peak_mb()))
                print(rows[-1])
                found[kind] = {**asdict(times), "statuses": statuses, "peak_mb": server.peak_mb()}
                assert times.failed == 0 and set(statuses) <= allowed, (mode, kind, statuses)
        figures[mode] = found
        worst = max(one["p99_ms"] for kind, one in found.items() if kind != "alone") / quiet.p99_ms
        claims.append(Claim(claim=f"serve_hostile_{mode}_p99_over_quiet", value=worst, target=3.0, unit="x"))
        assert quiet.number >= MIN_REQUESTS
    head = (
        "| mode | beside | requests | failed | p50 ms | p99 ms | × alone | longest ms | answers | replica's peak MB |\n"
    )
    write_results("hostile_requests", claims, figures, head + "|---" * 10 + "|\n" + "\n".join(rows), quick=False)
    assert all(claim.value < 3 for claim in claims), claims


def row(mode: str, kind: str, times: Times, quiet: Times, statuses: dict[str, int], peak_mb: int) -> str:
    answers = ", ".join(f"{number} × {status}" for status, number in statuses.items())
    cells = [mode, kind, times.number, times.failed, times.p50_ms, times.p99_ms, f"{times.p99_ms / quiet.p99_ms:.1f}"]
    return "| " + " | ".join(map(str, [*cells, times.max_ms, answers, peak_mb])) + " |"
