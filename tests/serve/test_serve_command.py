from __future__ import annotations

import asyncio
import importlib
import inspect
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest
import requests
import yaml
from click.testing import CliRunner
from ports import free_port
from pydantic import ValidationError
from running import HANGS_S
from sockets import listening, open_to_others
from tiny_model import tiny_model

from cluster.environment import MARK_VARIABLE
from protclip.errors import CheckpointError, ConfigError, DataError, IndexMismatchError
from protclip.model.record import read_checkpoint_fingerprint
from ray_jobs.local_head import Head, start_head, stop_head
from serve import haproxy
from serve.app import DEPLOYMENT
from serve.deployments import Replica
from serve.front import HOOK, VARIABLE
from serve.haproxy import is_wanted, use_haproxy
from serve.keys import new_key
from serve.main import main
from serve.server import answers, refuse_taken_place
from serve.settings import AppArgs, check_args, read_user_config


def start(index: str, checkpoint: str, *arguments: str) -> BaseException | None:
    return CliRunner().invoke(main, [index, "--checkpoint", checkpoint, *arguments]).exception


@pytest.mark.unit
def test_another_models_index_is_refused_before_ray_starts(folders, tmp_path):
    other = tiny_model(seed=1)
    other.save_pretrained(str(tmp_path / "other"))
    error = start(folders.index, str(tmp_path / "other"))
    assert isinstance(error, IndexMismatchError)
    assert other.fingerprint in str(error) and folders.model.fingerprint in str(error)


@pytest.mark.unit
def test_folders_of_another_kind_are_refused(folders, tmp_path):
    assert isinstance(start(folders.args.checkpoint, folders.args.checkpoint), DataError)
    assert isinstance(start(folders.index, folders.index), CheckpointError)
    assert isinstance(start(str(tmp_path / "none"), folders.args.checkpoint), DataError)


@pytest.mark.unit
def test_a_damaged_index_is_refused_before_ray_starts(folders, tmp_path):
    index = tmp_path / "index"
    index.mkdir()
    for path in Path(folders.index).iterdir():
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
        error = start(folders.index, folders.args.checkpoint, "--port", str(port))
    assert isinstance(error, ConfigError) and f"127.0.0.1:{port}" in str(error)


@pytest.mark.unit
@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_tokens_are_not_switched_off_where_others_can_reach(folders, monkeypatch, host):
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setenv("PROTCLIP_KEYS", new_key("a")[1])
    error = start(folders.index, folders.args.checkpoint, "--host", host, "--keys", "environment")
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
        error = start(folders.index, folders.args.checkpoint, "--host", host, *keys)
        assert isinstance(error, ConfigError) and f"listen on {host} without keys" in str(error)


@pytest.mark.unit
def test_with_keys_a_public_start_goes_on_to_the_next_check(folders, tmp_path):
    (tmp_path / "keys").write_text(new_key("alice")[1])
    for keys, part in (("keys", "cannot listen on 192.0.2.1"), ("none-such", "none-such cannot be read")):
        error = start(folders.index, folders.args.checkpoint, "--host", "192.0.2.1", "--keys", str(tmp_path / keys))
        assert isinstance(error, ConfigError) and part in str(error)


@pytest.mark.unit
def test_under_serve_deploy_it_must_be_said_who_may_ask(folders):
    given = folders.args.model_dump(exclude={"keys"})
    with pytest.raises(ValidationError, match="keys"):
        AppArgs.model_validate(given)
    with pytest.raises(ConfigError, match=r"keys 'keys\.txt' is relative"):
        check_args(AppArgs(**given, keys="keys.txt"))


TAKE_ALL_CPUS = """
import ray
class Taker:
    def take(self): pass
taker = ray.remote(num_cpus=4)(Taker).options(name="taker", lifetime="detached").remote()
ray.get(taker.take.remote())
"""


@pytest.fixture
def head(tmp_path) -> Iterator[Head]:
    yield start_head(str(tmp_path), num_cpus=4, object_store_mb=80)
    stop_head(str(tmp_path))  # with what runs on it, which carries its mark


