"""The folder of this user in which downloads are kept."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import platformdirs

from protclip import files
from protclip.errors import ConfigError

VARIABLE = "PROTCLIP_CACHE"
"""Environment variable that names another folder; several machines may share one."""


def cache_folder() -> Path:
    """Where downloads are kept: the folder of the variable, else the platform's, ``~/.cache/protclip`` on Linux."""
    given = os.environ.get(VARIABLE)
    return Path(files.absolute(given)) if given else platformdirs.user_cache_path("protclip")


@contextlib.contextmanager
def locked(path: Path, *, tell: Callable[[str], None]) -> Iterator[None]:
    """Hold the lock of a file, which one process or thread has at a time, on all machines that share its disk.

    Args:
        path: of the file; it is made, and stays.
        tell: gets a line where another one has the lock, before it is waited for.

    Raises:
        ConfigError: if the file cannot be written.
    """
    files.make_folder(str(path.parent))
    try:
        stream = path.open("a")
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be written ({error}); name another folder for downloads in {VARIABLE}."
        ) from error
    with stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            tell(f"another process is fetching into {path.parent}; waiting for it")
            fcntl.flock(stream, fcntl.LOCK_EX)
        yield
