"""``protclip index``: embeddings into a searchable HNSW index, a Ray task for each segment where there are several."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

import click
import numpy as np

from protclip.errors import ConfigError
from protclip.extras import require
from protclip.index.build import IndexConfig, build_index
from protclip.index.embeddings import read_embeddings
from protclip.index.external import QUARANTINE_FILE, open_vectors
from protclip.index.hnsw import HnswConfig
from protclip.index.units import Item, Unit, in_turn
from protclip.terminal import echo
from ray_jobs.cluster import connect, resolve_input, resolve_output
from ray_jobs.pipelines import progress, run_tasks

SMALL_BYTES = 2 << 30
"""Memory that a single segment may need to be built without Ray, whose start and tasks take most of a minute."""


@click.command()
@click.argument("embeddings")
@click.option("--output", required=True, help="Folder or URL of the index.")
@click.option(
    "--model",
    metavar="NAME",
    help="Name of another tool's model, whose vectors are in the file EMBEDDINGS: HDF5 with a dataset per protein, "
    "such as UniProt's per-protein.h5, parquet, or .npy.",
)
@click.option("--ids", metavar="FILE", help="With --model and .npy: the ids of its rows, one a line.")
@click.option(
    "--max-bad-fraction",
    type=click.FloatRange(0, 1),
    default=0.1,
    show_default=True,
    help="With --model: stop if a larger share of the rows is unusable.",
)
@click.option("--previous", help="Index of an earlier release, from which everything that has not changed is taken.")
@click.option(
    "--recall",
    default=0.99,
    show_default=True,
    help="Recall at 10 to reach: the smallest ef_search that does is chosen.",
)
@click.option("--ef-search", type=int, help="Candidates kept while searching; instead of --recall.")
@click.option(
    "--queries",
    multiple=True,
    help="Folder of embeddings of questions, such as texts. They are used to measure the recall, and percentiles for "
    "their kind of question. Once for each kind.",
)
@click.option("--shard-rows", default=1_000_000, show_default=True, help="Largest number of rows of a segment.")
@click.option("--m", default=16, show_default=True, help="Links of a vector per level.")
@click.option("--ef-construction", default=200, show_default=True, help="Candidates kept while building.")
@click.option("--seed", default=0, show_default=True, help="Seed of the graph's levels and of the recall samples.")
@click.option(
    "--max-stale",
    default=0.2,
    show_default=True,
    help="With --previous: build everything anew if more than this share of rows is dead or in segments of changes.",
)
@click.option("--overwrite", is_flag=True, help="Replace an existing index.")
def main(
    *,
    embeddings: str,
    output: str,
    model: str | None,
    ids: str | None,
    max_bad_fraction: float,
    previous: str | None,
    recall: float,
    ef_search: int | None,
    queries: tuple[str, ...],
    shard_rows: int,
    m: int,
    ef_construction: int,
    seed: int,
    max_stale: float,
    overwrite: bool,
) -> None:
    """Build the INDEX over a folder of EMBEDDINGS, and measure its recall against exact search.

    EMBEDDINGS is what embed wrote, a path or URL:

    \b
        protclip index my-embeddings --output my-index
        protclip index new-embeddings --previous my-index --output new-index
        protclip index per-protein.h5 --model prott5 --output prott5-index

    Rows of another tool's vectors that cannot be used are listed in quarantine.jsonl, with the reason.
    After an interruption, give the same command again, and it goes on where it was.
    """
    embeddings, output = resolve_input(embeddings), resolve_output(output)
    previous, ids = (None if path is None else resolve_input(path) for path in (previous, ids))
    queries = tuple(map(resolve_input, queries))
    config = IndexConfig(
        graph=HnswConfig(m=m, ef_construction=ef_construction, seed=seed),
        shard_rows=shard_rows,
        recall=recall,
        ef_search=ef_search,
        max_stale=max_stale,
    )
    start = time.monotonic()
    if model is None and ids is not None:
        raise ConfigError(f"--ids {ids}: belongs to a .npy file of another tool's vectors; name its model by --model.")
    vectors = (
        read_embeddings(embeddings)
        if model is None
        else open_vectors(
            embeddings,
            model,
            ids=ids,
            max_bad_fraction=max_bad_fraction,
        )
    )
    manifest = build_index(
        vectors,
        output,
        config,
        previous=previous,
        queries=list(map(read_embeddings, queries)),
        overwrite=overwrite,
        run=run_here_or_on_ray,
    )
    if manifest.quarantined:
        said = ", ".join(f"{reason}: {count:,}" for reason, count in manifest.quarantined.items())
        echo(f"index: rows that cannot be used, listed in {output}/{QUARANTINE_FILE}: {said}", err=True)
    for kind, measured in manifest.recall.items():
        echo(
            f"index: {kind} queries ({measured['queries']:,}): recall@10 {measured['at_10']:.4f}, "
            f"recall@100 {measured['at_100']:.4f}"
        )
    for kind, best in manifest.background.items():
        middle, high = np.quantile(best, [0.5, 0.95])
        echo(
            f"index: random {kind} questions ({len(best):,}): the best answer scores {middle:.4f} in the median, below "
            f"{high:.4f} for 95 %"
        )
    reached = 1.0 if manifest.recall_at_10 is None else manifest.recall_at_10
    if manifest.wanted_recall is not None and reached < manifest.wanted_recall:
        echo(
            f"index: warning: recall@10 is {reached:.4f} at the largest ef_search tried, below "
            f"the wanted {manifest.wanted_recall}; build with a larger --m or --ef-construction.",
            err=True,
        )
    if manifest.release is not None:
        echo("index: " + ", ".join(f"{name} {value}" for name, value in manifest.release.items()))
    echo(
        f"index: {manifest.count:,} {manifest.content} vectors of dimension {manifest.dimension}, "
        f"segments: {len(manifest.segments)}, ef_search {manifest.ef_search}, {time.monotonic() - start:.1f} s "
        f"→ {output}"
    )


def run_here_or_on_ray(unit: Unit, items: Sequence[Item], title: str, memory_bytes: int) -> Iterator[Any]:
    """Run units as Ray Data tasks, each with its memory reserved; a single small one in this process.

    Raises:
        ConfigError: if no node of the cluster has that much.
    """
    if len(items) == 1 and memory_bytes <= SMALL_BYTES:
        return in_turn(unit, items, title, memory_bytes)
    require("ray", extra="ray", what="an index of several segments, or a release of several parts")
    connect()
    largest = _largest_memory()
    if memory_bytes > largest:
        raise ConfigError(
            f"{title}: a segment needs {memory_bytes / 2**30:.1f} GiB, and the largest node has {largest / 2**30:.1f}; "
            "choose a smaller --shard-rows."
        )
    reports = run_tasks(unit, items, num_cpus=1.0, memory_bytes=memory_bytes)
    return progress(reports, title=title, unit="segment", total=len(items))


def _largest_memory() -> float:
    import ray

    nodes: Any = ray.nodes
    return max(float(node["Resources"].get("memory", 0)) for node in nodes() if node["Alive"])
