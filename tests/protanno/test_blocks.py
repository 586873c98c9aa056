"""Blocks of a file are the file: the same entries, the same lines, wherever it is cut."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from protclip.errors import DataError
from protclip.protanno import blocks
from protclip.protanno.blocks import cut_blocks, read_block
from protclip.protanno.synthetic import synthetic_proteome
from protclip.uniprot.batch import EntryBatch
from protclip.uniprot.entry import BadEntry
from protclip.uniprot.formats import open_entries

pytestmark = pytest.mark.unit

ENTRIES = [
    # Every fifth entry is bad, so that lines are told.
    entry.replace("CRC64", "CRC32") if i % 5 == 0 else entry
    for i, entry in enumerate(synthetic_proteome(60, 6, seed=1))
]
PROTEINS = [f"MKV{'ACDEFGHIKLMNPQRSTVWY'[i % 20]}{'' if i % 5 else '7'}" for i in range(200)]
TEXTS = {
    "flat.dat": "".join(ENTRIES),
    "windows.dat": "".join(ENTRIES).replace("//\n", "// \r\n"),
    "open.dat": "".join(ENTRIES).removesuffix("\n"),
    "blank.dat": "".join(ENTRIES) + "\n\n",
    "records.fasta": "".join(f">sp|P{i:05d}|A_B Name\n{text}\n" for i, text in enumerate(PROTEINS)),
    "rows.tsv": "Entry\tReviewed\tSequence\n"
    + "".join(f"P{i:05d}\treviewed\t{text}\n" for i, text in enumerate(PROTEINS)),
    "pairs.jsonl": "".join(
        json.dumps({"seq": text, "text": f"PROTEIN NAME: Number {i}."}) + "\n" for i, text in enumerate(PROTEINS)
    ),
    "page.json": '{"results": ['
    + ",".join(
        json.dumps(
            {"entryType": "UniProtKB reviewed (Swiss-Prot)", "primaryAccession": f"P{i}", "sequence": {"value": s}}
        )
        for i, s in enumerate(PROTEINS)
    )
    + "]}",
    "list.json": json.dumps(
        [{"primaryAccession": f"P{i}", "sequence": {"value": s}} for i, s in enumerate(PROTEINS)], indent=1
    ),
    "rows.csv": "Entry,Reviewed,Sequence\n" + "".join(f"P{i:05d},reviewed,{text}\n" for i, text in enumerate(PROTEINS)),
}


def contents(batches: Sequence[EntryBatch]) -> tuple[list[Any], list[BadEntry]]:
    given = [batch.entry(i) for batch in batches for i in range(len(batch.reviewed))]
    bad = [entry for batch in batches for entry in batch.bad] + [one for one in given if isinstance(one, BadEntry)]
    return [one for one in given if not isinstance(one, BadEntry)], sorted(bad, key=lambda entry: entry.line)


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("block_bytes", [500, 4000])
def test_the_entries_and_their_lines_do_not_depend_on_the_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, block_bytes: int
) -> None:
    path, packed = str(tmp_path / name), str(tmp_path / f"{name}.gz")
    Path(path).write_bytes(TEXTS[name].encode())
    Path(packed).write_bytes(gzip.compress(TEXTS[name].encode()))
    whole = list(open_entries(path))
    monkeypatch.setattr(blocks, "BLOCK_BYTES", block_bytes)
    found = list(cut_blocks(path))
    assert [block.ordinal for block in found] == list(range(len(found)))
    assert len(found) == 1 if name.endswith(".csv") else len(found) > 1
    assert [block.data for block in cut_blocks(packed)] == [block.data for block in found]
    good, bad = contents([batch for block in found for batch in read_block(block)])
    assert good == [entry for entry in whole if not isinstance(entry, BadEntry)]
    assert bad == [entry for entry in whole if isinstance(entry, BadEntry)]
    assert len(bad) in {12, 40}


@pytest.mark.parametrize("name", ["page.json", "list.json"])
def test_a_list_of_json_that_is_cut_between_two_entries_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    path = tmp_path / name
    path.write_text(TEXTS[name][: TEXTS[name].rindex(",")].rsplit("}", 1)[0] + "},")
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 4000)
    with pytest.raises(DataError, match=rf"{name}: the file ends before its list"):
        list(cut_blocks(str(path)))


def test_cuts_do_not_depend_on_how_the_stream_comes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "flat.dat"
    path.write_text(TEXTS["flat.dat"])
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 5000)
    whole = list(cut_blocks(str(path)))
    monkeypatch.setattr("protclip.uniprot.streams.BLOCK_BYTES", 77)
    assert list(cut_blocks(str(path))) == whole


def test_an_entry_larger_than_a_block_stays_whole_and_no_end_at_all_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "flat.dat"
    path.write_text(TEXTS["flat.dat"])
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 100)
    assert [block.data for block in cut_blocks(str(path))] == [entry.encode() for entry in ENTRIES]
    monkeypatch.setattr(blocks, "MAX_ENTRY_BYTES", 5000)
    path.write_text(ENTRIES[0] + TEXTS["flat.dat"].replace("//\n", ""))
    line = ENTRIES[0].count("\n") + 1
    with pytest.raises(DataError, match=rf"flat\.dat: no end of an entry .* from line {line}"):
        list(cut_blocks(str(path)))


def test_a_truncated_gzip_is_an_error_after_its_whole_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "flat.dat.gz"
    packed = gzip.compress(TEXTS["flat.dat"].encode())
    path.write_bytes(packed[: len(packed) // 2])
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 2000)
    found = []
    with pytest.raises(DataError, match=r"flat\.dat\.gz.*cut short"):
        for block in cut_blocks(str(path)):
            found.append(block.data)
    assert found
    assert TEXTS["flat.dat"].encode().startswith(b"".join(filter(None, found)))
