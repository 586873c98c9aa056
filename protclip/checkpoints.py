"""The folder of a checkpoint by whatever names it (``protclip.checkpoint_names``)."""

from __future__ import annotations

from protclip.checkpoint_names import is_here, kind_of_checkpoint, split_name
from protclip.errors import ConfigError


def checkpoint_folder(checkpoint: str, *, revision: str | None = None) -> str:
    """The folder of a checkpoint on this machine; what is not there is fetched, once.

    Args:
        checkpoint: a folder, or what HOW_TO_NAME says.
        revision: branch, tag or commit on the hub, for names there alone; the same as ``org/name@REVISION``.

    Raises:
        ConfigError, DataError: if it cannot be fetched, or has no such revision.
        CheckpointError: if it is none of these, or the cached folder is no longer what was fetched.
    """
    if revision is not None:
        if is_here(checkpoint) or (split := split_name(checkpoint)) is None or split[1] is not None:
            raise ConfigError(f"revision={revision!r}: {checkpoint} is no name on the hub; only these have revisions.")
        checkpoint = f"{checkpoint}@{revision}"
    if is_here(checkpoint):
        return checkpoint
    kind_of_checkpoint(checkpoint)
    from protclip.checkpoint_cache import fetch_into_cache  # with the libraries of the network

    return fetch_into_cache(checkpoint)
