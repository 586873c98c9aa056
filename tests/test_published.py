"""The authors' checkpoint and data set, from servers that behave as Zenodo and GitHub do, faults included."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from click.testing import CliRunner, Result
from official_model import official_model, write_official
from published_server import PublishedServer, serving
from tiny_model import tiny_model
from urllib3.util.retry import Retry

from protclip import ProtCLIP, checkpoint_cache, downloads, published
from protclip.__main__ import cli
from protclip.errors import CheckpointError, ConfigError, DataError, ProtclipError
from protclip.http_client import Client
from protclip.manifest import read_manifest
from protclip.uniprot.formats import open_entries

pytestmark = pytest.mark.unit

PAIRS = b'{"seq": "MKVLAA", "text": "PROTEIN NAME: Some protein. FUNCTION: Binds heme."}\n' * 2000
WEIGHTS = published.WEIGHTS


@pytest.fixture(scope="module")
def official(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The authors' folder, and beside it the text tokenizer's."""
    folder = tmp_path_factory.mktemp("official")
    tiny_model().text_tokenizer.save(str(folder / "bert"))
    model = official_model()
    return write_official(folder / "official", model.published_tensors(), model.config(), torch.float16)


@pytest.fixture
def server(official: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PublishedServer]:
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setenv("PROTCLIP_CACHE", str(tmp_path / "cache"))
    # Little patience, for what the commands make too.
    monkeypatch.setitem(Client.__init__.__kwdefaults__, "retries", Retry(total=2, backoff_factor=0))
    weights = (official / WEIGHTS).read_bytes()
    config = (official / "config.json").read_bytes()
    with serving(
        PublishedServer(files={WEIGHTS: weights, "ProtAnno-S.json": PAIRS}, pages={"/raw/config.json": config})
    ) as server:
        yield server


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


def fetch(server: PublishedServer, official: Path, *arguments: object) -> Result:
    places = ("--base-url", f"{server.api_url}/", "--config", server.config_url)
    return run("fetch-model", "published", *places, "--text-tokenizer", official.parent / "bert", *arguments)


def error_of(result: Result) -> str:
    assert isinstance(result.exception, ProtclipError), result.output
    return f"{type(result.exception).__name__}: {result.exception}"


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_published_is_told_fetched_and_imported(server: PublishedServer, official: Path, tmp_path: Path) -> None:
    result = fetch(server, official, "--output", tmp_path / "ours")
    assert result.exit_code == 0, result.output
    num_bytes = len(server.files[WEIGHTS])
    what, terms, size, importing, last = result.stdout.splitlines()
    assert what.startswith("ProtAnno (https://doi.org/10.5281/zenodo.15245588): the checkpoint of ProtCLIP")
    assert terms.startswith("Its record states the licence cc-by-4.0. Cite: Zhou, ")
    assert size == f"model.safetensors: {num_bytes:,} bytes to download"
    assert importing == "importing it"
    manifest = read_manifest(str(tmp_path / "ours"), "checkpoint", verify=True)
    assert last.startswith(f"fetch-model: published, fingerprint {manifest['fingerprint']} → {tmp_path / 'ours'}")
    source = manifest["source"]
    assert (source["doi"], source["license"]) == ("10.5281/zenodo.15245588", "cc-by-4.0")
    assert source["files"][WEIGHTS]["bytes"] == num_bytes
    assert set(source["files"][WEIGHTS]) >= {"url", "md5", "sha256"}
    assert source["text_tokenizer"] == "bert"
    assert "its record states the licence cc-by-4.0" in (tmp_path / "ours/README.md").read_text()
    assert ".work" not in names(tmp_path / "ours")
    # The same as by hand, and back.
    by_hand = run(
        "import-official", official, "--output", tmp_path / "hand", "--text-tokenizer", official.parent / "bert"
    )
    assert by_hand.exit_code == 0
    assert read_manifest(str(tmp_path / "hand"), "checkpoint")["fingerprint"] == manifest["fingerprint"]
    assert run("export-official", tmp_path / "ours", "--output", tmp_path / "back").exit_code == 0
    assert (tmp_path / "back" / WEIGHTS).read_bytes() == server.files[WEIGHTS]


