"""Downloads that survive a bad network: requests are tried again, and what has arrived is kept and continued.

Timeouts bound every wait. What is wrong with the network is one ProtclipError that says so, never a traceback.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import platformdirs
import requests
import urllib3
from urllib3.util.retry import Retry

from protclip import files
from protclip.errors import ConfigError, DataError
from protclip.hashing import hash64
from protclip.version import __version__

T = TypeVar("T")

CONNECT_TIMEOUT_S = 5.0
READ_TIMEOUT_S = 60.0
"""The longest silence between two pieces of an answer."""
REACH_S = 20.0
"""In which a server must have given any answer at all for a download to begin."""
RETRIES = Retry(total=7, backoff_factor=1, backoff_max=60, retry_after_max=300)
"""Tries after the first: at once, then after 2, 4, 8 … seconds, or when the server's Retry-After says."""
BLOCK_BYTES = 1 << 20

_CONNECTION_REPR = re.compile(r"^HTTPS?Connection(Pool)?\(.*?\): ")
"""What urllib3 puts before some of its messages."""
_TRY_AGAIN = (429, 500, 502, 503, 504)
_HEADERS = {"User-Agent": f"protclip/{__version__} (python-requests/{requests.__version__})"}


class IncompleteError(Exception):
    """An answer arrived that is not whole; the readers of ``Client.get`` raise it to have it asked for again."""


_DROPPED = (
    requests.ConnectionError,
    requests.Timeout,
    requests.exceptions.ChunkedEncodingError,
    requests.exceptions.ContentDecodingError,
    urllib3.exceptions.HTTPError,
    IncompleteError,
)


class Client:
    """A session that tries again.

    Not for servers on this machine: it goes through the proxy that the environment names.
    """

    def __init__(self, *, retries: Retry = RETRIES, tell: Callable[[str], None] = lambda _: None) -> None:
        """``tell`` gets a line for each wait."""
        self.retries = retries
        self.tell = tell
        self.session = requests.Session()
        self.session.headers.update(_HEADERS)

    def reach(self, url: str, *, patience_s: float = REACH_S) -> None:
        """Return as soon as the server of a URL answers, whatever it says.

        Raises:
            ConfigError: if it gives no answer in time.
        """
        answer: Future[None] = Future()

        def ask() -> None:
            try:
                self.session.head(url, timeout=(CONNECT_TIMEOUT_S, patience_s)).close()
                answer.set_result(None)
            except Exception as error:  # it belongs to whoever waits
                answer.set_exception(error)

        # In a thread, since looking up a name knows no timeout.
        threading.Thread(target=ask, daemon=True).start()
        try:
            answer.result(timeout=patience_s)
        except TimeoutError:
            problem = f"no answer within {patience_s:g} s"
        except requests.RequestException as error:
            problem = _reason(error)
        else:
            return
        raise ConfigError(
            f"{url} cannot be reached: {problem}. A download needs the network: check it, or the proxy in HTTPS_PROXY, "
            "or download on another machine and copy the file."
        )

    def get(self, url: str, read: Callable[[requests.Response], T], *, headers: Mapping[str, str] | None = None) -> T:
        """What ``read`` makes of the answer, asked for again while it fails for reasons that pass.

        Args:
            url: an http or https URL.
            read: consumes a successful answer; raises IncompleteError if that is not whole.
            headers: of the request.

        Raises:
            ConfigError: if the server refuses the request.
            DataError: if it fails as often as RETRIES allows.
        """
        retries = self.retries
        while True:
            raw = None
            try:
                timeout = (CONNECT_TIMEOUT_S, READ_TIMEOUT_S)
                with self.session.get(url, headers=headers, stream=True, timeout=timeout) as response:
                    if response.ok:
                        return read(response)
                    problem = f"HTTP {response.status_code} {response.reason}"
                    if response.status_code not in _TRY_AGAIN:
                        raise ConfigError(f"{url}: the server refuses it: {problem}{_said(response)}.")
                    raw = response.raw
            except _DROPPED as error:
                problem = _reason(error)
            try:
                retries = retries.increment("GET", url, error=IncompleteError(problem))
            except urllib3.exceptions.MaxRetryError as error:
                num_tries = len(retries.history) + 1
                raise DataError(
                    f"{url}: failed {num_tries} times, at last: {problem}. Run the same command later: it goes on "
                    "where it stopped."
                ) from error
            self.tell(f"{problem}; trying again")
            with contextlib.suppress(urllib3.exceptions.InvalidHeader):
                retries.sleep(raw)


class Partial(contextlib.AbstractContextManager["Partial"]):
    """The unfinished file of a download, and beside it what is known of it, so that another process can go on.

    ``OUTPUT.part`` and ``OUTPUT.part.json`` lie beside a local output, and for a URL in the user's cache folder.
    """

    def __init__(self, output: str, *, overwrite: bool) -> None:
        """Open what an earlier process left, or begin.

        Raises:
            ConfigError: if the output is finished and ``overwrite`` is not set, or another process writes it.
        """
        if files.is_folder(output):
            raise ConfigError(f"output {output} is a folder; name a file in it.")
        for path in (output, f"{output}.json"):
            if files.exists(path) and not overwrite:
                raise ConfigError(f"output {path} is there already; choose another file, or give --overwrite.")
        self.output = output
        local = output
        if files.is_url(output):
            name = f"{hash64(output):016x}-{output.rsplit('/', 1)[-1]}"
            local = str(platformdirs.user_cache_path("protclip") / "partial" / name)
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
        """Publish the file under its name, and the record beside it as ``OUTPUT.json``."""
        self.stream.flush()
        os.fsync(self.stream.fileno())
        files.remove(f"{self.output}.json")  # never the record of one file beside another
        if files.is_url(self.output):
            files.copy(self.path, self.output)
            self.path.unlink()
        else:
            os.replace(self.path, self.output)
        files.write_json(f"{self.output}.json", record)
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


def _said(response: requests.Response) -> str:
    """What an error's body says: the messages of UniProt's JSON, or nothing."""
    with contextlib.suppress(ValueError, TypeError, KeyError, requests.RequestException):
        return f" ({'; '.join(response.json()['messages'])})"
    return ""


def _reason(error: Exception) -> str:
    """The innermost message of the nested errors of requests and urllib3."""
    inner: Any = error
    while True:
        cause = getattr(inner, "reason", None) or next((arg for arg in inner.args if isinstance(arg, Exception)), None)
        if not isinstance(cause, Exception):
            break
        inner = cause
    text = str(inner) or type(inner).__name__
    return _CONNECTION_REPR.sub("", text)
