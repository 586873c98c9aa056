"""The quickstart on the synthetic proteome: what its training must reach, and the untrained model must not."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from protclip.data.tokenize import biotexts
from protclip.protanno.shards import read_pairs, read_row_group

pytestmark = pytest.mark.prove

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results" / "quickstart_2core_202611.json"
TIMES_CHANCE = 10


def test_quickstart_retrieves_ten_times_better_than_chance(tmp_path: Path) -> None:
    protclip = Path(sys.executable).parent / "protclip"
    output = tmp_path / "quickstart"
    command = [protclip, "quickstart", "--data", "synthetic", "--output", output]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr

    valid = [
        text for group in read_pairs(f"{output}/pairs").row_groups("valid") for text in biotexts(read_row_group(group))
    ]
    assert len(valid) == len(set(valid)) >= 500

    metrics = json.loads((output / "run" / "metrics.json").read_text())
    least = TIMES_CHANCE * metrics["valid"]["chance"]["recall@10"]
    assert metrics["valid"]["num_pairs"] == len(valid)
    assert metrics["valid"]["text_to_protein"]["recall@10"] >= least
    assert metrics["untrained"]["text_to_protein"]["recall@10"] < least
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    record = {
        "command": "make prove",
        "commit": subprocess.run(
            ["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True
        ).stdout.strip(),
        "hardware": f"{platform.machine()}, {platform.system()}",
        "last_line": result.stdout.strip().splitlines()[-1].split(" Everything")[0],
        **{key: metrics[key] for key in ("valid", "untrained", "steps", "seconds")},
    }
    RESULTS.write_text(json.dumps(record, indent=2) + "\n")
