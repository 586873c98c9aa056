"""Paths, atomic files and checksums, on the local disk or any fsspec URL.

A file appears under its name whole or not at all. On the local disk that is temporary name, fsync, rename; object
stores publish an object when its upload is complete, which is the same promise.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import posixpath
import re
import shutil
import stat
import tempfile
import uuid
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, TypeVar, cast

import fsspec
from fsspec.implementations.local import LocalFileSystem

from protclip.errors import ConfigError, DataError

MEMORY_BYTES = 64 << 20
"""What is written to a URL waits in memory up to this size, beyond it in a temporary file."""

MAX_TEXT_BYTES = 256 << 20
"""Of a file that is read whole as text: the manifest of a million files has less."""
_PIECE_BYTES = 1 << 20
MAX_JSON_DEPTH = 64
"""Of objects and lists within each other."""

STORE_THREADS = 16
"""Calls that wait for storage at once; an object store answers each after some tens of milliseconds."""

_WITHOUT_LISTINGS = ("sftp", "ssh")
"""Kinds of URL whose file system keeps no listings, and takes a setting of them for one of the connection."""

_TIME_KEYS = ("LastModified", "mtime", "updated", "last_modified")
"""Where listings of S3, disks, Google, Azure and others have the time of the last change."""

_SECRET = re.compile(
    r"://[^/@]*:[^/@]+@|[?&](x-amz-\w[\w-]*|x-goog-\w[\w-]*|signature|sig|token|access_token|api_key)=", re.IGNORECASE
)
"""Of a URL: a password before the host, or a signature or a token behind the path."""

In = TypeVar("In")
Out = TypeVar("Out")


def in_threads(call: Callable[[In], Out], items: Iterable[In]) -> list[Out]:
    """What a call that waits for storage gives for each item, in order, many at a time.

    The first error in that order is raised, and what was not begun is left out.
    """
    with ThreadPoolExecutor(STORE_THREADS) as pool:
        return list(pool.map(call, items))


def filesystem(path: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """The file system of a path or URL, and the path inside it.

    It remembers no listings: what other processes write or remove is seen at once. Nothing else opens URLs.

    Raises:
        ConfigError: for an empty path or one that no file can have, a URL of a kind that no installed package reads, or
            one that holds a secret.
    """
    if not path:
        raise ConfigError("a path is empty; give the path or URL of a file or folder.")
    if not _can_be_a_path(path):
        raise ConfigError(f"{path!r:.200}: no file can have this name; give the path or URL of a file or folder.")
    refuse_secrets(path)
    keeps_listings = is_url(path) and path.split("://", 1)[0] not in _WITHOUT_LISTINGS
    try:
        fs, inner = fsspec.core.url_to_fs(path, **({"use_listings_cache": False} if keeps_listings else {}))
    except (ValueError, ImportError) as error:
        raise ConfigError(f"{path}: no file system for this kind of URL ({error}).") from error
    return fs, inner


def _can_be_a_path(path: str) -> bool:
    try:
        return b"\0" not in os.fsencode(path)
    except UnicodeEncodeError:  # half a letter
        return False


def refuse_secrets(path: str) -> None:
    """Refuse a URL with a password or a signature: paths stand in manifests, logs and the descriptions of jobs.

    Raises:
        ConfigError: without the secret.
    """
    if is_url(path) and _SECRET.search(path):
        scheme, rest = path.split("://", 1)
        where = rest.split("?", 1)[0].rsplit("@", 1)[-1]
        raise ConfigError(
            f"{scheme}://{where}: the URL holds a password, a signature or a token, which logs and manifests show; "
            "give it without, and the secret by the variables or files that the storage's client reads."
        )


def is_store_error(error: BaseException) -> bool:
    """Whether it comes from an object store's client, which has exceptions of its own beside OSError."""
    return type(error).__module__.split(".")[0] in ("botocore", "aiobotocore", "aiohttp", "gcsfs")


