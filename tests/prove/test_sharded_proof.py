"""Three shards of two replicas and two encoders: the answers of the whole index, while replicas are killed."""

from __future__ import annotations

import os
import random
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from index_folders import unit_vectors, write_embeddings
from ports import free_port
from running import LOGS, Load, wait_until
from sharded import num_up, replicas
from tiny_model import WORDS, random_sequences, tiny_model

from benchmarks.report import Claim, write_results
from protclip.embeddings.reading import read_embeddings
from protclip.index.build import build_from
from protclip.index.config import IndexConfig
from protclip.questions import COLUMNS
from serve.settings import AppArgs, Sharding

pytestmark = pytest.mark.prove

SEED = 202611
FULL_KILLS = 10
NUM_KILLS = int(os.environ.get("PROTCLIP_PROVE_KILLS", FULL_KILLS))
NUM_CASES, NUM_CLIENTS = 30 * NUM_KILLS, 4
ROWS = 12_000
"""Of a segment: more than are searched without their graph."""
EVERYTHING = {"encoder": 2, "shard-0": 2, "shard-1": 2, "shard-2": 2}
NAMES = {"encoder": "EncoderReplica", "shard-0": "Shard-0", "shard-1": "Shard-1", "shard-2": "Shard-2"}
SEARCH = {
    "queries": [{"text": "binds ATP"}, {"sequence": "MKTAYIAKQRQISFVKSHFSRQ"}, {"accession": "P00003"}],
    "exclude_self": True,
}
"""Asks the encoder, and each shard twice."""
FILTERS = (None, None, "reviewed", "length > 20000 and not ec = 1", "accession in (P00001, P00030, P30000)")


@pytest.fixture(scope="module")
def args(tmp_path_factory: pytest.TempPathFactory) -> AppArgs:
    """The sharded application."""
    folder = tmp_path_factory.mktemp("sharded")
    model = tiny_model()
    model.save_pretrained(str(folder / "checkpoint"))
    of_proteins = model.embed_proteins(random_sequences(100, SEED))
    vectors = np.concatenate([unit_vectors(3 * ROWS - 300, of_proteins.shape[1], SEED), of_proteins, of_proteins])
    vectors = np.concatenate([vectors, vectors[:100]])  # equal scores within a shard and between two
    embeddings = write_embeddings(
        folder / "embeddings", vectors, fingerprint=model.fingerprint, settings={"dtype": "float32"}
    )
    build_from(read_embeddings(embeddings), str(folder / "index"), IndexConfig(shard_rows=ROWS))
    return AppArgs(
        checkpoint=str(folder / "checkpoint"),
        keys="none",
        num_replicas=2,
        sharding=Sharding(index=str(folder / "index"), num_shards=3, num_replicas=2),
    )


@pytest.fixture(scope="module")
def urls(ray_cluster: None, args: AppArgs) -> Iterator[tuple[str, str]]:  # noqa: ARG001
    """Of a server with the whole index, and of the sharded one."""
    from ray import serve
    from ray.serve.config import HTTPOptions

    from serve.app import application, build_app

    assert args.sharding is not None
    port = free_port()
    serve.start(http_options=HTTPOptions(host="127.0.0.1", port=port), logging_config=LOGS)
    whole = application(args.model_copy(update={"num_replicas": 1}), {"default": args.sharding.index})
    for name, its in (("whole", whole), ("sharded", build_app(args))):
        serve.run(its, name=name, route_prefix=f"/{name}", logging_config=LOGS)
    yield f"http://127.0.0.1:{port}/whole", f"http://127.0.0.1:{port}/sharded"
    serve.shutdown()


def random_search(rng: random.Random) -> dict[str, Any]:
    """A body of POST /v1/search: questions of all kinds under all options."""

    def question() -> dict[str, Any]:
        kind = rng.choice(["text", "sequence", "accession", "embedding"])
        values: dict[str, Any] = {
            "text": " ".join(rng.choices(WORDS, k=rng.randrange(1, 60))),
            "sequence": random_sequences(1, rng.randrange(200))[0],
            "accession": f"P{rng.randrange(3 * ROWS + 500):05d}",  # some are not there
            "embedding": [rng.gauss(0, 1) for _ in range(24)],
        }
        asked: dict[str, Any] = {kind: values[kind]}
        if rng.random() < 0.5:
            asked["name"] = f"P{rng.randrange(3 * ROWS):05d}"
        if kind == "embedding":
            asked["embedding_kind"] = rng.choice([None, "protein", "text"])
        return asked

    body: dict[str, Any] = {
        "k": rng.choice([1, 10, 100, 200]),
        "offset": rng.choice([0, 0, 7, 30]),
        "filter": rng.choice(FILTERS),
        "min_score": rng.choice([None, None, -1, 0.3, 0.8]),
        "exact": rng.random() < 0.3,
        "exclude_self": rng.random() < 0.3,
        "columns": rng.choice([None, None, [], ["gene", "name"], list(COLUMNS)]),
    }
    return body | (question() if rng.random() < 0.7 else {"queries": [question() for _ in range(4)]})


