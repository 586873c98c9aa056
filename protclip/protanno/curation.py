"""Entries into the folder of pairs, in two steps that know nothing of who runs them.

    spill_input    one input file  → sampled rows, spread over temporary files, one for each shard of the hash order
    finish_shard   one shard       → its rows of all inputs, merged, sorted, split and written

A shard is a range of hash(seed, accession), so both steps run anywhere in any order, and what becomes of an entry
depends on the seed and the entry alone: not on the number of inputs, workers or shards.
"""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import compress
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from protclip import files
from protclip.hashing import hash64, uniform
from protclip.protanno.biotext import biotext
from protclip.protanno.sampling import Group, SamplingConfig, is_drawn, sampling_probability, why_no_candidate
from protclip.protanno.shards import PROPERTIES, SCHEMA
from protclip.uniprot.entry import BadEntry, Entry
from protclip.uniprot.formats import open_batches

SPLITS = ("train", "heldout")
SPILL_FOLDER = ".spill"
QUARANTINE_FILE = "quarantine.jsonl"
BUFFER_BYTES = 64 << 20
"""Text that spill_input holds back over all shards before it writes."""

_ORDER = pa.field("order", pa.uint64(), nullable=False)
_SPILL_SCHEMA = SCHEMA.append(_ORDER)
_SORT_KEYS = [("order", "ascending"), ("accession", "ascending")]


@dataclass(frozen=True, kw_only=True, slots=True)
class CurationConfig:
    """What decides on the rows of a folder of pairs."""

    seed: int = 0
    """Of the sampling, the order and the held-out split."""
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    heldout_fraction: float = 0.05
    """Share of the sequences that are held out; a sequence is in one split only."""
    num_shards: int = 1
    """Ranges of the hash order, one file of each split for each."""
    row_group_rows: int = 512
    """Rows of a parquet row group, the unit that the training stream reads."""


@dataclass(kw_only=True, slots=True)
class SpillReport:
    """What became of the entries of one input file; all fields are JSON values."""

    path: str
    num_read: int = 0
    """Entries, good and bad."""
    num_kept: int = 0
    not_sampled: dict[str, int] = field(default_factory=Counter)
    """By reason."""
    quarantined: dict[str, int] = field(default_factory=Counter)
    """By reason."""
    coverage: dict[str, int] = field(default_factory=Counter)
    """Good entries before sampling by properties present, ``1`` to ``4``."""
    existence: dict[str, int] = field(default_factory=Counter)
    """Good entries before sampling by protein existence, ``1`` to ``5``, or ``unknown``."""
    spills: dict[str, str] = field(default_factory=dict)
    """The temporary file of each shard that got rows."""


@dataclass(kw_only=True, slots=True)
class ShardReport:
    """What was written of one shard; all fields are JSON values."""

    num_rows: dict[str, int] = field(default_factory=Counter)
    """By split."""
    num_repeated: int = 0
    """Rows left out because their accession came more than once."""
    coverage: dict[str, int] = field(default_factory=Counter)
    """Rows by properties present."""
    existence: dict[str, int] = field(default_factory=Counter)
    """Rows by protein existence."""
    files: list[str] = field(default_factory=list)
    """Names in the folder."""


def spill_input(path: str, folder: str, ordinal: int, config: CurationConfig) -> SpillReport:
    """Stream one input file: sample its entries and spread their rows over one temporary file for each shard.

    Args:
        path: a file that ``open_batches`` reads.
        folder: the output folder; temporary files go into SPILL_FOLDER in it.
        ordinal: of the input; it names the temporary files.
        config: seed, sampling and number of shards.

    Raises:
        DataError: if the file cannot be read to its end.
    """
    report = SpillReport(path=path)
    groups: Counter[tuple[bool | None, int | None, int]] = Counter()
    probabilities: dict[tuple[bool | None, int | None, int], float] = {}
    spill = files.join(folder, SPILL_FOLDER, f"{ordinal:06d}")
    files.make_folder(spill)
    with files.atomic_write(files.join(spill, QUARANTINE_FILE)) as quarantine, _Spiller(spill, config) as spiller:
        for batch in open_batches(path):
            report.num_read += len(batch.reviewed) + len(batch.bad)
            bad = list(batch.bad)
            # Millions of unreviewed entries fall into a few groups, most of which are no candidates.
            members = list(zip(batch.reviewed, batch.existence, batch.num_properties, strict=True))
            groups.update(members)
            for group in groups.keys() - probabilities.keys():
                probabilities[group] = sampling_probability(Group(*group), config.sampling)
            chances = list(map(probabilities.__getitem__, members))
            for i in compress(range(len(chances)), chances):
                if is_drawn(batch.accession(i), chances[i], config.seed):
                    entry = batch.entry(i)
                    if isinstance(entry, BadEntry):
                        bad.append(entry)
                        groups[members[i]] -= 1
                    else:
                        report.num_kept += 1
                        spiller.add(_row(entry, chances[i], config.seed))
            for entry in bad:
                report.quarantined[entry.reason] += 1
                quarantine.write(json.dumps(entry.record(), sort_keys=True).encode() + b"\n")
    report.spills = {str(shard): spiller.path(shard) for shard in sorted(spiller.writers)}
    for key, number in groups.items():
        group = Group(*key)
        report.coverage[str(group.num_properties)] += number
        report.existence[str(group.existence or "unknown")] += number
        if probabilities[group] <= 0.0:
            report.not_sampled[str(why_no_candidate(group, config.sampling))] += number
    if num_not_drawn := groups.total() - report.num_kept - sum(report.not_sampled.values()):
        report.not_sampled["not drawn"] = num_not_drawn
    return report


