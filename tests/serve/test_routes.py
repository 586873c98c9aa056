"""What the routes answer is what Python answers, and what the schema says."""

from __future__ import annotations

import base64
import re
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import jsonschema
import numpy as np
import pytest
import requests
from tiny_model import random_sequences, random_texts

from protclip.index.manifest import read_index_manifest
from protclip.questions import Options, Question
from protclip.retrieval import Retriever
from protclip.version import __version__
from serve.openapi import ANSWERS, REQUESTS

if TYPE_CHECKING:
    import openai  # imported where it is used: all rings collect this file, and it takes half a second

pytestmark = pytest.mark.serve
PROTEINS, TEXTS = random_sequences(8, seed=7), random_texts(8, seed=7)
LONG = random_sequences(40, seed=3)


@pytest.fixture(scope="module")
def retriever(server) -> Retriever:
    return Retriever.load(server.index, checkpoint=server.args.checkpoint)


@pytest.fixture(scope="module")
def schema(server):
    return requests.get(f"{server.url}/openapi.json", timeout=60).json()


def get(server, route: str, status: int = 200):
    answer = requests.get(server.url + route, timeout=60)
    assert answer.status_code == status, answer.text
    return answer.json()


def test_several_questions_are_answered_as_each_alone(server, retriever):
    vector = retriever.indexes["protein"].vectors(np.array([4]))[0]
    queries = [
        {"text": TEXTS[0], "name": "first"},
        {"sequence": server.sequences[3]},
        {"accession": "P00007"},
        {"embedding": vector.tolist(), "embedding_kind": "protein", "name": "P00004"},
    ]
    options = {"k": 5, "offset": 1, "exclude_self": True, "columns": ["name"]}
    answer = server.post("/v1/search", {"queries": queries, **options})
    assert answer.status_code == 200, answer.text
    together = answer.json()["answers"]
    asked = [
        Question(text=TEXTS[0], name="first"),
        Question(sequence=server.sequences[3]),
        Question(accession="P00007"),
        Question(vector=vector, kind="protein", name="P00004"),
    ]
    python = retriever.search_all(asked, Options(**options))
    assert [one["query"] for one in together] == ["first", None, None, "P00004"]
    for query, mine, theirs in zip(queries, together, python, strict=True):
        alone = server.post("/v1/search", {**query, **options}).json()
        for other in (alone, asdict(theirs)):
            assert [hit["accession"] for hit in mine["hits"]] == [hit["accession"] for hit in other["hits"]]
            assert [hit["rank"] for hit in mine["hits"]] == [hit["rank"] for hit in other["hits"]]
            scores = [hit["score"] for hit in other["hits"]]
            assert [hit["score"] for hit in mine["hits"]] == pytest.approx(scores, abs=1e-6)
            assert {**mine, "hits": None} == {**other, "hits": None}


def test_one_bad_question_refuses_all_and_is_named(server):
    answer = server.post("/v1/search", {"queries": [{"text": "a"}, {"sequence": "M7"}]})
    assert answer.status_code == 422 and answer.json()["error"]["message"].startswith("queries[1]")
    answer = server.post("/v1/search", {"queries": [{"text": "a"}, {"accession": "P99999"}]})
    assert answer.status_code == 404 and "'P99999'" in answer.json()["error"]["message"]


@pytest.mark.parametrize(("kind", "items"), [("proteins", PROTEINS), ("texts", TEXTS)])
def test_base64_and_numbers_are_the_same_float32(server, kind, items):
    numbers = server.post("/v1/embed", {kind: items}).json()
    encoded = server.post("/v1/embed", {kind: items, "encoding_format": "base64"}).json()
    bits = np.stack([np.frombuffer(base64.b64decode(one), "<f4") for one in encoded["embeddings"]])
    vectors = np.array(numbers["embeddings"], np.float32)
    embed = server.model.embed_proteins if kind == "proteins" else server.model.embed_texts
    np.testing.assert_array_equal(bits, vectors)
    np.testing.assert_allclose(vectors, embed(items), atol=1e-6)
    assert numbers["dimension"] == encoded["dimension"] == 24


