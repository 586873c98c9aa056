"""How fast the training stream is, against what a training step of ESM-2 8M's shape takes from it. CPU; some minutes.

    python benchmarks/input_pipeline.py            50,000 pairs
    python benchmarks/input_pipeline.py --quick    8,000; about a minute

Generated pairs in parquet, with UniProt's lengths of proteins, and texts in which new words never end: as many as in
1,216 entries of UniProt, which have 19,400 distinct words among 290,000 words and punctuation marks. One pass over an
epoch's lanes, all objectives on, in this process:

    read        the pieces' row groups, their rows in the epoch's order
    tokenise    proteins, biotexts, and each property by itself
    cut         the worker's rows of each global batch
    collate     padded tensors, masks, noise seeds

Rates are rows per second of processor time, so "per core". ``whole texts`` is tokenisation with each text given to the
Rust tokenizer as it is. The first rows are slower, since their words are new to the process. Then the same through Ray
Data, for two workers at once, after a start that is not counted: wall time, which other work on the machine lengthens
(Ray ends idle processes, and their processor time goes with them).
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from report import Claim, write_results
from train_step import (
    MASK_ID,
    MAX_RESIDUES,
    MEDIAN_RESIDUES,
    NUM_PAIRS,
    OBJECTIVES,
    PROTEIN_SHAPES,
    SMALL_TEXT,
    SPREAD,
    TEXT_SHAPES,
    our_pass,
    tokenised_pairs,
)

from cluster.environment import prepare_environment
from protclip.data.collate import Batch, Masking, collate
from protclip.data.tokenize import ProteinTokenizer, TextTokenizer, biotexts, tokenize_pairs
from protclip.hashing import hash64
from protclip.model.build import ESM2_FIELDS, NO_DROPOUT
from protclip.model.dual_encoder import Architecture, DualEncoder
from protclip.model.encoders import encoder_config
from protclip.protanno.biotext import property_texts
from protclip.protanno.reading import CurationConfig
from protclip.protanno.shards import PROPERTIES, SCHEMA, RowGroup
from ray_jobs.cluster import connect, tame_ray_data
from ray_jobs.pretrain.lanes import LanePlan, read_piece, stream, worker_batches

ROWS, QUICK_ROWS = 50_000, 8_000
NUM_FILES, NUM_LANES, GLOBAL_BATCH, NUM_WORKERS = 4, 16, 512, 2
MICRO_BATCH = 64
MASKING = Masking(objectives=OBJECTIVES, seed=0, epoch=0, mask_id=MASK_ID)
VOCABULARY, MAX_TEXT_TOKENS = 8000, 512
PROPERTY_WORDS = (4, 60, 18, 9)
"""Median words of each property; their spread is that of the proteins."""
ABSENT_SHARE = 0.2
"""Of each property but the name."""

Item = TypeVar("Item")


def main() -> None:
    """Generate, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer rows, about a minute")
    quick = parser.parse_args().quick
    load = os.getloadavg()[0]
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        groups = write_shards(Path(folder), QUICK_ROWS if quick else ROWS)
        plan = LanePlan(groups=groups, seed=0, epoch=0, num_lanes=NUM_LANES, global_batch_size=GLOBAL_BATCH)
        rows = pq.read_table(groups[0].path).slice(0, 2000)
        words = [len(text.split()) for text in biotexts(rows)]
        text = TextTokenizer.train(biotexts(rows), vocabulary_size=VOCABULARY, max_tokens=MAX_TEXT_TOKENS)
        seconds = stage_seconds(plan, text)
        whole = whole_texts_s(rows, text) / len(rows)
        ray_s = ray_wall_s(plan, text)
    num_rows = plan.num_batches * GLOBAL_BATCH
    pairs_per_s = step_rate(steps=1 if quick else 3)
    stream_rate = num_rows / sum(seconds.values())
    tokenise_rate = num_rows / seconds["tokenise"]
    claims = [
        Claim(claim="input_over_step_8m", value=stream_rate / pairs_per_s, target=5.0, unit="x"),
        Claim(claim="tokenise_vs_whole_texts", value=tokenise_rate * whole, unit="x"),
        Claim(claim="input_rows_per_core_s", value=stream_rate, unit="rows/s"),
    ]
    lines = [
        f"{num_rows:,} rows; texts of {np.mean(words):.0f} words (median {np.median(words):.0f}); load of the machine "
        f"at the start {load:.1f}.",
        "",
        "| what | rows per core-second | µs per row |",
        "|---|---|---|",
        *(f"| {name} | {num_rows / s:,.0f} | {s / num_rows * 1e6:.0f} |" for name, s in seconds.items()),
        f"| all of it, one process | {stream_rate:,.0f} | {1e6 / stream_rate:.0f} |",
        f"| tokenise, whole texts | {1 / whole:,.0f} | {whole * 1e6:.0f} |",
        f"| the step of ESM-2 8M's shape takes | {pairs_per_s:.3g} | |",
        "",
        f"By Ray Data, for {NUM_WORKERS} workers at once, it took {ray_s:.1f} s on the clock: "
        f"{num_rows / ray_s:,.0f} rows/s.",
    ]
    figures = {
        "rows": num_rows,
        "seconds": seconds,
        "whole_texts_s_per_row": whole,
        "ray_wall_s": ray_s,
        "step_pairs_per_s": pairs_per_s,
        "load": load,
    }
    write_results("input_pipeline", claims, figures, "\n".join(lines), quick=quick)


