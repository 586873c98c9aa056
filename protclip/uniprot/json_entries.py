"""UniProtKB as the REST service's JSON (https://www.uniprot.org/help/api), rendered as the flat file writes an entry.

Entries are cut out of the stream as bytes and parsed one by one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import IO, Any, TypeVar

from protclip.errors import DataError
from protclip.uniprot.comments import TOPICS, Comments, evidence_tag, sentence
from protclip.uniprot.crc64 import crc64
from protclip.uniprot.entry import BadEntry, Entry, RefusedError, checked_sequence
from protclip.uniprot.gene_names import each_once
from protclip.uniprot.json_objects import between_entries, cut_entries, opens_list, parse_object, refuse_cut
from protclip.uniprot.protein_names import Names, ProteinNames, compose_names

_STATUS = {"UniProtKB reviewed (Swiss-Prot)": True, "UniProtKB unreviewed (TrEMBL)": False}
_EXISTENCE = re.compile(r"([1-5])(?::|$)")
_FRAGMENT = re.compile(r"\bFragments?\b")
T = TypeVar("T")


def read_json(stream: IO[bytes], source: str) -> Iterator[Entry | BadEntry]:
    """The entries of a JSON file, in its order, in the memory of one entry.

    Args:
        stream: decompressed bytes.
        source: the name for messages.

    Raises:
        DataError: if the stream is damaged or ends inside an entry or the list (entries before that are given first),
            or holds no entry.
    """
    pieces = cut_entries(stream, source)
    first_line, head = next(pieces)
    tail = None
    for line, text in pieces:
        if tail is None:
            yield from between_entries(head, source, first_line, is_head=True)
        yield from _parse(text, source, line)
        tail = text
    if tail is None:
        raise DataError(
            f'{source}: holds no entry; UniProt\'s JSON is {{"results": [entry, …]}}, or an entry or several, each an '
            'object that starts with "entryType".'
        )
    if opens_list(head):
        refuse_cut(tail, source)


def is_entry(record: Any) -> bool:
    """Whether a JSON value is an entry of UniProtKB rather than another object."""
    return isinstance(record, dict) and "primaryAccession" in record


def entry_of(record: Any) -> Entry:
    """The entry that a JSON value is.

    Raises:
        RefusedError: if it cannot be used.
    """
    accession = _value(record, "primaryAccession", str, "") if is_entry(record) else ""
    if len(accession.split()) != 1:
        raise RefusedError(
            "no accession", accession or json.dumps(record), 'an object with a "primaryAccession" such as P12345'
        )
    status = _value(record, "entryType", str, "")
    if status.startswith("Inactive"):
        raise RefusedError("inactive entry", _why_inactive(record), "an entry of UniProtKB's current release")
    if status and status not in _STATUS:
        raise RefusedError("unknown status", status, " or ".join(_STATUS))
    names = _protein_names(_value(record, "proteinDescription", dict, {}))
    organism = _value(record, "organism", dict, {})
    taxon = _value(organism, "taxonId", int, None)
    return Entry(
        accession=accession,
        entry_name=_value(record, "uniProtkbId", str, "") or None,
        reviewed=_STATUS.get(status),
        sequence=_sequence(_value(record, "sequence", dict, {})),
        existence=_existence(_value(record, "proteinExistence", str, "")),
        name=names.name,
        display_name=names.display_name,
        organism=_organism(organism),
        organism_id=taxon if taxon is not None and 0 < taxon < 10**9 else None,
        ec=names.ec,
        gene=_gene_names(_objects(record, "genes")),
        **_comments(_objects(record, "comments")),
    )


def _parse(text: bytes, source: str, line: int) -> Iterator[Entry | BadEntry]:
    accession = None
    try:
        record, behind = parse_object(text)
        accession = record["primaryAccession"] if isinstance(record.get("primaryAccession"), str) else None
        yield entry_of(record)
    except RefusedError as refusal:
        yield refusal.at(source=source, line=line, accession=accession)
    else:
        line += text.removesuffix(behind).count(b"\n")
        yield from between_entries(behind, source, line, is_head=False)


def _value(record: Mapping[str, Any], key: str, kind: type[T], absent: Any) -> Any:
    """The value of a key, which may be absent or null.

    Raises:
        RefusedError: if it is of another type.
    """
    value = record.get(key)
    if value is None:
        return absent
    if not isinstance(value, kind) or isinstance(value, bool):
        raise RefusedError(
            "field of another type", f"{key}: {json.dumps(value)}", f"JSON that {kind.__name__} stands for"
        )
    return value


def _objects(record: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    values: list[dict[str, Any]] = _value(record, key, list, [])
    for value in values:
        if not isinstance(value, dict):
            raise RefusedError("field of another type", f"{key}: {json.dumps(value)}", "a list of JSON objects")
    return values


def _text(record: Mapping[str, Any]) -> str:
    """The ``value`` of an object that carries evidence."""
    return " ".join(_value(record, "value", str, "").split())


def _why_inactive(record: Mapping[str, Any]) -> str:
    reason = _value(record, "inactiveReason", dict, {})
    others = [str(other) for other in _value(reason, "mergeDemergeTo", list, [])]
    return " ".join(filter(None, [str(reason.get("inactiveReasonType") or ""), ", ".join(others)]))


def _existence(level: str) -> int | None:
    if not level:
        return None
    match = _EXISTENCE.match(level)
    if match is None:
        raise RefusedError(
            "unknown protein existence", level, "a level of 1 to 5, as in '1: Evidence at protein level'"
        )
    return int(match[1])


def _organism(organism: Mapping[str, Any]) -> str | None:
    further = [_value(organism, "commonName", str, ""), *_value(organism, "synonyms", list, [])]
    names = [_value(organism, "scientificName", str, ""), *(f"({name})" for name in further if name)]
    return " ".join(filter(None, names)) or None


def _protein_names(description: Mapping[str, Any]) -> ProteinNames:
    contains, includes = ([_names(part) for part in _objects(description, key)] for key in ("contains", "includes"))
    fragment = _FRAGMENT.search(_value(description, "flag", str, ""))
    return compose_names(_names(description), contains, includes, fragment[0] if fragment else None)


def _names(description: Mapping[str, Any]) -> Names:
    """The names directly in a description, not those of its parts."""
    recommended, allergen, biotech = (
        [value] if (value := _value(description, key, dict, None)) else []
        for key in ("recommendedName", "allergenName", "biotechName")
    )
    found: list[tuple[str, Mapping[str, Any]]] = []
    for name in [*recommended, *_objects(description, "alternativeNames"), *_objects(description, "submissionNames")]:
        found.append(("Full", _value(name, "fullName", dict, {})))
        found += [("Short", short) for short in _objects(name, "shortNames")]
        found += [("EC", number) for number in _objects(name, "ecNumbers")]
    found += [("Allergen", name) for name in allergen] + [("Biotech", name) for name in biotech]
    found += [("CD_antigen", name) for name in _objects(description, "cdAntigenNames")]
    found += [("INN", name) for name in _objects(description, "innNames")]
    return Names(names=[(kind, text) for kind, name in found if (text := _text(name))])


def _gene_names(genes: list[dict[str, Any]]) -> tuple[str, ...]:
    names = []
    for gene in genes:
        names.append(_value(gene, "geneName", dict, {}))
        for kind in ("synonyms", "orderedLocusNames", "orfNames"):
            names += _objects(gene, kind)
    return each_once(map(_text, names))


def _comments(comments: list[dict[str, Any]]) -> dict[str, Any]:
    found = Comments()
    for comment in comments:
        topic = comment.get("commentType")
        if topic in TOPICS:
            noted = _value(comment, "note", dict, {}) if topic == "SUBCELLULAR LOCATION" else comment
            notes = [sentence(_text(text), _evidence(text)) for text in _objects(noted, "texts") if _text(text)]
            places = [_location(place) for place in _objects(comment, "subcellularLocations")]
            found.add(topic, " ".join(_value(comment, "molecule", str, "").split()), places, notes)
    return found.fields()


def _location(place: Mapping[str, Any]) -> str:
    parts = (_value(place, kind, dict, {}) for kind in ("location", "topology", "orientation"))
    return "; ".join(_text(part) + _evidence(part) for part in parts if _text(part))


def _evidence(record: Mapping[str, Any]) -> str:
    return evidence_tag(_one_evidence(item) for item in _objects(record, "evidences"))


def _one_evidence(item: Mapping[str, Any]) -> str:
    """``ECO:0000269|PubMed:12345678``, as the flat file's tags have it."""
    code, source, key = (_value(item, name, str, "") for name in ("evidenceCode", "source", "id"))
    if not key:
        return str(code)
    return f"{code}|{key}" if source == "Reference" else f"{code}|{source}:{key}"


def _sequence(record: Mapping[str, Any]) -> str:
    sequence = checked_sequence("".join(_value(record, "value", str, "").split()).encode())
    length, checksum = _value(record, "length", int, None), _value(record, "crc64", str, None)
    if length not in (None, len(sequence)):
        raise RefusedError("length is not the sequence's own", f"{len(sequence)} residues", str(length)[:20])
    if checksum is not None and (found := f"{crc64(sequence.encode()):016X}") != checksum:
        raise RefusedError("checksum is not the sequence's own", f"CRC64 {found}", checksum)
    return sequence
