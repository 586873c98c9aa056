"""Several gloo processes on this machine, for tests of what workers compute together."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from ports import free_port
from torch.multiprocessing.spawn import start_processes


def run_workers(function: Callable[..., None], world_size: int, folder: Path, *arguments: Any) -> None:
    """Run ``function(rank, group, folder, *arguments)`` in the processes of a group; results go to the folder."""
    address = f"tcp://127.0.0.1:{free_port()}"
    start_processes(  # type: ignore[no-untyped-call]
        _worker, (function, world_size, address, folder, arguments), nprocs=world_size, start_method="spawn"
    )


def _worker(
    rank: int, function: Callable[..., None], world_size: int, address: str, folder: Path, arguments: tuple[Any, ...]
) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=address, rank=rank, world_size=world_size)
    function(rank, dist.group.WORLD, folder, *arguments)
    dist.barrier()
    # The process group's threads would outlive it at the interpreter's end, and now and then abort the process.
    sys.stdout.flush()
    os._exit(0)
