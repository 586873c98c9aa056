"""protclip pipeline given again: done stages are skipped, failed or killed ones go on, what has changed is told."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from kills import ROOT
from pipelines import dying, write_pipeline
from tiny_model import tiny_model

from protclip import files
from protclip.__main__ import cli
from protclip.errors import ConfigError, DataError, OtherRunError, ProtclipError
from protclip.pipeline.records import read_record, write_record
from protclip.pipeline.status import read_status

pytestmark = pytest.mark.unit

CURATE: dict[str, Any] = {"dataset": "all", "split_by": "sequence"}


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Of stages that need no Ray."""
    tiny_model().save_pretrained(str(tmp_path / "model"))
    return write(tmp_path)


def write(tmp_path: Path, **stages: Any) -> Path:
    embed = {"checkpoint": str(tmp_path / "model"), "dtype": "float32"}
    given = {"curate": CURATE, "embed": embed, "index": {}, **stages}
    left_out = dict.fromkeys(("pretrain", "evaluate", "questions"))
    return write_pipeline(tmp_path / "p.yaml", str(tmp_path / "out"), **{**left_out, **given})


def run(config: Path, *options: str) -> Result:
    return CliRunner().invoke(cli, ["pipeline", str(config), *options], catch_exceptions=False)


def lines(result: Result) -> list[str]:
    """What the pipeline says of its stages."""
    own = [line.removeprefix("pipeline: ") for line in result.stdout.splitlines() if line.startswith("pipeline: ")]
    return own[:-1]


def manifests(folder: Path) -> dict[str, str]:
    return {path.parent.name: files.sha256(str(path)) for path in sorted(folder.glob("*/manifest.json"))}


