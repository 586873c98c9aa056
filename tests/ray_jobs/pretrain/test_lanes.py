"""The training stream: the same global batches for any number of workers, every row once, resumed at any batch."""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from protclip.data.subsets import count_subsets
from protclip.data.tokenize import ProteinTokenizer, TextTokenizer
from protclip.errors import ConfigError
from protclip.hashing import hash64
from protclip.protanno.shards import SCHEMA, RowGroup, read_row_group
from protclip.units import InProcess, Item, Report, Work
from ray_jobs.pretrain import lanes
from ray_jobs.pretrain.lanes import (
    PIECE_COLUMNS,
    LanePlan,
    count_drawn,
    read_piece,
    stream,
    tokenize_pieces,
    worker_batches,
)

WORKERS = (1, 2, 4)
PROBABILITIES = (1.0, 0.5, 0.1)
"""Of rows 0, 1, 2 and so on in turn; they matter where each epoch draws its rows."""


def write_shards(folder: Path, sizes: list[int], row_group_rows: int, **properties: str) -> tuple[RowGroup, ...]:
    """Shards of so many rows, with accessions A00000, A00001, …, names and the given properties."""
    groups: list[RowGroup] = []
    number = 0
    for i, size in enumerate(sizes):
        rows = []
        for _ in range(size):
            sequence = "MKT" + "ACDEFGHIKL"[number % 10] * (number % 7 + 1)
            row = dict.fromkeys(SCHEMA.names) | {
                "accession": f"A{number:05d}",
                "sequence": sequence,
                "name": f"Protein {number}",
                **properties,
                "ec": [],
                "sequence_hash": hash64(sequence),
                "probability": PROBABILITIES[number % 3],
            }
            rows.append(row)
            number += 1
        path = folder / f"train-{i:05d}-of-{len(sizes):05d}.parquet"
        pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), path, row_group_size=row_group_rows)
        for index, start in enumerate(range(0, size, row_group_rows)):
            groups.append(RowGroup(path=str(path), index=index, num_rows=min(row_group_rows, size - start)))
    return tuple(groups)


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> LanePlan:
    groups = write_shards(tmp_path_factory.mktemp("shards"), [517, 301, 64, 1], row_group_rows=50)
    return LanePlan(groups=groups, seed=3, epoch=0, num_lanes=8, global_batch_size=32)


@pytest.fixture(scope="module")
def drawn(plan: LanePlan) -> LanePlan:
    return replace(plan, drawn_EG=count_drawn(plan.groups, seed=plan.seed, epochs=16))


def batches_without_ray(plan: LanePlan, rank: int, num_workers: int, first_batch: int = 0) -> Iterator[list[str]]:
    """The worker's accessions of each batch, by plain reading."""

    def tables() -> Iterator[pa.Table]:
        for piece in plan.pieces(rank=rank, num_workers=num_workers, first_batch=first_batch):
            rows = read_piece(plan.row_order, piece)
            yield rows.append_column("lane", pa.array(np.full(len(rows), piece.lane)))

    for table in worker_batches(tables(), plan, rank=rank, num_workers=num_workers):
        yield table.column("accession").to_pylist()


def joined(parts: Iterable[list[str]]) -> list[str]:
    return list(chain.from_iterable(parts))


def global_batches(plan: LanePlan, num_workers: int, first_batch: int = 0) -> list[list[str]]:
    workers = [batches_without_ray(plan, rank, num_workers, first_batch) for rank in range(num_workers)]
    return [joined(parts) for parts in zip(*workers, strict=True)]


@pytest.mark.unit
def test_any_number_of_workers_sees_the_same_global_batches(plan: LanePlan) -> None:
    wanted = global_batches(plan, 1)
    assert len(wanted) == plan.num_batches == 883 // 32
    assert all(len(batch) == 32 for batch in wanted)
    for num_workers in (2, 4, 8):
        assert global_batches(plan, num_workers) == wanted


