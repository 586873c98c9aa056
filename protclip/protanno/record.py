"""The manifest's body of a folder of pairs: counts, composition, sources."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

from protclip import files
from protclip.errors import DataError
from protclip.protanno import reading, splits
from protclip.protanno.merging import MergeReport, ShardReport
from protclip.protanno.reading import CurationConfig, ReadReport
from protclip.protanno.shards import PROPERTIES, SPLITS
from protclip.protanno.splits import SplitReport
from protclip.units import total


def pairs_record(
    paths: Sequence[str],
    units: Sequence[Mapping[str, ReadReport]],
    merged: Sequence[MergeReport],
    split: SplitReport,
    finished: Sequence[ShardReport],
    config: CurationConfig,
) -> dict[str, Any]:
    """What the manifest of a folder of pairs says of them and of where they come from, as JSON values.

    Args:
        paths: the inputs.
        units: of each input the reports of its blocks.
        merged: of each shard.
        split: of all.
        finished: of each shard.
        config: of the curation.
    """
    reports = [report for read in units for report in read.values()]
    quarantined = total([report.quarantined for report in reports])
    rows = total([report.num_rows for report in finished])
    clusters = {
        "method": config.split.method,
        "parameters": dict(splits.PARAMETERS[config.split.method]),
        "number": split.num_clusters,
        "largest": split.largest_cluster,
    }
    if split.num_unlisted is not None:
        clusters["rows_without_one"] = split.num_unlisted
    return {
        "splits": {name: rows[name] for name in SPLITS},
        "clusters": clusters,
        "settings": reading.settings(config),
        "inputs": [
            {
                "path": path,
                "bytes": files.size(path),
                "release": _release(path),
                "rows": sum(report.num_read for report in read.values()),
                "kept": sum(report.num_kept for report in read.values()),
            }
            for path, read in zip(paths, units, strict=True)
        ],
        "counts": {
            "read": sum(report.num_read for report in reports),
            "kept": rows.total(),
            "without_text": sum(report.num_without_text for report in finished),
            "quarantined": quarantined.total(),
            "quarantined_by_reason": dict(quarantined),
            "not_sampled_by_reason": dict(total([report.not_sampled for report in reports])),
            "repeated_accession": sum(report.num_repeated for report in merged),
            "merged_sequence": split.num_merged,
            "nucleotides": sum(report.nucleotides for report in reports),
        },
        # Shares as the paper's Figure 2 and Table 1 give them; before sampling a repeated accession counts each time.
        "composition": {
            "before_sampling": {
                "coverage": _coverage_shares([report.coverage for report in reports]),
                "existence": _shares([report.existence for report in reports]),
            },
            "after_sampling": {
                "coverage": _coverage_shares([report.coverage for report in finished]),
                "existence": _shares([report.existence for report in finished]),
            },
        },
    }


def _release(path: str) -> str | None:
    """The release that an input is of, where ``fetch-uniprot`` left its record beside it."""
    with contextlib.suppress(DataError, AttributeError):
        if files.exists(f"{path}.json"):
            release: str | None = files.read_json(f"{path}.json").get("release")
            return release
    return None


def _shares(counters: Sequence[Mapping[str, int]]) -> dict[str, float]:
    counts = total(counters)
    return {name: round(counts[name] / counts.total(), 6) for name in sorted(counts)}


def _coverage_shares(counters: Sequence[Mapping[str, int]]) -> dict[str, float]:
    return {f"{name}/{len(PROPERTIES)}": share for name, share in _shares(counters).items()}
