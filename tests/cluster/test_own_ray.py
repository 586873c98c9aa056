"""A Ray of our own meets nothing of another on the machine, and nobody meets it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from sockets import family, listening, open_to_others

from cluster.environment import MARK_VARIABLE
from cluster.folders import find_folder, make_folder
from cluster.processes import marked

pytestmark = pytest.mark.ray

RUN = """
import json, os, sys
from cluster.environment import prepare_environment
prepare_environment()
from cluster.connection import start_or_join
start_or_join(num_cpus=1, object_store_bytes=80_000_000, state_service=True)
import ray
node = ray._private.worker._global_node
task = ray.remote(num_cpus=0.1)(lambda: os.environ["RAY_ADDRESS"])
told = [os.environ["MARK"], node.dashboard_agent_listen_port, node.webui_url, ray.get(task.remote())]
print(json.dumps(told), flush=True)
sys.stdin.read()
""".replace("MARK", MARK_VARIABLE)


@pytest.mark.parametrize("ended_by", [signal.SIGTERM, signal.SIGKILL])
def test_our_own_ray_listens_on_free_ports_of_the_loopback_and_leaves_nothing(ended_by: signal.Signals) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    process = subprocess.Popen(
        [sys.executable, "-c", RUN], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        mark, agent_port, dashboard, told = json.loads(process.stdout.readline())
        while not any(port == agent_port for _, port in listening(family(process.pid))):
            time.sleep(0.1)  # the agent opens its port some time after it chose it
        sockets = listening(family(process.pid))
        assert open_to_others(sockets) == []
        ports = {port for _, port in sockets}
        assert not ports & {8265, 52365, 6379, 10001}
        assert {int(address.rpartition(":")[2]) for address in (dashboard, told)} <= ports
        folder = find_folder(mark)
        assert folder is not None
        assert os.path.isdir(folder.temp_dir)
        process.send_signal(ended_by)
        process.wait(timeout=60)
    finally:
        process.kill()
        process.communicate()
    if ended_by == signal.SIGKILL:
        while marked(mark):
            time.sleep(0.1)
        make_folder().remove()  # the next start
    else:
        assert process.returncode == 128 + ended_by
    assert find_folder(mark) is None
