"""What ``protclip embed`` reads: inputs of several kinds, as rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal

from protclip import files
from protclip.embeddings.blocks import pairs_blocks, read_block
from protclip.embeddings.reading import Content
from protclip.errors import ConfigError, DataError
from protclip.hashing import hash64
from protclip.manifest import FILE_NAME, WORK_FOLDER, what_is_there
from protclip.parquet import MAX_ROW_BYTES, column_values, open_parquet, rows_at_once
from protclip.protanno import shards
from protclip.protanno.biotext import biotext
from protclip.uniprot import cells
from protclip.uniprot.cells import means_nothing
from protclip.uniprot.columns import COLUMNS, find_column
from protclip.uniprot.entry import BadEntry, Entry, RefusedError, is_utf8, not_utf8
from protclip.uniprot.fasta import Record, read_fasta, read_records
from protclip.uniprot.formats import READERS, named_ending, open_entries
from protclip.uniprot.gene_names import each_once, parse_gene_cells
from protclip.uniprot.residues import (
    bare_residues,
    find_invalid_residue,
    invalid_residue_message,
    looks_like_a_sequence,
)
from protclip.uniprot.sniffing import sniff
from protclip.uniprot.streams import open_stream, read_lines

Kind = Literal["pairs", "fasta", "entries", "parquet", "lines"]

_ENDINGS: dict[str, Kind] = {
    **dict.fromkeys(READERS, "entries"),
    **dict.fromkeys([ending for ending, reader in READERS.items() if reader is read_fasta], "fasta"),
    ".txt": "lines",
    ".parquet": "parquet",
}
"""By the ending of the name, or that which the content would have."""
# In lower case the 20 amino acids alone: names of chemicals are that long.
_LOOKED_AT = 20
_ID_COLUMNS = ("accession", "id", "Entry")
_READ_ROWS = 8192
# What an answer shows: the columns that parquet files may have it in, and how a cell is read.
_SHOWN: dict[str, tuple[tuple[str, ...], Callable[[str], Any]]] = {
    "name": (("name", "display_name", *COLUMNS["name"]), cells.text_or_none),
    "organism": (COLUMNS["organism"], cells.text_or_none),
    "organism_id": (COLUMNS["organism_id"], cells.taxon),
    "reviewed": (COLUMNS["reviewed"], cells.status),
    "ec": (COLUMNS["ec"], cells.ec_numbers),
    "gene": (COLUMNS["gene"], parse_gene_cells),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Inputs:
    """Files of one kind, or a folder of pairs."""

    kind: Kind
    paths: tuple[str, ...]
    """Absolute paths or URLs, in the order in which they are read."""
    id_column: str | None = None
    """Of parquet files; None for the first of accession and id that they have."""
    value_column: str | None = None
    """Of parquet files: what is embedded; None for sequence, or text."""

    def identity(self) -> dict[str, Any]:
        """What tells these inputs from others, as JSON values."""
        marked = [files.join(path, FILE_NAME) if self.kind == "pairs" else path for path in self.paths]
        return {
            "files": {path: files.identity(path) for path in marked},
            "id_column": self.id_column,
            "value_column": self.value_column,
        }

    def num_bytes(self) -> int:
        """Of what is embedded, as it lies on the disk."""
        if self.kind == "pairs":
            (folder,) = self.paths
            return sum(int(record["bytes"]) for record in shards.read_pairs(folder).manifest["files"].values())
        return sum(files.in_threads(files.size, self.paths))


def find_inputs(patterns: Sequence[str], *, id_column: str | None, value_column: str | None) -> Inputs:
    """The inputs that paths, globs and URLs mean.

    Raises:
        DataError: if one of them means nothing.
        ConfigError: if they are of unknown kind or of several.
    """
    found = [path for pattern in patterns for path in _expand(pattern)]
    kinds = dict(zip(found, files.in_threads(_kind, found), strict=True))
    if len(set(kinds.values())) > 1 or (len(found) > 1 and "pairs" in kinds.values()):
        named = ", ".join(f"{path} ({kind})" for path, kind in list(kinds.items())[:4])
        raise ConfigError(f"inputs of one kind are embedded together, or one folder of pairs; given are {named}.")
    kind = kinds[found[0]]
    if (id_column or value_column) and kind != "parquet":
        raise ConfigError("--id-column and --column are for parquet files; leave them out.")
    return Inputs(kind=kind, paths=tuple(found), id_column=id_column, value_column=value_column)


def resolve_content(kind: Kind, asked: Content | None) -> Content:
    """What is embedded of such inputs: their kind says so, or ``--content`` does.

    Raises:
        ConfigError: if the two do not go together.
    """
    only: dict[Kind, Content] = {"fasta": "protein", "lines": "text"}
    if asked not in (None, only.get(kind, asked)):
        raise ConfigError(
            f"the input holds {only[kind]}s only, so --content {asked} has nothing to embed; leave it out."
        )
    return asked or only.get(kind, "protein")


def read_rows(inputs: Inputs, content: Content) -> Iterator[dict[str, Any] | BadEntry]:
    """The rows of all inputs in their order, as blocks.BLOCK_SCHEMA has them, and what cannot be read.

    Raises:
        DataError: if an input cannot be read to its end.
    """
    readers: dict[Kind, Callable[[str], Iterator[dict[str, Any] | BadEntry]]] = {
        "fasta": _read_fasta,
        "entries": lambda path: _read_entries(path, content),
        "lines": _read_lines,
        "parquet": lambda path: _read_parquet(path, inputs, content),
        "pairs": lambda path: _read_pairs(path, content),
    }
    for path in inputs.paths:
        yield from readers[inputs.kind](path)


def _expand(pattern: str) -> list[str]:
    path, meant = files.absolute(pattern), files.expand(pattern)
    if meant != [path]:
        return meant
    if not files.exists(path):
        raise DataError(f"{path}: does not exist; check the path.")
    if files.is_folder(path) and not files.exists(files.join(path, FILE_NAME)):
        names = [name for name in files.list_folder(path) if name.endswith(".parquet")]
        if not names or WORK_FOLDER in files.list_folder(path):  # what an unfinished folder holds is a part
            raise DataError(
                f"{path}: {what_is_there(path)}; give a finished folder of pairs, a folder of parquet files, or a file."
            )
        return [files.join(path, name) for name in names]
    return [path]


def _kind(path: str) -> Kind:
    if files.is_folder(path):
        shards.read_pairs(path)
        return "pairs"
    if path.lower().endswith(".parquet"):
        return "parquet"
    ending = sniff(path) or named_ending(path)
    if ending is None:
        raise ConfigError(
            f"{path}: is neither a folder of pairs nor a file of known kind; known: {', '.join(_ENDINGS)}, plain or "
            ".gz."
        )
    kind = _ENDINGS[ending]
    if kind == "lines":
        _refuse_sequences(path)
    return kind


def _refuse_sequences(path: str) -> None:
    """Refuse lines of sequences, which would be embedded as texts.

    Raises:
        DataError: if the first lines are such.
    """
    with open_stream(path) as stream:
        numbered = ((number, line.strip()) for number, line in read_lines(stream, path, "a file of texts"))
        first = list(islice(((number, line) for number, line in numbered if line), _LOOKED_AT))
    if first and all(looks_like_a_sequence(line.decode(errors="replace")) for _, line in first):
        raise DataError(
            f"{path}, line {first[0][0]}: looks like a sequence, and lines of a .txt file are embedded as texts; write "
            "FASTA, with a line '>name' before each sequence."
        )


def _read_pairs(folder: str, content: Content) -> Iterator[dict[str, Any] | BadEntry]:
    for item in pairs_blocks(folder, _READ_ROWS):
        yield from read_block(item, content).to_pylist()


def _read_fasta(path: str) -> Iterator[dict[str, Any] | BadEntry]:
    with open_stream(path) as stream:
        for record in read_records(stream, path):
            yield record if isinstance(record, BadEntry) else _fasta_row(record, path)


def _fasta_row(record: Record, path: str) -> dict[str, Any]:
    header = record.header
    return {
        "accession": header.accession,
        "name": record.display_name,
        "organism": header.organism,
        "organism_id": header.organism_id,
        "reviewed": header.reviewed,
        "ec": [],
        "gene": [header.gene] if header.gene else None,
        **_sequence(record.sequence),
        "source": path,
        "line": record.line,
    }


def _sequence(sequence: str) -> dict[str, Any]:
    return {"length": len(sequence), "sequence_hash": hash64(sequence), "sequence": sequence}


def _read_entries(path: str, content: Content) -> Iterator[dict[str, Any] | BadEntry]:
    for number, entry in enumerate(open_entries(path), start=1):
        if isinstance(entry, BadEntry):
            yield entry
        elif content == "text" and not (text := _text_of(entry)):
            refusal = RefusedError("no text", "", "an entry with a name or one of the three comments")
            yield refusal.at(source=path, line=number, accession=entry.accession)
        else:
            yield {
                "accession": entry.accession,
                "name": entry.display_name or entry.name,
                "organism": entry.organism,
                "organism_id": entry.organism_id,
                "reviewed": entry.reviewed,
                "ec": list(entry.ec),
                "gene": list(entry.gene) or None,
                "text": text if content == "text" else None,
                **_sequence(entry.sequence),
                "source": path,
                "line": number,
            }


def _text_of(entry: Entry) -> str:
    return biotext(*(getattr(entry, name) for name in shards.PROPERTIES))


def _read_lines(path: str) -> Iterator[dict[str, Any] | BadEntry]:
    """The lines that are not blank, keyed ``line-N`` by their number from 1."""
    with open_stream(path) as stream:
        for number, line in read_lines(stream, path, "a file of text lines"):
            if not is_utf8(line) or b"\0" in line:  # UTF-16 has zero bytes
                yield not_utf8(line, path, number)
            elif (text := line.decode().strip()) and means_nothing(text):
                yield RefusedError("no text", text, "a text").at(source=path, line=number, accession=None)
            elif text:
                yield {"accession": f"line-{number}", "ec": [], "text": text, "source": path, "line": number}


def _read_parquet(path: str, inputs: Inputs, content: Content) -> Iterator[dict[str, Any] | BadEntry]:
    with open_parquet(path, keep_dictionaries=True) as file:
        names = file.schema_arrow.names
        key = _column(path, names, [inputs.id_column] if inputs.id_column else _ID_COLUMNS)
        value = _column(path, names, [inputs.value_column or ("text" if content == "text" else "sequence")])
        places = {field: find_column(names, spellings) for field, (spellings, _) in _SHOWN.items()}
        shown = {field: names[i] for field, i in places.items() if i is not None and names[i] != value}
        number = 0
        columns = sorted({key, value, *shown.values()})
        num_rows = min(_READ_ROWS, rows_at_once(file, columns, path))
        for batch in file.iter_batches(batch_size=num_rows, columns=columns):
            batch.validate(full=True)
            cells_of = {name: column_values(batch.column(name)) for name in columns}
            for i in range(len(batch)):
                number += 1
                facts = {field: cells_of[column][i] for field, column in shown.items()}
                yield _parquet_row(cells_of[key][i], cells_of[value][i], facts, content, path, number)


def _column(path: str, names: Sequence[str], wanted: Sequence[str]) -> str:
    if (place := find_column(names, wanted)) is not None:
        return names[place]
    raise DataError(
        f"{path}: has no column {' or '.join(wanted)}; columns are {', '.join(names)}. Name yours by --id-column and "
        "--column."
    )


def _parquet_row(
    key: Any, value: Any, facts: Mapping[str, Any], content: Content, path: str, number: int
) -> dict[str, Any] | BadEntry:
    accession = None if key is None else cells.text_or_none(str(key))
    try:
        if accession is None:
            raise RefusedError("no accession", repr(key), "an identifier in every row")
        if not isinstance(value, str):
            raise RefusedError(f"no {content}", repr(value), "a string in every row")
        if len(value) > MAX_ROW_BYTES:
            raise RefusedError("too large", f"{len(value):,} characters", f"at most {MAX_ROW_BYTES:,}")
        row = {"accession": accession, "ec": [], "source": path, "line": number}
        row |= {field: _fact(field, fact) for field, fact in facts.items() if fact is not None}
        if content == "text":
            if means_nothing(value):
                raise RefusedError("no text", repr(value), "a text in every row")
            return {**row, "text": value}
        if means_nothing(value):
            raise RefusedError("no sequence", repr(value), "residues in every row")
        residues = bare_residues(value)
        if (position := find_invalid_residue(residues)) is not None:
            message = invalid_residue_message(residues, position)
            raise RefusedError("letter outside the alphabet", message, "the 20 amino acids and BJOUXZ")
        return {**row, **_sequence(residues.upper())}
    except RefusedError as refusal:
        return refusal.at(source=path, line=number, accession=accession)


def _fact(field: str, value: Any) -> Any:
    """What an answer shows, of a cell that has it as a value or as a table writes it.

    Raises:
        RefusedError: if the cell cannot be understood.
    """
    if field == "reviewed" and isinstance(value, bool):
        return value
    if field == "ec":
        items = value if isinstance(value, list) else [value]
        return [number for item in items if item is not None for number in cells.ec_numbers(str(item))]
    if field == "gene" and isinstance(value, list):
        return list(each_once(str(item).strip() for item in value if item is not None)) or None
    if field == "gene":
        return list(parse_gene_cells(str(value))) or None
    return _SHOWN[field][1](str(value))
