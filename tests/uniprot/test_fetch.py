"""Entries and release files from a server that behaves as UniProt's do, faults included."""

from __future__ import annotations

import datetime
import gzip
import hashlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from uniprot_server import XML_HEAD, XML_TAIL, UniProtServer, metalink, page_body, serving
from urllib3.util.retry import Retry

from protclip.commands.fetch_uniprot import main
from protclip.downloads import Partial
from protclip.errors import ConfigError, DataError
from protclip.http_client import Client
from protclip.protanno.synthetic import synthetic_proteome
from protclip.uniprot import fetch
from protclip.uniprot.fetch import fetch_query, fetch_release_file
from protclip.uniprot.formats import open_entries

pytestmark = pytest.mark.unit

ENTRIES = list(synthetic_proteome(23, 3, seed=1))
NOW = datetime.datetime(2026, 11, 22, 12, tzinfo=datetime.UTC)
DATA = random.Random(0).randbytes(300_000)


@pytest.fixture(autouse=True)
def _direct_and_in_small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setattr(fetch, "PAGE_ENTRIES", 5)


@pytest.fixture
def server() -> Iterator[UniProtServer]:
    with serving(UniProtServer(entries=ENTRIES, files={"uniprot_sprot.dat.gz": DATA})) as server:
        yield server


def client(num_tries: int = 3) -> Client:
    return Client(retries=Retry(total=num_tries - 1, backoff_factor=0))


def query(server: UniProtServer, output: Path, **options: Any) -> dict[str, Any]:
    arguments = {"client": client(), "now": NOW, "base_url": server.url, **options}
    return fetch_query("reviewed:true", str(output), **arguments)


def release_file(server: UniProtServer, output: Path, **options: Any) -> dict[str, Any]:
    arguments = {"client": client(), "now": NOW, "base_url": server.url, **options}
    return fetch_release_file("uniprot_sprot.dat.gz", str(output), **arguments)


def text(path: Path) -> str:
    data = path.read_bytes()
    return (gzip.decompress(data) if path.suffix == ".gz" else data).decode()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize(("ending", "form"), [("dat", "txt"), ("txt", "txt"), ("tsv", "tsv"), ("fasta", "fasta")])
@pytest.mark.parametrize("packing", ["", ".gz"])
def test_all_pages_make_the_file_that_one_page_would_be(
    server: UniProtServer, tmp_path: Path, ending: str, form: str, packing: str
) -> None:
    output = tmp_path / f"all.{ending}{packing}"
    record = query(server, output)
    assert text(output) == page_body(ENTRIES, form).decode()
    assert server.pages == [0, 5, 10, 15, 20]
    assert (server.queries[0].get("fields") is not None) == (form == "tsv")
    assert json.loads((tmp_path / f"{output.name}.json").read_text()) == record
    assert record == {
        "query": "reviewed:true",
        "format": form,
        "limit": None,
        "url": record["url"],
        "release": "2026_03",
        "release_date": "02-September-2026",
        "entries": 23,
        "bytes": output.stat().st_size,
        "sha256": hashlib.sha256(output.read_bytes()).hexdigest(),
        "fetched": "2026-11-22T12:00:00+00:00",
        "license": "CC BY 4.0, The UniProt Consortium",
        "software": record["software"],
    }
    assert names(tmp_path) == [output.name, f"{output.name}.json"]


@pytest.mark.parametrize("limit", [None, 7])
def test_pages_of_xml_become_one_document(server: UniProtServer, tmp_path: Path, limit: int | None) -> None:
    query(server, tmp_path / "all.xml.gz", limit=limit)
    found = text(tmp_path / "all.xml.gz")
    assert found == page_body(ENTRIES[:limit], "xml").decode() + "\n"
    assert (found.count(XML_HEAD), found.count(XML_TAIL)) == (1, 1)


