from __future__ import annotations

import csv
import json

import pytest
from click.testing import CliRunner
from index_folders import write_embeddings
from searches import SEQUENCES, ask, in_each_dtype, measured
from tiny_model import random_texts, tiny_model

from protclip.commands.search import main
from protclip.embeddings.reading import read_embeddings
from protclip.errors import ConfigError, DataError, IndexMismatchError, NotFoundError, RequestError
from protclip.index.build import build_from
from protclip.index.config import IndexConfig
from protclip.index.exact import exact_search

pytestmark = pytest.mark.unit


@in_each_dtype
def test_a_sequence_finds_itself_in_an_aligned_table(folders):
    result = ask(folders, "--sequence", SEQUENCES[12], "-k", "3")
    lines = result.stdout.splitlines()
    columns = ["rank", "score", "percentile", "accession", "gene", "name", "organism"]
    assert lines[0].split() == columns and len(lines) == 4
    assert lines[1].split() == ["1", "1.0000", "100.0", "P00012", "gP00012", "Protein", "12", "Homo", "sapiens"]
    assert {line.index("Homo") for line in lines[1:]} == {lines[0].index("organism")}


@in_each_dtype
def test_a_sequence_scores_1_against_itself_in_the_dtype_of_the_index(folders):
    for i in (3, 12):
        hit = json.loads(ask(folders, "--sequence", SEQUENCES[i], "-k", "1", "--json").stdout)["hits"][0]
        assert (hit["accession"], hit["score"]) == (f"P{i:05d}", pytest.approx(1, abs=1e-6))
    text, model = random_texts(1, seed=5)[0], folders[0]
    score = json.loads(ask(folders, "--text", text, "-k", "1", "--json").stdout)["hits"][0]["score"]
    assert score == pytest.approx((model.embed_proteins(SEQUENCES) @ model.embed_texts([text])[0]).max(), abs=1e-6)


@in_each_dtype
def test_a_text_finds_what_exact_search_finds(folders):
    model, text = folders[0], random_texts(1, seed=5)[0]
    answer = json.loads(ask(folders, "--text", text, "-k", "5", "--json").stdout)
    scores, rows = exact_search(model.embed_proteins(SEQUENCES), model.embed_texts([text]), 5)
    assert [hit["accession"] for hit in answer["hits"]] == [f"P{row:05d}" for row in rows[0]]
    assert [hit["score"] for hit in answer["hits"]] == pytest.approx(scores[0].tolist(), abs=1e-5)
    assert answer["model"] == model.fingerprint


@pytest.mark.parametrize(
    ("metrics", "note"),
    [
        (measured(0.05), "a weak model, for trials: the right protein comes first for 5.0% of 1,000 held-out texts"),
        (None, "how well this model finds was not measured."),
    ],
)
@pytest.mark.slow
def test_a_weak_model_is_told_of_beside_the_answers_and_not_in_them(folders, tmp_path, metrics, note):
    model, index, good = folders
    model.save_pretrained(str(tmp_path), **({} if metrics is None else {"metrics": metrics}))
    for form in ([], ["--json"], ["--output", "-"]):
        question = ["--text", "kinase", *form]
        told, silent = ask((model, index, str(tmp_path)), *question), ask((model, index, good), *question)
        assert told.stdout == silent.stdout
        assert note in told.stderr and len(told.stderr.splitlines()) == 1
        assert silent.stderr == ""


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


@in_each_dtype
def test_an_accession_needs_no_checkpoint_and_may_be_left_out(folders):
    arguments = [folders[1], "--accession", "P00012", "-k", "3", "--json"]
    answer = json.loads(CliRunner().invoke(main, arguments).stdout)
    assert answer["hits"][0]["accession"] == "P00012" and answer["hits"][0]["score"] == pytest.approx(1, abs=1e-6)
    rest = json.loads(CliRunner().invoke(main, [*arguments, "--exclude-self"]).stdout)
    assert [hit["accession"] for hit in rest["hits"][:2]] == [hit["accession"] for hit in answer["hits"][1:]]
    assert isinstance(ask(folders, "--accession", "Q1").exception, NotFoundError)
    error = CliRunner().invoke(main, [folders[1], "--text", "a"]).exception
    assert isinstance(error, ConfigError) and "search --text needs --checkpoint" in str(error)


