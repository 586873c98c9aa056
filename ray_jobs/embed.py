"""``protclip embed``: proteins or texts into a folder of embeddings, by a pool of Ray Data actors."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import Any

import click
import pyarrow as pa
import pyarrow.parquet as pq

from protclip import files
from protclip.errors import ConfigError, DataError
from protclip.hashing import hash64
from protclip.index.embeddings import KIND, METADATA
from protclip.index.manifest import read_checkpoint_fingerprint
from protclip.manifest import FILE_NAME, claim_folder, write_manifest
from protclip.protanno import shards
from protclip.uniprot.entry import BadEntry, RefusedError
from protclip.uniprot.fasta import read_records
from protclip.uniprot.streams import open_stream, read_blocks
from ray_jobs.cluster import connect, resolve_output
from ray_jobs.pipelines import progress, run_actors

CHUNK_ROWS = 4096
"""Rows of one part of the output, about: the unit of work."""

WORK_FOLDER = ".chunks"
QUARANTINE_FILE = "quarantine.jsonl"
OWN_FILES = ("part-*.parquet", QUARANTINE_FILE, WORK_FOLDER)
FASTA_ENDINGS = (".fasta", ".fa", ".faa")
CHUNK_SCHEMA = METADATA.append(pa.field("sequence", pa.string())).append(pa.field("line", pa.int64()))


@click.command()
@click.argument("source", metavar="INPUT")
@click.option("--checkpoint", required=True, help="Folder of the model, such as runs/tiny/best.")
@click.option("--output", required=True, help="Folder of embeddings to write: a path or an fsspec URL.")
@click.option(
    "--content",
    type=click.Choice(["protein", "text"]),
    help="What of a folder of pairs is embedded. Default: protein.",
)
@click.option(
    "--long",
    type=click.Choice(["truncate", "error", "window-mean"]),
    help="Proteins longer than the model sees: cut at the C-terminus, quarantined, or embedded as the mean over "
    "overlapping windows. Default: truncate.",
)
@click.option("--workers", type=click.IntRange(1), help="Actors. Default: one for each CPU, or GPU, of the cluster.")
@click.option("--use-gpu", is_flag=True, help="Give each actor a GPU.")
@click.option("--overwrite", is_flag=True, help="Replace a finished folder of embeddings.")
def main(
    *,
    source: str,
    checkpoint: str,
    output: str,
    content: Any,
    long: Any,
    workers: int | None,
    use_gpu: bool,
    overwrite: bool,
) -> None:
    """Proteins or texts into L2-normalised embeddings, as parquet keyed by accession.

    INPUT is a folder of pairs, a FASTA file with headers of any kind (.fasta, .fa, .faa), or a text file with one text
    a line (.txt), keyed line-1, line-2 and so on; files plain or gzip, by path or fsspec URL. Unusable rows are listed
    in quarantine.jsonl, with the reason. A row's column "long" says how a protein longer than the model sees was read.

    \b
        protclip embed my.fasta --checkpoint runs/tiny/best --output my-embeddings
    """
    started = time.monotonic()
    source, checkpoint, folder = files.absolute(source), files.absolute(checkpoint), resolve_output(output)
    content = _content(source, content)
    long = _long(content, long)
    if not files.exists(source):
        raise DataError(f"{source}: does not exist; check the path.")
    fingerprint = read_checkpoint_fingerprint(checkpoint, verify=True)
    architecture = files.read_json(files.join(checkpoint, "config.json"))
    claim_folder(folder, OWN_FILES, overwrite=overwrite)
    chunks, bad = _chunks(source, folder)
    if chunks:
        connect()
    reports = _embed(chunks, checkpoint, content, folder, long=long, workers=workers, use_gpu=use_gpu) if chunks else []
    files.remove(files.join(folder, WORK_FOLDER))
    bad += [BadEntry(**record) for report in reports for record in report["refused"]]
    _write_quarantine(folder, bad)
    num_rows = sum(report["rows"] for report in reports)
    if not num_rows:
        detail = f"; all {len(bad)} are bad, the first: {bad[0]}" if bad else ""
        raise DataError(f"{source}: holds nothing that can be embedded{detail}.")
    num_long = sum(report["long"] for report in reports)
    manifest = write_manifest(
        folder,
        KIND,
        [*(report["part"] for report in reports if report["part"]), *([QUARANTINE_FILE] if bad else [])],
        content=content,
        model_fingerprint=fingerprint,
        dimension=architecture["projection_dim"],
        rows=num_rows,
        quarantined=len(bad),
        source=source,
        settings={"long": long},
        counts={
            "truncated": num_long if long == "truncate" else 0,
            "window_mean": num_long if long == "window-mean" else 0,
            "mapped_letters": _total(report["mapped"] for report in reports),
        },
    )
    facts = _facts(manifest, longest=architecture["max_protein_tokens"] - 2)
    click.echo(f"embed: {', '.join(facts)}, {time.monotonic() - started:.1f} s → {folder}")


def _facts(manifest: Mapping[str, Any], *, longest: int) -> Iterator[str]:
    counts = manifest["counts"]
    yield f"{manifest['rows']:,} rows embedded"
    yield f"{manifest['quarantined']:,} quarantined"
    if counts["truncated"]:
        yield f"{counts['truncated']:,} cut to {longest:,} residues"
    if counts["window_mean"]:
        yield f"{counts['window_mean']:,} as means over windows of {longest:,} residues"
    for kind, count in counts["mapped_letters"].items():
        yield f"{count:,} letters mapped ({kind})"


def _write_quarantine(folder: str, bad: Sequence[BadEntry]) -> None:
    if bad:
        with files.atomic_write(files.join(folder, QUARANTINE_FILE)) as stream:
            for entry in bad:
                stream.write(json.dumps(entry.record(), sort_keys=True).encode() + b"\n")


def _content(source: str, asked: str | None) -> str:
    """What is embedded of the input: its kind says so, or ``--content`` does for pairs.

    Raises:
        ConfigError: if the two do not go together, or the kind is unknown.
    """
    if files.is_folder(source):
        return asked or "protein"
    name = source.lower().removesuffix(".gz")
    kinds = {".txt": "text", **dict.fromkeys(FASTA_ENDINGS, "protein")}
    kind = next((kind for ending, kind in kinds.items() if name.endswith(ending)), None)
    if kind is None:
        raise ConfigError(
            f"{source}: is neither a folder of pairs nor a file of known kind; known: {', '.join(kinds)}, plain or .gz."
        )
    if asked not in (None, kind):
        raise ConfigError(f"{source} holds {kind}s; --content {asked} is for a folder of pairs.")
    return kind


def _long(content: str, asked: str | None) -> str | None:
    """The policy for long proteins, None for texts.

    Raises:
        ConfigError: if one is asked for texts.
    """
    if content == "text" and asked is not None:
        raise ConfigError(f"--long {asked} is for proteins, and texts are embedded; leave it out.")
    return None if content == "text" else asked or "truncate"


def _total(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """Sums by key, without zeros."""
    total: Counter[str] = Counter()
    for count in counts:
        total.update(count)
    return dict(sorted((+total).items()))


def _chunks(source: str, folder: str) -> tuple[list[dict[str, Any]], list[BadEntry]]:
    """The work as items of about CHUNK_ROWS rows, and the rows that cannot be read."""
    if files.exists(files.join(source, FILE_NAME)):
        return _pairs_chunks(source), []
    if files.is_folder(source):
        raise DataError(f"{source}: is a folder without manifest.json; give a finished folder of pairs, or a file.")
    reader = _read_texts if source.lower().removesuffix(".gz").endswith(".txt") else _read_proteins
    bad: list[BadEntry] = []
    chunks: list[dict[str, Any]] = []
    rows = reader(source, bad.append)
    while part := list(islice(rows, CHUNK_ROWS)):
        path = files.join(folder, WORK_FOLDER, f"{len(chunks):05d}.parquet")
        with files.atomic_write(path) as stream:
            pq.write_table(pa.Table.from_pylist(part, schema=CHUNK_SCHEMA), stream)
        chunks.append(_chunk(path, [0], len(part), len(chunks), source=source, pairs=False))
    return chunks, bad


def _pairs_chunks(folder: str) -> list[dict[str, Any]]:
    chunks: list[dict[str, Any]] = []
    for split in reversed(shards.SPLITS):
        pending: list[shards.RowGroup] = []
        for group in shards.row_groups(folder, split):
            full = sum(waiting.num_rows for waiting in pending) + group.num_rows > CHUNK_ROWS
            if pending and (full or group.path != pending[0].path):
                chunks.append(_group_chunk(pending, len(chunks)))
                pending = []
            pending.append(group)
        if pending:
            chunks.append(_group_chunk(pending, len(chunks)))
    return chunks


def _group_chunk(groups: Sequence[shards.RowGroup], number: int) -> dict[str, Any]:
    num_rows = sum(group.num_rows for group in groups)
    path = groups[0].path
    return _chunk(path, [group.index for group in groups], num_rows, number, source=path, pairs=True)


def _chunk(path: str, row_groups: list[int], num_rows: int, number: int, *, source: str, pairs: bool) -> dict[str, Any]:
    part = f"part-{number:05d}.parquet"
    return {"path": path, "row_groups": row_groups, "rows": num_rows, "part": part, "source": source, "pairs": pairs}


def _read_proteins(source: str, refuse: Callable[[BadEntry], None]) -> Iterator[dict[str, Any]]:
    seen: set[str] = set()
    with open_stream(source) as stream:
        for record in read_records(stream, source):
            if isinstance(record, BadEntry):
                refuse(record)
                continue
            header = record.header
            if header.accession in seen:
                refusal = RefusedError("repeated accession", header.accession, "each accession once")
                refuse(refusal.at(source=source, line=record.line, accession=header.accession))
                continue
            seen.add(header.accession)
            yield {
                "accession": header.accession,
                "name": record.display_name,
                "organism": header.organism,
                "organism_id": header.organism_id,
                "reviewed": header.reviewed,
                "length": len(record.sequence),
                "ec": [],
                "sequence_hash": hash64(record.sequence),
                "sequence": record.sequence,
                "line": record.line,
            }


def _read_texts(source: str, refuse: Callable[[BadEntry], None]) -> Iterator[dict[str, Any]]:
    """The lines that are not blank, keyed ``line-N`` by their number from 1."""
    with open_stream(source) as stream:
        for number, line in enumerate(_lines(stream, source), start=1):
            try:
                text = line.decode().strip()
            except UnicodeDecodeError:
                refusal = RefusedError("not UTF-8", repr(line), "UTF-8 text")
                refuse(refusal.at(source=source, line=number, accession=None))
                continue
            if text:
                yield {"accession": f"line-{number}", "ec": [], "text": text}


def _lines(stream: Any, source: str) -> Iterator[bytes]:
    rest = b""
    for block in read_blocks(stream, source):
        *lines, rest = (rest + block).split(b"\n")
        yield from lines
    if rest:
        yield rest


def _embed(
    chunks: Sequence[Mapping[str, Any]],
    checkpoint: str,
    content: Any,
    folder: str,
    *,
    long: Any,
    workers: int | None,
    use_gpu: bool,
) -> list[dict[str, Any]]:
    import ray

    from ray_jobs.stages import EmbedChunk

    resources = ray.cluster_resources()  # type: ignore[no-untyped-call]
    available = int(resources.get("GPU" if use_gpu else "CPU", 0))
    if available < 1:
        raise ConfigError("--use-gpu: the cluster has no GPU; leave it out, or join a cluster that has (RAY_ADDRESS).")
    reports = run_actors(
        partial(EmbedChunk, checkpoint, content, folder, long=long, use_gpu=use_gpu),
        chunks,
        num_actors=workers or available,
        num_cpus=1.0,
        num_gpus=1.0 if use_gpu else 0.0,
    )
    total = sum(chunk["rows"] for chunk in chunks)
    done = progress(reports, title="embedding", unit="row", total=total, count="read")
    return sorted(done, key=lambda report: report["part"] or "")
