"""What a dry run says of the work."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from tiny_model import random_sequences

from protclip.embeddings import estimate
from protclip.embeddings.estimate import Sample, describe_work, take_sample
from protclip.embeddings.inputs import find_inputs
from protclip.errors import DataError

pytestmark = pytest.mark.unit


def sample_of(path: Path) -> Sample:
    return take_sample(find_inputs([str(path)], id_column=None, value_column=None), "protein")


def test_the_rows_of_a_large_file_are_estimated_from_its_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sequences = random_sequences(3000)
    path = tmp_path / "some.fasta.gz"
    with gzip.open(path, "wt") as stream:
        stream.writelines(f">A{i}\n{sequence}\n" for i, sequence in enumerate(sequences))
    whole = sample_of(path)
    assert (whole.num_rows, whole.is_exact, whole.values) == (3000, True, sequences)
    monkeypatch.setattr(estimate, "SAMPLE_BYTES", path.stat().st_size // 3)
    part = sample_of(path)
    assert not part.is_exact
    assert part.values == sequences[: len(part.values)]
    assert len(part.values) < 1500
    assert part.num_rows == pytest.approx(3000, rel=0.1)
    path.write_bytes(gzip.compress(b">a\nMK7\n"))
    with pytest.raises(DataError, match="nothing in its first rows"):
        sample_of(path)


def test_hours_and_storage_follow_from_the_sample() -> None:
    sample = Sample(values=["MKV" * 100], num_rows=1_000_000, is_exact=False)
    lines = list(
        describe_work(sample, 1000.0, part_rows=4096, workers=10, dimension=512, precision="float16", content="protein")
    )
    assert lines == [
        "about 1,000,000 rows in 245 parts of 4,096",
        "about 300,000,000 residues: 300 a row in a sample of 1",
        "about 1.02 GB of vectors: 512 of float16 a row",
        "1,000 residues/s a worker, measured: about 8.33 hours with 10 workers",
    ]
