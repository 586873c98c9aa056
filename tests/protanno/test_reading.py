"""The steps of curation, without Ray: the same pairs whatever the cut into inputs, blocks and shards."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from protclip.hashing import hash64
from protclip.protanno import blocks
from protclip.protanno.blocks import cut_blocks
from protclip.protanno.merging import MergeReport, ShardReport, finish_shard, merge_shard
from protclip.protanno.reading import CurationConfig, ReadReport, read_unit
from protclip.protanno.sampling import SamplingConfig
from protclip.protanno.shards import PROPERTIES, SCHEMA, SPLITS
from protclip.protanno.splits import SplitConfig, SplitReport, merit, split_rows
from protclip.protanno.synthetic import synthetic_proteome

pytestmark = pytest.mark.unit

KEEP_ALL = CurationConfig(
    seed=5,
    sampling=SamplingConfig(dataset="all"),
    split=SplitConfig(split_by="sequence", valid_fraction=0.2),
    row_group_rows=16,
)
ENTRIES = list(synthetic_proteome(120, 6, seed=1))


@dataclass(frozen=True, kw_only=True, slots=True)
class Curated:
    """What the steps gave."""

    read: list[ReadReport]
    merged: list[MergeReport]
    split: SplitReport
    finished: list[ShardReport]
    rows: dict[str, list[dict[str, Any]]]
    """Of each split, shard after shard."""
    files: dict[str, str]
    """Checksum by name."""


def curate(folder: Path, inputs: Sequence[str], config: CurationConfig) -> Curated:
    """All steps over the texts of flat files."""
    work = folder / "pairs/.work"
    work.mkdir(parents=True)
    read, units, quarantine = [], [], []
    for i, text in enumerate(inputs):
        path = folder / f"input{i}.dat"
        path.write_text(text)
        for block in cut_blocks(str(path)):
            stem = work / f"{i}-{block.ordinal}"
            read.append(read_unit(block, str(stem), config))
            if read[-1].num_kept:
                units.append(f"{stem}.parquet")
            if read[-1].quarantined:
                quarantine.append(stem)
    num_shards = config.num_shards(sum(report.num_chars for report in read))
    stems = [str(work / f"merged{shard}") for shard in range(num_shards)]
    codes = [str(work / f"splits{shard}.npy") for shard in range(num_shards)]
    merged = [merge_shard(shard, num_shards, units[::-1], stems[shard], config) for shard in range(num_shards)]
    split = split_rows(stems, codes, seed=config.seed, deduplicate=config.deduplicate, config=config.split)
    finished = [
        finish_shard(shard, num_shards, f"{stems[shard]}.parquet", codes[shard], str(folder / "pairs"), config)
        for shard in range(num_shards)
    ]
    names = {name: entry["sha256"] for report in finished for name, entry in report.files.items()}
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in SPLITS}
    for name in sorted(names):
        table = pq.read_table(folder / "pairs" / name)
        assert table.schema.equals(SCHEMA)
        rows[name.split("-")[0]] += table.to_pylist()
    if config.sampling.draw == "once":
        assert split.num_rows == {name: len(rows[name]) for name in SPLITS}
    return Curated(read=read, merged=merged, split=split, finished=finished, rows=rows, files=names)


def all_rows(run: Curated) -> list[dict[str, Any]]:
    return [row for rows in run.rows.values() for row in rows]


@pytest.mark.parametrize("method", ["sequence", "minhash"])
def test_files_do_not_depend_on_inputs_or_order_and_rows_not_on_shards(
    tmp_path: Path, method: Literal["sequence", "minhash"]
) -> None:
    config = replace(KEEP_ALL, split=SplitConfig(split_by=method, valid_fraction=0.2, test_fraction=0.1))
    one = curate(tmp_path / "one", ["".join(ENTRIES)], config)
    shuffled = random.Random(0).sample(ENTRIES, len(ENTRIES))
    thirds = ["".join(shuffled[i::3]) for i in range(3)]
    three = curate(tmp_path / "three", thirds, config)
    four = curate(tmp_path / "four", ["".join(ENTRIES)], replace(config, shard_mb=0.02))
    assert len(all_rows(one)) == len(ENTRIES)
    assert three.files == one.files
    assert len(four.finished) > 2
    assert four.rows == one.rows


def test_candidates_are_kept_for_training_and_what_measures_is_drawn_once(tmp_path: Path) -> None:
    text = "".join(ENTRIES).replace("Reviewed;", "Unreviewed;").replace("\nPE   1", "\nPE   2")
    sampling = SamplingConfig(min_coverage=0.0)
    once, each = (
        curate(tmp_path / draw, [text], replace(KEEP_ALL, sampling=replace(sampling, draw=draw)))
        for draw in ("once", "each-epoch")
    )
    assert sum(each.split.num_rows.values()) == len(ENTRIES)
    assert len(each.rows["train"]) == each.split.num_rows["train"]
    assert each.split.num_rows["valid"] > len(each.rows["valid"]) > 0
    drawn = {row["accession"] for row in all_rows(once)}
    assert {row["accession"] for row in each.rows["valid"]} <= drawn
    assert 0 < len(drawn) < len(ENTRIES) / 2
    assert drawn < {row["accession"] for row in all_rows(each)}
    assert sum(sum(report.num_rows.values()) for report in each.finished) == len(all_rows(each))


def test_blocks_of_an_input_give_the_same_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = curate(tmp_path / "one", ["".join(ENTRIES)], KEEP_ALL)
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 5000)
    many = curate(tmp_path / "many", ["".join(ENTRIES)], KEEP_ALL)
    assert len(many.read) > 10
    assert many.files == one.files


def test_rows_stand_in_the_order_of_the_hash_in_row_groups_of_the_set_size(tmp_path: Path) -> None:
    run = curate(tmp_path / "run", ["".join(ENTRIES)], KEEP_ALL)
    for split in SPLITS:
        order = [hash64(5, "order", row["accession"]) for row in run.rows[split]]
        assert order == sorted(order)
    assert list(run.files) == [f"{split}-00000-of-00001.parquet" for split in SPLITS]
    metadata = pq.read_metadata(tmp_path / "run/pairs/train-00000-of-00001.parquet")
    sizes = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
    assert set(sizes[:-1]) == {16}
    assert metadata.row_group(0).column(0).compression == "ZSTD"


# Every entry twice, under two accessions, the second without its comments.
TWINS = [
    "\n".join(line for line in text.split("\n") if not line.startswith("CC")).replace("AC   Z9Z99", "AC   Y9Y99")
    for text in ENTRIES
]


def test_one_sequence_is_in_one_split_only(tmp_path: Path) -> None:
    run = curate(tmp_path / "run", ["".join(ENTRIES + TWINS)], KEEP_ALL)
    parts = [{row["sequence"] for row in run.rows[split]} for split in SPLITS]
    assert len(all_rows(run)) == 2 * len(ENTRIES)
    assert sum(map(len, parts)) == len(set.union(*parts)) == len(ENTRIES)
    assert [len(run.rows[split]) for split in SPLITS] == [180, 48, 12]


def test_of_one_sequence_the_best_described_row_is_kept_when_asked(tmp_path: Path) -> None:
    config = replace(KEEP_ALL, deduplicate=True)
    poor = [text for text, twin in zip(ENTRIES, TWINS, strict=True) if text.count("-!-") == 1]
    assert len(poor) < len(ENTRIES) / 2
    run = curate(tmp_path / "run", ["".join(TWINS), "".join(ENTRIES)], config)
    alone = curate(tmp_path / "alone", ["".join(ENTRIES)], KEEP_ALL)
    assert run.split.num_merged == len(ENTRIES)
    kept = {row["accession"]: row for row in all_rows(run)}
    wanted = {row["accession"]: row for row in all_rows(alone)}
    assert len(kept) == len(ENTRIES) == len({row["sequence"] for row in kept.values()})
    for accession, row in wanted.items():
        if any(row[name] for name in PROPERTIES[1:]):
            assert kept[accession] == row
    sharded = curate(tmp_path / "sharded", ["".join(TWINS + ENTRIES)], replace(config, shard_mb=0.02))
    assert sharded.rows == run.rows


def test_merit_orders_by_status_properties_existence_and_length_of_text() -> None:
    best_first = [
        {"reviewed": True, "existence": 5},
        {"reviewed": False, "existence": 3, "function": "F", "similarity": "S"},
        {"reviewed": False, "existence": 1, "function": "F"},
        {"reviewed": None, "existence": 2, "function": "Longer"},
        {"reviewed": False, "existence": 2, "function": "F"},
        {"reviewed": False, "existence": None, "function": "F"},
        {"reviewed": False, "existence": 1},
    ]
    columns = {name: [row.get(name) for row in best_first] for name in (*PROPERTIES, "reviewed", "existence")}
    table = pa.table({name: pa.array(values, SCHEMA.field(name).type) for name, values in columns.items()})
    numbers = merit(table).tolist()
    assert numbers == sorted(set(numbers))


def test_of_a_repeated_accession_the_better_row_is_kept_whatever_the_order(tmp_path: Path) -> None:
    reviewed = ENTRIES[0]
    unreviewed = reviewed.replace("Reviewed;", "Unreviewed;").replace("CC   -!- CAUTION", "CC   -!- FUNCTION")
    shorter = "\n".join(line for line in ENTRIES[1].split("\n") if "Short=" not in line)
    inputs = [reviewed + shorter, unreviewed, ENTRIES[1]]
    run = curate(tmp_path / "forth", inputs, KEEP_ALL)
    assert curate(tmp_path / "back", inputs[::-1], KEEP_ALL).files == run.files
    kept = {row["accession"]: row for row in all_rows(run)}
    assert len(kept) == len(all_rows(run)) == 2
    assert run.merged[0].num_repeated == 2
    assert kept["Z9Z990A000"]["reviewed"]
    assert "(" in kept["Z9Z990A001"]["name"].replace("(EC", "")


def test_bad_rows_are_counted_by_reason_and_written_to_the_quarantine(tmp_path: Path) -> None:
    bad = [ENTRIES[0].replace("CRC64", "CRC32"), ENTRIES[1].replace("\nPE   ", "\nPE   9")]
    run = curate(tmp_path / "run", ["".join([*bad, *ENTRIES[2:10]])], KEEP_ALL)
    (report,) = run.read
    assert report.num_read == 10
    assert report.num_kept == len(all_rows(run)) == 8
    assert report.quarantined == {"unreadable SQ line": 1, "unknown protein existence": 1}
    lines = (tmp_path / "run/pairs/.work/0-0.jsonl").read_text()
    records = [json.loads(line) for line in lines.splitlines()]
    assert [record["accession"] for record in records] == ["Z9Z990A000", "Z9Z990A001"]
    assert all(record["source"].endswith("input0.dat") and record["line"] for record in records)


def test_a_kept_entry_that_fails_when_it_is_read_is_quarantined_and_counted_once(tmp_path: Path) -> None:
    good = (Path(__file__).parents[1] / "uniprot/golden.dat").read_bytes().split(b"//\n")[1] + b"//\n"  # unreviewed
    bad = good.replace(b"     MKV", b"     MVK").replace(b"Q00009", b"Q00010")
    (tmp_path / "x.dat").write_bytes(good + bad)
    (tmp_path / "x.tsv").write_text("Entry\tReviewed\tSequence\nQ00009\tunreviewed\tMKV\nQ00010\tunreviewed\tMK7\n")
    for name, reason in (("x.dat", "checksum is not the SQ line's"), ("x.tsv", "letter outside the alphabet")):
        (block,) = cut_blocks(str(tmp_path / name))
        report = read_unit(block, str(tmp_path / "all"), KEEP_ALL)
        assert (report.num_read, report.num_kept, report.quarantined) == (2, 1, {reason: 1})
        assert report.not_sampled == {}
        assert sum(report.coverage.values()) == 1
        record = json.loads((tmp_path / "all.jsonl").read_text())
        assert (record["accession"], record["reason"]) == ("Q00010", reason)
        dropped = read_unit(block, str(tmp_path / "some"), CurationConfig())
        assert (dropped.num_read, dropped.num_kept, dropped.quarantined) == (2, 0, {})
        assert dropped.not_sampled == {"below the coverage": 2}


def test_what_is_not_sampled_is_counted_by_reason(tmp_path: Path) -> None:
    config = replace(KEEP_ALL, sampling=SamplingConfig())
    text = "".join(ENTRIES).replace("Reviewed;", "Unreviewed;")
    run = curate(tmp_path / "run", [text], config)
    (report,) = run.read
    assert report.num_read == report.num_kept + sum(report.not_sampled.values()) == len(ENTRIES)
    assert set(report.not_sampled) <= {"not drawn", "below the coverage"}
    assert 0 < report.num_kept < len(ENTRIES)
    assert sum(report.coverage.values()) == len(ENTRIES)
    (finished,) = run.finished
    assert sum(finished.coverage.values()) == sum(finished.existence.values()) == report.num_kept
    assert sum(report.drawn.values()) == report.num_kept
    assert sum(report.candidates.values()) == report.num_kept + report.not_sampled["not drawn"]


def test_dataset_s_has_the_reviewed_entries_only(tmp_path: Path) -> None:
    text = "".join(ENTRIES[:20]).replace("Reviewed;", "Unreviewed;") + "".join(ENTRIES[20:])
    run = curate(tmp_path / "run", [text], replace(KEEP_ALL, sampling=SamplingConfig(dataset="S")))
    assert len(all_rows(run)) == len(ENTRIES) - 20
    assert all(row["reviewed"] for row in all_rows(run))
    assert run.read[0].not_sampled == {"not reviewed": 20}
    assert not run.read[0].candidates


@pytest.mark.slow
def test_the_real_sample_gives_1216_pairs_from_one_file_or_three(tmp_path: Path, real_data: Path) -> None:
    import gzip

    text = gzip.decompress((real_data / "uniprot/sample_1216.dat.gz").read_bytes()).decode()
    entries = [entry + "//\n" for entry in text.split("//\n") if entry]
    thirds = ["".join(entries[i::3]) for i in range(3)]
    one = curate(tmp_path / "one", [text], KEEP_ALL)
    three = curate(tmp_path / "three", thirds, replace(KEEP_ALL, shard_mb=0.3))
    assert one.rows == three.rows
    assert len(all_rows(one)) == 1216
    assert Counter(one.finished[0].existence) == {"1": 1008, "2": 62, "3": 82, "4": 64}


def test_a_block_tells_which_of_its_entries_look_like_nucleotides(tmp_path: Path) -> None:
    path = tmp_path / "x.fasta"
    sequences = {"P1": "MKV", "P2": "ACGT" * 30, "P3": "GGAUC" * 30}
    path.write_text("".join(f">sp|{name}|A_B Name\n{text}\n" for name, text in sequences.items()))
    (block,) = cut_blocks(str(path))
    report = read_unit(block, str(tmp_path / "unit"), KEEP_ALL)
    assert (report.num_kept, report.nucleotides, report.first_nucleotides) == (3, 2, "P2")
