"""How a batch command connects to Ray, and what a path means inside a submitted job.

A command joins the cluster that RAY_ADDRESS names, which ``ray job submit`` sets for what it starts. Otherwise it
starts a Ray of its own on this machine, never joining another that happens to run there; see ``cluster``.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from functools import partial

from protclip import files
from protclip.errors import ConfigError
from protclip.terminal import echo

JOB_CONFIG_VARIABLE = "RAY_JOB_CONFIG_JSON_ENV_VAR"
"""Ray's job supervisor sets it, with the submission id in its metadata, for the driver of a submitted job."""

WATCH_S = 0.5
"""Between two looks at whether Ray lives."""

_ends_with_ray = threading.Event()
"""Whether this process is a command's, and ends when its Ray dies."""
_watching = threading.Lock()
"""Taken for good by the thread that looks."""


def end_with_ray() -> None:
    """Have ``connect`` see to it that this process ends with status 1 when its Ray dies, and says what died.

    Ray itself would wait for minutes, and then abort the process. For commands: a process of somebody else is not
    ended.
    """
    _ends_with_ray.set()


def connect(num_cpus: int | None = None, *, state_service: bool = False) -> None:
    """Join the cluster of RAY_ADDRESS, or start a Ray of this process; a Ray already initialised is left as it is.

    Args:
        num_cpus: logical CPUs of a Ray that is started here; None for the machine's cores. A Train worker
            reserves one each, and Ray Data needs some beside them.
        state_service: whether workers ask for the state of others, as Ray Train's do.

    Raises:
        ConfigError: if the cluster does not answer, or does not take us.
    """
    from cluster.connection import start_or_join

    start_or_join(num_cpus=num_cpus, state_service=state_service)
    if _ends_with_ray.is_set() and _watching.acquire(blocking=False):
        _watch_ray()
    tame_ray_data()


def _watch_ray() -> None:
    """From now on see to it that this process ends when its Ray dies, and says so."""
    import ray

    from cluster.connection import abandon, lost
    from cluster.last_words import on_silent_end
    from cluster.watch import raylet_with

    advice = "give the same command again: it goes on with what is done."
    raylet = raylet_with(ray._private.worker._global_node.raylet_socket_name)  # type: ignore[attr-defined]
    say: Callable[[str], None] = partial(echo, err=True)
    if raylet is not None:
        line = f"ConfigError: the run ends, for the raylet of this machine has died, or an agent of it; {advice}"
        say = on_silent_end(raylet, line)

    def watch() -> None:
        while (died := lost()) is None:
            time.sleep(WATCH_S)
        say(f"ConfigError: the run ends, for {died}; {advice}")
        abandon()  # the calls that wait for Ray cannot be interrupted
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(1)

    threading.Thread(target=watch, name="watch", daemon=True).start()


def tame_ray_data() -> None:
    """Settings of Ray Data in this process: the fast reader, and no word where nothing is wrong."""
    from ray.data import DataContext

    context = DataContext.get_current()
    # The second parquet reader took 5 to 17 s to a first batch, the first one 0.2 s (Ray 2.60).
    context.use_datasource_v2 = False
    context.print_on_execution_start = False
    context.enable_progress_bars = False
    # Two lines of each execution that are no warnings; what goes wrong is still shown.
    logging.getLogger("ray.data._internal.progress").setLevel(logging.ERROR)
    logging.getLogger("ray.data._internal.execution.streaming_executor").setLevel(logging.WARNING)
    # On a busy machine it warns of calls that it makes again in seconds.
    coordinator = "ray.data._internal.cluster_autoscaler.default_autoscaling_coordinator"
    logging.getLogger(coordinator).addFilter(_keep_from_terminal)


def _keep_from_terminal(record: logging.LogRecord) -> bool:
    """What Ray Data's filter of the terminal goes by; its log file has the record still."""
    record.hide = record.levelno < logging.ERROR
    return True


def resolve_output(path: str) -> str:
    """The output's absolute path or URL.

    Raises:
        ConfigError: for a relative path inside a submitted job.
    """
    return _resolved(path, "output", "that would land in Ray's session folder")


def resolve_input(path: str) -> str:
    """The absolute path or URL of what workers will read, which run in other folders.

    Raises:
        ConfigError: for a relative path inside a submitted job.
    """
    return _resolved(path, "input", "that would be looked for in Ray's session folder")


def _resolved(path: str, what: str, consequence: str) -> str:
    if submission_id() is not None and not files.is_absolute(path):
        raise ConfigError(
            f"{what} {path!r} is relative, and inside a submitted job {consequence}; give an absolute path or a URL."
        )
    return files.absolute(path)


def submission_id() -> str | None:
    """The id of the submitted job whose driver this process is; None outside of one."""
    config = json.loads(os.environ.get(JOB_CONFIG_VARIABLE) or "{}")
    name = (config.get("metadata") or {}).get("job_submission_id")
    return None if name is None else str(name)
