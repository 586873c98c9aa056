"""UniProtKB as XML (https://www.uniprot.org/docs/uniprot.xsd), rendered as the flat file writes the same entry.

Entries are cut out of the stream as bytes, from ``<entry`` to ``</entry>``, and parsed one by one, so that a damaged
one takes no other with it. What stands between them may declare nothing: a document type, and with it an entity that
expands without end, is refused, and inside an entry it is no well-formed XML.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import IO, Any
from xml.etree.ElementTree import Element, ParseError, fromstring

from protclip.errors import DataError
from protclip.uniprot.comments import TOPICS, Comments, evidence_tag, sentence
from protclip.uniprot.crc64 import crc64
from protclip.uniprot.entry import BadEntry, Entry, RefusedError, checked_sequence
from protclip.uniprot.gene_names import each_once
from protclip.uniprot.protein_names import Names, ProteinNames, compose_names
from protclip.uniprot.streams import read_blocks

MAX_ENTRY_BYTES = 64 << 20
"""The largest entries of UniProtKB have a few MB; more without an end is another kind of file."""

_START = re.compile(rb"<entry[\s>]")
_END = b"</entry>"
_NAMESPACE = re.compile(rb"""xmlns\s*=\s*["']https?://(www\.)?uniprot\.org/uniprot["']""")
_DECLARATION = b"<?xml"
_DECLARATION_BYTES = 300
"""More than a declaration ever has."""
_ENCODING = re.compile(rb"""encoding\s*=\s*["']([^"']*)["']""")
# What may stand between entries; concatenated files have it all again.
_BETWEEN = re.compile(
    rb"(?:\s++|\xef\xbb\xbf|<\?.*?\?>|<!--.*?-->|</?uniprot(?:\s[^<>]*+)?>|<copyright[^<>]*+>[^<>]*+</copyright>)*+",
    re.DOTALL,
)
_ACCESSION = re.compile(rb"<accession>\s*([A-Za-z0-9-]+)\s*<")
_DATASETS = {"Swiss-Prot": True, "TrEMBL": False}
_EXISTENCE = {
    "evidence at protein level": 1,
    "evidence at transcript level": 2,
    "inferred from homology": 3,
    "predicted": 4,
    "uncertain": 5,
}
_NAME_KINDS = {
    "fullName": "Full",
    "shortName": "Short",
    "ecNumber": "EC",
    "allergenName": "Allergen",
    "biotechName": "Biotech",
    "cdAntigenName": "CD_antigen",
    "innName": "INN",
}
_GENE_NAME_TYPES = ("primary", "synonym", "ordered locus", "ORF")
_FRAGMENTS = {"single": "Fragment", "multiple": "Fragments"}
# XML writes each part of a location with a capital; the flat file keeps it behind a comma only in these terms of
# UniProt's vocabulary (and in abbreviations, told by their second character).
_CAPITAL_PARTS = re.compile(
    r"Cajal body|Golgi stack|Stress granule|Cortical granule|Midbody ring|Cytoplasmic ribonucleoprotein granule"
)
_WHITESPACE = b" \t\r\n"


def read_xml(stream: IO[bytes], source: str) -> Iterator[Entry | BadEntry]:
    """The entries of an XML file, in its order, in the memory of one entry.

    Args:
        stream: decompressed bytes.
        source: the name for messages.

    Raises:
        DataError: if the stream is damaged or ends before its last closing tag (entries before that are given first),
            is no UniProtKB XML, or declares a document type.
    """
    for line, piece in _cut_entries(stream, source):
        yield piece if isinstance(piece, BadEntry) else _parse(piece, source, line)


def _cut_entries(stream: IO[bytes], source: str) -> Iterator[tuple[int, bytes | BadEntry]]:
    """(line number of its start, bytes) of each entry; what should not stand between entries as a BadEntry."""
    buffer = bytearray()
    line, searched = 1, 0
    is_uniprot = ended = False
    for block in read_blocks(stream, source):
        buffer += block
        done = 0
        while (end := buffer.find(_END, max(done, searched))) >= 0:
            end += len(_END)
            text = bytes(buffer[done:end])
            starts = [match.start() for match in _START.finditer(text)] or [len(text)]
            between = text[: starts[0]]
            _refuse_declarations(between, source, line)
            is_uniprot = is_uniprot or _NAMESPACE.search(text) is not None
            if not is_uniprot:
                raise DataError(
                    f"{source}, line {line}: no namespace http(s)://uniprot.org/uniprot; is this UniProtKB XML?"
                )
            if (gap := _gap(between, source, line)) is not None:
                yield line, gap
            # An entry that lost its end does not take the next one with it.
            line += between.count(b"\n")
            for start, stop in zip(starts, [*starts[1:], len(text)], strict=True):
                if start < stop:
                    yield line, text[start:stop]
                line += text.count(b"\n", start, stop)
            done, ended = end, True
        del buffer[:done]
        searched = max(0, len(buffer) - len(_END))  # the tag may be cut by the block's end
        if len(buffer) > MAX_ENTRY_BYTES:
            raise DataError(
                f"{source}: no {_END.decode()} in {MAX_ENTRY_BYTES >> 20} MB from line {line}; is this UniProtKB XML?"
            )
    rest = bytes(buffer)
    _refuse_declarations(rest, source, line)
    if not ended:
        raise DataError(f"{source}: holds no whole entry; UniProtKB XML has <entry> elements in a <uniprot> element.")
    if _START.search(rest) or b"</uniprot>" not in rest:
        line += rest.count(b"\n")
        raise DataError(f"{source}, line {line}: the file ends before </uniprot>: it was cut short. Fetch it again.")
    if (gap := _gap(rest, source, line)) is not None:
        yield line, gap


def _refuse_declarations(between: bytes, source: str, line: int) -> None:
    if b"<!DOCTYPE" in between or b"<!ENTITY" in between:
        raise DataError(f"{source}, line {line}: declares a document type, which UniProtKB XML does not; refused.")
    start = 0
    while (start := between.find(_DECLARATION, start)) >= 0:
        declaration = between[start : start + _DECLARATION_BYTES].partition(b"?>")[0]
        encoding = _ENCODING.match(declaration, max(0, declaration.find(b"encoding")))
        if encoding is not None and encoding[1].upper() not in (b"UTF-8", b"US-ASCII", b"UTF-16"):
            raise DataError(f"{source}, line {line}: encoding {encoding[1].decode('latin-1')!r}; allowed is UTF-8.")
        start += len(_DECLARATION)


def _gap(between: bytes, source: str, line: int) -> BadEntry | None:
    """What stands between two entries and should not: most likely an entry whose tags are damaged."""
    match = _BETWEEN.match(between)
    assert match is not None
    if match.end() == len(between):
        return None
    line += between.count(b"\n", 0, match.end())
    accession = _ACCESSION.search(between)
    value = between[match.end() :].decode(errors="replace")
    return RefusedError("text between entries", value, "an <entry> element").at(
        source=source, line=line, accession=accession[1].decode() if accession else None
    )


def _parse(text: bytes, source: str, line: int) -> Entry | BadEntry:
    accession = _ACCESSION.search(text)
    try:
        return _entry(fromstring(text))
    except ParseError as error:
        refusal = RefusedError("not well-formed XML", str(error), "one whole <entry> element")
    except RefusedError as error:
        refusal = error
    return refusal.at(source=source, line=line, accession=accession[1].decode() if accession else None)


def _entry(entry: Element) -> Entry:
    children: dict[str, list[Element]] = {}
    for child in entry:
        children.setdefault(_tag(child), []).append(child)
    accession, entry_name = (_text(children[tag][0]) if tag in children else "" for tag in ("accession", "name"))
    if len(accession.split()) != 1:
        raise RefusedError("no accession", accession, "an <accession> such as P12345")
    dataset = entry.get("dataset", "")
    if dataset not in _DATASETS:
        raise RefusedError("unknown status", dataset, 'dataset="Swiss-Prot" or "TrEMBL"')
    sequences = children.get("sequence")
    if not sequences:
        raise RefusedError("no sequence", "", "a <sequence> element")
    names = _protein_names(children.get("protein", []), sequences[0])
    organism, organism_id = _organism(children.get("organism", []))
    evidence = {item.get("key", ""): _evidence(item) for item in children.get("evidence", [])}
    return Entry(
        accession=accession,
        entry_name=entry_name or None,
        reviewed=_DATASETS[dataset],
        sequence=_sequence(sequences[0]),
        existence=_existence(children.get("proteinExistence", [])),
        name=names.name,
        display_name=names.display_name,
        organism=organism,
        organism_id=organism_id,
        ec=names.ec,
        gene=_gene_names(children.get("gene", [])),
        **_comments(children.get("comment", []), evidence),
    )


def _tag(element: Element) -> str:
    return element.tag.rpartition("}")[2]


def _text(element: Element) -> str:
    return " ".join("".join(element.itertext()).split())


def _children(element: Element, tag: str) -> list[Element]:
    return [child for child in element if _tag(child) == tag]


def _protein_names(proteins: list[Element], sequence: Element) -> ProteinNames:
    protein, contains, includes = Names(), [], []
    for element in proteins[:1]:
        protein = _names(element)
        contains = [_names(part) for part in _children(element, "component")]
        includes = [_names(part) for part in _children(element, "domain")]
    return compose_names(protein, contains, includes, _FRAGMENTS.get(sequence.get("fragment", "")))


def _names(element: Element) -> Names:
    """The names directly in the element, not those of its components and domains."""
    found = Names()
    for child in element:
        kind = _tag(child)
        for name in child if kind in ("recommendedName", "alternativeName", "submittedName") else [child]:
            if (text := _text(name)) and _tag(name) in _NAME_KINDS:
                found.names.append((_NAME_KINDS[_tag(name)], text))
    return found


def _gene_names(genes: list[Element]) -> tuple[str, ...]:
    names = ((name.get("type"), _text(name)) for gene in genes for name in _children(gene, "name"))
    return each_once(text for kind, text in names if kind in _GENE_NAME_TYPES)


def _organism(organisms: list[Element]) -> tuple[str | None, int | None]:
    if not organisms:
        return None, None
    names = [_text(name) for name in _children(organisms[0], "name")]
    taxa = [
        reference.get("id", "")
        for reference in _children(organisms[0], "dbReference")
        if reference.get("type") == "NCBI Taxonomy"
    ]
    taxon = int(taxa[0]) if taxa and re.fullmatch(r"[0-9]{1,9}", taxa[0]) else None
    return " ".join([*names[:1], *(f"({name})" for name in names[1:])]) or None, taxon


def _existence(elements: list[Element]) -> int | None:
    if not elements:
        return None
    level = elements[0].get("type", "").lower()  # capitalised until 2010
    if level not in _EXISTENCE:
        raise RefusedError("unknown protein existence", level, ", ".join(_EXISTENCE))
    return _EXISTENCE[level]


def _evidence(item: Element) -> str:
    """``ECO:0000269|PubMed:12345678``, as the flat file's tags have it."""
    code = item.get("type", "")
    for origin in item:
        if "ref" in origin.attrib:
            return f"{code}|Ref.{origin.get('ref')}"
        for reference in _children(origin, "dbReference"):
            return f"{code}|{reference.get('type')}:{reference.get('id')}"
    return code


def _evidence_tag(elements: list[Element], evidence: dict[str, str]) -> str:
    """The tag of what the elements refer to; empty where they refer to nothing."""
    keys = [key for element in elements for key in element.get("evidence", "").split()]
    for key in keys:
        if key not in evidence:
            raise RefusedError("unknown evidence key", key, "the key of an <evidence> element of the entry")
    return evidence_tag(evidence[key] for key in keys)


def _comments(comments: list[Element], evidence: dict[str, str]) -> dict[str, Any]:
    found = Comments()
    for comment in comments:
        topic = comment.get("type", "").upper()
        if topic in TOPICS:
            texts = [text for text in _children(comment, "text") if _text(text)]
            notes = [sentence(_text(text), _evidence_tag([text], evidence)) for text in texts]
            places = [_location(place, evidence) for place in _children(comment, "subcellularLocation")]
            found.add(topic, "".join(map(_text, _children(comment, "molecule")[:1])), places, notes)
    return found.fields()


def _location(place: Element, evidence: dict[str, str]) -> str:
    terms = []
    for kind in ("location", "topology", "orientation"):
        if parts := _children(place, kind):
            first, *further = (_text(part) for part in parts)
            terms.append(", ".join([first, *map(_later_part, further)]) + _evidence_tag(parts, evidence))
    return "; ".join(terms)


def _later_part(part: str) -> str:
    keeps_capital = not part[1:2].islower() or _CAPITAL_PARTS.match(part)
    return part if keeps_capital else part[:1].lower() + part[1:]


def _sequence(element: Element) -> str:
    sequence = checked_sequence("".join(element.itertext()).encode().translate(None, _WHITESPACE))
    length, checksum = element.get("length", ""), element.get("checksum", "")
    if str(len(sequence)) != length:
        raise RefusedError("length is not the sequence element's", f"{len(sequence)} residues", length)
    if (found := f"{crc64(sequence.encode()):016X}") != checksum:
        raise RefusedError("checksum is not the sequence element's", f"CRC64 {found}", checksum)
    return sequence
