"""Folders of our own Rays: private, short, found again after a crash, and removed only if they are ours.

Ray makes the folder of its session readable and writable for everybody. So each Ray gets one inside a folder of mode
0700, below one root per user and machine: ``/tmp/protclip-<uid>/<name>/``, with the token and Ray's temporary
folder. The name is also the mark of the Ray's processes.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import secrets
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cluster.processes import marked
from protclip.errors import ConfigError

_NAME = re.compile(r"[0-9a-f]{8}")
_LOCK_FILE = "lock"
_TOKEN_FILE = "token"
_MAX_SOCKET_BYTES = 103 if sys.platform == "darwin" else 107
"""Of a unix socket's path."""
_LONGEST_BELOW_ROOT = "/12345678/ray/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store"
_ROOTS = 10
"""Names to try: another user may have taken one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RayFolder:
    """The folder of one Ray."""

    path: Path

    @property
    def name(self) -> str:
        """The folder's name, which is the mark of its processes."""
        return self.path.name

    @property
    def token_path(self) -> str:
        """The file that holds the token, readable for the owner alone."""
        return str(self.path / _TOKEN_FILE)

    @property
    def temp_dir(self) -> str:
        """Where Ray has its sockets, logs and spilled objects."""
        return str(self.path / "ray")

    def remove(self) -> None:
        """Remove it with all that is in it; never what a symbolic link leads to."""
        for _ in range(5):  # a process that is just ending may still write
            with _opened(self.path.parent) as root:
                shutil.rmtree(self.name, dir_fd=root, ignore_errors=True)
            if not self.path.exists():
                return
            time.sleep(0.1)


def private_root() -> Path:
    """The folder for our Rays on this machine, of mode 0700; made where it is missing.

    It lies in the system's temporary folder, or in /tmp where that one's path is too long for Ray's sockets.

    Raises:
        ConfigError: if others hold all its names.
    """
    uid = os.getuid()
    base = tempfile.gettempdir()
    longest = len(os.fsencode(f"{base}/protclip-{uid}-0{_LONGEST_BELOW_ROOT}"))
    if longest > _MAX_SOCKET_BYTES:
        base = "/tmp"
    names = [f"protclip-{uid}", *(f"protclip-{uid}-{number}" for number in range(1, _ROOTS))]
    for path in (Path(base, name) for name in names):
        with contextlib.suppress(FileExistsError):
            path.mkdir(mode=0o700)
        if is_private(path):
            return path
    raise ConfigError(
        f"{base}/{names[0]} and {_ROOTS - 1} names beside it are no private folders of yours; remove them, or set "
        "TMPDIR."
    )


def make_folder() -> RayFolder:
    """A new folder with a token, after what crashed Rays left was removed.

    It is ours for as long as this process lives, and then for as long as a process carries its mark.
    """
    root = private_root()
    with locked(root / _LOCK_FILE):
        _remove_left_over(root)
        folder = RayFolder(path=root / secrets.token_hex(4))
        folder.path.mkdir(mode=0o700)
        # Held until this process ends. Open for that long, and not inherited.
        _hold(folder.path / _LOCK_FILE)
    with os.fdopen(os.open(folder.token_path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as stream:
        stream.write(secrets.token_hex(32))
    return folder


def find_folder(name: str) -> RayFolder | None:
    """The folder of that name below our root; None where there is none of ours."""
    path = private_root() / name
    return RayFolder(path=path) if _NAME.fullmatch(name) and is_private(path) else None


def living_folders() -> list[RayFolder]:
    """The folders of those of our Rays on this machine whose starter lives."""
    root = private_root()
    folders = [find_folder(name) for name in sorted(os.listdir(root))]
    return [folder for folder in folders if folder is not None and _is_held(folder.path / _LOCK_FILE)]


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a file, after waiting until no other process does."""
    file = _hold(path)
    try:
        yield
    finally:
        os.close(file)


def _remove_left_over(root: Path) -> None:
    for name in os.listdir(root):
        folder = find_folder(name)
        if folder is not None and not _is_held(folder.path / _LOCK_FILE) and not marked(name):
            folder.remove()


def is_private(path: Path) -> bool:
    """Whether it is a folder, no link, of this user and closed to others."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o077


def _hold(path: Path) -> int:
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    fcntl.flock(file, fcntl.LOCK_EX)
    return file


def _is_held(path: Path) -> bool:
    try:
        file = os.open(path, os.O_RDWR | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(file)
    return False


@contextlib.contextmanager
def _opened(folder: Path) -> Iterator[int]:
    file = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        yield file
    finally:
        os.close(file)
