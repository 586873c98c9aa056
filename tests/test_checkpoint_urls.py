"""A checkpoint at a URL is fetched into the cache, file by file against its manifest, and followed when it changes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
from published_server import PublishedServer, serving
from tiny_model import tiny_model
from urllib3.util.retry import Retry

from protclip import ProtCLIP
from protclip.errors import CheckpointError, ConfigError, DataError
from protclip.http_client import Client

pytestmark = pytest.mark.unit


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PublishedServer]:
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setenv("PROTCLIP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(Client.__init__.__kwdefaults__, "retries", Retry(total=2, backoff_factor=0))
    with serving(PublishedServer()) as server:
        yield server


def pages_of(folder: Path, seed: int) -> dict[str, bytes]:
    """What a web server would have of a checkpoint."""
    tiny_model(seed=seed).save_pretrained(str(folder))
    return {f"/models/{path.relative_to(folder)}": path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_a_web_servers_folder_is_cached_followed_and_used_without_it(server: PublishedServer, tmp_path: Path) -> None:
    url = f"{server.url}/models/"
    server.pages = pages_of(tmp_path / "a", seed=0)
    first = ProtCLIP.from_pretrained(url).fingerprint
    assert first == tiny_model().fingerprint
    weights = server.pages.pop("/models/model.safetensors")
    assert ProtCLIP.from_pretrained(url).fingerprint == first  # from the cache
    server.pages = pages_of(tmp_path / "b", seed=1)
    assert ProtCLIP.from_pretrained(url).fingerprint == tiny_model(seed=1).fingerprint
    server.pages.clear()
    assert ProtCLIP.from_pretrained(url).fingerprint == tiny_model(seed=1).fingerprint
    # A file that is not the manifest's, one that is missing, and no checkpoint at all.
    server.pages = pages_of(tmp_path / "c", seed=2)
    server.pages["/models/model.safetensors"] = weights
    with pytest.raises(
        DataError, match=r"models/model\.safetensors: the download has SHA256 .* but manifest\.json says"
    ):
        ProtCLIP.from_pretrained(url)
    del server.pages["/models/model.safetensors"]
    with pytest.raises(ConfigError, match=r"models/model\.safetensors: the server refuses it: HTTP 404"):
        ProtCLIP.from_pretrained(url)
    with pytest.raises(ConfigError, match=r"none/manifest\.json: the server refuses it: HTTP 404"):
        ProtCLIP.from_pretrained(f"{server.url}/none")
    server.pages["/models/manifest.json"] = b'{"kind": "index"}'
    with pytest.raises(CheckpointError, match="is not the manifest of a checkpoint"):
        ProtCLIP.from_pretrained(url)


def test_a_stores_folder_is_cached_and_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROTCLIP_CACHE", str(tmp_path / "cache"))
    url, store = "memory://bucket/model", fsspec.filesystem("memory")
    for seed in (0, 1):
        tiny_model(seed=seed).save_pretrained(url)
        assert ProtCLIP.from_pretrained(url).fingerprint == tiny_model(seed=seed).fingerprint
    store.rm("/bucket/model", recursive=True)
    assert ProtCLIP.from_pretrained(url).fingerprint == tiny_model(seed=1).fingerprint
    with pytest.raises(CheckpointError, match="memory://bucket/none: is missing"):
        ProtCLIP.from_pretrained("memory://bucket/none")
