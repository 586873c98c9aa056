"""Processes that train together, started by Ray Train."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from cluster import environment
from protclip import files
from protclip.errors import ConfigError, ProtclipError
from protclip.terminal import echo
from ray_jobs.cluster import connect

if TYPE_CHECKING:
    from protclip.config import WorkersConfig

RAY_FOLDER = "ray"
"""What Ray Train keeps of a run, in its folder."""


def make_room(workers: WorkersConfig, *, cpus_beside: float = 0.0) -> None:
    """Connect to Ray, and look whether it has room for so many workers.

    Args:
        workers: their number, and what each reserves.
        cpus_beside: logical CPUs that each needs beside its own.

    Raises:
        ConfigError: if this machine has too little for them. On a cluster nodes may join; a line says what is missing.
    """
    import ray

    cpus = workers.num * (workers.resources.get("CPU", 1.0) + cpus_beside)
    # Ray Train would write what a worker prints to its own log too, and show it twice.
    os.environ.setdefault("RAY_TRAIN_ENABLE_PRINT_PATCH", "0")
    # Ray Train asks the dashboard's state service whether the run is still alive.
    connect(num_cpus=max(os.cpu_count() or 1, math.ceil(cpus)), state_service=True)
    needed = {"CPU": cpus, "GPU": float(workers.num * workers.use_gpu)}
    available = ray.cluster_resources()  # type: ignore[no-untyped-call]
    if lacking := {name: n for name, n in needed.items() if n > available.get(name, 0.0)}:
        found = ", ".join(f"{name} {available.get(name, 0.0):g} of {n:g}" for name, n in lacking.items())
        if environment.address() is None:
            raise ConfigError(f"this machine has too little for workers.num={workers.num}: {found}.")
        echo(f"the cluster has {found} now; waiting for nodes to join")


def train_together(
    function: Callable[[dict[str, Any]], str | None],
    job: Any,
    workers: WorkersConfig,
    *,
    run_dir: str,
    max_failures: int,
) -> None:
    """Call a function in each worker, all of them one process group; started again when one of them dies.

    Args:
        function: gets ``{"job": job}``; returns why the run has to end, or None when it is finished.
        job: what it is told.
        workers: their number, and what each reserves; ``make_room`` has looked for it.
        run_dir: of the run, a path or URL.
        max_failures: so often they are started again, at most.

    Raises:
        ProtclipError: why the run has to end.
    """
    from ray.train import FailureConfig, LoggingConfig, RunConfig, ScalingConfig, TrainingFailedError
    from ray.train.torch import TorchTrainer

    from ray_jobs.process_group import ProcessGroupConfig

    storage, filesystem = run_dir, None
    if files.is_url(run_dir):
        from pyarrow.fs import FSSpecHandler, PyFileSystem

        fs, storage = files.filesystem(storage)
        filesystem = PyFileSystem(FSSpecHandler(fs))
    train_function: Any = function  # Ray's annotation knows no return value
    trainer = TorchTrainer(
        train_function,
        train_loop_config={"job": job},
        torch_config=ProcessGroupConfig(backend="nccl" if workers.use_gpu else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=workers.num if workers.min is None else (workers.min, workers.num),  # type: ignore[arg-type]
            use_gpu=workers.use_gpu,
            resources_per_worker=workers.resources,
        ),
        run_config=RunConfig(  # type: ignore[call-arg]  # mypy sees the class of Ray Train V1
            name=RAY_FOLDER,
            storage_path=storage or "/",
            storage_filesystem=filesystem,
            # Its warnings are of calls that it makes again; all of them are in Ray's logs.
            logging_config=LoggingConfig(log_level="ERROR"),
            failure_config=FailureConfig(max_failures=max_failures),
        ),
    )
    try:
        result: Any = trainer.fit()
    except TrainingFailedError as error:
        causes = getattr(error, "worker_failures", {}).values()
        if ours := [cause for cause in causes if isinstance(cause, ProtclipError)]:
            raise ours[0] from error
        raise
    if result.return_value is not None:
        raise ProtclipError(result.return_value)
