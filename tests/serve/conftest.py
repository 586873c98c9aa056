from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import requests
from ports import free_port
from running import LOGS
from tiny_model import random_sequences, tiny_model, write_protein_index

from protclip.trained_model import ProtCLIP
from serve.settings import AppArgs, Limits

LIMITS = Limits(max_body_bytes=20_000, max_items=8, max_sequence_length=100, max_text_length=400, max_k=50)


@dataclass(frozen=True, kw_only=True)
class Folders:
    """A checkpoint, an index by it, and what they were made from."""

    model: ProtCLIP
    sequences: list[str]
    index: str
    args: AppArgs


@dataclass(frozen=True, kw_only=True)
class Server(Folders):
    """A running application."""

    url: str

    def post(self, route: str, body: dict[str, Any]) -> requests.Response:
        return requests.post(self.url + route, json=body, timeout=60)

    def embed(self, **body: list[str]) -> np.ndarray:
        answer = self.post("/v1/embed", body)
        assert answer.status_code == 200, answer.text
        return np.array(answer.json()["embeddings"], np.float32)


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    folder = tmp_path_factory.mktemp("served")
    model, sequences = tiny_model(), random_sequences(60)
    chance, recall = {"recall@1": 0.001}, {"recall@1": 0.05}
    valid = {"num_pairs": 1000, "text_to_protein": recall, "chance": chance}
    model.save_pretrained(str(folder / "checkpoint"), metrics={"valid": valid})
    index = write_protein_index(folder, model, sequences)
    sequence_file = folder / "sequences.fasta"
    sequence_file.write_text("".join(f">P{i:05d}\n{sequence}\n" for i, sequence in enumerate(sequences)))
    args = AppArgs(checkpoint=str(folder / "checkpoint"), keys="none", sequences=str(sequence_file), limits=LIMITS)
    return Folders(model=model, sequences=sequences, index=index, args=args)


@pytest.fixture(scope="session")
def server(ray_cluster: None, folders: Folders) -> Iterator[Server]:  # noqa: ARG001
    """The application on the session's Ray, over real HTTP."""
    from ray import serve
    from ray.serve.config import HTTPOptions

    from serve.app import application

    port = free_port()
    logging.getLogger("ray.serve").setLevel(logging.WARNING)  # of this process
    serve.start(http_options=HTTPOptions(host="127.0.0.1", port=port), logging_config=LOGS)
    serve.run(
        application(folders.args, {"default": folders.index}),
        name="protclip-test",
        route_prefix="/",
        logging_config=LOGS,
    )
    yield Server(**vars(folders), url=f"http://127.0.0.1:{port}")
    serve.shutdown()  # type: ignore[no-untyped-call]


@pytest.fixture(scope="session")
def bfloat16_server(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Server:
    """Another application beside it, over an index whose embeddings were made in bfloat16."""
    from ray import serve

    from serve.app import application

    model = tiny_model(dtype="bfloat16")
    index = write_protein_index(tmp_path_factory.mktemp("bfloat16"), model, server.sequences)
    serve.run(
        application(server.args, {"default": index}), name="bfloat16", route_prefix="/bfloat16", logging_config=LOGS
    )
    return Server(model=model, sequences=server.sequences, index=index, args=server.args, url=f"{server.url}/bfloat16")
