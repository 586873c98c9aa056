"""The other end of an edge of a knowledge graph, among all entities of its kind (BioBridge: Wang et al. 2024,
arXiv:2310.03320).

The encoders are frozen. A bridge from the one kind's features to the other's is learned on the edges of the training
split; without one, both lie in a common space already. Ranks are filtered (Bordes et al. 2013): the other known ends of
an edge's query are left out of its candidates.

Shapes: P proteins, T texts, D and E widths of their features, W of the bridge's space, N edges, B edges of a batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from protclip.config import Selection
from protclip.evaluation.features import checked, checked_texts, required_splits, unit
from protclip.evaluation.retrieval import partners
from protclip.evaluation.task import Benchmark, Outcome
from protclip.evaluation.training import TuneConfig, Workplace, train_rows
from protclip.metrics.ranking import Places, places_of_chance, rank_all, ranking_metrics
from protclip.train.learner import Learner

Direction = Literal["protein_to_text", "text_to_protein"]
CUTOFFS = (1, 3, 10)
TEMPERATURE = 0.1
"""Of the contrast, BioBridge's."""
BRIDGE = TuneConfig(batch_size=512)


def graph(
    benchmark: Benchmark, protein_PD: NDArray[np.float32], text_TD: NDArray[np.float32], *, direction: Direction
) -> Outcome:
    """MRR and Hits@1/3/10 of the edges of the test split, by the cosine of embeddings in a common space.

    Args:
        benchmark: rows of a protein and a text each.
        protein_PD: of all its proteins, which are the candidates of ``text_to_protein``.
        text_TD: of all its texts.
        direction: from the query to what is looked for.

    Raises:
        DataError: if the embeddings do not fit the benchmark.
    """
    ends = _Ends.of(benchmark, protein_PD, text_TD, direction)
    places_N3 = ends.rank("test", ends.query_XD, ends.candidate_YE)
    return ends.outcome(places_N3, {"bridge": "none"})


def bridged_graph(
    benchmark: Benchmark,
    protein_PD: NDArray[np.float32],
    text_TE: NDArray[np.float32],
    *,
    direction: Direction,
    config: TuneConfig = BRIDGE,
    seed: int,
    place: Workplace,
) -> Outcome:
    """The same by a bridge that is learned on the training split; the epoch of the best validation MRR predicts.

    Args:
        benchmark: rows of a protein and a text each.
        protein_PD: of all its proteins.
        text_TE: of all its texts.
        direction: from the query to what is looked for.
        config: of the training; the contrast is among the edges of a batch.
        seed: of the bridge's weights and of the order of edges.
        place: where it runs, with one worker.

    Raises:
        DataError: if the features do not fit the benchmark, it lacks a split, or the training has to end.
    """
    assert place.group is None
    train, _ = required_splits(benchmark, "train", "valid")
    ends = _Ends.of(benchmark, protein_PD, text_TE, direction)
    query_XD, candidate_YE = (torch.from_numpy(x).to(place.device) for x in (ends.query_XD, ends.candidate_YE))
    query_N, candidate_N = ends.edges["train"]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        bridge = Bridge(query_XD.shape[1], candidate_YE.shape[1], config.hidden_size).to(place.device)
    known = np.unique(query_N * len(candidate_YE) + candidate_N)

    def batch_of(chosen: NDArray[np.int64]) -> EdgeBatch:
        query_B, candidate_B = query_N[chosen], candidate_N[chosen]
        others_BB = np.isin(query_B[:, None] * len(candidate_YE) + candidate_B, known)
        np.fill_diagonal(others_BB, False)
        return EdgeBatch(
            query_XD[torch.from_numpy(query_B)],
            candidate_YE[torch.from_numpy(candidate_B)],
            torch.from_numpy(others_BB).to(place.device),
        )

    def rank(split: str) -> Places:
        with torch.no_grad():
            query_XW, candidate_YW = bridge.queries(query_XD), bridge.candidates(candidate_YE)
        return ends.rank(split, query_XW.cpu().numpy(), candidate_YW.cpu().numpy())

    settings = train_rows(
        BridgeLearner(bridge),
        bridge,
        rows=[benchmark.ids[protein] for protein in train.proteins_NK[:, 0]],
        num_tokens_N=np.ones(len(query_N), np.int64),
        batch_of=batch_of,
        measure=lambda: ranking_metrics(rank("valid"), CUTOFFS, recall_name="hits"),
        selection=Selection(metric="mrr", mode="max"),
        config=config,
        seed=seed,
        place=place,
    )
    return ends.outcome(rank("test"), {"bridge": "learned", **settings})


