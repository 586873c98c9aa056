"""``protclip search``: ask an index with a text, a sequence, or all the sequences of a FASTA file."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import IO, Any

import click
import pyarrow as pa
import pyarrow.parquet as pq

from protclip import files
from protclip.errors import ConfigError, DataError
from protclip.index.embeddings import METADATA
from protclip.index.filters import parse_filter
from protclip.index.index import NOT_SHOWN, Index
from protclip.index.manifest import read_checkpoint_fingerprint, read_index_manifest
from protclip.terminal import echo, json_text, printable
from protclip.uniprot.entry import BadEntry
from protclip.uniprot.fasta import read_records
from protclip.uniprot.residues import Nucleotides, bare_residues, looks_like_nucleotides
from protclip.uniprot.streams import open_stream, read_lines

COLUMN_WIDTH = 60
"""Longer names are cut in the table; --json has them whole."""
BATCH_QUERIES = 512
"""Of a FASTA file, embedded and searched together."""

Answer = tuple[str | None, list[dict[str, Any]]]
"""A question's name (None for the one of the command line) and its hits."""

_SHOWN = [field for field in METADATA if field.name not in NOT_SHOWN]
HITS = pa.schema(
    [pa.field("query", pa.string()), pa.field("rank", pa.int32()), pa.field("score", pa.float32()), *_SHOWN]
)
"""Columns of a parquet or TSV file of answers."""


@click.command()
@click.argument("index")
@click.option("--checkpoint", required=True, help="Folder or URL of the model that made the index.")
@click.option("--text", help="A description, such as 'FUNCTION: Hydrolyses ATP.'")
@click.option("--sequence", help="Amino acids in one-letter code.")
@click.option("--fasta", help="A file of sequences, plain or gzip, a path or URL: each is a question.")
@click.option("-k", default=10, show_default=True, type=click.IntRange(min=1), help="Answers wanted.")
@click.option("--filter", "where", help="Which rows may answer, such as 'organism_id=9606 and (reviewed or ec=3.6)'.")
@click.option("--exact", is_flag=True, help="Compare with every vector, whatever the index's size.")
@click.option("--output", help="File or URL for the answers: .parquet, .tsv, .json or .jsonl.")
@click.option("--json", "as_json", is_flag=True, help="JSON instead of a table.")
def main(
    *,
    index: str,
    checkpoint: str,
    text: str | None,
    sequence: str | None,
    fasta: str | None,
    k: int,
    where: str | None,
    exact: bool,
    output: str | None,
    as_json: bool,
) -> None:
    """Find what in the INDEX lies nearest to a text, a sequence, or each sequence of a FASTA file, by cosine.

    \b
        protclip search my-index --checkpoint runs/tiny/best --text "FUNCTION: Involved in oxygen transport."
        protclip search my-index --checkpoint runs/tiny/best --fasta new.fasta --output answers.tsv

    Questions are embedded in the dtype of the index, on any processor. Small indexes, and what a narrow filter leaves,
    are searched exactly. docs/index.md has the language of filters.
    """
    if sum(question is not None for question in (text, sequence, fasta)) != 1:
        raise ConfigError("search needs one question: give one of --text, --sequence and --fasta.")
    write = _writer(output, as_json)
    allowed = None if where is None else parse_filter(where)
    # Before the model is loaded, so that the wrong pair fails at once.
    fingerprint = read_checkpoint_fingerprint(checkpoint)
    manifest = read_index_manifest(index)
    manifest.check_model(fingerprint, index)
    loaded = Index.load(index, expect_fingerprint=fingerprint)

    from protclip.embedding import ProtCLIP

    model = ProtCLIP.from_pretrained(checkpoint, dtype=manifest.dtype)

    nucleotides = Nucleotides()

    def answers() -> Iterator[Answer]:
        ask: Any = {"where": allowed, "exact": exact or None}
        if text is not None:
            yield None, loaded.hits(model.embed_texts([text])[0], k, **ask)
        elif fasta is None:
            letters = bare_residues(sequence or "").upper()
            if looks_like_nucleotides(letters):
                nucleotides.add(f"{letters[:12]}…")
            yield None, loaded.hits(model.embed_proteins([sequence or ""])[0], k, **ask)
        else:
            records = _progress(fasta, nucleotides)
            while batch := list(islice(records, BATCH_QUERIES)):
                vectors = model.embed_proteins([residues for _, residues in batch])
                hits = loaded.hits_of_each(vectors, k, **ask)
                yield from zip((name for name, _ in batch), hits, strict=True)

    record = {"model": fingerprint, "content": loaded.manifest.content}
    if output is None:
        with _no_os_error("standard output"):
            write(answers(), record, sys.stdout.buffer)
            sys.stdout.buffer.flush()
    else:
        with _no_os_error(output), _open_output(output) as stream:
            write(answers(), record, stream)
    if nucleotides.number:
        echo(f"search: {nucleotides.warning(fasta or '--sequence')}", err=True)


