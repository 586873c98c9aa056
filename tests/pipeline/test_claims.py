"""When a stage is skipped, begun, or refused."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from protclip import files
from protclip.errors import ConfigError, DataError
from protclip.pipeline.claims import changes, claim_of, fingerprint, next_step
from protclip.pipeline.records import Failure, StageRecord, read_record, record_path, write_record
from protclip.pipeline.settings import PipelineConfig, load_pipeline
from ray_jobs.pretrain.run import find_config

pytestmark = pytest.mark.unit

CLAIM: dict[str, Any] = {"settings": {"seed": 1}, "inputs": {"pairs": "a"}}
OTHER: dict[str, Any] = {"settings": {"seed": 2}, "inputs": {"pairs": "b"}}
DONE = StageRecord(
    state="done",
    claim=CLAIM,
    fingerprint=fingerprint(CLAIM),
    started="2026-11-28T00:00:00+00:00",
    resumed="2026-11-28T00:00:00+00:00",
    output="x",
)
BEGUN = replace(DONE, state="begun", output=None)


@pytest.mark.parametrize(
    ("record", "claim", "output", "is_begun", "overwrite", "wanted"),
    [
        (None, CLAIM, None, False, False, "begin"),
        (BEGUN, CLAIM, None, True, False, "begin"),
        (replace(BEGUN, state="failed"), CLAIM, None, True, False, "begin"),
        (BEGUN, CLAIM, "x", False, False, "commit"),
        (DONE, CLAIM, "x", False, False, "skip"),
        (DONE, CLAIM, None, False, False, "begin"),  # somebody removed the output
        (BEGUN, OTHER, None, False, False, "begin"),  # nothing was stored
        (DONE, CLAIM, "x", False, True, "skip"),
        (BEGUN, CLAIM, None, True, True, "begin"),  # given again, it goes on
        (BEGUN, CLAIM, "x", False, True, "commit"),
        (BEGUN, OTHER, None, True, True, "clear"),
        (None, CLAIM, None, True, True, "clear"),
        (DONE, OTHER, "x", False, True, "clear"),
        (DONE, CLAIM, "y", False, True, "clear"),
        (None, CLAIM, "x", False, True, "clear"),
        (None, CLAIM, "x", False, False, "made by something else"),
        (None, CLAIM, None, True, False, "made by something else"),
        (DONE, CLAIM, "y", False, False, "changed"),
        (DONE, OTHER, "x", False, False, "made"),
        (BEGUN, OTHER, "x", False, False, "made"),
        (BEGUN, OTHER, None, True, False, "begun"),
    ],
)
def test_what_is_done_follows_from_record_claim_and_output(
    record: StageRecord | None, claim: dict[str, Any], output: str | None, is_begun: bool, overwrite: bool, wanted: str
) -> None:
    given = {"output": output, "is_begun": is_begun, "place": "/r/e", "overwrite": overwrite}
    words = {
        "made by something else": "embed: /r/e holds an output that this pipeline did not make; give",
        "changed": "embed: /r/e was changed by something else since",
        "made": r"embed: /r/e was made otherwise \(seed: 1 there, 2 here; other pairs\); give .* or --overwrite",
        "begun": r"embed: /r/e was begun otherwise \(seed: 1 there",
    }
    if wanted in words:
        with pytest.raises(ConfigError, match=words[wanted]):
            next_step("embed", record, claim, **given)
    else:
        assert next_step("embed", record, claim, **given) == wanted


def load(folder: Path, **stages: Any) -> PipelineConfig:
    (folder / "p.yaml").write_text(yaml.safe_dump({"folder": str(folder / "out"), **stages}))
    return load_pipeline(str(folder / "p.yaml"), (), find_config, str)


def test_a_claim_is_of_settings_and_of_the_content_of_inputs_not_of_their_places(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "manifest.json").write_text("{}")

    def claim(**more: Any) -> dict[str, Any]:
        embed = {"inputs": [str(tmp_path / "a")], "checkpoint": str(tmp_path / "b"), **more}
        return claim_of(load(tmp_path, embed=embed), "embed")

    first = claim()
    assert claim(inputs=[str(tmp_path / "b")], workers=2) == first
    assert claim(part_rows=8) != first
    assert claim(checkpoint="published") != first
    (tmp_path / "a" / "manifest.json").write_text("{ }")
    assert claim() != first
    with pytest.raises(DataError, match="does not exist"):
        claim(inputs=[str(tmp_path / "nothing.fasta")])


def test_a_training_goes_on_with_other_workers(tmp_path: Path) -> None:
    (tmp_path / "pairs").mkdir()
    (tmp_path / "pairs" / "manifest.json").write_text("{}")
    given: dict[str, Any] = {"config": "tiny_cpu", "data": {"pairs": str(tmp_path / "pairs")}}
    first = claim_of(load(tmp_path, pretrain=given), "pretrain")
    again = {**given, "workers": {"num": 4}, "checkpoint_every_s": 5}
    assert claim_of(load(tmp_path, pretrain=again), "pretrain") == first
    assert claim_of(load(tmp_path, pretrain={**given, "seed": 1}), "pretrain") != first


def test_a_record_is_read_as_it_was_written_and_a_damaged_one_is_refused(tmp_path: Path) -> None:
    folder = str(tmp_path)
    assert read_record(folder, "embed") is None
    record = replace(
        BEGUN, failure=Failure(when=BEGUN.started, error="DataError: a"), num_failures=2, counted={"rows": 3}
    )
    write_record(folder, "embed", record)
    assert read_record(folder, "embed") == record
    files.write_json(record_path(folder, "embed"), {"state": "done"})
    with pytest.raises(DataError, match=r"embed.json: claim is missing\. Restore the file, or remove it"):
        read_record(folder, "embed")
    files.write_json(record_path(folder, "embed"), {**asdict(BEGUN), "started": "yesterday"})
    with pytest.raises(
        DataError, match=r"embed.json: started is 'yesterday'; a time .* Restore the file, or remove it"
    ):
        read_record(folder, "embed")
    Path(record_path(folder, "embed")).write_text("{")
    with pytest.raises(DataError, match=r"embed.json: is not JSON .* Restore the file, or remove it"):
        read_record(folder, "embed")


def test_a_record_that_says_nothing_of_its_settings_differs_in_words() -> None:
    now = {"settings": {"seed": 1}, "inputs": {"pairs": "a"}}
    assert changes({}, now) == ["seed: None there, 1 here", "other pairs"]
