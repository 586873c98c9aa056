"""What embed takes an input for: its content decides, and what it would embed in vain is refused or warned of."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from protclip.embeddings.blocks import BLOCK_SCHEMA
from protclip.embeddings.inputs import find_inputs, read_rows, resolve_content
from protclip.errors import ConfigError, DataError
from protclip.manifest import write_manifest
from protclip.uniprot.entry import BadEntry

pytestmark = pytest.mark.unit

UNIPROT = Path(__file__).parents[1] / "uniprot"
ENTRIES = {"dat": "golden.dat", "xml": "golden.xml", "json": "golden_rest.json"}
TABLE = "Entry\tProtein names\tSequence\nP00001\tA\tMKV\nQ00009\tB\tMKV\n"


def write(path: Path, content: bytes) -> str:
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return str(path)


def inputs(*paths: str) -> tuple[str, list[str]]:
    """Their kind, and the accessions of their rows."""
    found = find_inputs(paths, id_column=None, value_column=None)
    rows = list(read_rows(found, resolve_content(found.kind, None)))
    return found.kind, [row["accession"] for row in rows if isinstance(row, dict)]


@pytest.mark.parametrize("name", ["x.txt", "x.txt.gz", "x.fasta", "x.tsv"])
@pytest.mark.parametrize("kind", ENTRIES)
def test_entries_are_embedded_as_entries_whatever_their_file_is_called(tmp_path: Path, kind: str, name: str) -> None:
    """A flat file under .txt is what fetch-uniprot and UniProt's website write."""
    path = write(tmp_path / name, (UNIPROT / ENTRIES[kind]).read_bytes())
    assert inputs(path) == ("entries", ["P00001", "Q00009"])


def test_fasta_tables_and_lines_of_text_are_told_apart_under_one_ending(tmp_path: Path) -> None:
    assert inputs(write(tmp_path / "a.txt", b">a one\nMKV\n>b\tPDB\nMKV\n")) == ("fasta", ["a", "b"])
    assert inputs(write(tmp_path / "b.txt", TABLE.encode())) == ("entries", ["P00001", "Q00009"])
    text = b"Binds ATP.\n\nPHOSPHORIBOSYLTRANSFERASES\nID   of nothing\n"
    assert inputs(write(tmp_path / "c.txt", text)) == ("lines", ["line-1", "line-3", "line-4"])
    assert inputs(write(tmp_path / "d.tsv", b">a\nMKV\n")) == ("fasta", ["a"])
    assert inputs(write(tmp_path / "e.pep", b">a\nMKV\n")) == ("fasta", ["a"])
    with pytest.raises(ConfigError, match=r"inputs of one kind .*a\.txt \(fasta\).*c\.txt \(lines\)"):
        inputs(str(tmp_path / "a.txt"), str(tmp_path / "c.txt"))


def test_lines_of_sequences_are_not_embedded_as_texts(tmp_path: Path) -> None:
    sequences = b"\nMVLSPADKTNVKAAWGKVGAHAGEYGAEALERMFLSF\nMRSLLILVLCFLPLAALGKVFGRCELAAAMKRHGLDN*\n"
    for text in (sequences, sequences.lower()):
        path = write(tmp_path / "x.txt", text)
        with pytest.raises(DataError, match=r"x\.txt, line 2: looks like a sequence.*'>name' before each sequence"):
            inputs(path)
    names = write(tmp_path / "names.txt", b"glycerophosphocholine\nribonucleosidediphosphate\n")
    assert inputs(names) == ("lines", ["line-1", "line-2"])


def test_a_folder_that_is_no_folder_of_pairs_is_told_before_anything_starts(tmp_path: Path) -> None:
    write(tmp_path / "part-00000.parquet", b"")
    write_manifest(str(tmp_path), "embeddings", ["part-00000.parquet"])
    with pytest.raises(
        DataError, match=r"is a folder of embeddings .* and a folder of pairs \(made by curate\) is needed"
    ):
        inputs(str(tmp_path))
    unfinished = tmp_path / "pairs"
    (unfinished / ".work").mkdir(parents=True)
    write(unfinished / "train-00000-of-00001.parquet", b"")
    with pytest.raises(DataError, match="pairs: is unfinished: run the command that makes it again"):
        inputs(str(unfinished))


def test_the_pages_of_a_search_in_json_are_entries(tmp_path: Path) -> None:
    entries = json.loads((UNIPROT / "golden_rest.json").read_text())["results"]
    paths = [
        write(tmp_path / f"{i}.json.gz", json.dumps({"results": [entry]}).encode()) for i, entry in enumerate(entries)
    ]
    assert inputs(*paths) == ("entries", ["P00001", "Q00009"])


def test_cells_of_parquet_of_any_type_are_what_an_answer_shows_or_refused(tmp_path: Path) -> None:
    def read(**columns: list[Any]) -> dict[str, Any] | BadEntry:
        path = str(tmp_path / "x.parquet")
        pq.write_table(pa.table({"accession": ["A"], "sequence": ["MKV"], **columns}), path)
        (row,) = read_rows(find_inputs([path], id_column=None, value_column=None), "protein")
        if isinstance(row, dict):
            pa.Table.from_pylist([row], schema=BLOCK_SCHEMA)
        return row

    row = read(reviewed=[True], ec=[["1.1.1.1", "NA", None]], organism_id=[9606.0], name=["β"], organism=["NA"])
    assert isinstance(row, dict)
    assert [row[name] for name in ("reviewed", "ec", "organism_id", "name", "organism")] == [
        True,
        ["1.1.1.1"],
        9606,
        "β",
        None,
    ]
    assert isinstance(read(name=[["a", "b"]], ec=[True]), dict)
    for value in (True, [9606], 10**10):
        bad = read(organism_id=[value])
        assert isinstance(bad, BadEntry) and bad.reason == "unreadable taxonomy identifier"


def test_a_damaged_parquet_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    table = pa.table({"id": [f"A{i}" for i in range(2000)], "sequence": ["MKV" * (1 + i % 9) for i in range(2000)]})
    pq.write_table(table, path, compression="zstd")
    whole = path.read_bytes()
    (tmp_path / "zeros.parquet").write_bytes(whole[:100] + bytes(len(whole) // 2) + whole[len(whole) // 2 + 100 :])
    no_text = pa.array([b"A\xff"], pa.binary()).view(pa.string())
    pq.write_table(pa.table({"id": no_text, "sequence": ["MKV"]}), tmp_path / "latin.parquet")
    (tmp_path / "empty.parquet").write_bytes(b"")
    for name in ("zeros", "latin", "empty"):
        with pytest.raises(DataError, match=rf"{name}\.parquet: is not a readable parquet file"):
            inputs(str(tmp_path / f"{name}.parquet"))
