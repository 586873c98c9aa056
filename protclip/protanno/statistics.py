"""What a folder of pairs is made of, in numbers that can be held against the published data sets.

The rows are read a batch at a time, and only what is counted stays: lengths, and organisms by their identifier.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from protclip import files
from protclip.checked import Count, checked
from protclip.errors import DataError
from protclip.manifest import FILE_NAME
from protclip.parquet import open_parquet
from protclip.protanno.shards import PROPERTIES, read_pairs

# Zhou et al. 2025, Figure 2 and Table 1: shares of entries by property coverage R and by confidence C, the level of
# protein existence. Those of ProtAnno-D are of the set before sampling: the rule lets no R < 3/4 and no C > 3 through.
PUBLISHED = {
    "ProtAnno-S": {
        "coverage": {"1/4": 0.0259, "2/4": 0.1062, "3/4": 0.3691, "4/4": 0.4988},
        "existence": {"1": 0.1982, "2": 0.0980, "3": 0.6777, "4": 0.0229, "5": 0.0032},
    },
    "ProtAnno-D": {
        "coverage": {"1/4": 0.6211, "2/4": 0.1814, "3/4": 0.1182, "4/4": 0.0793},
        "existence": {"1": 0.0013, "2": 0.0057, "3": 0.3269, "4": 0.6661, "5": 0.0000},
    },
}
QUANTILES = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 1.0)
TOP_ORGANISMS = 10
BATCH_ROWS = 8192
HISTOGRAM_BINS = 48

_COLUMNS = ["sequence", *PROPERTIES, "existence", "reviewed", "organism", "organism_id"]
_REVIEWED = {True: "reviewed", False: "unreviewed", None: "unknown"}
_NAME_LABEL = len("PROTEIN NAME: .")
"""Characters that the biotext puts round a name."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Counts:
    read: Count
    kept: Count
    quarantined_by_reason: dict[str, Count]
    not_sampled_by_reason: dict[str, Count]
    repeated_accession: Count


