"""Small files that are large when they are unpacked: each reader refuses them, in bounded memory."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tiny_model import tiny_model

from protclip.embeddings.embed import embed
from protclip.embeddings.parts import MAX_TEXT_CHARS
from protclip.embeddings.settings import EmbedConfig
from protclip.errors import DataError
from protclip.parquet import column_values, open_parquet, rows_at_once

pytestmark = pytest.mark.unit

MEMORY_MB = 400
"""What a reader may hold, with all that it imports; each of the files has more."""
_MB = 1 << 20
_CUT = """
import json, sys
from protclip.embeddings import cutting
from protclip.embeddings.inputs import find_inputs
from protclip.errors import DataError

cutting.BLOCK_BYTES = 16 << 20
said = ""
try:
    inputs = find_inputs([sys.argv[1]], id_column=None, value_column=None)
    content = "text" if inputs.kind == "lines" else "protein"
    arguments = dict(inputs=inputs, content=content, part_rows=4096, work=sys.argv[2], deduplicate=True, done=())
    for _ in cutting.cut({}, **arguments):
        pass
except DataError as error:
    said = str(error)
# Not ru_maxrss, which a process takes over from the one that started it.
(peak,) = (line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM:"))
print(json.dumps([int(peak) >> 10, said]))
"""


def packed(path: Path, head: bytes, piece: bytes, number: int) -> None:
    with gzip.open(path, "wb", compresslevel=1) as stream:
        stream.write(head)
        for _ in range(number):
            stream.write(piece)


def repeated(path: Path, num_rows: int, sequence: str, **columns: pa.Array) -> None:
    """A parquet file whose rows all have one sequence, which it holds once."""
    same = pa.DictionaryArray.from_arrays(pa.array([0] * num_rows, pa.int32()), pa.array([sequence]))
    names = pa.array([f"P{i}" for i in range(num_rows)])
    pq.write_table(pa.table({"accession": names, "sequence": same, **columns}), path, store_schema=False)


LINES = (b"A" * 63 + b"\n") * (_MB // 64)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peaks of memory are read from Linux's /proc")
@pytest.mark.parametrize(
    ("name", "write", "said"),
    [
        (
            "wrapped.fasta.gz",
            lambda path: packed(path, b">a\nMKV\n>b\n", LINES, 500),
            "no end of a record in 64 MB from line 3",
        ),
        ("whole.fasta.gz", lambda path: packed(path, b">a\nMKV\n>b\n", b"A" * _MB, 500), "the line at byte 10 is over"),
        (
            "many.fasta.gz",
            lambda path: packed(path, b"", b"".join(b">%d\n%b" % (i, LINES * 10) for i in range(50)), 1),
            None,
        ),
        (
            "texts.txt.gz",
            lambda path: packed(path, b"", b"binds ATP " * (_MB // 10), 500),
            "the line at byte 0 is over",
        ),
        (
            "table.tsv.gz",
            lambda path: packed(path, b"accession\tsequence\nP1\t", b"A" * _MB, 500),
            "the line at byte 19 is over",
        ),
        ("repeated.parquet", lambda path: repeated(path, 500, "A" * _MB), None),
    ],
)
def test_a_small_file_that_unpacks_to_gigabytes_is_cut_in_bounded_memory(
    tmp_path: Path, name: str, write: Callable[[Path], None], said: str | None
) -> None:
    write(tmp_path / name)
    command = [sys.executable, "-c", _CUT, str(tmp_path / name), str(tmp_path / "work")]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    peak_mb, told = json.loads(result.stdout)
    assert peak_mb < MEMORY_MB
    assert (said or "") in told and bool(told) == (said is not None)


def test_parquet_is_read_in_as_many_rows_as_the_footer_says_there_is_memory_for(tmp_path: Path) -> None:
    rows = pa.table({"accession": ["a", "b"], "sequence": ["A" * (8 * _MB), "C" * (8 * _MB)]})
    path = str(tmp_path / "rows.parquet")
    pq.write_table(rows, path, compression="zstd", use_dictionary=False)
    with open_parquet(path) as file:
        assert rows_at_once(file, ["accession"], path) > 1_000_000
        assert rows_at_once(file, ["sequence", "accession"], path) == 7
    pq.write_table(pa.table({"gene": [[None] * (5 * _MB)]}), path)
    with open_parquet(path) as file, pytest.raises(DataError, match="a row has 80 MB on average"):
        rows_at_once(file, ["gene"], path)


def test_dictionaries_of_a_parquet_file_are_the_values_that_it_has_without(tmp_path: Path) -> None:
    table = pa.table(
        {
            "text": ["a", None, "b", "a"],
            "genes": [["x", "y"], None, [], [None, "x"]],
            "number": [1, None, 2, 3],
            "bytes": [b"x", None, b"x", b"y"],
        }
    )
    pq.write_table(table, tmp_path / "f.parquet")
    with open_parquet(str(tmp_path / "f.parquet"), keep_dictionaries=True) as file:
        (batch,) = file.iter_batches(10)
        assert pa.types.is_dictionary(batch.schema.field("text").type)
        assert {name: column_values(batch.column(name)) for name in table.column_names} == table.to_pydict()
        again = batch.slice(1, 3)
        assert {name: column_values(again.column(name)) for name in table.column_names} == table.slice(1, 3).to_pydict()


def test_a_text_that_would_take_gigabytes_to_cut_into_tokens_is_quarantined(tmp_path: Path) -> None:
    tiny_model().save_pretrained(str(tmp_path / "model"))
    (tmp_path / "texts.txt").write_text(f"kinase\n{'binds ATP ' * (MAX_TEXT_CHARS // 9)}\nbinds ATP\n")
    inputs, output = (str(tmp_path / "texts.txt"),), str(tmp_path / "out")
    manifest = embed(EmbedConfig(inputs=inputs, checkpoint=str(tmp_path / "model"), output=output))
    assert manifest["rows"] == 2 and manifest["counts"]["quarantined_by_reason"] == {"text too large": 1}
