"""Files from servers: what has arrived is kept, and another process goes on there; what is whole is checked."""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import hashlib
import os
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import requests
import urllib3

from protclip import files
from protclip.cache import cache_folder
from protclip.errors import ConfigError, DataError
from protclip.hashing import hash64
from protclip.http_client import Client, IncompleteError
from protclip.version import __version__

BLOCK_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class RemoteFile:
    """A file on a server, as a list there describes it."""

    url: str
    num_bytes: int
    checksum: str
    """``md5:`` or ``sha256:`` and the digest in hexadecimal."""
    listed_in: str
    """What the list is called, for messages."""

    def state(self) -> dict[str, Any]:
        """What a download of it has begun with."""
        algorithm, _, digest = self.checksum.partition(":")
        return {"url": self.url, "bytes": self.num_bytes, algorithm: digest}


def fetch_file(
    client: Client,
    remote: RemoteFile,
    part: Partial,
    *,
    facts: Mapping[str, Any] | None = None,
    spare_bytes: int = 0,
    tell: Callable[[int], None] = lambda _: None,
) -> dict[str, Any]:
    """Download what a partial file lacks, and check it; ``part.finish`` then publishes it.

    Args:
        client: of the network.
        remote: the file.
        part: open.
        facts: what else must be as it was when the download began, such as a release; recorded with it.
        spare_bytes: that must stay free on the disk.
        tell: gets the number of bytes that are here already, before the others are downloaded.

    Returns:
        What is known of the file: url, bytes, md5 or sha256 as listed, and sha256; and the facts.

    Raises:
        ConfigError: if the disk has no room, or the download was begun from another URL.
        DataError: if the server fails for good, the file changed since the download began, or it is damaged.
    """
    state = {**remote.state(), **(facts or {})}
    if part.state is None:
        part.cut(0)
        part.commit(state)
    check_unchanged(part.state, state, part.output)
    done = part.stream.seek(0, os.SEEK_END)
    tell(done)
    needed, free = remote.num_bytes - done + spare_bytes, shutil.disk_usage(part.path.parent).free
    if needed > free:
        raise ConfigError(f"{part.path}: needs {needed:,} bytes more, but the disk has {free:,}; make room.")
    with progress_bar(total=remote.num_bytes, initial=done, unit="B", unit_scale=True) as bar:
        download(client, remote.url, part, remote.num_bytes, advance=bar.update)
    algorithm, _, digest = remote.checksum.partition(":")
    digests = _digests(part, remote.num_bytes, {algorithm, "sha256"})
    if digests[algorithm] != digest:
        part.discard()
        raise DataError(
            f"{remote.url}: the download has {algorithm.upper()} {digests[algorithm]}, but {remote.listed_in} says "
            f"{digest}. It was removed; download it again."
        )
    return {**state, **digests}


