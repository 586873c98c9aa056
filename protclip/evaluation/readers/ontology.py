"""The Gene Ontology in OBO, and the terms that UniProt's flat files give to proteins."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from protclip.errors import DataError
from protclip.uniprot.streams import open_stream, read_lines

_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"')
_ESCAPED = re.compile(r"\\(.)")
_TAGS = (b"id: ", b"name: ", b"namespace: ", b"def: ", b"is_a: ", b"alt_id: ", b"is_obsolete: ")
_GO = re.compile(r"DR   GO; (GO:\d{7}); ([FPC]):.*; ([A-Z]+):")


@dataclass(kw_only=True, slots=True)
class Term:
    """A term that is not obsolete."""

    name: str = ""
    namespace: str = ""
    """``molecular_function``, ``biological_process`` or ``cellular_component``."""
    definition: str = ""
    parents: list[str] = field(default_factory=list)
    """By ``is_a``."""


def read_obo(path: str) -> tuple[dict[str, Term], dict[str, str]]:
    """The terms by their identifier, and by each former identifier the present one.

    Raises:
        DataError: if it cannot be read, holds no term, or a term has a parent that is none.
    """
    terms: dict[str, Term] = {}
    present: dict[str, str] = {}
    for stanza in _stanzas(path):
        values = dict(reversed(stanza))  # of a tag that is there twice, the first
        if values.get("is_obsolete") == "true" or "id" not in values:
            continue
        quoted = _QUOTED.match(values.get("def", ""))
        terms[values["id"]] = Term(
            name=values.get("name", ""),
            namespace=values.get("namespace", ""),
            definition=_ESCAPED.sub(r"\1", quoted[1]) if quoted else "",
            parents=[value.split(" ", 1)[0] for tag, value in stanza if tag == "is_a"],
        )
        present |= {value: values["id"] for tag, value in stanza if tag == "alt_id"}
    if not terms:
        raise DataError(f"{path}: holds no term; it must be an ontology in OBO, such as go-basic.obo.")
    for name, term in terms.items():
        for parent in term.parents:
            if parent not in terms:
                raise DataError(f"{path}: the parent {parent!r} of {name} is no term of the file; fetch it again.")
    return terms, present


def _stanzas(path: str) -> Iterator[list[tuple[str, str]]]:
    """The (tag, value) lines of each ``[Term]``."""
    stanza: list[tuple[str, str]] | None = None
    with open_stream(path) as stream:
        for _, line in read_lines(stream, path, "an ontology in OBO"):
            if line.startswith(b"["):
                if stanza:
                    yield stanza
                stanza = [] if line.startswith(b"[Term]") else None
            elif stanza is not None and line.startswith(_TAGS):
                tag, _, value = line.decode(errors="replace").partition(": ")
                stanza.append((tag, value.strip()))
    if stanza:
        yield stanza


def read_go_links(path: str) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """(primary accession, its terms with the code of their evidence, such as ``IDA``) of each entry of a flat file.

    Raises:
        DataError: if it cannot be read.
    """
    accession, links = "", list[tuple[str, str]]()
    with open_stream(path) as stream:
        for _, line in read_lines(stream, path, "a UniProtKB flat file"):
            if line.startswith(b"AC   ") and not accession:
                accession = line[5:].split(b";", 1)[0].decode(errors="replace")
            elif line.startswith(b"DR   GO;"):
                match = _GO.match(line.decode(errors="replace"))
                if match is not None:
                    links.append((match[1], match[3]))
            elif line.startswith(b"//"):
                yield accession, links
                accession, links = "", []
