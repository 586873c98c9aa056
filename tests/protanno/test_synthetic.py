"""The synthetic proteome: readable, reproducible, distinct, and learnable by family."""

from __future__ import annotations

import io
import re
from collections import Counter
from difflib import SequenceMatcher
from pathlib import Path

import pytest
from click.testing import CliRunner

from protclip.commands.synthesize import main
from protclip.errors import ConfigError
from protclip.protanno.biotext import biotext
from protclip.protanno.synthetic import synthetic_proteome
from protclip.uniprot.entry import Entry
from protclip.uniprot.flat_file import read_flat_file
from protclip.uniprot.formats import open_entries

pytestmark = pytest.mark.unit

ACCESSION = re.compile(r"[OPQ][0-9][A-Z0-9]{3}[0-9]|[A-NR-Z][0-9]([A-Z][A-Z0-9]{2}[0-9]){1,2}")
NUM_FAMILIES = 20


@pytest.fixture(scope="module")
def entries() -> list[Entry]:
    text = "".join(synthetic_proteome(1000, NUM_FAMILIES, seed=0))
    return [entry for entry in read_flat_file(io.BytesIO(text.encode()), "synthetic") if isinstance(entry, Entry)]


def test_every_entry_is_read_back_with_a_valid_unique_accession(entries: list[Entry]) -> None:
    assert len(entries) == 1000
    assert len({entry.accession for entry in entries}) == 1000
    assert all(ACCESSION.fullmatch(entry.accession) for entry in entries)
    assert all(entry.reviewed and entry.name and entry.organism_id and entry.ec for entry in entries)
    assert {entry.existence for entry in entries} == {1, 2, 3}
    assert 10 < len({entry.organism for entry in entries}) <= 20


def test_texts_and_sequences_are_distinct(entries: list[Entry]) -> None:
    texts = {biotext(e.name, e.function, e.subcellular_location, e.similarity) for e in entries}
    assert len(texts) == len({entry.sequence for entry in entries}) == 1000


def test_a_few_percent_of_each_comment_are_absent(entries: list[Entry]) -> None:
    for name in ("function", "subcellular_location", "similarity"):
        assert 0.01 < sum(getattr(entry, name) is None for entry in entries) / 1000 < 0.08


def test_members_are_nearer_to_their_family_than_to_others(entries: list[Entry]) -> None:
    def words(entry: Entry) -> Counter[str]:
        return Counter(entry.sequence[i : i + 3] for i in range(len(entry.sequence) - 2))

    profiles = [sum((words(e) for e in entries[family:600:NUM_FAMILIES]), Counter()) for family in range(NUM_FAMILIES)]
    hits = 0
    for i, member in enumerate(entries[600:]):
        mine = words(member)
        scores = [sum(min(count, profile[word]) for word, count in mine.items()) for profile in profiles]
        hits += scores.index(max(scores)) == i % NUM_FAMILIES
    assert hits / 400 > 0.9


def test_members_of_a_family_share_most_of_their_residues_in_order(entries: list[Entry]) -> None:
    def likeness(first: Entry, second: Entry) -> float:
        return SequenceMatcher(None, first.sequence, second.sequence, autojunk=False).ratio()

    within = [likeness(entries[i], entries[i + NUM_FAMILIES]) for i in range(NUM_FAMILIES)]
    between = [likeness(entries[i], entries[i + NUM_FAMILIES + 1]) for i in range(NUM_FAMILIES)]
    assert 0.58 < sum(within) / NUM_FAMILIES < 0.9  # 0.50 where nothing but the motifs is kept
    assert sum(between) / NUM_FAMILIES < 0.35


def test_a_location_has_one_signal(entries: list[Entry]) -> None:
    signals: dict[str, set[str]] = {}
    for entry in entries:
        if entry.subcellular_location == "SUBCELLULAR LOCATION: Secreted.":
            signals.setdefault("start", set()).add(entry.sequence[:17])
        if entry.subcellular_location == "SUBCELLULAR LOCATION: Peroxisome.":
            signals.setdefault("end", set()).add(entry.sequence[-11:])
    assert signals == {"start": {"MKALLLVLALLAGAASA"}, "end": {"GGVNRQPASKL"}}


def test_the_command_writes_the_same_bytes_for_the_same_seed(tmp_path: Path) -> None:
    def run(name: str, *options: str) -> bytes:
        path = tmp_path / name
        result = CliRunner().invoke(main, ["--output", str(path), "--entries", "50", "--families", "5", *options])
        assert result.exit_code == 0, result.output
        assert "synthetic" in result.output
        assert len(list(open_entries(str(path)))) == 50
        return path.read_bytes()

    first = run("a.dat.gz")
    assert first[4:8] == bytes(4)  # no time stamp
    assert run("b.dat.gz") == first
    assert run("c.dat.gz", "--seed", "1") != first
    assert run("d.dat")[:2] == b"ID"


def test_impossible_numbers_and_names_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="families=5, entries=3"):
        list(synthetic_proteome(3, 5, seed=0))
    result = CliRunner().invoke(main, ["--output", str(tmp_path / "x.fasta")])
    assert isinstance(result.exception, ConfigError)
