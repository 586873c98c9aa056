"""Keys with which clients identify themselves, and how many requests each may send.

A file of keys has a line ``NAME:SHA256[:RATE]`` for each, as ``protclip make-key`` prints it; the key itself is nowhere
but with its owner. SHA-256 is enough where a slow hash would be needed for passwords: a key is 256 random bits, which
nobody guesses however fast a guess is checked, and a slow hash would stop the server at each request.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field

from protclip import files
from protclip.errors import ConfigError, DataError
from serve.errors import RateLimitError, UnauthorizedError

NO_KEYS, ENVIRONMENT = "none", "environment"
NO_FILES = (NO_KEYS, ENVIRONMENT)
"""What ``keys`` may be beside a path."""
VARIABLE = "PROTCLIP_KEYS"
"""Holds the lines of a file of keys."""

PREFIX = "protclip_"
"""Of each key, so that programs that look for published secrets find it."""
_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Key:
    """What is kept of a key."""

    name: str
    """In the log, for instance."""
    digest: bytes
    """SHA-256 of the key."""
    rate: float | None
    """Requests a second, as many of them at once; None for any number. Each replica counts for itself."""


@dataclass(slots=True)
class _Bucket:
    """Token bucket of one key: a request takes one token; ``rate`` tokens come per second, at most one second's worth
    is kept."""

    key: Key
    tokens: float = field(init=False)
    filled_at: float

    def __post_init__(self) -> None:
        self.tokens = self.burst

    @property
    def burst(self) -> float:
        return max(1.0, self.key.rate or 0)

    def take(self, now: float) -> None:
        if self.key.rate is None:
            return
        self.tokens = min(self.burst, self.tokens + (now - self.filled_at) * self.key.rate)
        self.filled_at = now
        if self.tokens < 1:
            raise RateLimitError(
                f"the key {self.key.name!r} may send {self.key.rate:g} requests a second to each replica.",
                retry_after_s=(1 - self.tokens) / self.key.rate,
            )
        self.tokens -= 1


class Keys:
    """The keys of a server, and what each has left."""

    def __init__(self, keys: list[Key], *, clock: Callable[[], float]) -> None:
        """``clock`` gives seconds, such as ``time.monotonic``."""
        self._clock = clock
        self._buckets = [_Bucket(key, filled_at=clock()) for key in keys]

    def admit(self, authorization: bytes) -> str:
        """The name of the key in an Authorization header, of which one request is taken.

        Raises:
            UnauthorizedError: if it has no key, or one that is not known.
            RateLimitError: if the key has sent as many requests as it may.
        """
        scheme, _, given = authorization.partition(b" ")
        if scheme.lower() != b"bearer" or not given.strip():
            raise UnauthorizedError("give a key, in the header Authorization: Bearer KEY.")
        digest = hashlib.sha256(given.strip()).digest()
        found = None
        for bucket in self._buckets:  # all of them, so that the time says nothing
            if hmac.compare_digest(bucket.key.digest, digest):
                found = bucket
        if found is None:
            raise UnauthorizedError("this key is not known here.")
        found.take(self._clock())
        return found.key.name


def new_key(name: str, *, rate: float | None = None) -> tuple[str, str]:
    """A new key, and its line for the file.

    Args:
        name: of its owner.
        rate: requests a second; None for any number.

    Raises:
        ConfigError: for a name or a rate that cannot stand in the file.
    """
    _check_name(name, "this key")  # a colon in it would end it in the line
    key = PREFIX + secrets.token_urlsafe(32)
    line = f"{name}:{hashlib.sha256(key.encode()).hexdigest()}" + ("" if rate is None else f":{rate:g}")
    _parse(line, "this key")
    return key, line


def read_keys(setting: str) -> list[Key] | None:
    """The keys that ``AppArgs.keys`` names; None where everybody may ask.

    Raises:
        ConfigError: if they cannot be read, or there is none.
    """
    if setting == NO_KEYS:
        return None
    if setting == ENVIRONMENT:
        where, text = VARIABLE, os.environ.get(VARIABLE, "")
    else:
        where = setting
        try:
            text = files.read_text(setting)
        except (DataError, OSError) as error:
            raise ConfigError(f"keys: {setting} cannot be read ({error}).") from error
    keys = [
        _parse(line.strip(), f"{where}, line {number}")
        for number, line in enumerate(text.splitlines(), start=1)
        if line.strip() and not line.lstrip().startswith("#")
    ]
    if not keys:
        raise ConfigError(f"{where}: holds no key; make one with `protclip make-key NAME`.")
    names = [key.name for key in keys]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ConfigError(f"{where}: the name {twice!r} stands there twice; give each key its own.")
    return keys


def _check_name(name: str, where: str) -> None:
    if not _NAME.fullmatch(name):
        raise ConfigError(f"{where}: {name!r} is no name; allowed are up to 64 letters, digits, '.', '_' and '-'.")


def _parse(line: str, where: str) -> Key:
    name, _, rest = line.partition(":")
    digest, colon, rate = rest.partition(":")
    _check_name(name, where)
    if not _DIGEST.fullmatch(digest):
        # What stands there may be a key by mistake, so it is not shown.
        raise ConfigError(
            f"{where}: after {name!r} comes no SHA-256 of 64 hexadecimal digits in small letters; `protclip make-key` "
            "prints the whole line."
        )
    try:
        per_second = float(rate) if colon else None
    except ValueError:
        per_second = 0
    if per_second is not None and not 0 < per_second <= 1e6:
        raise ConfigError(f"{where}: {rate!r} is no rate; give requests a second, above 0 and at most 1,000,000.")
    return Key(name=name, digest=bytes.fromhex(digest), rate=per_second)
