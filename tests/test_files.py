"""Paths and URLs: what is there now is what is seen."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from s3_server import place, s3  # noqa: F401

from protclip import files
from protclip.errors import ConfigError, DataError


def test_what_another_process_writes_or_removes_after_a_listing_is_seen(s3: str) -> None:  # noqa: F811
    import s3fs

    other = s3fs.S3FileSystem(skip_instance_cache=True, use_listings_cache=False)
    folder = f"{s3}/listed"
    files.write_json(f"{folder}/old.json", 1)
    assert files.list_folder(folder) == ["old.json"]
    fs, inner = files.filesystem(folder)
    assert len(fs.find(inner)) == len(fs.ls(inner)) == len(fs.glob(f"{inner}/*.json")) == 1
    other.pipe(f"{folder}/new.json", b"2")
    other.pipe(f"{folder}/below/new.json", b"3")
    assert files.exists(f"{folder}/new.json")
    assert files.size(f"{folder}/new.json") == 1
    assert files.read_json(f"{folder}/new.json") == 2
    assert files.is_folder(f"{folder}/below")
    assert len(fs.glob(f"{inner}/*.json")) == 2
    assert files.list_folder(folder) == ["below", "new.json", "old.json"]
    other.rm(f"{folder}/old.json")
    assert not files.exists(f"{folder}/old.json")
    other.pipe(f"{folder}/new.json", b"12345")
    assert files.size(f"{folder}/new.json") == 5


@pytest.mark.unit
@pytest.mark.parametrize("url", ["memory://bucket", "file:///tmp", "http://localhost", "ftp-no-such://x"])
def test_every_kind_of_url_has_its_file_system_or_is_refused(url: str) -> None:
    if url.startswith("ftp-"):
        with pytest.raises(files.ConfigError, match="no file system"):
            files.filesystem(url)
    else:
        assert files.filesystem(url)[0]


@pytest.mark.unit
@pytest.mark.parametrize("path", ["/tmp/a\0b", "/tmp/\ud800"])
def test_a_path_that_no_file_can_have_is_refused(path: str) -> None:
    with pytest.raises(ConfigError, match="no file can have this name"):
        files.exists(path)


@pytest.mark.unit
def test_a_folder_that_may_not_be_listed_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str) -> None:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr("os.scandir", refuse)
    for look in (files.list_folder, files.times):
        with pytest.raises(
            DataError, match=r"cannot be read .*Permission denied.*; check the path and its permissions"
        ):
            look(str(tmp_path))


@pytest.mark.unit
@pytest.mark.parametrize(
    "url",
    [
        "s3://KEY:open-sesame@bucket/a",
        "sftp://me:open-sesame@host/a",
        "https://host/a?X-Amz-Signature=open-sesame",
        "https://host/a?x=1&token=open-sesame",
    ],
)
def test_a_url_with_a_secret_is_refused_and_the_secret_is_not_repeated(url: str) -> None:
    with pytest.raises(ConfigError, match="the URL holds a password") as caught:
        files.exists(url)
    assert "sesame" not in str(caught.value)
    for good in ("file:///tmp/a@b:c", "/tmp/a:b@c", "memory://bucket/a?b=1"):
        files.exists(good)


def test_times_are_those_of_the_storage_from_one_listing(place: str) -> None:  # noqa: F811
    assert files.times(f"{place}/times") == {}
    before = datetime.now(UTC) - timedelta(seconds=2)  # object stores tell whole seconds
    files.write_json(f"{place}/times/a.json", 1)
    files.write_json(f"{place}/times/b.json", 2)
    found = files.times(f"{place}/times")
    assert sorted(found) == ["a.json", "b.json"]
    assert all(when is not None and before <= when <= datetime.now(UTC) for when in found.values())
    if not files.is_url(place):
        os.utime(Path(place, "times", "a.json"), (1000.0, 1000.0))
        assert files.times(f"{place}/times")["a.json"] == datetime.fromtimestamp(1000, UTC)
