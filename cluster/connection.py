"""``start_or_join``: a Ray of our own on this machine's loopback, or the cluster that RAY_ADDRESS names."""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from cluster import environment
from cluster.address import checked_address
from cluster.environment import MARK_VARIABLE
from cluster.folders import RayFolder, make_folder, private_root
from cluster.ports import free_ports
from cluster.processes import end_marked
from cluster.quiet import hide_harmless_lines, quiet_core
from cluster.watch import Watch, watch_joined, watch_own
from protclip.errors import ConfigError

STARTING_S = 8.0
"""For the processes of a Ray of our own to be started."""
MAX_LOG_CHARS = 200
"""Of a line of Ray's logs that is told."""

_started = contextlib.ExitStack()
"""What ends the processes of the Ray that this process started, and removes its folder."""
_starting = threading.Lock()
"""Held while processes and folders of a Ray of our own come into being."""
_watch: list[Watch] = []
"""Of the Ray that this process uses, once it is there."""


def start_or_join(
    *,
    num_cpus: int | None = None,
    object_store_bytes: int | None = None,
    state_service: bool = False,
    before_start: Callable[[Path], object] | None = None,
) -> None:
    """Join the cluster of RAY_ADDRESS, or start a Ray for this process; a Ray already initialised is left as it is.

    Args:
        num_cpus: logical CPUs of a Ray that is started here; None for the machine's cores.
        object_store_bytes: shared memory of a Ray that is started here; None for Ray's own choice.
        state_service: whether workers ask for the state of others, as Ray Train's do. A Ray that is started here then
            has a dashboard, on a port of its own. Workers are told the address: on a machine with several Rays they
            would not find it.
        before_start: called with the private folder of a Ray that is started here, before it starts.

    Raises:
        ConfigError: if the cluster does not answer, or does not take us.
    """
    import ray

    if ray.is_initialized():
        return
    environment.auth_mode()  # refuses what is none
    # Ray puts the working directory first on its workers' import path, and a file of the user's there may have the
    # name of any module.
    with contextlib.chdir(private_root()):
        if named := environment.address():
            address = checked_address(named)
        else:
            with _starting:
                address = _start(num_cpus, object_store_bytes, dashboard=state_service, before_start=before_start)
        try:
            with quiet_core():
                ray.init(
                    address=address,
                    runtime_env={"env_vars": _of_workers(address)} if state_service else None,
                    logging_level=logging.WARNING,
                    log_to_driver=True,
                )
        except (ConnectionError, RuntimeError, TimeoutError) as error:
            leave()
            raise ConfigError(f"the Ray at {address} does not take this process: {_lines(error)[0]}") from error
    hide_harmless_lines()
    if named:
        _watch[:] = [watch_joined(address, ray._private.worker._global_node.raylet_socket_name)]  # type: ignore[attr-defined]
    if threading.current_thread() is threading.main_thread():
        # Ray's handler aborts the process, which leaves its folder behind.
        signal.signal(signal.SIGTERM, _exit)
    require_worker()


def join_next(folder: RayFolder, address: str) -> None:
    """Have ``start_or_join`` join a Ray of our own that another process has started; call it before Ray is imported.

    Args:
        folder: of that Ray.
        address: of its GCS.
    """
    os.environ.pop(environment.AUTH_TOKEN, None)
    os.environ[environment.AUTH_TOKEN_PATH] = folder.token_path
    os.environ[environment.ADDRESS] = address


def require_worker(timeout_s: float = 60.0) -> None:
    """Wait until a worker has started and found our packages: Ray starts those that fail again and again, in silence.

    Args:
        timeout_s: how long it may take; Ray gives a worker as long.

    Raises:
        ConfigError: if none did, with the last that Ray's logs say; Ray is left.
    """
    import ray
    from ray.exceptions import GetTimeoutError, RayError

    try:
        ray.get(ray.remote(num_cpus=0, max_retries=0)(_nothing).remote(), timeout=timeout_s)
        return
    except GetTimeoutError as error:
        cause: Exception = error
        problem = f"no worker of Ray started within {timeout_s:.0f} s{_last_words()}"
    except RayError as error:
        cause = error
        problem = f"Ray's workers cannot run protclip ({_lines(error)[-1]})"
    leave()
    raise ConfigError(
        f"{problem}. Every node needs protclip with its dependencies, and nothing on PYTHONPATH that hides them."
    ) from cause


