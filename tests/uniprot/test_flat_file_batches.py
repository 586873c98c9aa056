"""Flat files in batches: what they give is what reading in full gives, and what is dropped is not read."""

from __future__ import annotations

import gzip
import io
import random
from pathlib import Path

import pytest
from entry_batches import assert_batches_hold

from protclip.errors import DataError
from protclip.uniprot import flat_file_batches, streams
from protclip.uniprot.entry import BadEntry, Entry
from protclip.uniprot.flat_file import read_flat_file
from protclip.uniprot.flat_file_batches import read_flat_file_batches

pytestmark = pytest.mark.unit

HERE = Path(__file__).parent
GOLDEN = (HERE / "golden.dat").read_bytes()
GOOD = GOLDEN.split(b"//\n")[1] + b"//\n"  # Q00009, MKV
TOPIC = b"CC   -!- FUNCTION: Does.\n"
LATE = {
    "letter outside the alphabet",
    "length is not the SQ line's",
    "length is not the ID line's",
    "checksum is not the SQ line's",
}
"""What is not looked at in an entry that nobody asks for."""
STRUCTURE = {
    "no accession",
    "two entries run into each other",
    "unknown status",
    "unknown protein existence",
    "no sequence",
    "unreadable SQ line",
    "not UTF-8",
}
MARKS = [
    b"\n",
    b"\r",
    b"\r\n",
    b" ",
    b"//\n",
    b"\n//\n",
    b"\n// \n",
    b"\nID   ",
    b"\nAC   ",
    b"\nPE   ",
    b"\nSQ   ",
    b"\xff",
]
MARKS += [b"\nCC   -!- FUNCTION:\n", b"\n" + TOPIC, b"\nRN   [1]", b"\x1c", b"\xc2\xa0", b"\0"]


def assert_the_same(text: bytes) -> list[Entry | BadEntry]:
    """The batches give what reading in full gives, columns and all; returns that."""
    try:
        rows = list(read_flat_file(io.BytesIO(text), "test.dat"))
    except DataError as error:
        with pytest.raises(DataError) as caught:
            list(read_flat_file_batches(io.BytesIO(text), "test.dat"))
        assert str(caught.value) == str(error)
        return []
    assert_batches_hold(read_flat_file_batches(io.BytesIO(text), "test.dat"), rows, STRUCTURE)
    return rows


def damage(text: bytes, rng: random.Random) -> bytes:
    """Some bytes changed, taken out, doubled or put in."""
    changed = bytearray(text)
    for _ in range(rng.randint(1, 5)):
        at = rng.randrange(len(changed))
        end = at + rng.randint(1, 60)
        kind = rng.randrange(4)
        if kind == 0:
            changed[at] = rng.randrange(256)
        elif kind == 1 and len(changed) > 200:
            del changed[at:end]
        elif kind == 2:
            changed[at:at] = changed[at:end]
        else:
            # At a line's start as often as elsewhere: there it matters.
            place = changed.find(b"\n", at) if rng.random() < 0.5 else at
            changed[place:place] = rng.choice(MARKS)
    return bytes(changed)


@pytest.mark.slow
def test_golden_and_real_entries_come_as_if_read_in_full(real_data: Path) -> None:
    assert len(assert_the_same(GOLDEN)) == 2
    assert len(assert_the_same(gzip.decompress((real_data / "uniprot/sample_1216.dat.gz").read_bytes()))) == 1216
    cases = [path.read_bytes() for path in sorted((real_data / "uniprot/parser_cases").iterdir())]
    for text in [*cases, b"".join(cases)]:
        assert assert_the_same(text)


def test_damaged_entries_come_as_if_read_in_full() -> None:
    refused = set()
    for seed in range(400):
        text = damage(GOLDEN + GOOD.replace(b"PE   4", TOPIC * (seed % 3) + b"PE   4") + GOLDEN, random.Random(seed))
        refused |= {row.reason for row in assert_the_same(text) if isinstance(row, BadEntry)}
    assert len(refused) > 8
    assert refused <= LATE | STRUCTURE


def test_real_entries_that_are_damaged_come_as_if_read_in_full(real_data: Path) -> None:
    whole = gzip.decompress((real_data / "uniprot/sample_1216.dat.gz").read_bytes())[:200_000]
    for seed in range(40):
        rng = random.Random(seed)
        start = rng.randrange(len(whole) - 30_000)
        assert_the_same(damage(whole[start : start + 30_000], rng))


def test_block_borders_and_line_ends_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    text = GOLDEN + GOOD.removesuffix(b"//\n") + GOOD.replace(b"//\n", b"// \n\n") + GOOD + b"\n" + GOOD
    for size in (1, 7, 300):
        monkeypatch.setattr(streams, "BLOCK_BYTES", size)
        for ends in (b"\n", b"\r\n"):
            assert len(assert_the_same(text.replace(b"\n", ends))) == 6
            assert_the_same(text.replace(b"\n", ends)[:-2])
    monkeypatch.setattr(flat_file_batches, "MAX_ENTRY_BYTES", 1 << 10)
    assert len(assert_the_same(GOOD.removesuffix(b"//\n") * 50)) == 50
    with pytest.raises(DataError, match="no // line"):
        list(read_flat_file_batches(io.BytesIO(b"no end " * (1 << 10)), "test.dat"))


def test_lines_between_a_terminator_and_an_id_line_are_not_passed_over() -> None:
    for line in (b"RN   [1]\n", TOPIC, b"\n", b"//\n", b"AC   P00001;\n"):
        assert_the_same(GOOD + line + GOOD + GOOD)
        assert_the_same(line + GOOD)


def test_a_topic_without_text_does_not_count_as_a_property() -> None:
    for comments, number in (
        (b"", 1),
        (TOPIC, 2),
        (TOPIC * 2, 2),
        (b"CC   -!- FUNCTION:\n", 1),
        (b"CC   -!- FUNCTION: \nCC       \n", 1),
        (b"CC   -!- FUNCTION:\nCC       Does.\n", 2),
        (b"CC   -!- FUNCTION: \xc2\xa0\n", 1),
        (TOPIC + b"CC   -!- DOMAIN: SIMILARITY: no.\nCC   -!- SIMILARITY: Yes.\n", 3),
    ):
        text = GOOD.replace(b"PE   4", comments + b"PE   4")
        assert_the_same(text)
        (batch,) = read_flat_file_batches(io.BytesIO(text), "test.dat")
        assert list(batch.num_properties) == [number]


def test_an_entry_that_is_plainly_in_order_is_read_only_when_it_is_asked_for() -> None:
    bad = GOOD.replace(b"     MKV", b"     MVK")
    (batch,) = read_flat_file_batches(io.BytesIO(GOOD + bad + GOOD), "test.dat")
    assert list(batch.reviewed) == [0] * 3
    assert not batch.bad
    entry = batch.entry(1)
    assert isinstance(entry, BadEntry)
    assert (entry.reason, entry.line, entry.accession) == (
        "checksum is not the SQ line's",
        GOOD.count(b"\n") + 1,
        batch.accession(1),
    )


def test_terminators_alone_are_no_entry() -> None:
    with pytest.raises(DataError, match="holds no entry"):
        list(read_flat_file_batches(io.BytesIO(b"\n//\n"), "x.dat"))
