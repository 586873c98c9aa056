"""A model to ask, by one command: FASTA in, answer out, as README has it, on servers of this machine."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
from hub_server import COMMIT, HubServer
from hub_server import serving as serving_hub
from kills import COMMAND, ROOT
from official_model import official_model, write_official
from published_server import PublishedServer
from published_server import serving as serving_published
from tiny_model import random_sequences, tiny_model
from torch import float16

from protclip import ProtCLIP
from protclip.embeddings.reading import read_embeddings
from protclip.published import TEXT_TOKENIZER, WEIGHTS

pytestmark = [pytest.mark.ray]

TEXT = "FUNCTION: Involved in oxygen transport."


def test_from_its_name_to_an_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = official_model()
    official = write_official(tmp_path / "official", model.published_tensors(), model.config(), float16)
    tiny_model().text_tokenizer.save(str(tmp_path / "bert"))
    tokenizer = {path.name: path.read_bytes() for path in (tmp_path / "bert").iterdir()}
    sequences = random_sequences(40)
    (tmp_path / "my.fasta").write_text("".join(f">A{i}\n{sequence}\n" for i, sequence in enumerate(sequences)))
    for name, value in {"PROTCLIP_CACHE": "cache", "HF_HOME": "hf"}.items():
        monkeypatch.setenv(name, str(tmp_path / value))
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)

    def run(*arguments: str) -> str:
        done = subprocess.run(
            [*COMMAND, *arguments],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    zenodo = PublishedServer(
        files={WEIGHTS: (official / WEIGHTS).read_bytes()},
        pages={"/raw/config.json": (official / "config.json").read_bytes()},
    )
    hub = HubServer(others={TEXT_TOKENIZER: tokenizer})
    with serving_published(zenodo), serving_hub(hub):
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        run("fetch-model", "published", "--base-url", zenodo.api_url, "--config", zenodo.config_url)
    # From here on there is no server.
    run("embed", "my.fasta", "--checkpoint", "published", "--output", "my-embeddings", "--dtype", "float32")
    run("index", "my-embeddings", "--output", "my-index")
    table = run("search", "my-index", "--checkpoint", "published", "--text", TEXT)

    loaded = ProtCLIP.from_pretrained("published")
    vectors = loaded.embed_proteins(sequences)
    best = int((vectors @ loaded.embed_texts(TEXT)).argmax())
    assert abs(read_embeddings(str(tmp_path / "my-embeddings")).vectors - vectors).max() < 1e-6
    assert re.search(rf"\bA{best}\b", table.splitlines()[1])
    manifest = (tmp_path / "cache/checkpoints/published/manifest.json").read_text()
    assert f"{TEXT_TOKENIZER}@{COMMIT}" in manifest
