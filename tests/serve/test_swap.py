"""``swap-index``: all replicas of an application change, or none; here those that ``serve deploy`` has."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import requests
from click.testing import CliRunner
from releases import damage, make_too_large, write_release
from running import HANGS_S, LOGS, wait_until
from tiny_model import tiny_model

from cluster.folders import locked, make_folder, private_root
from protclip.errors import ConfigError
from protclip.index.manifest import read_index_manifest, write_index_manifest
from protclip.manifest import read_manifest
from serve.indexes import LOADING
from serve.server import APP_NAME, SERVER_FILE
from serve.swap import _stop_listening, _user_config, changed, find_server, main, swap

PREFIX = "/swapped"


@pytest.fixture(scope="module")
def deployed(server: Any) -> Iterator[str]:
    """The application as ``serve deploy`` has it, with two replicas; its URL."""
    from ray import serve
    from ray.serve.context import _get_global_client
    from ray.serve.schema import ServeDeploySchema

    application = {
        "name": APP_NAME,
        "route_prefix": PREFIX,
        "logging_config": LOGS,
        "import_path": "serve.app:build_app",
        "args": {**server.args.model_dump(mode="json"), "num_replicas": 2},
        "deployments": [{"name": "Replica", "user_config": {"indexes": {"default": server.index}}}],
    }
    client = _get_global_client()
    client.deploy_apps(ServeDeploySchema.model_validate({"applications": [application]}))
    wait_until(lambda: serve.status().applications[APP_NAME].status == "RUNNING", "the application runs")
    yield server.url + PREFIX
    serve.delete(APP_NAME)


@pytest.mark.usefixtures("deployed")
def test_when_the_command_leaves_the_ray_serves_own_thread_has_ended_and_nothing_listens(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from ray.serve._private.long_poll import LongPollClient
    from ray.serve._private.router import SingletonThreadRouter
    from ray.serve.context import _get_global_client

    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    monkeypatch.setattr(SingletonThreadRouter, "_asyncio_loop", loop)
    listening = LongPollClient(_get_global_client()._controller, {}, loop, client_id="of a test")
    loop.call_soon_threadsafe(time.sleep, 0.5)  # it is busy
    _stop_listening()
    assert (loop.is_running(), listening.is_running) == (False, False)
    thread.join()
    loop.close()


def answering(url: str) -> dict[str, str]:
    """Fingerprints of the indexes by name; of one replica."""
    told = requests.get(f"{url}/v1/indexes", timeout=60).json()["indexes"]
    return {one["name"]: one["fingerprint"] for one in told}


@pytest.mark.serve
def test_in_the_deployment_of_a_config_file_all_replicas_change_or_none(deployed, server, tmp_path):
    from ray.serve.context import _get_global_client

    def pids() -> set[int]:
        details = _get_global_client().get_serve_details()["applications"][APP_NAME]["deployments"]["Replica"]
        return {one["pid"] for one in details["replicas"]}

    before, first = pids(), read_index_manifest(server.index).fingerprint
    good = write_release(tmp_path, server.model, "next", count=40)
    states = swap("default", good)
    assert len(states) == 2 and {one.fingerprints["default"] for one in states} == set(answering(deployed).values())
    assert {hit["name"] for hit in search(deployed, "default")} <= {f"next {i}" for i in range(40)}
    assert swap("default", good) == states  # given again, as after a kill
    manifest, files = read_index_manifest(good), read_manifest(good, "index")["files"]
    write_index_manifest(good, replace(manifest, ef_search=manifest.ef_search + 1), files)
    with pytest.raises(ConfigError, match=r"is that of .* already, which has changed"):
        swap("default", good)
    write_index_manifest(good, manifest, files)

    swap("other", server.index)  # one more
    assert answering(deployed)["other"] == first
    assert search(deployed, "other") == search(server.url, "default")
    assert {hit["name"] for hit in search(deployed, "default")} <= {f"next {i}" for i in range(40)}

    swap("far", f"file://{good}")  # a URL, which the replicas read through fsspec
    assert search(deployed, "far") == search(deployed, "default")
    states = swap("far", None)
    assert len(states) == 2 and {tuple(one.paths) for one in states} == {("default", "other")}
    refused = requests.post(f"{deployed}/v1/search", json={"text": "a", "index": "far"}, timeout=60)
    assert refused.status_code == 404 and "there are 'default', 'other'" in refused.json()["error"]["message"]
    with pytest.raises(ConfigError, match="index 'far': is not served"):
        swap("far", None)

    for path, reason in (
        (damage(good, tmp_path / "damaged"), "SHA-256"),
        (write_release(tmp_path, tiny_model(seed=1), "foreign"), "was made by the model"),
        (make_too_large(good, tmp_path / "large"), "GB are needed"),
    ):
        with pytest.raises(ConfigError, match=f"refused, and all answer as before: .*{reason}"):
            swap("default", path)
        told = requests.get(f"{deployed}/v1/indexes", timeout=60).json()
        assert told["refused"] is None and answering(deployed)["default"] == states[0].fingerprints["default"]
    assert pids() == before  # no replica was replaced
    assert requests.post(f"{deployed}/v1/search", json={"text": "a", "index": "x"}, timeout=60).status_code == 404
    row = requests.get(f"{deployed}/v1/proteins/P00001", params={"index": "default"}, timeout=60).json()
    assert row["name"] == "next 1"


@pytest.mark.serve
def test_of_two_exchanges_at_once_the_one_that_was_overtaken_ends_and_says_so(deployed, server, tmp_path):
    def set_to(path: str) -> bool:
        found: bool = _user_config()["indexes"]["default"] == path
        return found

    paths = [write_release(tmp_path, server.model, name, count=40 + i) for i, name in enumerate(("one", "two"))]
    with ThreadPoolExecutor(2) as pool:
        running = []
        with locked(private_root() / LOADING):  # no replica can load
            for path in paths:
                running.append(pool.submit(swap, "default", path))
                wait_until(lambda path=path: set_to(path) or running[-1].done(), f"{path} is set")
        with pytest.raises(ConfigError, match="another swap-index or deployment came in between"):
            running[0].result(HANGS_S)
        assert len(running[1].result(HANGS_S)) == 2
    assert answering(deployed)["default"] == read_index_manifest(paths[1]).fingerprint


@pytest.mark.serve
def test_an_interrupted_exchange_is_taken_back(deployed, server, tmp_path):
    import ray

    before, answered = _user_config(), answering(deployed)
    path = write_release(tmp_path, server.model, "interrupted", count=45)
    command = [sys.executable, "-m", "protclip", "swap-index", "default", path]
    environment = {**os.environ, "RAY_ADDRESS": ray.get_runtime_context().gcs_address}
    with locked(private_root() / LOADING):  # no replica can load
        process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
        wait_until(lambda: _user_config() != before or process.poll() is not None, "it is under way")
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=HANGS_S)
    assert process.returncode == 1 and "interrupted: the server goes back to the indexes that it had" in said
    assert _user_config() == before
    wait_until(lambda: answering(deployed) == answered, "the old one answers")


def search(url: str, index: str) -> Any:
    answer = requests.post(f"{url}/v1/search", json={"text": "kinase", "index": index, "k": 5}, timeout=60)
    assert answer.status_code == 200, answer.text
    return answer.json()["hits"]


@pytest.mark.unit
def test_a_name_is_removed_unless_it_must_stay():
    there = {"default": "/a", "texts": "/b"}
    assert changed(there, "texts", None) == {"default": "/a"} and changed(there, "new", "/c") == {**there, "new": "/c"}
    for indexes, name, message in (
        (there, "default", r"'default': stays, for it is asked where a request names none; .* 'default', 'texts'\."),
        ({"texts": "/b"}, "texts", "'texts': stays, for it is the last one"),
        (there, "text", "'text': is not served, so it cannot be removed; there are 'default', 'texts'"),
    ):
        with pytest.raises(ConfigError, match=message):
            changed(indexes, name, None)


@pytest.mark.unit
@pytest.mark.parametrize("arguments", [["default"], ["default", "/data/index", "--remove"]])
def test_either_an_index_is_given_or_one_is_removed(arguments):
    error = CliRunner().invoke(main, arguments).exception
    assert isinstance(error, ConfigError) and "needs an INDEX" in str(error)


@pytest.mark.unit
def test_the_server_is_found_where_it_is_plain_which_is_meant(request, monkeypatch):
    base = tempfile.mkdtemp(dir="/tmp")  # a long path would not be used
    request.addfinalizer(lambda: shutil.rmtree(base))
    monkeypatch.setattr("tempfile.tempdir", base)
    with pytest.raises(ConfigError, match="no server of yours runs on this machine"):
        find_server(None)
    make_folder()  # of a Ray that serves nothing
    folders = [make_folder() for _ in range(2)]
    for i, folder in enumerate(folders):
        Path(folder.path / SERVER_FILE).write_text(json.dumps({"port": 8000 + i, "address": f"127.0.0.1:{i}"}))
        if not i:
            assert find_server(None) == (folder, "127.0.0.1:0")
    assert find_server(8001) == (folders[1], "127.0.0.1:1")
    with pytest.raises(ConfigError, match=r"on the ports 8000, 8001; say which with --port"):
        find_server(None)
    with pytest.raises(ConfigError, match="has port 9; there is 8000, 8001"):
        find_server(9)
