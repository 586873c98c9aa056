"""The command protclip where nothing is installed but what the package itself asks for: no Ray, and no extra.

It is installed there from its wheel (tests/installed.py), so that the repository is not needed either.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import torch
from installed import ROOT, build, install, outside
from official_model import official_model, write_official
from pairs_folders import row, write_pairs
from tiny_model import random_sequences, tiny_model, write_protein_index

from protclip.__main__ import COMMANDS, ON_RAY
from protclip.protanno.synthetic import synthetic_proteome
from protclip.uniprot.entry import Entry
from protclip.version import __version__

pytestmark = [pytest.mark.unit, pytest.mark.slow]


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of an environment into which the wheel was installed."""
    folder = tmp_path_factory.mktemp("installed")
    _, wheel = build(folder)
    return install(wheel, folder)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A working directory with a model, and an index of its own."""
    model = tiny_model()
    model.save_pretrained(str(tmp_path / "model"))
    write_protein_index(tmp_path, model, random_sequences(30))
    return tmp_path


def run(cwd: Path, *command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=cwd, env=outside(), capture_output=True, text=True, timeout=300, check=False)


def test_the_command_and_the_python_of_the_readme_run_from_the_wheel(python: Path, folder: Path) -> None:
    done = run(folder, python.with_name("protclip"), "--version")
    assert done.stdout == f"protclip, version {__version__}\n", done.stderr
    done = run(folder, python.with_name("protclip"), "search", "index", "--checkpoint", "model", "--text", "binds ATP")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[:3] == ["rank", "score", "accession"]

    (folder / "quickstart/run").mkdir(parents=True)
    (folder / "model").rename(folder / "quickstart/run/best")
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    where = "import protclip, sys\nprint(protclip.__file__, scores.shape, sys.path)"
    done = run(folder, python, "-c", "\n".join([*blocks, where]))
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{python.parents[1]}/lib/")
    assert "(2, 1)" in done.stdout
    assert str(ROOT) not in done.stdout


def test_what_needs_no_ray_works_without(python: Path, folder: Path) -> None:
    entry = Entry(accession="P1", sequence="MKV", name="Some protein", reviewed=True)
    write_pairs(folder / "pairs", {"train-00000-of-00001": [row(entry)]})
    (folder / "my.fasta").write_text(">P1\nMKVLAAGIVGL\n")
    (folder / "entries.dat").write_text("".join(synthetic_proteome(20, 2, seed=0)))
    official = official_model()
    write_official(folder / "official", official.published_tensors(), official.config(), torch.float16)
    tiny_model().text_tokenizer.save(str(folder / "bert"))
    commands = [
        ["--help"],
        ["search", "index", "--checkpoint", "model", "--text", "binds ATP"],
        ["search", "index", "--checkpoint", "model", "--fasta", "my.fasta", "--output", "answers.parquet"],
        ["explain", "--checkpoint", "model", "--fasta", "my.fasta", "--accession", "P1", "--text", "binds ATP"],
        ["curate", "entries.dat", "--dataset", "all", "--split-by", "sequence", "--output", "curated"],
        ["embed", "my.fasta", "--checkpoint", "model", "--output", "embedded"],
        ["embed", "curated", "--checkpoint", "model", "--content", "text", "--output", "texts"],
        ["stats", "pairs"],
        ["status", "curated"],
        ["index", "embeddings", "--output", "again"],
        ["import-official", "official", "--output", "ours", "--text-tokenizer", "bert"],
        ["export-official", "ours", "--output", "back"],
        ["evaluate", "--list", "."],
        ["synthesize", "--help"],
        ["fetch-uniprot", "--help"],
        ["fetch-model", "--help"],
        ["fetch-protanno", "--help"],
    ]
    script = (
        "import importlib.util, sys\n"
        "from protclip.__main__ import cli\n"
        f"for words in {commands}:\n"
        "    try: cli(words, prog_name='protclip')\n"
        "    except SystemExit as ended: assert not ended.code, words\n"
        "missing = 'ray', 'fastapi', 'psutil', 'pandas', 'matplotlib', 'pytest'\n"
        "assert not (found := list(filter(importlib.util.find_spec, missing))), found\n"
        "print('ALL DONE')"
    )
    done = run(folder, python, "-c", script)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("ALL DONE\n")
    assert {words[0] for words in commands} == {"--help", *COMMANDS} - set(ON_RAY)


def test_what_needs_ray_says_in_one_line_how_it_is_installed(python: Path, folder: Path) -> None:
    (folder / "my.fasta").write_text(">P1\nMKVLAAGIVGL\n")
    remedy = "which is not installed; in the checkout of protclip: pip install -e '.[ray]'.\n"
    several = ["index", "embeddings", "--output", "again", "--shard-rows", "10"]
    actors = ["embed", "my.fasta", "--checkpoint", "model", "--output", "embedded", "--workers", "2"]
    needs = {
        **{f"protclip {name}": [name] for name in ON_RAY},
        "an index of several subindexes, or a release of several parts": several,
        "embed --workers and --use-gpu": actors,
    }
    for what, words in needs.items():
        done = run(folder, python, "-m", "protclip", *words)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr == f"ConfigError: {what} needs the package ray, {remedy}"
