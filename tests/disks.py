"""A file system of a few kilobytes, for what happens when it is full."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """Mounted on a folder that is made; the test is skipped where that is not allowed."""
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], check=False).returncode:
        pytest.skip("a small file system cannot be mounted here: root is needed")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)  # lazily: a process of Ray's may have a file of it open


def resize(folder: Path, size: str) -> None:
    """Give it another size; it may be written, whatever it was before."""
    subprocess.run(["mount", "-o", f"remount,rw,size={size}", folder], check=True)
