"""Checkpoints are fetched once, into a cache or a folder of one's own.

    CACHE/checkpoints/NAME/          the checkpoint folder
    CACHE/checkpoints/NAME.json      written last: what was fetched, and its fingerprint
    CACHE/checkpoints/NAME.lock      held by the process that fetches
    CACHE/checkpoints/.NAME.new/     while NAME is there and fetched anew

From then on no network is needed. A name stays what it was when it was fetched; a URL is asked for its manifest, and
fetched again where that has changed.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from urllib3.util.retry import Retry

from protclip import files
from protclip.cache import cache_folder, locked
from protclip.checked import Sha256, checked
from protclip.checkpoint_names import CheckpointKind, kind_of_checkpoint
from protclip.downloads import RemoteFile, fetch_once
from protclip.errors import CheckpointError, ConfigError, ProtclipError
from protclip.hashing import hash64
from protclip.http_client import SOON_S, Client
from protclip.hub import download_checkpoint, is_offline
from protclip.manifest import FILE_NAME, FileRecord, finish_folder, path_inside, read_manifest, resume_folder
from protclip.model.record import read_checkpoint_fingerprint
from protclip.occupied import occupied
from protclip.terminal import tell_on_stderr

KIND = "checkpoint"
LITTLE_PATIENCE = Retry(total=2, backoff_factor=1, retry_after_max=10)
"""With a server whose checkpoint is in the cache already."""
_OWN_FILES = (
    "config.json",
    "model*.safetensors*",
    "official_extras.safetensors",
    "protein_tokenizer",
    "text_tokenizer",
    "README.md",
)
"""What a checkpoint folder holds; nothing else is ever removed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Publication:
    """Where the authors' checkpoint is fetched from; None for the authors' own places."""

    api_url: str | None = None
    config_url: str | None = None
    text_tokenizer: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class _Record:
    """What the cache says of a checkpoint."""

    name: str
    fingerprint: Sha256


def fetch_into_cache(
    checkpoint: str,
    *,
    publication: Publication | None = None,
    overwrite: bool = False,
    tell: Callable[[str], None] = tell_on_stderr,
) -> str:
    """Fetch a checkpoint into the cache unless it is there, and return its folder.

    Args:
        checkpoint: a name or a URL.
        publication: where the authors' checkpoint is fetched from.
        overwrite: fetch it anew.
        tell: gets lines about the download.

    Raises:
        ConfigError, DataError, CheckpointError: as ``fetch_checkpoint``.
    """
    kind = kind_of_checkpoint(checkpoint)
    if not overwrite and (cached := _cached(checkpoint, kind)) is not None:
        return cached  # also of a cache that cannot be written
    folder = _cached_folder(checkpoint)
    with locked(folder.with_name(f"{folder.name}.lock"), tell=tell):
        if not overwrite and (cached := _cached(checkpoint, kind)) is not None:
            return cached
        record = folder.with_name(f"{folder.name}.json")
        # What is there stays in use until its successor is whole.
        target = folder.with_name(f".{folder.name}.new") if record.exists() else folder
        if overwrite or not (target / FILE_NAME).exists():
            fetch_checkpoint(checkpoint, str(target), publication=publication, overwrite=overwrite, tell=tell)
        if target != folder:
            record.unlink()
            files.remove(str(folder))
            target.rename(folder)
        fingerprint = read_checkpoint_fingerprint(str(folder))
        files.write_json(str(record), {"name": checkpoint, "fingerprint": fingerprint})
    return str(folder)


def fetch_checkpoint(
    checkpoint: str,
    output: str,
    *,
    publication: Publication | None = None,
    overwrite: bool = False,
    tell: Callable[[str], None] = tell_on_stderr,
) -> None:
    """Fetch a checkpoint into a folder of one's own; an interrupted call goes on where it was.

    Args:
        checkpoint: a name or a URL.
        output: the folder, path or URL.
        publication: where the authors' checkpoint is fetched from.
        overwrite: replace a finished checkpoint, or begin anew.
        tell: gets lines about the download.

    Raises:
        ConfigError: without a network, if a server refuses, the disk has no room, or the output is finished.
        DataError: if a server fails for good, or a file is damaged or changed since its download began.
        CheckpointError: if it is no checkpoint.
    """
    kind = kind_of_checkpoint(checkpoint)
    if kind != "store" and is_offline():
        raise ConfigError(
            f"{checkpoint}: is neither a folder here nor in the cache, and HF_HUB_OFFLINE is set; unset it or fetch it "
            "on another machine."
        )
    with contextlib.ExitStack() as stack:
        if kind != "store":  # of a store, it may be the reading that fails
            stack.enter_context(files.telling_what_cannot_be_written(output))
        stack.enter_context(occupied(output))
        _fetch(checkpoint, kind, output, publication or Publication(), overwrite=overwrite, tell=tell)


