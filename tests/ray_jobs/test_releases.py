"""One release after another: what changed is told, and only that is embedded again."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result
from tiny_model import tiny_model

from protclip.__main__ import cli
from protclip.embeddings.reading import read_embeddings
from protclip.errors import ConfigError
from protclip.manifest import read_manifest
from protclip.protanno.synthetic import synthetic_proteome

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]


def run(*arguments: str) -> Result:
    """Run a command; what it raises comes out as it is."""
    return CliRunner().invoke(cli, list(arguments), catch_exceptions=False)


def curate(data: Path, output: Path, *arguments: str) -> dict[str, Any]:
    options = ["--dataset", "all", "--split-by", "sequence", "--row-group-rows", "8"]
    run("curate", str(data), "--output", str(output), *options, *arguments)
    return read_manifest(str(output), "pairs", verify=True)


def rows_by_key(folder: Path, key: str) -> dict[tuple[str, Any], bytes]:
    table = read_embeddings(str(folder))
    keys = zip(table.ids, table.metadata[key].to_pylist(), strict=True)
    return {pair: vector.tobytes() for pair, vector in zip(keys, table.vectors, strict=True)}


def test_a_release_embeds_what_it_adds_or_changes_and_drops_what_it_removes(tmp_path: Path) -> None:
    entries = list(synthetic_proteome(60, 4, seed=1))
    accessions = [
        next(line for line in entry.splitlines() if line.startswith("AC"))[5:].strip(" ;") for entry in entries
    ]
    (tmp_path / "first.dat").write_text("".join(entries[:50]))
    # The sequences of two entries, and the text of another, are those of others now.
    changed = list(entries)
    for i, j in ((3, 53), (4, 54)):
        head, tail = entries[i].split("SQ   ")[0], entries[j].split("SQ   ")[1]
        length = re.search(r"(\d+) AA;", tail)
        assert length is not None
        changed[i] = re.sub(r"\d+ AA\.", f"{length[1]} AA.", head, count=1) + f"SQ   {tail}"
    changed[7] = entries[7].replace("RecName: Full=", "RecName: Full=Renamed ", 1)
    assert changed[7] != entries[7]
    (tmp_path / "second.dat").write_text("".join(changed[2:58]))
    first, second = tmp_path / "pairs-1", tmp_path / "pairs-2"
    assert "changes" not in curate(tmp_path / "first.dat", first)
    manifest = curate(tmp_path / "second.dat", second, "--previous", str(first))
    changes = {row["accession"]: row for row in pq.read_table(second / "changes.parquet").to_pylist()}
    wanted = dict.fromkeys(accessions[:2], "removed") | dict.fromkeys(accessions[50:58], "added")
    wanted |= {accessions[i]: "changed" for i in (3, 4, 7)}
    assert {name: row["change"] for name, row in changes.items()} == wanted
    assert [changes[accessions[i]]["sequence_changed"] for i in (3, 4, 7, 0)] == [True, True, False, None]
    assert [changes[accessions[i]]["text_changed"] for i in (3, 4, 7, 50)] == [False, False, True, None]
    counts = {name: count for name, count in manifest["changes"].items() if name != "previous"}
    assert counts == {
        "added": 8,
        "changed": 3,
        "sequence_changed": 2,
        "text_changed": 1,
        "removed": 2,
        "unchanged": 45,
    }
    assert "changes.parquet" in manifest["files"]

    tiny_model().save_pretrained(str(tmp_path / "model"))
    model = ("--checkpoint", str(tmp_path / "model"), "--part-rows", "16", "--workers", "1")
    for content, key, num_new in (("protein", "sequence_hash", 10), ("text", "text", 9)):
        old, new = (tmp_path / f"{content}-{name}" for name in ("old", "new"))
        kind = ("--content", content)
        run("embed", str(first), "--output", str(old), *model, *kind)
        result = run("embed", str(second), "--output", str(new), *model, *kind, "--previous", str(old))
        said = f"56 rows embedded, {56 - num_new} of them as before, {num_new} computed, {50 - 56 + num_new} dropped"
        assert said in result.output
        before, after = (rows_by_key(folder, key) for folder in (old, new))
        assert {accession for accession, _ in after} == set(accessions[2:58])
        assert len(after.keys() & before.keys()) == 56 - num_new
        assert all(after[pair] == before[pair] for pair in after.keys() & before.keys())


def test_previous_embeddings_of_another_kind_are_refused(tmp_path: Path) -> None:
    fasta = tmp_path / "mine.fasta"
    fasta.write_text(">a\nMKTAYIAK\n>b\nMKV\n")
    for seed in (0, 1):
        tiny_model(seed).save_pretrained(str(tmp_path / f"model-{seed}"))
    arguments = ["embed", str(fasta), "--output"]
    run(*arguments, str(tmp_path / "old"), "--checkpoint", str(tmp_path / "model-0"))
    reuse = [*arguments, str(tmp_path / "new"), "--previous", str(tmp_path / "old"), "--checkpoint"]
    with pytest.raises(ConfigError, match=r"model_fingerprint: [0-9a-f]{64} there"):
        run(*reuse, str(tmp_path / "model-1"))
    with pytest.raises(ConfigError, match="long: truncate there, window-mean here"):
        run(*reuse, str(tmp_path / "model-0"), "--long", "window-mean")
    assert not (tmp_path / "new").exists()
    fasta.write_text(">a\nMKTAYIAK\n>b\nMKV7\n>c\nMKL\n")
    run(*reuse, str(tmp_path / "model-0"))
    manifest = read_manifest(str(tmp_path / "new"), "embeddings", verify=True)
    assert {name: manifest["counts"][name] for name in ("reused", "computed", "dropped")} == {
        "reused": 1,
        "computed": 1,
        "dropped": 1,
    }
    assert json.loads((tmp_path / "new" / "quarantine.jsonl").read_text())["accession"] == "b"
