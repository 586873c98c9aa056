"""Plans of 250 million rows on this machine, and what docs/scale.md computes. CPU; some five minutes.

    python benchmarks/scale.py            250 million rows
    python benchmarks/scale.py --quick    5 million; a minute

Synthetic manifests, each measured in a process of its own (processor time, and memory beyond what was there before):

    lanes       a plan of the training stream: row groups, what a task and a worker are told, the pieces of a worker
    footers     a shard with as many row groups as curation writes: reading some of them
    embedding   the items of all parts, and the search for repeated accessions (a smaller number, and bytes of a row)
    index       the plan of an index, which looks for repeated accessions too
    merging     curation: the rows of one shard of pairs out of those of one block

What is computed only is in scale_sums.py; streams and units of work on Ray are measured by scale_streams.py.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import pickle
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from alone import Clock, alone
from collectives import count_all
from input_pipeline import NUM_FILES, write_shards
from report import Claim, write_results
from scale_sums import ASSUMED, ROWS, Parameters, checkpoint_lines, gathered_numbers, network, network_lines

from protclip import files
from protclip.data.seen import DistinctKeys
from protclip.data.tokenize import TOKENIZED_COLUMNS
from protclip.embeddings.blocks import pairs_blocks, read_block
from protclip.index.plan import accession_keys
from protclip.manifest import describe, write_manifest
from protclip.parquet import read_own_table
from protclip.protanno.blocks import BLOCK_BYTES
from protclip.protanno.reading import ROW_SCHEMA, CurationConfig
from protclip.protanno.shards import KIND, SCHEMA, Pairs, RowGroup, read_pairs, read_row_group, read_row_groups
from ray_jobs.pretrain.lanes import LanePlan

QUICK_ROWS = 5_000_000
GROUP_ROWS = CurationConfig().row_group_rows
SHARD_ROWS = int(CurationConfig().shard_mb * 1e6 / ASSUMED["characters_of_a_row"])
WORKER_BATCH = 64
PART_ROWS = {"CPU": 4096, "GPU": 32_768}
LOOKED_AT, QUICK_LOOKED_AT = 2**22, 2**20
"""Accessions among which repeated ones are sought."""


def main() -> None:
    """Measure, compute, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer rows, about a minute")
    quick = parser.parse_args().quick
    rows = QUICK_ROWS if quick else ROWS
    looked_at = QUICK_LOOKED_AT if quick else LOOKED_AT
    load = os.getloadavg()[0]
    lanes = alone(measure_lanes, rows)
    with tempfile.TemporaryDirectory() as folder:
        footers = alone(measure_footers, folder)
        embedding = alone(measure_items, folder, rows)
    figures = {
        "rows": rows,
        "load": load,
        "assumed": ASSUMED,
        "lanes": lanes,
        "footers": footers,
        "embedding": embedding,
        "keys": alone(measure_keys, looked_at),
        "index": alone(measure_index, looked_at),
        "merge_ms": alone(measure_merge),
        "hash_bytes_per_s": measure_hashing(),
        "network": network(),
        "collectives": count_all(),
    }
    claims = [
        Claim(claim="plan_of_a_worker_s", value=lanes["pieces_s"]["512"], target=5.0, unit="s"),
        Claim(claim="task_is_told_bytes", value=lanes["task_bytes"], target=1000, unit="bytes"),
        Claim(claim="repeated_accessions_bytes_a_row", value=figures["keys"]["bytes_a_row"], target=40, unit="bytes"),
        Claim(claim="index_plan_bytes_a_row", value=figures["index"]["bytes_a_row"], target=40, unit="bytes"),
    ]
    write_results("scale", claims, figures, "\n".join(lines(figures)), quick=quick)