def _fetch(
    checkpoint: str,
    kind: CheckpointKind,
    output: str,
    publication: Publication,
    *,
    overwrite: bool,
    tell: Callable[[str], None],
) -> None:
    work = resume_folder(output, _OWN_FILES, {"fetched": checkpoint}, overwrite=overwrite)
    # What is downloaded lies on this machine until it is whole.
    staging = work if not files.is_url(work) else str(cache_folder() / "partial" / f"{hash64(work):016x}")
    files.make_folder(staging)
    client = Client(tell=tell)
    if kind == "published":
        from protclip.published import fetch_published

        fetch_published(
            output,
            staging,
            client=client,
            api_url=publication.api_url,
            config_url=publication.config_url,
            text_tokenizer=publication.text_tokenizer,
            tell=tell,
        )
    else:
        fetch: Callable[..., Any] = {"hub": download_checkpoint, "http": _fetch_http, "store": _fetch_store}[kind]
        fetch(checkpoint, staging, client=client, tell=tell)
        _install(staging, output)
    files.remove(staging)
    finish_folder(output)


def _cached_folder(checkpoint: str) -> Path:
    readable = re.sub(r"[^\w.@-]+", "--", checkpoint.rsplit("://", maxsplit=1)[-1]).strip("-")[-80:]
    distinct = f"-{hash64(checkpoint):016x}" if files.is_url(checkpoint) else ""
    return cache_folder() / "checkpoints" / f"{readable}{distinct}"


def _cached(checkpoint: str, kind: CheckpointKind) -> str | None:
    """The folder in the cache; None where it has none, or a URL holds another by now.

    Raises:
        CheckpointError: if it is no longer what was fetched.
    """
    folder = _cached_folder(checkpoint)
    path = str(folder.with_name(f"{folder.name}.json"))
    if not files.exists(path):
        return None
    again = f"`protclip fetch-model {checkpoint} --overwrite` fetches it again"
    try:
        record = checked(_Record, files.read_json(path), path, error=CheckpointError)
        fingerprint = read_checkpoint_fingerprint(str(folder))
    except ProtclipError as error:
        raise CheckpointError(f"{checkpoint}: its copy in the cache cannot be used ({error}); {again}.") from error
    if fingerprint != record.fingerprint:
        raise CheckpointError(
            f"{folder}: is the model {fingerprint}, and {checkpoint} was {record.fingerprint} when it was fetched: "
            f"the cache was altered; {again}."
        )
    if kind in ("http", "store") and not is_offline() and _changed_at(checkpoint, kind, str(folder)):
        return None
    return str(folder)


def _changed_at(url: str, kind: CheckpointKind, folder: str) -> bool:
    """Whether a URL holds another manifest than the cached folder; False where it cannot be asked."""
    try:
        there = (
            _manifest_at(url, Client(retries=LITTLE_PATIENCE))
            if kind == "http"
            else files.read_text(files.join(url, FILE_NAME))
        )
    except Exception as error:
        if not isinstance(error, ProtclipError | OSError) and not files.is_store_error(error):
            raise
        return False
    return there != files.read_text(files.join(folder, FILE_NAME))


def _manifest_at(url: str, client: Client) -> str:
    client.reach(url, patience_s=SOON_S)
    where = f"{url.rstrip('/')}/{FILE_NAME}"
    return client.get(where, lambda response: response.content).decode(errors="replace")


def _fetch_http(url: str, staging: str, *, client: Client, tell: Callable[[str], None]) -> None:
    """The files that the manifest of a folder on a web server lists."""
    where, text = f"{url.rstrip('/')}/{FILE_NAME}", _manifest_at(url, client)
    manifest = files.parse_json(text, where)
    if not isinstance(manifest, dict) or manifest.get("kind") != KIND:
        raise CheckpointError(f"{where}: is not the manifest of a checkpoint; check the URL.")
    records = checked(dict[str, FileRecord], manifest.get("files"), f"{where}, files", error=CheckpointError)
    tell(f"{url}: {len(records):,} files, {sum(record.bytes for record in records.values()):,} bytes")
    left = sum(record.bytes for record in records.values())
    for name, record in records.items():
        path = path_inside(staging, name, error=CheckpointError)
        left -= record.bytes
        remote = RemoteFile(
            url=f"{url.rstrip('/')}/{name}",
            num_bytes=record.bytes,
            checksum=f"sha256:{record.sha256}",
            listed_in=FILE_NAME,
        )
        fetch_once(client, remote, path, spare_bytes=left)
    with files.atomic_write(files.join(staging, FILE_NAME)) as stream:
        stream.write(text.encode())


def _fetch_store(url: str, staging: str, *, client: Client, tell: Callable[[str], None]) -> None:  # noqa: ARG001
    """The files of a folder of an object store, or of whatever else fsspec reads."""
    manifest = read_manifest(url, KIND, error=CheckpointError)
    records = {name: manifest["files"][name]["bytes"] for name in manifest["files"]}
    tell(f"{url}: {len(records):,} files, {sum(records.values()):,} bytes")
    for name, num_bytes in records.items():
        path = path_inside(staging, name, error=CheckpointError)
        if not files.exists(path) or files.size(path) != num_bytes:
            files.copy(files.join(url, name), path)
    files.copy(files.join(url, FILE_NAME), files.join(staging, FILE_NAME))


def _install(staging: str, output: str) -> None:
    """Give the files of a whole checkpoint their place, the manifest last."""
    try:
        manifest = read_manifest(staging, KIND, verify=True, error=CheckpointError)
    except CheckpointError:
        files.remove(staging)  # going on with it would fail again
        raise
    for name in [*manifest["files"], FILE_NAME]:
        target = files.join(output, name)
        files.make_folder(target.rpartition("/")[0])
        files.link_or_copy(files.join(staging, name), target)
