"""Entries into the folder of pairs, in steps that know nothing of who runs them.

    read_unit      one block of an input → its sampled rows, sorted by the hash order
    merge_shard    one range of the order → its rows of all blocks, each accession once     (merging.py)
    split_rows     all shards → what is merged away, and the split of each row              (splits.py)
    finish_shard   one shard → its files in the folder of pairs                             (merging.py)

A shard is a range of hash(seed, accession), so units run anywhere in any order, and what becomes of an entry depends on
the settings and the entries alone: not on the number of inputs, blocks, workers or shards.

Each unit leaves its files and then a report in the work folder. A unit with a report is done; without one, what it
left is written again. So a run that was killed goes on where it was, and ends with the same bytes.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from operator import attrgetter
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from protclip import files
from protclip.fields import check_number, check_types
from protclip.hashing import hash64
from protclip.protanno.blocks import Block, read_block
from protclip.protanno.sampling import (
    GROUPS,
    Group,
    SamplingConfig,
    group_numbers,
    is_drawn,
    sampling_probability,
    why_no_candidate,
)
from protclip.protanno.shards import PROPERTIES, SCHEMA
from protclip.protanno.splits import SplitConfig
from protclip.uniprot.entry import BadEntry, Entry
from protclip.uniprot.residues import Nucleotides, looks_like_nucleotides

QUARANTINE_FILE = "quarantine.jsonl"
ROW_SCHEMA = SCHEMA.append(pa.field("order", pa.uint64(), nullable=False))
"""Of the rows on their way."""
SORT_KEYS = [("order", "ascending"), ("accession", "ascending")]


@dataclass(frozen=True, kw_only=True, slots=True)
class CurationConfig:
    """What decides on the rows of a folder of pairs."""

    seed: int = 0
    """Seed of the sampling, the order and the splits."""
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    deduplicate: bool = False
    """Keep one entry for each sequence: the best described one."""
    split: SplitConfig = field(default_factory=SplitConfig)
    shard_mb: float = 256
    """Text of a shard, in millions of characters, at most and on average; a unit holds a few times as much."""
    row_group_rows: int = 512
    """Rows of a parquet row group, the unit that the training stream reads."""

    def __post_init__(self) -> None:
        check_types("", self)
        check_number("seed", self.seed, at_least=0, below=2**63)
        check_number("shard_mb", self.shard_mb, above=0)
        check_number("row_group_rows", self.row_group_rows, at_least=1)

    def num_shards(self, num_chars: int) -> int:
        """How many shards so much text makes."""
        return max(1, math.ceil(num_chars / (self.shard_mb * 1e6)))


@dataclass(kw_only=True, slots=True)
class ReadReport:
    """What became of the entries of one block; all fields are JSON values."""

    num_read: int = 0
    """Entries, good and bad."""
    num_kept: int = 0
    num_chars: int = 0
    """Of sequences and properties of the kept entries."""
    num_without_text: int = 0
    """Kept entries without any property."""
    not_sampled: dict[str, int] = field(default_factory=Counter)
    """By reason."""
    quarantined: dict[str, int] = field(default_factory=Counter)
    """By reason."""
    coverage: dict[str, int] = field(default_factory=Counter)
    """Good entries before sampling by properties present, ``1`` to ``4``."""
    existence: dict[str, int] = field(default_factory=Counter)
    """Good entries before sampling by protein existence, ``1`` to ``5``, or ``unknown``."""
    candidates: dict[str, int] = field(default_factory=Counter)
    """Unreviewed entries that may be drawn, by ``properties/existence``."""
    drawn: dict[str, int] = field(default_factory=Counter)
    """Those of them that were kept."""
    nucleotides: int = 0
    """Kept entries whose sequences look like DNA or RNA."""
    first_nucleotides: str = ""
    """Accession of the first of them."""


def read_unit(block: Block, stem: str, config: CurationConfig) -> ReadReport:
    """Sample the entries of a block and write their rows, and the entries that cannot be used.

    Args:
        block: of an input.
        stem: of the unit's files: STEM.parquet, where rows are kept, and STEM.jsonl, where some cannot be used.
        config: seed and sampling.

    Raises:
        DataError: as ``read_block``.
    """
    report = ReadReport()
    rows, refused = [], []
    nucleotides = Nucleotides()
    probabilities = np.array([sampling_probability(group, config.sampling) for group in GROUPS])
    num_good, num_drawn = np.zeros((2, len(GROUPS)), np.int64)
    for batch in read_block(block):
        report.num_read += len(batch.reviewed) + len(batch.bad)
        bad = list(batch.bad)
        # Millions of unreviewed entries fall into a few groups, most of which are no candidates.
        numbers = group_numbers(batch)
        num_good += np.bincount(numbers, minlength=len(GROUPS))
        for i in np.flatnonzero(probabilities[numbers]).tolist():
            probability = float(probabilities[numbers[i]])
            if config.sampling.draw == "each-epoch" or is_drawn(batch.accession(i), probability, config.seed):
                entry = batch.entry(i)
                if isinstance(entry, BadEntry):
                    bad.append(entry)
                    num_good[numbers[i]] -= 1
                    continue
                num_drawn[numbers[i]] += 1
                if looks_like_nucleotides(entry.sequence):
                    nucleotides.add(entry.accession)
                row = _row(entry, probability, config.seed)
                num_text_chars = sum(len(row[name] or "") for name in PROPERTIES)
                report.num_chars += len(row["sequence"]) + num_text_chars
                report.num_without_text += num_text_chars == 0
                rows.append(row)
        for entry in sorted(bad, key=attrgetter("line")):
            report.quarantined[entry.reason] += 1
            refused.append(json.dumps(entry.record(), sort_keys=True).encode() + b"\n")
    _count(report, num_good, num_drawn, config.sampling)
    report.num_kept = len(rows)
    report.nucleotides, report.first_nucleotides = nucleotides.number, nucleotides.first
    if rows:
        table = pa.Table.from_pylist(rows, schema=ROW_SCHEMA).sort_by(SORT_KEYS)
        with files.atomic_write(f"{stem}.parquet") as stream:
            # Small row groups: a shard reads only those of its range.
            pq.write_table(table, stream, row_group_size=4096)
    if refused:
        with files.atomic_write(f"{stem}.jsonl") as stream:
            stream.writelines(refused)
    return report


def _count(report: ReadReport, num_good: np.ndarray, num_drawn: np.ndarray, sampling: SamplingConfig) -> None:
    """Add what each of GROUPS has of good entries, and of those of them that were drawn, to the report."""
    for group, number, drawn in zip(GROUPS, num_good.tolist(), num_drawn.tolist(), strict=True):
        if not number:
            continue
        report.coverage[str(group.num_properties)] += number
        report.existence[str(group.existence or "unknown")] += number
        if sampling.dataset != "all" and group.reviewed is False:
            if refusal := why_no_candidate(group, sampling):
                report.not_sampled[refusal] += number
                continue
            cell = f"{group.num_properties}/{group.existence}"
            report.candidates[cell], report.drawn[cell] = number, drawn
            if number > drawn:
                report.not_sampled["not drawn"] += number - drawn


def sampling_groups(counts: Mapping[str, int]) -> dict[Group, int]:
    """Candidates by group, of those by ``properties/existence``."""
    cells = {tuple(map(int, cell.split("/"))): number for cell, number in counts.items()}
    return {
        Group(reviewed=False, existence=existence, num_properties=properties): number
        for (properties, existence), number in cells.items()
    }


def settings(config: CurationConfig) -> dict[str, Any]:
    """The configuration as JSON values, for the manifest."""
    split = asdict(config.split)
    del split["split_by"]
    return {**asdict(config), "split": {"method": config.split.method, "uniref50": config.split.uniref50, **split}}


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
        "gene": entry.gene or None,
        "sequence_hash": hash64(entry.sequence),
        "probability": probability,
        "order": hash64(seed, "order", entry.accession),
    }
