"""What is counted of a folder of pairs."""

from __future__ import annotations

import io
import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pairs_folders import BEFORE, COUNTS, good, row, write_pairs

from protclip import files
from protclip.errors import DataError
from protclip.protanno import statistics
from protclip.protanno.biotext import biotext
from protclip.protanno.shards import PROPERTIES
from protclip.protanno.statistics import PUBLISHED, QUANTILES, pairs_statistics
from protclip.protanno.synthetic import synthetic_proteome
from protclip.uniprot.entry import Entry
from protclip.uniprot.flat_file import read_flat_file
from protclip.uniprot.formats import open_entries

pytestmark = pytest.mark.unit

HUMAN: dict[str, Any] = {"organism": "Homo sapiens (Human)", "organism_id": 9606}
ENTRIES = [
    Entry(accession="A1", sequence="MKV", name="Zinc β-finger", existence=1, reviewed=True, **HUMAN),
    Entry(accession="A2", sequence="M" * 10, name="B", function="FUNCTION: x.", existence=1, reviewed=True, **HUMAN),
    Entry(accession="A3", sequence="MK", function="FUNCTION: x.", similarity="SIMILARITY: y.", reviewed=False),
    Entry(accession="A4", sequence="MKVL", existence=3, reviewed=False, organism="Mus", organism_id=10090),
    Entry(accession="A5", sequence="MKV", existence=5, organism_id=7),
    Entry(
        accession="A6",
        sequence="MKVLA",
        name="C",
        function="FUNCTION: x.",
        subcellular_location="SUBCELLULAR LOCATION: z.",
        similarity="SIMILARITY: y.",
        existence=1,
        reviewed=True,
        organism="Homo sapiens",
        organism_id=9606,
    ),
]


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    rows = [row(entry) for entry in ENTRIES]
    shards = {"train-00000-of-00002": rows[:3], "train-00001-of-00002": rows[3:5], "valid-00000-of-00002": rows[5:]}
    write_pairs(tmp_path / "pairs", shards)
    return tmp_path / "pairs"


def test_a_small_folder_is_counted_as_by_hand(pairs: Path) -> None:
    found = pairs_statistics(str(pairs))
    assert json.loads(json.dumps(found)) == found
    histograms = {name: found[name].pop("histogram") for name in ("residues", "text_characters")}
    assert found == {
        "rows": {"valid": 1, "train": 5},
        "reviewed": {"reviewed": 3, "unreviewed": 2, "unknown": 1},
        "properties": {"name": 3, "function": 3, "subcellular_location": 1, "similarity": 2},
        "composition": {
            "before_sampling": BEFORE,
            "after_sampling": {
                "coverage": {"1/4": 0.5, "2/4": 0.166667, "3/4": 0.166667, "4/4": 0.166667},
                "existence": {"1": 0.5, "2": 0, "3": 0.166667, "4": 0, "5": 0.166667, "unknown": 0.166667},
            },
        },
        "published": PUBLISHED,
        "residues": {
            "quantiles": {"0": 2, "0.1": 2, "0.25": 3, "0.5": 3, "0.75": 5, "0.9": 10, "0.99": 10, "1": 10},
            "mean": 4.5,
        },
        "text_characters": {
            "quantiles": {"0": 0, "0.1": 0, "0.25": 0, "0.5": 27, "0.75": 29, "0.9": 69, "0.99": 69, "1": 69},
            "mean": 25.5,
        },
        "organisms": {
            "num": 3,
            "rows_without": 1,
            "top": [
                {"organism_id": 9606, "organism": "Homo sapiens (Human)", "rows": 3},
                {"organism_id": 7, "organism": None, "rows": 1},
                {"organism_id": 10090, "organism": "Mus", "rows": 1},
            ],
        },
        "counts": COUNTS,
    }
    for histogram in histograms.values():
        assert sum(histogram["counts"]) == 6
        assert len(histogram["edges"]) == len(histogram["counts"]) + 1


def test_the_length_of_a_text_is_that_of_the_biotext_and_batches_change_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entries = good(read_flat_file(io.BytesIO("".join(synthetic_proteome(90, 6, seed=1)).encode()), "x"))
    rows = [row(entry) for entry in entries]
    write_pairs(tmp_path / "pairs", {"train-00000-of-00001": rows}, row_group_rows=40)
    found = pairs_statistics(str(tmp_path / "pairs"))
    lengths = np.array([len(biotext(*(entry[name] for name in PROPERTIES))) for entry in rows])
    texts = found["text_characters"]
    expected = np.quantile(lengths, QUANTILES, method="inverted_cdf")
    assert list(texts["quantiles"].values()) == expected.tolist()
    assert texts["mean"] == pytest.approx(lengths.mean(), abs=0.005)
    edges = texts["histogram"]["edges"]
    assert texts["histogram"]["counts"] == [
        int(((lengths >= low) & (lengths < high)).sum()) for low, high in pairwise(edges)
    ]
    assert found["organisms"]["num"] == len({entry["organism_id"] for entry in rows}) > 10
    assert len(found["organisms"]["top"]) == 10
    monkeypatch.setattr(statistics, "BATCH_ROWS", 7)
    assert pairs_statistics(str(tmp_path / "pairs")) == found


def test_pairs_of_one_length_have_one_bin(tmp_path: Path) -> None:
    write_pairs(tmp_path / "pairs", {"train-00000-of-00001": [row(ENTRIES[4]), row(ENTRIES[4])]})
    found = pairs_statistics(str(tmp_path / "pairs"))
    assert found["residues"]["histogram"] == {"edges": [3, 4], "counts": [2]}
    assert found["text_characters"]["histogram"] == {"edges": [0, 1], "counts": [2]}


def test_a_url_and_a_third_split_are_read_too(pairs: Path) -> None:
    url = "memory://statistics"
    write_pairs(pairs.parent / "more", {"train-0": [row(ENTRIES[0])], "test-0": [row(ENTRIES[1])]})
    for path in (pairs.parent / "more").iterdir():
        files.copy(path, files.join(url, path.name))
    assert pairs_statistics(url)["rows"] == {"train": 1, "test": 1}


def test_a_damaged_shard_is_named(pairs: Path) -> None:
    path = pairs / "train-00001-of-00002.parquet"
    data = bytearray(path.read_bytes())
    data[4:-8] = bytes(len(data) - 12)
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"train-00001-of-00002\.parquet: is not a readable parquet file"):
        pairs_statistics(str(pairs))


def test_the_real_sample_has_the_composition_that_is_known_of_it(tmp_path: Path, real_data: Path) -> None:
    entries = good(open_entries(str(real_data / "uniprot/sample_1216.dat.gz")))
    write_pairs(tmp_path / "pairs", {"train-0": [row(entry) for entry in entries]}, row_group_rows=512)
    found = pairs_statistics(str(tmp_path / "pairs"))
    assert found["rows"] == {"train": 1216}
    assert found["reviewed"] == {"reviewed": 1063, "unreviewed": 153}
    assert {**found["properties"], "name": None} == {
        "name": None,
        "function": 1036,
        "subcellular_location": 975,
        "similarity": 919,
    }
    after = found["composition"]["after_sampling"]
    assert round(1216 * after["coverage"]["4/4"]) == 739
    levels = {"1": 1008, "2": 62, "3": 82, "4": 64, "5": 0}
    assert {level: round(1216 * share) for level, share in after["existence"].items()} == levels
    assert found["organisms"]["num"] == 85  # distinct OX lines, evidence aside
    quantiles = found["residues"]["quantiles"]
    assert (quantiles["0.5"], quantiles["0.9"], quantiles["1"]) == (417, 964, 4857)
