"""The REST service's JSON: the entries of the flat file, however they are put together, and what becomes of damages."""

from __future__ import annotations

import copy
import dataclasses
import gzip
import io
import json
from pathlib import Path
from typing import Any

import pytest

from protclip.errors import DataError
from protclip.uniprot import json_objects, streams
from protclip.uniprot.entry import BadEntry, Entry
from protclip.uniprot.formats import open_entries
from protclip.uniprot.json_entries import read_json

pytestmark = pytest.mark.unit

HERE = Path(__file__).parent
GOLDEN = (HERE / "golden_rest.json").read_bytes()
FIRST, GOOD = json.loads(GOLDEN)["results"]


def read(text: bytes) -> list[Entry | BadEntry]:
    return list(read_json(io.BytesIO(text), "test.json"))


def compact(*entries: object) -> bytes:
    """As the service writes a page."""
    return json.dumps({"results": entries}, separators=(",", ":"), ensure_ascii=False).encode()


def changed(path: str, value: object) -> dict[str, Any]:
    """The good entry with another value at a path of keys."""
    entry = copy.deepcopy(GOOD)
    *keys, last = path.split(".")
    place = entry
    for key in keys:
        place = place[int(key)] if isinstance(place, list) else place.setdefault(key, {})
    place[last] = value
    return entry


