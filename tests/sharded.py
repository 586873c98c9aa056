"""A sharded application on this session's Ray: its processes, and what its gateway knows of them."""

from __future__ import annotations

import contextlib
import re

import psutil
import requests


def replicas(app: str, deployment: str) -> list[psutil.Process]:
    """The processes of a deployment's replicas."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error, IndexError):
            if f"ServeReplica:{app}:{deployment}" in process.cmdline()[0]:
                found.append(process)
    return found


def num_up(url: str) -> dict[str, int]:
    """Replicas of each part to which the gateway sends requests: of ``encoder``, ``shard-0`` …"""
    text = requests.get(f"{url}/metrics", timeout=60).text
    return {part: int(count) for part, count in re.findall(r'protclip_replicas_up\{part="(.+?)"\} (\d+)', text)}
