"""A record on Zenodo: what it is, and its files with sizes and checksums, as its API lists them.

https://developers.zenodo.org/#records
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from protclip import files
from protclip.checked import Count, checked
from protclip.downloads import RemoteFile
from protclip.errors import ConfigError
from protclip.http_client import Client

API_URL = "https://zenodo.org/api"

_FileName = Annotated[str, re.compile(r"[A-Za-z0-9_][\w.+() -]*")]
"""Without folders, since it is written by this name."""
_Checksum = Annotated[str, re.compile("md5:[0-9a-f]{32}|sha256:[0-9a-f]{64}")]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Links:
    self: str


@dataclass(frozen=True, kw_only=True, slots=True)
class _File:
    key: _FileName
    size: Count
    checksum: _Checksum
    links: _Links


@dataclass(frozen=True, kw_only=True, slots=True)
class _License:
    id: str


@dataclass(frozen=True, kw_only=True, slots=True)
class _Metadata:
    title: str
    license: _License | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class _Record:
    """The fields of the API's answer that are used here."""

    doi: str
    metadata: _Metadata
    files: tuple[_File, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class ZenodoRecord:
    """A published record."""

    url: str
    """Of the API's answer."""
    title: str
    doi: str
    license: str | None
    """As the record states it, such as ``cc-by-4.0``."""
    files: Mapping[str, RemoteFile]

    def file(self, name: str) -> RemoteFile:
        """One of its files.

        Raises:
            ConfigError: if there is none of this name.
        """
        if name not in self.files:
            listed = ", ".join(f"{known} ({file.num_bytes:,} bytes)" for known, file in sorted(self.files.items()))
            raise ConfigError(f"{self.url}: lists no file {name!r:.80}; it has {listed}.")
        return self.files[name]

    def origin(self) -> dict[str, Any]:
        """What a manifest records of it."""
        return {"record": self.url, "title": self.title, "doi": self.doi, "license": self.license}


def read_record(client: Client, number: int, api_url: str) -> ZenodoRecord:
    """Ask for a record.

    Args:
        client: of the network, which was found to be there.
        number: of the record.
        api_url: of Zenodo's API, without a slash at the end.

    Raises:
        ConfigError: if the server refuses.
        DataError: if it fails for good, or answers with something else.
    """
    url = f"{api_url}/records/{number}"
    answer = files.parse_json(client.get(url, lambda response: response.content).decode(errors="replace"), url)
    record = checked(_Record, answer, url, remedy="Zenodo's API describes a record otherwise: check --base-url")
    return ZenodoRecord(
        url=url,
        title=record.metadata.title,
        doi=record.doi,
        license=None if record.metadata.license is None else record.metadata.license.id,
        files={
            file.key: RemoteFile(
                url=file.links.self, num_bytes=file.size, checksum=file.checksum, listed_in="the record"
            )
            for file in record.files
        },
    )
