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
from protclip.errors import ConfigError
from protclip.hub import checkpoint_folder

pytestmark = pytest.mark.unit


SCRIPT = """
import os, socket, sys
import protclip.hub
from protclip import ProtCLIP
from protclip.errors import ConfigError

commit = "COMMIT"
model = ProtCLIP.from_pretrained(sys.argv[1])
print(model.push_to_hub("lab/tiny", private=True, commit_message="First"))
print(ProtCLIP.from_pretrained("lab/tiny").fingerprint)
print(ProtCLIP.from_pretrained("lab/tiny", revision=commit).fingerprint, flush=True)
sys.stdin.readline()  # until the hub has gone
print(ProtCLIP.from_pretrained("lab/tiny").fingerprint)
protclip.hub.TIMEOUT_S = 1.0
for silent in (False, True):
    if silent:  # what now connects is never answered
        deaf = socket.create_server(("127.0.0.1", int(os.environ["HF_ENDPOINT"].rpartition(":")[2])))
    for ask in (lambda: model.push_to_hub("lab/tiny"), lambda: ProtCLIP.from_pretrained("lab/other")):
        try:
            ask()
        except ConfigError as error:
            print(error)
""".replace("COMMIT", COMMIT)


@pytest.mark.slow
def test_what_is_pushed_is_the_saved_folder_and_loads_by_its_name_and_without_a_hub_there_is_an_error(
    tmp_path: Path,
) -> None:
    model, saved = tiny_model(), tmp_path / "saved"
    model.save_pretrained(str(saved))
    environment = {**os.environ, "HF_HOME": str(tmp_path / "home"), "HF_TOKEN": "hf_secret", "no_proxy": "127.0.0.1"}
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
        assert load.startswith("lab/other: is no folder, and cannot be had from the HuggingFace hub (")
    assert "timed out" in told[2]


def test_folders_are_taken_before_names_and_have_no_revisions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny_model().save_pretrained(str(tmp_path / "lab/tiny"))
    monkeypatch.chdir(tmp_path)
    assert checkpoint_folder("lab/tiny") == "lab/tiny"
    assert isinstance(ProtCLIP.from_pretrained("lab/tiny"), ProtCLIP)
    with pytest.raises(ConfigError, match="revision='main': lab/tiny is a folder"):
        ProtCLIP.from_pretrained("lab/tiny", revision="main")