def leave(*, exiting: bool = False) -> None:
    """End the Ray that this process started, with its folder, or leave the cluster that it joined.

    Args:
        exiting: whether the interpreter ends, so that Ray shows what workers said last.
    """
    import ray

    _watch.clear()
    ray.shutdown(_exiting_interpreter=exiting)
    _started.close()


def abandon() -> None:
    """End the processes of the Ray that this process started, and remove its folder, without a word to Ray.

    For where Ray is dead or must not be waited for. End the process right after it: no other Ray starts in it, and
    Ray's threads would abort it.
    """
    _starting.acquire(timeout=STARTING_S)  # what is only being started could not be found
    _started.close()


def lost() -> str | None:
    """What has died of the Ray that this process started or joined, in words; None while all is well."""
    return next((found for watch in tuple(_watch) if (found := watch()) is not None), None)


def _of_workers(address: str) -> dict[str, str]:
    """Variables for workers: those of other nodes have nothing else from this process."""
    torch = {name: level for name in ("TORCH_CPP_LOG_LEVEL",) if (level := environment.setting(name)) is not None}
    return {environment.ADDRESS: address, **torch}


def _exit(number: int, _frame: FrameType | None) -> None:
    sys.exit(128 + number)


def _nothing() -> None:
    """What a worker imports this module for."""


def _last_words() -> str:
    """The last line that a process of this Ray wrote to its standard error, in parentheses."""
    import ray

    folder = Path(ray._private.worker._global_node.get_logs_dir_path())  # type: ignore[attr-defined]
    for path in sorted(folder.glob("*.err"), key=lambda path: path.stat().st_mtime, reverse=True):
        if lines := path.read_text(errors="replace").strip().splitlines():
            return f" ({path.name} ends: {lines[-1][:MAX_LOG_CHARS]})"
    return ""


def _lines(error: Exception) -> list[str]:
    """What an exception says, at least its name."""
    return str(error).strip().splitlines() or [type(error).__name__]


def _start(
    num_cpus: int | None,
    object_store_bytes: int | None,
    *,
    dashboard: bool,
    before_start: Callable[[Path], object] | None,
) -> str:
    """Start a Ray and return its address.

    ``ray.init`` would take the same ports for each: 8265 of the dashboard, 52365 of its agent.
    """
    from ray._private import ray_constants
    from ray._private.node import Node
    from ray._private.parameter import RayParams
    from ray._raylet import AuthenticationTokenLoader  # type: ignore[attr-defined]

    assert not ray_constants.ENABLE_RAY_CLUSTER, "prepare_environment comes before the import of Ray"
    folder = make_folder()
    _started.callback(folder.remove)
    _started.callback(end_marked, folder.name)
    atexit.register(leave, exiting=True)
    os.environ[MARK_VARIABLE] = folder.name
    os.environ.pop(environment.AUTH_TOKEN, None)
    os.environ[environment.AUTH_TOKEN_PATH] = folder.token_path
    AuthenticationTokenLoader.instance().reset_cache()
    if before_start is not None:
        before_start(folder.path)
    (dashboard_port,) = free_ports(1)
    settings = RayParams(
        num_cpus=num_cpus,
        object_store_memory=object_store_bytes,
        temp_dir=folder.temp_dir,
        include_dashboard=dashboard,
        dashboard_port=dashboard_port,  # type: ignore[arg-type]
        dashboard_agent_listen_port=0,
    )
    try:
        # The reaper ends all of it if this process is killed; otherwise we do.
        node = Node(settings, head=True, shutdown_at_exit=False, spawn_reaper=True)
    except Exception as error:
        leave()
        raise ConfigError(f"Ray does not start on this machine: {_lines(error)[0]}") from error
    _watch[:] = [watch_own(node)]
    return str(node.gcs_address)
