"""Where a client asks, as whom, and how long it waits."""

from __future__ import annotations

import contextlib
import math
import os
import re
from collections.abc import Iterator
from urllib.parse import urlsplit

import httpx2

from protclip.client.steps import KEY_VARIABLE, Send, Servers
from protclip.errors import ConfigError
from protclip.version import __version__

TIMEOUT_S = 75.0
"""Longer than a server, or HAProxy before it, lets a request wait."""
PATIENCE_S = 120.0
"""Longer than a server needs to start again."""
CONNECT_TIMEOUT_S = 5.0
NO_PROXY = dict.fromkeys(("all://localhost", "all://127.0.0.1", "all://[::1]"))
"""The environment's proxies know nothing of this machine's own servers."""


class Connection:
    """What both clients are made of: addresses, key, time limits."""

    def __init__(
        self,
        *addresses: str,
        key: str | None = None,
        timeout_s: float = TIMEOUT_S,
        patience_s: float = PATIENCE_S,
    ) -> None:
        """Nothing is sent yet.

        Args:
            addresses: such as ``http://127.0.0.1:8000``, of one server, or of several with the same model and index:
                the first is asked, and where it does not answer the next, and so on.
            key: that the server wants; None takes the environment's PROTCLIP_KEY, and where there is none, none.
            timeout_s: the longest silence of a server that has a request.
            patience_s: for each request, all its tries and waits together. It bounds silence, not transfer: an answer
                that keeps arriving is read to its end.

        Raises:
            ConfigError: for an address or a key that cannot be.
        """
        if not addresses:
            raise ConfigError("no address is given; give one, such as http://127.0.0.1:8000.")
        self.servers = Servers(
            addresses=tuple(map(_address, addresses)),
            timeout_s=_seconds("timeout_s", timeout_s),
            patience_s=_seconds("patience_s", patience_s),
        )
        self.headers = {"User-Agent": f"protclip/{__version__}", "Content-Type": "application/json"}
        key = os.environ.get(KEY_VARIABLE) if key is None else key
        if key:
            if not re.fullmatch(r"[\x21-\x7e]+", key):
                raise ConfigError("the key holds white space, or what is not ASCII; `protclip make-key` makes keys.")
            self.headers["Authorization"] = f"Bearer {key}"

    def request(self, http: httpx2.Client | httpx2.AsyncClient, send: Send) -> httpx2.Request:
        """A request as a step says; nothing is sent."""
        # Who waits for a connection of the pool waits for requests of its own.
        timeout = httpx2.Timeout(send.timeout_s, connect=min(CONNECT_TIMEOUT_S, send.timeout_s), pool=None)
        return http.build_request(send.method, send.url, content=send.body, timeout=timeout)

    @contextlib.contextmanager
    def environment(self) -> Iterator[None]:
        """Tell of variables of the environment with which no connection can be made.

        Raises:
            ConfigError: for them.
        """
        try:
            yield
        except (ImportError, OSError, ValueError) as error:
            raise ConfigError(
                f"the environment's HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, SSL_CERT_FILE or SSL_CERT_DIR cannot be used "
                f"({error}); mend it, or unset it."
            ) from error

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(map(repr, self.servers.addresses))})"


def _address(given: str) -> str:
    """An address without a / at its end, where it is one."""
    try:
        url = urlsplit(given)
        usable = url.scheme in ("http", "https") and url.hostname and url.port != 0
        httpx2.URL(given)
        url.hostname and url.hostname.encode("idna")  # as it is looked up
    except (ValueError, httpx2.InvalidURL):
        usable = False
    if not usable or url.username is not None or url.query or url.fragment:
        raise ConfigError(f"address {given!r:.200}: is no http://HOST:PORT or https://HOST, with or without a path.")
    return given.rstrip("/")


def _seconds(name: str, value: float) -> float:
    if not 0 < value < math.inf:
        raise ConfigError(f"{name}={value!r:.60}: seconds above 0 are needed.")
    return float(value)