def is_url(path: str) -> bool:
    """True for ``s3://…`` and the like, False for a path on this machine."""
    return "://" in path


def is_absolute(path: str) -> bool:
    """True where the path means the same from every working directory."""
    return is_url(path) or os.path.isabs(path)


def absolute(path: str) -> str:
    """The path as it would be understood from any working directory; URLs are left as they are."""
    return path if is_url(path) else os.path.abspath(os.path.expanduser(path))


def join(folder: str, *names: str) -> str:
    """``folder/name`` for paths and URLs alike."""
    return posixpath.join(folder, *names)


def exists(path: str) -> bool:
    """True where a file or folder is there."""
    fs, inner = filesystem(path)
    return bool(fs.exists(inner))


def is_file(path: str) -> bool:
    """True where a regular file is there."""
    fs, inner = filesystem(path)
    return bool(fs.isfile(inner))


def is_folder(path: str) -> bool:
    """True where a folder is there."""
    fs, inner = filesystem(path)
    return bool(fs.isdir(inner))


def size(path: str) -> int:
    """Size of a file in bytes."""
    fs, inner = filesystem(path)
    return int(fs.size(inner))


def identity(path: str) -> str:
    """A mark of a file's content: on this machine its size and time of change, elsewhere what the file system says."""
    fs, inner = filesystem(path)
    if isinstance(fs, LocalFileSystem):
        status = Path(inner).stat()
        return f"{status.st_size} bytes of {status.st_mtime_ns} ns"
    return str(fs.ukey(inner))


def modified(path: str) -> datetime | None:
    """When a file was last written; None where the file system does not know."""
    fs, inner = filesystem(path)
    try:
        found: datetime = fs.modified(inner)
    except NotImplementedError:
        return None
    return found


def expand(pattern: str) -> list[str]:
    """The files that a glob means, absolute and sorted; the path itself of what is no glob, or is there by that name.

    Raises:
        DataError: if a glob means no file.
    """
    path = absolute(pattern)
    fs, inner = filesystem(path)
    if not any(mark in inner for mark in "*?[") or fs.exists(inner):
        return [path]
    names = sorted(name for name in fs.glob(inner) if fs.isfile(name))
    if not names:
        raise DataError(f"{pattern}: no file matches; check the pattern.")
    return [fs.unstrip_protocol(name) for name in names] if is_url(path) else names


def list_folder(path: str) -> list[str]:
    """The names in a folder, sorted; none where there is no folder.

    Raises:
        DataError: without permission.
    """
    return sorted(str(name).rstrip("/").rsplit("/", 1)[-1] for name in _listed(path, detail=False))


def times(folder: str) -> dict[str, datetime | None]:
    """When each file or folder in a folder was last written, by its name; none where there is no folder.

    One listing. None for what the file system has no time of.

    Raises:
        DataError: without permission.
    """
    found: dict[str, datetime | None] = {}
    for entry in _listed(folder, detail=True):
        when = next((entry[key] for key in _TIME_KEYS if entry.get(key)), None)
        when = datetime.fromtimestamp(when, UTC) if isinstance(when, int | float) else when
        when = datetime.fromisoformat(when) if isinstance(when, str) else when
        found[str(entry["name"]).rstrip("/").rsplit("/", 1)[-1]] = when if isinstance(when, datetime) else None
    return found


def make_folder(path: str) -> None:
    """Make a folder and its parents; nothing happens where it exists.

    Raises:
        ConfigError: if it cannot be made, or a bucket is not there: none is made by a slip of the pen.
    """
    fs, inner = filesystem(path)
    bucket = inner.split("/", 1)[0]  # empty where paths start at a root
    if not isinstance(fs, LocalFileSystem) and bucket:
        if not fs.exists(bucket):
            raise ConfigError(f"{path}: there is no bucket {bucket!r}; make it first, or give another.")
        return
    try:
        fs.makedirs(inner, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written there ({error}); give another folder.") from error


def remove(path: str) -> None:
    """Remove a file or a whole folder; nothing happens where there is none."""
    fs, inner = filesystem(path)
    if fs.exists(inner):
        fs.rm(inner, recursive=True)


def open_read(path: str) -> IO[bytes]:
    """Open a file for reading bytes.

    Raises:
        DataError: if it cannot be opened.
    """
    fs, inner = filesystem(path)
    try:
        stream: IO[bytes] = fs.open(inner, "rb")
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error}); check the path and its permissions.") from error
    return stream


