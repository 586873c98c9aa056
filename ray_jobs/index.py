"""``protclip index``: embeddings into a searchable HNSW index, a Ray task for each segment where there are several."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

import click

from protclip.errors import ConfigError
from protclip.extras import require
from protclip.index.build import IndexConfig, build_index
from protclip.index.embeddings import read_embeddings
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
@click.option("--previous", help="Index of an earlier release: what did not change since is taken from it.")
@click.option(
    "--recall", default=0.99, show_default=True, help="At 10: the smallest ef_search that reaches it is used."
)
@click.option("--ef-search", type=int, help="Candidates kept while searching, instead of --recall.")
@click.option("--queries", help="Folder of embeddings, of texts for instance, to measure the recall with as well.")
@click.option("--shard-rows", default=1_000_000, show_default=True, help="Rows of a segment at most.")
@click.option("--m", default=16, show_default=True, help="Links of a vector per level.")
@click.option("--ef-construction", default=200, show_default=True, help="Candidates kept while building.")
@click.option("--seed", default=0, show_default=True, help="Seed of the graph's levels and of the recall samples.")
@click.option(
    "--max-stale",
    default=0.2,
    show_default=True,
    help="With --previous: beyond this share of rows that are dead, or in segments of changes, all is built anew.",
)
@click.option("--overwrite", is_flag=True, help="Replace an index that is there.")
def main(
    *,
    embeddings: str,
    output: str,
    previous: str | None,
    recall: float,
    ef_search: int | None,
    queries: str | None,
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

    A run that was interrupted goes on where it was when the same command is given again.
    """
    embeddings, output = resolve_input(embeddings), resolve_output(output)
    previous, queries = (None if path is None else resolve_input(path) for path in (previous, queries))
    config = IndexConfig(
        graph=HnswConfig(m=m, ef_construction=ef_construction, seed=seed),
        shard_rows=shard_rows,
        recall=recall,
        ef_search=ef_search,
        max_stale=max_stale,
    )
    start = time.monotonic()
    vectors = read_embeddings(embeddings)
    manifest = build_index(
        vectors,
        output,
        config,
        previous=previous,
        queries=None if queries is None else read_embeddings(queries),
        overwrite=overwrite,
        run=run_here_or_on_ray,
    )
    for kind, measured in manifest.recall.items():
        echo(
            f"index: {kind} queries ({measured['queries']:,}): recall@10 {measured['at_10']:.4f}, "
            f"recall@100 {measured['at_100']:.4f}"
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
    require("ray", extra="ray", what="an index of this size")
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
