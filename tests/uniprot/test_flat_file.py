"""The flat-file reader: what it reads, what it refuses, and that nothing is lost between."""

from __future__ import annotations

import dataclasses
import gzip
import io
import json
from collections import Counter
from pathlib import Path

import pytest

from protclip.errors import DataError
from protclip.uniprot import flat_file, streams
from protclip.uniprot.entry import BadEntry, Entry
from protclip.uniprot.formats import open_entries

pytestmark = pytest.mark.unit

HERE = Path(__file__).parent
GOOD = (HERE / "golden.dat").read_bytes().split(b"//\n")[1] + b"//\n"  # Q00009, MKV


def read(text: bytes) -> list[Entry | BadEntry]:
    return list(flat_file.read_flat_file(io.BytesIO(text), "test.dat"))


def accessions(entries: list[Entry | BadEntry]) -> list[str | None]:
    return [entry.accession for entry in entries if isinstance(entry, Entry)]


def test_the_golden_entries_are_read_as_written_down() -> None:
    entries = [dataclasses.asdict(entry) for entry in open_entries(str(HERE / "golden.dat"))]
    assert json.loads(json.dumps(entries)) == json.loads((HERE / "golden.json").read_text())


def test_the_real_sample_has_the_counts_of_its_readme(real_data: Path) -> None:
    entries = list(open_entries(str(real_data / "uniprot/sample_1216.dat.gz")))
    good = [entry for entry in entries if isinstance(entry, Entry)]
    assert len(good) == len(entries) == 1216
    assert sum(entry.reviewed is True for entry in good) == 1063
    texts = [(entry.function, entry.subcellular_location, entry.similarity) for entry in good]
    assert [sum(text[i] is not None for text in texts) for i in range(3)] == [1036, 975, 919]
    assert sum(None not in text for text in texts) == 739
    assert Counter(entry.existence for entry in good) == {1: 1008, 2: 62, 3: 82, 4: 64}
    assert all(entry.name and entry.display_name and entry.organism and entry.organism_id for entry in good)
    by_accession = {entry.accession: entry for entry in good}
    patulin = by_accession["A0A075TMP8"]
    assert patulin.name == (
        "Cytochrome P450 monooxygenase patI (EC 1.-.-.-) (Patulin biosynthesis cluster protein I) "
        "(m-hydroxybenzyl alcohol hydroxylase)"
    )
    assert patulin.function is not None
    assert "synthase (PKS) patK via condensation of acetate and malonate units. The 6-methylsalicylic acid" in (
        patulin.function
    )
    assert patulin.subcellular_location == (
        "SUBCELLULAR LOCATION: Endoplasmic reticulum membrane {ECO:0000269|PubMed:30680886}; "
        "Single-pass membrane protein {ECO:0000269|PubMed:30680886}."
    )
    assert patulin.similarity == "SIMILARITY: Belongs to the cytochrome P450 family. {ECO:0000305}."


def test_every_parser_case_is_read_or_refused_with_a_reason(real_data: Path) -> None:
    refused: Counter[str] = Counter()
    paths = sorted((real_data / "uniprot/parser_cases").iterdir())
    assert len(paths) == 119
    for path in paths:
        for entry in open_entries(str(path)):
            if isinstance(entry, BadEntry):
                assert entry.line >= 1
                assert entry.reason
                assert entry.allowed
                refused[path.name] += 1
            else:
                assert entry.accession
                assert entry.name
    # The first holds no sequences; the second one entry with a wrong status, between good ones.
    assert refused == {"2020_02_uniprotkb_uniprotkk-for-taxonomy.dat": 13, "A8EZU1_ERROR_D6RDV7.dat": 1}


@pytest.mark.parametrize(
    ("old", "new", "reason", "value"),
    [
        (b"     MKV\n", b"", "no sequence", ""),
        (b"AC   Q00009;\n", b"", "no accession", ""),
        (b"     MKV\n", b"     MK\n", "length is not the SQ line's", "2 residues"),
        (b"     MKV\n", b"     MVK\n", "checksum is not the SQ line's", "CRC64"),
        (b"     MKV\n", b"     MK7\n", "letter outside the alphabet", "7 at 3"),
        (b"PE   4: Predicted;", b"PE   6: Imagined;", "unknown protein existence", "6: Imagined;"),
        (b"Unreviewed;", b"Unchecked;", "unknown status", "Unchecked"),
        (b"   3 AA;  354 MW;", b"   three;", "unreadable SQ line", "three"),
        (b"Submitted name", b"Submitted \xff name", "not UTF-8", "xff"),
    ],
)
def test_a_bad_entry_is_given_with_reason_and_place_and_its_neighbours_are_kept(
    old: bytes, new: bytes, reason: str, value: str
) -> None:
    bad = GOOD.replace(old, new)
    assert bad != GOOD
    first, refused, last = read(GOOD + bad + GOOD)
    assert accessions([first, last]) == ["Q00009", "Q00009"]
    assert isinstance(refused, BadEntry)
    assert refused.reason == reason
    assert value in refused.value
    assert refused.allowed
    assert refused.line == GOOD.count(b"\n") + 1
    assert refused.accession == (None if reason == "no accession" else "Q00009")
    assert f"test.dat, line {refused.line}" in str(refused)


