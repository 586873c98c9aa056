"""Questions given to a build: recall is measured with them, and their scores are the background of their kind.

WORK/queries-text.npz …    a sample of those of a kind
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from protclip import files
from protclip.embeddings.reading import CONTENTS, Embeddings
from protclip.errors import ConfigError, IndexMismatchError
from protclip.index import recall
from protclip.index.arrays import write_arrays
from protclip.index.background import best_scores
from protclip.index.external import VectorFile
from protclip.index.hnsw import check_unit_vectors


def check_queries(queries: Sequence[Embeddings], embeddings: Embeddings | VectorFile) -> None:
    """Refuse what cannot be asked.

    Raises:
        ConfigError: for two folders of one kind.
        IndexMismatchError: for one of another model, dimension or dtype than the embeddings.
    """
    of_kind: dict[str, Embeddings] = {}
    for asked in queries:
        if (other := of_kind.setdefault(asked.content, asked)) is not asked:
            raise ConfigError(
                f"queries {other.folder} and {asked.folder} both hold {asked.content}s; give one folder of each kind."
            )
        for what, theirs, ours in (
            ("model", asked.model_fingerprint, embeddings.model_fingerprint),
            ("dimension", asked.dimension, embeddings.dimension),
            ("dtype", asked.dtype, embeddings.dtype),
        ):
            if theirs != ours:
                raise IndexMismatchError(
                    f"queries {asked.folder}: their {what} is {theirs}, that of {embeddings.folder} is {ours}; embed "
                    "both with one model in one dtype."
                )


def queries_path(work: str, kind: str) -> str:
    """The file of the sampled questions of a kind."""
    return files.join(work, f"queries-{kind}.npz")


def sample_queries(queries: Embeddings, work: str, seed: int) -> None:
    """Store a sample of the given questions, where an earlier run did not."""
    path = queries_path(work, queries.content)
    if files.exists(path):
        return
    rng = np.random.default_rng(seed)
    vectors: list[NDArray[np.float32]] = []
    for place in rng.permutation(len(queries.part_names)):
        vectors.append(queries.part(queries.part_names[place])[0])
        check_unit_vectors(vectors[-1], files.join(queries.folder, queries.part_names[place]))
        if sum(map(len, vectors)) >= recall.NUM_QUERIES:
            break
    found = np.concatenate(vectors)
    chosen = rng.choice(len(found), min(len(found), recall.NUM_QUERIES), replace=False)
    write_arrays(path, {"vectors": found[np.sort(chosen)]})


def background_of(totals: Mapping[str, recall.Scores], content: str) -> dict[str, tuple[float, ...]]:
    """By kind of question what the best answers of random ones score, where enough were asked.

    Rows of the index, each without itself, stand for questions of its own kind, unless such were given.

    Args:
        totals: the scores over all subindexes, of ``inside`` and the given kinds.
        content: of the index.
    """
    asked: dict[str, recall.Scores] = {content: totals["inside"]}
    asked |= {kind: totals[kind] for kind in CONTENTS if kind in totals}
    best = {kind: best_scores(scores.exact_QK) for kind, scores in asked.items()}
    return {kind: tuple(scores) for kind, scores in sorted(best.items()) if scores is not None}
