"""FASTA: UniProt's headers as entries, and anybody's as plain records.

    >sp|P02769|ALBU_BOVIN Albumin OS=Bos taurus OX=9913 GN=ALB PE=1 SV=4
    >my_protein whatever one likes

UniProt's header: https://www.uniprot.org/help/fasta-headers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

from protclip.errors import DataError
from protclip.uniprot.entry import MAX_VALUE_CHARS, BadEntry, Entry, RefusedError, checked_sequence, not_utf8
from protclip.uniprot.streams import open_stream, read_lines

MAX_ENTRY_BYTES = 64 << 20
"""The longest proteins have some 50,000 residues; a larger record is a genome, or another kind of file."""

_UNIPROT = re.compile(r"(sp|tr)\|([A-Za-z0-9-]+)\|(\S+)(?:\s+(.*))?$")
_KEY = re.compile(r"(?:^|\s)(OS|OX|GN|PE|SV)=")
_FRAGMENT = re.compile(r" \(Fragments?\)$")
_UNIPROT_HEADER = "'>sp|P02769|ALBU_BOVIN Albumin OS=Bos taurus OX=9913 PE=1 SV=4', or tr"


@dataclass(frozen=True, kw_only=True, slots=True)
class Header:
    """What a FASTA header says; None where it does not."""

    accession: str
    """UniProt's accession; in other headers the first word."""
    entry_name: str | None = None
    """UniProt's entry name; None marks a header that is not UniProt's."""
    reviewed: bool | None = None
    name: str | None = None
    """UniProt's protein name, with ``(Fragment)``; in other headers all after the first word."""
    organism: str | None = None
    organism_id: int | None = None
    gene: str | None = None
    """UniProt's ``GN``: one name, whole."""
    existence: str | None = None
    """As written after ``PE=``; not checked."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """One FASTA record."""

    header: Header
    sequence: str
    line: int
    """Line of the header, from 1."""

    @property
    def display_name(self) -> str | None:
        """The name without UniProt's ``(Fragment)``."""
        return _FRAGMENT.sub("", self.header.name) if self.header.name else None


def read_proteins(path: str) -> Iterator[Record]:
    """The proteins of a FASTA file with headers of any kind, in its order, in the memory of one.

    Args:
        path: path, URL or pipe; plain or gzip.

    Raises:
        DataError: if it cannot be read or holds no record, or for the first record that cannot be used, with its line.
    """
    with open_stream(path, pipes=True) as stream:
        for record in read_records(stream, path):
            if isinstance(record, BadEntry):
                raise DataError(f"{record}; mend or remove it.")
            yield record


def parse_header(line: str) -> Header:
    """Parse a header line, with or without its ``>``; an empty one gives an empty accession."""
    text = line.removeprefix(">").strip()
    match = _UNIPROT.match(text)
    if match is None:
        words = text.split(None, 1)  # at any white space: some write a tab
        return Header(accession=words[0] if words else "", name=words[1] if len(words) > 1 else None)
    database, accession, entry_name, description = match.groups()
    name, *pairs = _KEY.split(description or "")
    # "OX=9913 PE=1" splits into OX, 9913, PE, 1.
    fields = {key: value.strip() for key, value in zip(pairs[::2], pairs[1::2], strict=True)}
    taxon = fields.get("OX", "")
    return Header(
        accession=accession,
        entry_name=entry_name,
        reviewed=database == "sp",
        name=name.strip() or None,
        organism=fields.get("OS") or None,
        organism_id=int(taxon) if re.fullmatch(r"\d{1,9}", taxon) else None,
        gene=fields.get("GN") or None,
        existence=fields.get("PE"),
    )


def read_records(stream: IO[bytes], source: str) -> Iterator[Record | BadEntry]:
    """The records of any FASTA file, in its order, in the memory of one record.

    Sequences are upper-cased; a stop ``*`` at the end is dropped, as gene finders write one.

    Args:
        stream: decompressed bytes.
        source: the name for messages.

    Raises:
        DataError: if the stream is damaged or a record is larger than MAX_ENTRY_BYTES (records before that are given
            first), or if it holds no record.
    """
    header: bytes | None = None
    start, num_bytes, found = 0, 0, False
    residues = bytearray()
    for number, line in read_lines(stream, source, "a FASTA file"):
        if line.startswith(b">"):
            if header is not None:
                yield _record(header, residues, source, start)
            header, residues, start, num_bytes, found = line, bytearray(), number, 0, True
        elif header is not None:
            num_bytes += len(line) + 1
            if num_bytes > MAX_ENTRY_BYTES:
                raise DataError(
                    f"{source}: no end of a record in {MAX_ENTRY_BYTES >> 20} MB from line {start}; is this a FASTA "
                    "file of proteins? Remove the record."
                )
            if not line.startswith(b";"):  # the old comment line
                residues += line
        elif line.strip() and not line.startswith(b";"):
            value = line[:MAX_VALUE_CHARS].decode("latin-1")
            raise DataError(f"{source}, line {number}: {value!r} stands before the first '>'; is this a FASTA file?")
    if header is not None:
        yield _record(header, residues, source, start)
    if not found:
        raise DataError(f"{source}: holds no sequence; a FASTA record starts with a '>' line.")


def read_fasta(stream: IO[bytes], source: str) -> Iterator[Entry | BadEntry]:
    """The records of a FASTA file with UniProt's headers, as entries: names only, no comments.

    Raises:
        DataError: as read_records.
    """
    for record in read_records(stream, source):
        yield record if isinstance(record, BadEntry) else _entry(record, source)


def _entry(record: Record, source: str) -> Entry | BadEntry:
    header = record.header
    if header.entry_name is None:
        value = f"{header.accession} {header.name or ''}".strip()
        refusal = RefusedError("header is not UniProt's", value, _UNIPROT_HEADER)
        return refusal.at(source=source, line=record.line, accession=header.accession)
    if header.existence is not None and header.existence[:1] not in "12345":
        refusal = RefusedError("unknown protein existence", f"PE={header.existence}", "PE=1 to PE=5")
        return refusal.at(source=source, line=record.line, accession=header.accession)
    return Entry(
        accession=header.accession,
        entry_name=header.entry_name,
        reviewed=header.reviewed,
        sequence=record.sequence,
        existence=int(header.existence[:1]) if header.existence else None,
        name=header.name,
        display_name=record.display_name,
        organism=header.organism,
        organism_id=header.organism_id,
        gene=(header.gene,) if header.gene else (),
    )


def _record(line: bytes, residues: bytearray, source: str, number: int) -> Record | BadEntry:
    accession = None
    try:
        header = parse_header(line.decode())
        if not header.accession:
            raise RefusedError("no accession", line.decode(), "a header whose first word names the sequence")
        accession = header.accession
        letters = bytes(residues).translate(None, b" \t").removesuffix(b"*")
        return Record(header=header, sequence=checked_sequence(letters), line=number)
    except RefusedError as refusal:
        return refusal.at(source=source, line=number, accession=accession)
    except UnicodeDecodeError:
        return not_utf8(line, source, number)