def open_regular(path: str) -> IO[bytes]:
    """Open a file of a folder of ours: never a device or a pipe, of which bytes come without end or none at all.

    Raises:
        DataError: if it cannot be opened, or is no regular file.
    """
    fs, inner = filesystem(path)
    if not isinstance(fs, LocalFileSystem):
        return open_read(path)
    try:
        descriptor = os.open(inner, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a pipe would wait for its writer
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error}); check the path and its permissions.") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise DataError(f"{path}: is no regular file, but a folder, device or pipe; restore the file.")
    return os.fdopen(descriptor, "rb")


@contextlib.contextmanager
def telling_what_cannot_be_written(path: str) -> Iterator[None]:
    """What the disk or the object store refuses becomes a ConfigError that names the path; for the write itself alone.

    Raises:
        ConfigError: for a full disk, a quota, a missing bucket, no permission and the like.
    """
    try:
        yield
    except Exception as error:
        if not isinstance(error, OSError) and not is_store_error(error):
            raise
        raise ConfigError(
            f"{path}: cannot be written ({error}); make room, or give another place, and run the command again."
        ) from error


@contextlib.contextmanager
def atomic_write(path: str) -> Iterator[IO[bytes]]:
    """Write a file that appears whole or not at all.

    Raises:
        ConfigError: if it cannot be written.
    """
    fs, inner = filesystem(path)
    make_folder(posixpath.dirname(inner) if isinstance(fs, LocalFileSystem) else posixpath.dirname(path))
    if not isinstance(fs, LocalFileSystem):
        # Closing a stream to an object store publishes what it has, after an error too: so upload only what is whole.
        with tempfile.SpooledTemporaryFile(MEMORY_BYTES) as whole:
            yield cast(IO[bytes], _Target(whole, tempfile.gettempdir()))
            with telling_what_cannot_be_written(path):
                whole.seek(0)
                with fs.open(inner, "wb") as stream:
                    shutil.copyfileobj(whole, stream, 1 << 24)
        return
    temporary = f"{inner}.{uuid.uuid4().hex[:8]}.tmp"
    try:
        with telling_what_cannot_be_written(path):
            stream = Path(temporary).open("wb")  # noqa: SIM115
        try:
            yield cast(IO[bytes], _Target(stream, path))
            with telling_what_cannot_be_written(path):
                stream.flush()
                os.fsync(stream.fileno())
        finally:
            with contextlib.suppress(OSError):  # of what is left in its buffer after an error
                stream.close()
        with telling_what_cannot_be_written(path):
            os.replace(temporary, inner)
            _sync_folder(os.path.dirname(inner))
    finally:
        with contextlib.suppress(OSError):  # it has its name by now, or the disk is read-only
            os.unlink(temporary)


class _Target:
    """A file that is written, and says where it is if it cannot be."""

    def __init__(self, stream: IO[bytes], path: str) -> None:
        self._stream, self._path = stream, path

    def write(self, data: Any) -> int:
        with telling_what_cannot_be_written(self._path):
            return self._stream.write(data)

    def writelines(self, lines: Iterable[Any]) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        with telling_what_cannot_be_written(self._path):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def write_json(path: str, value: Any) -> None:
    """Write JSON atomically, with sorted keys so that equal values are equal files."""
    with atomic_write(path) as stream:
        stream.write(json.dumps(value, indent=2, sort_keys=True).encode() + b"\n")


