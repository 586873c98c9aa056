"""Entry: what is used of one UniProtKB entry, whatever file format it came from."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from protclip.uniprot.residues import RESIDUES

MAX_VALUE_CHARS = 200
"""Characters of an offending value that a BadEntry keeps."""

LABELS = {
    "function": "FUNCTION: ",
    "subcellular_location": "SUBCELLULAR LOCATION: ",
    "similarity": "SIMILARITY: ",
}
"""What the comments of an Entry start with, by its field."""
RESIDUE_BYTES = RESIDUES.encode()
ACCESSION = re.compile(r"[A-Za-z0-9_.-]{1,40}")
"""What stands for an accession in a table."""
UTF8 = "UTF-8 text; convert another encoding first, such as by iconv -f WINDOWS-1252 -t UTF-8"
"""What is allowed where a line is in no Unicode encoding: which one it is in cannot be told for certain."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One protein with the texts that ProtAnno takes from UniProtKB; None is what the entry does not say."""

    accession: str
    """Primary accession; ``P12345-2`` for an isoform."""
    entry_name: str | None = None
    """``ALBU_HUMAN``."""
    reviewed: bool | None = None
    """True in Swiss-Prot, False in TrEMBL."""
    sequence: str
    """Upper-case letters of RESIDUES, at least one."""
    existence: int | None = None
    """Protein existence, 1 (evidence at protein level) to 5 (uncertain): the paper's confidence C."""
    name: str | None = None
    """All names as UniProt's TSV column ``Protein names`` writes them, without evidence tags."""
    function: str | None = None
    """``FUNCTION: …``, evidence tags kept; several blocks are joined by ``"; "``, each with its label. A table that
    somebody made may have the text without it; an Entry has it."""
    subcellular_location: str | None = None
    """``SUBCELLULAR LOCATION: …``, likewise."""
    similarity: str | None = None
    """``SIMILARITY: …``, likewise."""
    display_name: str | None = None
    """The recommended name, or the first submitted one."""
    organism: str | None = None
    """As the source writes it: ``Homo sapiens (Human)`` in a flat file, ``Homo sapiens`` in FASTA."""
    organism_id: int | None = None
    """NCBI taxonomy identifier."""
    ec: tuple[str, ...] = ()
    """EC numbers of the protein and its parts, each once, in the entry's order."""
    gene: tuple[str, ...] = ()
    """All names of its genes, each once: of each gene its name, synonyms, ordered locus names, open reading frames."""

    def __post_init__(self) -> None:
        for field, label in LABELS.items():
            text = getattr(self, field)
            if text is not None and not text.startswith(label):
                has_one = text[: len(label) - 1].upper() == label[:-1]
                bare = text[len(label) - 1 :].lstrip() if has_one else text
                object.__setattr__(self, field, label + bare)

    @property
    def num_properties(self) -> int:
        """Properties present, 1 to 4; the name counts even where there is none."""
        comments = (self.function, self.subcellular_location, self.similarity)
        return 1 + sum(text is not None for text in comments)


@dataclass(frozen=True, kw_only=True, slots=True)
class BadEntry:
    """An entry that cannot be used, and why; readers yield it in the entry's place, so that none is lost silently."""

    source: str
    """Path or URL of the file."""
    line: int
    """Line of the (decompressed) file at which the entry starts, from 1."""
    accession: str | None
    """None where it could not be read."""
    reason: str
    """A short fixed phrase; quarantined rows are counted by it."""
    value: str
    """What was found, cut to MAX_VALUE_CHARS."""
    allowed: str
    """What would have been accepted."""

    def record(self) -> dict[str, Any]:
        """The line of quarantine.jsonl."""
        return {name: getattr(self, name) for name in self.__slots__}

    def __str__(self) -> str:
        who = f" ({self.accession})" if self.accession else ""
        return f"{self.source}, line {self.line}{who}: {self.reason}: {self.value!r}; allowed: {self.allowed}"


class RefusedError(Exception):
    """Raised inside the readers where an entry cannot be used; they turn it into a BadEntry."""

    def __init__(self, reason: str, value: str, allowed: str) -> None:
        super().__init__(reason)
        self.reason, self.value, self.allowed = reason, value[:MAX_VALUE_CHARS], allowed

    def at(self, *, source: str, line: int, accession: str | None) -> BadEntry:
        """The BadEntry of the entry that starts at this line."""
        return BadEntry(
            source=source, line=line, accession=accession, reason=self.reason, value=self.value, allowed=self.allowed
        )


def checked_sequence(residues: bytes) -> str:
    """The sequence in upper case.

    Raises:
        RefusedError: if it is empty or holds a letter outside RESIDUES; the value names letter and position, from 1.
    """
    if not residues:
        raise RefusedError("no sequence", "", "at least one residue")
    residues = residues.upper()
    if foreign := residues.translate(None, RESIDUE_BYTES):
        letter = foreign[:1]
        raise RefusedError(
            "letter outside the alphabet",
            f"{letter.decode('latin-1')} at {residues.index(letter) + 1}",
            "the 20 amino acids and BJOUXZ",
        )
    return residues.decode("ascii")


def is_utf8(text: bytes) -> bool:
    """True where the bytes are UTF-8."""
    try:
        return text.isascii() or bool(text.decode())
    except UnicodeDecodeError:
        return False


def not_utf8(line: bytes, source: str, number: int) -> BadEntry:
    """The BadEntry of a line that is no text."""
    return RefusedError("not UTF-8", repr(line), UTF8).at(source=source, line=number, accession=None)
