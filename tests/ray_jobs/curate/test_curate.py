"""protclip curate on real Ray, and what needs none of it: the output folder and the options."""

from __future__ import annotations

import gzip
import json
import os
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from protclip.errors import ConfigError, DataError
from protclip.manifest import claim_folder, read_manifest, resume_folder
from protclip.protanno import blocks
from protclip.protanno.curate import OWN_FILES, CurateConfig, claim, curate
from protclip.protanno.reading import CurationConfig
from protclip.protanno.shards import SPLITS, read_pairs
from protclip.protanno.splits import SplitConfig
from protclip.protanno.synthetic import synthetic_proteome
from protclip.units import InProcess
from ray_jobs import cluster, pipelines
from ray_jobs.curate.main import main

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
        for split in SPLITS
    }
    return {split: pa.concat_tables(parts).to_pylist() if parts else [] for split, parts in tables.items()}


def checksums(folder: Path) -> dict[str, Any]:
    """Of all files but the manifest, as it has them; they are there and nothing else is."""
    manifest = read_manifest(str(folder), "pairs", verify=True)
    assert {path.name for path in folder.iterdir()} == {*manifest["files"], "manifest.json"}
    files: dict[str, Any] = manifest["files"]
    return files


def write(path: Path, entries: Sequence[str]) -> Path:
    path.write_text("".join(entries))
    return path


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
def test_one_file_or_eight_shuffled_ones_one_worker_or_four_give_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = write(tmp_path / "one.dat", ENTRIES)
    shuffled = random.Random(0).sample(ENTRIES, len(ENTRIES))
    for i in range(8):
        (tmp_path / f"part{i}.dat.gz").write_bytes(gzip.compress("".join(shuffled[i::8]).encode()))
    (tmp_path / "part0.dat.gz.json").write_text('{"release": "2026_04"}')  # as fetch-uniprot leaves it
    options = ("--seed", 3, "--valid-fraction", 0.2, "--split-by", "sequence")
    result = run(one, "--output", tmp_path / "a", *options)
    assert "90 rows read" in result.output
    assert "0 quarantined" in result.output
    # One at a time on the four CPUs that ran as many as four before.
    monkeypatch.setattr(pipelines, "CUT_TASK_CPUS", 3.5)
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 4000)
    run(tmp_path / "part*.dat.gz", "--output", tmp_path / "b", *options)
    assert checksums(tmp_path / "a") == checksums(tmp_path / "b")
    curation = CurationConfig(seed=3, split=SplitConfig(split_by="sequence", valid_fraction=0.2))
    parts = (str(tmp_path / "part*.dat.gz"),)
    curate(CurateConfig(inputs=parts, output=str(tmp_path / "c"), curation=curation), InProcess(threads=3))
    assert checksums(tmp_path / "c") == checksums(tmp_path / "b")
    first = rows(tmp_path / "b")
    manifest = read_manifest(str(tmp_path / "b"), "pairs")
    assert manifest["splits"] == {split: len(table) for split, table in first.items()}
    assert sum(manifest["splits"].values()) == manifest["counts"]["kept"] == 90
    assert manifest["settings"]["seed"] == 3
    assert sorted(entry["rows"] for entry in manifest["inputs"]) == [11] * 6 + [12] * 2
    assert [entry["release"] for entry in manifest["inputs"]] == ["2026_04"] + [None] * 7
    assert manifest["clusters"] == {"method": "sequence", "parameters": {}, "number": 90, "largest": 1}
    assert sum(manifest["composition"]["after_sampling"]["coverage"].values()) == pytest.approx(1, abs=1e-5)
    assert read_pairs(str(tmp_path / "b")).num_rows("train") == len(first["train"])


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
def test_the_real_sample_without_sampling_gives_1216_pairs(tmp_path: Path, real_data: Path) -> None:
    run(real_data / "uniprot/sample_1216.dat.gz", "--dataset", "all", "--output", tmp_path / "pairs")
    manifest = read_manifest(str(tmp_path / "pairs"), "pairs", verify=True)
    assert sum(manifest["splits"].values()) == 1216
    assert manifest["counts"]["quarantined"] == 0


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
def test_the_sampling_says_what_was_expected_and_what_was_drawn(tmp_path: Path) -> None:
    text = "".join(ENTRIES).replace("Reviewed;", "Unreviewed;").replace("\nPE   ", "\nPE   2:")
    path = write(tmp_path / "one.dat", [text.replace("\nPE   2:1", "\nPE   2"), ENTRIES[0].replace("Z9Z99", "Y9Y99")])
    result = run(path, "--output", tmp_path / "pairs", "--min-coverage", 0, "--coverage-exponent", 0)
    manifest = read_manifest(str(tmp_path / "pairs"), "pairs", verify=True)
    sampling = manifest["sampling"]
    assert (sampling["candidates"], sampling["expected"]) == (90, 11.25)
    assert sampling["standard_deviation"] == pytest.approx((90 * 7 / 64) ** 0.5, abs=1e-3)
    assert f"of 90 unreviewed candidates {sampling['drawn']} were drawn; expected are 11 ± 3" in result.output
    assert (
        sampling["drawn"] + 1
        == manifest["counts"]["kept"]
        == 91 - manifest["counts"]["not_sampled_by_reason"]["not drawn"]
    )
    assert sum(sampling["drawn_by_cell"].values()) == sampling["drawn"]


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
def test_every_format_goes_through_curate_and_one_entry_is_one_row(tmp_path: Path) -> None:
    uniprot = Path(__file__).parents[2] / "uniprot"
    # P00001 and Q00009 come as flat file, XML and JSON; the row kept is that of any, for they are the same.
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.dat").write_bytes((uniprot / "golden.dat").read_bytes())
    (tmp_path / "in/b.xml.gz").write_bytes(gzip.compress((uniprot / "golden.xml").read_bytes()))
    (tmp_path / "in/h.json").write_bytes((uniprot / "golden_rest.json").read_bytes())
    cells = ("reviewed", "Predicted", "Name, (EC 1.1.1.1)", "FUNCTION: Does.", "SIMILARITY: Belongs to it.", "MKV")
    header = ("Reviewed", "Protein existence", "Protein names", "Function [CC]", "Sequence similarities", "Sequence")
    for name, separator in (("c.tsv", "\t"), ("d.tab", "\t"), ("e.csv", ",")):
        table = [("Entry", *header), (f"{name[0].upper()}00001", *cells), ("", *cells)]
        text = "".join(separator.join(f'"{cell}"' if name == "e.csv" else cell for cell in row) + "\n" for row in table)
        (tmp_path / "in" / name).write_text(text)
    pair = {"seq": "MKVA", "text": "PROTEIN NAME: Name, (EC 1.1.1.1). FUNCTION: Does. SIMILARITY: Belongs to it."}
    (tmp_path / "in/f.jsonl").write_text(json.dumps(pair) + "\n")
    # A name that says another thing, and DNA in it.
    fasta = f">sp|G00001|G_TEST Name OS=X OX=1 PE=4 SV=1\nMKV\n>sp|G00002|G_DNA Name\n{'ACGT' * 30}\n"
    (tmp_path / "in/g.txt").write_text(fasta)
    (tmp_path / "clusters.tsv.gz").write_bytes(gzip.compress(b"P00001\tUniRef50_1\nG00001\tUniRef50_1\n"))
    options = ("--max-bad-fraction", 0.5, "--valid-fraction", 0.5, "--dataset", "all")
    options = (*options, "--split-by", f"uniref50={tmp_path}/clusters.tsv.gz")
    result = run(tmp_path / "in/*", "--output", tmp_path / "pairs", *options)
    manifest = read_manifest(str(tmp_path / "pairs"), "pairs", verify=True)
    counts = manifest["counts"]
    assert (counts["read"], counts["kept"], counts["repeated_accession"]) == (15, 8, 4)
    assert counts["nucleotides"] == 1
    assert f"curate: warning: {tmp_path}/in/g.txt: a sequence looks like DNA or RNA (G00002);" in result.stderr
    assert (manifest["clusters"]["number"], manifest["clusters"]["rows_without_one"]) == (3, 6)
    assert counts["quarantined_by_reason"] == {"no accession": 3}
    kept = {row["accession"]: row for split in rows(tmp_path / "pairs").values() for row in split}
    (published,) = (accession for accession in kept if accession.startswith("seq-"))
    assert set(kept) == {"P00001", "Q00009", "C00001", "D00001", "E00001", "G00001", "G00002", published}
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
    with pytest.raises(
        DataError, match=r"10 of 90 rows.*unreadable SQ line: 10.*quarantine\.jsonl.*The first: .*line 1 "
    ):
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
def test_pairs_without_any_text_are_counted_warned_of_and_refused_unless_asked_for(tmp_path: Path) -> None:
    table = [("Entry", "Protein.names", "Funtion", "Sequence")]
    table += [(f"P{i:05d}", "NA" if i < 4 else "Name", "FUNCTION: Does.", f"MKV{'ACDEFGHIKL'[i]}") for i in range(10)]
    path = tmp_path / "some.csv"
    path.write_text("".join(",".join(row) + "\r" for row in table))
    options = ("--output", tmp_path / "pairs", "--split-by", "sequence")
    with pytest.raises(DataError, match=r"4 of 10 pairs have no text.*max_textless_fraction=0\.1"):
        run(path, *options)
    result = run(path, *options, "--max-textless-fraction", 0.4)
    assert "not read are the columns 'Funtion' (did you mean 'Function [CC]'?)" in result.stderr
    assert "4 of 10 pairs have no text" in result.stderr
    assert read_manifest(str(tmp_path / "pairs"), "pairs")["counts"]["without_text"] == 4
    assert {row["name"] for split in rows(tmp_path / "pairs").values() for row in split} == {None, "Name"}


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
def test_errors_of_a_task_arrive_as_our_own(tmp_path: Path) -> None:
    whole = gzip.compress("".join(ENTRIES).encode())
    (tmp_path / "cut.dat.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"cut\.dat\.gz.*cut short"):
        run(tmp_path / "cut.dat.gz", "--output", tmp_path / "pairs")
    poor = write(tmp_path / "poor.fasta", [">tr|Q00001|Q00001_TEST Name OS=X OX=1 PE=4 SV=1\nMKV\n"])
    # Nothing was stored, so that the next run is free to be another one.
    with pytest.raises(DataError, match=r"no pair is kept of 1 rows \(below the coverage: 1\)"):
        run(poor, "--output", tmp_path / "pairs")
    with pytest.raises(ConfigError, match=r"part of a run that differs.*poor\.fasta is no longer given.*--overwrite"):
        run(tmp_path / "cut.dat.gz", "--output", tmp_path / "pairs")
    with pytest.raises(DataError, match=r"cut\.dat\.gz.*cut short"):
        run(tmp_path / "cut.dat.gz", "--output", tmp_path / "pairs", "--overwrite")


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
def test_an_unfinished_run_is_taken_up_by_the_same_claim_alone(tmp_path: Path) -> None:
    folder, claim = str(tmp_path), {"settings": {"seed": 0}, "inputs": {"a.dat": "1 byte"}}
    work = Path(resume_folder(folder, OWN_FILES, claim, overwrite=False))
    work.mkdir()
    (work / "unit").write_text("done")
    (tmp_path / "valid-00000-of-00002.parquet").write_text("done")
    (tmp_path / "valid-00001-of-00002.parquet.0a1b2c3d.tmp").write_text("half")
    assert resume_folder(folder, OWN_FILES, claim, overwrite=False) == str(work)
    assert {path.name for path in tmp_path.iterdir()} == {".work", "valid-00000-of-00002.parquet"}
    other = {**claim, "settings": {"seed": 1}}
    with pytest.raises(ConfigError, match=r"settings\.seed: 0 there, 1 here.*--overwrite"):
        resume_folder(folder, OWN_FILES, other, overwrite=False)
    assert (work / "unit").exists()
    assert resume_folder(folder, OWN_FILES, other, overwrite=True) != str(work)
    assert not work.exists()
    assert {path.name for path in tmp_path.iterdir()} == {".work"}


@pytest.mark.unit
def test_a_finished_folder_loses_what_a_killed_run_left_and_nothing_else(tmp_path: Path) -> None:
    resume_folder(str(tmp_path), OWN_FILES, {}, overwrite=False)
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(ConfigError, match="already finished"):
        resume_folder(str(tmp_path), OWN_FILES, {}, overwrite=False)
    assert [path.name for path in tmp_path.iterdir()] == ["manifest.json"]


@pytest.mark.unit
def test_a_changed_input_is_another_claim(tmp_path: Path) -> None:
    path = write(tmp_path / "one.dat", ENTRIES[:1])
    config = CurateConfig(inputs=(str(path),), output=str(tmp_path / "pairs"))
    before = claim(config)
    assert claim(config) == before
    os.utime(path, ns=(0, 0))
    assert claim(config) != before


@pytest.mark.unit
def test_options_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "one.dat", ENTRIES[:1])
    with pytest.raises(ConfigError, match=r"min_coverage is of dataset D, not of S"):
        run(path, "--output", tmp_path / "pairs", "--dataset", "S", "--min-coverage", 0.5)
    with pytest.raises(ConfigError, match="leave nothing to train on"):
        run(path, "--output", tmp_path / "pairs", "--valid-fraction", 0.5, "--test-fraction", 0.5)
    for option in (
        "max-bad-fraction",
        "max-textless-fraction",
        "valid-fraction",
        "min-coverage",
        "shard-mb",
        "coverage-exponent",
    ):
        with pytest.raises(ConfigError, match=f"{option.replace('-', '.')}=nan must be"):
            run(path, "--output", tmp_path / "pairs", f"--{option}", "nan")
    for method in ("uniref50", "uniref50=", "minhash=x", "chance"):
        with pytest.raises(ConfigError, match=f"split_by='{method}' is none of"):
            run(path, "--output", tmp_path / "pairs", "--split-by", method)
    assert not (tmp_path / "pairs").exists()


