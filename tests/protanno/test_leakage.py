"""How many test proteins have a training protein of at least 50 % identity, as MMseqs2 finds them."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from protanno.test_splits import families, split

from protclip.protanno.shards import SPLITS
from protclip.uniprot.entry import Entry
from protclip.uniprot.formats import open_entries

TEST = SPLITS.index("test")


@pytest.fixture(scope="module")
def real_sequences(real_data: Path) -> list[str]:
    """The first 2,000 of real UniProt sequences, each once."""
    if shutil.which("mmseqs") is None:
        pytest.skip("the program mmseqs is not installed (apt install mmseqs2)")
    entries = open_entries(str(real_data / "uniprot/sequences_20000.fasta.gz"))
    found: dict[str, None] = {}
    for entry in entries:
        assert isinstance(entry, Entry)
        found[entry.sequence] = None
        if len(found) == 2000:
            break
    return list(found)


def relatives(folder: Path, sequences: Sequence[str], queries: Sequence[int]) -> dict[int, set[int]]:
    """The sequences of at least 50 % identity of each of the queries."""
    for name, numbers in (("queries", queries), ("targets", range(len(sequences)))):
        (folder / f"{name}.fasta").write_text("".join(f">{i}\n{sequences[i]}\n" for i in numbers))
    command = ["mmseqs", "easy-search", "queries.fasta", "targets.fasta", "hits.tsv", "scratch", "--min-seq-id", "0.5"]
    subprocess.run([*command, "--format-output", "query,target", "-v", "1"], cwd=folder, check=True)
    found: dict[int, set[int]] = {query: set() for query in queries}
    for line in (folder / "hits.tsv").read_text().splitlines():
        query, target = map(int, line.split())
        found[query].add(target)
    return found


def test_the_default_split_leaks_less_than_half_as_much_as_a_random_one(
    tmp_path: Path, real_sequences: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    report, codes = split(tmp_path, real_sequences, test_fraction=0.1)
    _, by_chance = split(tmp_path, real_sequences, test_fraction=0.1, split_by="sequence")
    tests = {name: np.flatnonzero(np.array(found) == TEST) for name, found in (("ours", codes), ("random", by_chance))}
    found = relatives(tmp_path, real_sequences, sorted({*tests["ours"].tolist(), *tests["random"].tolist()}))
    leaks = {}
    for (name, queries), places in zip(tests.items(), (codes, by_chance), strict=True):
        assert len(queries) == 200
        leaks[name] = sum(any(places[i] != TEST for i in found[query]) for query in queries.tolist()) / len(queries)
    with capsys.disabled():
        print(f"leakage: minhash {leaks['ours']:.3f}, random {leaks['random']:.3f}; {report}")
    assert leaks["random"] > 0.15  # there is something to leak
    assert leaks["ours"] < leaks["random"] / 2


def test_mmseqs_finds_families(tmp_path: Path) -> None:
    if shutil.which("mmseqs") is None:
        pytest.skip("the program mmseqs is not installed (apt install mmseqs2)")
    report, codes = split(
        tmp_path, families(20, 4, length=200, identity=0.9, seed=0), shards=3, split_by="mmseqs", valid_fraction=0.2
    )
    assert (report.num_clusters, report.largest_cluster) == (20, 4)
    assert all(len(set(codes[i : i + 4])) == 1 for i in range(0, len(codes), 4))
    assert report.num_rows["valid"] == 16
