"""What a checkpoint is named by: a folder, ``published``, ``org/name`` on the HuggingFace hub, or a URL.

What is not a folder of this machine is fetched once into the cache (``protclip.checkpoints``).
"""

from __future__ import annotations

import re
from typing import Literal

from fsspec.implementations.local import LocalFileSystem

from protclip import files
from protclip.errors import CheckpointError

PUBLISHED = "published"
CheckpointKind = Literal["published", "hub", "http", "store"]
"""From where it is fetched: its authors' places, the HuggingFace hub, a web server, or what else fsspec reads."""
HOW_TO_NAME = (
    f"a checkpoint is a folder, {PUBLISHED!r} (the authors' own), a name on the HuggingFace hub (org/name or "
    "org/name@REVISION), or a URL"
)

_HUB_NAME = re.compile(r"([A-Za-z0-9][\w.-]*/[\w.-]+)(?:@([\w.-]+(?:/[\w.-]+)*))?")


def is_here(checkpoint: str) -> bool:
    """Whether something of this path is on this machine: that comes before any name."""
    if not checkpoint or checkpoint.startswith(("http://", "https://")):
        return False
    fs, inner = files.filesystem(checkpoint)
    return isinstance(fs, LocalFileSystem) and fs.exists(inner)


def is_name(checkpoint: str) -> bool:
    """Whether it is a name, which means the same in every folder and on every machine."""
    return (checkpoint == PUBLISHED or split_name(checkpoint) is not None) and not is_here(checkpoint)


def absolute_checkpoint(checkpoint: str) -> str:
    """What means the same on other machines and in other folders: names and URLs as they are, a folder by its path."""
    return checkpoint if is_name(checkpoint) else files.absolute(checkpoint)


def kind_of_checkpoint(checkpoint: str) -> CheckpointKind:
    """From where a checkpoint is fetched that is not here.

    Raises:
        CheckpointError: from nowhere.
    """
    if checkpoint == PUBLISHED:
        return "published"
    if checkpoint.startswith(("http://", "https://")):
        return "http"
    if files.is_url(checkpoint) and not isinstance(files.filesystem(checkpoint)[0], LocalFileSystem):
        return "store"
    if split_name(checkpoint) is not None:
        return "hub"
    raise CheckpointError(f"{checkpoint or repr('')}: is missing; {HOW_TO_NAME}.")


def split_name(name: str) -> tuple[str, str | None] | None:
    """Repository and revision of ``org/name`` or ``org/name@REVISION``; None for what has another form."""
    match = _HUB_NAME.fullmatch(name)
    return None if match is None else (match[1], match[2])
