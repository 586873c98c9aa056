"""``protclip.client`` answers as Python does, through a real server."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest
from tiny_model import random_sequences, random_texts

from protclip.client import AsyncClient, Client
from protclip.errors import ConfigError, DataError, NotFoundError, RequestError, ServerError
from protclip.questions import Options, Question
from protclip.retrieval import Retriever

pytestmark = pytest.mark.serve
# The server takes 8 items in a request, so that these need several.
PROTEINS, TEXTS = [one[:90] for one in random_sequences(30, seed=5)], random_texts(30, seed=5)


@pytest.fixture(scope="module")
def retriever(server) -> Retriever:
    return Retriever.load(server.index, checkpoint=server.args.checkpoint)


@pytest.fixture(scope="module")
def client(server) -> Iterator[Client]:
    with Client(server.url) as client:
        yield client


def test_embeddings_are_those_of_python(server, client):
    for given in (PROTEINS, PROTEINS[0], PROTEINS[:1], tuple(PROTEINS[:9]), []):
        mine, expected = client.embed_proteins(given), server.model.embed_proteins(given)
        assert (mine.shape, mine.dtype) == (expected.shape, np.float32)
        np.testing.assert_allclose(mine, expected, atol=1e-6)
    for given in (TEXTS, TEXTS[0]):
        np.testing.assert_allclose(client.embed_texts(given), server.model.embed_texts(given), atol=1e-6)
    short = client.embed_texts(TEXTS, dimensions=8)
    np.testing.assert_allclose(short, server.model.embed_texts(TEXTS, dimensions=8), atol=1e-6)
    assert client.embed_proteins([], dimensions=8).shape == (0, 8)
    with pytest.raises(RequestError, match="dimensions: 25 are wanted; an embedding has 24"):
        client.embed_proteins(PROTEINS, dimensions=25)
    assert max(map(len, PROTEINS)) > 62  # is longer than the model sees
    expected = server.model.embed_proteins(PROTEINS, long="window-mean")
    np.testing.assert_allclose(client.embed_proteins(PROTEINS, long="window-mean"), expected, atol=1e-6)


def check_answers(mine: list[Any], expected: list[Any]) -> None:
    for one, other in zip(map(asdict, mine), map(asdict, expected), strict=True):
        if other["map"] is not None:
            np.testing.assert_allclose(one.pop("map"), other.pop("map"), atol=1e-4)
        scores = [hit.pop("score") for hit in other["hits"]]
        assert [hit.pop("score") for hit in one["hits"]] == pytest.approx(scores, abs=1e-6)
        assert one == other


def test_answers_are_those_of_a_retriever(server, client, retriever):
    vector = retriever.indexes["protein"].vectors(np.array([4]))[0]
    calls = [
        {"text": TEXTS[0], "k": 5, "where": "reviewed"},
        {"sequence": server.sequences[3], "exact": True, "offset": 2, "k": 3, "columns": ["name"], "map": True},
        {"accession": "P00007", "exclude_self": True, "min_score": np.float32(0.1), "k": np.int64(4)},
        {"vector": vector, "where": "not organism_id = 9606"},
    ]
    for call in calls:
        check_answers([client.search(**call)], [retriever.search(**call)])
    questions = [Question(text=text, name=f"q{i}") for i, text in enumerate(TEXTS[:10])]
    questions += [Question(vector=vector, kind="protein", name="P00004"), Question(accession="P00007")]
    for options in (Options(k=20), Options(k=3, exclude_self=True)):  # 50 answers are given to a request
        check_answers(client.search_all(questions, options), retriever.search_all(questions, options))
    assert client.search_all([]) == []
    check_answers([client.search(text=TEXTS[0], index="default")], [retriever.search(text=TEXTS[0])])
    with pytest.raises(NotFoundError, match="other"):
        client.search(text=TEXTS[0], index="other")


def test_scores_classes_and_facts_are_those_of_python(server, client, retriever):
    np.testing.assert_allclose(client.score(PROTEINS, TEXTS), retriever.score(PROTEINS, TEXTS), atol=1e-6)
    shares = client.classify(PROTEINS[:3], TEXTS)
    np.testing.assert_allclose(shares, retriever.classify(PROTEINS[:3], TEXTS), atol=1e-5)
    row = {**retriever.row("P00007"), "sequence": server.sequences[7]}
    assert client.protein("P00007") == client.protein("P00007", index="default") == row
    with pytest.raises(NotFoundError, match="other & same"):
        client.protein("P00007", index="other & same")
    (index,) = client.indexes()
    assert index["fingerprint"] == client.info()["index"]["fingerprint"] and client.health()["status"] == "ok"
    assert client.info()["model"]["fingerprint"] == server.model.fingerprint


def test_explanations_are_those_of_a_retriever(server, client, retriever):
    sequence, text = server.sequences[7], TEXTS[0]
    expected = retriever.explain(sequence, text, accession="P00007", window=5, stride=3)
    for mine in (
        client.explain(sequence, text, accession="P00007", window=5, stride=3),
        client.explain(accession="P00007", text=text, window=5, stride=3),
    ):
        np.testing.assert_allclose(mine.occlusion, expected.occlusion, atol=1e-5)
        assert replace(mine, occlusion=expected.occlusion) == expected
    for call, message in (
        ({"sequence": "M7", "text": text}, "holds '7'"),
        ({"text": text}, "exactly one of"),
        ({"sequence": "M", "text": ""}, "text is empty"),
        ({"sequence": "M", "text": "a", "window": 4}, "window"),
    ):
        with pytest.raises(RequestError, match=message):
            client.explain(**call)


def test_asyncio_has_the_same_calls(server, retriever):
    async def ask() -> tuple[Any, ...]:
        async with AsyncClient(server.url) as client:
            return await asyncio.gather(
                client.embed_proteins(PROTEINS, long="window-mean"),
                client.embed_texts(TEXTS[0]),
                client.score(PROTEINS, TEXTS),
                client.classify(PROTEINS[:3], TEXTS),
                client.search(text=TEXTS[0], k=5, where="reviewed"),
                client.search_all([Question(text=text) for text in TEXTS]),
                client.protein("P00007"),
                client.explain(accession="P00007", text=TEXTS[0], stride=5),
                client.indexes(),
                client.info(),
                client.health(),
            )

    proteins, text, scores, shares, answer, answers, row, explanation, indexes, info, health = asyncio.run(ask())
    np.testing.assert_allclose(proteins, server.model.embed_proteins(PROTEINS, long="window-mean"), atol=1e-6)
    np.testing.assert_allclose(text, server.model.embed_texts(TEXTS[0]), atol=1e-6)
    np.testing.assert_allclose(scores, retriever.score(PROTEINS, TEXTS), atol=1e-6)
    np.testing.assert_allclose(shares, retriever.classify(PROTEINS[:3], TEXTS), atol=1e-5)
    check_answers([answer], [retriever.search(text=TEXTS[0], k=5, where="reviewed")])
    check_answers(answers, retriever.search_all([Question(text=text) for text in TEXTS]))
    assert row["accession"] == explanation.accession == "P00007" and health["status"] == "ok"
    assert indexes[0]["fingerprint"] == info["index"]["fingerprint"]


def test_what_is_wrong_with_a_question_is_said_as_python_says_it(client):
    with pytest.raises(
        NotFoundError, match=r"'P99999': the index does not hold it.*/v1/search, request [0-9a-f]{32}"
    ) as error:
        client.search(accession="P99999")
    assert error.value.answer.status == 404 and error.value.answer.request_id in str(error.value)
    with pytest.raises(NotFoundError):
        client.protein("P99999")
    # The 12th is the 4th of its request.
    with pytest.raises(RequestError, match=r"proteins\[11\]: is longer than the model sees") as error:
        client.embed_proteins(["M"] * 11 + ["M" * 70], long="error")
    assert error.value.answer.message.startswith("proteins[3]")
    with pytest.raises(RequestError, match=r"k: 60 answers are wanted; at most 50 are given"):
        client.search(text="a", k=60)
    for ask, kind, message in (
        (lambda: client.embed_proteins(["M"] * 20 + ["M7"]), RequestError, "sequence 21 of 21: holds '7'"),
        (lambda: client.embed_texts([" "]), RequestError, "text 1 of 1 is empty"),
        (lambda: client.embed_texts([None]), DataError, "text 1 of 1 is None"),
        (lambda: client.embed_texts("a", long="window-mean"), ConfigError, "long='window-mean': allowed are"),
        (lambda: client.score(["M"], []), RequestError, "make no pairs"),
        (lambda: client.search(text="a", where="nonsense ="), RequestError, "nonsense"),
        (lambda: client.search(text="a", content="text"), RequestError, "is chosen by its name"),
    ):
        with pytest.raises(kind, match=message) as error:
            ask()
        assert error.value.answer is None  # nothing was sent


@pytest.fixture
def hanging_up() -> Iterator[tuple[str, list[Any]]]:
    """An address that takes connections and breaks them off, and what it took."""
    taken: list[Any] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def take() -> None:
            while True:
                try:
                    connection, peer = listening.accept()
                except OSError:
                    return
                taken.append(peer)
                connection.close()

        thread = threading.Thread(target=take)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}", taken
        listening.shutdown(socket.SHUT_RDWR)
        thread.join()


def test_it_goes_to_the_next_address_and_stays_there(server, hanging_up):
    address, taken = hanging_up
    with Client(address, server.url, patience_s=30) as client:
        for _ in range(3):
            assert client.health()["status"] == "ok"
    assert len(taken) == 1


def test_an_address_that_never_answers_is_named_at_the_end(hanging_up):
    address, taken = hanging_up
    with (
        Client(f"{address}/", patience_s=1) as client,
        pytest.raises(ServerError, match=rf"{address}: .*; given up after"),
    ):
        client.health()
    assert len(taken) > 1
