"""The process group of Train workers, on the interface that Ray uses.

torch has the workers meet in a TCPStore, which listens on all interfaces and asks for no token. Where Ray is on the
loopback, rank 0 gives the store a socket that listens there, and gloo and NCCL take that interface.

On a cluster gloo takes the interface of the node's address. By itself it takes the address of the machine's name, which
on many machines is 127.0.1.1 or 127.0.0.1 (/etc/hosts): workers of several nodes then do not find each other.
"""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import psutil
import ray
import torch.distributed as dist
from ray.train.torch import TorchConfig
from ray.train.torch.config import _set_torch_distributed_env_vars, _TorchBackend
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from cluster.environment import LOOPBACK, is_loopback

_hosted: list[TCPStore] = []
"""Rank 0's store: it serves the others for as long as it is kept."""


@dataclass
class ProcessGroupConfig(TorchConfig):
    """Ray Train's configuration of torch, with a group that listens where Ray does."""

    @property
    def backend_cls(self) -> type[_TorchBackend]:
        """What Ray Train sets the group up with."""
        return _Backend


class _Backend(_TorchBackend):
    def on_start(self, worker_group: Any, backend_config: Any) -> None:
        port = worker_group.execute_single(0, _host_store, len(worker_group))
        if port is None:
            worker_group.execute(_choose_interface)
            super().on_start(worker_group, backend_config)
            return
        worker_group.execute(_set_torch_distributed_env_vars)
        joining = [
            worker_group.execute_single_async(rank, _join, backend_config, port, rank, len(worker_group))
            for rank in range(len(worker_group))
        ]
        ray.get(joining)


def interface_of(address: str) -> str | None:
    """The name of the network interface that has an address; None where none has it."""
    everything = psutil.net_if_addrs().items()
    return next((name for name, found in everything if any(one.address == address for one in found)), None)


def _choose_interface() -> None:
    """Have gloo take the interface of this worker's node; what is set for the node stays."""
    interface = interface_of(ray.util.get_node_ip_address())  # type: ignore[no-untyped-call]
    if interface is not None:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", interface)


def _host_store(num_workers: int) -> int | None:
    """Have this worker serve the store on the loopback; None where Ray is not there alone."""
    if not is_loopback(ray.util.get_node_ip_address()):  # type: ignore[no-untyped-call]
        return None
    listener = socket.create_server((LOOPBACK, 0))
    port = int(listener.getsockname()[1])
    _hosted[:] = [
        TCPStore(
            LOOPBACK, port, num_workers, is_master=True, wait_for_workers=False, master_listen_fd=listener.detach()
        )
    ]
    return port


def _join(config: ProcessGroupConfig, port: int, rank: int, num_workers: int) -> None:
    interface = interface_of(LOOPBACK)
    assert interface is not None
    os.environ.update(GLOO_SOCKET_IFNAME=interface, NCCL_SOCKET_IFNAME=interface)
    timeout = timedelta(seconds=config.timeout_s)
    dist.init_process_group(
        config.backend,
        store=TCPStore(LOOPBACK, port, num_workers, is_master=False, timeout=timeout),
        rank=rank,
        world_size=num_workers,
        timeout=timeout,
    )
