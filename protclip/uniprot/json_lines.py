"""JSON lines: entries of UniProtKB's REST service, or ProtAnno as its authors publish it, an object a line.

    {"seq": …, "text": …}        without accession, existence or status
    {"primaryAccession": …}      see json_entries.py

The text is the biotext, so its properties are cut out of it again, at their labels in the paper's order.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from itertools import pairwise
from typing import IO

from protclip.errors import DataError
from protclip.uniprot.cells import means_nothing, text_or_none
from protclip.uniprot.entry import BadEntry, Entry, RefusedError, checked_sequence
from protclip.uniprot.json_entries import entry_of, is_entry
from protclip.uniprot.json_objects import parse_object
from protclip.uniprot.protein_names import parse_name_cell
from protclip.uniprot.streams import read_lines

_NAME, *_COMMENTS = "PROTEIN NAME: ", "FUNCTION: ", "SUBCELLULAR LOCATION: ", "SIMILARITY: "
_NAMED = re.compile(r"PROTEIN NAME: .+\.", re.DOTALL)
_BRACES = re.compile(r"\{[^{}]*\}")


def read_json_lines(stream: IO[bytes], source: str) -> Iterator[Entry | BadEntry]:
    """The lines of a file, in its order, in the memory of one line.

    The accession of a published pair is ``seq-`` and 16 hexadecimal digits of the SHA-256 of the sequence.

    Args:
        stream: decompressed bytes.
        source: the name for messages.

    Raises:
        DataError: if the stream is damaged (entries before the damage are given first) or holds no line.
    """
    found = False
    for number, line in read_lines(stream, source, "a JSON lines file"):
        if not line or line.isspace():
            continue
        found = True
        try:
            yield _entry(line)
        except RefusedError as refusal:
            yield refusal.at(source=source, line=number, accession=None)
    if not found:
        raise DataError(f'{source}: holds no line; each should be an object such as {{"seq": …, "text": …}}.')


def _entry(line: bytes) -> Entry:
    pair, behind = parse_object(line)
    if behind.strip():
        raise RefusedError("not JSON", line.decode(errors="replace"), "one JSON object a line")
    if is_entry(pair):
        return entry_of(pair)
    if not isinstance(pair, dict) or not all(isinstance(pair.get(key), str) for key in ("seq", "text")):
        raise RefusedError("no pair", line.decode(errors="replace"), 'an object with "seq" and "text", both strings')
    sequence = checked_sequence(pair["seq"].encode())
    name, comments = _split(pair["text"])
    names = parse_name_cell(text_or_none(name or "") or "")
    comments = {label: text for label, text in comments.items() if not means_nothing(text[len(label) :].rstrip("."))}
    return Entry(
        accession=f"seq-{hashlib.sha256(sequence.encode()).hexdigest()[:16]}",
        sequence=sequence,
        name=names.name,
        function=comments.get("FUNCTION: "),
        subcellular_location=comments.get("SUBCELLULAR LOCATION: "),
        similarity=comments.get("SIMILARITY: "),
        display_name=names.display_name,
        ec=names.ec,
    )


def _split(text: str) -> tuple[str | None, dict[str, str]]:
    """The name without label and full stop, and the other properties by label.

    Raises:
        RefusedError: if the properties would not compose to the same text again.
    """
    # A label inside braces belongs to an evidence tag. The space in front lets a text start with any property.
    searched = " " + _BRACES.sub(lambda match: "-" * len(match[0]), text)
    starts: dict[str, int] = {}
    position = 0
    for label in (_NAME, *_COMMENTS):
        if (start := searched.find(" " + label, position)) >= 0:
            starts[label] = position = start
    bounds = [*starts.values(), len(searched)]
    parts = {label: text[start : end - 1] for label, (start, end) in zip(starts, pairwise(bounds), strict=True)}
    name = parts.pop(_NAME, None)
    if bounds[0] != 0 or (name is not None and not _NAMED.fullmatch(name)):
        raise RefusedError("not a biotext", text, "'PROTEIN NAME: ….', then FUNCTION, SUBCELLULAR LOCATION, SIMILARITY")
    return name.removeprefix(_NAME).removesuffix(".") if name is not None else None, parts
