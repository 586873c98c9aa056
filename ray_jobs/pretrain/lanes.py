"""The training stream: which rows make which global batch, and how a worker reads its part.

The rows of an epoch are one seeded sequence: the row groups in a random order, the rows of each in a random order.
The sequence is cut into V equal *lanes*, and global batch t is the t-th piece of B/V rows of every lane, in the order
of the lanes. Worker r of W reads lanes [r·V/W, (r+1)·V/W). So the global batches are the same for every number of
workers, each row comes once, and a stream goes on at any batch by arithmetic alone.

At the end of an epoch fewer than B rows are left over; they are left out, other ones each epoch. A row group that
a lane's end falls into is read by both lanes.

Where the pairs hold all candidates of the sampling, an epoch's rows are a subset of its own, drawn by probability; the
arithmetic is that of the numbers of drawn rows.

It leans on rows being in a random order when the shards are written: a lane's rows come from few row groups at a time.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from protclip.data.subsets import SUBSET_COLUMNS, count_subsets, epoch_subset
from protclip.data.text_sampling import sampled_biotexts
from protclip.data.tokenize import TOKENIZED_COLUMNS, ProteinTokenizer, TextTokenizer, tokenize_pairs
from protclip.errors import ConfigError
from protclip.hashing import hash64
from protclip.protanno.shards import RowGroup, read_row_group, read_row_groups
from protclip.units import InProcess, Item, Report, Run, Work, progress

if TYPE_CHECKING:
    import ray.data

ROWS_PER_TASK = 2048
"""Rows that one Ray Data task reads and tokenises, about: few enough to start soon, enough to be worth a task."""

TASK_CPUS = 0.25
"""Logical CPUs of such a task; train workers reserve theirs, and a small machine must have room for both."""

PIECE_COLUMNS = ("path", "index", "num_rows", "lane", "start", "stop")
"""A piece as a row of Ray Data."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Piece:
    """Rows [start, stop) of a row group, in the epoch's order of its rows, for one lane."""

    group: RowGroup
    lane: int
    start: int
    stop: int


@dataclass(frozen=True, kw_only=True, slots=True)
class RowOrder:
    """Which rows of a row group an epoch has, and in which order: all that reading takes of a plan.

    A plan of 250 million pairs has half a million row groups, which each task would have to unpickle.
    """

    seed: int
    epoch: int
    draws: bool
    """Whether the epoch has only the rows that it draws."""

    def permutation(self, group: RowGroup, num_rows: int) -> np.ndarray:
        """The order of so many rows of one row group."""
        seed = hash64(self.seed, "rows", self.epoch, group.path.rsplit("/", 1)[-1], group.index)
        return np.random.Generator(np.random.Philox(seed)).permutation(num_rows)


