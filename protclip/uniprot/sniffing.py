"""The kind of a text file by its first block, where that is certain: names say other things than files hold."""

from __future__ import annotations

import json
import re
from typing import Any

from protclip.errors import DataError
from protclip.uniprot.dialect import find_layout
from protclip.uniprot.json_objects import ENTRY_START
from protclip.uniprot.streams import open_stream, read_blocks

_COMMENTS = re.compile(rb"(?:[#;][^\n]*\n\s*)*")
_FLAT_FILE = re.compile(rb"ID   \S+ +(?:Reviewed|Unreviewed|STANDARD|PRELIMINARY);")
_ROOT = re.compile(
    rb"(?:<\?.*?\?>\s*|<!--.*?-->\s*|<!DOCTYPE[^<>\[]*>\s*)*+<([A-Za-z_][\w.:-]*)", re.DOTALL | re.IGNORECASE
)
_LIST = re.compile(rb'\[|\{\s*"results"')
# Texts that begin with these are no entries of UniProtKB, and no lines to be embedded.
_OTHERS = {
    b"LOCUS       ": "a GenBank file",
    b"##gff-version": "GFF",
    b"# STOCKHOLM": "an alignment in Stockholm format",
    b"CLUSTAL": "an alignment in Clustal format",
    b"HEADER    ": "a PDB file",
    b"format-version:": "an ontology in OBO format",
}
_EMBL = re.compile(rb"ID   \S+; SV ")
_INSTEAD = "give UniProtKB entries (fetch-uniprot gets them) or FASTA"


def sniff(path: str) -> str | None:
    """The ending that would tell what a file is, one of .dat .fasta .xml .json .jsonl .tsv; None where unsure.

    Raises:
        DataError: if it cannot be read, or is of a kind that is certainly none of ours.
    """
    with open_stream(path) as stream:
        head = next(read_blocks(stream, path), b"").lstrip()
    what = (
        "an EMBL file"
        if _EMBL.match(head)
        else next((_OTHERS[mark] for mark in _OTHERS if head.startswith(mark)), None)
    )
    if what is not None:
        raise DataError(f"{path}: is {what}; {_INSTEAD}.")
    match = _COMMENTS.match(head)
    assert match is not None
    text = head[match.end() :]
    if text.startswith(b">"):
        return ".fasta"
    if _FLAT_FILE.match(text):
        return ".dat"
    if text.startswith(b"<"):
        return _markup(text, path)
    if text.startswith((b"{", b"[")):
        return _json(text, path)
    layout, _ = find_layout(iter([head]))  # its header may be a comment
    return None if isinstance(layout, bytes) else ".tsv"


def _markup(head: bytes, path: str) -> str | None:
    match = _ROOT.match(head)
    if match is None:
        return None
    root = match[1].decode()
    if root in ("uniprot", "entry"):
        return ".xml"
    if root.lower() == "html":
        raise DataError(f"{path}: is an HTML page, most likely saved in place of a download; fetch the file again.")
    if root.startswith("UniRef"):
        raise DataError(
            f"{path}: is UniRef's XML, clusters of sequences without the comments that pairs are made of; {_INSTEAD}. "
            "To keep clusters in one split: curate --split-by uniref50=idmapping.dat.gz."
        )
    raise DataError(f"{path}: is XML whose root is <{root}>, and UniProtKB's is <uniprot>; {_INSTEAD}.")


def _json(head: bytes, path: str) -> str | None:
    """A list or an object over several lines is ``.json``; an object a line is ``.jsonl``."""
    first = _loaded(head.partition(b"\n")[0])
    if isinstance(first, dict) and ("primaryAccession" in first or {"seq", "text"} <= first.keys()):
        return ".jsonl"
    if ENTRY_START.search(head):
        return ".json" if first is not None or b"\n" in head or _LIST.match(head) else None
    if _loaded(head) is not None:
        raise DataError(f"{path}: is JSON without an entry of UniProtKB, each of which starts with its entryType.")
    return None


def _loaded(text: bytes) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