@pytest.mark.unit
def test_each_epoch_is_a_permutation_that_leaves_out_less_than_a_batch(plan: LanePlan) -> None:
    left_out = []
    for epoch in range(4):
        rows = joined(global_batches(replace(plan, epoch=epoch), 2))
        assert len(rows) == len(set(rows)) == 883 // 32 * 32
        left_out.append(frozenset(f"A{i:05d}" for i in range(883)) - set(rows))
    assert len(set(left_out)) == 4
    first, second = (joined(global_batches(replace(plan, epoch=epoch), 1)) for epoch in (0, 1))
    assert first != second
    assert first == joined(global_batches(plan, 1))
    assert first != joined(global_batches(replace(plan, seed=4), 1))


@pytest.mark.unit
@pytest.mark.parametrize("first_batch", [1, 7, 26, 27])
def test_a_stream_resumed_at_a_batch_is_the_tail(plan: LanePlan, first_batch: int) -> None:
    for num_workers in WORKERS:
        assert global_batches(plan, num_workers, first_batch) == global_batches(plan, 1)[first_batch:]


@pytest.mark.unit
@pytest.mark.slow
def test_each_epoch_draws_a_subset_of_its_own_by_probability(drawn: LanePlan) -> None:
    assert drawn.drawn_EG is not None
    epochs = len(drawn.drawn_EG)
    times = np.zeros(883, dtype=int)
    for epoch in range(epochs):
        rows = joined(global_batches(replace(drawn, epoch=epoch), 1))
        assert len(rows) == len(set(rows)) == drawn.drawn_EG[epoch].sum() // 32 * 32
        times[[int(row[1:]) for row in rows]] += 1
    subsets = [set(joined(global_batches(replace(drawn, epoch=epoch), 1))) for epoch in (0, 1)]
    assert subsets[0] != subsets[1]
    for i, probability in enumerate(PROBABILITIES):
        rate = times[i::3].mean() / epochs  # up to 31 of 470 rows are left over
        assert 0.94 * probability - 0.02 <= rate <= probability + 0.02


@pytest.mark.unit
def test_drawn_rows_do_not_depend_on_workers_and_resume(drawn: LanePlan) -> None:
    second = replace(drawn, epoch=1)
    wanted = global_batches(second, 1)
    assert global_batches(second, 4) == global_batches(second, 2) == wanted
    assert global_batches(second, 2, first_batch=5) == wanted[5:]


@pytest.mark.unit
def test_a_worker_reads_little_more_than_its_rows(plan: LanePlan) -> None:
    pieces = [piece for rank in range(4) for piece in plan.pieces(rank=rank, num_workers=4, first_batch=0)]
    assert len(pieces) <= len(plan.groups) + plan.num_lanes
    assert sum(piece.stop - piece.start for piece in pieces) == plan.num_batches * plan.global_batch_size


@pytest.mark.unit
def test_a_row_group_larger_than_a_lane_is_dealt_to_several(tmp_path: Path) -> None:
    groups = write_shards(tmp_path, [200], row_group_rows=200)
    plan = LanePlan(groups=groups, seed=0, epoch=0, num_lanes=4, global_batch_size=16)
    rows = joined(global_batches(plan, 1))
    assert len(rows) == len(set(rows)) == 192
    assert global_batches(plan, 4) == global_batches(plan, 1)


@pytest.mark.unit
def test_fewer_rows_than_a_batch_are_refused(plan: LanePlan) -> None:
    with pytest.raises(ConfigError, match=r"883 rows, fewer than batch.global_batch_size=1024"):
        replace(plan, global_batch_size=1024)


