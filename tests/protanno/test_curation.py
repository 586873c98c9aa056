"""The two steps of curation, without Ray: the same pairs whatever the cut into inputs and shards."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from protclip.hashing import hash64
from protclip.protanno import curation
from protclip.protanno.curation import CurationConfig, ShardReport, SpillReport, finish_shard, spill_input
from protclip.protanno.sampling import SamplingConfig
from protclip.protanno.shards import SCHEMA
from protclip.protanno.synthetic import synthetic_proteome

pytestmark = pytest.mark.unit

KEEP_ALL = CurationConfig(seed=5, sampling=SamplingConfig(mode="none"), heldout_fraction=0.2, row_group_rows=16)
ENTRIES = list(synthetic_proteome(120, 6, seed=1))


def curate(
    folder: Path, inputs: Sequence[str], config: CurationConfig
) -> tuple[list[SpillReport], list[ShardReport], dict[str, list[dict[str, Any]]]]:
    """Both steps over the texts of flat files; the rows of each split, shard after shard."""
    folder.mkdir()
    reports = []
    for i, text in enumerate(inputs):
        path = folder / f"input{i}.dat"
        path.write_text(text)
        reports.append(spill_input(str(path), str(folder / "pairs"), i, config))
    finished = []
    for shard in range(config.num_shards):
        spills = [report.spills[str(shard)] for report in reports if str(shard) in report.spills]
        if spills:
            finished.append(finish_shard(shard, str(folder / "pairs"), spills, config))
    rows: dict[str, list[dict[str, Any]]] = {"train": [], "heldout": []}
    for name in sorted(name for report in finished for name in report.files):
        table = pq.read_table(folder / "pairs" / name)
        assert table.schema.equals(SCHEMA)
        rows[name.split("-")[0]] += table.to_pylist()
    return reports, finished, rows


def test_pairs_do_not_depend_on_inputs_shards_or_order(tmp_path: Path) -> None:
    _, _, one = curate(tmp_path / "one", ["".join(ENTRIES)], KEEP_ALL)
    shuffled = random.Random(0).sample(ENTRIES, len(ENTRIES))
    thirds = ["".join(shuffled[i::3]) for i in range(3)]
    _, _, three = curate(tmp_path / "three", thirds, KEEP_ALL)
    _, _, four = curate(tmp_path / "four", ["".join(ENTRIES)], replace(KEEP_ALL, num_shards=4))
    assert sum(map(len, one.values())) == len(ENTRIES)
    assert three == one
    assert four == one


def test_rows_stand_in_the_order_of_the_hash_in_row_groups_of_the_set_size(tmp_path: Path) -> None:
    _, finished, rows = curate(tmp_path / "run", ["".join(ENTRIES)], KEEP_ALL)
    for split in ("train", "heldout"):
        order = [hash64(5, "order", row["accession"]) for row in rows[split]]
        assert order == sorted(order)
    assert finished[0].files == ["train-00000-of-00001.parquet", "heldout-00000-of-00001.parquet"]
    metadata = pq.read_metadata(tmp_path / "run/pairs/train-00000-of-00001.parquet")
    sizes = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
    assert set(sizes[:-1]) == {16}
    assert metadata.row_group(0).column(0).compression == "ZSTD"


def test_one_sequence_is_in_one_split_only(tmp_path: Path) -> None:
    # Every entry twice, under two accessions.
    twins = [text.replace("AC   Z9Z99", "AC   Y9Y99") for text in ENTRIES]
    _, _, rows = curate(tmp_path / "run", ["".join(ENTRIES + twins)], KEEP_ALL)
    train, heldout = ({row["sequence"] for row in rows[split]} for split in ("train", "heldout"))
    assert len(rows["train"]) + len(rows["heldout"]) == 2 * len(ENTRIES)
    assert not train & heldout
    assert 0.1 < len(heldout) / len(train | heldout) < 0.3


def test_of_a_repeated_accession_the_better_row_is_kept_whatever_the_order(tmp_path: Path) -> None:
    reviewed = ENTRIES[0]
    unreviewed = reviewed.replace("Reviewed;", "Unreviewed;").replace("CC   -!- CAUTION", "CC   -!- FUNCTION")
    shorter = "\n".join(line for line in ENTRIES[1].split("\n") if "Short=" not in line)
    inputs = [reviewed + shorter, unreviewed, ENTRIES[1]]
    _, finished, rows = curate(tmp_path / "forth", inputs, KEEP_ALL)
    _, _, reverse = curate(tmp_path / "back", inputs[::-1], KEEP_ALL)
    assert rows == reverse
    kept = {row["accession"]: row for split in rows.values() for row in split}
    assert len(kept) == sum(map(len, rows.values())) == 2
    assert finished[0].num_repeated == 2
    assert kept["Z9Z990A000"]["reviewed"]
    assert "(" in kept["Z9Z990A001"]["name"].replace("(EC", "")


def test_bad_rows_are_counted_by_reason_and_written_to_the_quarantine(tmp_path: Path) -> None:
    bad = [ENTRIES[0].replace("CRC64", "CRC32"), ENTRIES[1].replace("\nPE   ", "\nPE   9")]
    (report,), _, rows = curate(tmp_path / "run", ["".join([*bad, *ENTRIES[2:10]])], KEEP_ALL)
    assert report.num_read == 10
    assert report.num_kept == sum(map(len, rows.values())) == 8
    assert report.quarantined == {"unreadable SQ line": 1, "unknown protein existence": 1}
    lines = (tmp_path / "run/pairs" / curation.SPILL_FOLDER / "000000" / curation.QUARANTINE_FILE).read_text()
    records = [json.loads(line) for line in lines.splitlines()]
    assert [record["accession"] for record in records] == ["Z9Z990A000", "Z9Z990A001"]
    assert all(record["source"].endswith("input0.dat") and record["line"] for record in records)


def test_a_kept_entry_that_fails_when_it_is_read_is_quarantined_and_counted_once(tmp_path: Path) -> None:
    good = (Path(__file__).parents[1] / "uniprot/golden.dat").read_bytes().split(b"//\n")[1] + b"//\n"  # unreviewed
    bad = good.replace(b"     MKV", b"     MVK").replace(b"Q00009", b"Q00010")
    (tmp_path / "x.dat").write_bytes(good + bad)
    (tmp_path / "x.tsv").write_text("Entry\tReviewed\tSequence\nQ00009\tunreviewed\tMKV\nQ00010\tunreviewed\tMK7\n")
    for name, reason in (("x.dat", "checksum is not the SQ line's"), ("x.tsv", "letter outside the alphabet")):
        kept = CurationConfig(sampling=SamplingConfig(mode="none"))
        report = spill_input(str(tmp_path / name), str(tmp_path / "all"), 0, kept)
        assert (report.num_read, report.num_kept, report.quarantined) == (2, 1, {reason: 1})
        assert report.not_sampled == {}
        assert sum(report.coverage.values()) == 1
        record = json.loads((tmp_path / "all/.spill/000000/quarantine.jsonl").read_text())
        assert (record["accession"], record["reason"]) == ("Q00010", reason)
        dropped = spill_input(str(tmp_path / name), str(tmp_path / "some"), 0, CurationConfig())
        assert (dropped.num_read, dropped.num_kept, dropped.quarantined) == (2, 0, {})
        assert dropped.not_sampled == {"below the coverage": 2}


def test_what_is_not_sampled_is_counted_by_reason(tmp_path: Path) -> None:
    config = replace(KEEP_ALL, sampling=SamplingConfig())
    text = "".join(ENTRIES).replace("Reviewed;", "Unreviewed;")
    (report,), finished, _ = curate(tmp_path / "run", [text], config)
    assert report.num_read == report.num_kept + sum(report.not_sampled.values()) == len(ENTRIES)
    assert set(report.not_sampled) <= {"not drawn", "below the coverage"}
    assert 0 < report.num_kept < len(ENTRIES)
    assert sum(report.coverage.values()) == len(ENTRIES)
    assert sum(finished[0].coverage.values()) == sum(finished[0].existence.values()) == report.num_kept


def test_a_small_buffer_gives_the_same_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = replace(KEEP_ALL, num_shards=3)
    _, _, expected = curate(tmp_path / "large", ["".join(ENTRIES)], config)
    monkeypatch.setattr(curation, "BUFFER_BYTES", 2000)
    _, finished, rows = curate(tmp_path / "small", ["".join(ENTRIES)], config)
    assert rows == expected
    assert not any(report.num_repeated for report in finished)


def test_the_real_sample_gives_1216_pairs_from_one_file_or_three(tmp_path: Path, real_data: Path) -> None:
    import gzip

    text = gzip.decompress((real_data / "uniprot/sample_1216.dat.gz").read_bytes()).decode()
    entries = [entry + "//\n" for entry in text.split("//\n") if entry]
    thirds = ["".join(entries[i::3]) for i in range(3)]
    _, finished, one = curate(tmp_path / "one", [text], KEEP_ALL)
    _, _, three = curate(tmp_path / "three", thirds, replace(KEEP_ALL, num_shards=4))
    assert one == three
    assert len(one["train"]) + len(one["heldout"]) == 1216
    assert Counter(finished[0].existence) == {"1": 1008, "2": 62, "3": 82, "4": 64}
