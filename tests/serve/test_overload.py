"""More than a replica can do: what it cannot do in time is refused at once, and afterwards all is as before."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import requests
from running import LOGS
from tiny_model import random_sequences

pytestmark = pytest.mark.serve


def test_overload_is_answered_by_200_and_503_and_leaves_nothing_behind(server: Any) -> None:
    from ray import serve

    from serve.app import application

    # A batch is two of these proteins, and one request of eight may wait beside another.
    args = server.args.model_copy(update={"tokens_per_batch": 150, "max_waiting_tokens": 1_200})
    serve.run(
        application(args, {"default": server.index}), name="overloaded", route_prefix="/overloaded", logging_config=LOGS
    )
    sequences = [sequence[:60].ljust(60, "A") for sequence in random_sequences(8)]
    wanted = server.model.embed_proteins(sequences)
    session = requests.Session()

    def ask() -> requests.Response:
        return session.post(f"{server.url}/overloaded/v1/embed", json={"proteins": sequences}, timeout=60)

    end = time.monotonic() + 4

    def client(_: int) -> list[requests.Response]:
        answers = [ask()]
        while time.monotonic() < end:
            answers.append(ask())
        return answers

    try:
        with ThreadPoolExecutor(24) as pool:
            answers = [answer for some in pool.map(client, range(24)) for answer in some]
        assert {answer.status_code for answer in answers} == {200, 503}
        for answer in answers:
            if answer.status_code == 200:
                np.testing.assert_allclose(np.array(answer.json()["embeddings"]), wanted, atol=1e-5)
            else:
                assert answer.json()["error"]["type"] == "OverloadedError"
                assert int(answer.headers["Retry-After"]) >= 1
        assert ask().status_code == 200
    finally:
        serve.delete("overloaded")