@pytest.mark.unit
def test_a_resumed_stream_shows_the_texts_of_the_undisturbed_one(tmp_path: Path) -> None:
    groups = write_shards(
        tmp_path, [64], row_group_rows=10, function="FUNCTION: Binds.", similarity="SIMILARITY: To it."
    )
    plan = LanePlan(groups=groups, seed=3, epoch=1, num_lanes=4, global_batch_size=8)
    text = TextTokenizer.train(["protein name function binds similarity to it 0 1"], vocabulary_size=90, max_tokens=32)

    def shown(first_batch: int, **of_plan: int) -> dict[str, list[int]]:
        pieces = plan.pieces(rank=0, num_workers=1, first_batch=first_batch)
        rows = [(p.group.path, p.group.index, p.group.num_rows, p.lane, p.start, p.stop) for p in pieces]
        tables = tokenize_pieces(
            {name: np.array(values) for name, values in zip(PIECE_COLUMNS, zip(*rows, strict=True), strict=True)},
            order=replace(plan, **of_plan).row_order,
            protein=ProteinTokenizer(),
            text=text.json,
            max_text_tokens=32,
            properties=False,
            sample_texts=True,
        )
        return {one["accession"]: one["text_ids"] for table in tables for one in table.to_pylist()}

    whole, tail = shown(0), shown(3)
    assert len(whole) == 64 and len({len(ids) for ids in whole.values()}) > 2
    assert 0 < len(tail) < 64
    assert {accession: whole[accession] for accession in tail} == tail
    assert shown(0, epoch=2) != whole != shown(0, seed=4)


@pytest.mark.unit
def test_a_task_is_told_nothing_that_grows_with_the_pairs(plan: LanePlan, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a million row groups, those of 250 million pairs, took each task longer to unpickle than to tokenise."""
    told: list[int] = []

    class Dataset:
        """Takes what is said of the stage."""

        def map_batches(self, stage: object, *, fn_kwargs: dict[str, object], **_: object) -> Dataset:
            told.append(len(pickle.dumps((stage, fn_kwargs))))
            return self

        def iter_batches(self, **_: object) -> list[pa.Table]:
            return []

    monkeypatch.setattr(lanes, "pieces_dataset", lambda _: Dataset())
    text = TextTokenizer.train(["protein name"], vocabulary_size=30, max_tokens=16)
    for groups in (plan.groups, plan.groups * 50):
        list(stream(replace(plan, groups=groups), ProteinTokenizer(), text, rank=0, num_workers=1))
    assert told[0] == told[1]


@pytest.mark.unit
def test_drawn_rows_are_counted_where_the_run_says(plan: LanePlan) -> None:
    works: list[str] = []

    class Elsewhere(InProcess):
        """Says what it is given."""

        def __call__(self, work: Work, items: Sequence[Item]) -> Iterator[Report]:
            works.extend(str(item["unit"]) for item in items)
            return super().__call__(work, list(items)[::-1])

    there = count_drawn(plan.groups, seed=3, epochs=4, run=Elsewhere(threads=2))
    assert works == list(dict.fromkeys(group.path for group in plan.groups))  # a file is a unit
    assert there.shape == (4, len(plan.groups))
    assert (there == count_drawn(plan.groups, seed=3, epochs=4)).all()
    one = [count_subsets(read_row_group(group), seed=3, epochs=4) for group in plan.groups]
    assert there.T.tolist() == one


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
def test_ray_streams_give_the_planned_batches_and_resume(plan: LanePlan) -> None:
    tokenizer = TextTokenizer.train(["protein name 0 1 2 3 4 5 6 7 8 9"], vocabulary_size=60, max_tokens=16)

    def accessions(num_workers: int, first_batch: int) -> list[list[str]]:
        workers = [
            stream(plan, ProteinTokenizer(), tokenizer, rank=rank, num_workers=num_workers, first_batch=first_batch)
            for rank in range(num_workers)
        ]
        return [joined(t.column("accession").to_pylist() for t in parts) for parts in zip(*workers, strict=True)]

    wanted = global_batches(plan, 1)
    for num_workers in WORKERS:
        assert accessions(num_workers, 0) == wanted
    assert accessions(2, 20) == wanted[20:]


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
def test_streamed_tokens_are_those_of_the_row(plan: LanePlan) -> None:
    protein = ProteinTokenizer()
    text = TextTokenizer.train(["protein name 0 1 2 3 4 5 6 7 8 9"], vocabulary_size=60, max_tokens=16)
    for table in islice(stream(plan, protein, text, rank=0, num_workers=2), 2):
        for row in table.to_pylist():
            number = int(row["accession"][1:])
            sequence = "MKT" + "ACDEFGHIKL"[number % 10] * (number % 7 + 1)
            assert row["protein_ids"] == protein.encode(sequence).tolist()
            assert row["text_ids"] == text.encode([f"PROTEIN NAME: Protein {number}."])[0]
