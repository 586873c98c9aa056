"""Checkpoints go to the HuggingFace hub and come back, by its own client and a server on this machine."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hub_server import COMMIT, HubServer, serving
from tiny_model import tiny_model

from protclip import ProtCLIP
from protclip.checkpoint_names import absolute_checkpoint, is_name
from protclip.checkpoints import checkpoint_folder
from protclip.errors import CheckpointError, ConfigError

pytestmark = pytest.mark.unit


SCRIPT = """
import os, socket, sys
import protclip.hub
from protclip import ProtCLIP
from protclip.errors import ConfigError

model = ProtCLIP.from_pretrained(sys.argv[1])
print(model.push_to_hub("lab/tiny", private=True, commit_message="First"))
print(ProtCLIP.from_pretrained("lab/tiny").fingerprint)
print(ProtCLIP.from_pretrained("lab/tiny", revision="v1").fingerprint, flush=True)
sys.stdin.readline()  # until the hub has gone
print(ProtCLIP.from_pretrained("lab/tiny@v1").fingerprint)
protclip.hub.TIMEOUT_S = protclip.hub.SOON_S = 1.0
for silent in (False, True):
    if silent:  # what now connects is never answered
        deaf = socket.create_server(("127.0.0.1", int(os.environ["HF_ENDPOINT"].rpartition(":")[2])))
    for ask in (lambda: model.push_to_hub("lab/tiny"), lambda: ProtCLIP.from_pretrained("lab/other")):
        try:
            ask()
        except ConfigError as error:
            print(error)
"""


@pytest.mark.slow
def test_what_is_pushed_is_the_saved_folder_and_loads_by_its_name_and_without_a_hub_there_is_an_error(
    tmp_path: Path,
) -> None:
    model, saved = tiny_model(), tmp_path / "saved"
    model.save_pretrained(str(saved))
    environment = {**os.environ, "HF_HOME": str(tmp_path / "home"), "HF_TOKEN": "hf_secret", "no_proxy": "127.0.0.1"}
    environment["PROTCLIP_CACHE"] = str(tmp_path / "cache")
    environment.pop("HF_HUB_OFFLINE", None)
    with contextlib.ExitStack() as stop, contextlib.ExitStack() as hub:
        server = hub.enter_context(serving(HubServer()))
        # A Python of its own: the client reads its endpoint when it is imported.
        process = subprocess.Popen(
            [sys.executable, "-c", SCRIPT, str(saved)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**environment, "HF_ENDPOINT": server.url},
        )
        stop.callback(process.kill)
        assert process.stdout is not None
        online = [process.stdout.readline().strip() for _ in range(3)]
        hub.close()
        out, err = process.communicate("\n", timeout=60)
    assert process.returncode == 0, err
    assert online == [f"{server.url}/lab/tiny/commit/{COMMIT}", model.fingerprint, model.fingerprint]
    assert server.files == {
        str(path.relative_to(saved)): path.read_bytes() for path in saved.rglob("*") if path.is_file()
    }
    (repo,), (commit,) = server.repos, server.commits
    assert (repo["name"], repo["visibility"], commit["summary"]) == ("tiny", "private", "First")
    assert server.tokens == {"Bearer hf_secret"}
    offline, *told = out.splitlines()
    assert offline == model.fingerprint
    assert len(told) == 4
    for push, load in (told[:2], told[2:]):
        assert push.startswith("lab/tiny: cannot be uploaded to the HuggingFace hub (")
        assert load.startswith("lab/other: is no folder here, and cannot be had from the HuggingFace hub: ")
    assert "timed out" in told[2]
    # A branch is what it was at one commit, whatever happens on the hub while its files come.
    fetched = [path for path in server.asked if "/resolve/" in path]
    assert fetched
    assert all(path.startswith(f"/lab/tiny/resolve/{COMMIT}/") for path in fetched)
    assert (tmp_path / "cache/checkpoints/lab--tiny@v1/manifest.json").exists()
    assert err.count("protclip: lab/tiny on ") == 1
    assert err.count("protclip: lab/tiny@v1 on ") == 1


def test_folders_are_taken_before_names_and_have_no_revisions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny_model().save_pretrained(str(tmp_path / "lab/tiny"))
    monkeypatch.chdir(tmp_path)
    assert checkpoint_folder("lab/tiny") == "lab/tiny"
    assert absolute_checkpoint("lab/tiny") == str(tmp_path / "lab/tiny")
    assert isinstance(ProtCLIP.from_pretrained("lab/tiny"), ProtCLIP)
    for name in ("lab/tiny", "lab/other@v1", "published"):
        with pytest.raises(ConfigError, match=r"revision='main': .* is no name on the hub"):
            ProtCLIP.from_pretrained(name, revision="main")


@pytest.mark.parametrize("name", ["publishd", "runs/tiny/best", "", "/none", "lab/tiny@", "@v1"])
def test_what_is_no_name_lists_what_is(name: str) -> None:
    assert not is_name(name)
    with pytest.raises(CheckpointError, match=r"is missing; .*'published' .*org/name@REVISION.*URL"):
        checkpoint_folder(name)


def test_nothing_is_fetched_where_the_hub_is_to_be_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setenv("PROTCLIP_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)  # it reads the variable when it is imported
    for name in ("lab/tiny", "published", "http://127.0.0.1:9/model"):
        with pytest.raises(ConfigError, match="HF_HUB_OFFLINE is set"):
            checkpoint_folder(name)


@pytest.mark.slow
def test_another_repository_is_refused_before_it_is_downloaded_and_a_checkpoint_becomes_ones_own_folder(
    tmp_path: Path,
) -> None:
    tiny_model().save_pretrained(str(tmp_path / "saved"))
    files = {
        str(path.relative_to(tmp_path / "saved")): path.read_bytes()
        for path in (tmp_path / "saved").rglob("*")
        if path.is_file()
    }
    environment = {**os.environ, "HF_HOME": str(tmp_path / "home"), "PROTCLIP_CACHE": str(tmp_path / "cache")}
    environment.pop("HF_HUB_OFFLINE", None)
    others = {"lab/esm": {"config.json": b"{}", "model.safetensors": b"0"}}
    with serving(HubServer(files=files, others=others)) as server:
        environment |= {"HF_ENDPOINT": server.url, "no_proxy": "127.0.0.1"}

        def fetch(name: str, output: str) -> subprocess.CompletedProcess[str]:
            command = [sys.executable, "-m", "protclip", "fetch-model", name, "--output", str(tmp_path / output)]
            return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

        refused = fetch("lab/esm", "esm")
        fetched = fetch("lab/tiny@v1", "tiny")
    assert refused.returncode == 1
    assert (
        refused.stderr.strip()
        .splitlines()[-1]
        .startswith("ConfigError: lab/esm: holds no manifest.json, but config.json, model.safetensors")
    )
    assert not [path for path in server.asked if path.startswith("/lab/esm/resolve/")]
    assert fetched.returncode == 0, fetched.stderr
    first, last = fetched.stdout.splitlines()
    assert first == f"lab/tiny@v1 on {server.url}, commit {COMMIT}: {sum(map(len, files.values())):,} bytes"
    assert last.startswith(f"fetch-model: lab/tiny@v1, fingerprint {tiny_model().fingerprint} → {tmp_path / 'tiny'}")
    assert "/resolve/v1/" not in str(server.asked)
    assert {
        str(path.relative_to(tmp_path / "tiny")): path.read_bytes()
        for path in (tmp_path / "tiny").rglob("*")
        if path.is_file()
    } == files
