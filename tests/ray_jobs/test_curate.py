"""protclip curate on real Ray, and what needs none of it: the output folder and the number of shards."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from protclip.errors import ConfigError, DataError
from protclip.manifest import claim_folder, read_manifest
from protclip.protanno.shards import row_groups
from protclip.protanno.synthetic import synthetic_proteome
from ray_jobs import cluster
from ray_jobs.curate import OWN_FILES, default_num_shards, main

ENTRIES = list(synthetic_proteome(90, 6, seed=1))


def run(*arguments: object) -> Result:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def rows(folder: Path) -> dict[str, list[dict[str, Any]]]:
    manifest = read_manifest(str(folder), "pairs", verify=True)
    tables = {
        split: [pq.read_table(folder / name) for name in sorted(manifest["files"]) if name.startswith(split)]
        for split in ("train", "heldout")
    }
    return {split: pa.concat_tables(parts).to_pylist() for split, parts in tables.items()}


def write(path: Path, entries: Sequence[str]) -> Path:
    path.write_text("".join(entries))
    return path


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
def test_the_command_gives_the_same_pairs_from_one_input_and_from_three(tmp_path: Path) -> None:
    one = write(tmp_path / "one.dat", ENTRIES)
    for i in range(3):
        (tmp_path / f"part{i}.dat.gz").write_bytes(gzip.compress("".join(ENTRIES[i::3]).encode()))
    options = ("--seed", 3, "--heldout-fraction", 0.2)
    result = run(one, "--output", tmp_path / "a", *options)
    assert "90 rows read" in result.output
    assert "0 quarantined" in result.output
    run(tmp_path / "part*.dat.gz", "--output", tmp_path / "b", "--num-shards", 4, *options)
    first, second = rows(tmp_path / "a"), rows(tmp_path / "b")
    assert first == second
    manifest = read_manifest(str(tmp_path / "b"), "pairs")
    assert manifest["splits"] == {split: len(table) for split, table in first.items()}
    assert sum(manifest["splits"].values()) == manifest["counts"]["kept"] == 90
    assert manifest["settings"]["seed"] == 3
    assert [entry["rows"] for entry in manifest["inputs"]] == [30, 30, 30]
    assert sum(manifest["composition"]["after_sampling"]["coverage"].values()) == pytest.approx(1, abs=1e-5)
    assert sum(group.num_rows for group in row_groups(str(tmp_path / "b"), "train")) == len(first["train"])
    assert {path.suffix for path in (tmp_path / "b").iterdir()} == {".parquet", ".json", ".jsonl"}


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
def test_the_real_sample_without_sampling_gives_1216_pairs(tmp_path: Path, real_data: Path) -> None:
    run(real_data / "uniprot/sample_1216.dat.gz", "--sampling", "none", "--output", tmp_path / "pairs")
    manifest = read_manifest(str(tmp_path / "pairs"), "pairs", verify=True)
    assert sum(manifest["splits"].values()) == 1216
    assert manifest["counts"]["quarantined"] == 0


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
def test_every_format_goes_through_curate_and_one_entry_is_one_row(tmp_path: Path) -> None:
    uniprot = Path(__file__).parents[1] / "uniprot"
    # P00001 and Q00009 come as flat file and as XML; the row kept is that of either, for they are the same.
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.dat").write_bytes((uniprot / "golden.dat").read_bytes())
    (tmp_path / "in/b.xml.gz").write_bytes(gzip.compress((uniprot / "golden.xml").read_bytes()))
    cells = ("reviewed", "Predicted", "Name, (EC 1.1.1.1)", "FUNCTION: Does.", "SIMILARITY: Belongs to it.", "MKV")
    header = ("Reviewed", "Protein existence", "Protein names", "Function [CC]", "Sequence similarities", "Sequence")
    for name, separator in (("c.tsv", "\t"), ("d.tab", "\t"), ("e.csv", ",")):
        table = [("Entry", *header), (f"{name[0].upper()}00001", *cells), ("", *cells)]
        text = "".join(separator.join(f'"{cell}"' if name == "e.csv" else cell for cell in row) + "\n" for row in table)
        (tmp_path / "in" / name).write_text(text)
    pair = {"seq": "MKVA", "text": "PROTEIN NAME: Name, (EC 1.1.1.1). FUNCTION: Does. SIMILARITY: Belongs to it."}
    (tmp_path / "in/f.jsonl").write_text(json.dumps(pair) + "\n")
    (tmp_path / "in/g.fasta").write_text(">sp|G00001|G_TEST Name OS=X OX=1 PE=4 SV=1\nMKV\n")
    options = ("--max-bad-fraction", 0.5, "--heldout-fraction", 0.5, "--sampling", "none")
    run(tmp_path / "in/*", "--output", tmp_path / "pairs", *options)
    manifest = read_manifest(str(tmp_path / "pairs"), "pairs", verify=True)
    counts = manifest["counts"]
    assert (counts["read"], counts["kept"], counts["repeated_accession"]) == (12, 7, 2)
    assert counts["quarantined_by_reason"] == {"no accession": 3}
    kept = {row["accession"]: row for split in rows(tmp_path / "pairs").values() for row in split}
    (published,) = (accession for accession in kept if accession.startswith("seq-"))
    assert set(kept) == {"P00001", "Q00009", "C00001", "D00001", "E00001", "G00001", published}
    for accession in ("C00001", "D00001", "E00001", published):
        assert kept[accession]["display_name"] == "Name,"
        assert kept[accession]["ec"] == ["1.1.1.1"]
        assert kept[accession]["similarity"] == "SIMILARITY: Belongs to it."
        assert kept[accession]["reviewed"] is (None if accession == published else True)
        assert kept[accession]["existence"] == (None if accession == published else 4)


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
def test_too_many_bad_rows_stop_the_job_and_a_few_do_not(tmp_path: Path) -> None:
    bad = [entry.replace("CRC64", "CRC32") for entry in ENTRIES[:10]]
    path = write(tmp_path / "some.dat", [*bad, *ENTRIES[10:]])
    with pytest.raises(DataError, match=r"10 of 90 rows.*unreadable SQ line: 10.*quarantine\.jsonl"):
        run(path, "--output", tmp_path / "pairs")
    assert not (tmp_path / "pairs/manifest.json").exists()
    assert len((tmp_path / "pairs/quarantine.jsonl").read_text().splitlines()) == 10
    # The unfinished folder is taken up again without being asked.
    result = run(path, "--output", tmp_path / "pairs", "--max-bad-fraction", 0.2)
    assert "10 quarantined" in result.output
    records = [json.loads(line) for line in (tmp_path / "pairs/quarantine.jsonl").read_text().splitlines()]
    assert {record["reason"] for record in records} == {"unreadable SQ line"}
    assert read_manifest(str(tmp_path / "pairs"), "pairs")["counts"]["quarantined_by_reason"] == {
        "unreadable SQ line": 10
    }


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
def test_errors_of_a_task_arrive_as_our_own(tmp_path: Path) -> None:
    whole = gzip.compress("".join(ENTRIES).encode())
    (tmp_path / "cut.dat.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"cut\.dat\.gz.*cut short"):
        run(tmp_path / "cut.dat.gz", "--output", tmp_path / "pairs")
    poor = write(tmp_path / "poor.fasta", [">tr|Q00001|Q00001_TEST Name OS=X OX=1 PE=4 SV=1\nMKV\n"])
    with pytest.raises(DataError, match=r"no pair is kept of 1 rows \(below the coverage: 1\)"):
        run(poor, "--output", tmp_path / "pairs")


@pytest.mark.unit
def test_a_finished_folder_is_replaced_only_when_asked_and_foreign_files_never(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("{}")
    (tmp_path / "train-00000-of-00001.parquet").write_text("old")
    with pytest.raises(ConfigError, match="--overwrite"):
        claim_folder(str(tmp_path), OWN_FILES, overwrite=False)
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(ConfigError, match=r"thesis\.tex"):
        claim_folder(str(tmp_path), OWN_FILES, overwrite=True)
    assert (tmp_path / "train-00000-of-00001.parquet").exists()
    (tmp_path / "thesis.tex").unlink()
    claim_folder(str(tmp_path), OWN_FILES, overwrite=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.unit
def test_the_leftovers_of_an_unfinished_run_are_cleaned(tmp_path: Path) -> None:
    (tmp_path / ".spill/000000").mkdir(parents=True)
    (tmp_path / ".spill/000000/00000.parquet").write_text("half")
    (tmp_path / "heldout-00000-of-00002.parquet.0a1b2c3d.tmp").write_text("half")
    claim_folder(str(tmp_path), OWN_FILES, overwrite=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.unit
def test_small_inputs_make_one_shard_and_large_ones_more(tmp_path: Path) -> None:
    small, large = tmp_path / "small.dat", tmp_path / "large.fasta"
    small.write_text("x")
    with large.open("wb") as stream:
        stream.truncate(600 << 20)  # sparse
    assert default_num_shards([str(small)]) == 1
    assert default_num_shards([str(small), str(large)]) == 3


@pytest.mark.unit
def test_a_relative_output_is_refused_inside_a_submitted_job_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(cluster.JOB_CONFIG_VARIABLE, raising=False)
    assert cluster.resolve_output("pairs") == str(Path("pairs").absolute())
    monkeypatch.setenv(cluster.JOB_CONFIG_VARIABLE, json.dumps({"metadata": {"job_submission_id": "raysubmit_1"}}))
    with pytest.raises(ConfigError, match=r"'pairs' is relative.*session folder"):
        cluster.resolve_output("pairs")
    assert cluster.resolve_output("/data/pairs") == "/data/pairs"
    assert cluster.resolve_output("s3://bucket/pairs") == "s3://bucket/pairs"


@pytest.mark.unit
def test_the_environment_gets_a_private_token_and_what_is_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("RAY_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_USAGE_STATS_ENABLED")
    environment: dict[str, str] = {}
    monkeypatch.setattr(cluster.os, "environ", environment)
    cluster.prepare_environment()
    token = Path(environment["RAY_AUTH_TOKEN_PATH"])
    assert environment["RAY_AUTH_MODE"] == "token"
    assert token.stat().st_mode & 0o777 == 0o600
    assert len(token.read_text()) == 64
    for given in ({"RAY_ADDRESS": "10.0.0.1:6379"}, {"RAY_AUTH_MODE": "disabled"}):
        environment.clear()
        environment.update(given)
        cluster.prepare_environment()
        assert {name: environment[name] for name in names if name in environment} == {
            **given,
            "RAY_USAGE_STATS_ENABLED": "0",
        }