def read_json(path: str) -> Any:
    """Read a JSON file.

    Raises:
        DataError: as ``read_text`` and ``parse_json``.
    """
    return parse_json(read_text(path), path)


def read_text(path: str) -> str:
    """The text of a file of a folder of ours.

    Raises:
        DataError: if it cannot be opened, is no regular file, larger than MAX_TEXT_BYTES, or not UTF-8.
    """
    pieces, left = [], MAX_TEXT_BYTES + 1
    with open_regular(path) as stream:
        while left and (piece := stream.read(min(left, _PIECE_BYTES))):  # all at once would reserve memory for all
            pieces.append(piece)
            left -= len(piece)
    if not left:
        raise DataError(f"{path}: is larger than {MAX_TEXT_BYTES >> 20} MB; no such file of ours is. Restore it.")
    try:
        return b"".join(pieces).decode()
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is not UTF-8 ({error}).") from error


def parse_json(text: str, where: str) -> Any:
    """The value of a JSON text that another program may have written.

    Raises:
        DataError: naming the place, if it is not JSON, has a key twice, or is nested deeper than MAX_JSON_DEPTH.
    """
    try:
        value = json.loads(text, object_pairs_hook=_object)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: is not JSON ({error}).") from error
    level = [value]
    for _ in range(MAX_JSON_DEPTH):
        level = [inner for outer in level for inner in _inner(outer)]
        if not level:
            return value
    raise DataError(f"{where}: its JSON is nested more than {MAX_JSON_DEPTH} levels deep; no file of ours is.")


def sha256(path: str) -> str:
    """SHA-256 of a file, as hex."""
    with open_regular(path) as stream:
        digest = hashlib.sha256()
        while block := stream.read(1 << 20):
            digest.update(block)
        return digest.hexdigest()


def copy(source: str | Path, target: str) -> None:
    """Copy a file of a path or URL to another, where it appears whole or not at all.

    Raises:
        DataError: if it cannot be opened.
    """
    if is_url(target) and not is_url(str(source)):
        fs, inner = filesystem(target)
        make_folder(posixpath.dirname(target))
        with telling_what_cannot_be_written(target):
            fs.put_file(str(source), inner)
        return
    with open_read(str(source)) as stream, atomic_write(target) as copied:
        shutil.copyfileobj(stream, copied, 1 << 24)


def publish(path: str, target: str) -> None:
    """Give a finished local file, beside its target where that is local, its name or URL; it is moved or copied."""
    if is_url(target):
        copy(path, target)
        os.unlink(path)
        return
    with telling_what_cannot_be_written(target):
        with Path(path).open("rb") as stream:
            os.fsync(stream.fileno())
        os.replace(path, target)
        _sync_folder(os.path.dirname(target))


def link_or_copy(source: str, target: str) -> None:
    """A second name for a file that will never be changed: a hard link on one local disk, elsewhere a copy."""
    if not is_url(source) and not is_url(target):
        with contextlib.suppress(OSError):  # another disk, or one without links
            os.link(source, target)
            return
    copy(source, target)


@contextlib.contextmanager
def local_copy(path: str) -> Iterator[str]:
    """A path on the local disk with a file's content: itself, or a temporary copy of what a URL holds."""
    if not is_url(path):
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        copy(path, f"{folder}/copy")
        yield f"{folder}/copy"


def _listed(folder: str, *, detail: bool) -> list[Any]:
    """What the file system says is in a folder; nothing where there is no folder."""
    fs, inner = filesystem(folder)
    if not fs.isdir(inner):
        return []
    try:
        found: list[Any] = fs.ls(inner, detail=detail)
    except PermissionError as error:
        raise DataError(f"{folder}: cannot be read ({error}); check the path and its permissions.") from error
    return found


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {next(name for name in names if names.count(name) > 1)!r} comes twice")
    return found


def _inner(value: Any) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()


def _sync_folder(folder: str) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