def test_what_is_done_is_skipped_and_a_changed_setting_is_refused_until_it_is_made_again(
    config: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert run(config, "--dry-run").stdout.splitlines()[0] == "curate: to do"
    assert not out.exists()
    assert lines(run(config)) == ["curate …", "embed …", "index …"]
    first = manifests(out)
    told_first = (out / "pipeline.json").read_text()
    assert set(first) == {"pairs", "embeddings", "index"}
    assert lines(run(config)) == [f"{stage} is done already" for stage in ("curate", "embed", "index")]
    assert read_status(str(out)).state == "done"

    changed = write(tmp_path, curate={**CURATE, "seed": 1})
    told = (
        "curate: .*out/pairs was made otherwise .curation.seed: None there, 1 here.; give the pipeline another folder"
    )
    for options in ((), ("--dry-run",)):
        with pytest.raises(ConfigError, match=told):
            run(changed, *options)
    assert manifests(out) == first
    assert (out / "pipeline.json").read_text() == told_first
    assert run(changed, "--dry-run", "--overwrite").stdout.splitlines()[0] == "curate: to make again"
    assert manifests(out) == first
    assert lines(run(changed, "--overwrite")) == ["curate …", "embed …", "index …"]
    second = manifests(out)
    assert all(second[name] != first[name] for name in first)
    assert len(lines(run(changed))) == 3 and "…" not in run(changed).stdout.split("→")[0]

    # Only the index is of other settings: what it is made of stays.
    assert lines(run(write(tmp_path, curate={**CURATE, "seed": 1}, index={"m": 8}), "--overwrite")) == [
        "curate is done already",
        "embed is done already",
        "index …",
    ]
    (out / "embeddings" / "notes.txt").write_text("mine")
    again = write(tmp_path, curate={**CURATE, "seed": 1}, embed={"checkpoint": str(tmp_path / "model"), "part_rows": 9})
    with pytest.raises(ConfigError, match="holds other files"):
        run(again, "--overwrite")
    assert (out / "embeddings" / "notes.txt").read_text() == "mine"


def test_a_stage_that_failed_says_why_and_goes_on_when_it_is_mended(config: Path, tmp_path: Path) -> None:
    data = tmp_path / "proteome.dat"
    good = data.read_text()
    data.write_text(good.replace("SQ   SEQUENCE", "SQ   NONSENSE"))
    with pytest.raises(DataError) as caught:
        run(config)
    told = read_status(str(tmp_path / "out"))
    assert told.state == "failed"
    assert [stage.state for stage in told.stages] == ["failed", "waiting", "waiting"]
    assert told.stages[0].failure is not None and told.stages[0].failure.error == f"DataError: {caught.value}"
    data.write_text(good)
    with pytest.raises(ConfigError, match=r"curate: .* was begun otherwise \(other inputs\)"):
        run(config)
    assert lines(run(config, "--overwrite"))[0] == "curate …"
    assert read_status(str(tmp_path / "out")).state == "done"


@pytest.mark.slow
def test_a_kill_between_the_output_and_its_record_costs_nothing(config: Path, tmp_path: Path) -> None:
    command = [*dying(("embed", "done")), "pipeline", str(config)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == -9, done.stderr
    out = tmp_path / "out"
    record = read_record(str(out), "embed")
    assert record is not None and record.state == "begun"
    before = (out / "embeddings" / "manifest.json").stat().st_mtime_ns
    assert read_status(str(out)).stages[1].state == "stopped"
    assert lines(run(config)) == ["curate is done already", "index …"]
    assert (out / "embeddings" / "manifest.json").stat().st_mtime_ns == before
    assert read_status(str(out)).state == "done"


def test_an_output_that_something_else_made_or_changed_is_not_taken_for_its_own(config: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    CliRunner().invoke(
        cli,
        ["curate", str(tmp_path / "proteome.dat"), "--dataset", "all", "--output", str(out / "pairs")],
        catch_exceptions=False,
    )
    with pytest.raises(ConfigError, match="holds an output that this pipeline did not make"):
        run(config)
    run(config, "--overwrite")
    manifest = json.loads((out / "embeddings" / "manifest.json").read_text())
    for content in (json.dumps(manifest), "{"):
        (out / "embeddings" / "manifest.json").write_text(content)
        with pytest.raises(ConfigError, match=r"embed: .* was changed by something else"):
            run(config)
    assert lines(run(config, "--overwrite"))[:2] == ["curate is done already", "embed …"]


def test_an_index_that_was_given_to_a_server_is_never_made_again(config: Path, tmp_path: Path) -> None:
    run(config)
    with pytest.raises(ConfigError, match="no server of yours runs on this machine"):
        run(write(tmp_path, serve={}))
    out = str(tmp_path / "out")
    told = read_status(out).stages[-1]
    assert (told.stage, told.state) == ("serve", "failed")
    record = read_record(out, "serve")
    assert record is not None
    write_record(out, "serve", replace(record, state="done"))
    before = manifests(tmp_path / "out")
    for changed in ({"index": {"m": 8}}, {"curate": {**CURATE, "seed": 1}}):  # before anything is made again
        with pytest.raises(ConfigError, match="the index of this pipeline was given to a server"):
            run(write(tmp_path, serve={}, **changed), "--overwrite")
    assert manifests(tmp_path / "out") == before


def test_a_finished_output_of_which_a_file_is_missing_is_not_taken_for_done(config: Path, tmp_path: Path) -> None:
    run(config)
    out = tmp_path / "out"
    before = manifests(out)
    name = next(iter(json.loads((out / "index" / "manifest.json").read_text())["files"]))
    (out / "index" / name).unlink()
    for options in ((), ("--dry-run",)):
        with pytest.raises(ConfigError, match=r"index: .* is missing, though the manifest lists it; .* --overwrite"):
            run(config, *options)
    assert lines(run(config, "--overwrite"))[-2:] == ["embed is done already", "index …"]
    assert (out / "index" / name).exists()
    assert manifests(out) == before


def test_an_unfinished_stage_of_other_software_is_made_anew_if_that_may_be(config: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(config)
    first = manifests(out)
    (out / "embeddings/manifest.json").unlink()
    files.write_json(str(out / "embeddings/.work/claim.json"), {"software": "of last year"})
    record = read_record(str(out), "embed")
    assert record is not None
    write_record(str(out), "embed", replace(record, state="begun"))
    with pytest.raises(OtherRunError, match="give --overwrite to start again"):
        run(config)
    run(config, "--overwrite")
    assert manifests(out) == first


@pytest.mark.usefixtures("config")
def test_what_a_later_stage_would_refuse_is_refused_at_once(tmp_path: Path) -> None:
    model = str(tmp_path / "model")
    for stages, told in (
        ({"embed": {"checkpoint": "/nowhere"}}, "/nowhere"),
        ({"evaluate": {"checkpoints": [model], "tasks": ["retreival"]}}, "retreival: there is no such task"),
    ):
        with pytest.raises(ProtclipError, match=told):
            run(write(tmp_path, **stages), "--dry-run")
        with pytest.raises(ProtclipError, match=told):
            run(write(tmp_path, **stages))
        assert not (tmp_path / "out").exists()
