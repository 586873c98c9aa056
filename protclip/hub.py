"""Checkpoint folders on the HuggingFace hub. Whatever goes wrong there is one ConfigError."""

from __future__ import annotations

import fnmatch
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from protclip import files
from protclip.checkpoint_names import split_name
from protclip.errors import ConfigError
from protclip.http_client import SOON_S, Client
from protclip.manifest import FILE_NAME

TIMEOUT_S = 60.0
"""The longest silence of the hub; its client would wait for ever."""
_WAITS = ("connect", "read", "write", "pool")
_CHECKPOINT_FILES = ["*.json", "*.safetensors", "*/*.json", "*/vocab.txt", "README.md"]
_TOKENIZER_FILES = ["tokenizer.json", "tokenizer_config.json", "vocab.txt"]


def is_offline() -> bool:
    """Whether HF_HUB_OFFLINE says that nothing is to be fetched."""
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


def download_checkpoint(name: str, folder: str, *, client: Client, tell: Callable[[str], None]) -> str:
    """Download a checkpoint of ours from the hub into a local folder, and return the commit that it is of.

    Args:
        name: ``org/name`` or ``org/name@REVISION``, a branch, tag or commit; ``main`` where none is given.
        folder: has plain files then: HuggingFace's cache is made of links out of the folder, which are refused in a
            checkpoint. An interrupted download goes on.
        client: of the network.
        tell: gets a line with the size before the download.

    Raises:
        ConfigError: if it cannot be had, is no checkpoint of ours, or the disk has no room.
    """
    return _download(name, folder, _CHECKPOINT_FILES, needed=(FILE_NAME,), client=client, tell=tell)


def download_tokenizer(name: str, folder: str, *, client: Client) -> str:
    """Download the tokenizer of a text encoder into a local folder; otherwise as ``download_checkpoint``."""
    return _download(
        name, folder, _TOKENIZER_FILES, needed=("tokenizer.json", "vocab.txt"), client=client, tell=lambda _: None
    )


def _download(
    name: str, folder: str, patterns: list[str], *, needed: tuple[str, ...], client: Client, tell: Callable[[str], None]
) -> str:
    split = split_name(name)
    if split is None:
        raise ConfigError(f"{name!r:.80} is neither a folder here nor a name on the HuggingFace hub (org/name).")
    repo_id, revision = split
    from huggingface_hub import HfApi, constants, snapshot_download

    what = f"{name}: is no folder here, and cannot be had from the HuggingFace hub"
    try:
        client.reach(constants.ENDPOINT, patience_s=SOON_S)
    except ConfigError as error:
        raise ConfigError(f"{what}: {error}") from error
    with _telling(what):
        info = HfApi().model_info(repo_id, revision=revision, files_metadata=True)
    sizes = {file.rfilename: file.size or 0 for file in info.siblings or []}
    if not any(file in sizes for file in needed):
        found = ", ".join(sorted(sizes)[:5]) or "nothing"
        raise ConfigError(f"{name}: holds no {' or '.join(needed)}, but {found}; it is not what is needed here.")
    num_bytes = sum(sizes[file] for file in sizes if any(fnmatch.fnmatchcase(file, pattern) for pattern in patterns))
    tell(f"{name} on {constants.ENDPOINT}, commit {info.sha}: {num_bytes:,} bytes")
    files.make_folder(folder)
    if num_bytes > (free := shutil.disk_usage(folder).free + _num_bytes(folder)):
        raise ConfigError(f"{folder}: {name} needs {num_bytes:,} bytes, but the disk has {free:,}; make room.")
    with _telling(what):
        snapshot_download(repo_id, revision=info.sha, allow_patterns=patterns, local_dir=folder)
    return str(info.sha)


def _num_bytes(folder: str) -> int:
    """Of the files in a local folder, unfinished ones too."""
    return sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())


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
