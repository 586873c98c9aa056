from __future__ import annotations

import importlib
import inspect
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from ports import free_port
from pydantic import ValidationError
from sockets import listening, open_to_others
from tiny_model import tiny_model

from cluster.processes import MARK_VARIABLE
from protclip.errors import CheckpointError, ConfigError, DataError, IndexMismatchError
from ray_jobs.local_head import start_head, stop_head
from serve.haproxy import use_haproxy
from serve.keys import new_key
from serve.main import main
from serve.settings import AppArgs, check_args


def start(index: str, checkpoint: str, *arguments: str) -> BaseException | None:
    return CliRunner().invoke(main, [index, "--checkpoint", checkpoint, *arguments]).exception


@pytest.mark.unit
def test_another_models_index_is_refused_before_ray_starts(folders, tmp_path):
    other = tiny_model(seed=1)
    other.save_pretrained(str(tmp_path / "other"))
    error = start(folders.args.index, str(tmp_path / "other"))
    assert isinstance(error, IndexMismatchError)
    assert other.fingerprint in str(error) and folders.model.fingerprint in str(error)


@pytest.mark.unit
def test_folders_of_another_kind_are_refused(folders, tmp_path):
    assert isinstance(start(folders.args.checkpoint, folders.args.checkpoint), DataError)
    assert isinstance(start(folders.args.index, folders.args.index), CheckpointError)
    assert isinstance(start(str(tmp_path / "none"), folders.args.checkpoint), DataError)


@pytest.mark.unit
def test_a_damaged_index_is_refused_before_ray_starts(folders, tmp_path):
    index = tmp_path / "index"
    index.mkdir()
    for path in Path(folders.args.index).iterdir():
        (index / path.name).write_bytes(path.read_bytes())
    content = bytearray((index / "segment-00000.hnsw").read_bytes())
    content[-1] ^= 1
    (index / "segment-00000.hnsw").write_bytes(content)
    assert isinstance(start(str(index), folders.args.checkpoint), DataError)


@pytest.mark.unit
def test_a_port_in_use_is_named_before_ray_starts(folders):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        error = start(folders.args.index, folders.args.checkpoint, "--port", str(port))
    assert isinstance(error, ConfigError) and f"127.0.0.1:{port}" in str(error)


@pytest.mark.unit
@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_tokens_are_not_switched_off_where_others_can_reach(folders, monkeypatch, host):
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setenv("PROTCLIP_KEYS", new_key("a")[1])
    error = start(folders.args.index, folders.args.checkpoint, "--host", host, "--keys", "environment")
    assert isinstance(error, ConfigError) and f"RAY_AUTH_MODE=disabled with --host {host}" in str(error)


@pytest.mark.unit
@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "server.lab"])
@pytest.mark.parametrize("joined", [False, True])
@pytest.mark.parametrize("haproxy", ["0", "1"])
def test_a_public_start_without_keys_is_refused_in_every_mode(folders, monkeypatch, host, joined, haproxy):
    monkeypatch.setenv("RAY_SERVE_ENABLE_HA_PROXY", haproxy)
    if joined:
        monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    for keys in ((), ("--keys", "none")):
        error = start(folders.args.index, folders.args.checkpoint, "--host", host, *keys)
        assert isinstance(error, ConfigError) and f"listen on {host} without keys" in str(error)


@pytest.mark.unit
def test_with_keys_a_public_start_goes_on_to_the_next_check(folders, tmp_path):
    (tmp_path / "keys").write_text(new_key("alice")[1])
    for keys, part in (("keys", "cannot listen on 192.0.2.1"), ("none-such", "none-such cannot be read")):
        error = start(
            folders.args.index, folders.args.checkpoint, "--host", "192.0.2.1", "--keys", str(tmp_path / keys)
        )
        assert isinstance(error, ConfigError) and part in str(error)


@pytest.mark.unit
def test_under_serve_deploy_it_must_be_said_who_may_ask(folders):
    given = folders.args.model_dump(exclude={"keys"})
    with pytest.raises(ValidationError, match="keys"):
        AppArgs.model_validate(given)
    with pytest.raises(ConfigError, match=r"keys 'keys\.txt' is relative"):
        check_args(AppArgs(**given, keys="keys.txt"))


@pytest.mark.serve
def test_the_server_on_a_head_of_our_own_listens_on_the_loopback_alone(folders, tmp_path):
    head = start_head(str(tmp_path), num_cpus=4, object_store_mb=80)
    command = [sys.executable, "-m", "protclip", "serve", folders.args.index, "--checkpoint", folders.args.checkpoint]
    try:
        server = subprocess.Popen(
            [*command, "--port", str(free_port())],
            env={**head.environment(), MARK_VARIABLE: head.mark},
            stdout=subprocess.PIPE,
            text=True,
        )
        assert server.stdout is not None
        assert any(line.startswith("ready: ") for line in server.stdout)
        assert open_to_others(listening(head.processes())) == []
    finally:
        stop_head(str(tmp_path))  # with the server, which carries the head's mark
    server.communicate()


@pytest.mark.unit
def test_a_relative_path_is_refused_where_replicas_would_read_it(folders):
    with pytest.raises(ConfigError, match="absolute"):
        check_args(folders.args.model_copy(update={"index": "index"}))


@pytest.mark.serve
def test_a_checkpoint_that_changed_since_the_deployment_is_refused(folders):
    from serve.deployments import Replica

    with pytest.raises(CheckpointError, match="deploy again"):
        Replica(folders.args, "0" * 64, "float32")


@pytest.mark.serve
def test_a_config_files_args_become_settings():
    # Serve reads the annotation as it stands; postponed, it is a string, and build_app would get a dict.
    config = yaml.safe_load((Path(__file__).parents[2] / "serve/config.yaml").read_text())
    (application,) = config["applications"]
    module, name = application["import_path"].split(":")
    builder = getattr(importlib.import_module(module), name)
    settings = inspect.signature(builder).parameters["args"].annotation
    assert settings is AppArgs
    assert set(application["args"]) == {"index", "checkpoint", "keys"}
    settings.model_validate(application["args"])


@pytest.mark.unit
def test_haproxy_is_left_out_where_the_user_says_so(monkeypatch, tmp_path):
    monkeypatch.setenv("RAY_SERVE_ENABLE_HA_PROXY", "0")
    before = dict(os.environ)
    assert not use_haproxy(tmp_path, host="127.0.0.1", port=8000)
    assert dict(os.environ) == before and not list(tmp_path.iterdir())
