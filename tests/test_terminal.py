"""What stands in files does nothing to a terminal."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from protclip.commands import answers, stats
from protclip.terminal import json_text, printable
from ray_jobs.quickstart import run as quickstart

pytestmark = pytest.mark.unit

HOSTILE = "a\x1b]0;owned\x07b\x9b2Jc\u202edc\u2066\u200be\r\nready\t\x7f\ud800\u2028"


def harmless(text: str) -> bool:
    return all(letter.isprintable() or letter in "\n\u00a0" for letter in text)


def test_control_characters_are_shown_and_letters_stay() -> None:
    assert printable("β-glucan\u00a0synthase 日本 😀") == "β-glucan\u00a0synthase 日本 😀"
    assert printable(HOSTILE) == (r"a\x1b]0;owned\x07b\x9b2Jc\u202edc\u2066\u200be\r\nready\t\x7f\ud800\u2028")


@pytest.mark.parametrize("indent", [None, 2])
def test_json_has_the_same_values_and_no_control_characters(indent: int | None) -> None:
    value = {HOSTILE: [HOSTILE, 1.5, None, "\U000e0041 😀"]}
    text = json_text(value, indent=indent)
    assert harmless(text) and "😀" in text
    assert json.loads(text) == value


def test_tables_of_answers_show_control_characters_of_names(capfd: pytest.CaptureFixture[str]) -> None:
    hit = {
        "rank": 1,
        "score": 0.5,
        "accession": HOSTILE,
        "name": HOSTILE,
        "gene": [HOSTILE],
        "organism": HOSTILE,
        "percentile": 50.0,
    }
    table = answers.format_table([hit, {**hit, "name": None, "gene": None}], ["gene", "name", "organism"])
    assert harmless(table) and len(table.split("\n")) == 3
    quickstart._print_answers(HOSTILE, {"hits": [hit]})
    assert harmless(capfd.readouterr().out)


def test_tables_of_pairs_show_control_characters_of_names() -> None:
    statistics = {
        "organisms": {"num": 1, "rows_without": 0, "top": [{"organism": HOSTILE, "organism_id": 1, "rows": 2}]},
        "rows": {"train": 2},
    }
    table = stats._organisms(statistics)
    assert harmless(table) and len(table.split("\n")) == 2


def test_cells_of_tsv_hold_no_tab_line_end_or_escape() -> None:
    for value in (HOSTILE, [HOSTILE, "1.1.1.1"]):
        assert harmless(answers._cell("ec", value)) and "\n" not in answers._cell("ec", value)


def test_an_error_that_quotes_a_name_shows_its_control_characters(tmp_path: Path) -> None:
    fasta = tmp_path / "x.fasta"
    fasta.write_text(">a\x1b]0;owned\x07\u202e\nMK7\n")
    command = [sys.executable, "-m", "protclip", "explain", "--checkpoint", "none", "--fasta", str(fasta)]
    done = subprocess.run([*command, "--text", "x"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("DataError: ") and harmless(done.stderr)


def test_only_one_function_prints() -> None:
    """So that no line for people is forgotten, such as a warning that names a row."""
    root = Path(__file__).parents[1]
    modules = [
        path for folder in ("cluster", "protclip", "ray_jobs", "serve") for path in (root / folder).rglob("*.py")
    ]
    printing = [path.relative_to(root).as_posix() for path in modules if "click.echo(" in path.read_text()]
    assert printing == ["protclip/terminal.py"]
