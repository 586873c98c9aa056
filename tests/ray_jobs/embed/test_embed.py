"""protclip embed: what it reads, what it refuses, and what it leaves."""

from __future__ import annotations

import gzip
import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result
from tiny_model import random_sequences, tiny_model

import protclip
from protclip import files
from protclip.__main__ import cli
from protclip.embeddings import embed as stage
from protclip.embeddings.blocks import file_blocks, parts_folder
from protclip.embeddings.cutting import cut
from protclip.embeddings.inputs import find_inputs, read_rows
from protclip.embeddings.parts import EmbedBlock
from protclip.embeddings.repeats import copy_repeats
from protclip.embeddings.settings import EmbedConfig
from protclip.errors import ConfigError, DataError
from protclip.inputs import DTYPES, Dtype
from protclip.manifest import read_manifest
from protclip.units import InProcess, Reporting, report_path

TITIN = "MTTQAPTFTQ" * 4000

BAD_FASTA = (
    b">good first\r\nMKTAYIAK\r\nQRQ\r\n"  # CRLF
    b">lower\nmktay\n"
    b">stop\nMKV*\n"
    b">inside\nMK*V\n"
    b">digit\nMK7V\n"
    b">empty\n"
    b">good again\nMKV\n"
    b">\nMKV\n"
    b">latin caf\xe9\nMKV\n"
    b">TITIN_HUMAN\n" + TITIN.encode() + b"\n"
)


@pytest.fixture
def model(tmp_path: Path) -> str:
    tiny_model().save_pretrained(str(tmp_path / "model"))
    return str(tmp_path / "model")


def config_of(model: str, output: object, *, dtype: Dtype = "float32", **fields: Any) -> EmbedConfig:
    """As ``embed`` has it when nothing is left open."""
    fields = {"content": "protein", "long": "truncate"} | fields
    return EmbedConfig(inputs=("some",), checkpoint=model, output=str(output), dtype=dtype, **fields)


def cut_files(path: Path, work: Path, *, deduplicate: bool = False, part_rows: int = 4) -> list[dict[str, Any]]:
    """The items of a file that was cut, those of repeats behind the others."""
    inputs = find_inputs([str(path)], id_column=None, value_column=None)
    settings = {"content": "protein", "part_rows": part_rows, "deduplicate": deduplicate}
    given = list(cut({}, done=(), inputs=inputs, work=str(work), **settings))  # type: ignore[arg-type]
    items = file_blocks(str(work))
    assert items is not None
    assert given[:-1] == [item for item in items if not item["repeats"]]
    return items


@pytest.mark.unit
def test_bad_fasta_is_read_as_documented(tmp_path: Path) -> None:
    path = tmp_path / "bad.fasta"
    path.write_bytes(BAD_FASTA)
    items = cut_files(path, tmp_path / "work")
    rows = [row for item in items for row in pq.read_table(item["path"]).to_pylist()]
    assert {row["accession"]: row["sequence"] for row in rows} == {
        "good": "MKTAYIAKQRQ",
        "lower": "MKTAY",
        "stop": "MKV",
        "TITIN_HUMAN": TITIN,
    }
    refused = [json.loads(line) for file in sorted((tmp_path / "work/cut").glob("*.jsonl")) for line in file.open()]
    assert Counter(entry["reason"] for entry in refused) == {
        "letter outside the alphabet": 2,
        "no sequence": 1,
        "repeated accession": 1,
        "no accession": 1,
        "not UTF-8": 1,
    }
    assert [entry["line"] for entry in refused] == sorted(entry["line"] for entry in refused)
    for text, message in ((b"", "holds no sequence"), (b"MKV\n", "stands before the first '>'")):
        path.write_bytes(text)
        with pytest.raises(DataError, match=message):
            cut_files(path, tmp_path / "work")


@pytest.mark.unit
def test_parquet_rows_need_an_id_and_a_sequence(tmp_path: Path) -> None:
    columns = {
        "key": ["a", None, "c", "d"],
        "seq": ["mkv", "MKL", "MK7", None],
        "organism": ["E. coli", None, "x", "y"],
    }
    pq.write_table(pa.table(columns), tmp_path / "rows.parquet")
    with pytest.raises(DataError, match="no column accession or id or Entry; columns are key, seq, organism"):
        list(read_rows(find_inputs([str(tmp_path / "rows.parquet")], id_column=None, value_column=None), "protein"))
    inputs = find_inputs([str(tmp_path)], id_column="key", value_column="seq")  # a folder of parquet files
    good, *bad = read_rows(inputs, "protein")
    assert isinstance(good, dict)
    assert (good["accession"], good["sequence"], good["organism"], good["line"]) == ("a", "MKV", "E. coli", 1)
    assert [entry.reason for entry in bad] == [  # type: ignore[union-attr]
        "no accession",
        "letter outside the alphabet",
        "no protein",
    ]