@pytest.mark.serve
def test_on_a_cluster_it_takes_nobodys_place_says_where_it_listens_and_leaves_nothing(folders, head):
    environment = {**head.environment(), MARK_VARIABLE: head.mark}
    port = free_port()

    def on_head(script: str) -> str:
        lines = "from cluster.connection import start_or_join\nstart_or_join()\nfrom ray import serve\n" + script
        done = subprocess.run(
            [sys.executable, "-c", lines], env=environment, capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    def serve(*arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "protclip", "serve", folders.index, "--checkpoint"]
        return subprocess.Popen(
            [*command, folders.args.checkpoint, *arguments],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def read_until(server: subprocess.Popen[str], start: str) -> list[str]:
        lines = []
        for line in server.stdout or ():
            lines.append(line)
            if line.startswith(start):
                return lines
        raise AssertionError("".join(lines))

    on_head(f"serve.start(http_options={{'host': '127.0.0.1', 'port': {port}}})")
    first = serve("--port", str(free_port()))
    said = read_until(first, "ready: ")
    assert said[-1].startswith(f"ready: http://127.0.0.1:{port} ")
    assert any(f"warning: this cluster was started without {VARIABLE}={HOOK}" in line for line in said)
    assert open_to_others(listening(head.processes())) == []

    second = serve()
    assert "the application 'protclip' at /, which would be replaced" in second.communicate(timeout=HANGS_S)[0]
    assert second.returncode == 1
    assert requests.get(f"http://127.0.0.1:{port}/health", timeout=60).status_code == 200
    first.send_signal(signal.SIGTERM)
    assert first.communicate(timeout=HANGS_S)[0].endswith("stopped\n") and first.returncode == 0

    on_head(TAKE_ALL_CPUS)
    third = serve()
    read_until(third, "loading the model")  # which is never done: no replica can start
    third.send_signal(signal.SIGTERM)
    third.communicate(timeout=HANGS_S)
    assert third.returncode == 128 + signal.SIGTERM
    assert on_head("print(list(serve.status().applications), serve.context._get_global_client().http_config.port)") == (
        f"[] {port}"
    )


@pytest.mark.unit
@pytest.mark.parametrize(("name", "place"), [("protclip", "/x"), ("other", "/")])
def test_another_application_is_not_replaced(name, place):
    with pytest.raises(ConfigError, match=f"'{name}' at {place}, which would be replaced"):
        refuse_taken_place({"beside": {"route_prefix": "/b"}, name: {"route_prefix": place}})


@pytest.mark.unit
def test_an_application_at_another_place_is_no_hindrance():
    refuse_taken_place({"other": {"route_prefix": "/other"}, "without": {"route_prefix": None}})


@pytest.mark.unit
@pytest.mark.parametrize("status", [200, 404, 503])
def test_a_server_answers_when_a_route_does(status):
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/health" else 200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.handle_request)
        thread.start()
        assert answers("0.0.0.0", server.server_port) == (status == 200)
        thread.join()
    assert not answers("127.0.0.1", server.server_port)


@pytest.mark.unit
def test_a_checkpoint_may_be_a_name_that_is_looked_up_on_each_machine(folders, tmp_path, monkeypatch):
    monkeypatch.setenv("PROTCLIP_CACHE", str(tmp_path))
    cached = tmp_path / "checkpoints/published"
    shutil.copytree(folders.args.checkpoint, cached)
    fingerprint = read_checkpoint_fingerprint(str(cached))
    cached.with_name("published.json").write_text(json.dumps({"name": "published", "fingerprint": fingerprint}))
    args = folders.args.model_copy(update={"checkpoint": "published"})
    assert check_args(args) == fingerprint
    other = "0" * 64
    with pytest.raises(CheckpointError, match=f"published: is the model {fingerprint}, and was {other} when"):
        Replica(args, other)._load_model("float32")


@pytest.mark.unit
def test_a_relative_path_is_refused_where_replicas_would_read_it(folders):
    with pytest.raises(ConfigError, match="checkpoint 'checkpoint' is relative"):
        check_args(folders.args.model_copy(update={"checkpoint": "checkpoint"}))
    with pytest.raises(ConfigError, match="index 'default' 'index' is relative"):
        read_user_config({"indexes": {"default": "index"}})


@pytest.mark.serve
def test_a_checkpoint_that_changed_since_the_deployment_is_refused(folders):
    from serve.deployments import Replica

    with pytest.raises(CheckpointError, match="deploy again"):
        asyncio.run(Replica(folders.args, "0" * 64).reconfigure({"indexes": {"default": folders.index}}))


@pytest.mark.serve
@pytest.mark.parametrize("timeout_s", [30.0, 300.0])
def test_a_stopped_replica_may_answer_what_it_holds(folders, timeout_s):
    from serve.app import build_app

    limits = folders.args.limits.model_copy(update={"request_timeout_s": timeout_s})
    application = build_app(folders.args.model_copy(update={"limits": limits}))
    assert application._bound_deployment._deployment_config.graceful_shutdown_timeout_s > timeout_s


@pytest.mark.serve
@pytest.mark.parametrize("file", ["config.yaml", "config-shards.yaml"])
def test_a_config_files_args_become_settings(file):
    # Serve reads the annotation as it stands; postponed, it is a string, and build_app would get a dict.
    config = yaml.safe_load((Path(__file__).parents[2] / "serve" / file).read_text())
    (application,) = config["applications"]
    module, name = application["import_path"].split(":")
    builder = getattr(importlib.import_module(module), name)
    settings = inspect.signature(builder).parameters["args"].annotation
    assert settings is AppArgs
    assert set(application["args"]) - {"num_replicas", "sharding"} == {"checkpoint", "keys"}
    if settings.model_validate(application["args"]).sharding is not None:
        return
    (deployment,) = application["deployments"]
    assert deployment["name"] == DEPLOYMENT
    assert set(read_user_config(deployment["user_config"]).indexes) == {"default"}


@pytest.mark.unit
def test_haproxy_is_left_out_where_the_user_says_so(monkeypatch, tmp_path):
    monkeypatch.setenv("RAY_SERVE_ENABLE_HA_PROXY", "0")
    before = dict(os.environ)
    assert not use_haproxy(tmp_path, host="127.0.0.1", port=8000)
    assert dict(os.environ) == before and not list(tmp_path.iterdir())


@pytest.mark.unit
@pytest.mark.parametrize("given", ["", "true", "false", "2"])
def test_the_switch_of_haproxy_is_0_or_1(folders, monkeypatch, given):
    monkeypatch.setenv("RAY_SERVE_ENABLE_HA_PROXY", given)
    error = start(folders.index, folders.args.checkpoint, "--port", str(free_port()))
    assert isinstance(error, ConfigError) and f"RAY_SERVE_ENABLE_HA_PROXY={given!r} is neither 0 nor 1" in str(error)


@pytest.mark.unit
def test_no_variable_takes_the_place_of_the_script_or_of_a_servers_own_ports(monkeypatch, tmp_path):
    monkeypatch.setattr(haproxy, "haproxy_binary", lambda: "/somewhere/haproxy")
    names = ("BINARY_PATH", "CONFIG_FILE_LOC", "SOCKET_PATH", "STATS_PORT", "METRICS_PORT", "SERVER_STATE_BASE")
    given = {f"RAY_SERVE_HAPROXY_{name}": "1" for name in names}
    monkeypatch.setattr(os, "environ", {**given, "RAY_SERVE_HAPROXY_NBTHREAD": "1"})
    assert is_wanted() and use_haproxy(tmp_path, host="127.0.0.1", port=8000)
    assert os.environ["RAY_SERVE_ENABLE_HA_PROXY"] == "1"
    assert os.environ["RAY_SERVE_HAPROXY_BINARY_PATH"] == str(tmp_path / "haproxy.sh")
    assert not [name for name in given if os.environ[name] == "1"]
    assert os.environ["RAY_SERVE_HAPROXY_NBTHREAD"] == "1"  # of speed alone