def stage_seconds(plan: LanePlan, text: TextTokenizer) -> dict[str, float]:
    """Processor time of each stage of one worker that reads all lanes of an epoch."""
    seconds: dict[str, float] = defaultdict(float)
    protein = ProteinTokenizer()

    def timed(name: str, work: Callable[[], Item]) -> Item:
        before = time.process_time()
        result = work()
        seconds[name] += time.process_time() - before
        return result

    def tables() -> Iterator[pa.Table]:
        for piece in plan.pieces(rank=0, num_workers=1, first_batch=0):
            rows = timed("read", lambda piece=piece: read_piece(plan.row_order, piece))  # type: ignore[misc]
            tokens = timed("tokenise", lambda rows=rows: tokenize_pairs(rows, protein, text, properties=True))  # type: ignore[misc]
            yield tokens.append_column("lane", pa.array(np.full(len(tokens), piece.lane, dtype=np.int32)))

    batches = worker_batches(tables(), plan, rank=0, num_workers=1)
    while True:
        inner = seconds["read"] + seconds["tokenise"]
        before = time.process_time()
        table = next(batches, None)
        seconds["cut"] += time.process_time() - before - (seconds["read"] + seconds["tokenise"] - inner)
        if table is None:
            return dict(seconds)
        timed("collate", lambda table=table: collated(table))  # type: ignore[misc]


def collated(table: pa.Table) -> list[Batch]:
    """A worker's part of a global batch in micro-batches."""
    starts = range(0, len(table), MICRO_BATCH)
    return [
        collate(table.slice(start, MICRO_BATCH), protein_pad_id=1, text_pad_id=0, masking=MASKING) for start in starts
    ]


def whole_texts_s(rows: pa.Table, text: TextTokenizer) -> float:
    """Processor time of what tokenisation was before it knew pieces."""
    protein = ProteinTokenizer()
    before = time.process_time()
    properties = zip(*(rows.column(name).to_pylist() for name in PROPERTIES), strict=True)
    texts = [*biotexts(rows), *(part for values in properties for part in property_texts(*values) if part)]
    pa.array(text.encode(texts), pa.list_(pa.int32()))
    for sequence in rows.column("sequence").to_pylist():
        protein.encode(sequence)
    return time.process_time() - before


def ray_wall_s(plan: LanePlan, text: TextTokenizer) -> float:
    """Two workers' streams at once, each with its collation."""
    prepare_environment()
    connect(num_cpus=2 * NUM_WORKERS)
    import ray

    @ray.remote
    def consume(rank: int, state: str, num_batches: int) -> int:
        tame_ray_data()
        tokenizer = TextTokenizer.from_json(state, max_tokens=MAX_TEXT_TOKENS)
        tables = stream(
            plan, ProteinTokenizer(), tokenizer, rank=rank, num_workers=NUM_WORKERS, properties=OBJECTIVES.pda > 0
        )
        return sum(batch.num_pairs for table in islice(tables, num_batches) for batch in collated(table))

    def consume_all(num_batches: int) -> int:
        return sum(ray.get([consume.remote(rank, text.json, num_batches) for rank in range(NUM_WORKERS)]))

    consume_all(2)  # processes start, libraries are imported
    before = time.monotonic()
    assert consume_all(plan.num_batches) == plan.num_batches * GLOBAL_BATCH
    seconds = time.monotonic() - before
    ray.shutdown()
    return seconds


