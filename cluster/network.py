"""Hosts on one machine: Linux network namespaces, each with a link to a bridge.

The bridge has a namespace of its own. So nothing of it touches the machine's own network: its addresses, routes and
firewall do not matter, no address can be in use already, and with the namespaces everything is gone. Hosts reach each
other and nothing else.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

from protclip.errors import ConfigError

BRIDGE = "bridge0"
LINK = "eth0"
"""A host's own end of its link; the other end lies at the bridge, and has the host's name."""
END_S = 10.0
"""For processes to end after SIGKILL."""

_RATE = re.compile(r"(\d+)(kbit|mbit|gbit)")
_DELAY = re.compile(r"\d+ms")
_UNITS = {"kbit": 10**3, "mbit": 10**6, "gbit": 10**9}
_MIN_BURST_BYTES = 32_768
_BURSTS_PER_S = 100


def check_possible() -> None:
    """Raise ConfigError where no namespaces can be made; with what is missing."""
    what = "several hosts on one machine"
    if sys.platform != "linux":
        raise ConfigError(f"{what} need Linux's network namespaces; this is {sys.platform}.")
    if os.geteuid() != 0:
        raise ConfigError(f"{what} need root, for network namespaces; run it as root, or with sudo.")
    for tool in ("ip", "tc"):
        if shutil.which(tool) is None:
            raise ConfigError(f"{what} need the command `{tool}`; install iproute2 (apt install iproute2).")
    probe = f"pc-probe-{os.getpid()}"
    try:
        _call("ip", "netns", "add", probe)
        _call("ip", "-n", probe, "link", "add", "name", LINK, "type", "veth", "peer", "name", BRIDGE)
    except ConfigError as error:
        raise ConfigError(
            f"{what} need network namespaces and veth links, which this kernel or container does not allow ({error}); "
            "in a container, run it with --privileged."
        ) from error
    finally:
        if probe in namespaces(probe):
            _call("ip", "netns", "delete", probe)


def namespaces(prefix: str) -> list[str]:
    """Names of those that begin so."""
    # A name alone, or followed by its number in parentheses.
    listed = [line.split()[0] for line in _call("ip", "netns", "list").splitlines()]
    return sorted(name for name in listed if name.startswith(prefix))


def add_switch(namespace: str) -> None:
    """A namespace with the bridge."""
    _call("ip", "netns", "add", namespace)
    _call("ip", "-n", namespace, "link", "add", "name", BRIDGE, "type", "bridge")
    _call("ip", "-n", namespace, "link", "set", BRIDGE, "up")


def add_host(namespace: str, *, switch: str, name: str, address: str) -> None:
    """A namespace with an address, linked to the bridge.

    Args:
        namespace: of the host.
        switch: the bridge's namespace.
        name: of the link's end there.
        address: with the length of the network's prefix.
    """
    _call("ip", "netns", "add", namespace)
    _call("ip", "-n", switch, "link", "add", "name", name, "type", "veth", "peer", "name", LINK, "netns", namespace)
    _call("ip", "-n", switch, "link", "set", name, "master", BRIDGE, "up")
    _call("ip", "-n", namespace, "address", "add", address, "dev", LINK)
    _call("ip", "-n", namespace, "link", "set", LINK, "up")
    _call("ip", "-n", namespace, "link", "set", "lo", "up")


def inside(namespace: str, command: Sequence[str]) -> list[str]:
    """The command that runs a command in a namespace."""
    return ["ip", "netns", "exec", namespace, *command]


def processes(namespace: str) -> list[int]:
    """The ids of all processes in a namespace."""
    return [int(pid) for pid in _call("ip", "netns", "pids", namespace).split()]


def end_processes(namespace: str) -> None:
    """SIGKILL to all processes in a namespace, until there are none.

    Raises:
        ConfigError: if some do not end.
    """
    deadline = time.monotonic() + END_S
    while left := processes(namespace):
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if time.monotonic() > deadline:
            raise ConfigError(f"processes {left} in the network namespace {namespace} do not end.")
        time.sleep(0.02)


def remove(namespace: str) -> None:
    """End a namespace's processes, and remove it with its links."""
    end_processes(namespace)
    _call("ip", "netns", "delete", namespace)


def set_link(switch: str, name: str, state: str) -> None:
    """Set a host's link ``up`` or ``down``, at the bridge: what the host sends is lost, as with a pulled cable."""
    _call("ip", "-n", switch, "link", "set", name, state)


def link_state(switch: str, name: str) -> str:
    """``up`` or ``cut``."""
    (link,) = json.loads(_call("ip", "-n", switch, "-j", "link", "show", name))
    return "up" if "UP" in link["flags"] else "cut"


def limit_link(host: str, *, switch: str, name: str, rate: str | None, delay: str | None) -> None:
    """Limit a host's link, the same in both directions; None and None lift all limits.

    Args:
        host: the host's namespace.
        switch: the bridge's namespace.
        name: the host's name.
        rate: such as 10mbit.
        delay: such as 20ms, of each direction; needs a kernel with netem.

    Raises:
        ConfigError: for another form of rate or delay, and where the kernel has no netem; the link is then as before.
    """
    discipline = queue_discipline(rate, delay)
    for namespace, device in ((host, LINK), (switch, name)):
        if discipline:
            try:
                _call("tc", "-n", namespace, "qdisc", "replace", "dev", device, "root", *discipline)
            except ConfigError as error:
                if discipline[0] == "netem":
                    raise ConfigError(f"this kernel delays no links, it has no netem ({error}).") from error
                raise
        elif _limits(namespace, device):
            _call("tc", "-n", namespace, "qdisc", "delete", "dev", device, "root")


def link_limit(switch: str, name: str) -> str:
    """The limit of a host's link, in tc's words; empty where there is none."""
    return " ".join(_limits(switch, name))


def queue_discipline(rate: str | None, delay: str | None) -> list[str]:
    """tc's words for a limit; none where there is no limit.

    Raises:
        ConfigError: for another form of rate or delay.
    """
    found = _RATE.fullmatch(rate or "0kbit")
    if found is None or (rate is not None and int(found[1]) == 0):
        raise ConfigError(f"rate {rate!r}; allowed are such as 500kbit, 10mbit and 1gbit.")
    if delay is not None and not _DELAY.fullmatch(delay):
        raise ConfigError(f"delay {delay!r}; allowed are such as 20ms.")
    if delay is not None:
        return ["netem", "delay", delay, *(["rate", rate] if rate is not None else [])]
    if rate is None:
        return []
    bits_per_s = int(found[1]) * _UNITS[found[2]]
    # Too small a burst, and a fast link does not reach its rate.
    burst = max(_MIN_BURST_BYTES, bits_per_s // 8 // _BURSTS_PER_S)
    return ["tbf", "rate", rate, "burst", str(burst), "latency", "400ms"]


def _limits(namespace: str, device: str) -> list[str]:
    """Of the words after ``qdisc``, those that say kind, rate and delay; none where nothing is limited."""
    words = _call("tc", "-n", namespace, "qdisc", "show", "dev", device).split()
    if len(words) < 2 or words[1] not in ("tbf", "netem"):
        return []
    named: list[Any] = [words[words.index(name) + 1] for name in ("rate", "delay") if name in words]
    return [words[1], *named]


def _call(*command: str) -> str:
    """Run a command of iproute2 and return what it prints.

    Raises:
        ConfigError: if it fails, with what it says.
    """
    done = subprocess.run(command, check=False, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        said = " ".join(done.stderr.split()) or f"status {done.returncode}"
        raise ConfigError(f"`{' '.join(command)}` fails: {said}")
    return done.stdout
