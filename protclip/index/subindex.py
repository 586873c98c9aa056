"""A subindex of an index: a graph over some rows and what is known of them (protclip.index.subindex_files).

A row that a later release removed or changed stays in the graph, as a way to others, and is no answer. What the graph
does not find with the ef of a search is compared with every question.

R rows, N nodes, U nodes that the graph does not find, Q queries, K answers of each query, C candidates, D dimension,
E numbers of a vector in the graph
"""

from __future__ import annotations

import math

import hnswlib
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from protclip import files
from protclip.embeddings.reading import METADATA
from protclip.errors import DataError
from protclip.index.exact import MARGIN, TieBreak, Vectors, exact_search
from protclip.index.hnsw import MAX_EF, ask_graph, check_unit_vectors, load_graph, search_graph, stored_vectors
from protclip.index.nodes import Nodes
from protclip.index.rotation import Rotation, project
from protclip.index.subindex_files import graph_file, is_unreached, read_rows, rows_file, vectors_file
from protclip.index.whole_vectors import inner_products, map_vectors

EXACT_ROWS = 10_000
"""Among so few rows each question is answered by exact search: at D = 512 in some 2 ms, and it misses nothing."""
ROW_BYTES = 600
"""Memory of what is known of a row, about, with room for the text of one."""
GRAPH_COST = 20
"""Vectors that an exact search compares in the time in which a graph gives one more answer."""
NUMBERS_AT_ONCE = 1 << 17
"""Of whole vectors that are compared with questions: 0.5 MB, which the processor's cache holds."""
SCORES_AT_ONCE = 1 << 24
"""Of questions with what the graph does not find: 64 MB, however much that is."""
SPARE = 1.2
"""What more is asked of the graph than should be needed where some rows may not answer."""


