"""ProtAnno's published JSON lines: the properties cut out of a text compose to the same text."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path

import pytest

from protclip.errors import DataError
from protclip.protanno.biotext import biotext
from protclip.protanno.sampling import SamplingConfig, sampling_probability
from protclip.uniprot.entry import BadEntry, Entry
from protclip.uniprot.formats import open_entries
from protclip.uniprot.json_lines import read_json_lines

pytestmark = pytest.mark.unit


def read(*lines: object) -> list[Entry | BadEntry]:
    text = "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines)
    return list(read_json_lines(io.BytesIO(text.encode(errors="surrogateescape")), "test.jsonl"))


def composed(entry: Entry) -> str:
    return biotext(entry.name, entry.function, entry.subcellular_location, entry.similarity)


def test_every_published_line_composes_to_its_text_again(real_data: Path) -> None:
    path = real_data / "uniprot/protanno_published_sample.jsonl"
    pairs = [json.loads(line) for line in path.read_text().splitlines()]
    entries = list(open_entries(str(path)))
    assert len(entries) == len(pairs) == 10
    for entry, pair in zip(entries, pairs, strict=True):
        assert isinstance(entry, Entry)
        assert composed(entry) == pair["text"]
        assert entry.sequence == pair["seq"]
        assert entry.accession == f"seq-{hashlib.sha256(pair['seq'].encode()).hexdigest()[:16]}"
        assert entry.existence is entry.reviewed is entry.organism is None
        assert sampling_probability(entry, SamplingConfig()) == 1.0
    cutinase = entries[4]
    assert isinstance(cutinase, Entry)
    assert (cutinase.display_name, cutinase.ec) == ("Cutinase", ("3.1.1.74",))
    assert cutinase.similarity == "SIMILARITY: Belongs to the cutinase family. {ECO:0000255|RuleBase:RU361263}."


@pytest.mark.parametrize(
    ("name", "function", "location", "similarity"),
    [
        ("A", "FUNCTION: F.", "SUBCELLULAR LOCATION: L.", "SIMILARITY: S."),
        ("A (B. C)", None, None, None),
        ("A", None, "SUBCELLULAR LOCATION: L.", None),
        (None, "FUNCTION: F.", None, "SIMILARITY: S."),
        (None, None, None, "SIMILARITY: S."),
        ("A.", "FUNCTION: F.; FUNCTION: [Isoform 2]: G.", "SUBCELLULAR LOCATION: L.", None),
        ("DOMAIN OF UNKNOWN FUNCTION", "FUNCTION: F {see SUBCELLULAR LOCATION: x}.", "SUBCELLULAR LOCATION: L.", None),
        ("A", "FUNCTION:  two  spaces ", "SUBCELLULAR LOCATION: L. ", "SIMILARITY: S. "),
    ],
)
def test_properties_are_cut_at_their_labels(
    name: str | None, function: str | None, location: str | None, similarity: str | None
) -> None:
    (entry,) = read({"seq": "MKV", "text": biotext(name, function, location, similarity)})
    assert isinstance(entry, Entry)
    assert (entry.name, entry.function, entry.subcellular_location, entry.similarity) == (
        name,
        function,
        location,
        similarity,
    )


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("\udcff", "not JSON"),
        ('["seq", "text"]', "no pair"),
        ({"seq": "MKV"}, "no pair"),
        ({"seq": "MKV", "text": 5}, "no pair"),
        ({"seq": "", "text": "PROTEIN NAME: A."}, "no sequence"),
        ({"seq": "MK7", "text": "PROTEIN NAME: A."}, "letter outside the alphabet"),
        ({"seq": "MKV", "text": ""}, "not a biotext"),
        ({"seq": "MKV", "text": "A protein."}, "not a biotext"),
        ({"seq": "MKV", "text": "PROTEIN NAME: A"}, "not a biotext"),
        ({"seq": "MKV", "text": "PROTEIN NAME: ."}, "not a biotext"),
        ({"seq": "MKV", "text": "Of FUNCTION: F."}, "not a biotext"),
        ('{"seq": "MKV", "text": "PROTEIN NAME: \\ud800."}', "not UTF-8"),
    ],
)
def test_a_bad_line_is_given_with_reason_and_place_and_its_neighbours_are_kept(line: object, reason: str) -> None:
    good = {"seq": "MKV", "text": "PROTEIN NAME: A."}
    first, bad, last = read(good, line, good)
    assert isinstance(first, Entry)
    assert first == last
    assert isinstance(bad, BadEntry)
    assert (bad.reason, bad.line) == (reason, 2)
    assert bad.allowed


def test_blanks_and_a_byte_order_mark_round_a_line_do_not_matter() -> None:
    line = json.dumps({"seq": "MKV", "text": "PROTEIN NAME: A."})
    assert read(f"\ufeff{line}", f" {line}\t ") == read(line, line)


def test_a_file_without_lines_is_an_error() -> None:
    with pytest.raises(DataError, match="holds no line"):
        read("", " ")


def test_words_for_nothing_behind_a_label_are_no_properties() -> None:
    (entry,) = read(
        {"seq": "NA", "text": "PROTEIN NAME: nan. FUNCTION: NA SUBCELLULAR LOCATION: None. SIMILARITY: N/A"}
    )
    assert isinstance(entry, Entry)
    assert (entry.name, entry.function, entry.subcellular_location, entry.similarity) == (None, None, None, None)
    assert entry.sequence == "NA"  # two residues: JSON has null
