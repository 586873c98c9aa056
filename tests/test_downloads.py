"""Files from a server that breaks off, or has another file than it says."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from uniprot_server import UniProtServer, serving
from urllib3.util.retry import Retry

from protclip import downloads
from protclip.downloads import RemoteFile, fetch_once
from protclip.errors import ConfigError, DataError
from protclip.http_client import Client

pytestmark = pytest.mark.unit

DATA = random.Random(0).randbytes(300_000)
MD5 = hashlib.md5(DATA).hexdigest()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[UniProtServer]:
    monkeypatch.setenv("NO_PROXY", "*")
    with serving(UniProtServer(files={"data.gz": DATA})) as server:
        yield server


@pytest.fixture
def remote(server: UniProtServer) -> RemoteFile:
    return RemoteFile(url=f"{server.url}/data.gz", num_bytes=len(DATA), checksum=f"md5:{MD5}", listed_in="the list")


def fetch(remote: RemoteFile, output: Path) -> dict[str, Any]:
    """In at most three tries."""
    return fetch_once(Client(retries=Retry(total=2, backoff_factor=0)), remote, str(output))


def test_a_download_that_broke_off_goes_on_at_that_byte(
    server: UniProtServer, remote: RemoteFile, tmp_path: Path
) -> None:
    server.page_faults = ["drop"] * 6  # more than the tries: whatever arrives renews them
    fetch(remote, tmp_path / "data.gz")
    assert (tmp_path / "data.gz").read_bytes() == DATA
    assert server.ranges[:3] == ["bytes=0-", "bytes=150000-", "bytes=225000-"]


def test_another_process_goes_on_at_that_byte_too(server: UniProtServer, remote: RemoteFile, tmp_path: Path) -> None:
    server.page_faults = ["drop", "503", "503", "503"]
    with pytest.raises(DataError, match="HTTP 503"):
        fetch(remote, tmp_path / "data.gz")
    assert (tmp_path / "data.gz.part").stat().st_size == 150_000
    server.ranges.clear()
    fetch(remote, tmp_path / "data.gz")
    assert server.ranges == ["bytes=150000-"]
    assert (tmp_path / "data.gz").read_bytes() == DATA


def test_a_server_without_ranges_starts_over(server: UniProtServer, remote: RemoteFile, tmp_path: Path) -> None:
    server.page_faults = ["drop", "no range"]
    fetch(remote, tmp_path / "data.gz")
    assert (tmp_path / "data.gz").read_bytes() == DATA


@pytest.mark.parametrize(
    ("listed", "message"),
    [
        ({"checksum": f"md5:{'0' * 32}"}, rf"has MD5 {MD5}, but the list says 0{{32}}"),
        ({"checksum": f"sha256:{'0' * 64}"}, rf"has SHA256 {hashlib.sha256(DATA).hexdigest()}, but the list says 0"),
        ({"num_bytes": 200_000}, "gave 300,000 bytes, but should have 200,000"),
    ],
)
def test_another_file_than_the_listed_one_is_refused_and_not_gone_on_with(
    remote: RemoteFile, tmp_path: Path, listed: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        fetch(replace(remote, **listed), tmp_path / "data.gz")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_said_before_the_download(
    server: UniProtServer, remote: RemoteFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downloads.shutil, "disk_usage", lambda _: SimpleNamespace(free=10))
    with pytest.raises(ConfigError, match="needs 300,000 bytes more, but the disk has 10"):
        fetch(remote, tmp_path / "data.gz")
    assert server.ranges == []