@pytest.mark.unit
def test_deduplicated_parts_hold_each_row_with_the_vector_of_its_first(tmp_path: Path, model: str) -> None:
    sequences = random_sequences(10)
    order = [0, 1, 0, 2, 3, 4, 1, 5, 0, 6, 7, 8, 9, 4]
    fasta = "".join(f">A{i}\n{sequences[number]}\n" for i, number in enumerate(order))
    (tmp_path / "some.fasta").write_text(fasta)
    items = cut_files(tmp_path / "some.fasta", tmp_path / "work", deduplicate=True)
    assert [(item["unit"], item["repeats"]) for item in items] == [
        ("00000", False),
        ("00001", False),
        ("00002", False),
        ("00003", True),
    ]
    config, work = config_of(model, tmp_path / "out", deduplicate=True), str(tmp_path / "work")
    embed = Reporting(EmbedBlock(config, work), parts_folder(work))
    records = [embed(item) for item in items[:3]] + [copy_repeats(items[3], config=config, work=work)]
    assert [record["rows"] for record in records] == [4, 4, 2, 4]
    table = pq.read_table(sorted((tmp_path / "out").glob("part-*.parquet")))
    found = dict(zip(table["accession"].to_pylist(), table["embedding"].to_pylist(), strict=True))
    assert set(found) == {f"A{i}" for i in range(len(order))}
    assert all(found[f"A{i}"] == found[f"A{order.index(number)}"] for i, number in enumerate(order))
    wanted = tiny_model().embed_proteins([sequences[number] for number in order])
    assert np.abs(np.array([found[f"A{i}"] for i in range(len(order))]) - wanted).max() <= 1e-6
    long = dict(zip(table["accession"].to_pylist(), table["long"].to_pylist(), strict=True))
    assert all((long[f"A{i}"] is not None) == (len(sequences[number]) > 62) for i, number in enumerate(order))


@pytest.mark.unit
@pytest.mark.parametrize("content", ["protein", "text"])
def test_a_block_of_repeats_of_refused_rows_alone_leaves_no_part(tmp_path: Path, model: str, content: Any) -> None:
    lines = "".join(f">A{i}\n{sequence}\n" for i, sequence in enumerate([TITIN[:90], "MKV", TITIN[:90], TITIN[:90]]))
    (tmp_path / "some.fasta").write_text(lines)
    items = cut_files(tmp_path / "some.fasta", tmp_path / "work", deduplicate=True)
    long: Any = "error" if content == "protein" else None
    config = config_of(model, tmp_path / "out", deduplicate=True, long=long, content=content)
    work = str(tmp_path / "work")
    if content == "protein":
        Reporting(EmbedBlock(config, work), parts_folder(work))(items[0])
    else:
        files.write_json(report_path(parts_folder(work), "00000"), {"files": {}})  # of a part without any row
    record = copy_repeats(items[1], config=config, work=work)
    assert (record["read"], record["rows"], record["files"], record["long"]) == (2, 0, {}, 0)
    assert [entry["accession"] for entry in record["refused"]] == ["A2", "A3"]


def run(*arguments: str) -> Result:
    """Run a command; what it raises comes out as it is."""
    return CliRunner().invoke(cli, list(arguments), catch_exceptions=False)


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.parametrize("dtype", DTYPES)
def test_what_is_committed_is_neither_computed_nor_read_again(tmp_path: Path, model: str, dtype: Dtype) -> None:
    fasta, output = tmp_path / "some.fasta.gz", tmp_path / "out"
    with gzip.open(fasta, "wt") as stream:
        stream.writelines(f">A{i}\n{sequence}\n" for i, sequence in enumerate(random_sequences(50)))
    arguments = ["embed", str(fasta), "--checkpoint", model, "--part-rows", "10", "--workers", "1", "--dtype", dtype]
    arguments.append("--output")
    run(*arguments, str(tmp_path / "calm"))
    calm = read_manifest(str(tmp_path / "calm"), "embeddings", verify=True)
    assert (calm["rows"], len(calm["files"]), calm["counts"]["quarantined_by_reason"]) == (50, 5, {})

    here = EmbedConfig(inputs=(str(fasta),), checkpoint=model, output=str(tmp_path / "h"), part_rows=10, dtype=dtype)
    assert stage.embed(here, InProcess(threads=3)) == calm

    # The folder as a run leaves it that was killed when all was cut, and parts 0, 1 and 3 were committed.
    job = _started(arguments, output)
    items = list(cut({}, done=(), **job))
    embed = Reporting(EmbedBlock(config_of(model, output, dtype=dtype), job["work"]), parts_folder(job["work"]))
    for number in (0, 1, 3):
        embed(items[number])
    before = {path.name: path.stat().st_mtime_ns for path in output.glob("part-*")}
    status = fasta.stat()
    fasta.write_bytes(b"no longer a gzip file".ljust(status.st_size, b"."))
    os.utime(fasta, ns=(status.st_atime_ns, status.st_mtime_ns))
    run(*arguments, str(output))
    assert read_manifest(str(output), "embeddings", verify=True) == calm
    assert {name: (output / name).stat().st_mtime_ns for name in before} == before

    for other, message in (
        (["--precision", "float16"], "already finished"),
        (["--precision", "float16", "--overwrite"], None),
    ):
        if message is None:
            with pytest.raises(DataError, match=r"some\.fasta\.gz"):  # it is read, and is no FASTA
                run(*arguments, str(output), *other)
        else:
            with pytest.raises(ConfigError, match=message):
                run(*arguments, str(output), *other)
    with pytest.raises(DataError, match=r"some\.fasta\.gz"):  # that one stored nothing: other settings begin anew
        run(*arguments, str(output))


