from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from tiny_model import tiny_model

from protclip import ProtCLIP
from protclip.commands.explain import main
from protclip.config import ObjectivesConfig
from protclip.errors import CheckpointError, ConfigError, DataError, ProtclipError, RequestError
from protclip.explanation import WINDOW, occlusion, segments

pytestmark = pytest.mark.unit

SEQUENCE = "MKTAYIAKQRQISFVKSHFSRQLEERLGLIEVQ"
TEXT = "binds ATP"
FIRST = f">sp|P12345|ONE_HUMAN First OS=Homo sapiens\n{SEQUENCE[:20]}\n{SEQUENCE[20:]}\n"
FASTA = f"{FIRST}>mine second\nMKV\n>bad third\nMK7\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("explain")
    tiny_model(objectives=ObjectivesConfig(mlm=0.0, bsr=0.0, num_prototypes=8)).save_pretrained(str(folder / "pda"))
    tiny_model().save_pretrained(str(folder / "plain"))
    (folder / "my.fasta").write_text(FASTA)
    return folder


def ask(folder: Path, *arguments: str, model: str = "pda", text: str = TEXT) -> Result:
    return CliRunner().invoke(main, ["--checkpoint", str(folder / model), "--text", text, *arguments])


def refused(error: type[ProtclipError], result: Result) -> str:
    assert isinstance(result.exception, error), result.exception
    return str(result.exception)


def test_json_has_every_residues_number_by_both_methods(folder: Path) -> None:
    result = ask(folder, "--sequence", f" {SEQUENCE.lower()}*", "--json", "--window", "5", "--stride", "3")
    answer = json.loads(result.stdout)
    model = ProtCLIP.from_pretrained(str(folder / "pda"))
    assert answer["occlusion"] == pytest.approx(
        occlusion(model, SEQUENCE, [TEXT], window=5, stride=3)[0].tolist(), abs=1e-6
    )
    assert answer["segments"] == pytest.approx(segments(model, SEQUENCE, [TEXT])[0].tolist(), abs=1e-6)
    rest = {name: value for name, value in answer.items() if name not in ("occlusion", "segments")}
    assert rest == {
        "model": model.fingerprint,
        "accession": None,
        "text": TEXT,
        "residues": SEQUENCE,
        "length": len(SEQUENCE),
        "window": 5,
        "stride": 3,
    }


def test_segments_are_null_and_said_to_be_missing_without_pda(folder: Path) -> None:
    answer = json.loads(ask(folder, "--sequence", SEQUENCE, "--json", model="plain").stdout)
    assert answer["segments"] is None
    assert len(answer["occlusion"]) == len(SEQUENCE)
    assert answer["window"] == WINDOW
    assert f"Default: {WINDOW}." in CliRunner().invoke(main, ["--help"]).output
    lines = ask(folder, "--sequence", SEQUENCE, model="plain").stdout.splitlines()
    assert lines[-1] == "The model was trained without PDA and has no segments."
    assert {line.split()[0] for line in lines[1:-1]} == {"occlusion"}


def test_the_table_has_the_strongest_stretches_counted_from_1(folder: Path) -> None:
    answer = json.loads(ask(folder, "--sequence", SEQUENCE, "--json").stdout)
    lines = ask(folder, "--sequence", SEQUENCE).stdout.splitlines()
    assert lines[0].split() == ["method", "residues", "highest", "sequence"]
    assert {line.split()[0] for line in lines[1:]} == {"occlusion", "segments"}
    for method in ("occlusion", "segments"):
        rows = [line.split() for line in lines[1:] if line.startswith(method)]
        scores = np.array(answer[method])
        best = int(scores.argmax())
        listed: set[int] = set()
        for _, place, highest, letters in rows:
            start, end = (int(number) for number in place.split("-"))
            assert letters == SEQUENCE[start - 1 : end]
            assert float(highest) == pytest.approx(scores[start - 1 : end].max(), abs=1e-4)
            listed |= set(range(start - 1, end))
        assert [float(row[2]) for row in rows] == sorted((float(row[2]) for row in rows), reverse=True)
        assert best + 1 in range(*(int(n) + i for i, n in enumerate(rows[0][1].split("-"))))
        # About a tenth of 33, and each of them above all the others.
        assert len(listed) == 4
        assert min(scores[sorted(listed)]) > max(np.delete(scores, sorted(listed)))


def test_a_protein_of_a_fasta_file_is_found_by_accession(folder: Path, tmp_path: Path) -> None:
    fasta = str(folder / "my.fasta")
    answer = json.loads(ask(folder, "--fasta", fasta, "--accession", "P12345", "--json").stdout)
    assert (answer["accession"], answer["residues"]) == ("P12345", SEQUENCE)
    answer = json.loads(ask(folder, "--fasta", fasta, "--accession", "mine", "--json").stdout)
    assert (answer["accession"], answer["residues"]) == ("mine", "MKV")
    assert "several proteins; choose one" in refused(ConfigError, ask(folder, "--fasta", fasta))
    assert "no protein 'Q1'" in refused(DataError, ask(folder, "--fasta", fasta, "--accession", "Q1"))
    assert "'7 at 3'" in refused(DataError, ask(folder, "--fasta", fasta, "--accession", "bad"))
    (tmp_path / "one.fasta").write_text(">only one\nMKTAYIAK\n")
    assert json.loads(ask(folder, "--fasta", str(tmp_path / "one.fasta"), "--json").stdout)["accession"] == "only"


def test_a_long_protein_is_said_to_be_cut(folder: Path) -> None:
    assert ask(folder, "--sequence", SEQUENCE * 2).stdout.startswith("The model sees the first 62 of 66 residues.\n")
    answer = json.loads(ask(folder, "--sequence", SEQUENCE * 2, "--json").stdout)
    assert (len(answer["residues"]), len(answer["segments"]), answer["length"]) == (62, 62, 66)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ([], ConfigError, "one protein: give either"),
        (["--sequence", "MK", "--fasta", "a.fasta"], ConfigError, "one protein: give either"),
        (["--sequence", "MK", "--accession", "a"], ConfigError, "--accession a names a protein of a FASTA"),
        (["--sequence", "MK7"], DataError, "'7' at residue 3"),
        (["--sequence", "MK", "--window", "4"], RequestError, "window=4"),
        (["--sequence", "MK", "--stride", "0"], RequestError, "stride=0"),
        (["--sequence", "MK", "--plot", "a.jpg"], ConfigError, "a.jpg: pictures are written as .png, .svg, .pdf"),
    ],
)
def test_what_cannot_be_explained_is_one_error(
    folder: Path, arguments: list[str], error: type[ProtclipError], message: str
) -> None:
    assert message in refused(error, ask(folder, *arguments))


@pytest.mark.slow
def test_a_plot_is_written_beside_the_table(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="the extra plot")
    path = tmp_path / "new" / "plot.png"
    result = ask(folder, "--sequence", SEQUENCE, "--plot", str(path))
    assert result.stdout == ask(folder, "--sequence", SEQUENCE).stdout
    assert path.read_bytes().startswith(b"\x89PNG")
    assert [file.name for file in path.parent.iterdir()] == ["plot.png"]


def test_without_matplotlib_a_plot_is_refused_before_the_model_is_loaded(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hidden: Any = None
    monkeypatch.setitem(sys.modules, "matplotlib", hidden)
    arguments = ["--sequence", SEQUENCE]
    message = refused(ConfigError, ask(folder, *arguments, "--plot", "a.png", model="no-model"))
    assert "pip install -e '.[plot]'" in message
    assert "is missing" in refused(CheckpointError, ask(folder, *arguments, model="no-model"))