def format_table(hits: Sequence[dict[str, Any]]) -> str:
    """Hits as aligned columns: rank, score, accession, name (or the text that was embedded), organism."""
    rows = [("rank", "score", "accession", "name", "organism")]
    rows += [
        (
            str(hit["rank"]),
            f"{hit['score']:.4f}",
            printable(hit["accession"]),
            _shorten(hit["name"] or hit["text"]),
            _shorten(hit["organism"]),
        )
        for hit in hits
    ]
    rank, score, accession, name, _ = (max(map(len, column)) for column in zip(*rows, strict=True))
    return "\n".join(
        f"{row[0]:>{rank}}  {row[1]:>{score}}  {row[2]:<{accession}}  {row[3]:<{name}}  {row[4]}".rstrip()
        for row in rows
    )


Writer = Callable[[Iterable[Answer], dict[str, Any], IO[bytes]], None]


def _writer(output: str | None, as_json: bool) -> Writer:
    if output is None:
        return _write_json if as_json else _write_tables
    ending = output.rsplit(".", 1)[-1].lower()
    writers = {"parquet": _write_parquet, "tsv": _write_tsv, "json": _write_json, "jsonl": _write_json_lines}
    if ending in writers:
        return writers[ending]
    if as_json:
        return _write_json
    raise ConfigError(f"output {output!r}: the ending says what is written; allowed are .{', .'.join(writers)}.")


def _write_tables(answers: Iterable[Answer], _record: dict[str, Any], stream: IO[bytes]) -> None:
    for name, hits in answers:
        heading = "" if name is None else f"\n{printable(name)}\n"
        stream.write(f"{heading}{format_table(hits)}\n".encode())


def _write_json(answers: Iterable[Answer], record: dict[str, Any], stream: IO[bytes]) -> None:
    """One object: of one question its hits, of several a list of them."""
    queries = [{"query": name, "hits": hits} for name, hits in answers]
    alone = len(queries) == 1 and queries[0]["query"] is None
    body = {"hits": queries[0]["hits"]} if alone else {"queries": queries}
    stream.write(json_text({**record, **body}, indent=2).encode() + b"\n")


def _write_json_lines(answers: Iterable[Answer], _record: dict[str, Any], stream: IO[bytes]) -> None:
    for name, hits in answers:
        stream.write(json_text({"query": name, "hits": hits}).encode() + b"\n")


def _write_tsv(answers: Iterable[Answer], _record: dict[str, Any], stream: IO[bytes]) -> None:
    stream.write("\t".join(HITS.names).encode() + b"\n")
    for name, hits in answers:
        for hit in hits:
            cells = [_cell({"query": name, **hit}[column]) for column in HITS.names]
            stream.write("\t".join(cells).encode() + b"\n")


def _write_parquet(answers: Iterable[Answer], record: dict[str, Any], stream: IO[bytes]) -> None:
    schema = HITS.with_metadata({name: str(value) for name, value in record.items()})
    with pq.ParquetWriter(stream, schema, compression="zstd") as writer:
        remaining = iter(answers)
        while batch := list(islice(remaining, BATCH_QUERIES)):
            rows = [{"query": name, **hit} for name, hits in batch for hit in hits]
            writer.write_table(pa.Table.from_pylist(rows, schema=schema))


def _cell(value: Any) -> str:
    text = "; ".join(value) if isinstance(value, list) else "" if value is None else str(value)
    return printable(" ".join(text.split()))


def _records(path: str, nucleotides: Nucleotides) -> Iterator[tuple[str, str]]:
    """Name and sequence of each record of a FASTA file; what looks like DNA or RNA is counted.

    Raises:
        DataError: for a record that is no protein; all is refused, so that no question goes without an answer unseen.
    """
    with open_stream(path) as stream:
        for record in read_records(stream, path):
            if isinstance(record, BadEntry):
                raise DataError(f"{record}; mend or remove it.")
            if looks_like_nucleotides(record.sequence, record.header.name):
                nucleotides.add(record.header.accession)
            yield record.header.accession, record.sequence


def _progress(path: str, nucleotides: Nucleotides) -> Iterator[tuple[str, str]]:
    """The records, with a bar and an ETA on a terminal."""
    from tqdm import tqdm

    if not sys.stderr.isatty():
        yield from _records(path, nucleotides)
        return
    with open_stream(path) as stream:
        total = sum(line.startswith(b">") for _, line in read_lines(stream, path, "a FASTA file"))
    yield from tqdm(_records(path, nucleotides), desc="searching", unit="query", total=total)


@contextlib.contextmanager
def _open_output(path: str) -> Iterator[IO[bytes]]:
    """A file that appears whole or not at all; a device or pipe that is there is written to as it is."""
    if not files.is_url(path) and Path(path).exists() and not Path(path).is_file():
        with Path(path).open("wb") as stream:
            yield stream
        return
    with files.atomic_write(path) as stream:
        yield stream


@contextlib.contextmanager
def _no_os_error(what: str) -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise ConfigError(f"{what}: the answers cannot be written there ({error}).") from error


def _shorten(value: str | None) -> str:
    value = printable(" ".join((value or "-").split()))
    return value if len(value) <= COLUMN_WIDTH else value[: COLUMN_WIDTH - 1] + "…"
