"""What actors do, without actors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tiny_model import RESIDUES, tiny_model

from protclip.index.embeddings import METADATA
from protclip.protanno.shards import SCHEMA
from ray_jobs.stages import EmbedChunk

pytestmark = pytest.mark.unit

LONGEST = 62  # residues that the tiny model sees
LENGTHS = [5, 63, 62, 90, 7, 64, 200, 9]


@pytest.fixture
def pairs(tmp_path: Path) -> tuple[str, dict[str, str]]:
    """A shard of row groups of 3, 3 and 2 rows, and its sequences by accession."""
    generator = np.random.default_rng(0)
    sequences = {f"A{i}": "".join(generator.choice(list(RESIDUES), n)) for i, n in enumerate(LENGTHS)}
    rows = [
        {"accession": name, "sequence": sequence, "name": "kinase", "ec": [], "sequence_hash": 0, "probability": 1.0}
        for name, sequence in sequences.items()
    ]
    path = str(tmp_path / "train-00000-of-00001.parquet")
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), path, row_group_size=3)
    tiny_model().save_pretrained(str(tmp_path / "model"))
    return path, sequences


def embed(pairs: str, row_groups: list[int], **arguments: Any) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The report and the rows of the part."""
    folder = Path(pairs).parent
    stage = EmbedChunk(
        str(folder / "model"), arguments.pop("content", "protein"), str(folder), use_gpu=False, **arguments
    )
    report = stage({"path": pairs, "row_groups": row_groups, "part": "part.parquet", "source": pairs, "pairs": True})
    return report, pq.read_table(folder / report["part"]).to_pylist() if report["part"] else []


def test_long_pairs_are_refused_by_their_place_in_the_shard(pairs: tuple[str, dict[str, str]]) -> None:
    path, sequences = pairs
    report, rows = embed(path, [1, 2], long="error")
    assert [row["accession"] for row in rows] == ["A4", "A7"]
    wanted = tiny_model().embed_proteins([sequences["A4"], sequences["A7"]])
    assert np.abs(np.array([row["embedding"] for row in rows]) - wanted).max() <= 1e-6
    places = [(entry["line"], entry["accession"], entry["value"]) for entry in report["refused"]]
    assert places == [(4, "A3", "90 residues"), (6, "A5", "64 residues"), (7, "A6", "200 residues")]
    assert {entry["source"] for entry in report["refused"]} == {path}
    assert (report["read"], report["rows"], report["long"]) == (5, 2, 0)


@pytest.mark.parametrize("policy", ["truncate", "window-mean"])
def test_a_part_says_which_proteins_were_longer_than_the_model_sees(
    pairs: tuple[str, dict[str, str]], policy: Any
) -> None:
    path, sequences = pairs
    report, rows = embed(path, [0, 1, 2], long=policy)
    assert [row["long"] for row in rows] == [policy if length > LONGEST else None for length in LENGTHS]
    assert (report["read"], report["rows"], report["long"], report["refused"]) == (8, 8, 4, [])
    wanted = tiny_model().embed_proteins(list(sequences.values()), long=policy)
    assert np.abs(np.array([row["embedding"] for row in rows]) - wanted).max() <= 1e-6
    part = pq.read_schema(Path(path).parent / "part.parquet")
    assert part.names == [*METADATA.names, "long", "embedding"]


def test_a_chunk_of_long_proteins_alone_leaves_no_part(pairs: tuple[str, dict[str, str]], tmp_path: Path) -> None:
    alone = str(tmp_path / "alone.parquet")
    table = pq.read_table(pairs[0])
    pq.write_table(table.take([1, 3]), alone)
    report, rows = embed(alone, [0], long="error")
    assert (report["part"], report["rows"], len(report["refused"]), rows) == (None, 0, 2, [])
    assert not (tmp_path / "part.parquet").exists()


def test_texts_have_no_policy(pairs: tuple[str, dict[str, str]]) -> None:
    report, rows = embed(pairs[0], [0], content="text", long=None)
    assert {row["long"] for row in rows} == {None}
    assert (report["rows"], report["long"], report["mapped"]) == (3, 0, {})
