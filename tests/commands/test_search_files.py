"""Questions in files and pipes, and answers written to them."""

from __future__ import annotations

import csv
import gzip
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from threading import Thread

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from index_folders import write_embeddings
from ports import free_port
from searches import SEQUENCES, ask, in_each_dtype
from tiny_model import random_texts

from protclip.commands import search
from protclip.commands.answers import answer_schema
from protclip.commands.search import main
from protclip.errors import ConfigError, DataError, IndexMismatchError, RequestError

pytestmark = pytest.mark.unit


@pytest.fixture
def fasta(tmp_path):
    path = tmp_path / "questions.fasta"
    path.write_text("".join(f">sp|Q{i:05d}|NAME_{i} Some protein\n{SEQUENCES[i]}\n" for i in range(7)))
    return str(path)


@in_each_dtype
@pytest.mark.parametrize("batch", [512, 3])
@pytest.mark.slow
def test_each_sequence_of_a_file_is_answered_in_every_format_as_it_is_alone(
    folders, fasta, tmp_path, monkeypatch, batch
):
    monkeypatch.setattr(search, "BATCH_QUERIES", batch)
    found = {}
    for ending in ("parquet", "tsv", "json", "jsonl"):
        path = tmp_path / f"out.{ending}"
        result = ask(folders, "--fasta", fasta, "-k", "4", "--output", str(path))
        assert result.exit_code == 0 and not result.stdout
        assert "(1 of them, the first is 'Q00000')" in result.stderr  # of 90 residues
        found[ending] = path
    table = pq.read_table(found["parquet"])
    assert table.schema.equals(answer_schema(None)) and len(table) == 28
    assert table.schema.metadata[b"model"].decode() == folders[0].fingerprint
    with found["tsv"].open() as stream:
        lines = list(csv.DictReader(stream, delimiter="\t"))
    whole = json.loads(found["json"].read_text())
    queries = whole.pop("queries")
    assert [{**whole, **query} for query in queries] == [json.loads(line) for line in found["jsonl"].open()]
    for i in range(7):
        alone = json.loads(ask(folders, "--sequence", SEQUENCES[i], "-k", "4", "--json").stdout)["hits"]
        rows = table.slice(4 * i, 4).to_pylist()
        assert [row["query"] for row in rows] == [queries[i]["query"]] * 4 == [f"Q{i:05d}"] * 4
        assert rows[0]["accession"] == f"P{i:05d}" and rows[0]["rank"] == 1
        for j, hit in enumerate(alone):
            assert queries[i]["hits"][j]["accession"] == rows[j]["accession"] == hit["accession"]
            assert rows[j]["score"] == pytest.approx(hit["score"], abs=1e-5)
            assert lines[4 * i + j]["accession"] == hit["accession"]
            assert float(lines[4 * i + j]["score"]) == pytest.approx(hit["score"], abs=6e-5)  # of four digits
            assert lines[4 * i + j]["ec"] == "; ".join(hit["ec"])


def test_a_file_of_sequences_without_an_output_is_a_table_each(folders, fasta):
    lines = ask(folders, "--fasta", fasta, "-k", "2").stdout.splitlines()
    assert [line for line in lines if line.startswith("Q")] == [f"Q{i:05d}" for i in range(7)] and len(lines) == 35


@pytest.mark.parametrize(
    ("content", "message"), [(">a\nMK7\n", "line 1"), ("MK\n", "before the first"), ("", "no sequence")]
)
def test_a_damaged_file_of_sequences_leaves_no_output(folders, tmp_path, content, message):
    path = tmp_path / "bad.fasta"
    path.write_text(content)
    output = tmp_path / "out.tsv"
    error = ask(folders, "--fasta", str(path), "--output", str(output)).exception
    assert isinstance(error, DataError) and message in str(error)
    assert [one.name for one in tmp_path.iterdir()] == ["bad.fasta"]


