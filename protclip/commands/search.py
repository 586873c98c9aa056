"""``protclip search``: ask an index with a text or a sequence."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import click

from protclip.errors import ConfigError
from protclip.index.index import Index
from protclip.index.manifest import read_checkpoint_fingerprint, read_index_manifest

COLUMN_WIDTH = 60
"""Longer names are cut in the table; --json has them whole."""


@click.command()
@click.argument("index")
@click.option("--checkpoint", required=True, help="Folder or URL of the model that made the index.")
@click.option("--text", help="A description, such as 'FUNCTION: Hydrolyses ATP.'")
@click.option("--sequence", help="Amino acids in one-letter code.")
@click.option("-k", default=10, show_default=True, type=click.IntRange(min=1), help="Answers wanted.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of a table.")
def main(*, index: str, checkpoint: str, text: str | None, sequence: str | None, k: int, as_json: bool) -> None:
    """Find what in the INDEX lies nearest to a text or a sequence, by cosine.

    \b
        protclip search my-index --checkpoint runs/tiny/best --text "FUNCTION: Involved in oxygen transport."
    """
    if (text is None) == (sequence is None):
        raise ConfigError("search needs one question: give either --text or --sequence.")
    # Before the model is loaded, so that the wrong pair fails at once.
    fingerprint = read_checkpoint_fingerprint(checkpoint)
    read_index_manifest(index).check_model(fingerprint, index)
    loaded = Index.load(index, expect_fingerprint=fingerprint)

    from protclip.embedding import ProtCLIP

    model = ProtCLIP.from_pretrained(checkpoint)
    query = model.embed_texts([text]) if text is not None else model.embed_proteins([sequence or ""])
    hits = loaded.hits(query[0], k)
    if as_json:
        answer = {"model": fingerprint, "content": loaded.manifest.content, "hits": hits}
        click.echo(json.dumps(answer, ensure_ascii=False, indent=2))
    else:
        click.echo(format_table(hits))


def format_table(hits: Sequence[dict[str, Any]]) -> str:
    """Hits as aligned columns: rank, score, accession, name (or the text that was embedded), organism."""
    rows = [("rank", "score", "accession", "name", "organism")]
    rows += [
        (
            str(hit["rank"]),
            f"{hit['score']:.4f}",
            hit["accession"],
            _shorten(hit["name"] or hit["text"]),
            _shorten(hit["organism"]),
        )
        for hit in hits
    ]
    rank, score, accession, name, _ = (max(map(len, column)) for column in zip(*rows, strict=True))
    return "\n".join(
        f"{row[0]:>{rank}}  {row[1]:>{score}}  {row[2]:<{accession}}  {row[3]:<{name}}  {row[4]}".rstrip()
        for row in rows
    )


def _shorten(value: str | None) -> str:
    value = " ".join((value or "-").split())
    return value if len(value) <= COLUMN_WIDTH else value[: COLUMN_WIDTH - 1] + "…"
