"""What the quickstart adds to the commands: its folder, its logs, its errors."""

from __future__ import annotations

import json
import os
import re
import secrets
import socket
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner
from uniprot_server import UniProtServer, serving
from urllib3.util.retry import Retry

from cluster.folders import private_root
from protclip.errors import ConfigError
from protclip.protanno.synthetic import synthetic_proteome
from protclip.uniprot.formats import open_entries
from ray_jobs.local_head import STATE_FILE
from ray_jobs.quickstart import data as quickstart_data
from ray_jobs.quickstart.folder import MARKER_FILE, claim_folder
from ray_jobs.quickstart.main import main
from ray_jobs.quickstart.run import SYNTHETIC, Run, choose_data, progress_line

pytestmark = pytest.mark.unit


def test_a_folder_that_is_not_ours_is_not_wiped(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(ConfigError, match="choose another folder"):
        claim_folder(str(tmp_path))
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_an_earlier_run_is_wiped(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    claim_folder(str(folder))
    (folder / "pairs").mkdir()
    claim_folder(str(folder))
    assert [path.name for path in folder.iterdir()] == [MARKER_FILE]


def test_what_a_symbolic_link_leads_to_is_not_wiped(tmp_path: Path) -> None:
    claim_folder(str(tmp_path / "theirs"))
    (tmp_path / "out").symlink_to(tmp_path / "theirs")
    with pytest.raises(ConfigError, match="is a symbolic link"):
        claim_folder(str(tmp_path / "out"))
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "thesis.tex").write_text("years of work")
    (tmp_path / "thesis" / MARKER_FILE).symlink_to(tmp_path / "theirs" / MARKER_FILE)
    with pytest.raises(ConfigError, match="choose another folder"):
        claim_folder(str(tmp_path / "thesis"))
    assert (tmp_path / "thesis" / "thesis.tex").exists()


@pytest.mark.parametrize("through", ["temp_dir", "mark", "link"])
@pytest.mark.parametrize("arguments", [["--stop"], ["--data", SYNTHETIC]])
def test_a_forged_record_ends_and_removes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, through: str, arguments: list[str]
) -> None:
    class _StartsError(Exception):
        """The quickstart would start now."""

    def start(*_arguments: object) -> None:
        raise _StartsError

    monkeypatch.setattr(Run, "whole_way", start)
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "thesis.tex").write_text("years of work")
    output = tmp_path / "out"
    claim_folder(str(output))
    (output / "ray").mkdir()
    stranger = subprocess.Popen(["sleep", "60"], start_new_session=True)
    state = {
        "mark": "forged",
        "session": stranger.pid,
        "address": "127.0.0.1:1",
        "dashboard_url": "http://127.0.0.1:2",
        "token_path": str(victim / "thesis.tex"),
        "temp_dir": str(victim),
    }
    (victim / STATE_FILE).write_text(json.dumps(state))
    if through == "mark":
        state = {"mark": os.path.relpath(victim, private_root()), "root": str(private_root())}
    elif through == "link":
        name = secrets.token_hex(4)
        (private_root() / name).symlink_to(victim)
        state = {"mark": name, "root": str(private_root())}
    (output / "ray" / STATE_FILE).write_text(json.dumps(state))
    try:
        result = CliRunner().invoke(main, [*arguments, "--output", str(output)])
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()
        if through == "link":
            (private_root() / name).unlink()
    assert (victim / "thesis.tex").read_text() == "years of work"
    if arguments == ["--stop"]:
        assert result.output == f"nothing of a quickstart in {output} is running\n"
    else:
        assert isinstance(result.exception, _StartsError)


def test_a_stage_that_fails_is_named_with_the_end_of_its_log(tmp_path: Path) -> None:
    run = Run(output=str(tmp_path))
    with pytest.raises(
        ConfigError, match=r"(?s)failed at 'curate' with status 3; its log .*/logs/curate\.log.*the why"
    ):
        run._command("curate", ["python", "-c", "print('the why', flush=True); raise SystemExit(3)"])


def test_progress_is_shown_once_and_the_log_has_it_all(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = "\x1b[36m(RayTrainWorker pid=7, ip=10.0.0.1)\x1b[0m epoch 1/2 done: loss 3"
    script = f"print({told!r}); print({told!r}); print('run_dir: /somewhere'); print('1,082 training pairs in all')"
    Run(output=str(tmp_path))._command("pretrain", ["python", "-c", script], show_progress=True)
    assert capsys.readouterr().out == "      epoch 1/2 done: loss 3\n      1,082 training pairs in all\n"
    log = (tmp_path / "logs" / "pretrain.log").read_text()
    assert log.count(told) == 2
    assert "run_dir: /somewhere" in log


@pytest.mark.parametrize(
    "line", ["2026-11-22 16:09:15,800\tINFO cli.py:42 -- epoch 1", "(TrainController pid=1) Started", ""]
)
def test_what_ray_says_itself_is_no_progress(line: str) -> None:
    assert progress_line(line) is None


def test_missing_data_is_said_before_anything_is_touched(tmp_path: Path) -> None:
    output = tmp_path / "out"
    result = CliRunner().invoke(main, ["--data", str(tmp_path / "none.dat"), "--output", str(output)])
    assert isinstance(result.exception, ConfigError)
    assert not output.exists()


def test_uniprots_proteins_are_downloaded_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    entries = list(synthetic_proteome(23, 3, seed=1))
    with serving(UniProtServer(entries=entries)) as server:
        monkeypatch.setattr(quickstart_data, "REST_URL", server.url)
        path = choose_data(None)
        asked = server.queries[:]
        server.release = "2026_04"
        assert choose_data(None) == path
        assert server.queries == asked
    assert path == str(tmp_path / "protclip" / "quickstart.tsv.gz")
    assert asked[0]["query"] == [quickstart_data.QUERY]
    assert asked[0]["format"] == ["tsv"]
    assert len(list(open_entries(path))) == 23
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        "23 entries of UniProt 2026_03 to fetch",
        *[f"Data: 23 reviewed proteins of UniProt 2026_03, CC BY 4.0, from {path}"] * 2,
    ]


@pytest.mark.slow
def test_without_a_network_or_when_asked_for_the_proteome_is_synthetic(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setattr(quickstart_data, "REST_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        assert choose_data(SYNTHETIC) is None
        assert capsys.readouterr().out == "Data: SYNTHETIC proteins and texts, made for this trial\n"
        monkeypatch.setattr(quickstart_data, "REACH_S", 0.5)
        assert choose_data(None) is None
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("Data: SYNTHETIC proteins and texts, since UniProt's cannot be had: http://127.0.0.1:")
    assert re.search(r"no answer within 0\.5 s|read timeout=0\.5", line)
    assert choose_data("mine.dat") == str(Path("mine.dat").absolute())
    assert capsys.readouterr().out == ""


def test_a_service_that_fails_does_not_stop_the_quickstart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file" / "below"))
    (tmp_path / "file").write_text("")
    with serving(UniProtServer(entries=list(synthetic_proteome(3, 3, seed=1)))) as server:
        monkeypatch.setattr(quickstart_data, "REST_URL", server.url)
        assert choose_data(None) is None  # the cache cannot be written
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        monkeypatch.setattr(quickstart_data, "RETRIES", Retry(total=0))
        server.page_faults = ["503"]
        assert choose_data(None) is None
        assert choose_data(None) is not None


def test_stop_without_a_run_says_so(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["--stop", "--output", str(tmp_path)])
    assert result.exit_code == 0
    assert "nothing" in result.output
