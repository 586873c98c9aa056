"""Answers of ``protclip search`` as tables, TSV, CSV, JSON and parquet."""

from __future__ import annotations

import contextlib
import csv
import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from protclip import files
from protclip.embeddings.reading import METADATA, Content
from protclip.errors import ConfigError
from protclip.questions import COLUMNS, Answer, Hit
from protclip.terminal import json_text, printable

COLUMN_WIDTH = 60
"""Longer values are cut in the table; files and JSON have them whole."""
BLOCK_ANSWERS = 512
"""Of parquet, written together."""
DIGITS = {"score": 4, "percentile": 1}
"""Of what people read; JSON and parquet have all."""
TABLE_COLUMNS: dict[Content, Sequence[str]] = {"protein": ("gene", "name", "organism"), "text": ("text",)}
"""What the table shows unless columns are chosen."""
FIRST = (
    pa.field("query", pa.string()),
    pa.field("truncated", pa.bool_()),
    pa.field("rank", pa.int32()),
    pa.field("score", pa.float32()),
    pa.field("percentile", pa.float64()),
    METADATA.field("accession"),
)

Writer = Callable[[Iterable[Answer], IO[bytes]], None]


def answer_schema(columns: Sequence[str] | None) -> pa.Schema:
    """Columns of a file of answers: a row for each hit."""
    chosen = COLUMNS if columns is None else [name for name in columns if name in COLUMNS]
    return pa.schema([*FIRST, *(METADATA.field(name) for name in chosen)])


def choose_writer(
    output: str | None, *, as_json: bool, columns: Sequence[str] | None, content: Content, alone: bool
) -> Writer:
    """How answers are written.

    Args:
        output: path or URL, whose ending says the form; ``-`` for TSV and None for a table on the terminal.
        as_json: JSON in place of the table.
        columns: that are shown, beside score and accession.
        content: of the index.
        alone: whether there is one question, of the command line.

    Raises:
        ConfigError: for an ending that means nothing, or another form than JSON where that is asked for.
    """
    schema = answer_schema(columns)
    writers: dict[str, Writer] = {
        "parquet": lambda answers, stream: _write_parquet(answers, stream, schema),
        "tsv": lambda answers, stream: _write_rows(answers, stream, schema, "excel-tab"),
        "csv": lambda answers, stream: _write_rows(answers, stream, schema, "excel"),
        "json": lambda answers, stream: _write_json(answers, stream, alone),
        "jsonl": _write_json_lines,
    }
    if output is None and not as_json:
        shown = TABLE_COLUMNS[content] if columns is None else [name for name in columns if name in COLUMNS]
        return lambda answers, stream: _write_tables(answers, stream, shown)
    ending = "tsv" if output == "-" else (output or "").rsplit(".", 1)[-1].lower()
    if as_json and output not in (None, "-") and ending in ("parquet", "tsv", "csv"):
        raise ConfigError(f"output {output!r}: the ending says .{ending}; leave --json out, or write to a .json.")
    if as_json and ending not in ("json", "jsonl"):
        ending = "json"
    if ending not in writers:
        raise ConfigError(f"output {output!r}: the ending says what is written; allowed are .{', .'.join(writers)}.")
    return writers[ending]


@contextlib.contextmanager
def open_output(path: str) -> Iterator[IO[bytes]]:
    """A file that appears whole or not at all; a device or pipe that is there is written to as it is."""
    if not files.is_url(path) and Path(path).exists() and not Path(path).is_file():
        with Path(path).open("wb") as stream:
            yield stream
        return
    with files.atomic_write(path) as stream:
        yield stream


def format_table(hits: Sequence[Hit], columns: Sequence[str]) -> str:
    """Hits as aligned columns: rank, score, percentile where it is known, accession, and the given ones.

    Of several genes the first is shown.
    """
    with_percentile = any(hit["percentile"] is not None for hit in hits)
    names = ["rank", "score", *(["percentile"] if with_percentile else []), "accession", *columns]
    short = [{**hit, "gene": (hit.get("gene") or [])[:1]} for hit in hits]
    rows = [names] + [[_shorten(_cell(name, hit[name]) or "-") for name in names] for hit in short]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    right = names.index("accession")
    return "\n".join(
        "  ".join(
            f"{cell:>{width}}" if i < right else f"{cell:<{width}}"
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def _write_tables(answers: Iterable[Answer], stream: IO[bytes], columns: Sequence[str]) -> None:
    for answer in answers:
        heading = "" if answer.query is None else f"\n{printable(answer.query)}\n"
        stream.write(f"{heading}{format_table(answer.hits, columns)}\n".encode())


def _write_json(answers: Iterable[Answer], stream: IO[bytes], alone: bool) -> None:
    """One object: an answer, or several under what they have in common."""
    records = [asdict(answer) for answer in answers]
    body: Mapping[str, Any] = records[0]
    if not alone:
        own = ("query", "truncated", "hits", "partial")
        shared = {name: value for name, value in records[0].items() if name not in own}
        body = {**shared, "queries": [{name: record[name] for name in own if name in record} for record in records]}
    stream.write(json_text(body, indent=2).encode() + b"\n")


def _write_json_lines(answers: Iterable[Answer], stream: IO[bytes]) -> None:
    for answer in answers:
        stream.write(json_text(asdict(answer)).encode() + b"\n")


def _write_rows(answers: Iterable[Answer], stream: IO[bytes], schema: pa.Schema, dialect: str) -> None:
    """TSV or CSV; no cell holds a tab or a line end."""
    text = io.StringIO()
    writer = csv.writer(text, dialect=dialect, lineterminator="\n")
    writer.writerow(schema.names)
    for answer in answers:
        for row in _rows(answer):
            writer.writerow([_cell(name, row[name]) for name in schema.names])
        stream.write(text.getvalue().encode())
        text.seek(0)
        text.truncate()
    stream.write(text.getvalue().encode())


def _write_parquet(answers: Iterable[Answer], stream: IO[bytes], schema: pa.Schema) -> None:
    remaining = iter(answers)
    block = list(islice(remaining, BLOCK_ANSWERS))
    record = {name: getattr(block[0], name) for name in ("model", "index", "content")}
    with pq.ParquetWriter(stream, schema.with_metadata(record), compression="zstd") as writer:
        while block:
            rows = [row for answer in block for row in _rows(answer)]
            writer.write_table(pa.Table.from_pylist(rows, schema=schema))
            block = list(islice(remaining, BLOCK_ANSWERS))


def _rows(answer: Answer) -> Iterator[dict[str, Any]]:
    return ({"query": answer.query, "truncated": answer.truncated, **hit} for hit in answer.hits)


def _cell(name: str, value: Any) -> str:
    """A value as people read it, in one line."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.{DIGITS[name]}f}"
    text = "; ".join(value) if isinstance(value, list) else str(value)
    return printable(" ".join(text.split()))


def _shorten(value: str) -> str:
    return value if len(value) <= COLUMN_WIDTH else value[: COLUMN_WIDTH - 1] + "…"