def test_lower_case_residues_are_read_in_upper_case() -> None:
    (entry,) = read(GOOD.replace(b"     MKV", b"     mkv"))
    assert isinstance(entry, Entry)
    assert entry.sequence == "MKV"


def test_an_entry_without_terminator_does_not_take_the_next_one_with_it() -> None:
    unterminated = GOOD.removesuffix(b"//\n")
    assert accessions(read(unterminated + GOOD)) == ["Q00009"] * 2
    assert accessions(read(GOOD + unterminated)) == ["Q00009"] * 2
    entries = read(unterminated[:-3] + b"\n" + GOOD)  # cut inside the sequence
    assert [type(entry) for entry in entries] == [BadEntry, Entry]
    *_, bad = read(GOOD + b"\n\n" + unterminated + GOOD.replace(b"Unreviewed;", b"Unchecked;"))
    assert isinstance(bad, BadEntry)
    assert bad.line == 2 * GOOD.count(b"\n") + 2


def test_entries_spliced_inside_a_line_are_refused_not_mixed() -> None:
    (entry,) = read(GOOD[:-8] + GOOD)
    assert isinstance(entry, BadEntry)
    assert entry.reason == "two entries run into each other"


def test_entries_spliced_behind_their_names_are_told_by_the_length() -> None:
    first = (HERE / "golden.dat").read_bytes().partition(b"//\n")[0]
    text = first[: first.index(b"OC   ")] + GOOD[GOOD.index(b"PE   ") :]
    (entry,) = read(text)
    assert isinstance(entry, BadEntry)
    assert (entry.reason, entry.accession) == ("length is not the ID line's", "P00001")


def test_line_ends_and_block_borders_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    text = (HERE / "golden.dat").read_bytes()
    expected = read(text)
    assert read(text.replace(b"\n", b"\r\n")) == expected
    assert read(text.removesuffix(b"\n")) == expected
    for size in (1, 7):
        monkeypatch.setattr(streams, "BLOCK_BYTES", size)
        assert read(text) == expected
        assert read(text.replace(b"\n", b"\r\n")) == expected


def test_a_truncated_gzip_gives_the_entries_before_the_cut_then_an_error_that_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "cut.dat.gz"
    whole = gzip.compress(GOOD * 2000, compresslevel=0)
    path.write_bytes(whole[: len(whole) // 2])
    seen: list[Entry | BadEntry] = []
    with pytest.raises(DataError, match=r"cut\.dat\.gz.*cut short"):
        for entry in open_entries(str(path)):
            seen.append(entry)
    assert len(seen) > 900
    assert set(accessions(seen)) == {"Q00009"}


def test_gzip_is_told_by_its_bytes_not_its_name(tmp_path: Path) -> None:
    (tmp_path / "plain.dat.gz").write_bytes(GOOD)
    (tmp_path / "packed.dat").write_bytes(gzip.compress(GOOD) + gzip.compress(GOOD))
    assert len(list(open_entries(str(tmp_path / "plain.dat.gz")))) == 1
    assert len(list(open_entries(str(tmp_path / "packed.dat")))) == 2


def test_a_file_that_cannot_be_read_or_holds_nothing_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "empty.dat").write_bytes(b"\n\n")
    (tmp_path / "some.doc").write_bytes(b"Dear all,\n")
    for name, message in (
        ("empty.dat", "holds no entry"),
        ("missing.dat", "cannot be read"),
        ("some.doc", "unknown kind of file"),
    ):
        with pytest.raises(DataError, match=message) as caught:
            list(open_entries(str(tmp_path / name)))
        assert name in str(caught.value)


def test_another_kind_of_file_is_not_held_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flat_file, "MAX_ENTRY_BYTES", 1 << 20)
    with pytest.raises(DataError, match="is this a UniProtKB flat file"):
        read(b"no end " * (1 << 19))