def measure_lanes(rows: int) -> dict[str, Any]:
    """A plan of so many rows, as the driver makes it, sends it, and each worker uses it."""
    clock = Clock()
    per_shard = SHARD_ROWS // GROUP_ROWS
    num_groups = -(-rows // GROUP_ROWS)
    num_shards = -(-num_groups // per_shard)
    paths = [f"s3://bucket/pairs/train-{i:05d}-of-{num_shards:05d}.parquet" for i in range(num_shards)]
    groups = tuple(  # each with a number of its own in memory, as footers give them
        RowGroup(path=paths[i // per_shard], index=i % per_shard, num_rows=int(f"{GROUP_ROWS}"))
        for i in range(num_groups)
    )
    found: dict[str, Any] = {"groups": num_groups, "shards": num_shards, "groups_s": clock.s()}
    plan = LanePlan(groups=groups, seed=0, epoch=0, num_lanes=512, global_batch_size=512 * WORKER_BATCH)
    found |= {"plan_s": clock.s(), "driver_mb": clock.peak_mb()}
    pieces, seconds = {}, {}
    for num_workers in (512, 64, 8):
        pieces[str(num_workers)] = len(plan.pieces(rank=num_workers // 2, num_workers=num_workers, first_batch=0))
        seconds[str(num_workers)] = clock.s()
    told = pickle.dumps(plan)
    found |= {"pieces": pieces, "pieces_s": seconds, "worker_bytes": len(told), "pickle_s": clock.s()}
    found["task_bytes"] = len(pickle.dumps(plan.row_order))
    clock.s()
    pickle.loads(told)  # noqa: S301  # of this process: what Ray does with an argument
    return {**found, "unpickle_s": clock.s()}


def measure_footers(folder: str) -> dict[str, Any]:
    """A shard with as many row groups as curation gives it: opened, and read by row groups."""
    sample = write_shards(Path(folder), NUM_FILES * 8 * GROUP_ROWS)
    rows = pa.concat_tables([pq.read_table(path, schema=SCHEMA) for path in sorted({group.path for group in sample})])
    path = str(Path(folder) / "shard.parquet")
    repeats = -(-SHARD_ROWS // len(rows))
    pq.write_table(
        pa.concat_tables([rows] * repeats).slice(0, SHARD_ROWS), path, compression="zstd", row_group_size=GROUP_ROWS
    )
    size = os.path.getsize(path)
    footer = int.from_bytes(Path(path).read_bytes()[-8:-4], "little")
    num_groups = -(-SHARD_ROWS // GROUP_ROWS)
    groups = [RowGroup(path=path, index=i * 13 % num_groups, num_rows=GROUP_ROWS) for i in range(16)]
    columns = list(TOKENIZED_COLUMNS)
    read_row_group(groups[0], columns)
    clock = Clock()
    for group in groups:
        read_row_group(group, columns)
    one_by_one = clock.s() / len(groups)
    list(read_row_groups(path, [group.index for group in groups], columns))
    return {
        "row_groups": num_groups,
        "footer_bytes": footer,
        "row_group_bytes": (size - footer) / num_groups,
        "read_each_opened_ms": 1e3 * one_by_one,
        "read_opened_once_ms": 1e3 * clock.s() / len(groups),
    }


def measure_items(folder: str, rows: int) -> dict[str, Any]:
    """The items of an embedding of a folder of pairs: its shards are names of one and the same file."""
    shard, num_shards = str(Path(folder) / "shard.parquet"), -(-rows // SHARD_ROWS)
    pairs = Path(folder) / "pairs"
    pairs.mkdir()
    names = [f"train-{i:05d}-of-{num_shards:05d}.parquet" for i in range(num_shards)]
    for name in names:
        os.link(shard, pairs / name)
    write_manifest(str(pairs), KIND, [], described=dict.fromkeys(names, describe(shard)))
    clock = Clock()
    opened: Pairs = read_pairs(str(pairs))
    manifest_s = clock.s()
    opened.row_groups("train")
    found: dict[str, Any] = {"shards": num_shards, "manifest_s": manifest_s, "footers_s": clock.s()}
    for device, part_rows in PART_ROWS.items():
        clock.s()
        blocks = pairs_blocks(str(pairs), part_rows)
        found[device] = {"parts": len(blocks), "s": clock.s(), "bytes": sum(len(json.dumps(block)) for block in blocks)}
    found["peak_mb"] = clock.peak_mb()
    clock.s()
    read_block(blocks[0], "protein")
    return {**found, "read_block_s": clock.s()}


def measure_keys(number: int) -> dict[str, Any]:
    """The search for repeated accessions while inputs are cut, 4,096 at a time."""
    seen, clock = DistinctKeys(), Clock()
    for start in range(0, number, PART_ROWS["CPU"]):
        seen.number([f"A0A{i:09d}" for i in range(start, start + PART_ROWS["CPU"])])
    return {"keys": number, "us_a_row": 1e6 * clock.s() / number, "bytes_a_row": 1e6 * clock.peak_mb() / number}


def measure_index(number: int) -> dict[str, Any]:
    """What the plan of an index keeps of accessions and does with them."""
    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for start in range(0, number, PART_ROWS["CPU"]):
            paths.append(f"{folder}/part-{start}.parquet")
            ids = [f"A0A{i:09d}" for i in range(start, start + PART_ROWS["CPU"])]
            pq.write_table(pa.table({"accession": ids}), paths[-1])
        clock = Clock()
        keys = np.sort(np.concatenate(files.in_threads(accession_keys, paths)))
        repeated = int((keys[1:] == keys[:-1]).sum())
        return {
            "accessions": number,
            "repeated": repeated,
            "us_a_row": 1e6 * clock.s() / number,
            "bytes_a_row": 1e6 * clock.peak_mb() / number,
        }


def measure_hashing() -> float:
    """Bytes a second of the checksum of a checkpoint's files."""
    block, clock = bytes(1 << 26), Clock()
    digest = hashlib.sha256()
    for _ in range(8):
        digest.update(block)
    return 8 * len(block) / clock.s()


def measure_merge() -> float:
    """Milliseconds in which the rows of one shard of pairs are read out of those of one block of a flat file."""
    num_shards, count = -(-ROWS // SHARD_ROWS), int(BLOCK_BYTES / ASSUMED["bytes_of_an_entry"])
    orders = np.sort(np.random.default_rng(0).integers(0, 2**64, count, dtype=np.uint64))
    columns: dict[str, Any] = dict.fromkeys(ROW_SCHEMA.names, [None] * count)
    columns |= {
        "accession": [f"A{i:09d}" for i in range(count)],
        "sequence": ["MKT" * 117] * count,
        "function": ["FUNCTION: " + "a" * 240] * count,
        "ec": [[]] * count,
        "sequence_hash": range(count),
        "probability": [1.0] * count,
        "order": orders,
    }
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/block.parquet"
        pq.write_table(pa.table(columns, schema=ROW_SCHEMA), path)
        read_own_table(path)
        clock, width = Clock(), 2**64 // num_shards
        for shard in range(0, num_shards, 10):
            low, high = (pa.scalar(place * width, pa.uint64()) for place in (shard, shard + 1))
            read_own_table(path, filters=(pc.field("order") >= low) & (pc.field("order") < high))
        return 1e3 * clock.s() / len(range(0, num_shards, 10))


def lines(figures: dict[str, Any]) -> Iterator[str]:
    """The tables."""
    lanes, footers, embedding = figures["lanes"], figures["footers"], figures["embedding"]

    def of_all(found: dict[str, Any]) -> str:
        minutes, gb = found["us_a_row"] * ROWS / 6e7, found["bytes_a_row"] * ROWS / 1e9
        return (
            f"{found['us_a_row']:.1f} µs, {found['bytes_a_row']:.0f} bytes a row; for 250 million {minutes:.0f} min, "
            f"{gb:.1f} GB"
        )

    yield (
        f"{figures['rows']:,} rows in {lanes['groups']:,} row groups and {lanes['shards']:,} shards; load of the "
        f"machine at the start {figures['load']:.1f}; seconds are processor time."
    )
    yield ""
    yield "| plan of the training stream, 512 lanes | s | size |"
    yield "|---|---|---|"
    seconds = lanes["groups_s"] + lanes["plan_s"]
    yield f"| row groups and plan, on the driver | {seconds:.2f} | {lanes['driver_mb']:,.0f} MB |"
    seconds = f"{lanes['pickle_s']:.2f}, {lanes['unpickle_s']:.2f}"
    yield f"| what each worker is told, once: written, read | {seconds} | {lanes['worker_bytes'] / 1e6:.1f} MB |"
    yield f"| what each task is told of the order of rows | | {lanes['task_bytes']:,} bytes |"
    for workers, pieces in lanes["pieces"].items():
        yield f"| pieces of one of {workers} workers | {lanes['pieces_s'][workers]:.2f} | {pieces:,} pieces |"
    yield ""
    yield "| a shard of curation | |"
    yield "|---|---|"
    yield f"| row groups | {footers['row_groups']:,} of {footers['row_group_bytes'] / 1e3:,.0f} kB |"
    yield f"| footer | {footers['footer_bytes'] / 1e6:.2f} MB |"
    yield f"| a row group read, the file opened for each | {footers['read_each_opened_ms']:.1f} ms |"
    yield f"| likewise, opened once | {footers['read_opened_once_ms']:.1f} ms |"
    yield ""
    yield "| plans of an embedding and an index | |"
    yield "|---|---|"
    yield f"| manifest of {embedding['shards']:,} shards | {embedding['manifest_s']:.2f} s |"
    yield f"| their footers | {embedding['footers_s']:.2f} s |"
    for device in PART_ROWS:
        found = embedding[device]
        size = f"{found['bytes'] / 1e6:.1f} MB as JSON"
        yield f"| items of {found['parts']:,} parts ({device}), with both of these | {found['s']:.2f} s, {size} |"
    yield f"| memory of these | {embedding['peak_mb']:,.0f} MB |"
    yield f"| a part of {PART_ROWS['GPU']:,} rows read | {embedding['read_block_s']:.2f} s |"
    yield f"| repeated accessions while a file is cut, by {figures['keys']['keys']:,} | {of_all(figures['keys'])} |"
    yield f"| plan of an index, by {figures['index']['accessions']:,} | {of_all(figures['index'])} |"
    yield ""
    yield f"Curation: the rows of one shard of pairs out of those of one block: {figures['merge_ms']:.1f} ms."
    yield ""
    yield from computed_lines(figures)


def computed_lines(figures: dict[str, Any]) -> Iterator[str]:
    """Those of scale_sums.py."""
    yield "## Computed"
    yield ""
    assumed = ", ".join(f"{name} {value:g}" for name, value in figures["assumed"].items())
    yield (
        f"Assumed: {assumed}. Seconds over a node's link are those of its line rate, nothing hidden behind "
        "computation; bold: longer than the computation."
    )
    yield ""
    yield from network_lines(figures["network"])
    yield ""
    yield "Numbers that a step of a tiny model on two gloo processes sent, counted, beside the formula's:"
    yield ""
    yield "| layout, parts | gathered | formula | summed to all | summed to their owners | trained |"
    yield "|---|---|---|---|---|---|"
    counted = figures["collectives"]
    size = Parameters(**counted["size"])
    for case in counted["cases"]:
        formula = gathered_numbers(size, case["micro_batches"])
        yield (
            f"| {case['strategy']}, {case['micro_batches']} | {case['gathered']:,} | "
            f"{formula if case['strategy'] == 'fsdp' else 0:,} | {case['summed']:,} | {case['scattered']:,} | "
            f"{size.trained:,} |"
        )
    yield ""
    yield f"Checkpoints; checksums at the {figures['hash_bytes_per_s'] / 1e6:,.0f} MB/s of this machine:"
    yield ""
    yield from checkpoint_lines(figures["hash_bytes_per_s"])


if __name__ == "__main__":
    main()
