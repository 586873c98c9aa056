from __future__ import annotations

import json

import pytest
from click.testing import CliRunner, Result
from tiny_model import random_sequences, random_texts, tiny_model, write_protein_index

from protclip.commands.search import main
from protclip.errors import ConfigError, DataError, IndexMismatchError
from protclip.index.exact import exact_search

pytestmark = pytest.mark.unit
SEQUENCES = random_sequences(40)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("search")
    model = tiny_model()
    model.save_pretrained(str(folder / "checkpoint"))
    return model, write_protein_index(folder, model, SEQUENCES), str(folder / "checkpoint")


def ask(folders, *arguments: str) -> Result:
    _, index, checkpoint = folders
    return CliRunner().invoke(main, [index, "--checkpoint", checkpoint, *arguments])


def test_a_sequence_finds_itself_in_an_aligned_table(folders):
    result = ask(folders, "--sequence", SEQUENCES[12], "-k", "3")
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["rank", "score", "accession", "name", "organism"] and len(lines) == 4
    assert lines[1].split() == ["1", "1.0000", "P00012", "Protein", "12", "Homo", "sapiens"]
    assert {line.index("Homo") for line in lines[1:]} == {lines[0].index("organism")}


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