class Subindex:
    """A loaded subindex; it never changes, so searches may run side by side."""

    def __init__(
        self,
        vectors_ND: Vectors,
        rows: pa.Table,
        graph: hnswlib.Index | None,
        rotation: Rotation | None = None,
    ) -> None:
        """From what was read, or is being built.

        Args:
            vectors_ND: by node.
            rows: the columns ROWS but for the hashes.
            graph: where one is loaded.
            rotation: where the graph holds a few numbers of each vector.

        Raises:
            ValueError: if the rows' nodes are not those of the vectors.
        """
        self.vectors_ND = vectors_ND
        self.rotation = rotation
        self.metadata = rows.select(METADATA.names)
        self.graph = graph
        self.nodes = Nodes(rows["node"].to_numpy())
        if len(self.nodes) != len(vectors_ND):
            raise ValueError(f"{len(self.nodes)} nodes, and {len(vectors_ND)} vectors")
        self.live = rows["live"].to_numpy()
        """(R,), whether each may answer."""
        self.num_live = int(self.live.sum())
        self.live_N = self.nodes.any_of(self.live)
        """(N,), whether each has a row that may answer."""
        self._mask = None if self.num_live == len(self.live) else self.live
        self._found_with_N = rows["found_with"].to_numpy()[self.nodes.start_N1[:-1]]
        self.set_ef(MAX_EF if graph is None else graph.ef)

    @classmethod
    def load(
        cls,
        folder: str,
        name: str,
        *,
        nodes: int,
        dimension: int,
        ef_search: int,
        rotation: Rotation | None = None,
        with_graph: bool | None = None,
        num_threads: int | None = None,
    ) -> Subindex:
        """Load a subindex from a local folder; all of it is read once, and checked, whatever its checksums say.

        Args:
            folder: of the files; vectors stay in them, so they must not be changed in place.
            name: of the subindex.
            nodes: that it must have.
            dimension: that it must have.
            ef_search: of the graph.
            rotation: where the graph holds a few numbers of each vector.
            with_graph: whether the graph is loaded; None where it is larger than exact search likes.
            num_threads: of a search of many queries in the graph; None for all cores.

        Raises:
            DataError: if the files do not fit together.
        """
        path = files.join(folder, graph_file(name))
        width = dimension if rotation is None else rotation.width
        in_graph = stored_vectors(path, dimension=width, count=nodes)
        check_unit_vectors(in_graph, path)
        vectors: Vectors = in_graph
        if rotation is not None:
            vectors = map_vectors(files.join(folder, vectors_file(name)), rotation.mean_D, count=nodes)
            check_unit_vectors(vectors, files.join(folder, vectors_file(name)))
        graph = None
        if with_graph or (with_graph is None and nodes > EXACT_ROWS):
            graph = load_graph(path, dimension=width, count=nodes, ef_search=ef_search)
            if num_threads is not None:
                graph.set_num_threads(num_threads)
        else:
            vectors = np.array(vectors[:])
        table = read_rows(files.join(folder, rows_file(name)), [*METADATA.names, "live", "node", "found_with"])
        try:
            return cls(vectors, table, graph, rotation)
        except ValueError as error:
            raise DataError(f"{folder}: {name} is not whole ({error}); make the index again.") from error

    def set_ef(self, ef: int) -> None:
        """Keep so many candidates when the graph is searched."""
        if self.graph is not None:
            self.graph.set_ef(ef)
        self.unreached_U = np.flatnonzero(is_unreached(self._found_with_N, ef))
        """Nodes that the graph does not find."""
        self._unreached_UD = self.vectors_ND[self.unreached_U]

    def __len__(self) -> int:
        """Rows, live or not."""
        return len(self.live)

    def vectors(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """The vectors of some rows, one a row."""
        return self.vectors_ND[self.nodes.of_rows(rows)]

    def search(
        self,
        queries: NDArray[np.float32],
        k: int,
        *,
        allowed: NDArray[np.bool_] | None = None,
        exact: bool | None = None,
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """The k nearest live rows of each query, best first.

        Args:
            queries: (n, dimension), finite unit vectors.
            k: 1 or more.
            allowed: (rows,), where only some may answer.
            exact: whether all are compared; None where that costs least or few may answer.

        Returns:
            cosines and rows, each of shape (n, min(k, rows that may answer)).
        """
        mask_R = self._mask if allowed is None else allowed if self._mask is None else self._mask & allowed
        k = min(k, len(self) if mask_R is None else int(mask_R.sum()))
        if not k or not len(queries):
            return np.empty((len(queries), k), np.float32), np.empty((len(queries), k), np.int64)

        def by_name(nodes: NDArray[np.int64]) -> NDArray[np.int64]:
            return self.by_accession(self.nodes.first_rows(nodes, mask_R))

        mask_N = None if mask_R is None else self.nodes.any_of(mask_R)
        scores_QK, nodes_QK = self.search_nodes(queries, k, mask_N=mask_N, exact=exact, tie_break=by_name)
        return self.nodes.expand(scores_QK, nodes_QK, k, self.by_accession, mask_R)

    def search_nodes(
        self,
        queries: NDArray[np.float32],
        k: int,
        *,
        mask_N: NDArray[np.bool_] | None,
        exact: bool | None = None,
        tie_break: TieBreak | None = None,
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """The k nearest nodes of each query, best first.

        Args:
            queries: as of ``search``.
            k: 1 or more.
            mask_N: which may answer; None for all.
            exact: as of ``search``.
            tie_break: the order of nodes of one score where all are compared; None for that of their numbers.

        Returns:
            cosines and nodes, each of shape (n, min(k, nodes that may answer)).
        """
        num_nodes = len(self.nodes)
        count = num_nodes if mask_N is None else int(mask_N.sum())
        k = min(k, count)
        fetch = k if count == num_nodes else min(num_nodes, self._fetch(k, count))
        few = count <= max(EXACT_ROWS, GRAPH_COST * fetch)
        if self.graph is None or exact or (exact is None and few):
            assert exact is not False or self.graph is not None
            chosen = None if mask_N is None else np.flatnonzero(mask_N)
            return exact_search(self.vectors_ND, queries, k, rows=chosen, tie_break=tie_break)
        if mask_N is None or count == num_nodes:
            return self._ask_graph(queries, k)
        return self._search_masked(queries, k, mask_N, fetch)

    def _ask_graph(self, queries: NDArray[np.float32], k: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """The k nearest nodes by the graph, and by comparison with what it does not find."""
        if self.rotation is None:
            scores_QK, nodes_QK = search_graph(self.graph, self.vectors_ND, queries, k)
        else:
            scores_QK, nodes_QK = self._best_candidates(queries, project(queries, self.rotation.axes_ED), k)
        if not len(self.unreached_U):
            return scores_QK, nodes_QK
        # Most are too far to be looked at closely. Not by BLAS, whose threads wait for each other on a busy machine.
        is_near_Q = np.empty(len(queries), bool)
        at_once = max(1, SCORES_AT_ONCE // len(self.unreached_U))
        unit_QD = queries / np.linalg.norm(queries, axis=1, keepdims=True)  # or a short one is near to none of them
        for start in range(0, len(queries), at_once):
            part = slice(start, start + at_once)
            near_QU = np.einsum("qd,ud->qu", unit_QD[part], self._unreached_UD) >= scores_QK[part, -1:] - MARGIN
            is_near_Q[part] = near_QU.any(axis=1)
        some = np.flatnonzero(is_near_Q)
        if len(some):
            of_graph = np.where(np.isin(nodes_QK[some], self.unreached_U), -np.inf, scores_QK[some])
            others = exact_search(self.vectors_ND, queries[some], k, rows=self.unreached_U)
            scores = np.concatenate([of_graph, others[0]], axis=1)
            nodes = np.concatenate([nodes_QK[some], others[1]], axis=1)
            best = np.lexsort((nodes, -scores), axis=1)[:, :k]
            scores_QK[some] = np.take_along_axis(scores, best, 1)
            nodes_QK[some] = np.take_along_axis(nodes, best, 1)
        return scores_QK, nodes_QK

    def _best_candidates(
        self, queries_QD: NDArray[np.float32], few_QE: NDArray[np.float32], k: int
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """The k best, by the whole vectors, of the candidates that the graph keeps by a few numbers of each."""
        assert self.graph is not None
        unit_QD = queries_QD / np.linalg.norm(queries_QD, axis=1, keepdims=True)
        nodes_QC, _ = ask_graph(self.graph, few_QE, min(max(k, self.graph.ef), len(self.nodes)))
        scores_QC = np.empty(nodes_QC.shape, np.float32)
        at_once = max(1, NUMBERS_AT_ONCE // (nodes_QC.shape[1] * self.vectors_ND.shape[1]))
        for start in range(0, len(nodes_QC), at_once):
            part = slice(start, start + at_once)
            scores_QC[part] = inner_products(self.vectors_ND, nodes_QC[part], unit_QD[part])
        best = np.lexsort((nodes_QC, -scores_QC), axis=1)[:, :k]
        scores_QK, nodes_QK = np.take_along_axis(scores_QC, best, 1), np.take_along_axis(nodes_QC, best, 1)
        unanswered = nodes_QC[:, 0] < 0  # the graph reaches fewer than were asked for
        if unanswered.any():
            scores_QK[unanswered], nodes_QK[unanswered] = exact_search(self.vectors_ND, queries_QD[unanswered], k)
        return scores_QK, nodes_QK

    def _fetch(self, k: int, count: int) -> int:
        """What is asked of the graph for k answers among ``count`` rows.

        It keeps as many candidates as are asked for. Of the candidates those that may answer should be as many as
        there are without a mask: with fewer the recall would fall below the measured one.
        """
        kept = SPARE * k + 4 if self.graph is None else max(SPARE * k + 4, self.graph.ef)
        return math.ceil(kept * len(self.nodes) / count)

    def _search_masked(
        self, queries: NDArray[np.float32], k: int, mask_N: NDArray[np.bool_], fetch: int
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Ask the graph for more than k, drop what may not answer, and ask again those that are left with too few.

        Those that are still left where asking again would cost more than comparing all that may answer are compared
        with it.
        """
        count = int(mask_N.sum())
        scores = np.empty((len(queries), k), np.float32)
        nodes = np.empty((len(queries), k), np.int64)
        open_ = np.arange(len(queries))
        while len(open_):
            if fetch >= len(self.nodes):
                scores[open_], nodes[open_] = exact_search(
                    self.vectors_ND, queries[open_], k, rows=np.flatnonzero(mask_N)
                )
                break
            found_scores, found = self._ask_graph(queries[open_], fetch)
            good = mask_N[found]
            enough = good.sum(axis=1) >= k
            # Stable, so that what may answer comes first and in its order.
            order = np.argsort(~good[enough], axis=1, kind="stable")[:, :k]
            scores[open_[enough]] = np.take_along_axis(found_scores[enough], order, 1)
            nodes[open_[enough]] = np.take_along_axis(found[enough], order, 1)
            open_, fetch = open_[~enough], 2 * fetch
            if GRAPH_COST * fetch >= count:
                fetch = len(self.nodes)
        return scores, nodes

    def by_accession(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """The ranks of rows by accession, which a row keeps in every release."""
        order = pc.sort_indices(self.metadata["accession"].take(pa.array(rows))).to_numpy()
        ranks = np.empty(len(rows), np.int64)
        ranks[order] = np.arange(len(rows))
        return ranks
