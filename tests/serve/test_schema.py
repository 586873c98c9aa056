"""The running server keeps to its own schema, whatever is sent: schemathesis, in all its phases."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import requests

from benchmarks.report import Claim, write_results
from serve.openapi import ANSWERS

TIMEOUT_S = 10
"""A request that takes longer hangs."""

# A body may fit the schema and still ask what cannot be answered (a vector of another width, pairs that do not match,
# a filter that cannot be read), so "schema-valid request rejected" is no finding. All other checks are made.
LEFT_OUT = "positive_data_acceptance"
# A body that is too large is refused as such, whatever else is wrong with it: 413 is not among schemathesis's own.
CONFIG = """
[checks]
negative_data_rejection.expected-statuses = ["401", "403", "404", "405", "413", "415", "422"]
"""


def run_schemathesis(
    url: str, folder: Path, *, max_examples: int, seed: int
) -> tuple[dict[str, Any], Counter[tuple[str, str]]]:
    """Its report, after it has found nothing wrong, and the answers by route and status.

    Args:
        url: of the server.
        folder: for the report.
        max_examples: of each operation, in fuzzing and stateful testing.
        seed: of all that is random.
    """
    command = [Path(sys.executable).parent / "schemathesis", "run", f"{url}/openapi.json", "--seed", str(seed)]
    command += ["--max-examples", str(max_examples), "--phases", "examples,coverage,fuzzing,stateful"]
    command += ["--exclude-checks", LEFT_OUT, "--continue-on-failure", "--warnings", "off"]
    command += ["--request-timeout", str(TIMEOUT_S), "--report", "json", "--report-json-path", folder / "report.json"]
    (folder / "schemathesis.toml").write_text(CONFIG)  # read from the folder in which it runs
    before = answers(url)
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr
    report: dict[str, Any] = json.loads((folder / "report.json").read_text())
    assert {phase["status"] for phase in report["phases"].values()} == {"success"}
    assert report["operations"]["tested"] == report["operations"]["total"] == len({*ANSWERS, "/metrics"})
    return report, answers(url) - before


def answers(url: str) -> Counter[tuple[str, str]]:
    """Those that the replica has counted, by route and status."""
    text = requests.get(f"{url}/metrics", timeout=60).text
    found = re.findall(r'^protclip_requests_total\{route="(.*)",status="(\d+)"\} (\S+)$', text, re.MULTILINE)
    return Counter({(route, status): int(float(count)) for route, status, count in found})


@pytest.mark.serve
def test_a_thousand_requests_are_answered_as_the_schema_says(server, tmp_path):
    report, counted = run_schemathesis(server.url, tmp_path, max_examples=12, seed=1)
    assert report["test_cases"]["generated"] >= 1_000
    assert not [status for _, status in counted if status >= "500"]
    for route in ("/v1/search", "/v1/embed", "/v1/embeddings", "/v1/score", "/v1/classify", "/v1/explain"):
        assert counted[route, "200"] >= 5 and counted[route, "422"] >= 5


@pytest.mark.prove
def test_twenty_thousand_requests_are_answered_as_the_schema_says(server, tmp_path):
    report, counted = run_schemathesis(server.url, tmp_path, max_examples=3_000, seed=15)
    num_cases = report["test_cases"]["generated"]
    assert num_cases >= 20_000
    bad = sum(count for (_, status), count in counted.items() if status >= "500")
    columns = sorted({status for _, status in counted})
    lines = [f"Seed {report['seed']}, {report['running_time']:.0f} s, schemathesis {report['schemathesis_version']}."]
    lines += [f"All phases, all checks but {LEFT_OUT}. A request of {TIMEOUT_S} s is a failure: there was none."]
    lines += ["", "| answers | " + " | ".join(columns) + " |", "|---|" + "---|" * len(columns)]
    for route in sorted({route for route, _ in counted}):
        lines.append(f"| {route} | " + " | ".join(str(counted.get((route, status), 0)) for status in columns) + " |")
    claims = [
        Claim(claim="serve_schema_cases", value=num_cases, target=20_000, unit="requests"),
        Claim(claim="serve_schema_server_errors", value=bad, target=0, unit="requests"),
    ]
    write_results("serve_schema", claims, {"report": report["test_cases"]}, "\n".join(lines), quick=False)
    assert bad == 0
