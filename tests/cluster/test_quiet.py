"""Of what Ray writes, the terminal shows what went wrong, and not what only reads as if something had."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from running import HANGS_S

from cluster.quiet import _standard_error_without

RUN = """
import os, signal, sys, time
from cluster.environment import prepare_environment
prepare_environment()
from cluster.connection import start_or_join
start_or_join(num_cpus=2, object_store_bytes=80_000_000)
import ray

class Actor:
    def __init__(self, value): pass
    def ready(self): return True

def restartable():  # as the actors of Ray Data and Ray Train
    actor = ray.remote(num_cpus=0.1, max_restarts=-1)(Actor).remote(ray.put([1]))
    return ray.get(actor.ready.remote())

def die():
    print("last words", file=sys.stderr, flush=True)
    time.sleep(1)
    os.kill(os.getpid(), signal.SIGKILL)

restartable()
ray.get(ray.remote(num_cpus=0.1)(restartable).remote())
try:
    ray.get(ray.remote(num_cpus=0.1, max_retries=0)(die).remote())
except ray.exceptions.WorkerCrashedError:
    time.sleep(2)
    print("CRASHED")
"""


@pytest.mark.ray
def test_rays_own_habits_are_not_told_and_a_worker_that_dies_is() -> None:
    done = subprocess.run([sys.executable, "-c", RUN], capture_output=True, text=True, timeout=HANGS_S, check=False)
    assert done.stdout.endswith("CRASHED\n"), done.stderr
    assert "last words" in done.stderr
    assert "A worker died or was killed" in done.stdout
    assert "constructor arguments" not in done.stdout + done.stderr
    assert "logging.cc" not in done.stderr


@pytest.mark.unit
def test_what_else_is_written_meanwhile_comes_after(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(KeyError), _standard_error_without(("a habit",)):
        os.write(2, b"some error\nthis is a habit of it\n")
        os.write(2, b"one more\n")
        raise KeyError
    os.write(2, b"last\n")
    assert capfd.readouterr().err == "some error\none more\nlast\n"
