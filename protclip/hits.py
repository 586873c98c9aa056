"""From the rows that a search found to answers: pages, percentiles, the map, and each question's own rows left out.

An index does it for itself, and a server for what the shards of one have found.

Shapes: N questions, K rows found for each.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from protclip.embeddings.reading import Content
from protclip.errors import RequestError
from protclip.hashing import hash64
from protclip.index.index import Index
from protclip.index.manifest import IndexManifest
from protclip.pca import plane_of
from protclip.questions import Answer, Asked, Hit, Options, Question

NONE_OWN = [np.empty(0, np.int64)]
"""Own rows of a question that has none, or keeps them."""


def check_own(question: Question) -> None:
    """Refuse a question of which no row can be told to be the question itself.

    Raises:
        RequestError: for a vector without a name.
    """
    if question.vector is not None and question.name is None:
        raise RequestError("a vector without a name cannot be left out of its answers (exclude_self).")


def own_rows(index: Index, questions: Sequence[Question]) -> list[NDArray[np.int64]]:
    """Rows of the index that are each question itself; none of one that cannot be told (``check_own``)."""
    keys: dict[str, list[tuple[int, Any]]] = {"accession": [], "sequence_hash": [], "text": []}
    for i, question in enumerate(questions):
        if question.accession is not None or question.name is not None:
            keys["accession"].append((i, question.accession or question.name))
        if question.sequence is not None:
            keys["sequence_hash"].append((i, hash64(question.sequence)))
        if question.text is not None:
            keys["text"].append((i, question.text))
    own: list[list[int]] = [[] for _ in questions]
    for column, wanted in keys.items():
        owners: dict[Any, list[int]] = {}
        for i, value in wanted:
            owners.setdefault(value, []).append(i)
        values = list(owners)
        for row, number in zip(*index.find(column, values), strict=True):
            for i in owners[values[number]]:
                own[i].append(int(row))
    return [np.unique(np.array(rows, np.int64)) for rows in own]


def num_wanted(options: Options, own: Sequence[NDArray[np.int64]]) -> int:
    """How many answers are searched for, so that enough are left without each question's own rows."""
    return options.offset + options.k + max(map(len, own))


class Known(Protocol):
    """What is known of rows: an index, or what its parts have told."""

    def rows(self, rows: NDArray[np.int64], columns: Sequence[str] | None = None) -> list[Any]:
        """As ``Index.rows``."""

    def vectors(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """As ``Index.vectors``."""


def make_answers(
    manifest: IndexManifest,
    asked: Sequence[Asked],
    options: Options,
    own: Sequence[NDArray[np.int64]],
    scores_NK: NDArray[np.float32],
    rows_NK: NDArray[np.int64],
    known: Known,
) -> list[Answer]:
    """What was found, as answers.

    Args:
        manifest: of the index.
        asked: the questions.
        options: of all of them.
        own: rows that each leaves out.
        scores_NK, rows_NK: what ``Index.search`` found, of ``num_wanted`` answers.
        known: of the rows.
    """
    # A float32 sum of squares may end above 1.
    scores_NK = scores_NK.clip(-1, 1)
    wanted = options.offset + options.k
    found = []
    for scores, rows, mine in zip(scores_NK, rows_NK, own, strict=True):
        if len(mine):
            kept = ~np.isin(rows, mine)
            scores, rows = scores[kept], rows[kept]  # noqa: PLW2901
        # Downwards, so that those that score enough are the first.
        end = wanted if options.min_score is None else int((scores >= np.float32(options.min_score)).sum())
        page = slice(options.offset, min(wanted, end))
        found.append((scores[page], rows[page]))
    shown = iter(known.rows(np.concatenate([rows for _, rows in found]), options.columns))
    # A tool's vectors are of one kind, so that those it is asked with are of that too.
    own_kind = manifest.content if manifest.external_model is not None else None
    percentiles: dict[Content | None, list[list[float | None]]] = {}
    answers = []
    for i, (one, (scores, rows)) in enumerate(zip(asked, found, strict=True)):
        kind = one.kind or own_kind
        if kind not in percentiles:
            percentiles[kind] = _percentiles(manifest, [scores for scores, _ in found], kind)
        first = options.offset + 1
        hits = [
            cast(Hit, {"rank": rank, "score": score, "percentile": percentile, **next(shown)})
            for rank, (score, percentile) in enumerate(zip(scores.tolist(), percentiles[kind][i], strict=True), first)
        ]
        answers.append(
            Answer(
                model=manifest.model_fingerprint,
                index=manifest.fingerprint,
                content=manifest.content,
                query=one.question.name,
                truncated=one.truncated,
                hits=hits,
                map=[(x, y) for x, y in plane_of(known.vectors(rows)).tolist()] if options.map else None,
            )
        )
    return answers


def _percentiles(
    manifest: IndexManifest, scores: Sequence[NDArray[np.float32]], kind: Content | None
) -> list[list[float | None]]:
    """Of each score of each answer to questions of a kind."""
    percentiles = None if kind is None else manifest.percentiles(np.concatenate(scores), kind)
    if percentiles is None:
        return [[None] * len(some) for some in scores]
    numbers = iter(percentiles.round(2).tolist())
    return [[next(numbers) for _ in some] for some in scores]