def test_the_golden_entries_are_those_of_the_flat_file(tmp_path: Path) -> None:
    expected = json.loads((HERE / "golden.json").read_text())
    assert json.loads(json.dumps([dataclasses.asdict(entry) for entry in read(GOLDEN)])) == expected
    (tmp_path / "packed.json.gz").write_bytes(gzip.compress(GOLDEN))
    (tmp_path / "lines.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in (FIRST, GOOD)))
    for name in ("packed.json.gz", "lines.jsonl"):
        entries = [dataclasses.asdict(entry) for entry in open_entries(str(tmp_path / name))]
        assert json.loads(json.dumps(entries)) == expected


@pytest.mark.parametrize(
    "text",
    [
        compact(FIRST, GOOD),
        compact(FIRST) + b"\n" + compact(GOOD) + b"\n",
        json.dumps([FIRST, GOOD], indent=2).encode(),
        (json.dumps(FIRST) + "\n" + json.dumps(GOOD) + "\n").encode(),
        b"\xef\xbb\xbf" + (json.dumps(FIRST, indent=2) + json.dumps(GOOD, indent=2)).replace("\n", "\r\n").encode(),
        json.dumps({"facets": [{"a": [1]}], "results": [FIRST, GOOD], "warnings": [{"b": {}}]}).encode(),
        json.dumps([FIRST, GOOD], ensure_ascii=True).encode() + b"\n\n",
    ],
    ids=["page", "pages", "list", "lines", "one after the other", "other keys", "line end"],
)
@pytest.mark.parametrize("block_bytes", [1, 7, 1 << 20])
def test_it_does_not_matter_how_entries_are_put_together(
    monkeypatch: pytest.MonkeyPatch, text: bytes, block_bytes: int
) -> None:
    monkeypatch.setattr(streams, "BLOCK_BYTES", block_bytes)
    assert read(text) == read(GOLDEN)
    assert len(read(GOLDEN)) == 2


def test_one_entry_of_the_service_is_one_entry() -> None:
    assert read(json.dumps(GOOD).encode()) == read(GOLDEN)[1:]


def test_locations_and_evidence_are_written_as_in_the_flat_file() -> None:
    evidence = [
        {"evidenceCode": "ECO:0000269", "source": "PubMed", "id": "1"},
        {"evidenceCode": "ECO:0000269", "source": "Reference", "id": "Ref.3"},
        {"evidenceCode": "ECO:0000255", "source": "PROSITE-ProRule", "id": "PRU00258"},
        {"evidenceCode": "ECO:0000305"},
    ]
    tag = "{ECO:0000269|PubMed:1, ECO:0000269|Ref.3, ECO:0000255|PROSITE-ProRule:PRU00258, ECO:0000305}"
    places = [
        {
            "location": {"value": "Golgi apparatus, trans-Golgi network membrane", "evidences": evidence, "id": "SL-1"},
            "topology": {"value": "Single-pass type I membrane protein", "evidences": evidence[3:]},
            "orientation": {"value": "Cytoplasmic side"},
        },
        {"location": {"value": "Nucleus"}},
    ]
    note = {"texts": [{"value": "Of two kinds", "evidences": evidence[3:]}, {"value": "And more."}]}
    comment = {
        "commentType": "SUBCELLULAR LOCATION",
        "molecule": "Isoform 2",
        "subcellularLocations": places,
        "note": note,
    }
    texts = {"commentType": "FUNCTION", "texts": [{"value": "One", "evidences": evidence}, {"value": "Two."}]}
    (entry,) = read(compact({**GOOD, "comments": [comment, texts, {"commentType": "SIMILARITY", "texts": []}]}))
    assert isinstance(entry, Entry)
    assert entry.subcellular_location == (
        f"SUBCELLULAR LOCATION: [Isoform 2]: Golgi apparatus, trans-Golgi network membrane {tag}; "
        "Single-pass type I membrane protein {ECO:0000305}; Cytoplasmic side. Nucleus. "
        "Note=Of two kinds. {ECO:0000305}. And more."
    )
    assert entry.function == f"FUNCTION: One. {tag}. Two."
    assert entry.similarity is None


def test_what_an_answer_with_few_fields_does_not_say_is_none() -> None:
    sequence = {"primaryAccession": "Q00009", "sequence": {"value": "MKV"}}
    assert read(compact(sequence)) == [Entry(accession="Q00009", sequence="MKV")]


@pytest.mark.parametrize(
    ("entry", "reason", "value"),
    [
        (changed("primaryAccession", ""), "no accession", ""),
        ({"entryType": "UniProtKB unreviewed (TrEMBL)"}, "no accession", ""),
        (changed("entryType", "Other"), "unknown status", "Other"),
        (
            {
                "entryType": "Inactive",
                "primaryAccession": "Q00009",
                "inactiveReason": {"inactiveReasonType": "DEMERGED", "mergeDemergeTo": ["P1", "P2"]},
            },
            "inactive entry",
            "DEMERGED P1, P2",
        ),
        (changed("proteinExistence", "Imagined"), "unknown protein existence", "Imagined"),
        (changed("sequence", None), "no sequence", ""),
        (changed("sequence.value", "MK7"), "letter outside the alphabet", "7 at 3"),
        (changed("sequence.length", 4), "length is not", "3 residues"),
        (changed("sequence.crc64", "0" * 16), "checksum is not", "CRC64 72C336F000000000"),
        (changed("comments", [3]), "field of another type", "comments: 3"),
        (changed("comments", {}), "field of another type", "comments: {}"),
        (changed("organism.taxonId", "9606"), "field of another type", "taxonId"),
        (changed("proteinDescription.submissionNames.0.fullName", "A"), "field of another type", "fullName"),
        (changed("genes", ["A"]), "field of another type", 'genes: "A"'),
        (changed("genes", [{"geneName": "A"}]), "field of another type", 'geneName: "A"'),
        (changed("genes", [{"orfNames": {"value": "A"}}]), "field of another type", "orfNames"),
        (changed("genes", [{"synonyms": [{"value": 3}]}]), "field of another type", "value: 3"),
        ('{"primaryAccession": "Q00009", }', "not JSON", "Q00009"),
        ('{"primaryAccession": "Q00009", "length": ' + "9" * 5000 + "}", "not JSON", "Q00009"),
        ('{"primaryAccession": "Q00009", "a": ' + "[" * 100_000 + "]" * 100_000 + "}", "not JSON", "Q00009"),
        ('{"primaryAccession": "Q00009", "uniProtkbId": "\\uD800"}', "not UTF-8", "Q00009"),
        ('{"a": 1}', "text between entries", '{"a": 1}'),
        ("nonsense", "text between entries", "nonsense"),
    ],
)
def test_a_bad_entry_is_given_with_reason_and_place_and_its_neighbours_are_kept(
    entry: object, reason: str, value: str
) -> None:
    good, text = json.dumps(GOOD, indent=1), entry if isinstance(entry, str) else json.dumps(entry)
    first, bad, last = read(f'{{"results": [\n{good},\n{text},\n{good}\n]}}'.encode())
    assert isinstance(first, Entry)
    assert first == last
    assert isinstance(bad, BadEntry)
    assert bad.reason.startswith(reason)
    assert value in bad.value
    assert bad.line == good.count("\n") + (2 if reason == "text between entries" else 3)
    assert json.dumps(bad.record())


def test_bytes_that_are_no_text_cost_their_entry() -> None:
    bad, good = read(compact(changed("uniProtkbId", "X"), GOOD).replace(b'"X"', b'"\xff"'))
    assert isinstance(bad, BadEntry)
    assert bad.reason == "not UTF-8"
    assert isinstance(good, Entry)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "holds no entry"),
        (b'{"results": []}', "holds no entry"),
        (b'{"messages": ["Invalid request"]}', "holds no entry"),
        (compact(GOOD, GOOD)[:-40], "ends before its list of entries does: it was cut short"),
        (compact(GOOD, GOOD)[:-2], "ends before its list of entries does: it was cut short"),
        (compact(GOOD, GOOD)[: len(compact(GOOD)) - 1], "ends before its list of entries does: it was cut short"),
    ],
)
def test_a_file_that_is_cut_or_empty_is_an_error(text: bytes, message: str) -> None:
    with pytest.raises(DataError, match=rf"test\.json.*{message}"):
        read(text)


def test_an_entry_without_end_is_not_held_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_objects, "MAX_ENTRY_BYTES", 1 << 20)
    with pytest.raises(DataError, match="no end of an entry in 1 MB from line 1"):
        read(b'{"primaryAccession": "' + b"A" * (2 << 20))
