"""Damaged files of every format: an entry is read, it is refused, or the file is; and what is whole stays."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from protclip.errors import DataError
from protclip.uniprot.entry import BadEntry, Entry
from protclip.uniprot.formats import open_batches, open_entries

pytestmark = pytest.mark.unit

HERE = Path(__file__).parent
NUM_ENTRIES = 6
COLUMNS = ("Entry", "Reviewed", "Protein names", "Protein existence", "Length", "Function [CC]", "Sequence")


def flat_file(accession: str) -> bytes:
    return (HERE / "golden.dat").read_bytes().partition(b"//\n")[0].replace(b"P00001", accession.encode()) + b"//\n"


def fasta(accession: str) -> bytes:
    return f">sp|{accession}|X_TEST Some name OS=Homo sapiens OX=9606 PE=1 SV=1\nMKV\nACD\n".encode()


def xml(accession: str) -> bytes:
    head, end, _ = (HERE / "golden.xml").read_bytes().partition(b"</entry>\n")
    return (head + end)[head.index(b"<entry") :].replace(b"P00001", accession.encode())


def cells(accession: str) -> tuple[str, ...]:
    return accession, "reviewed", 'Name, of "it" (EC 1.1.1.1)', "Predicted", "3", "FUNCTION: Does, what it does.", "MKV"


def tsv(accession: str) -> bytes:
    return ("\t".join(cells(accession)) + "\n").encode()


def comma_separated(accession: str) -> bytes:
    return (",".join('"' + cell.replace('"', '""') + '"' for cell in cells(accession)) + "\n").encode()


def json_line(accession: str) -> bytes:
    # The accession is made from the sequence; the name tells the lines apart.
    return json.dumps({"seq": "MKV", "text": f"PROTEIN NAME: {accession}. FUNCTION: F."}).encode() + b"\n"


XML_HEAD = b'<?xml version="1.0" encoding="UTF-8"?>\n<uniprot xmlns="http://uniprot.org/uniprot">\n'
FORMATS: dict[str, tuple[bytes, Callable[[str], bytes], bytes]] = {
    "dat": (b"", flat_file, b""),
    "fasta": (b"", fasta, b""),
    "xml": (XML_HEAD, xml, b"</uniprot>\n"),
    "tsv": ("\t".join(COLUMNS).encode() + b"\n", tsv, b""),
    "csv": (",".join(COLUMNS).encode() + b"\n", comma_separated, b""),
    "jsonl": (b"", json_line, b""),
}
MARKS = [
    b"\n",
    b"\r",
    b"\t",
    b",",
    b'"',
    b"//\n",
    b">",
    b"<",
    b"</entry>",
    b"<entry ",
    b"&",
    b"\0",
    b"\xff",
    b"\nAC   ",
    b"{",
]


def names_of(path: Path) -> tuple[list[str | None], str | None]:
    """What tells the good entries apart, and the error that ended the file; batches must give the same."""

    def gather(take: Callable[[], object]) -> str | None:
        try:
            take()
        except DataError as error:
            assert path.name in str(error)
            return str(error)
        return None

    found: list[Entry] = []

    def entries() -> None:
        for entry in open_entries(str(path)):
            if isinstance(entry, BadEntry):
                assert entry.reason
                assert entry.line >= 1
                assert json.dumps(entry.record())
            else:
                found.append(entry)

    def batches() -> None:
        for batch in open_batches(str(path)):
            for i in range(len(batch.reviewed)):
                entry = batch.entry(i)
                assert isinstance(entry, BadEntry) or entry.accession == batch.accession(i)

    error = gather(entries)
    assert gather(batches) == error
    return [entry.name if path.suffix == ".jsonl" else entry.accession for entry in found], error


def damage(text: bytes, rng: random.Random) -> bytes:
    """One to four bytes or stretches of the text changed, taken out, doubled or put in."""
    changed = bytearray(text)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(changed))
        end = at + rng.randint(1, 40)
        kind = rng.randrange(4)
        if kind == 0:
            changed[at] = rng.randrange(256)
        elif kind == 1 and len(changed) > 100:
            del changed[at:end]
        elif kind == 2:
            changed[at:at] = changed[at:end]
        else:
            changed[at:at] = rng.choice(MARKS)
    return bytes(changed)


@pytest.mark.parametrize("ending", FORMATS)
def test_damage_to_one_entry_costs_it_and_at_most_its_neighbour(ending: str, tmp_path: Path) -> None:
    head, entry, tail = FORMATS[ending]
    path = tmp_path / f"damaged.{ending}"
    accessions = [f"P{i:05d}" for i in range(NUM_ENTRIES)]
    for seed in range(60):
        texts = [entry(accession) for accession in accessions]
        texts[2] = damage(texts[2], random.Random(seed))
        path.write_bytes(head + b"".join(texts) + tail)
        found, error = names_of(path)
        assert error is None, seed
        # A header of FASTA that lost its > goes to the record before.
        for accession in [*accessions[: 1 if ending == "fasta" else 2], *accessions[4:]]:
            assert accession in found, seed


@pytest.mark.parametrize("ending", FORMATS)
def test_cut_spliced_and_random_files_are_read_or_refused(ending: str, tmp_path: Path) -> None:
    head, entry, tail = FORMATS[ending]
    whole = head + b"".join(entry(f"P{i:05d}") for i in range(NUM_ENTRIES)) + tail
    path = tmp_path / f"damaged.{ending}"
    for seed in range(80):
        rng = random.Random(seed)
        first, second = rng.randrange(len(whole)), rng.randrange(len(whole))
        packed = gzip.compress(whole)
        path.write_bytes(
            (
                whole[:first],
                whole[first:],
                whole[:first] + whole[second:],
                damage(head, rng) + whole[len(head) :] if head else whole,
                rng.randbytes(2000),
                head + rng.randbytes(2000),
                packed[: rng.randrange(len(packed))],
                damage(packed, rng),
            )[seed % 8]
        )
        names_of(path)


def test_real_files_cut_and_spliced_are_read_or_refused(real_data: Path, tmp_path: Path) -> None:
    folder = real_data / "uniprot"
    for name in ("swissprot_250.xml.gz", "trembl_export_186.csv.gz", "protanno_published_sample.jsonl", "parser_cases"):
        if name == "parser_cases":
            text = b"".join(path.read_bytes() for path in sorted((folder / name).iterdir())[:12])
            path = tmp_path / "cases.dat"
        else:
            raw = (folder / name).read_bytes()
            text = gzip.decompress(raw) if name.endswith(".gz") else raw
            path = tmp_path / name.removesuffix(".gz")
        for seed in range(8):
            rng = random.Random(seed)
            start, end = sorted(rng.sample(range(len(text)), 2))
            path.write_bytes(text[: min(start, 200_000)] + damage(text[end : end + 200_000], rng))
            names_of(path)