@dataclass(frozen=True, kw_only=True, slots=True)
class LanePlan:
    """The arithmetic of one epoch's stream."""

    groups: tuple[RowGroup, ...]
    drawn_EG: np.ndarray | None = None
    """Rows drawn of each row group in each epoch; None where every epoch has all rows."""
    seed: int
    epoch: int
    num_lanes: int
    global_batch_size: int

    def __post_init__(self) -> None:
        assert self.global_batch_size % self.num_lanes == 0
        if self.num_rows < self.global_batch_size:
            raise ConfigError(
                f"the training pairs are {self.num_rows} rows, fewer than batch.global_batch_size="
                f"{self.global_batch_size}; make the batch smaller or curate more pairs."
            )

    @property
    def num_rows(self) -> int:
        """Training rows of the epoch."""
        return int(self._sizes().sum())

    @property
    def num_batches(self) -> int:
        """Global batches of the epoch."""
        return self.num_rows // self.global_batch_size

    @property
    def row_order(self) -> RowOrder:
        """What reading takes of it."""
        return RowOrder(seed=self.seed, epoch=self.epoch, draws=self.drawn_EG is not None)

    @property
    def rows_per_step(self) -> int:
        """Rows of one lane in one global batch."""
        return self.global_batch_size // self.num_lanes

    def pieces(self, *, rank: int, num_workers: int, first_batch: int) -> list[Piece]:
        """What one worker reads from ``first_batch`` on, in the order in which its batches need it."""
        lanes_per_worker = self.num_lanes // num_workers
        lane_length = self.num_batches * self.rows_per_step
        order = np.random.Generator(np.random.Philox(hash64(self.seed, "row groups", self.epoch)))
        permutation = order.permutation(len(self.groups))
        permuted = [self.groups[i] for i in permutation]
        starts = np.concatenate([[0], np.cumsum(self._sizes()[permutation])])

        needed: list[tuple[int, Piece]] = []
        for lane in range(rank * lanes_per_worker, (rank + 1) * lanes_per_worker):
            begin = lane * lane_length + first_batch * self.rows_per_step
            end = (lane + 1) * lane_length
            position = begin
            while position < end:
                i = int(np.searchsorted(starts, position, side="right")) - 1
                stop = min(end, int(starts[i + 1]))
                piece = Piece(group=permuted[i], lane=lane, start=position - int(starts[i]), stop=stop - int(starts[i]))
                needed.append(((position - begin) // self.rows_per_step, piece))
                position = stop
        return [piece for _, piece in sorted(needed, key=lambda item: (item[0], item[1].lane))]

    def _sizes(self) -> np.ndarray:
        """Rows of each row group in the epoch."""
        if self.drawn_EG is not None:
            sizes: np.ndarray = self.drawn_EG[self.epoch]
            return sizes
        return np.array([group.num_rows for group in self.groups], dtype=np.int64)


def count_drawn(groups: Sequence[RowGroup], *, seed: int, epochs: int, run: Run | None = None) -> np.ndarray:
    """Rows that each epoch draws of each row group, (epochs, groups): one pass over two columns.

    Args:
        groups: of whole files, in the order of their indices.
        seed: of the run.
        epochs: in all.
        run: where the files are read; None for this process.
    """
    items = [
        {"unit": path, "row_groups": [group.index for group in of_path]}
        for path, of_path in itertools.groupby(groups, key=attrgetter("path"))
    ]
    work = Work(title="drawing", unit=partial(_count_of_file, seed=seed, epochs=epochs))
    reports = progress((run or InProcess())(work, items), title="drawing", total=len(items))
    counts = {report["path"]: report["counts"] for report in reports}
    return np.array([one for item in items for one in counts[item["unit"]]], dtype=np.int64).T


def _count_of_file(item: Item, *, seed: int, epochs: int) -> Report:
    tables = read_row_groups(item["unit"], item["row_groups"], columns=list(SUBSET_COLUMNS))
    return {"path": item["unit"], "counts": [count_subsets(rows, seed=seed, epochs=epochs) for rows in tables]}


def read_piece(order: RowOrder, piece: Piece) -> pa.Table:
    """The rows of a piece, in order."""
    columns = [*TOKENIZED_COLUMNS, "probability"] if order.draws else list(TOKENIZED_COLUMNS)
    rows = read_row_group(piece.group, columns=columns)
    if order.draws:
        rows = rows.take(epoch_subset(rows, seed=order.seed, epoch=order.epoch)).drop_columns(["probability"])
    return rows.take(order.permutation(piece.group, len(rows))[piece.start : piece.stop])


def worker_batches(tables: Iterator[pa.Table], plan: LanePlan, *, rank: int, num_workers: int) -> Iterator[pa.Table]:
    """Cut one worker's rows of each global batch out of its pieces.

    Args:
        tables: the rows of ``plan.pieces(…)`` in order, each with the column ``lane``; cut anywhere.
        plan: the epoch's plan.
        rank: which worker.
        num_workers: of how many.
    """
    lanes_per_worker = plan.num_lanes // num_workers
    lanes = range(rank * lanes_per_worker, (rank + 1) * lanes_per_worker)
    buffers = {lane: pa.table({}) for lane in lanes}
    lengths = dict.fromkeys(lanes, 0)
    for table in tables:
        for lane, rows in _by_lane(table):
            buffers[lane] = rows if lengths[lane] == 0 else pa.concat_tables([buffers[lane], rows])
            lengths[lane] += len(rows)
        while all(length >= plan.rows_per_step for length in lengths.values()):
            yield pa.concat_tables([buffers[lane].slice(0, plan.rows_per_step) for lane in lanes])
            for lane in lanes:
                buffers[lane] = buffers[lane].slice(plan.rows_per_step)
                lengths[lane] -= plan.rows_per_step


def tokenize_pieces(
    batch: dict[str, np.ndarray],
    *,
    order: RowOrder,
    protein: ProteinTokenizer,
    text: str,
    max_text_tokens: int,
    properties: bool,
    sample_texts: bool,
) -> Iterator[pa.Table]:
    """Ray Data stage: pieces of row groups into tokenised rows with their lane.

    Args:
        batch: pieces, as PIECE_COLUMNS.
        order: of the epoch's rows.
        protein: the protein tokenizer.
        text: the text tokenizer's JSON.
        max_text_tokens: its truncation.
        properties: tokenise each property by itself too.
        sample_texts: show some of each biotext's properties alone.
    """
    tokenizer = _text_tokenizer(text, max_text_tokens)
    columns = (batch[name].tolist() for name in PIECE_COLUMNS)
    for path, index, num_rows, lane, start, stop in zip(*columns, strict=True):
        group = RowGroup(path=path, index=index, num_rows=num_rows)
        piece = Piece(group=group, lane=lane, start=start, stop=stop)
        pairs = read_piece(order, piece)
        shown = sampled_biotexts(pairs, seed=order.seed, epoch=order.epoch) if sample_texts else None
        rows = tokenize_pairs(pairs, protein, tokenizer, properties=properties, shown=shown)
        yield rows.append_column("lane", pa.array(np.full(len(rows), piece.lane, dtype=np.int32)))


def stream(
    plan: LanePlan,
    protein: ProteinTokenizer,
    text: TextTokenizer,
    *,
    rank: int,
    num_workers: int,
    first_batch: int = 0,
    properties: bool = False,
    sample_texts: bool = False,
) -> Iterator[pa.Table]:
    """One worker's rows of each global batch (``TOKEN_SCHEMA``), tokenised by Ray Data ahead of the reader.

    Args:
        plan: the epoch's plan, the same on every worker.
        protein: the protein tokenizer.
        text: the text tokenizer.
        rank: which worker.
        num_workers: of how many; it must divide the lanes.
        first_batch: the global batch to start with.
        properties: tokenise each property by itself too (``PROPERTY_SCHEMA``).
        sample_texts: show some of each biotext's properties alone, other ones in each epoch (``sampled_biotexts``).
    """
    pieces = plan.pieces(rank=rank, num_workers=num_workers, first_batch=first_batch)
    if not pieces:
        return
    arguments = {"order": plan.row_order, "protein": protein, "text": text.json, "max_text_tokens": text.max_tokens}
    arguments |= {"properties": properties, "sample_texts": sample_texts}
    stage: Any = tokenize_pieces  # Ray's annotation knows no keyword arguments
    dataset = pieces_dataset(pieces).map_batches(stage, fn_kwargs=arguments, batch_size=None, num_cpus=TASK_CPUS)
    tables = dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=2)
    yield from worker_batches(iter(tables), plan, rank=rank, num_workers=num_workers)


def pieces_dataset(pieces: Sequence[Piece]) -> ray.data.Dataset:
    """The pieces as a lazy Ray Data set whose blocks stay in order."""
    import ray.data

    num_rows = sum(piece.stop - piece.start for piece in pieces)
    num_tasks = max(1, min(len(pieces), num_rows // ROWS_PER_TASK))
    rows = [(p.group.path, p.group.index, p.group.num_rows, p.lane, p.start, p.stop) for p in pieces]
    items = [dict(zip(PIECE_COLUMNS, row, strict=True)) for row in rows]
    dataset = ray.data.from_items(items, override_num_blocks=num_tasks)
    dataset.context.execution_options.preserve_order = True
    return dataset


def _by_lane(table: pa.Table) -> Iterator[tuple[int, pa.Table]]:
    """Runs of rows of one lane, without the column ``lane``."""
    lanes: Any = table.column("lane").to_numpy()
    rows = table.drop_columns(["lane"])
    edges = np.flatnonzero(np.diff(lanes)) + 1
    for start, stop in zip([0, *edges], [*edges, len(rows)], strict=True):
        if stop > start:
            yield int(lanes[start]), rows.slice(start, stop - start)


@lru_cache(maxsize=1)
def _text_tokenizer(state: str, max_tokens: int) -> TextTokenizer:
    """What a process knows of words, its next task finds known."""
    return TextTokenizer.from_json(state, max_tokens=max_tokens)
