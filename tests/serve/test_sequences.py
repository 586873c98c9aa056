"""The sequences that a server knows: from every kind of file, by accession, of the index's release alone."""

from __future__ import annotations

import asyncio
import gzip
from pathlib import Path
from typing import Any

import pytest
from pairs_folders import row, write_pairs
from tiny_model import random_sequences, write_protein_index

from protclip.errors import ConfigError, DataError, NotFoundError, RequestError
from protclip.hashing import hash64
from protclip.uniprot.entry import Entry
from serve.deployments import Replica
from serve.sequences import Sequences, load_sequences
from serve.settings import check_args

pytestmark = pytest.mark.unit

FASTA = ">sp|P1|A_HUMAN One OS=Homo sapiens OX=9606 PE=1 SV=1\nMKT\nayi\n>P2 another\nMKV*\n>bad\nM7\n>P1\nAAA\n"


def test_sequences_are_found_and_of_several_of_an_accession_that_of_the_indexs_release() -> None:
    records = [(f"P{i}", sequence) for i, sequence in enumerate(random_sequences(1_000))]
    sequences = Sequences([*records, ("P7", "M")])
    assert len(sequences) == 1_001
    for accession, sequence in records:
        assert sequences.find(accession, None) == sequences.find(accession, hash64(sequence)) == sequence
    assert sequences.find("P7", hash64("M")) == "M"
    for unknown in ("P", "P1000", "", "P7\nM", "\ud800"):
        with pytest.raises(NotFoundError, match=r"lack it; give 'sequence' instead"):
            sequences.find(unknown, None)
    with pytest.raises(NotFoundError, match=r"'P7'.*of another release"):
        sequences.find("P7", hash64("MM"))


def test_accessions_with_the_same_key_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serve.sequences.hash", lambda _: 1, raising=False)
    sequences = Sequences([("P1", "MK"), ("P2", "MV")])
    assert [sequences.find(accession, None) for accession in ("P1", "P2")] == ["MK", "MV"]


def test_fasta_of_any_header_plain_gzipped_or_by_a_glob(tmp_path: Path) -> None:
    (tmp_path / "one.fasta").write_text(FASTA)
    (tmp_path / "two.fasta.gz").write_bytes(gzip.compress(b">P3\nMMM\n"))
    sequences = load_sequences(str(tmp_path / "*.fasta*"))
    assert [sequences.find(accession, None) for accession in ("P1", "P2", "P3")] == ["MKTAYI", "MKV", "MMM"]
    assert len(sequences) == 4  # P1 twice; what cannot be read is left out


def test_tables_of_uniprot_and_folders_of_pairs(tmp_path: Path) -> None:
    (tmp_path / "table.tsv").write_text(
        "Entry\tReviewed\tEntry Name\tProtein names\tSequence\nP1\treviewed\tA_B\tOne\tMKT\n"
    )
    assert load_sequences(str(tmp_path / "table.tsv")).find("P1", None) == "MKT"
    entry = Entry(accession="P2", entry_name="A_B", reviewed=True, sequence="MKV", existence=1, name="One")
    write_pairs(tmp_path / "pairs", {"train-00000-of-00001": [row(entry)]})
    assert load_sequences(str(tmp_path / "pairs")).find("P2", None) == "MKV"


def test_what_cannot_be_read_is_refused_before_anything_is_loaded(folders: Any, tmp_path: Path) -> None:
    (tmp_path / "none.fasta").write_text(">P1\nM7\n")
    (tmp_path / "folder").mkdir()
    for path, error, message in (
        ("relative.fasta", ConfigError, "'relative.fasta' is relative"),
        (str(tmp_path / "missing.fasta"), DataError, "does not exist"),
        (str(tmp_path / "folder"), DataError, "folder"),
        (folders.index, DataError, "folder of pairs"),
    ):
        with pytest.raises(error, match=message):
            check_args(folders.args.model_copy(update={"sequences": path}))
    with pytest.raises(DataError, match="hold no protein"):
        load_sequences(str(tmp_path / "none.fasta"))


@pytest.fixture(scope="module")
def hashed(folders: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """An index that knows its sequences' hashes, and a file that lacks P00000 and has P00001 of another release."""
    folder = tmp_path_factory.mktemp("hashed")
    hashes = [hash64(sequence) for sequence in folders.sequences]
    index = write_protein_index(folder, folders.model, folders.sequences, {"sequence_hash": hashes})
    (folder / "some.fasta").write_text(f">P00001\nMKV\n>P00002\n{folders.sequences[2]}\n")
    return index, str(folder / "some.fasta")


def started(folders: Any, index: str, sequences: str | None) -> Replica:
    replica = Replica(folders.args.model_copy(update={"sequences": sequences}), folders.model.fingerprint)
    asyncio.run(replica.reconfigure({"indexes": {"default": folders.index, "hashed": index}}))
    return replica


def explain(replica: Replica, accession: str, index: str = "hashed") -> Any:
    return asyncio.run(
        replica.explain("kinase", sequence=None, accession=accession, index=index, window=None, stride=1)
    )


def test_a_protein_is_explained_by_its_sequence_of_the_indexs_release_alone(
    folders: Any, hashed: tuple[str, str]
) -> None:
    replica = started(folders, *hashed)
    found = explain(replica, "P00002")
    wanted = replica._encoder.explain(folders.sequences[2], "kinase", accession="P00002")
    assert found.accession == "P00002" and found.occlusion == pytest.approx(wanted.occlusion, abs=1e-6)
    for accession, message in (
        ("P00000", "lack it; give 'sequence' instead"),
        ("P00001", "of another release; give 'sequence' instead"),
        ("P99999", "the index does not hold it"),
    ):
        with pytest.raises(NotFoundError, match=f"'{accession}'.*{message}"):
            explain(replica, accession)
    # The other index knows no hashes.
    assert explain(replica, "P00001", "default").residues == "MKV"
    shown = [asyncio.run(replica.protein(f"P0000{i}", index="hashed"))["sequence"] for i in range(3)]
    assert shown == [None, None, folders.sequences[2]]
    without = started(folders, hashed[0], None)
    with pytest.raises(RequestError, match=r"started without sequences; give 'sequence' instead") as refused:
        explain(without, "P00002")
    assert not isinstance(refused.value, NotFoundError)
    assert asyncio.run(without.protein("P00002"))["sequence"] is None
