"""The folder of a quickstart, which the next one empties."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from protclip import files
from protclip.errors import ConfigError
from ray_jobs.local_head import stop_head

MARKER_FILE = ".protclip-quickstart"
"""Lies in the output folder and says that we may wipe it."""


def claim_folder(output: str) -> None:
    """Empty the output folder, if it is missing, empty or an earlier quickstart's.

    Raises:
        ConfigError: if it holds something else, is another user's, or is a symbolic link.
    """
    folder = Path(output)
    if folder.is_symlink():
        raise ConfigError(f"--output {output} is a symbolic link, and what it leads to is not wiped; name the folder.")
    if folder.exists():
        if not folder.is_dir() or (any(folder.iterdir()) and not _is_ours(folder)):
            raise ConfigError(f"--output {output} holds something that is no quickstart's; choose another folder.")
        stop_head(files.join(output, "ray"))
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    (folder / MARKER_FILE).touch()


def _is_ours(folder: Path) -> bool:
    """Whether a quickstart of this user made the folder."""
    marker = folder / MARKER_FILE
    if marker.is_symlink() or not marker.is_file():
        return False
    return {folder.lstat().st_uid, marker.lstat().st_uid} == {os.getuid()}