def finish_shard(shard: int, folder: str, spills: Sequence[str], config: CurationConfig) -> ShardReport:
    """Merge the temporary files of one shard into its files of the folder of pairs.

    Rows are sorted by (hash(seed, accession), accession). Of rows with one accession the reviewed one is kept, then
    that with the longer sequence, then with the longer text, then the first by value. A split without rows in this
    shard gets no file.

    Args:
        shard: from 0.
        folder: the output folder.
        spills: the temporary files of this shard, in any order.
        config: as for spill_input.
    """
    report = ShardReport()
    table = pa.concat_tables([_read_table(path) for path in spills]).sort_by(_SORT_KEYS)
    keep = _first_of_each_accession(table)
    report.num_repeated = table.num_rows - len(keep)
    table = table.take(pa.array(keep)).select(SCHEMA.names)
    heldout = pa.array(
        [uniform(config.seed, "heldout", text) < config.heldout_fraction for text in table["sequence"].to_pylist()],
        pa.bool_(),
    )
    for split, rows in zip(SPLITS, (table.filter(pc.invert(heldout)), table.filter(heldout)), strict=True):
        if rows.num_rows:
            name = f"{split}-{shard:05d}-of-{config.num_shards:05d}.parquet"
            with files.atomic_write(files.join(folder, name)) as stream:
                pq.write_table(rows, stream, compression="zstd", row_group_size=config.row_group_rows)
            report.files.append(name)
        report.num_rows[split] = rows.num_rows
    present = [pc.cast(pc.is_valid(table[name]), pa.int8()) for name in PROPERTIES[1:]]
    report.coverage = _count([1 + n for n in pc.add(pc.add(present[0], present[1]), present[2]).to_pylist()])
    report.existence = _count(table["existence"].to_pylist())
    return report


class _Spiller(contextlib.AbstractContextManager["_Spiller"]):
    """Rows into one parquet file for each shard, in bounded memory."""

    def __init__(self, folder: str, config: CurationConfig) -> None:
        self.folder = folder
        self.width = -(-(1 << 64) // config.num_shards)
        self.writers: dict[int, pq.ParquetWriter] = {}
        self.rows: dict[int, list[dict[str, Any]]] = {}
        self.num_bytes = 0
        self.stack = contextlib.ExitStack()

    def path(self, shard: int) -> str:
        return files.join(self.folder, f"{shard:05d}.parquet")

    def add(self, row: dict[str, Any]) -> None:
        self.rows.setdefault(row["order"] // self.width, []).append(row)
        self.num_bytes += len(row["sequence"]) + sum(len(row[name] or "") for name in PROPERTIES) + 200
        if self.num_bytes > BUFFER_BYTES:
            self.flush()

    def flush(self) -> None:
        for shard, rows in self.rows.items():
            if shard not in self.writers:
                fs, inner = files.filesystem(self.path(shard))
                stream = self.stack.enter_context(fs.open(inner, "wb"))
                self.writers[shard] = self.stack.enter_context(pq.ParquetWriter(stream, _SPILL_SCHEMA))
            self.writers[shard].write_table(pa.Table.from_pylist(rows, schema=_SPILL_SCHEMA))
        self.rows, self.num_bytes = {}, 0

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.flush()
        self.stack.close()


def _row(entry: Entry, probability: float, seed: int) -> dict[str, Any]:
    return {
        "accession": entry.accession,
        "sequence": entry.sequence,
        **{name: getattr(entry, name) for name in PROPERTIES},
        "existence": entry.existence,
        "reviewed": entry.reviewed,
        "display_name": entry.display_name,
        "organism": entry.organism,
        "organism_id": entry.organism_id,
        "ec": entry.ec,
        "sequence_hash": hash64(entry.sequence),
        "probability": probability,
        "order": hash64(seed, "order", entry.accession),
    }


def _read_table(path: str) -> pa.Table:
    with files.open_read(path) as stream:
        return pq.read_table(stream, schema=_SPILL_SCHEMA)


def _first_of_each_accession(table: pa.Table) -> list[int]:
    """Indices of the kept rows of a sorted table, in its order."""
    accessions = table["accession"].to_pylist()
    kept = []
    for start, end in _runs(accessions):
        indices = range(start, end)
        kept.append(start if end - start == 1 else min(indices, key=lambda i: _preference(table, i)))
    return kept


def _runs(values: Sequence[str]) -> Iterator[tuple[int, int]]:
    start = 0
    for i in range(1, len(values) + 1):
        if i == len(values) or values[i] != values[start]:
            yield start, i
            start = i


def _preference(table: pa.Table, index: int) -> tuple[Any, ...]:
    """Smaller is better; it depends on the row alone, not on its place."""
    row = table.slice(index, 1).to_pylist()[0]
    text = biotext(*(row[name] for name in PROPERTIES))
    return not row["reviewed"], -len(row["sequence"]), -len(text), json.dumps(row, sort_keys=True)


def _count(values: Sequence[int | None]) -> dict[str, int]:
    return Counter("unknown" if value is None else str(value) for value in values)


def settings(config: CurationConfig) -> dict[str, Any]:
    """The configuration as JSON values, for the manifest."""
    return asdict(config)