def test_a_sequence_that_is_asked_as_a_text_is_told(folders, tmp_path):
    assert "--sequence asks it" in ask(folders, "--text", SEQUENCES[0]).stderr
    assert ask(folders, "--text", "ATPASE").stderr == ""
    (tmp_path / "texts.txt").write_text(f"kinase\n{SEQUENCES[0]}\n")
    error = ask(folders, "--texts", str(tmp_path / "texts.txt")).exception
    assert isinstance(error, DataError) and "line 2" in str(error) and "--fasta" in str(error)


def test_columns_and_pages_are_chosen_and_come_on_standard_output(folders, tmp_path):
    arguments = ["--text", "kinase", "-k", "2", "--offset", "1", "--columns", "length,gene, length"]
    lines = ask(folders, *arguments).stdout.splitlines()
    assert lines[0].split() == ["rank", "score", "accession", "length", "gene"] and lines[1].split()[0] == "2"
    rows = list(csv.DictReader(ask(folders, *arguments, "--output", "-").stdout.splitlines(), delimiter="\t"))
    assert list(rows[0]) == ["query", "truncated", "rank", "score", "percentile", "accession", "length", "gene"]
    assert [row["rank"] for row in rows] == ["2", "3"] and [len(row["score"].split(".")[1]) for row in rows] == [4, 4]
    ask(folders, *arguments, "--output", str(tmp_path / "out.csv"))
    with (tmp_path / "out.csv").open() as stream:
        assert list(csv.DictReader(stream)) == rows
    assert ask(folders, *arguments, "--min-score", "1").stdout.splitlines()[1:] == []


def test_a_cut_question_is_said_to_be_cut(folders):
    whole, cut = ask(folders, "--sequence", "M" * 62), ask(folders, "--sequence", "M" * 63)
    assert "longer than the model sees" in cut.stderr and not whole.stderr


@in_each_dtype
def test_answers_of_an_index_of_texts_show_the_texts(folders, tmp_path):
    model, _, checkpoint = folders
    texts = random_texts(30, seed=5)
    settings = {"dtype": str(model.dtype).removeprefix("torch.")}
    embeddings = write_embeddings(
        tmp_path / "e",
        model.embed_texts(texts),
        content="text",
        fingerprint=model.fingerprint,
        columns={"text": texts},
        settings=settings,
    )
    build_from(read_embeddings(embeddings), str(tmp_path / "texts"), IndexConfig())
    arguments = [str(tmp_path / "texts"), "--checkpoint", checkpoint, "--sequence", SEQUENCES[0], "-k", "2"]
    lines = CliRunner().invoke(main, arguments).stdout.splitlines()
    hits = json.loads(CliRunner().invoke(main, [*arguments, "--json"]).stdout)["hits"]
    assert lines[0].split() == ["rank", "score", "accession", "text"]
    for line, hit in zip(lines[1:], hits, strict=True):
        assert hit["text"] in texts and hit["text"][:50] in line


@in_each_dtype
def test_another_dtype_may_be_chosen(folders):
    other = {"float32": "bfloat16", "bfloat16": "float32"}[str(folders[0].dtype).removeprefix("torch.")]
    score = [
        json.loads(ask(folders, "--sequence", SEQUENCES[3], "-k", "1", "--json", *extra).stdout)["hits"][0]["score"]
        for extra in ([], ["--dtype", other])
    ]
    assert score[0] == pytest.approx(1, abs=1e-6) and 1e-7 < abs(score[0] - score[1]) < 1e-2
    error = ask(folders, "--sequence", "MK", "--device", "nonsense").exception
    assert isinstance(error, ConfigError) and "nonsense" in str(error)


def test_a_column_comes_once(folders):
    arguments = ["--text", "kinase", "--columns", "gene, name,gene"]
    assert ask(folders, *arguments).stdout.splitlines()[0].split() == ["rank", "score", "accession", "gene", "name"]
    assert ask(folders, *arguments, "--output", "-").stdout.splitlines()[0].split("\t")[6:] == ["gene", "name"]


def test_that_nothing_answers_is_said(folders):
    nothing = ask(folders, "--text", "kinase", "--filter", "gene = SOX17", "--min-score", "-1")
    assert nothing.stderr == "search: nothing answers: no row passes --filter and --min-score.\n"
    assert ask(folders, "--text", "kinase", "--offset", "100").stderr.endswith("no row passes --offset.\n")
    assert not ask(folders, "--text", "kinase").stderr