def fetch_once(
    client: Client,
    remote: RemoteFile,
    path: str,
    *,
    spare_bytes: int = 0,
    origin: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    tell: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Download a file unless it is here; ``PATH.source``, which says what it is, is written last.

    Args:
        client: of the network.
        remote: the file.
        path: where it is written, path or URL.
        spare_bytes: that must stay free on the disk.
        origin: what else is recorded.
        overwrite: replace a finished file, or begin anew.
        tell: gets a line with the size before the download.

    Returns:
        The record.

    Raises:
        ConfigError, DataError: as ``fetch_file``.
    """
    name, record_path = path.rsplit("/", 1)[-1], f"{path}.source"
    if files.exists(record_path) and not overwrite:
        found: dict[str, Any] = files.read_json(record_path)
        check_unchanged(found, remote.state(), path)
        if files.exists(path) and files.size(path) == remote.num_bytes:
            tell(f"{name}: {remote.num_bytes:,} bytes, here already")
            return found
        raise DataError(f"{path}: is not the file that {record_path} tells of; --overwrite downloads it again.")
    with Partial(path, record=record_path, overwrite=overwrite) as part:

        def tell_size(done: int) -> None:
            here = f", {done:,} of them here already" if done else ""
            tell(f"{name}: {remote.num_bytes:,} bytes to download{here}")

        fetched = fetch_file(client, remote, part, spare_bytes=spare_bytes, tell=tell_size)
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        record = {**(origin or {}), **fetched, "fetched": now, "software": f"protclip {__version__}"}
        part.finish(record)
    return record


def check_unchanged(begun: Mapping[str, Any] | None, now: Mapping[str, Any], output: str) -> None:
    """Refuse to go on with a file that is no longer what it was when its download began.

    Raises:
        ConfigError: if it was begun from another URL.
        DataError: if anything else differs.
    """
    begun = begun or {}
    if begun.get("url") != now["url"]:
        raise ConfigError(f"output {output} was begun with {begun.get('url')}; --overwrite begins anew.")
    if changed := [name for name in now if begun.get(name) != now[name]]:
        before, after = (", ".join(f"{name} {values.get(name)}" for name in changed) for values in (begun, now))
        raise DataError(
            f"output {output} was begun with {before}, and the server is at {after} now: two versions of a file do not "
            "go together. --overwrite begins anew."
        )


class Partial(contextlib.AbstractContextManager["Partial"]):
    """The unfinished file of a download, and beside it what is known of it, so that another process can go on.

    ``OUTPUT.part`` and ``OUTPUT.part.json`` lie beside a local output, and for a URL in the user's cache folder.
    """

    def __init__(self, output: str, *, overwrite: bool, record: str | None = None) -> None:
        """Open what an earlier process left, or begin.

        Args:
            output: path or URL of the file.
            overwrite: replace a finished one and begin anew.
            record: path or URL of the file that says what the output is; None for ``OUTPUT.json``.

        Raises:
            ConfigError: if the output is finished and ``overwrite`` is not set, or another process writes it.
        """
        if files.is_folder(output):
            raise ConfigError(f"output {output} is a folder; name a file in it.")
        self.record = record or f"{output}.json"
        for path in (output, self.record):
            if files.exists(path) and not overwrite:
                raise ConfigError(f"output {path} is there already; choose another file, or give --overwrite.")
        self.output = output
        local = output
        if files.is_url(output):
            name = f"{hash64(output):016x}-{output.rsplit('/', 1)[-1]}"
            local = str(cache_folder() / "partial" / name)
        files.make_folder(str(Path(local).parent))
        self.path = Path(f"{local}.part")
        self._state_path = f"{local}.part.json"
        try:
            self.stream = self.path.open("a+b")
        except OSError as error:
            raise ConfigError(f"output {output} cannot be written ({error}); choose another folder.") from error
        try:
            fcntl.flock(self.stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self.stream.close()
            raise ConfigError(f"output {output} is being written by another process; wait for it.") from error
        if overwrite:
            files.remove(self._state_path)
        self.state: dict[str, Any] | None = None
        """What was last committed; None where there is nothing to go on from."""
        if files.exists(self._state_path):
            self.state = files.read_json(self._state_path)

    def cut(self, num_bytes: int) -> None:
        """Shorten the file to what is known to be good."""
        self.stream.truncate(num_bytes)
        self.stream.seek(0, os.SEEK_END)

    def commit(self, state: dict[str, Any]) -> None:
        """Make all that was written so far and this state what another process would go on from."""
        self.stream.flush()
        os.fsync(self.stream.fileno())
        self.state = state
        files.write_json(self._state_path, state)

    def finish(self, record: dict[str, Any]) -> None:
        """Publish the file under its name, and the record beside it."""
        self.stream.flush()
        os.fsync(self.stream.fileno())
        files.remove(self.record)  # never the record of one file beside another
        if files.is_url(self.output):
            files.copy(self.path, self.output)
            self.path.unlink()
        else:
            os.replace(self.path, self.output)
        files.write_json(self.record, record)
        files.remove(self._state_path)

    def discard(self) -> None:
        """Remove what proved to be useless."""
        self.state = None
        self.cut(0)
        files.remove(self._state_path)

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.state is None:
            self.path.unlink(missing_ok=True)
        self.stream.close()


def download(client: Client, url: str, part: Partial, size: int, *, advance: Callable[[int], object]) -> None:
    """Append to a partial file what it lacks of a file on a server, by range requests.

    Args:
        client: it tries again as long as nothing arrives; anything that does renews its patience.
        url: of the file.
        part: open; what it holds is the beginning of the file.
        size: of the whole file in bytes.
        advance: called with the number of bytes that arrived; negative where the server began from the start.

    Raises:
        ConfigError: if the server refuses.
        DataError: if it fails for good, or gives more than it should.
    """

    def append(response: requests.Response) -> None:
        start = part.stream.tell()
        if start and response.status_code != requests.codes.partial_content:
            part.cut(0)  # it knows no ranges
            advance(-start)
            start = 0
        try:
            # Undecoded: a .gz file must not be unpacked on its way.
            for block in response.raw.stream(BLOCK_BYTES, decode_content=False):
                part.stream.write(block)
                advance(len(block))
        except urllib3.exceptions.HTTPError:
            if part.stream.tell() == start:
                raise
        if part.stream.tell() == start:
            raise IncompleteError("the answer was empty")

    while (done := part.stream.seek(0, os.SEEK_END)) < size:
        client.get(url, append, headers={"Accept-Encoding": "identity", "Range": f"bytes={done}-"})
    if done > size:
        part.discard()
        raise DataError(f"{url}: gave {done:,} bytes, but should have {size:,}. It was removed; download it again.")


def progress_bar(**options: Any) -> Any:
    """tqdm's, on a terminal."""
    from tqdm import tqdm

    return tqdm(disable=not sys.stderr.isatty(), **options)


def _digests(part: Partial, size: int, algorithms: set[str]) -> dict[str, str]:
    digests = {name: hashlib.new(name, usedforsecurity=False) for name in algorithms}
    part.stream.flush()
    with part.path.open("rb") as stream, progress_bar(total=size, unit="B", unit_scale=True, desc="checking") as bar:
        while block := stream.read(BLOCK_BYTES):
            for digest in digests.values():
                digest.update(block)
            bar.update(len(block))
    return {name: digest.hexdigest() for name, digest in digests.items()}
