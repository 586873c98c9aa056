"""One run at a time in an output folder: a later one is told which run is at work there.

On a disk the kernel keeps the lock (flock), and takes it back when the process ends, however that ends. An object store
has no locks, and neither have some disks of clusters: there a run writes a record and renews it every RENEWED_S. The
record is dead when this machine no longer has its process, or when it was not renewed for LOST_S.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import threading
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from fsspec.implementations.local import LocalFileSystem

from protclip import files
from protclip.checked import Size, Time, checked
from protclip.errors import ConfigError, DataError

FILE_NAME = ".running.json"
"""In the output folder while a run is at work there."""
RENEWED_S = 30
LOST_S = 120
"""The clocks of two machines may differ by less than this."""

_held: set[str] = set()
"""Ids of this process's runs: in a container that was started again, another run may have had its number."""


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _processes() -> str:
    """A mark of the processes that this one can see: containers with one host name have different ones."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:  # not Linux
        return ""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Run:
    """The record of a run."""

    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    host: str = field(default_factory=socket.gethostname)
    processes: str = field(default_factory=_processes)
    pid: Size = field(default_factory=os.getpid)
    since: Time = field(default_factory=_now)
    renewed: Time = field(default_factory=_now)

    @property
    def lost_at(self) -> datetime:
        return datetime.fromisoformat(self.renewed) + timedelta(seconds=LOST_S)

    def is_here(self) -> bool:
        return (self.host, self.processes) == (socket.gethostname(), _processes())

    def is_alive(self) -> bool:
        if datetime.now(UTC) > self.lost_at:
            return False
        if not self.is_here():
            return True
        return self.id in _held if self.pid == os.getpid() else _is_process(self.pid)


@contextlib.contextmanager
def occupied(folder: str) -> Iterator[None]:
    """Keep other runs out of an output folder, which is made where it is missing.

    Args:
        folder: path or URL.

    Raises:
        ConfigError: if another run is at work there, or nothing can be written there.
    """
    fs, inner = files.filesystem(folder)
    is_local = isinstance(fs, LocalFileSystem)
    is_new = is_local and not os.path.exists(inner)
    files.make_folder(folder)
    run = _Run()
    try:
        with contextlib.ExitStack() as stack:
            if not (is_local and _lock(folder, Path(inner, FILE_NAME), run, stack)):
                _record(folder, run, stack)
            yield
    finally:
        if is_new:
            with contextlib.suppress(OSError):  # it holds something by now
                os.rmdir(inner)


@dataclass(frozen=True, kw_only=True, slots=True)
class AtWork:
    """A run that is at work in a folder."""

    host: str
    pid: int
    since: str
    """ISO 8601, UTC."""


def at_work(folder: str) -> AtWork | None:
    """The run that is at work in a folder, as far as can be told from here; None where there is none.

    Args:
        folder: path or URL.
    """
    run = _read(folder)
    if run is None or not _is_held(folder, run):
        return None
    return AtWork(host=run.host, pid=run.pid, since=run.since)


def _is_held(folder: str, run: _Run) -> bool:
    """Whether the run of a record lives; its file's lock tells where there are locks."""
    fs, inner = files.filesystem(folder)
    if not isinstance(fs, LocalFileSystem):
        return run.is_alive()
    if run.is_here() and not _is_process(run.pid):
        return False
    try:
        with Path(inner, FILE_NAME).open("rb") as stream:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:  # it has ended meanwhile
        return False
    except OSError:  # a disk without locks, where the record is renewed
        return run.is_alive()
    return False


def _lock(folder: str, path: Path, run: _Run, stack: contextlib.ExitStack) -> bool:
    """Take the lock of a file until the stack is closed; False where the disk has no locks."""
    while True:
        with files.telling_what_cannot_be_written(folder):
            stream = path.open("a+b")
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            with stream:
                raise _refusal(folder, _read(folder)) from None
        except OSError:
            stream.close()
            return False
        if path.exists() and os.path.samestat(path.stat(), os.fstat(stream.fileno())):
            break
        stream.close()  # the run that had it removed it meanwhile
    stack.enter_context(stream)
    stack.callback(path.unlink, missing_ok=True)  # still locked
    with files.telling_what_cannot_be_written(folder):
        stream.truncate(0)
        stream.write(json.dumps(asdict(run)).encode())
        stream.flush()
    return True


def _record(folder: str, run: _Run, stack: contextlib.ExitStack) -> None:
    """Write the record of a run and renew it until the stack is closed."""
    other = _read(folder)
    if other is not None and other.is_alive():
        raise _refusal(folder, other)
    path = files.join(folder, FILE_NAME)
    files.write_json(path, asdict(run))
    winner = _read(folder)  # of two that began at the same moment
    if winner is not None and winner.id != run.id:
        raise _refusal(folder, winner)
    _held.add(run.id)
    ended = threading.Event()
    renewing = threading.Thread(target=_renew, args=(folder, run, ended), daemon=True)
    renewing.start()

    def end() -> None:
        ended.set()
        renewing.join()
        _held.discard(run.id)
        with contextlib.suppress(Exception):  # a store that is out of reach; the record will be dead soon
            if (last := _read(folder)) is not None and last.id == run.id:
                files.remove(path)

    stack.callback(end)


def _renew(folder: str, run: _Run, ended: threading.Event) -> None:
    while not ended.wait(RENEWED_S):
        with contextlib.suppress(Exception):  # a store that is out of reach is asked again
            if (last := _read(folder)) is not None and last.id != run.id:
                return
            files.write_json(files.join(folder, FILE_NAME), asdict(replace(run, renewed=_now())))


def _read(folder: str) -> _Run | None:
    """The record of the run at work; None where there is none that can be understood."""
    path = files.join(folder, FILE_NAME)
    try:
        run = checked(_Run, files.read_json(path), path)
        _ = run.lost_at.astimezone(UTC)
    except (DataError, FileNotFoundError, OverflowError):
        return None
    return run


def _is_process(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        return True
    return True


def _refusal(folder: str, run: _Run | None) -> ConfigError:
    who, until = "", ""
    if run is not None:
        who = f" (host {run.host}, process {run.pid}, since {run.since})"
        until = "" if run.is_here() else f"; should that host be lost, the folder is free at {run.lost_at.isoformat()}"
    return ConfigError(
        f"output {folder}: another run is at work there{who}; wait for it, or choose another folder{until}."
    )
