"""The command protclip where nothing is installed but what the package itself asks for: no Ray, and no extra.

The environment is made of links to those distributions of this one that the requirements name, whole and nothing else.
"""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
import torch
from official_model import official_model, write_official
from packaging.requirements import Requirement
from pairs_folders import row, write_pairs
from tiny_model import random_sequences, tiny_model, write_protein_index

from protclip.__main__ import COMMANDS, ON_RAY
from protclip.uniprot.entry import Entry

pytestmark = [pytest.mark.unit, pytest.mark.slow]

ROOT = Path(__file__).parents[1]
PACKAGES = ("cluster", "protclip", "ray_jobs", "serve")


def closure(name: str) -> set[str]:
    """A distribution and all that it needs without extras but those which a requirement names."""
    found: set[str] = set()
    waiting = {(name, "")}
    seen: set[tuple[str, str]] = set()
    while waiting:
        name, extra = waiting.pop()
        seen.add((name, extra))
        found.add(name)
        for line in metadata.requires(name) or []:
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
                waiting |= {(requirement.name, extra) for extra in ("", *requirement.extras)} - seen
    return found


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for PYTHONPATH."""
    folder = tmp_path_factory.mktemp("site")
    for name in closure("protclip") - {"protclip"}:
        distribution = metadata.distribution(name)
        for top in {file.parts[0] for file in distribution.files or []} - {"..", "__pycache__"}:
            link = folder / top
            if not link.exists():
                link.symlink_to(str(distribution.locate_file(top)))
    for name in PACKAGES:
        (folder / name).symlink_to(ROOT / name)
    return folder


def python(site: Path, cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Without the site-packages of this environment."""
    environment = {**os.environ, "PYTHONPATH": str(site)}
    return subprocess.run(
        [sys.executable, "-S", *arguments], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )


def test_what_needs_no_ray_works_without(site: Path, tmp_path: Path) -> None:
    model = tiny_model()
    model.save_pretrained(str(tmp_path / "model"))
    write_protein_index(tmp_path, model, random_sequences(30))
    entry = Entry(accession="P1", sequence="MKV", name="Some protein", reviewed=True)
    write_pairs(tmp_path / "pairs", {"train-00000-of-00001": [row(entry)]})
    (tmp_path / "my.fasta").write_text(">P1\nMKVLAAGIVGL\n")
    official = official_model()
    write_official(tmp_path / "official", official.published_tensors(), official.config(), torch.float16)
    model.text_tokenizer.save(str(tmp_path / "bert"))
    commands = [
        ["--help"],
        ["search", "index", "--checkpoint", "model", "--text", "binds ATP"],
        ["search", "index", "--checkpoint", "model", "--fasta", "my.fasta", "--output", "answers.parquet"],
        ["explain", "--checkpoint", "model", "--fasta", "my.fasta", "--accession", "P1", "--text", "binds ATP"],
        ["stats", "pairs"],
        ["index", "embeddings", "--output", "again"],
        ["import-official", "official", "--output", "ours", "--text-tokenizer", "bert"],
        ["export-official", "ours", "--output", "back"],
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
    done = python(site, tmp_path, "-c", script)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("ALL DONE\n")
    assert {words[0] for words in commands} == {"--help", *COMMANDS} - set(ON_RAY)


def test_what_needs_ray_says_in_one_line_how_it_is_installed(site: Path, tmp_path: Path) -> None:
    model = tiny_model()
    write_protein_index(tmp_path, model, random_sequences(30))
    remedy = "which is not installed; in the checkout of protclip: pip install -e '.[ray]'.\n"
    several = ["index", "embeddings", "--output", "again", "--shard-rows", "10"]
    for words in [*([name] for name in ON_RAY), several]:
        done = python(site, tmp_path, "-m", "protclip", *words)
        assert (done.returncode, done.stdout) == (1, "")
        what = (
            "an index of several segments, or a release of several parts"
            if words is several
            else f"protclip {words[0]}"
        )
        assert done.stderr == f"ConfigError: {what} needs the package ray, {remedy}"
