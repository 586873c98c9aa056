"""An index in shards over HTTP, whose replicas die. ``make prove`` has more of it."""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import requests
from click.testing import CliRunner
from running import LOGS, Load, wait_until
from sharded import num_up, replicas
from tiny_model import write_protein_index

from protclip.client import AsyncClient, Client
from protclip.commands.search import main as search
from protclip.errors import ServerError
from protclip.index.config import IndexConfig
from protclip.questions import Answer, Coverage, PartialAnswer, Question
from protclip.retrieval import Retriever
from serve.settings import Sharding

pytestmark = pytest.mark.serve

SEARCH = {"queries": [{"text": "binds ATP"}, {"accession": "P00003"}], "k": 25, "exclude_self": True}
"""Asks the encoder, and each shard twice."""
QUESTIONS = [Question(text="binds ATP"), Question(sequence="MKTAYIAKQR"), Question(accession="P00003")]


@pytest.fixture(scope="module")
def sharded(server, tmp_path_factory) -> Any:
    """Two shards of two subindexes each, of two replicas each."""
    from ray import serve

    from serve.app import build_app

    folder = tmp_path_factory.mktemp("sharded")
    index = write_protein_index(folder, server.model, server.sequences, config=IndexConfig(shard_rows=15))
    args = server.args.model_copy(update={"sharding": Sharding(index=index, num_shards=2, num_replicas=2)})
    serve.run(build_app(args), name="sharded", route_prefix="/sharded", logging_config=LOGS)
    yield type(server)(
        model=server.model, sequences=server.sequences, index=index, args=args, url=f"{server.url}/sharded"
    )
    serve.delete("sharded")


def test_the_routes_answer_as_those_of_a_whole_index(server, sharded):
    for route, body in (
        ("/v1/search", SEARCH),
        ("/v1/search", {"text": "kinase", "filter": "length >"}),
        ("/v1/search", {"accession": "nobody"}),
        ("/v1/search", {"text": "kinase", "index": "other"}),
        ("/v1/embed", {"proteins": server.sequences[:5], "long": "window-mean"}),
        ("/v1/embed", {"proteins": ["ACD" * 30], "long": "error"}),
        ("/v1/score", {"sequences": server.sequences[:1], "texts": ["kinase"]}),
    ):
        one, other = server.post(route, body), sharded.post(route, body)
        assert one.status_code == other.status_code
        for answer in (whole := one.json()).get("answers", []):
            answer["index"] = sharded_index(sharded)
        if one.ok:
            assert other.json() == whole
        else:
            problem, other_problem = whole["error"], other.json()["error"]
            assert (other_problem["type"], other_problem["message"]) == (problem["type"], problem["message"])
    (index,) = requests.get(f"{sharded.url}/v1/indexes", timeout=60).json()["indexes"]
    assert (index["num_shards"], index["count"]) == (2, 60)
    for path in ("/v1/proteins/P00001", "/v1/models"):
        one, other = (requests.get(of.url + path, timeout=60).json() for of in (server, sharded))
        assert one == other


def test_shards_of_fewer_dimensions_are_asked_like_any_others(server, tmp_path):
    from ray import serve

    from serve.app import build_app

    settings = IndexConfig(shard_rows=15)
    index = write_protein_index(tmp_path, server.model, server.sequences, config=settings, dimensions=8)
    sharding = Sharding(index=index, num_shards=2)
    args = server.args.model_copy(update={"sharding": sharding})
    serve.run(build_app(args), name="short", route_prefix="/short", logging_config=LOGS)
    try:
        with Client(f"{server.url}/short") as client:
            mine = client.search_all(QUESTIONS)
    finally:
        serve.delete("short")
    wanted = Retriever.load(index, checkpoint=server.args.checkpoint).search_all(QUESTIONS)
    for one, other in zip(mine, wanted, strict=True):
        assert [hit["accession"] for hit in one.hits] == [hit["accession"] for hit in other.hits]
        assert [hit["score"] for hit in one.hits] == pytest.approx([hit["score"] for hit in other.hits], abs=1e-6)


def sharded_index(sharded: Any) -> str:
    return str(requests.get(f"{sharded.url}/info", timeout=60).json()["index"]["fingerprint"])


