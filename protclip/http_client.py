"""Requests that survive a bad network: they are made again.

Timeouts bound every wait. What is wrong with the network is one ProtclipError that says so, never a traceback.
``protclip.downloads`` keeps and continues what has arrived.
"""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any, TypeVar

import requests
import urllib3
from urllib3.util.retry import Retry

from protclip.errors import ConfigError, DataError
from protclip.version import __version__

T = TypeVar("T")

CONNECT_TIMEOUT_S = 5.0
READ_TIMEOUT_S = 60.0
"""The longest silence between two pieces of an answer."""
REACH_S = 20.0
"""In which a server must have given any answer at all for a download to begin."""
SOON_S = 5.0
"""The same for what is fetched by its name where a model is needed: a machine without a network says so soon."""
RETRIES = Retry(total=7, backoff_factor=1, backoff_max=60, retry_after_max=300)
"""Tries after the first: at once, then after 2, 4, 8 … seconds, or when the server's Retry-After says."""

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
            "or run this on another machine and copy what it writes."
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