def _started(arguments: list[str], output: Path) -> dict[str, Any]:
    """Claim the folder as the command does; gives the arguments of its cut."""
    found: dict[str, Any] = {}

    class StoppedError(Exception):
        pass

    def stop(self: Any, *_: Any, **__: Any) -> None:
        job = self.job
        found.update(inputs=job.inputs, content=job.content, part_rows=job.part_rows, work=self.work, deduplicate=False)
        raise StoppedError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stage._Embedding, "run", stop)
        with pytest.raises(StoppedError):
            run(*arguments, str(output))
    return found


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
def test_uniprot_files_are_embedded_by_sequence_and_by_text(tmp_path: Path, model: str) -> None:
    from protclip.protanno.synthetic import synthetic_proteome

    for number in (0, 1):
        (tmp_path / f"{number}.dat").write_text("".join(list(synthetic_proteome(30, 3, seed=1))[number::2]))
    pattern = str(tmp_path / "*.dat")
    for content in ("protein", "text"):
        output = str(tmp_path / content)
        run("embed", pattern, "--checkpoint", model, "--content", content, "--output", output, "--workers", "1-2")
        found = protclip.read_embeddings(output)
        assert len(found) == len(set(found.ids)) == 30
        assert found.content == content
        texts = found.metadata["text"].to_pylist()
        assert all(text is None for text in texts) if content == "protein" else all("PROTEIN NAME" in t for t in texts)


@pytest.mark.unit
def test_parquet_columns_go_by_their_letters_and_words_for_nothing_are_no_values(tmp_path: Path) -> None:
    columns = {
        "Entry": ["Q1", "nan", "Q3", "Q4", "Q5", "NA", None],
        "Sequence": ["MKV", "MKV", "NaN", "<NA>", " MKL", "MKV", "MKV"],
        "Protein.names": ["Name", "Name", "Name", "Name", "None", "Name", "Name"],
        "Organism_(ID)": [9606.0, 1.0, 1.0, 1.0, float("nan"), 1.0, 1.0],
        "Organism": ["Homo sapiens", "x", "x", "x", "nan", "x", "x"],
        "reviewed": ["reviewed", "", "", "", "UniProtKB unreviewed (TrEMBL)", "", ""],
        "EC number": ["1.1.1.1; 2.2.2.2", "", "", "", "nan", "", ""],
        "Function [CC]": ["FUNCTION: Binds.", "FUNCTION: x", "NA", "N/A", "FUNCTION: y", "null", "-"],
    }
    pq.write_table(pa.table(columns), tmp_path / "rows.parquet")
    path = str(tmp_path / "rows.parquet")
    rows = list(read_rows(find_inputs([path], id_column=None, value_column=None), "protein"))
    shown = [
        tuple(row[name] for name in ("accession", "sequence", "name", "organism", "organism_id", "reviewed", "ec"))
        for row in rows
        if isinstance(row, dict)
    ]
    assert shown == [
        ("Q1", "MKV", "Name", "Homo sapiens", 9606, True, ["1.1.1.1", "2.2.2.2"]),
        ("Q5", "MKL", None, None, None, False, []),
    ]
    reasons = [row.reason for row in rows if not isinstance(row, dict)]
    assert reasons == ["no accession", "no sequence", "no sequence", "no accession", "no accession"]
    inputs = find_inputs([path], id_column="entry", value_column="function_cc")
    rows = list(read_rows(inputs, "text"))
    assert [row["text"] for row in rows if isinstance(row, dict)] == ["FUNCTION: Binds.", "FUNCTION: y"]
    assert [row.line for row in rows if not isinstance(row, dict)] == [2, 3, 4, 6, 7]


@pytest.mark.unit
def test_text_lines_that_mean_nothing_are_refused(tmp_path: Path) -> None:
    (tmp_path / "lines.txt").write_bytes("Binds ATP.\nNA\n\nnan\nCaf\xe9\n-\n".encode("latin-1"))
    rows = list(read_rows(find_inputs([str(tmp_path / "lines.txt")], id_column=None, value_column=None), "text"))
    assert [row["accession"] for row in rows if isinstance(row, dict)] == ["line-1"]
    bad = [(row.line, row.reason) for row in rows if not isinstance(row, dict)]
    assert bad == [(2, "no text"), (4, "no text"), (5, "not UTF-8"), (6, "no text")]