def step_rate(*, steps: int) -> float:
    """Pairs that a training step of ESM-2 8M's shape takes in a second of a core."""
    architecture = Architecture(
        protein=encoder_config("protein", {**PROTEIN_SHAPES["8m"], **ESM2_FIELDS}),
        text=encoder_config("text", {**TEXT_SHAPES[SMALL_TEXT], **NO_DROPOUT}),
        projection_dim=512,
        max_protein_tokens=MAX_RESIDUES + 2,
        max_text_tokens=MAX_TEXT_TOKENS,
        objectives=OBJECTIVES,
    )
    model = DualEncoder(architecture, freeze_text=True).train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-5)
    rows = tokenised_pairs(architecture.text.vocab_size)
    batch = collate(rows, protein_pad_id=1, text_pad_id=0, masking=MASKING)
    seconds = []
    for _ in range(1 + steps):  # the first is the warm-up
        before = time.process_time()
        optimizer.zero_grad(set_to_none=True)
        our_pass(model, batch)
        optimizer.step()
        seconds.append(time.process_time() - before)
    return NUM_PAIRS / min(seconds[1:])


def write_shards(folder: Path, num_rows: int) -> tuple[RowGroup, ...]:
    """Shards of pairs as curation writes them."""
    rng = np.random.default_rng(0)
    letters = np.array(list("ACDEFGHIKLMNPQRSTVWY"))
    config = CurationConfig()
    groups: list[RowGroup] = []
    for number in range(NUM_FILES):
        count = num_rows // NUM_FILES
        lengths = np.clip(rng.lognormal(np.log(MEDIAN_RESIDUES), SPREAD, count), 30, 5000).astype(int)
        pool = "".join(rng.choice(letters, 1_000_000))
        places = rng.integers(0, len(pool) - 5000, count)
        sequences = [pool[place : place + length] for place, length in zip(places, lengths, strict=True)]
        columns: dict[str, Any] = dict.fromkeys(SCHEMA.names, [None] * count)
        columns |= {
            "accession": [f"A{number}{i:07d}" for i in range(count)],
            "sequence": sequences,
            **{
                name: property_column(rng, count, words, absent=0.0 if name == "name" else ABSENT_SHARE)
                for name, words in zip(PROPERTIES, PROPERTY_WORDS, strict=True)
            },
            "ec": [[]] * count,
            "sequence_hash": [hash64(sequence) for sequence in sequences],
            "probability": [1.0] * count,
        }
        path = str(folder / f"train-{number:05d}-of-{NUM_FILES:05d}.parquet")
        table = pa.table(columns, schema=SCHEMA)
        pq.write_table(table, path, compression="zstd", row_group_size=config.row_group_rows)
        starts = range(0, count, config.row_group_rows)
        groups += [
            RowGroup(path=path, index=index, num_rows=min(config.row_group_rows, count - start))
            for index, start in enumerate(starts)
        ]
    return tuple(groups)


def property_column(rng: np.random.Generator, count: int, median_words: int, *, absent: float) -> list[str | None]:
    """Texts of made-up words, the frequent ones with a probability that falls as their rank to the power 1.53."""
    lengths = np.clip(median_words * rng.lognormal(0, SPREAD, count), 1, 600).astype(int)
    ranks = np.minimum(80 * (rng.random(lengths.sum()) ** -1.9 - 1), 2**40).astype(int)
    words = iter([word(rank) for rank in ranks.tolist()])
    texts = [" ".join(next(words) for _ in range(length)) for length in lengths]
    return [None if gone else text for text, gone in zip(texts, rng.random(count) < absent, strict=True)]


def word(rank: int) -> str:
    """A word for a rank, in the letters of its number; some have the signs that texts of proteins are full of."""
    letters = "".join("etaoinshrdlucmfp"[int(digit, 16)] for digit in f"{rank * 2654435761 % 2**40:x}")
    body = letters[: 2 + min(9, len(str(rank)) * 2)]
    return {0: f"{body},", 1: f"{body}.", 2: f"({body})", 3: f"{body}(2+)-{body[:3]}"}.get(rank % 12, body)


if __name__ == "__main__":
    main()
