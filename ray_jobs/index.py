"""``protclip index``: embeddings into a searchable HNSW index."""

from __future__ import annotations

import time

import click

from protclip.index.embeddings import read_embeddings
from protclip.index.hnsw import HnswConfig
from protclip.index.index import build_index
from ray_jobs.cluster import resolve_output


@click.command()
@click.argument("embeddings")
@click.option("--output", required=True, help="Folder or URL of the index.")
@click.option("--m", default=16, show_default=True, help="Links of a vector per level.")
@click.option("--ef-construction", default=200, show_default=True, help="Candidates kept while building.")
@click.option("--ef-search", default=128, show_default=True, help="Candidates kept while searching.")
@click.option("--seed", default=0, show_default=True, help="Seed of the graph's levels and of the recall sample.")
@click.option("--overwrite", is_flag=True, help="Replace an index that is there.")
def main(
    *, embeddings: str, output: str, m: int, ef_construction: int, ef_search: int, seed: int, overwrite: bool
) -> None:
    """Build the INDEX over a folder of EMBEDDINGS, and measure its recall against exact search.

    EMBEDDINGS is what embed wrote, a path or URL:

    \b
        protclip index my-embeddings --output my-index
    """
    output = resolve_output(output)
    config = HnswConfig(m=m, ef_construction=ef_construction, ef_search=ef_search, seed=seed)
    start = time.monotonic()
    manifest = build_index(read_embeddings(embeddings), output, config, overwrite=overwrite)
    recall = "not measured" if manifest.recall_at_10 is None else f"{manifest.recall_at_10:.4f}"
    click.echo(
        f"index: {manifest.count:,} {manifest.content} vectors of dimension {manifest.dimension}, recall@10 {recall} "
        f"on {manifest.recall_queries:,} queries, {time.monotonic() - start:.1f} s → {output}"
    )