@dataclass(frozen=True, kw_only=True, slots=True)
class _Shares:
    coverage: dict[str, float]
    existence: dict[str, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Composition:
    before_sampling: _Shares


@dataclass(frozen=True, kw_only=True, slots=True)
class _Record:
    """What the manifest has to hold for the tables."""

    counts: _Counts
    composition: _Composition


def pairs_statistics(folder: str) -> dict[str, Any]:
    """Count a finished folder of pairs, all splits together.

    Args:
        folder: path or URL.

    Returns:
        JSON values: ``rows`` by split; ``reviewed``; ``properties``, how many rows have each; ``composition``, shares
        by coverage (``1/4`` to ``4/4``) and existence (``1`` to ``5``, ``unknown``) before sampling, as the manifest
        has them, and after, as the rows are; ``published``, the same of ProtAnno-S and -D; ``residues`` and
        ``text_characters``, the distributions of the lengths of sequence and biotext; ``organisms``, their number and
        the most frequent; ``counts`` of curation: read, kept, quarantined, not sampled, repeated.

    Raises:
        DataError: if the folder is unfinished, damaged, or another kind of folder.
    """
    pairs = read_pairs(folder)
    manifest = pairs.manifest
    checked(_Record, manifest, files.join(folder, FILE_NAME))
    rows: Counter[str] = Counter()
    coverage: Counter[str] = Counter(dict.fromkeys(PUBLISHED["ProtAnno-S"]["coverage"], 0))
    existence: Counter[str] = Counter(dict.fromkeys(PUBLISHED["ProtAnno-S"]["existence"], 0))
    reviewed: Counter[str] = Counter()
    properties: Counter[str] = Counter(dict.fromkeys(PROPERTIES, 0))
    lengths, text_lengths, organisms = _Lengths(), _Lengths(), _Organisms()
    for name in pairs.shards:
        for batch in _batches(files.join(folder, name)):
            rows[name.split("-")[0]] += batch.num_rows
            num_properties, text_length = _texts(batch, properties)
            for count, num in zip(*np.unique(num_properties, return_counts=True), strict=True):
                coverage[f"{count}/{len(PROPERTIES)}"] += int(num)
            for level, num in _value_counts(batch["existence"]):
                existence["unknown" if level is None else str(level)] += num
            for value, num in _value_counts(batch["reviewed"]):
                reviewed[_REVIEWED[value]] += num
            lengths.add(_lengths(batch["sequence"]))
            text_lengths.add(text_length)
            organisms.add(batch["organism_id"], batch["organism"])
    if not rows:
        raise DataError(f"{folder}: holds no pairs; there is nothing to describe.")
    return {
        "rows": dict(rows),
        "reviewed": dict(reviewed),
        "properties": dict(properties),
        "composition": {
            "before_sampling": manifest["composition"]["before_sampling"],
            "after_sampling": {"coverage": _shares(coverage), "existence": _shares(existence)},
        },
        "published": PUBLISHED,
        "residues": lengths.summary(),
        "text_characters": text_lengths.summary(),
        "organisms": organisms.summary(),
        "counts": manifest["counts"],
    }


class _Lengths:
    """How often each length occurs: exact quantiles of any number of rows in the memory of the longest."""

    def __init__(self) -> None:
        self.counts = np.zeros(0, np.int64)

    def add(self, lengths: np.ndarray) -> None:
        counts = np.bincount(lengths, minlength=len(self.counts))
        counts[: len(self.counts)] += self.counts
        self.counts = counts

    def summary(self) -> dict[str, Any]:
        """Quantiles (the smallest length that so many of the rows do not exceed), mean, and a histogram.

        The histogram's bins are half-open and grow by a constant factor.
        """
        total = int(self.counts.sum())
        cumulative = np.cumsum(self.counts)
        ranks = [max(1, int(np.ceil(q * total))) for q in QUANTILES]
        shortest, longest = int(np.argmax(self.counts > 0)), len(self.counts) - 1
        growing = np.geomspace(max(1, shortest), longest + 1, HISTOGRAM_BINS + 1).round().astype(int)
        edges = np.unique([shortest, *growing])
        return {
            "quantiles": {
                f"{q:g}": int(np.searchsorted(cumulative, rank)) for q, rank in zip(QUANTILES, ranks, strict=True)
            },
            "mean": round(float(self.counts @ np.arange(len(self.counts))) / total, 2),
            "histogram": {"edges": edges.tolist(), "counts": np.add.reduceat(self.counts, edges[:-1]).tolist()},
        }


class _Organisms:
    """Rows by NCBI taxonomy identifier, with the first name that came with each."""

    def __init__(self) -> None:
        self.counts: Counter[int] = Counter()
        self.names: dict[int, str | None] = {}
        self.num_unknown = 0

    def add(self, organism_ids: pa.Array, names: pa.Array) -> None:
        known = pc.is_valid(organism_ids)
        self.num_unknown += organism_ids.null_count
        ids, first, counts = np.unique(organism_ids.filter(known).to_numpy(), return_index=True, return_counts=True)
        names = names.filter(known)
        for organism_id, i, num in zip(ids.tolist(), first.tolist(), counts.tolist(), strict=True):
            self.counts[organism_id] += num
            if organism_id not in self.names:
                self.names[organism_id] = names[i].as_py()

    def summary(self) -> dict[str, Any]:
        return {
            "num": len(self.counts),
            "rows_without": self.num_unknown,
            "top": [
                {"organism_id": organism_id, "organism": self.names[organism_id], "rows": num}
                for organism_id, num in sorted(self.counts.items(), key=lambda item: (-item[1], item[0]))[
                    :TOP_ORGANISMS
                ]
            ],
        }


def _batches(path: str) -> Iterator[pa.RecordBatch]:
    with open_parquet(path) as file:
        for batch in file.iter_batches(BATCH_ROWS, columns=_COLUMNS):
            batch.validate(full=True)
            yield batch


def _texts(batch: pa.RecordBatch, properties: Counter[str]) -> tuple[np.ndarray, np.ndarray]:
    """Of each row the number of properties, the name always counted, and the length of the biotext.

    The length is the sum of the parts', so that no batch of long texts is put together for it.
    """
    num_parts = np.zeros(batch.num_rows, np.int64)
    num_characters = np.zeros(batch.num_rows, np.int64)
    num_comments = np.zeros(batch.num_rows, np.int64)
    for name in PROPERTIES:
        part = _lengths(batch[name])
        present = part > 0
        properties[name] += int(present.sum())
        num_parts += present
        num_characters += part + (present * _NAME_LABEL if name == "name" else 0)
        if name != "name":
            num_comments += present
    return 1 + num_comments, num_characters + np.maximum(num_parts - 1, 0)  # a space between two parts


def _lengths(texts: pa.Array) -> np.ndarray:
    lengths: np.ndarray = pc.fill_null(pc.utf8_length(texts), 0).to_numpy(zero_copy_only=False)
    return lengths


def _value_counts(values: pa.Array) -> Iterator[tuple[Any, int]]:
    for item in pc.value_counts(values):
        yield item["values"].as_py(), item["counts"].as_py()


def _shares(counts: Counter[str]) -> dict[str, float]:
    total = counts.total()
    return {name: round(num / total, 6) for name, num in sorted(counts.items())}
