"""How a command finds or starts Ray, and what a path means inside a submitted job.

A command joins the cluster that RAY_ADDRESS names, which ``ray job submit`` sets for what it starts. Otherwise it
starts a Ray of its own on this machine, never joining another that happens to run there, with a token of its own, so
that nothing in the home folder is read or written.
"""

from __future__ import annotations

import atexit
import json
import logging
import os
import secrets
import shutil
import tempfile
from pathlib import Path

from protclip import files
from protclip.errors import ConfigError

JOB_CONFIG_VARIABLE = "RAY_JOB_CONFIG_JSON_ENV_VAR"
"""Ray's job supervisor sets it, with the submission id in its metadata, for the driver of a submitted job."""


def prepare_environment() -> None:
    """Set the environment of this process and its children for a Ray of its own; call it before Ray is imported.

    What is already set stays. With RAY_ADDRESS set, tokens are that cluster's affair and are left alone.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_DATA_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # DDP warns of find_unused_parameters, which we mean
    if "RAY_ADDRESS" in os.environ or "RAY_AUTH_MODE" in os.environ:
        return
    os.environ["RAY_AUTH_MODE"] = "token"
    if "RAY_AUTH_TOKEN" not in os.environ and "RAY_AUTH_TOKEN_PATH" not in os.environ:
        os.environ["RAY_AUTH_TOKEN_PATH"] = str(_write_token())


def connect(num_cpus: int | None = None, *, state_service: bool = False) -> None:
    """Join the cluster of RAY_ADDRESS, or start a Ray of this process; a Ray already initialised is left as it is.

    Args:
        num_cpus: logical CPUs of a Ray that is started here; None for the machine's cores. A Train worker
            reserves one each, and Ray Data needs some beside them.
        state_service: whether workers ask for the state of others, as Ray Train's do. A Ray that is started here then
            has a dashboard, and workers of a joined one are told its address, which is not the only one on a machine
            with several.
    """
    import ray

    if not ray.is_initialized():
        address = os.environ.get("RAY_ADDRESS")
        ray.init(
            address=address or "local",
            # A cluster that is joined has its own CPUs, and Ray refuses the argument.
            num_cpus=None if address else num_cpus,
            include_dashboard=None if address else state_service,
            runtime_env={"env_vars": {"RAY_ADDRESS": address}} if address and state_service else None,
            logging_level=logging.WARNING,
            log_to_driver=True,
        )
    tame_ray_data()


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


def _write_token() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="protclip-token-"))  # mkdtemp makes it 0700
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    path = folder / "token"
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as stream:
        stream.write(secrets.token_hex(32))
    return path
