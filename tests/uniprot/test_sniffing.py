"""What a file holds decides, not what its name says; what is none of ours is told for what it is."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from protclip.errors import DataError
from protclip.protanno.blocks import cut_blocks, read_block
from protclip.protanno.splits import check_clusters
from protclip.uniprot.entry import Entry
from protclip.uniprot.formats import ending_of, expand_inputs, open_entries

pytestmark = pytest.mark.unit

HERE = Path(__file__).parent
GOLDEN = {
    "dat": (HERE / "golden.dat").read_bytes(),
    "xml": (HERE / "golden.xml").read_bytes(),
    "json": (HERE / "golden_rest.json").read_bytes(),
    "jsonl": b"".join(
        json.dumps(entry).encode() + b"\n" for entry in json.loads((HERE / "golden_rest.json").read_text())["results"]
    ),
    "fasta": b">sp|P00001|A_B Name\nMKV\n>sp|P00002|A_B Name\nMKV\n",
    "tsv": b"Entry\tReviewed\tSequence\nP00001\treviewed\tMKV\nP00002\treviewed\tMKV\n",
    "csv": b'"Entry","Reviewed","Sequence"\n"P00001","reviewed","MKV"\n"P00002","reviewed","MKV"\n',
    "pairs.jsonl": b'{"seq": "MKV", "text": "PROTEIN NAME: A."}\n{"seq": "MKVA", "text": "PROTEIN NAME: B."}\n',
}


@pytest.mark.parametrize("name", ["x.txt", "x.dat", "x.fasta", "x.tsv", "x.xml", "x.json", "x.jsonl", "x.pep"])
@pytest.mark.parametrize("kind", GOLDEN)
def test_the_content_decides_on_the_reader(tmp_path: Path, kind: str, name: str) -> None:
    if kind == "csv" and name == "x.tsv":
        pytest.skip("which of two kinds of table it is, the table's reader finds out")
    right, named, packed = tmp_path / f"right.{kind}", tmp_path / name, tmp_path / f"packed-{name}.gz"
    right.write_bytes(GOLDEN[kind])
    named.write_bytes(b"\n" + GOLDEN[kind] if kind in ("dat", "fasta") else GOLDEN[kind])
    packed.write_bytes(gzip.compress(GOLDEN[kind]))
    expected = list(open_entries(str(right)))
    assert [type(entry) for entry in expected] == [Entry, Entry]
    assert list(open_entries(str(named))) == expected
    assert list(open_entries(str(packed))) == expected
    for block in cut_blocks(str(named)):
        assert [batch.entry(i) for batch in read_block(block) for i in range(len(batch.reviewed))] == expected


def archive(write: Callable[[io.BytesIO], object]) -> bytes:
    stream = io.BytesIO()
    write(stream)
    return stream.getvalue()


def tar(stream: io.BytesIO) -> None:
    with tarfile.open(fileobj=stream, mode="w") as file:
        file.addfile(tarfile.TarInfo("x.dat"), io.BytesIO())


def zipped(stream: io.BytesIO) -> None:
    with zipfile.ZipFile(stream, "w") as file:
        file.writestr("x.dat", GOLDEN["dat"])


def hdf5(stream: io.BytesIO) -> None:
    with h5py.File(stream, "w") as file:
        file["P12345"] = np.zeros(1024, np.float16)


FOREIGN = {
    "zip": (archive(zipped), "is a zip archive .*unzip"),
    "bz2": (bz2.compress(GOLDEN["dat"]), "compressed by bzip2: .*bunzip2"),
    "xz": (lzma.compress(GOLDEN["dat"]), "compressed by xz: .*unxz"),
    "zst": (b"\x28\xb5\x2f\xfd" + bytes(20), "compressed by zstd: .*unzstd"),
    "7z": (b"7z\xbc\xaf\x27\x1c" + bytes(20), "is a 7z archive"),
    "tar": (archive(tar), "is a tar archive: .*tar xf"),
    "tar.gz": (gzip.compress(archive(tar)), "is a tar archive: .*tar xf"),
    "zip.gz": (gzip.compress(archive(zipped)), "is a zip archive"),
    "h5": (archive(hdf5), r"is HDF5, .*per-protein\.h5.*another model.* embed makes"),
    "parquet": (
        archive(lambda stream: pq.write_table(pa.table({"a": [1]}), stream)),
        r"is parquet: .*ending \.parquet",
    ),
    "xls": (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(504), "is an old workbook of Excel.*save it as CSV"),
    "gzip in gzip.gz": (gzip.compress(gzip.compress(GOLDEN["dat"])), "is compressed by gzip twice: unpack it once"),
    "npy": (archive(lambda stream: np.save(stream, np.zeros(3))), "is an array of numpy"),
}
OTHER_TEXTS = {
    "uniref": (
        b'<?xml version="1.0" encoding="ISO-8859-1" ?>\n<UniRef50 xmlns="http://uniprot.org/uniref">\n<entry id="x">',
        "is UniRef's XML, clusters .*fetch-uniprot.*uniref50=idmapping",
    ),
    "rdf": (b'<?xml version="1.0"?><rdf:RDF xmlns="x">', "XML whose root is <rdf:RDF>, and UniProtKB's is <uniprot>"),
    "html": (b"<!DOCTYPE html>\n<html lang='en'>\n<title>502 Bad Gateway</title>", "is an HTML page"),
    "embl": (b"ID   X56734; SV 1; linear; mRNA; STD; PLN; 1859 BP.\n", "is an EMBL file"),
    "record": (b'{"query": "reviewed:true",\n "format": "txt"}\n', "is JSON without an entry of UniProtKB"),
    "no results": (b'{"results": []}', "is JSON without an entry of UniProtKB"),
    "genbank": (b"LOCUS       SCU49845     5028 bp    DNA\n", "is a GenBank file"),
}


@pytest.mark.parametrize("kind", [*FOREIGN, *OTHER_TEXTS])
def test_what_is_none_of_ours_is_told_before_anything_is_read(tmp_path: Path, kind: str) -> None:
    text, message = {**FOREIGN, **OTHER_TEXTS}[kind]
    for name in ("x.dat", "x.fasta.gz", "x.tsv", "x.xml", "x.json", "x"):
        path = tmp_path / name
        path.write_bytes(text)
        with pytest.raises(DataError, match=rf"{name}: .*{message}"):
            expand_inputs([str(path)])


@pytest.mark.parametrize("kind", FOREIGN)
def test_a_file_of_clusters_that_is_an_archive_is_told(tmp_path: Path, kind: str) -> None:
    text, message = FOREIGN[kind]
    (tmp_path / "idmapping.dat.gz").write_bytes(text)
    with pytest.raises(DataError, match=message):
        check_clusters(str(tmp_path / "idmapping.dat.gz"))


@pytest.mark.parametrize(
    ("text", "name", "ending"),
    [
        (b"; an old comment\n>a\nMKV\n", "x.fa", ".fasta"),
        (b"Entry\tLength\n", "x.tab", ".tab"),
        (b"ID   X   PRELIMINARY;      PRT;   3 AA.\n", "x.txt", ".dat"),
        (b'{"entryType":"' + b"A" * (1 << 20) + b'"}\n', "x.jsonl", ".jsonl"),
        (b'{"facets": [' + b" " * (1 << 20) + b"]}", "x.json", ".json"),
        (b"", "x.dat", ".dat"),
        (b"# mine\n\n; old\n>a\nMKV\n", "x.txt", ".fasta"),
        (b"# mine\nID   X   PRELIMINARY;      PRT;   3 AA.\n", "x.txt", ".dat"),
        (b"# mine, with commas\n\nEntry;Sequence\nA;MKV\n", "x.txt", ".tsv"),
        (b"sep=,\nEntry,Sequence\nA,MKV\n", "x.txt", ".tsv"),
        (b"# mine\n# Entry\tSequence\nA\tMKV\n", "x.txt", ".tsv"),
        (b"# Entry and sequence\nbinds DNA\n", "x.txt", ".txt"),
        (b"Any text, of which nobody can say what it is.\n", "x.txt", ".txt"),
    ],
)
def test_comments_are_passed_over_and_where_nothing_is_certain_the_name_decides(
    tmp_path: Path, text: bytes, name: str, ending: str
) -> None:
    (tmp_path / name).write_bytes(text)
    assert ending_of(str(tmp_path / name)) == ending
