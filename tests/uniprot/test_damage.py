"""Damaged files of every format: an entry is read, it is refused, or the file is; and what is whole stays."""

from __future__ import annotations

import functools
import gzip
import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

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


def rest_json(accession: str) -> bytes:
    entry = json.loads((HERE / "golden_rest.json").read_text())["results"][0]
    return json.dumps({**entry, "primaryAccession": accession}).encode() + b",\n"


XML_HEAD = b'<?xml version="1.0" encoding="UTF-8"?>\n<uniprot xmlns="http://uniprot.org/uniprot">\n'
FORMATS: dict[str, tuple[bytes, Callable[[str], bytes], bytes]] = {
    "dat": (b"", flat_file, b""),
    "fasta": (b"", fasta, b""),
    "xml": (XML_HEAD, xml, b"</uniprot>\n"),
    "tsv": ("\t".join(COLUMNS).encode() + b"\n", tsv, b""),
    "csv": (",".join(COLUMNS).encode() + b"\n", comma_separated, b""),
    "jsonl": (b"", json_line, b""),
    "json": (b'{"results": [\n', rest_json, b"{}]}\n"),
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


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("damaged")


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


randoms = st.randoms(use_true_random=False)  # what shrinks: which byte of which entry


@pytest.mark.parametrize("ending", FORMATS)
@given(rng=randoms)
def test_damage_to_one_entry_costs_it_and_at_most_its_neighbour(ending: str, folder: Path, rng: random.Random) -> None:
    head, entry, tail = FORMATS[ending]
    path = folder / f"damaged.{ending}"
    accessions = [f"P{i:05d}" for i in range(NUM_ENTRIES)]
    texts = [entry(accession) for accession in accessions]
    texts[2] = damage(texts[2], rng)
    path.write_bytes(head + b"".join(texts) + tail)
    found, error = names_of(path)
    assert error is None
    # A header of FASTA that lost its > goes to the record before.
    for accession in [*accessions[: 1 if ending == "fasta" else 2], *accessions[4:]]:
        assert accession in found


@pytest.mark.parametrize("ending", FORMATS)
@given(rng=randoms, data=st.data())
def test_cut_spliced_and_random_files_are_read_or_refused(
    ending: str, folder: Path, rng: random.Random, data: st.DataObject
) -> None:
    head, entry, tail = FORMATS[ending]
    whole = head + b"".join(entry(f"P{i:05d}") for i in range(NUM_ENTRIES)) + tail
    packed = gzip.compress(whole, mtime=0)
    places = st.integers(0, len(whole))
    first, second = data.draw(places), data.draw(places)
    kinds: list[Callable[[], bytes]] = [
        lambda: whole[:first],
        lambda: whole[first:],
        lambda: whole[:first] + whole[second:],
        lambda: (damage(head, rng) if head else b"") + whole[len(head) :],
        lambda: data.draw(st.binary(max_size=2000)),
        lambda: head + data.draw(st.binary(max_size=2000)),
        lambda: packed[: first * len(packed) // len(whole)],
        lambda: damage(packed, rng),
    ]
    path = folder / f"damaged.{ending}"
    path.write_bytes(data.draw(st.sampled_from(kinds))())
    names_of(path)


@pytest.mark.parametrize(
    "name", ["swissprot_250.xml.gz", "trembl_export_186.csv.gz", "protanno_published_sample.jsonl"]
)
@given(rng=randoms)
@pytest.mark.slow
def test_real_files_cut_and_spliced_are_read_or_refused(
    name: str, real_data: Path, folder: Path, rng: random.Random
) -> None:
    text = real_text(real_data / "uniprot" / name)
    start, end = sorted(rng.sample(range(len(text)), 2))
    path = folder / name.removesuffix(".gz")
    path.write_bytes(text[: min(start, 200_000)] + damage(text[end : end + 200_000], rng))
    names_of(path)


@functools.cache
def real_text(path: Path) -> bytes:
    raw = path.read_bytes()
    return gzip.decompress(raw) if path.suffix == ".gz" else raw