class Bridge(nn.Module):
    """From features of queries and candidates into a space of width W, (…, W) of unit length."""

    def __init__(self, query_width: int, candidate_width: int, width: int) -> None:
        super().__init__()
        self.query = nn.Linear(query_width, width, bias=False)
        self.candidate = nn.Linear(candidate_width, width, bias=False)
        self.relation = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))

    def queries(self, features: Tensor) -> Tensor:
        """A query is moved by the relation, as BioBridge's."""
        projected = self.query(features)
        return normalize(projected + self.relation(projected), dim=-1)

    def candidates(self, features: Tensor) -> Tensor:
        """They are projected alone."""
        return normalize(self.candidate(features), dim=-1)


class EdgeBatch(NamedTuple):
    """Edges of a step, on the device."""

    query_BD: Tensor
    candidate_BE: Tensor
    is_known_BB: Tensor
    """Where another edge's candidate is right for a query too, and so no negative."""


class BridgeLearner(Learner[EdgeBatch]):
    """InfoNCE of each edge's candidate among those of the batch."""

    def __init__(self, network: Bridge) -> None:
        self.network: Bridge = network

    def backward(self, batches: Sequence[EdgeBatch]) -> dict[str, Tensor]:
        """See Learner."""
        losses = []
        for query_BD, candidate_BE, is_known_BB in batches:
            cosine_BB = self.network.queries(query_BD) @ self.network.candidates(candidate_BE).T
            logits_BB = (cosine_BB / TEMPERATURE).masked_fill(is_known_BB, -torch.inf)
            losses.append(cross_entropy(logits_BB, torch.arange(len(logits_BB), device=logits_BB.device)))
        loss = torch.stack(losses).mean()
        loss.backward()  # type: ignore[no-untyped-call]
        return {"error": loss.detach()}


class _Ends(NamedTuple):
    """The two ends of all edges, as a direction looks at them."""

    query_XD: NDArray[np.float32]
    candidate_YE: NDArray[np.float32]
    """Both of unit length."""
    edges: dict[str, tuple[NDArray[np.int64], NDArray[np.int64]]]
    """Of each split the places of the queries and of the right candidates."""
    known: list[NDArray[np.int64]]
    """Of each query all candidates that some edge pairs it with."""

    @classmethod
    def of(
        cls,
        benchmark: Benchmark,
        protein_PD: NDArray[np.float32],
        text_TE: NDArray[np.float32],
        direction: Direction,
    ) -> _Ends:
        ends = [unit(checked(protein_PD, benchmark)), unit(checked_texts(text_TE, benchmark))]
        edges = {name: [one.proteins_NK[:, 0], one.labels] for name, one in benchmark.splits.items()}
        if direction == "text_to_protein":
            ends.reverse()
            for one in edges.values():
                one.reverse()
        query_N, candidate_N = (np.concatenate(some) for some in zip(*edges.values(), strict=True))
        return cls(
            ends[0],
            ends[1],
            {name: (one[0], one[1]) for name, one in edges.items()},
            partners(query_N, candidate_N, len(ends[0])),
        )

    def rank(self, split: str, query_XW: NDArray[np.float32], candidate_YW: NDArray[np.float32]) -> Places:
        query_N, candidate_N = self.edges[split]
        hidden = [self.known[q][self.known[q] != right] for q, right in zip(query_N, candidate_N, strict=True)]
        return rank_all(query_XW[query_N], candidate_YW, list(candidate_N[:, None]), hidden).places_Q3

    def outcome(self, places_N3: Places, settings: dict[str, float | str]) -> Outcome:
        ones_N = np.ones(len(places_N3), np.int64)
        num_hidden_N = np.array([len(self.known[q]) - 1 for q in self.edges["test"][0]])
        chance_N3 = places_of_chance(ones_N, len(self.candidate_YE)) - num_hidden_N[:, None] * [0, 1, 0]
        chance = ranking_metrics(chance_N3, CUTOFFS, recall_name="hits")
        metrics = {
            **ranking_metrics(places_N3, CUTOFFS, recall_name="hits"),
            **{f"chance_{name}": value for name, value in chance.items()},
        }
        return Outcome(metrics=metrics, predictions=places_N3, settings=settings)