def test_a_long_protein_is_cut_refused_or_seen_in_windows(server):
    assert {len(one) > 62 for one in LONG} == {True, False}
    given = [one[:100] for one in LONG][:8]
    cut = server.post("/v1/embed", {"proteins": given}).json()
    assert cut["truncated"] == [len(one) > 62 for one in given]
    seen = server.post("/v1/embed", {"proteins": given, "long": "window-mean"}).json()
    assert seen["truncated"] == [False] * 8
    expected = server.model.embed_proteins(given, long="window-mean")
    np.testing.assert_allclose(np.array(seen["embeddings"], np.float32), expected, atol=1e-6)
    for long in ("truncate", "error", "window-mean"):
        assert server.post("/v1/embed", {"proteins": ["M" * 62], "long": long}).status_code == 200
    for body in ({"proteins": ["M", "M" * 63]}, {"texts": ["kinase", "kinase " * 50]}):
        answer = server.post("/v1/embed", {**body, "long": "error"})
        place = f"{next(iter(body))}[1]: is longer than the model sees"
        assert answer.status_code == 422 and place in answer.json()["error"]["message"]


@pytest.fixture(scope="module")
def client(server) -> openai.OpenAI:
    import openai

    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)


@pytest.mark.parametrize(("model", "items"), [("protclip-protein", PROTEINS), ("protclip-text", TEXTS)])
def test_openais_client_gets_our_embeddings(server, client, model, items):
    from openai.types import CreateEmbeddingResponse

    embed = server.model.embed_proteins if model == "protclip-protein" else server.model.embed_texts
    answers = [client.embeddings.create(model=model, input=items)]  # it asks for base64 and decodes it
    answers += [client.embeddings.create(model=model, input=items, encoding_format="float", dimensions=24, user="me")]
    for answer in answers:
        assert isinstance(answer, CreateEmbeddingResponse) and answer.model == model
        assert [one.index for one in answer.data] == list(range(8))
        vectors = np.array([one.embedding for one in answer.data], np.float32)
        np.testing.assert_allclose(vectors, embed(items), atol=1e-6)
    first, second = ([one.embedding for one in answer.data] for answer in answers)
    np.testing.assert_array_equal(np.array(first, np.float32), np.array(second, np.float32))
    tokens = 62 + 2 if model == "protclip-protein" else 32
    assert 8 * 3 < answers[0].usage.prompt_tokens == answers[0].usage.total_tokens <= 8 * tokens
    (alone,) = client.embeddings.create(model=model, input=items[0]).data
    np.testing.assert_allclose(alone.embedding, embed(items[:1])[0], atol=1e-6)


def test_openais_client_tells_our_errors(client):
    import openai

    with pytest.raises(openai.NotFoundError, match="there are protclip-protein and protclip-text") as missing:
        client.embeddings.create(model="text-embedding-3-small", input="a")
    assert missing.value.type == "NotFoundError"
    with pytest.raises(openai.UnprocessableEntityError, match="token ids are not taken"):
        client.embeddings.create(model="protclip-text", input=[1, 2, 3])
    with pytest.raises(openai.UnprocessableEntityError, match="an embedding has 24"):
        client.embeddings.create(model="protclip-text", input="a", dimensions=25)
    assert [model.id for model in client.models.list()] == ["protclip-protein", "protclip-text"]


def test_dimensions_cut_embeddings_on_both_routes(server, client):
    wanted = server.model.embed_texts(TEXTS, dimensions=8)
    answer = server.post("/v1/embed", {"texts": TEXTS, "dimensions": 8}).json()
    assert answer["dimension"] == 8
    np.testing.assert_allclose(answer["embeddings"], wanted, atol=1e-6)
    found = client.embeddings.create(model="protclip-text", input=TEXTS, dimensions=8)
    np.testing.assert_allclose([one.embedding for one in found.data], wanted, atol=1e-6)


