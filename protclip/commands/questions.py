"""The questions of ``protclip search``: one of the command line, or each sequence or line of a file."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from protclip import files
from protclip.errors import DataError, RequestError
from protclip.retrieval import Question
from protclip.uniprot.entry import BadEntry, is_utf8, not_utf8
from protclip.uniprot.fasta import read_records
from protclip.uniprot.residues import Nucleotides, looks_like_nucleotides
from protclip.uniprot.streams import open_stream, read_lines


@dataclass(kw_only=True, slots=True)
class Questions:
    """Where questions come from. All of a file is checked before its first question, unless it is a pipe."""

    source: str
    """Names it in messages."""
    read: Callable[[], Iterator[Question]]
    total: int | None
    """None of a pipe."""
    nucleotides: Nucleotides = field(default_factory=Nucleotides)
    """What looks like DNA or RNA among those that were read."""

    def __iter__(self) -> Iterator[Question]:
        """Each in turn, with a bar and an ETA on a terminal where there are several."""
        questions = map(self._counted, self.read())
        if self.total == 1 or not sys.stderr.isatty():
            return questions
        from tqdm import tqdm

        return iter(tqdm(questions, desc="searching", unit="query", total=self.total))

    def _counted(self, question: Question) -> Question:
        letters = question.sequence or ""
        if looks_like_nucleotides(letters):
            self.nucleotides.add(question.name or f"{letters[:12]}…")
        return question


def one_question(question: Question, source: str) -> Questions:
    """A question of the command line."""
    return Questions(source=source, read=lambda: iter([question]), total=1)


def questions_of_file(path: str, read: Callable[[str], Iterator[Question]]) -> Questions:
    """The questions of a file, a path or URL, by ``read_fasta`` or ``read_texts``.

    Raises:
        DataError: if one of them cannot be asked: no question goes without an answer unseen.
    """
    again = files.is_url(path) or Path(path).is_file()
    total = sum(1 for _ in read(path)) if again else None
    return Questions(source=path, read=lambda: read(path), total=total)


def read_fasta(path: str) -> Iterator[Question]:
    """Each record, named by its accession."""
    with open_stream(path) as stream:
        for record in read_records(stream, path):
            if isinstance(record, BadEntry):
                raise DataError(f"{record}; mend or remove it.")
            yield Question(sequence=record.sequence, name=record.header.accession)


def read_texts(path: str) -> Iterator[Question]:
    """Each line that is not blank, named by itself."""
    found = False
    with open_stream(path) as stream:
        for number, line in read_lines(stream, path, "a file of texts"):
            if not is_utf8(line) or b"\0" in line:  # UTF-16 has zero bytes
                raise DataError(f"{not_utf8(line, path, number)}; save it as UTF-8.")
            if text := line.decode().strip():
                found = True
                yield Question(text=text, name=text)
    if not found:
        raise RequestError(f"{path}: holds no text; each line that is not blank is a question.")