@pytest.mark.parametrize("limit", [3, 5, 12, 23, 100])
def test_a_limit_gives_the_first_entries(server: UniProtServer, tmp_path: Path, limit: int) -> None:
    assert query(server, tmp_path / "some.dat", limit=limit)["entries"] == min(limit, 23)
    assert text(tmp_path / "some.dat") == "".join(ENTRIES[:limit])
    assert len(server.pages) == -(-min(limit, 23) // 5)


def test_our_reader_reads_the_members_of_a_fetched_file(server: UniProtServer, tmp_path: Path) -> None:
    query(server, tmp_path / "all.dat.gz")
    assert len(list(open_entries(str(tmp_path / "all.dat.gz")))) == 23


@pytest.mark.parametrize("fault", ["drop", "503", "429", "truncate"])
@pytest.mark.slow
def test_a_page_that_failed_is_asked_for_again(server: UniProtServer, tmp_path: Path, fault: str) -> None:
    server.page_faults = ["", "", fault, "drop"]
    started = time.monotonic()
    query(server, tmp_path / "all.dat.gz")
    assert text(tmp_path / "all.dat.gz") == "".join(ENTRIES)
    assert server.pages == [0, 5, 10, 10, 10, 15, 20]
    assert fault != "429" or time.monotonic() - started > 0.99  # Retry-After: 1


def test_what_has_arrived_is_kept_when_the_service_fails_for_good(server: UniProtServer, tmp_path: Path) -> None:
    server.page_faults = ["", "", "503", "503", "503"]
    with pytest.raises(DataError, match=r"failed 3 times, at last: HTTP 503 .*goes on where it stopped"):
        query(server, tmp_path / "all.dat.gz")
    assert names(tmp_path) == ["all.dat.gz.part", "all.dat.gz.part.json"]
    server.pages.clear()
    lines: list[str] = []
    query(server, tmp_path / "all.dat.gz", tell=lines.append)
    assert text(tmp_path / "all.dat.gz") == "".join(ENTRIES)
    assert server.pages == [10, 15, 20]
    assert lines == ["23 entries of UniProt 2026_03 to fetch, 10 of them here already"]


def test_what_was_written_after_the_last_whole_page_is_cut_off(server: UniProtServer, tmp_path: Path) -> None:
    server.page_faults = ["", "503", "503", "503"]
    with pytest.raises(DataError):
        query(server, tmp_path / "all.dat.gz")
    with (tmp_path / "all.dat.gz.part").open("ab") as stream:
        stream.write(b"half a page")
    query(server, tmp_path / "all.dat.gz")
    assert text(tmp_path / "all.dat.gz") == "".join(ENTRIES)


@pytest.mark.slow
def test_a_killed_fetch_typed_again_has_every_entry_once(server: UniProtServer, tmp_path: Path) -> None:
    server.hold_after = 2
    command = [sys.executable, "-c", "from protclip.uniprot import fetch; fetch.PAGE_ENTRIES = 5\n"]
    command[-1] += "from protclip.__main__ import main; main()"
    arguments = ["fetch-uniprot", "--query", "x", "--output", "all.dat.gz", "--base-url", server.url]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    process = subprocess.Popen([*command, *arguments], cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL)
    assert server.waiting.wait(30)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert names(tmp_path) == ["all.dat.gz.part", "all.dat.gz.part.json"]
    server.hold_after = None
    server.go_on.set()
    server.pages.clear()
    again = subprocess.run(
        [*command, *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert server.pages == [10, 15, 20]
    assert text(tmp_path / "all.dat.gz") == "".join(ENTRIES)
    assert names(tmp_path) == ["all.dat.gz", "all.dat.gz.json"]
    assert again.stderr == ""
    assert again.stdout.splitlines()[0] == "23 entries of UniProt 2026_03 to fetch, 10 of them here already"


def test_another_release_between_two_pages_or_two_runs_is_refused(server: UniProtServer, tmp_path: Path) -> None:
    server.page_faults = ["", "503", "503", "503"]
    with pytest.raises(DataError):
        query(server, tmp_path / "all.dat")
    server.release = "2026_04"
    with pytest.raises(DataError, match=r"begun with UniProt 2026_03.* at 2026_04 now.*--overwrite"):
        query(server, tmp_path / "all.dat")
    assert query(server, tmp_path / "all.dat", overwrite=True)["release"] == "2026_04"
    assert text(tmp_path / "all.dat") == "".join(ENTRIES)


def test_another_number_of_entries_is_refused(server: UniProtServer, tmp_path: Path) -> None:
    server.page_faults = ["", "503", "503", "503"]
    with pytest.raises(DataError):
        query(server, tmp_path / "all.dat")
    server.entries = ENTRIES[:22]
    with pytest.raises(DataError, match=r"found 23 entries when it was begun and 22 now"):
        query(server, tmp_path / "all.dat")


def test_pages_that_end_early_are_refused(server: UniProtServer, tmp_path: Path) -> None:
    server.page_faults = ["", "no link"]
    with pytest.raises(DataError, match="10 entries arrived, but 23 were announced"):
        query(server, tmp_path / "all.dat")
    assert not (tmp_path / "all.dat").exists()


def test_a_refused_or_empty_query_says_why_and_leaves_nothing(server: UniProtServer, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"refuses it: HTTP 400 .*'nonsense' is not a valid search field"):
        fetch_query("nonsense:", str(tmp_path / "all.dat"), client=client(), now=NOW, base_url=server.url)
    server.entries = []
    with pytest.raises(ConfigError, match="no entry of UniProtKB matches the query 'reviewed:true'"):
        query(server, tmp_path / "all.dat")
    assert names(tmp_path) == []


def test_a_finished_or_foreign_output_is_not_touched(server: UniProtServer, tmp_path: Path) -> None:
    (tmp_path / "mine.dat").write_text("years of work")
    with pytest.raises(ConfigError, match="there already"):
        query(server, tmp_path / "mine.dat")
    (tmp_path / "folder.dat").mkdir()
    with pytest.raises(ConfigError, match="is a folder"):
        query(server, tmp_path / "folder.dat")
    (tmp_path / "odd.dat.part").mkdir()
    with pytest.raises(ConfigError, match=r"odd\.dat cannot be written"):
        query(server, tmp_path / "odd.dat")
    (tmp_path / "notes.dat.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"notes\.dat\.json is there already"):
        query(server, tmp_path / "notes.dat")
    server.page_faults = ["", "503", "503", "503"]
    with pytest.raises(DataError):
        query(server, tmp_path / "all.dat")
    with pytest.raises(ConfigError, match="begun with another query"):
        query(server, tmp_path / "all.dat", limit=9)
    with (
        Partial(str(tmp_path / "all.dat"), overwrite=False),
        pytest.raises(ConfigError, match="being written by another process"),
    ):
        query(server, tmp_path / "all.dat")
    assert server.pages == [0, 5, 5, 5]


def test_a_url_is_an_output_too_and_is_resumed(
    server: UniProtServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fsspec

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    server.page_faults = ["", "503", "503", "503"]
    for _ in range(2):
        try:
            record = fetch_query("x", "memory://bucket/all.dat.gz", client=client(), now=NOW, base_url=server.url)
        except DataError:
            server.pages.clear()
    assert server.pages == [5, 10, 15, 20]
    with fsspec.open("memory://bucket/all.dat.gz") as stream:
        assert gzip.decompress(stream.read()).decode() == "".join(ENTRIES)
    with fsspec.open("memory://bucket/all.dat.gz.json") as stream:
        assert json.load(stream) == record
    assert list((tmp_path / "protclip" / "partial").iterdir()) == []


def test_a_release_file_is_checked_and_recorded(server: UniProtServer, tmp_path: Path) -> None:
    lines: list[str] = []
    record = release_file(server, tmp_path / "s.dat.gz", tell=lines.append)
    assert (tmp_path / "s.dat.gz").read_bytes() == DATA
    assert lines == ["uniprot_sprot.dat.gz of UniProt 2026_03: 300,000 bytes to download"]
    assert json.loads((tmp_path / "s.dat.gz.json").read_text()) == record
    assert record["release"] == "2026_03"
    assert record["bytes"] == 300_000
    assert record["md5"] == hashlib.md5(DATA).hexdigest()
    assert record["sha256"] == hashlib.sha256(DATA).hexdigest()
    assert names(tmp_path) == ["s.dat.gz", "s.dat.gz.json"]


def test_a_new_release_in_the_middle_of_a_file_is_refused(server: UniProtServer, tmp_path: Path) -> None:
    server.page_faults = ["drop", "503", "503", "503"]
    with pytest.raises(DataError):
        release_file(server, tmp_path / "s.dat.gz")
    server.release, server.files["uniprot_sprot.dat.gz"] = "2026_04", DATA[::-1]
    with pytest.raises(DataError, match=r"begun with .*release 2026_03.* at .*release 2026_04 now.*--overwrite"):
        release_file(server, tmp_path / "s.dat.gz")
    assert release_file(server, tmp_path / "s.dat.gz", overwrite=True)["release"] == "2026_04"
    assert (tmp_path / "s.dat.gz").read_bytes() == DATA[::-1]


def test_what_the_metalink_says_of_a_file_is_held_to(server: UniProtServer, tmp_path: Path) -> None:
    good = metalink(server)
    server.metalink = good.replace(hashlib.md5(DATA).hexdigest(), "0" * 32)
    with pytest.raises(DataError, match=rf"has MD5 {hashlib.md5(DATA).hexdigest()}, but RELEASE.metalink says 0{{32}}"):
        release_file(server, tmp_path / "s.dat.gz")
    server.metalink = good.replace("<size>300000<", "<size>200000<")
    with pytest.raises(DataError, match="gave 300,000 bytes, but should have 200,000"):
        release_file(server, tmp_path / "s.dat.gz")
    assert names(tmp_path) == []


def test_an_unknown_file_is_said_before_the_download(server: UniProtServer, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"lists no file 'x'; it has uniprot_sprot\.dat\.gz"):
        fetch_release_file("x", str(tmp_path / "x"), client=client(), now=NOW, base_url=server.url)
    server.metalink = "<html>"
    with pytest.raises(DataError, match="is not a list of release files"):
        release_file(server, tmp_path / "s.dat.gz")
    assert server.ranges == []


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_the_command_tells_size_and_result(server: UniProtServer, tmp_path: Path) -> None:
    result = run("--query", "x", "--output", tmp_path / "all.dat.gz", "--base-url", f"{server.url}/")
    assert result.exit_code == 0, result.output
    size = (tmp_path / "all.dat.gz").stat().st_size
    assert result.stdout.splitlines() == [
        "23 entries of UniProt 2026_03 to fetch",
        f"fetch-uniprot: 23 entries of UniProt 2026_03, {size:,} bytes → {tmp_path}/all.dat.gz",
    ]
    record = json.loads((tmp_path / "all.dat.gz.json").read_text())
    assert record["url"].startswith(f"{server.url}/uniprotkb/search?query=x&")
    result = run("--release-file", "uniprot_sprot.dat.gz", "--output", tmp_path, "--base-url", server.url)
    assert result.exit_code == 0, result.output
    assert (tmp_path / "uniprot_sprot.dat.gz").read_bytes() == DATA


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "either --query or --release-file"),
        (["--query", "x", "--release-file", "y"], "either --query or --release-file"),
        (["--release-file", "y", "--limit", "3"], "a release file is fetched whole"),
        (["--query", "x"], r"the name's ending decides on the format; known are \.dat"),
    ],
)
def test_arguments_that_cannot_be_meant_are_refused(arguments: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        raise run(*arguments, "--output", "out.csv").exception or AssertionError


def test_without_a_network_the_command_says_so_and_leaves_nothing(tmp_path: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # so that nobody else listens there
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
        error = run("--query", "x", "--output", tmp_path / "x.dat", "--base-url", url).exception
    assert isinstance(error, ConfigError) and "cannot be reached" in str(error)
    assert names(tmp_path) == []