def test_scores_and_classes_are_those_of_python(server, retriever):
    scores = server.post("/v1/score", {"sequences": PROTEINS, "texts": TEXTS}).json()
    np.testing.assert_allclose(scores["scores"], retriever.score(PROTEINS, TEXTS), atol=1e-6)
    shares = server.post("/v1/classify", {"sequences": PROTEINS[:3], "texts": TEXTS}).json()
    np.testing.assert_allclose(shares["probabilities"], retriever.classify(PROTEINS[:3], TEXTS), atol=1e-5)
    assert scores["model"] == shares["model"] == server.model.fingerprint


@pytest.mark.parametrize("window", [None, 3])
def test_an_explanation_is_that_of_python(server, retriever, window):
    body = {"text": TEXTS[0], "window": window, "stride": 2}
    by_accession = server.post("/v1/explain", {**body, "accession": "P00007"})
    assert by_accession.status_code == 200, by_accession.text
    answer = by_accession.json()
    python = asdict(retriever.explain(server.sequences[7], accession="P00007", **body))
    assert answer.pop("occlusion") == pytest.approx(python.pop("occlusion"), abs=1e-6)
    assert answer == {**python, "stride_grew": False}
    by_sequence = server.post("/v1/explain", {**body, "sequence": server.sequences[7]}).json()
    by_sequence.pop("occlusion")
    assert by_sequence == {**answer, "accession": None}


def test_what_cannot_be_explained_is_named(server):
    for body, status, message in (
        ({"text": "a", "accession": "P99999"}, 404, "'P99999': the index does not hold it"),
        ({"text": "a", "sequence": "MKV", "window": 4}, 422, "window=4: an odd number"),
        ({"text": "a", "sequence": "MK7"}, 422, "'7' at residue 3"),
    ):
        answer = server.post("/v1/explain", body)
        assert answer.status_code == status and message in answer.json()["error"]["message"], answer.text


def test_a_protein_of_the_index_is_shown_as_a_hit_without_a_score(server, retriever):
    hit = retriever.search(accession="P00007", k=1).hits[0]
    row = get(server, "/v1/proteins/P00007")
    shown = {name: value for name, value in hit.items() if name not in ("rank", "score", "percentile")}
    assert row == {**shown, "sequence": server.sequences[7]}
    assert "'P99999'" in get(server, "/v1/proteins/P99999", 404)["error"]["message"]
    get(server, "/v1/proteins/" + "P" * 1000, 404)
    get(server, "/v1/proteins/" + "P" * 1001, 422)


def test_facts_are_those_of_model_and_index(server):
    manifest = read_index_manifest(server.index)
    answer = get(server, "/v1/indexes")
    assert answer["refused"] is None
    (index,) = answer["indexes"]
    age_s, created = index.pop("age_s"), datetime.fromisoformat(index.pop("created"))
    assert 0 <= age_s < 86_400 and created <= datetime.now(UTC)
    assert index == {
        "name": "default",
        "content": "protein",
        "count": 60,
        "dimension": 24,
        "dtype": "float32",
        "recall_at_10": manifest.recall_at_10,
        "fingerprint": manifest.fingerprint,
        "model": server.model.fingerprint,
        "num_shards": None,
    }
    info = get(server, "/info")
    assert info["version"] == __version__ and info["index"]["fingerprint"] == manifest.fingerprint
    assert info["indexes"] == get(server, "/health")["indexes"] == ["default"]
    assert info["limits"]["max_items"] == server.args.limits.max_items
    model = info["model"]
    assert (model["fingerprint"], model["max_protein_tokens"], model["max_text_tokens"], model["device"]) == (
        server.model.fingerprint,
        64,
        32,
        "cpu",
    )
    assert model["scale"] == pytest.approx(server.model.scale)
    assert model["quality"] == {
        "recall_at_1": 0.05,
        "chance": 0.001,
        "num_pairs": 1000,
        "num_train_pairs": None,
        "is_weak": True,
    }
    assert model["quality_note"].startswith("a weak model, for trials: the right protein comes first for 5.0%")
    assert get(server, "/health/live") == get(server, "/health/ready") == {"status": "ok"}


def number(text: str, name: str) -> float:
    (found,) = re.findall(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)
    return float(found)