@pytest.mark.parametrize("piped", [False, True])
def test_a_bad_record_is_told_and_the_others_are_answered_as_they_are_alone(folders, fasta, tmp_path, piped):
    bad = tmp_path / "bad.fasta"
    bad.write_text(f">first\nMK7\n{Path(fasta).read_text()}>\nMKV\n>last\n")
    if piped:
        os.mkfifo(tmp_path / "pipe")
        writer = Thread(target=lambda: (tmp_path / "pipe").write_bytes(bad.read_bytes()))
        writer.start()
    asked = str(tmp_path / "pipe") if piped else str(bad)
    result = ask(folders, "--fasta", asked, "-k", "2", "--output", "-")
    if piped:
        writer.join()
    assert result.exit_code == 0
    assert result.stdout == ask(folders, "--fasta", fasta, "-k", "2", "--output", "-").stdout
    told = [line for line in result.stderr.splitlines() if "left out" in line]
    assert [line.removeprefix(f"search: left out: {asked}, line ")[:12] for line in told[:3]] == [
        "1 (first): l",
        "17: no acces",
        "19 (last): n",
    ]
    assert told[3:] == [
        f"search: warning: {asked}: records left out: 3 (letter outside the alphabet: 1, no accession: 1, "
        "no sequence: 1)."
    ]


def test_a_file_without_a_record_is_refused_before_a_server_is_asked(tmp_path):
    (tmp_path / "empty.fasta").write_text("")
    nobody = f"http://127.0.0.1:{free_port()}"
    error = CliRunner().invoke(main, ["--server", nobody, "--fasta", str(tmp_path / "empty.fasta")]).exception
    assert isinstance(error, DataError) and "empty.fasta: holds no sequence" in str(error)


def test_an_output_that_cannot_be_written_is_one_clear_error(folders, tmp_path):
    (tmp_path / "file").write_text("")
    for output, words in (
        ("out.xlsx", "allowed are .parquet"),
        (str(tmp_path / "file" / "out.tsv"), "cannot be written"),
    ):
        error = ask(folders, "--text", "a", "--output", output).exception
        assert isinstance(error, ConfigError) and words in str(error)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
@pytest.mark.slow
def test_a_full_device_is_one_clear_error(folders, tmp_path):
    link = tmp_path / "out.tsv"
    link.symlink_to("/dev/full")
    error = ask(folders, "--text", "a", "--output", str(link)).exception
    assert isinstance(error, ConfigError) and "No space left" in str(error) and link.is_symlink()
    _, index, checkpoint = folders
    command = [sys.executable, "-m", "protclip", "search", index, "--checkpoint", checkpoint, "--text", "a"]
    with Path("/dev/full").open("wb") as full:
        result = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert result.returncode == 1
    assert result.stderr.startswith("ConfigError: standard output") and "Traceback" not in result.stderr


@in_each_dtype
def test_each_line_of_a_file_of_texts_is_a_question(folders, tmp_path):
    texts = random_texts(3, seed=5)
    (tmp_path / "texts.txt").write_text(f"{texts[0]}\n\n  {texts[1]} \r\n{texts[2]}")
    result = ask(folders, "--texts", str(tmp_path / "texts.txt"), "-k", "2", "--json")
    queries = json.loads(result.stdout)["queries"]
    assert [query["query"] for query in queries] == texts
    for text, query in zip(texts, queries, strict=True):
        alone = json.loads(ask(folders, "--text", text, "-k", "2", "--json").stdout)["hits"]
        assert [hit["accession"] for hit in query["hits"]] == [hit["accession"] for hit in alone]
    (tmp_path / "latin.txt").write_text("für", encoding="latin-1")
    error = ask(folders, "--texts", str(tmp_path / "latin.txt")).exception
    assert isinstance(error, DataError) and "save it as UTF-8" in str(error)


@in_each_dtype
def test_vectors_of_a_file_are_questions(folders, tmp_path):
    model = folders[0]
    vectors = 5 * model.embed_proteins(SEQUENCES[:3])
    np.save(tmp_path / "vectors.npy", vectors)
    table = {"accession": ["a", "b", "c"], "embedding": pa.array(vectors.tolist(), pa.list_(pa.float32()))}
    pq.write_table(pa.table(table), tmp_path / "vectors.parquet")
    for file, names in (("vectors.npy", ["row-1", "row-2", "row-3"]), ("vectors.parquet", ["a", "b", "c"])):
        result = CliRunner().invoke(main, [folders[1], "--vectors", str(tmp_path / file), "-k", "1", "--json"])
        queries = json.loads(result.stdout)["queries"]
        assert [query["query"] for query in queries] == names
        assert [query["hits"][0]["accession"] for query in queries] == ["P00000", "P00001", "P00002"]
    result = ask(folders, "--vectors", str(tmp_path / "vectors.npy"), "--exclude-self")
    assert isinstance(result.exception, ConfigError) and "have no ids" in str(result.exception)
    np.save(tmp_path / "vectors.npy", np.zeros((2, 24), np.float32))
    error = ask(folders, "--vectors", str(tmp_path / "vectors.npy")).exception
    assert isinstance(error, RequestError) and "vector 'row-1'" in str(error)
    np.save(tmp_path / "vectors.npy", np.zeros((0, 24), np.float32))
    pq.write_table(pa.table(table).slice(0, 0), tmp_path / "vectors.parquet")
    for file in ("vectors.npy", "vectors.parquet"):
        error = ask(folders, "--vectors", str(tmp_path / file), "--json").exception
        assert isinstance(error, DataError) and "holds no vector" in str(error)


