from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from pairs_folders import row, write_pairs

from protclip.commands.stats import main
from protclip.errors import ConfigError, DataError
from protclip.protanno.statistics import pairs_statistics
from protclip.uniprot.entry import Entry

pytestmark = pytest.mark.unit


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    entry = {"sequence": "MKV" * 11_000, "name": "N" * 100_000, "function": "FUNCTION: x.", "existence": 4}
    rows = [row(Entry(accession=f"A{i}", organism="O" * 90, organism_id=2**31 - i, **entry)) for i in range(1, 7)]
    rows += [row(Entry(accession="B", sequence="MKV"))]
    write_pairs(tmp_path / "pairs", {"train-0": rows[:5], "valid-0": rows[5:]})
    return tmp_path / "pairs"


def ask(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_the_tables_hold_own_and_published_shares_in_100_columns(pairs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(pairs.parent)
    result = ask("pairs")
    lines = result.stdout.splitlines()
    assert max(map(len, lines)) <= 100, result.stdout
    assert lines[0] == "pairs: 7 pairs"
    (header,) = (line.split() for line in lines if "R=1/4" in line)
    assert header == ["R=1/4", "R=2/4", "R=3/4", "R=4/4", "C=1", "C=2", "C=3", "C=4", "C=5", "unknown"]
    rows = {line[:21].strip(): line[21:].split() for line in lines if line.count(".") >= 10}
    assert rows == {
        "before sampling": ["50.00", "0.00", "0.00", "50.00", "25.00", "0.00", "0.00", "75.00", "0.00", "0.00"],
        "after sampling": ["14.29", "85.71", "0.00", "0.00", "0.00", "0.00", "0.00", "85.71", "0.00", "14.29"],
        "ProtAnno-S, published": ["2.59", "10.62", "36.91", "49.88", "19.82", "9.80", "67.77", "2.29", "0.32", "0.00"],
        "ProtAnno-D, published": ["62.11", "18.14", "11.82", "7.93", "0.13", "0.57", "32.69", "66.61", "0.00", "0.00"],
    }
    text = result.stdout
    for told in (
        "split   train 5, valid 2",
        "status  unknown 7",
        "residues of the sequence     3",
        "100,028",
        "6 organisms, and 1 pairs without one",
        f"{'O' * 59}…",
        "quarantined: no sequence",
        "not sampled: below the coverage",
        "repeated accession",
    ):
        assert told in text


def test_json_is_all_that_was_counted(pairs: Path) -> None:
    assert json.loads(ask(pairs, "--json").stdout) == pairs_statistics(str(pairs))


@pytest.mark.slow
def test_the_picture_is_drawn_and_an_unknown_ending_refused_first(pairs: Path) -> None:
    pytest.importorskip("matplotlib", reason="the extra plot")
    plot = pairs.parent / "plot.png"
    assert ask(pairs, "--plot", plot).exit_code == 0
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert isinstance(ask(pairs.parent / "none", "--plot", "plot.gif").exception, ConfigError)


def test_another_folder_is_refused(pairs: Path) -> None:
    error = ask(pairs.parent).exception
    assert isinstance(error, DataError)
    assert "is no finished folder itself but holds such (pairs)" in str(error)