def test_the_numbers_count_what_was_asked(server):
    def text() -> str:
        return requests.get(f"{server.url}/metrics", timeout=60).text

    server.embed(proteins=PROTEINS)
    before = text()
    server.embed(proteins=["M" * 10, "M" * 20])
    assert server.post("/v1/embed", {}).status_code == 422
    after = text()
    for name, more in (
        ('protclip_requests_total{route="/v1/embed",status="200"}', 1),
        ('protclip_request_seconds_count{route="/v1/embed"}', 2),
        ("protclip_embedded_tokens_total", 34),
        ("protclip_batch_items_sum", 2),
        ("protclip_batch_tokens_sum", 34),
        ("protclip_batch_seconds_count", 1),
    ):
        assert number(after, name) - number(before, name) == more, name
    assert number(after, "protclip_queue_items") == number(after, "protclip_queue_tokens") == 0
    assert number(after, 'protclip_index_rows{index="default"}') == 60
    assert number(after, 'protclip_index_recall_at_10{index="default"}') >= 0.99
    assert 0 <= number(after, 'protclip_index_age_seconds{index="default"}') < 86_400
    assert server.post("/v1/explain", {"text": "a", "sequence": "M" * 10, "stride": 5}).status_code == 200
    explained = "protclip_explained_tokens_total"
    assert number(text(), explained) - number(after, explained) == 12 * (1 + 2)
    assert number(text(), "protclip_explanations") == 0


def test_the_page_of_forms_loads_nothing_from_elsewhere(server):
    page = requests.get(f"{server.url}/docs", timeout=60).text
    assert "http" not in page.replace("http-equiv", "")
    assert '"validatorUrl": null' in page  # or its script asks a server of Swagger's
    loaded = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert len(loaded) == 3
    for path in loaded:
        asset = requests.get(server.url + path, timeout=60)
        assert asset.status_code == 200 and len(asset.content) > 1_000
        if path.endswith(".css"):
            assert not re.search(r"url\(['\"]?(?!['\"]?data:)", asset.text) and "@import" not in asset.text


def test_every_route_and_error_has_an_example_that_fits_its_schema(schema):
    jsonschema.Draft202012Validator.check_schema(schema["components"]["schemas"])

    def check(value, form) -> None:
        jsonschema.validate(value, {**form, "components": schema["components"]}, jsonschema.Draft202012Validator)

    for path, methods in schema["paths"].items():
        for method, operation in methods.items():
            if method == "post":
                content = operation["requestBody"]["content"]["application/json"]
                assert content["examples"]
                for example in content["examples"].values():
                    check(example["value"], content["schema"])
            for status, answer in operation["responses"].items():
                content = answer["content"].get("application/json")
                if content is None:
                    assert path == "/metrics" and status == "200"
                else:
                    check(content["example"], content["schema"])
                assert "X-Request-Id" in answer["headers"]
    assert {*REQUESTS, *ANSWERS, "/metrics"} == set(schema["paths"])


@pytest.mark.parametrize("path", list(REQUESTS))
def test_exactly_one_is_in_the_schema(schema, path):
    """The schema's validator takes and refuses what the server takes and refuses."""
    content = schema["paths"][path]["post"]["requestBody"]["content"]["application/json"]
    form = {**content["schema"], "components": schema["components"]}
    validator = jsonschema.Draft202012Validator(form)
    assert not validator.is_valid({}) and not validator.is_valid([])
    if path == "/v1/embed":
        assert validator.is_valid({"proteins": ["M"], "texts": None})
        assert not validator.is_valid({"proteins": ["M"], "texts": ["a"]})
        assert not validator.is_valid({"texts": ["a"], "long": "window-mean"})
        assert not validator.is_valid({"proteins": None})
        assert not validator.is_valid({"proteins": ["M"] * 9})
    if path == "/v1/search":
        for one in ({"text": "a"}, {"sequence": "M"}, {"accession": "P"}, {"embedding": [1]}):
            assert validator.is_valid(one) and validator.is_valid({"queries": [one, one]})
            assert not validator.is_valid({**one, "queries": [one]})
        assert not validator.is_valid({"text": "a", "sequence": "M"})
        assert not validator.is_valid({"text": "a", "embedding_kind": "text"})
        assert not validator.is_valid({"queries": [{"text": "a", "sequence": "M"}]})
