from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result
from tiny_model import random_sequences, random_texts, tiny_model, write_protein_index

from protclip.commands import search
from protclip.commands.answers import answer_schema
from protclip.commands.search import main
from protclip.errors import ConfigError, DataError, IndexMismatchError, RequestError
from protclip.index.embeddings import DTYPES
from protclip.index.exact import exact_search

pytestmark = pytest.mark.unit
SEQUENCES = random_sequences(40)


@pytest.fixture(scope="module", params=DTYPES)
def folders(tmp_path_factory, request):
    folder = tmp_path_factory.mktemp("search")
    model = tiny_model(dtype=request.param)
    model.save_pretrained(str(folder / "checkpoint"))
    return model, write_protein_index(folder, model, SEQUENCES), str(folder / "checkpoint")


def ask(folders, *arguments: str) -> Result:
    _, index, checkpoint = folders
    return CliRunner().invoke(main, [index, "--checkpoint", checkpoint, *arguments])


def test_a_sequence_finds_itself_in_an_aligned_table(folders):
    result = ask(folders, "--sequence", SEQUENCES[12], "-k", "3")
    lines = result.stdout.splitlines()
    columns = ["rank", "score", "percentile", "accession", "gene", "name", "organism"]
    assert lines[0].split() == columns and len(lines) == 4
    assert lines[1].split() == ["1", "1.0000", "100.0", "P00012", "gP00012", "Protein", "12", "Homo", "sapiens"]
    assert {line.index("Homo") for line in lines[1:]} == {lines[0].index("organism")}


def test_a_sequence_scores_1_against_itself_in_the_dtype_of_the_index(folders):
    for i in (3, 12):
        hit = json.loads(ask(folders, "--sequence", SEQUENCES[i], "-k", "1", "--json").stdout)["hits"][0]
        assert (hit["accession"], hit["score"]) == (f"P{i:05d}", pytest.approx(1, abs=1e-6))
    text, model = random_texts(1, seed=5)[0], folders[0]
    score = json.loads(ask(folders, "--text", text, "-k", "1", "--json").stdout)["hits"][0]["score"]
    assert score == pytest.approx((model.embed_proteins(SEQUENCES) @ model.embed_texts([text])[0]).max(), abs=1e-6)


def test_a_text_finds_what_exact_search_finds(folders):
    model, text = folders[0], random_texts(1, seed=5)[0]
    answer = json.loads(ask(folders, "--text", text, "-k", "5", "--json").stdout)
    scores, rows = exact_search(model.embed_proteins(SEQUENCES), model.embed_texts([text]), 5)
    assert [hit["accession"] for hit in answer["hits"]] == [f"P{row:05d}" for row in rows[0]]
    assert [hit["score"] for hit in answer["hits"]] == pytest.approx(scores[0].tolist(), abs=1e-5)
    assert answer["model"] == model.fingerprint


def test_another_models_index_is_refused_with_both_fingerprints(folders, tmp_path):
    other = tiny_model(seed=1)
    other.save_pretrained(str(tmp_path / "other"))
    result = CliRunner().invoke(main, [folders[1], "--checkpoint", str(tmp_path / "other"), "--text", "a"])
    assert isinstance(result.exception, IndexMismatchError)
    assert other.fingerprint in str(result.exception) and folders[0].fingerprint in str(result.exception)


@pytest.mark.parametrize("arguments", [(), ("--text", "a", "--sequence", "M")])
def test_it_takes_exactly_one_question(folders, arguments):
    assert isinstance(ask(folders, *arguments).exception, ConfigError)


@pytest.mark.parametrize("arguments", [("--sequence", "MK7"), ("--sequence", ""), ("--text", " ")])
def test_a_question_that_cannot_be_embedded_is_one_clear_error(folders, arguments):
    assert isinstance(ask(folders, *arguments).exception, DataError)


@pytest.fixture
def fasta(tmp_path):
    path = tmp_path / "questions.fasta"
    path.write_text("".join(f">sp|Q{i:05d}|NAME_{i} Some protein\n{SEQUENCES[i]}\n" for i in range(7)))
    return str(path)


@pytest.mark.parametrize("batch", [512, 3])
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


def test_a_question_in_nucleotides_is_answered_with_a_warning(folders, tmp_path):
    result = ask(folders, "--sequence", "acgt" * 30)
    assert "warning: --sequence: a sequence looks like DNA or RNA (ACGTACGTACGT…);" in result.stderr
    source = tmp_path / "dna.fasta"
    source.write_text(f">protein\nMKV\n>1abc_B\tmol:na length:3\nACG\n>gene\n{'ACGT' * 30}\n")
    result = ask(folders, "--fasta", str(source))
    assert f"warning: {source}: 2 sequences look like DNA or RNA (the first is 1abc_B);" in result.stderr
    assert "warning" not in ask(folders, "--sequence", "MKV").stderr


def test_a_filter_narrows_the_answers(folders):
    hits = json.loads(
        ask(folders, "--text", "kinase", "-k", "50", "--json", "--filter", "reviewed and length < 120").stdout
    )["hits"]
    assert sorted(hit["accession"] for hit in hits) == [f"P{i:05d}" for i in range(0, 20, 2)]
    assert "rank" in ask(folders, "--text", "kinase", "--filter", "length > 9999").stdout  # nothing is an answer too
    error = ask(folders, "--text", "kinase", "--filter", "size > 3").exception
    assert isinstance(error, RequestError) and "character 1" in str(error)


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


def test_an_output_that_cannot_be_written_is_one_clear_error(folders, tmp_path):
    (tmp_path / "file").write_text("")
    for output, words in (
        ("out.xlsx", "allowed are .parquet"),
        (str(tmp_path / "file" / "out.tsv"), "cannot be written"),
    ):
        error = ask(folders, "--text", "a", "--output", output).exception
        assert isinstance(error, ConfigError) and words in str(error)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
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
