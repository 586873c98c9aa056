"""The application over real HTTP."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict

import numpy as np
import pytest
import requests
from click.testing import CliRunner
from tiny_model import random_sequences, random_texts

from protclip.commands.search import main
from protclip.index.exact import exact_search
from protclip.index.manifest import read_index_manifest
from protclip.retrieval import Retriever
from protclip.version import __version__
from serve.openapi import ANSWERS

pytestmark = pytest.mark.serve
PROTEINS, TEXTS = random_sequences(8, seed=7), random_texts(8, seed=7)


def error_of(answer: requests.Response, status: int) -> dict[str, str]:
    assert answer.status_code == status, answer.text
    assert set(answer.json()) == {"error"} and set(answer.json()["error"]) == {"type", "message", "request_id"}
    assert answer.headers["X-Request-Id"] == answer.json()["error"]["request_id"]
    assert answer.headers["X-Content-Type-Options"] == "nosniff" and "Server" not in answer.headers
    return answer.json()["error"]  # type: ignore[no-any-return]


def test_health_says_what_is_loaded(server):
    answer = requests.get(f"{server.url}/health", timeout=60)
    assert answer.status_code == 200
    recall = read_index_manifest(server.index).recall_at_10
    assert recall is not None and recall >= 0.99
    assert answer.json() == {
        "status": "ok",
        "model": server.model.fingerprint,
        "index": {"content": "protein", "count": 60, "dimension": 24, "dtype": "float32", "recall_at_10": recall},
        "indexes": ["default"],
        "version": __version__,
    }


def test_the_schema_names_routes_and_errors(server):
    paths = requests.get(f"{server.url}/openapi.json", timeout=60).json()["paths"]
    assert set(paths) == {*ANSWERS, "/metrics"}
    statuses = {"200", "401", "404", "408", "413", "415", "422", "429", "500", "503"}
    assert statuses <= set(paths["/v1/search"]["post"]["responses"])


def test_a_served_embedding_is_the_models_own(server):
    np.testing.assert_allclose(server.embed(proteins=PROTEINS), server.model.embed_proteins(PROTEINS), atol=1e-5)
    np.testing.assert_allclose(server.embed(texts=TEXTS), server.model.embed_texts(TEXTS), atol=1e-5)


def test_over_an_index_of_bfloat16_it_is_the_models_own_in_bfloat16(bfloat16_server):
    server = bfloat16_server
    assert requests.get(f"{server.url}/health", timeout=60).json()["index"]["dtype"] == "bfloat16"
    np.testing.assert_allclose(server.embed(proteins=PROTEINS), server.model.embed_proteins(PROTEINS), atol=1e-6)
    np.testing.assert_allclose(server.embed(texts=TEXTS), server.model.embed_texts(TEXTS), atol=1e-6)
    (hit,) = server.post("/v1/search", {"sequence": server.sequences[5], "k": 1}).json()["hits"]
    assert (hit["accession"], hit["score"]) == ("P00005", pytest.approx(1, abs=1e-6))


def test_hits_are_those_of_exact_search(server):
    vectors = server.model.embed_proteins(server.sequences)
    for body, query in (
        ({"text": TEXTS[0]}, server.model.embed_texts(TEXTS[:1])),
        ({"sequence": PROTEINS[0]}, server.model.embed_proteins(PROTEINS[:1])),
    ):
        answer = server.post("/v1/search", {**body, "k": 7}).json()
        scores, rows = exact_search(vectors, query, 7)
        assert answer["model"] == server.model.fingerprint and answer["content"] == "protein"
        assert [hit["rank"] for hit in answer["hits"]] == [1, 2, 3, 4, 5, 6, 7]
        assert [hit["accession"] for hit in answer["hits"]] == [f"P{row:05d}" for row in rows[0]]
        assert [hit["score"] for hit in answer["hits"]] == pytest.approx(scores[0].tolist(), abs=1e-5)
        first = answer["hits"][0]
        assert first["organism"] == "Homo sapiens" and first["organism_id"] == 9606
        assert first["length"] == 100 + rows[0][0]


def test_ten_answers_come_unasked(server):
    assert len(server.post("/v1/search", {"text": "kinase"}).json()["hits"]) == 10


def test_requests_side_by_side_answer_as_one_alone_and_a_bad_one_fails_alone(server):
    many = random_sequences(24, seed=9)
    alone = [server.embed(proteins=[sequence])[0] for sequence in many[:6]]
    with ThreadPoolExecutor(24) as pool:
        bad = [pool.submit(server.post, "/v1/embed", {"proteins": ["MKT", "MK7"]}) for _ in range(6)]
        together = list(pool.map(lambda sequence: server.embed(proteins=[sequence])[0], many))
    np.testing.assert_allclose(together[:6], alone, atol=1e-5)
    np.testing.assert_allclose(together, server.model.embed_proteins(many), atol=1e-5)
    for answer in bad:
        error = error_of(answer.result(), 422)
        assert error["type"] == "RequestError" and "'proteins[1]': holds '7'" in error["message"]


def test_the_items_of_a_request_keep_their_order(server):
    embedded = server.embed(proteins=PROTEINS)
    np.testing.assert_allclose(server.embed(proteins=PROTEINS[::-1]), embedded[::-1], atol=1e-5)


@pytest.mark.parametrize(
    ("route", "body", "part"),
    [
        ("/v1/embed", {"proteins": ["M"] * 9}, "proteins: holds 9 items"),
        ("/v1/embed", {"proteins": ["M" * 101]}, "proteins[0]: has 101"),
        ("/v1/embed", {"texts": ["  "]}, "'texts[0]' is empty"),
        ("/v1/embed", {"texts": ["\ud800"]}, "hex escape"),
        ("/v1/embed", {}, "either 'proteins' or 'texts'"),
        ("/v1/search", {"text": "a" * 401}, "text: has 401"),
        ("/v1/search", {"text": "a", "k": 51}, "k: 51"),
        ("/v1/search", {"text": "a", "k": "5"}, "k:"),
        ("/v1/search", {"text": "a", "kk": 5}, "kk:"),
        ("/v1/search", {"sequence": "MK*T"}, "holds '*'"),
        ("/v1/search", {"text": "a", "filter": "length >"}, "filter 'length >', character 9"),
        ("/v1/search", {"embedding": [1.0, 2.0]}, "has 2 numbers, and those of the index 24"),
        ("/v1/search", {"embedding": [1.0] * 24, "exclude_self": True}, "without a name"),
    ],
)
def test_a_request_that_cannot_be_answered_is_422_and_says_why(server, route, body, part):
    assert part in error_of(server.post(route, body), 422)["message"]


@pytest.mark.parametrize("body", [b"{", b"\xff\xfe{", b"[" * 5000, b""])
def test_a_body_that_is_no_json_is_422(server, body):
    answer = requests.post(f"{server.url}/v1/embed", body, headers={"Content-Type": "application/json"}, timeout=60)
    assert error_of(answer, 422)["message"].startswith("body:")


def test_a_missing_content_type_is_named(server):
    answer = requests.post(f"{server.url}/v1/search", b'{"text": "a"}', timeout=60)
    assert "Content-Type: application/json" in error_of(answer, 422)["message"]


def test_a_body_above_the_limit_is_413_with_and_without_its_length(server):
    body = b'{"texts": ["' + b"a" * 20_000 + b'"]}'
    for data in (body, iter([body[:15_000], body[15_000:]])):  # an iterator is sent in chunks
        answer = requests.post(f"{server.url}/v1/embed", data, headers={"Content-Type": "application/json"}, timeout=60)
        assert error_of(answer, 413)["type"] == "PayloadTooLargeError"


def test_other_routes_and_methods_come_in_the_envelope(server):
    error_of(requests.get(f"{server.url}/nothing", timeout=60), 404)
    error_of(requests.get(f"{server.url}/v1/embed", timeout=60), 405)


def test_an_unknown_accession_is_404(server):
    error = error_of(server.post("/v1/search", {"accession": "P99999"}), 404)
    assert error["type"] == "NotFoundError" and "'P99999'" in error["message"]


def test_http_command_line_and_python_give_one_answer(server):
    """Field by field, for questions of each kind; scores to what float32 keeps of them."""
    retriever = Retriever.load(server.index, checkpoint=server.args.checkpoint)
    for question in ({"text": TEXTS[0]}, {"sequence": server.sequences[3]}, {"accession": "P00007"}):
        (kind, value) = next(iter(question.items()))
        options = {"k": 5, "offset": 2, "exclude_self": True, "min_score": -0.5, "exact": True}
        where, columns = "reviewed and length < 150", ["name", "gene", "ec"]
        python = asdict(retriever.search(**question, **options, where=where, columns=columns))
        http = server.post("/v1/search", {**question, **options, "filter": where, "columns": columns}).json()
        arguments = [server.index, "--checkpoint", server.args.checkpoint, f"--{kind}", value, "-k", "5"]
        arguments += ["--offset", "2", "--exclude-self", "--min-score", "-0.5", "--exact", "--json"]
        arguments += ["--filter", where, "--columns", ",".join(columns)]
        typed = json.loads(CliRunner().invoke(main, arguments).stdout)
        assert len(python["hits"]) == 5 and python["hits"][0]["rank"] == 3
        for other in (http, typed):
            assert [list(hit) for hit in other["hits"]] == [list(hit) for hit in python["hits"]]
            for mine, theirs in zip(python["hits"], other["hits"], strict=True):
                assert theirs.pop("score") == pytest.approx(mine["score"], abs=1e-6)
                assert theirs.pop("percentile") == pytest.approx(mine["percentile"], abs=2)
                assert theirs == {name: mine[name] for name in theirs}
            assert {**other, "hits": None} == {**python, "hits": None}
