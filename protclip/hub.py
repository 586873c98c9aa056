"""Checkpoint folders on the HuggingFace hub. Whatever goes wrong there is one ConfigError."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from protclip import files
from protclip.errors import ConfigError

TIMEOUT_S = 60.0
"""The longest silence of the hub; its client would wait for ever."""
_WAITS = ("connect", "read", "write", "pool")
_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


def checkpoint_folder(path: str, *, revision: str | None = None) -> str:
    """The path or URL of a checkpoint: the path itself, or the folder into which ``org/name`` was downloaded.

    That is ``$HF_HOME/protclip/org/name/REVISION``, with files of its own: HuggingFace's cache is made of links out of
    the folder, which are refused in a checkpoint.

    Raises:
        ConfigError: if there is neither such a folder nor such a name, or a ``revision`` where it has no meaning.
    """
    if not _NAME.fullmatch(path) or files.exists(path):
        if revision is not None:
            raise ConfigError(f"revision={revision!r}: {path} is a folder; only names on the hub have revisions.")
        return path
    from huggingface_hub import constants, snapshot_download

    patterns = ["*.json", "*.safetensors", "*/*.json", "*/vocab.txt", "README.md"]
    with _telling(f"{path}: is no folder, and cannot be had from the HuggingFace hub"):
        folder = files.join(constants.HF_HOME, "protclip", path, (revision or "main").replace("/", "--"))
        return snapshot_download(path, revision=revision, allow_patterns=patterns, local_dir=folder)


def upload(
    save: Callable[[str], None],
    repo_id: str,
    *,
    private: bool | None,
    token: str | bool | None,
    revision: str | None,
    commit_message: str,
) -> str:
    """Upload a folder as one commit, and return its URL.

    Args:
        save: writes the folder of this name.
        repo_id: ``org/name``; it is made where it is not there.
        private: of a repository that is made.
        token: None takes that of ``hf auth login``.
        revision: the branch; it is made where it is not there.
        commit_message: of the commit.

    Raises:
        ConfigError: if the hub cannot be reached or refuses.
    """
    from huggingface_hub import HfApi

    api = HfApi(token=token)
    with _telling(f"{repo_id}: cannot be uploaded to the HuggingFace hub"):
        api.create_repo(repo_id, private=private, exist_ok=True)
        if revision is not None:
            api.create_branch(repo_id, branch=revision, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="protclip-upload-") as folder:
        save(folder)
        with _telling(f"{repo_id}: cannot be uploaded to the HuggingFace hub"):
            commit = api.upload_folder(
                repo_id=repo_id, folder_path=folder, revision=revision, commit_message=commit_message
            )
    return str(commit.commit_url)


@contextmanager
def _telling(what: str) -> Iterator[None]:
    from huggingface_hub import get_session

    session = get_session()
    before = session.event_hooks
    session.event_hooks = {**before, "request": [*before["request"], _bound]}
    try:
        yield
    except Exception as error:  # those of its HTTP client, which changes with its version, are among them
        why = " ".join(str(error).split()) or type(error).__name__
        raise ConfigError(f"{what} ({why}); check the name, the network and the token (hf auth login).") from error
    finally:
        session.event_hooks = before


def _bound(request: Any) -> None:
    """Bound the waits of a request of the hub's client that has no bounds: its own calls ask for none."""
    waits = request.extensions.get("timeout", {})
    bounds = {name: TIMEOUT_S if waits.get(name) is None else waits[name] for name in _WAITS}
    request.extensions = {**request.extensions, "timeout": bounds}