def test_a_dead_replica_fails_no_request(sharded):
    everything = {"encoder": 1, "shard-0": 2, "shard-1": 2}
    wait_until(lambda: num_up(sharded.url) == everything, "all replicas are known")
    with Load(f"{sharded.url}/v1/search", SEARCH, num_clients=4) as load:
        wait_until(lambda: len(load.answered) > 20, "requests are answered")
        replicas("sharded", "Shard-0")[0].kill()
        wait_until(lambda: num_up(sharded.url)["shard-0"] == 1, "the death is noticed")
        wait_until(lambda: num_up(sharded.url) == everything, "all replicas are there again")
    assert load.failed == []


def check_partial_answers_of_the_client(sharded: Any, found: dict[str, Any]) -> None:
    """Of the clients and the command; ``found`` is the first answer to SEARCH without its ``partial``."""
    partial = Coverage(missing_shards=[1], searched_rows=30, total_rows=60)
    options: dict[str, Any] = {"k": 25, "exclude_self": True}

    async def ask_too() -> Answer:
        async with AsyncClient(sharded.url) as client:
            return await client.search(text="binds ATP", allow_partial=True, **options)

    with Client(sharded.url) as client:
        answers = [client.search(text="binds ATP", allow_partial=True, **options), asyncio.run(ask_too())]
    with Client(sharded.url, patience_s=1.0) as client, pytest.raises(ServerError, match="UnavailableError"):
        client.search(text="binds ATP", **options)
    assert [{**asdict(answer), "partial": None} for answer in answers] == [{**found, "partial": None}] * 2
    assert [answer.partial for answer in answers if isinstance(answer, PartialAnswer)] == [partial] * 2

    command = ["--server", sharded.url, "--text", "binds ATP", "-k", "25", "--exclude-self", "--allow-partial"]
    result = CliRunner().invoke(search, [*command, "--json"])
    assert json.loads(result.stdout) == {**found, "partial": asdict(partial)}
    warning = "the answer is partial: the index's shards 1 cannot be reached, and 30 of its 60 rows were searched."
    assert f"search: warning: {warning}" in result.stderr


def test_without_a_shard_answers_are_those_of_the_others_or_refused(sharded):
    whole = sharded.post("/v1/search", SEARCH).json()["answers"]
    graph = Path(sharded.index) / "segment-00003.hnsw"
    graph.rename(hidden := graph.with_suffix(".hidden"))  # no replica of the second shard starts any more
    for process in replicas("sharded", "Shard-1"):
        process.kill()
    wait_until(lambda: num_up(sharded.url)["shard-1"] == 0, "the shard is missing")

    refused = sharded.post("/v1/search", SEARCH)
    error = refused.json()["error"]
    assert (refused.status_code, error["type"]) == (503, "UnavailableError") and "Retry-After" in refused.headers
    assert "cannot be reached: 1;" in error["message"] and "'allow_partial': true" in error["message"]

    found = sharded.post("/v1/search", {**SEARCH, "allow_partial": True}).json()["answers"]
    for one, all_of_it in zip(found, whole, strict=True):
        assert one.pop("partial") == {"missing_shards": [1], "searched_rows": 30, "total_rows": 60}
        scores = {hit["accession"]: hit["score"] for hit in all_of_it["hits"]}
        mine = {hit["accession"]: hit["score"] for hit in one["hits"] if hit["accession"] in scores}
        assert list(mine.items()) == [(name, score) for name, score in scores.items() if name in mine]
        assert 5 < len(mine) < len(one["hits"]) == 25
        assert {**one, "hits": []} == {**all_of_it, "hits": []}

    check_partial_answers_of_the_client(sharded, found[0])
    answers = [sharded.post("/v1/search", {"accession": f"P{i:05d}", "allow_partial": True}) for i in range(60)]
    assert sorted({answer.status_code for answer in answers}) == [200, 503]
    ready = requests.get(f"{sharded.url}/health/ready", timeout=60)
    assert ready.json() == {"status": "ok", "missing_shards": [1]}

    hidden.rename(graph)
    wait_until(lambda: num_up(sharded.url)["shard-1"] > 0, "the shard is back")
    assert sharded.post("/v1/search", SEARCH).json()["answers"] == whole