@in_each_dtype
def test_a_folder_of_embeddings_asks_with_its_kind_and_model(folders, tmp_path):
    model, index, _ = folders
    settings = {"dtype": str(model.dtype).removeprefix("torch.")}
    vectors = model.embed_proteins(SEQUENCES[:3])
    own = write_embeddings(tmp_path / "own", vectors, fingerprint=model.fingerprint, settings=settings)
    result = CliRunner().invoke(main, [index, "--vectors", own, "-k", "2", "--exclude-self", "--json"])
    queries = json.loads(result.stdout)["queries"]
    assert [query["query"] for query in queries] == ["P00000", "P00001", "P00002"]
    for query in queries:
        assert query["query"] not in [hit["accession"] for hit in query["hits"]]
        assert all(hit["percentile"] is not None for hit in query["hits"])
    other = write_embeddings(tmp_path / "other", vectors)
    error = CliRunner().invoke(main, [index, "--vectors", other]).exception
    assert isinstance(error, IndexMismatchError) and model.fingerprint in str(error)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("option", ["--fasta", "--texts"])
def test_a_pipe_gives_what_its_file_gives(folders, fasta, tmp_path, option, packed):
    content = Path(fasta).read_bytes() if option == "--fasta" else "\n".join(random_texts(400, seed=5)).encode()
    (tmp_path / "file").write_bytes(gzip.compress(content) if packed else content)
    os.mkfifo(tmp_path / "pipe")
    writer = Thread(target=lambda: (tmp_path / "pipe").write_bytes((tmp_path / "file").read_bytes()))
    writer.start()
    piped = ask(folders, option, str(tmp_path / "pipe"), "-k", "2", "--output", "-")
    writer.join()
    assert piped.exit_code == 0, piped.exception
    assert piped.stdout == ask(folders, option, str(tmp_path / "file"), "-k", "2", "--output", "-").stdout


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (np.zeros((0, 24), np.float32), "holds no vector"),
        (np.ones(24, np.float32), r"shape \(24,\)"),
        (np.ones((2, 24), np.int64), "int64 numbers, and floats are needed"),
    ],
)
def test_a_file_that_holds_no_vectors_is_refused(folders, tmp_path, array, said):
    np.save(tmp_path / "vectors.npy", array)
    for output in ("-", str(tmp_path / "out.json"), str(tmp_path / "out.parquet")):
        error = ask(folders, "--vectors", str(tmp_path / "vectors.npy"), "--output", output).exception
        assert isinstance(error, DataError) and re.search(said, str(error))
    assert not list(tmp_path.glob("*out*"))


def test_rows_of_a_npy_file_have_no_names_to_leave_out(folders, tmp_path):
    np.save(tmp_path / "vectors.npy", np.ones((2, 24), np.float32))
    error = ask(folders, "--vectors", str(tmp_path / "vectors.npy"), "--exclude-self").exception
    assert isinstance(error, ConfigError) and "--exclude-self" in str(error)


def test_a_fasta_file_is_no_file_of_texts(folders, fasta):
    error = ask(folders, "--texts", fasta).exception
    assert isinstance(error, DataError) and "--fasta" in str(error)


def test_json_is_not_written_under_the_name_of_another_form(folders, tmp_path):
    error = ask(folders, "--text", "kinase", "--json", "--output", str(tmp_path / "out.tsv")).exception
    assert isinstance(error, ConfigError) and "leave --json out" in str(error)