def test_answers_are_those_of_the_whole_index_while_replicas_die(args: AppArgs, urls: tuple[str, str]) -> None:
    rng = random.Random(SEED)
    whole, sharded = urls
    wait_until(lambda: num_up(sharded) == EVERYTHING, "all replicas are known")

    num_answers = num_hits = 0
    for _ in range(NUM_CASES):
        body = random_search(rng)
        one, other = (requests.post(f"{url}/v1/search", json=body, timeout=60) for url in urls)
        assert other.status_code == one.status_code, (body, other.text)
        if one.ok:
            assert other.json() == one.json(), body
            found = one.json().get("answers", [one.json()])
            num_answers += len(found)
            num_hits += sum(len(answer["hits"]) for answer in found)
        else:
            assert other.json()["error"]["message"] == one.json()["error"]["message"]

    url = f"{sharded}/v1/search"
    expected = requests.post(f"{whole}/v1/search", json=SEARCH, timeout=60).json()
    victims = [*NAMES, *rng.choices(list(NAMES), k=NUM_KILLS)][:NUM_KILLS]
    noticed, ready = [], []
    with Load(url, SEARCH, num_clients=NUM_CLIENTS) as load:
        wait_until(lambda: len(load.answered) > 100, "requests are answered")
        for victim in victims:
            rng.choice(replicas("sharded", NAMES[victim])).kill()
            start = time.monotonic()
            wait_until(lambda victim=victim: num_up(sharded)[victim] == 1, f"{victim}: the death is noticed")  # type: ignore[misc]
            noticed.append(time.monotonic() - start)
            wait_until(lambda: num_up(sharded) == EVERYTHING, "all replicas are there again")
            ready.append(time.monotonic() - start)
    longest = max(end - begin for begin, end in load.answered)
    assert requests.post(url, json=SEARCH, timeout=60).json() == expected

    hidden = hide_shard(args)
    killed = time.monotonic()
    for process in replicas("sharded", NAMES["shard-1"]):
        process.kill()
    body = {**SEARCH, "allow_partial": True}
    wait_until(lambda: "partial" in requests.post(url, json=body, timeout=60).text, "answers are partial")
    partial_s = time.monotonic() - killed
    found = requests.post(url, json=body, timeout=60).json()["answers"]
    part = {"missing_shards": [1], "searched_rows": 2 * ROWS, "total_rows": 3 * ROWS}
    assert [answer["partial"] for answer in found] == [part] * 3
    refused = requests.post(url, json=SEARCH, timeout=60)
    assert (refused.status_code, refused.json()["error"]["type"]) == (503, "UnavailableError")
    hidden.rename(hidden.with_suffix(".hnsw"))
    wait_until(lambda: num_up(sharded) == EVERYTHING, "the shard is back", 300)
    assert requests.post(url, json=SEARCH, timeout=60).json() == expected

    claims = [
        Claim(claim="sharded_answers_unlike_the_whole", value=0, target=0, unit="answers"),
        Claim(claim="sharded_kills_failed_requests", value=len(load.failed), target=0, unit="requests"),
        Claim(claim="sharded_kills_noticed_median", value=statistics.median(noticed), unit="s"),
        Claim(claim="sharded_kills_replaced_median", value=statistics.median(ready), unit="s"),
        Claim(claim="sharded_kills_longest_answer", value=longest, unit="s"),
        Claim(claim="sharded_partial_after", value=partial_s, unit="s"),
    ]
    table = [
        f"Three shards of {ROWS:,} vectors with two replicas each, two encoders of a tiny model, one gateway, on one",
        f"machine, seed {SEED}. {NUM_CASES} random requests got {num_answers:,} answers with {num_hits:,} hits, or",
        "their error, equal to the last bit to those of a replica that holds the whole index.",
        "",
        f"{NUM_CLIENTS} clients ask three questions a request, while {NUM_KILLS} replicas of encoders and shards get",
        "SIGKILL, each after all were there again. Then both replicas of a shard are killed and cannot start.",
        "",
        "| answered | failed | longest time to an answer | partial answers after |",
        "|---|---|---|---|",
        f"| {len(load.answered):,} | {len(load.failed)} | {longest:.2f} s | {partial_s:.2f} s |",
    ]
    figures = {
        "victims": victims,
        "noticed_s": noticed,
        "replaced_s": ready,
        "failed": [problem for _, _, problem in load.failed],
        "answered": len(load.answered),
        "answers_compared": num_answers,
    }
    write_results("sharded_kills", claims, figures, "\n".join(table), quick=NUM_KILLS < FULL_KILLS)
    assert load.failed == []


def hide_shard(args: AppArgs) -> Path:
    """Move a file of the second shard away, so that none of its replicas starts."""
    assert args.sharding is not None
    graph = Path(args.sharding.index, "segment-00001.hnsw")
    return graph.rename(graph.with_suffix(".hidden"))
