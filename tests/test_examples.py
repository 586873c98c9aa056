"""The scripts in examples/, run by the commands that their docstrings show."""

from __future__ import annotations

import ast
import csv
import gzip
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from index_folders import write_embeddings
from tiny_model import random_sequences, random_texts, tiny_model

from protclip import ProtCLIP
from protclip.index.build import build_index
from protclip.index.config import BuildConfig

pytestmark = [pytest.mark.unit, pytest.mark.slow]

EXAMPLES = Path(__file__).parents[1] / "examples"
SEQUENCES = random_sequences(30)
TEXTS = random_texts(40)


@pytest.fixture(scope="module")
def model() -> ProtCLIP:
    return tiny_model()


@pytest.fixture
def folder(model: ProtCLIP, tmp_path: Path) -> Path:
    """A working directory with a model and proteins under the names that the docstrings use."""
    (tmp_path / "examples").symlink_to(EXAMPLES)
    model.save_pretrained(str(tmp_path / "quickstart/run/best"))
    fasta = "".join(f">sp|P{i:05d}|N{i} Protein {i} OS=Mus musculus\n{s}\n" for i, s in enumerate(SEQUENCES))
    for name in ("my.fasta", "unknown.fasta"):
        (tmp_path / name).write_text(fasta)
    (tmp_path / "ecoli.fasta.gz").write_bytes(gzip.compress(fasta.encode()))
    return tmp_path


def run(name: str, folder: Path, *more: str) -> str:
    """What the command of its docstring prints, with more options."""
    docstring = ast.get_docstring(ast.parse((EXAMPLES / name).read_text())) or ""
    _, _, after = docstring.partition(f"python examples/{name} ")
    command, _, _ = after.replace("\\\n", " ").partition("\n")
    assert command, "the docstring shows no command"
    arguments = [f"examples/{name}", *shlex.split(command), *more]
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def test_find_by_function_gives_the_nearest_proteins(model: ProtCLIP, folder: Path) -> None:
    assert run("find_by_function.py", folder, "--count", "5") == "5 of 30 proteins → found.tsv\n"
    found = rows(folder / "found.tsv")
    scores = model.embed_proteins(SEQUENCES) @ model.embed_texts("FUNCTION: Involved in oxygen transport.")
    best = np.argsort(-scores)[:5]
    assert [row["accession"] for row in found] == [f"P{i:05d}" for i in best]
    assert [float(row["score"]) for row in found] == pytest.approx(scores[best], abs=1e-4)
    assert {row["organism"] for row in found} == {"Mus musculus"}


def test_annotate_sequences_gives_the_nearest_texts_and_says_where_there_are_none(
    model: ProtCLIP, folder: Path
) -> None:
    vectors = model.embed_texts(TEXTS)
    fingerprint = model.fingerprint
    settings = {"fingerprint": fingerprint, "columns": {"text": TEXTS}, "settings": {"dtype": "float32"}}
    texts = write_embeddings(folder / "texts", vectors, content="text", **settings)
    asked = model.embed_proteins(SEQUENCES)
    proteins = write_embeddings(folder / "proteins", asked, fingerprint=fingerprint, settings={"dtype": "float32"})
    build_index(BuildConfig(embeddings=texts, output=str(folder / "text-index"), queries=(proteins,)))

    said = run("annotate_sequences.py", folder, "--count", "1", "--min-percentile", "60")
    table = rows(folder / "annotation.tsv")
    assert [row["protein"] for row in table] == [f"P{i:05d}" for i in range(30)]
    best = (asked @ vectors.T).argmax(axis=1)
    described = [(i, row) for i, row in enumerate(table) if row["described_protein"]]
    assert 0 < len(described) < 30
    assert said == f"{len(described)} of 30 proteins annotated → annotation.tsv\n"
    assert all(row["text"] == TEXTS[best[i]] and float(row["percentile"]) >= 60 for i, row in described)
    assert {row["text"] for row in table if not row["described_protein"]} == {"nothing above the percentile"}


def test_map_proteome_draws_each_protein_once(model: ProtCLIP, folder: Path) -> None:
    pytest.importorskip("matplotlib", reason="the extra plot")
    assert run("map_proteome.py", folder) == "30 proteins → ecoli.png, ecoli.tsv\n"
    assert (folder / "ecoli.png").read_bytes().startswith(b"\x89PNG")
    table = rows(folder / "ecoli.tsv")
    assert [row["accession"] for row in table] == [f"P{i:05d}" for i in range(30)]
    asked = list(dict.fromkeys(row["best_text"] for row in table))
    assert all(text.startswith("SUBCELLULAR LOCATION: ") for text in asked)
    scores = model.embed_proteins(SEQUENCES) @ model.embed_texts(asked).T
    assert [row["best_text"] for row in table] == [asked[i] for i in scores.argmax(axis=1)]