@pytest.mark.unit
def test_what_cannot_be_read_is_refused_before_ray_starts_and_leaves_no_folder(tmp_path: Path) -> None:
    path = write(tmp_path / "some.dat", ENTRIES)
    clusters = write(tmp_path / "clusters.tsv", ["P00001\n"])
    packed = write(tmp_path / "packed.dat", ["BZh91AY"])
    for arguments, message in (
        ((path, "--split-by", f"uniref50={clusters}"), r"clusters\.tsv, line 1: 'P00001' has 1 column"),
        ((path, "--split-by", f"uniref50={tmp_path}/nothing"), "nothing: cannot be read"),
        ((path, packed), r"packed\.dat: is compressed by bzip2"),
    ):
        with pytest.raises(DataError, match=message):
            run(*arguments, "--output", tmp_path / "pairs")
    assert not (tmp_path / "pairs").exists()


@pytest.mark.unit
def test_a_relative_output_is_refused_inside_a_submitted_job_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(cluster.JOB_CONFIG_VARIABLE, raising=False)
    assert cluster.resolve_output("pairs") == str(Path("pairs").absolute())
    monkeypatch.setenv(cluster.JOB_CONFIG_VARIABLE, json.dumps({"metadata": {"job_submission_id": "raysubmit_1"}}))
    with pytest.raises(ConfigError, match=r"'pairs' is relative.*session folder"):
        cluster.resolve_output("pairs")
    assert cluster.resolve_output("/data/pairs") == "/data/pairs"
    assert cluster.resolve_output("s3://bucket/pairs") == "s3://bucket/pairs"
