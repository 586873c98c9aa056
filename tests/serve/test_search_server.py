"""``protclip search --server`` writes what it writes on the server's index without one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from index_folders import write_embeddings
from tiny_model import random_sequences, random_texts

from protclip.commands.search import main
from protclip.errors import ConfigError, IndexMismatchError, NotFoundError

pytestmark = pytest.mark.serve
TEXT = "kinase binds ATP"


@pytest.fixture(scope="module")
def questions(server: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Files of more questions than the server takes in a request."""
    folder = tmp_path_factory.mktemp("questions")
    records = [f">sp|Q{i:05d}|N Some protein\n{one}\n" for i, one in enumerate(random_sequences(20, seed=3))]
    (folder / "my.fasta").write_text("".join(records))
    (folder / "bad.fasta").write_text(f"{records[0]}>bad\nMK7\n{records[1]}")
    (folder / "my.txt").write_text("\n".join(random_texts(20, seed=3)))
    vectors = server.model.embed_texts(random_texts(5, seed=4))
    np.save(folder / "my.npy", vectors)
    paths = {name: str(folder / f"my.{ending}") for name, ending in (("fasta", "fasta"), ("texts", "txt"))}
    embeddings = str(Path(server.index).parent / "embeddings")
    other = write_embeddings(folder / "other", vectors, fingerprint="f" * 64)
    paths |= {"bad": str(folder / "bad.fasta")}
    return paths | {"npy": str(folder / "my.npy"), "embeddings": embeddings, "other": other}


def ask(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments))


def check_same(server: Any, *arguments: str, output: Path | None = None) -> None:
    """Standard output, what is told beside it, and the file."""
    found = []
    for source in (("--server", server.url), (server.index, "--checkpoint", server.args.checkpoint)):
        result = ask(*source, *arguments, *([] if output is None else ["--output", str(output)]))
        assert result.exit_code == 0, result.exception
        told = [line for line in result.stderr.splitlines() if line.startswith("search: ")]  # Ray's log is there too
        found.append((result.stdout, told, output and output.read_bytes()))
    assert found[0] == found[1]


@pytest.mark.parametrize("form", [(), ("--json",)])
def test_one_question_has_the_same_output(server, form):
    check_same(server, "--text", TEXT, *form)
    check_same(server, "--sequence", server.sequences[3], "--exclude-self", "-k", "3", "--offset", "2", *form)
    check_same(
        server, "--accession", "P00007", "--filter", "not reviewed or length > 20", "--columns", "ec,gene", *form
    )
    check_same(server, "--text", TEXT, "--exact", "--min-score", "0.99", *form)  # nothing answers, and is told


@pytest.mark.parametrize("ending", ["parquet", "tsv", "json"])
def test_a_file_of_questions_has_the_same_output(server, questions, tmp_path, ending):
    output = tmp_path / f"answers.{ending}"
    check_same(server, "--fasta", questions["fasta"], "-k", "4", output=output)
    check_same(server, "--fasta", questions["bad"], output=output)
    check_same(server, "--texts", questions["texts"], output=output)
    check_same(server, "--vectors", questions["npy"], output=output)
    check_same(server, "--vectors", questions["embeddings"], "--exclude-self", output=output)


def test_what_is_for_this_machine_is_refused(server):
    result = ask("--server", server.url, "--text", "a", "--device", "cuda", "--dtype", "bfloat16")
    assert isinstance(result.exception, ConfigError)
    assert "--device, --dtype: is for an index on this machine" in str(result.exception)
    whole = ask(server.index, "--text", "a", "--allow-partial").exception
    assert isinstance(whole, ConfigError) and "--allow-partial: is for a --server" in str(whole)
    assert "needs an INDEX, or a --server" in str(ask("--text", "a").exception)


def test_an_index_of_the_server_is_asked_by_its_name(server, questions):
    named = ask("default", "--server", server.url, "--text", TEXT)
    assert named.exit_code == 0 and named.stdout == ask("--server", server.url, "--text", TEXT).stdout
    missing = ask("runs/index", "--server", server.url, "--text", "a").exception
    assert isinstance(missing, NotFoundError) and "its indexes are default." in str(missing)
    assert isinstance(ask("--server", server.url, "--accession", "P99999").exception, NotFoundError)
    # Embeddings of another model than the server's.
    other = ask("--server", server.url, "--vectors", questions["other"]).exception
    assert isinstance(other, IndexMismatchError) and "scores between two models mean nothing" in str(other)
