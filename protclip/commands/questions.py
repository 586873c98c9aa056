"""The questions of ``protclip search``: one of the command line, or each sequence or line of a file."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from protclip import files
from protclip.embeddings.reading import Embeddings, read_embeddings
from protclip.errors import DataError, RequestError
from protclip.index.vector_files import format_of, load_npy, read_rows
from protclip.questions import Question
from protclip.terminal import echo
from protclip.uniprot.entry import BadEntry, is_utf8, not_utf8
from protclip.uniprot.fasta import read_records
from protclip.uniprot.residues import Nucleotides, looks_like_a_sequence, looks_like_nucleotides
from protclip.uniprot.streams import open_stream, read_lines

Read = Callable[[str, Nucleotides], Iterator[Question | BadEntry]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Questions:
    """Where questions come from."""

    read: Callable[[], Iterator[Question]]
    total: int | None
    """None of a pipe, which is read once."""
    nucleotides: Nucleotides
    """Those that look like DNA or RNA: of all that were read so far, and where the total is known of all."""
    refused: Counter[str] = field(default_factory=Counter)
    """Records of a file that cannot be asked, by reason, likewise; each was told on standard error."""

    def __iter__(self) -> Iterator[Question]:
        """Each in turn, with a bar and an ETA on a terminal where there are several."""
        if self.total == 1 or not sys.stderr.isatty():
            return self.read()
        from tqdm import tqdm

        return iter(tqdm(self.read(), desc="searching", unit="query", total=self.total))


def one_question(question: Question) -> Questions:
    """A question of the command line."""
    nucleotides = Nucleotides()
    if looks_like_nucleotides(question.sequence or ""):
        nucleotides.add(f"{(question.sequence or '')[:12]}…")
    return Questions(read=lambda: iter([question]), total=1, nucleotides=nucleotides)


def questions_of_file(path: str, read: Read) -> Questions:
    """The questions of a file, a path or URL, by ``read_fasta`` or ``read_texts``.

    All of it is read and checked before the first is asked, so that no model is loaded for a file that is refused;
    a pipe is checked as it is read. A record that cannot be used is told on standard error and left out.

    Raises:
        DataError: if the file cannot be read, or holds nothing that can be asked.
    """
    nucleotides, refused = Nucleotides(), Counter[str]()
    if not files.is_url(path) and Path(path).exists() and not Path(path).is_file():
        return Questions(
            read=lambda: _telling(path, read(path, nucleotides), refused),
            total=None,
            nucleotides=nucleotides,
            refused=refused,
        )
    total = sum(1 for _ in _telling(path, read(path, nucleotides), refused))
    return Questions(
        read=lambda: (one for one in read(path, Nucleotides()) if not isinstance(one, BadEntry)),
        total=total,
        nucleotides=nucleotides,
        refused=refused,
    )


def _telling(path: str, read: Iterator[Question | BadEntry], refused: Counter[str]) -> Iterator[Question]:
    """The questions; tells and counts what is none.

    Raises:
        DataError: if there are none but these.
    """
    first, found = None, False
    for one in read:
        if isinstance(one, BadEntry):
            echo(f"search: left out: {one}", err=True)
            refused[one.reason] += 1
            first = first or one
        else:
            found = True
            yield one
    if not found:
        raise DataError(f"{path}: holds nothing that can be asked ({refused.total():,} left out). The first: {first}.")


def read_fasta(path: str, nucleotides: Nucleotides) -> Iterator[Question | BadEntry]:
    """Each record, named by its accession; what looks like DNA or RNA is counted."""
    with open_stream(path, pipes=True) as stream:
        for record in read_records(stream, path):
            if isinstance(record, BadEntry):
                yield record
                continue
            if looks_like_nucleotides(record.sequence, record.header.name):
                nucleotides.add(record.header.accession)
            yield Question(sequence=record.sequence, name=record.header.accession)


def read_vectors(path: str, _nucleotides: Nucleotides) -> Iterator[Question]:
    """Each vector of a folder of embeddings, or of an HDF5, parquet or .npy file, named by its id.

    Rows of a .npy file are ``row-N`` from 1.
    """
    found = False
    embeddings = read_embeddings(path) if files.is_folder(path) else None
    kind = None if embeddings is None else embeddings.content
    for name, vector in _named_vectors(path) if embeddings is None else _embedded(embeddings):
        if not name or vector is None:
            raise DataError(f"{path}: {name!r:.80} is no id with a vector; mend or remove it.")
        found = True
        yield Question(vector=vector, name=name, kind=kind)
    if not found:
        raise DataError(f"{path}: holds no vector; each is a question.")


def _embedded(embeddings: Embeddings) -> Iterator[tuple[str, NDArray[Any]]]:
    for vectors, metadata in embeddings.parts():
        yield from zip(metadata["accession"].to_pylist(), vectors, strict=True)


def _named_vectors(path: str) -> Iterator[tuple[str | None, NDArray[Any] | None]]:
    if format_of(path) == "npy":
        with files.local_copy(path) as local:
            for number, vector in enumerate(load_npy(path, local), start=1):
                yield f"row-{number}", vector
        return
    for _, rows in read_rows(path, None):
        yield from zip(rows.ids, rows.vectors, strict=True)


def read_texts(path: str, _nucleotides: Nucleotides) -> Iterator[Question]:
    """Each line that is not blank, named by itself."""
    found = False
    with open_stream(path, pipes=True) as stream:
        for number, line in read_lines(stream, path, "a file of texts"):
            if not is_utf8(line) or b"\0" in line:  # UTF-16 has zero bytes
                raise DataError(f"{not_utf8(line, path, number)}; save it as UTF-8.")
            if text := line.decode().strip():
                if not found and text.startswith(">"):
                    raise DataError(f"{path}, line {number}: {text!r:.40} is a FASTA header; ask with --fasta {path}.")
                if looks_like_a_sequence(text):
                    raise DataError(
                        f"{path}, line {number}: {text!r:.40} looks like a sequence, and lines are texts; write "
                        "FASTA and ask with --fasta."
                    )
                found = True
                yield Question(text=text, name=text)
    if not found:
        raise RequestError(f"{path}: holds no text; each line that is not blank is a question.")
