"""``protclip index``: embeddings into a searchable HNSW index, a Ray task for each subindex where there are several."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import click
import numpy as np

from protclip.commands.options import config_options
from protclip.embeddings.reading import read_embeddings
from protclip.errors import ConfigError
from protclip.extras import require
from protclip.fields import configured
from protclip.index.build import build_index
from protclip.index.config import BuildConfig
from protclip.index.estimate import estimate
from protclip.index.external import QUARANTINE_FILE
from protclip.terminal import echo
from protclip.units import InProcess, Item, Report, Work
from ray_jobs.cluster import end_with_ray, resolve_input, resolve_output
from ray_jobs.pipelines import OnRay

MANY_UNREACHED = 0.02
"""Share of the vectors above which those that graphs do not find make searching slow."""
SMALL_BYTES = 2 << 30
"""Memory that a single subindex may need to be built without Ray, whose start and tasks take most of a minute."""


@click.command()
@config_options(BuildConfig, argument="embeddings", metavar="EMBEDDINGS")
@click.option("--dry-run", is_flag=True, help="Print what it takes in memory, on disk and in time; write nothing.")
def main(*, dry_run: bool, **values: Any) -> None:
    """Build the INDEX over a folder of EMBEDDINGS, and measure its recall against exact search.

    EMBEDDINGS is what embed wrote, a path or URL:

    \b
        protclip index my-embeddings --output my-index
        protclip index new-embeddings --previous my-index --output new-index
        protclip index per-protein.h5 --model prott5 --output prott5-index

    Rows of another tool's vectors that cannot be used are listed in quarantine.jsonl, with the reason.
    After an interruption, give the same command again, and it goes on where it was.
    """
    end_with_ray()
    config = with_paths(configured(BuildConfig, values))
    if dry_run:
        if config.model is not None:
            raise ConfigError("--dry-run is for embeddings that embed wrote; leave --model out.")
        if config.previous is not None:
            raise ConfigError("--dry-run tells what an index takes that is built anew; leave --previous out.")
        for line in estimate(read_embeddings(config.embeddings), config):
            echo(f"index: {line}")
        return
    run_index(config)


def with_paths(config: BuildConfig) -> BuildConfig:
    """The same with paths that mean the same in every folder."""
    previous, ids = (None if path is None else resolve_input(path) for path in (config.previous, config.ids))
    return replace(
        config,
        embeddings=resolve_input(config.embeddings),
        output=resolve_output(config.output),
        previous=previous,
        ids=ids,
        queries=tuple(map(resolve_input, config.queries)),
    )


def run_index(config: BuildConfig) -> None:
    """Build an index, here or on Ray, and say what came of it; of a config with absolute paths."""
    start = time.monotonic()
    manifest = build_index(config, HereOrOnRay())
    if manifest.quarantined:
        said = ", ".join(f"{reason}: {count:,}" for reason, count in manifest.quarantined.items())
        echo(f"index: rows that cannot be used, listed in {config.output}/{QUARANTINE_FILE}: {said}", err=True)
    for kind, measured in manifest.recall.items():
        echo(
            f"index: {kind} queries ({measured['queries']:,}): recall@10 {measured['at_10']:.4f}, "
            f"recall@100 {measured['at_100']:.4f}"
            + (f", in the lowest tenth {measured['lowest_at_10']:.4f} at 10" if "lowest_at_10" in measured else "")
        )
    for kind, best in manifest.background.items():
        middle, high = np.quantile(best, [0.5, 0.95])
        echo(
            f"index: random {kind} questions ({len(best):,}): the best answer scores {middle:.4f} in the median, below "
            f"{high:.4f} for 95 %"
        )
    larger = "--graph-dimension, --m or --ef-construction" if manifest.is_compact else "--m or --ef-construction"
    unreached, nodes = (sum(getattr(one, what) for one in manifest.segments) for what in ("unreached", "num_nodes"))
    if unreached > MANY_UNREACHED * nodes:
        echo(
            f"index: warning: {unreached:,} of {nodes:,} vectors are not found by the graphs, and are compared with "
            f"every question, which takes its time; build with a larger {larger}.",
            err=True,
        )
    reached = 1.0 if manifest.recall_at_10 is None else manifest.recall_at_10
    if manifest.wanted_recall is not None and reached < manifest.wanted_recall:
        echo(
            f"index: warning: recall@10 is {reached:.4f} at the largest ef_search tried, below "
            f"the wanted {manifest.wanted_recall}; build with a larger {larger}.",
            err=True,
        )
    if manifest.release is not None:
        echo("index: " + ", ".join(f"{name} {value}" for name, value in manifest.release.items()))
    echo(
        f"index: {manifest.count:,} {manifest.content} vectors of dimension {manifest.dimension}, "
        + (f"{manifest.width} numbers of each in graphs, " if manifest.is_compact else "")
        + f"subindexes: {len(manifest.segments)}, ef_search {manifest.ef_search}, {time.monotonic() - start:.1f} s "
        f"→ {config.output}"
    )


class HereOrOnRay(OnRay):
    """A single small unit in this process, several or a large one on Ray, each with its memory reserved."""

    def __call__(self, work: Work, items: Sequence[Item]) -> Iterator[Report]:
        """Do a unit for each item; gives the reports as they come."""
        if len(items) == 1 and (work.memory_bytes or 0) <= SMALL_BYTES:
            return InProcess()(work, items)
        require("ray", extra="ray", what="an index of several subindexes, or a release of several parts")
        return super().__call__(work, items)