def test_a_record_without_a_licence_is_said_to_have_none(
    server: PublishedServer, official: Path, tmp_path: Path
) -> None:
    server.license = None
    result = fetch(server, official, "--output", tmp_path / "ours")
    assert "Its record states no licence: ask its authors." in result.stdout
    assert "states no licence: ask its authors" in (tmp_path / "ours/README.md").read_text()


def test_an_interrupted_download_goes_on_at_its_byte(server: PublishedServer, official: Path, tmp_path: Path) -> None:
    output, num_bytes = tmp_path / "ours", len(server.files[WEIGHTS])
    server.faults = ["drop", "503", "503", "503"]
    assert error_of(fetch(server, official, "--output", output)).startswith("DataError: ")
    assert not (output / "manifest.json").exists()
    server.ranges.clear()
    result = fetch(server, official, "--output", output)
    assert result.exit_code == 0, result.output
    here = num_bytes // 2
    assert f"{num_bytes:,} bytes to download, {here:,} of them here already" in result.stdout
    assert server.ranges == [f"bytes={here}-"]
    # Finished, it is left alone.
    assert "already finished" in error_of(fetch(server, official, "--output", output))
    assert fetch(server, official, "--output", output, "--overwrite").exit_code == 0


def test_an_interrupted_import_downloads_nothing_again(
    server: PublishedServer, official: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from protclip.model import official as module

    def full(*_: object, **__: object) -> None:
        raise ConfigError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(module, "write_tensors", full)
        assert "no space left" in error_of(fetch(server, official, "--output", tmp_path / "ours"))
    server.ranges.clear()
    result = fetch(server, official, "--output", tmp_path / "ours")
    assert result.exit_code == 0, result.output
    assert "here already" in result.stdout
    assert server.ranges == []


def test_a_wrong_checksum_is_refused_by_name_and_not_gone_on_with(
    server: PublishedServer, official: Path, tmp_path: Path
) -> None:
    server.checksums[WEIGHTS] = f"md5:{'0' * 32}"
    told = error_of(fetch(server, official, "--output", tmp_path / "ours"))
    assert told.startswith("DataError: ") and f"/{WEIGHTS}/" in told
    assert f"but the record says {'0' * 32}. It was removed" in told
    del server.checksums[WEIGHTS]
    server.ranges.clear()
    assert fetch(server, official, "--output", tmp_path / "ours").exit_code == 0
    assert server.ranges == ["bytes=0-"]


def test_a_record_that_changed_in_the_middle_is_refused_by_name(
    server: PublishedServer, official: Path, tmp_path: Path
) -> None:
    server.faults = ["drop", "503", "503", "503"]
    assert isinstance(fetch(server, official, "--output", tmp_path / "ours").exception, DataError)
    server.files[WEIGHTS] = server.files[WEIGHTS][:-4] + b"\0\0\0\0"
    told = error_of(fetch(server, official, "--output", tmp_path / "ours"))
    assert told.startswith("DataError: ") and "model.safetensors was begun with md5 " in told and "--overwrite" in told
    assert fetch(server, official, "--output", tmp_path / "ours", "--overwrite").exit_code == 0


def test_what_cannot_be_is_refused_before_the_weights_are_downloaded(
    server: PublishedServer, official: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*arguments: object) -> str:
        return error_of(fetch(server, official, "--output", tmp_path / "ours", *arguments))

    weights = server.files.pop(WEIGHTS)
    told = refused()
    assert "lists no file 'model.safetensors'; it has ProtAnno-S.json (" in told
    server.files[WEIGHTS] = weights
    server.checksums[WEIGHTS] = "crc:1"
    assert "files.1.checksum is crc:1" in refused().replace("'", "")
    server.checksums[WEIGHTS] = ""
    server.files["../escape"] = b"x"
    assert "escape" in refused()
    del server.files["../escape"]
    good = server.pages.pop("/raw/config.json")
    assert "config.json: the server refuses it: HTTP 404" in refused()
    server.pages["/raw/config.json"] = b"<html>"
    assert "CheckpointError: " in refused()
    server.pages["/raw/config.json"] = good
    assert "neither a folder here nor a name on the HuggingFace hub" in refused("--text-tokenizer", "none")
    (tmp_path / "empty").mkdir()
    assert "holds neither tokenizer.json nor vocab.txt" in refused("--text-tokenizer", tmp_path / "empty")
    monkeypatch.setattr(downloads.shutil, "disk_usage", lambda _: SimpleNamespace(free=len(weights)))
    assert f"needs {3 * len(weights):,} bytes more, but the disk has {len(weights):,}" in refused()
    assert server.ranges == []
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("mine")
    told = error_of(fetch(server, official, "--output", tmp_path / "other", "--overwrite"))
    assert "holds other files (notes.txt" in told


def test_its_own_options_are_refused_for_other_names(tmp_path: Path) -> None:
    told = error_of(run("fetch-model", "lab/tiny", "--config", "http://x", "--output", tmp_path / "x"))
    assert "are for 'published'; lab/tiny needs none of them" in told


@pytest.mark.slow
def test_without_a_network_it_is_one_line_within_five_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert published.SOON_S == 5.0
    monkeypatch.setattr(published, "SOON_S", 0.5)
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setenv("PROTCLIP_CACHE", str(tmp_path / "cache"))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        for arguments in (("fetch-model", "published"), ("fetch-protanno", "--output", tmp_path / "data")):
            started = time.monotonic()
            told = error_of(run(*arguments, "--base-url", url))
            assert time.monotonic() - started < 4.0  # not the minute that a silent server is given later
            assert told.startswith(f"ConfigError: {url} cannot be reached: ") and "\n" not in told


def test_published_is_known_everywhere_once_it_is_in_the_cache(
    server: PublishedServer, official: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert fetch(server, official).exit_code == 0
    folder = tmp_path / "cache/checkpoints/published"
    assert read_manifest(str(folder), "checkpoint", verify=True)
    server.ranges.clear()
    assert fetch(server, official).exit_code == 0  # it is there
    assert server.ranges == []
    server.pages.clear()
    server.files.clear()
    monkeypatch.chdir(tmp_path)
    model = ProtCLIP.from_pretrained("published")
    assert model.fingerprint == json.loads(folder.with_name("published.json").read_text())["fingerprint"]
    explained = run("explain", "--checkpoint", "published", "--sequence", "MKVLAA", "--text", "binds", "--json")
    assert explained.exit_code == 0, explained.output
    assert run("export-official", "published", "--output", tmp_path / "back").exit_code == 0
    # A folder of that name comes first.
    tiny_model().save_pretrained(str(tmp_path / "published"))
    assert ProtCLIP.from_pretrained("published").fingerprint == tiny_model().fingerprint


def test_from_pretrained_fetches_what_is_not_there(
    server: PublishedServer, official: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(published, "API_URL", server.api_url)
    monkeypatch.setattr(published, "CONFIG_URL", server.config_url)
    monkeypatch.setattr(published, "TEXT_TOKENIZER", str(official.parent / "bert"))
    model = ProtCLIP.from_pretrained("published")
    assert model.embed_proteins("MKT").shape == (24,)
    said = capsys.readouterr()
    assert said.out == ""
    assert f"protclip: model.safetensors: {len(server.files[WEIGHTS]):,} bytes to download" in said.err


@pytest.mark.slow
def test_a_cache_that_was_altered_is_refused(server: PublishedServer, official: Path, tmp_path: Path) -> None:
    assert fetch(server, official).exit_code == 0
    folder = tmp_path / "cache/checkpoints/published"
    fingerprint = read_manifest(str(folder), "checkpoint")["fingerprint"]
    tiny_model().save_pretrained(str(folder))
    with pytest.raises(CheckpointError, match=f"and published was {fingerprint} when it was fetched") as caught:
        ProtCLIP.from_pretrained("published")
    assert tiny_model().fingerprint in str(caught.value)
    assert "fetch-model published --overwrite" in str(caught.value)
    (folder / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"its copy in the cache cannot be used \(.*config.json: is missing"):
        ProtCLIP.from_pretrained("published")
    assert fetch(server, official, "--overwrite").exit_code == 0
    assert ProtCLIP.from_pretrained("published").fingerprint == fingerprint
    # Fetched anew in vain, it stays as it was.
    server.faults = ["drop", "503", "503", "503"]
    assert isinstance(fetch(server, official, "--overwrite").exception, DataError)
    assert ProtCLIP.from_pretrained("published").fingerprint == fingerprint


def test_a_process_killed_before_its_record_was_written_is_gone_on_with(
    server: PublishedServer, official: Path, tmp_path: Path
) -> None:
    assert fetch(server, official).exit_code == 0
    (tmp_path / "cache/checkpoints/published.json").unlink()
    server.ranges.clear()
    assert fetch(server, official).exit_code == 0
    assert server.ranges == []


def test_protanno_comes_as_it_is_published_and_curate_reads_it(server: PublishedServer, tmp_path: Path) -> None:
    server.files["ProtAnno-D.zip"] = b"PK\x03\x04" + bytes(100)
    output = tmp_path / "protanno"
    server.faults = ["drop", "503", "503", "503"]
    arguments = ("fetch-protanno", "--output", output, "--base-url", server.api_url)
    assert isinstance(run(*arguments).exception, DataError)
    server.ranges.clear()
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    assert server.ranges[0] == f"bytes={(104) // 2}-"
    assert names(output) == ["ProtAnno-D.zip", "ProtAnno-D.zip.source", "ProtAnno-S.json", "ProtAnno-S.json.source"]
    assert (output / "ProtAnno-S.json").read_bytes() == PAIRS
    lines = result.stdout.splitlines()
    assert lines[0].startswith("ProtAnno (https://doi.org/10.5281/zenodo.15245588): ProtAnno, published by its authors")
    assert lines[2] == f"2 files, {len(PAIRS) + 104:,} bytes: ProtAnno-D.zip, ProtAnno-S.json"
    assert lines[-1] == f"protclip curate {output}/ProtAnno-S.json --output pairs"
    assert f"curate does not read {output}/ProtAnno-D.zip as it is" in result.stderr
    assert sum(1 for _ in open_entries(str(output / "ProtAnno-S.json"))) == 2000
    source = json.loads((output / "ProtAnno-S.json.source").read_text())
    assert (source["doi"], source["license"], source["bytes"]) == ("10.5281/zenodo.15245588", "cc-by-4.0", len(PAIRS))
    # Again: nothing is downloaded; a file of the record alone; one that it does not have.
    server.ranges.clear()
    assert run(*arguments).exit_code == 0
    assert server.ranges == []
    assert run(*arguments, "--file", "ProtAnno-S.json", "--overwrite").exit_code == 0
    assert server.ranges == ["bytes=0-"]
    assert "lists no file 'train.json'; it has ProtAnno-D.zip (104 bytes)" in error_of(
        run(*arguments, "--file", "train.json")
    )
    server.files["ProtAnno-S.json"] = PAIRS[:-1]
    assert "was begun with bytes " in error_of(run(*arguments))


def test_one_process_fetches_and_the_others_wait_for_it(
    server: PublishedServer, official: Path, tmp_path: Path
) -> None:
    server.hold = threading.Event()
    places = checkpoint_cache.Publication(
        api_url=server.api_url, config_url=server.config_url, text_tokenizer=str(official.parent / "bert")
    )
    folders: list[str] = []
    told: list[str] = []
    waiting = threading.Event()

    def tell(line: str) -> None:
        told.append(line)
        if "another process" in line:
            waiting.set()

    def work() -> None:
        folders.append(checkpoint_cache.fetch_into_cache("published", publication=places, tell=tell))

    threads = [threading.Thread(target=work) for _ in range(2)]
    threads[0].start()
    assert server.waiting.wait(30)
    threads[1].start()
    assert waiting.wait(30)
    server.hold.set()
    for thread in threads:
        thread.join(60)
    assert folders == [str(tmp_path / "cache/checkpoints/published")] * 2
    assert len(server.ranges) == 1
