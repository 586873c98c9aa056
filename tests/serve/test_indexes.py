"""The named indexes of a replica, without Ray: each answers as its own, and is exchanged whole or not at all."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from index_folders import write_embeddings
from releases import damage, make_too_large
from tiny_model import random_sequences, random_texts, tiny_model, write_protein_index

from cluster.folders import locked, private_root
from protclip.embeddings.reading import read_embeddings
from protclip.errors import ConfigError, DataError, IndexMismatchError, NotFoundError
from protclip.index.build import build_from
from protclip.index.config import IndexConfig
from protclip.index.index import Index, memory_bytes
from protclip.index.manifest import read_index_manifest
from protclip.index.recall import probe
from protclip.questions import Options, Question
from protclip.retrieval import Retriever
from serve.deployments import Replica
from serve.indexes import LOADING

pytestmark = pytest.mark.unit


@pytest.fixture(scope="module")
def named(folders, tmp_path_factory) -> dict[str, str]:
    """Indexes of one model: of proteins, of others, and of texts."""
    folder = tmp_path_factory.mktemp("named")
    texts = random_texts(40)
    embeddings = write_embeddings(
        folder / "texts" / "embeddings",
        folders.model.embed_texts(texts),
        fingerprint=folders.model.fingerprint,
        content="text",
        columns={"text": texts},
        settings={"dtype": "float32"},
    )
    build_from(read_embeddings(embeddings), str(folder / "texts" / "index"), IndexConfig())
    other = write_protein_index(folder, folders.model, random_sequences(50, seed=5))
    return {"default": folders.index, "other": other, "texts": str(folder / "texts" / "index")}


def replica_of(folders: Any, indexes: dict[str, str]) -> Replica:
    replica = Replica(folders.args, folders.model.fingerprint)
    asyncio.run(replica.reconfigure({"indexes": indexes}))
    return replica


async def change(replica: Replica, indexes: dict[str, str]) -> None:
    """As Serve does, and wait."""
    await replica.reconfigure({"indexes": indexes})
    assert replica._changing is not None  # it returns at once
    await replica._changing
    state = await replica.state()
    assert state.told == {"indexes": indexes} and not state.changing


@pytest.fixture
def replica(folders: Any) -> Replica:
    """A replica of its own: its indexes are changed."""
    return replica_of(folders, {"default": folders.index})


def rows(answers: Any) -> list[Any]:
    return [answer.hits for answer in answers]


def nearly(answers: Any) -> list[Any]:
    """The same, where another batch may have moved a score's last digits."""
    return [[{**hit, "score": pytest.approx(hit["score"], abs=1e-6)} for hit in answer.hits] for answer in answers]


@pytest.mark.parametrize(
    "options", [Options(k=4), Options(k=3, where="reviewed", exact=True), Options(exclude_self=True)]
)
def test_each_named_index_answers_as_its_own_retriever(folders, named, options):
    replica = replica_of(folders, named)
    asked = [Question(text="kinase binds ATP"), Question(sequence=folders.sequences[7]), Question(accession="P00003")]

    async def ask() -> list[Any]:  # at once, so that batches hold questions for several indexes
        return await asyncio.gather(*(replica.search(asked, options, index=name) for name in named))

    for (name, path), answers in zip(named.items(), asyncio.run(ask()), strict=True):
        own = Retriever.load(path, checkpoint=folders.args.checkpoint).search_all(asked, options)
        assert rows(answers) == nearly(own)
        assert {answer.index for answer in answers} == {read_index_manifest(path).fingerprint}
        known = asyncio.run(replica.protein("P00003", index=name))
        assert {**known, "sequence": None} == {**Retriever.load(path).row("P00003"), "sequence": None}
    assert [one.name for one in replica.describe_indexes()] == list(named)


def test_an_index_of_fewer_dimensions_is_asked_like_any_other(folders, tmp_path):
    short = write_protein_index(tmp_path, folders.model, folders.sequences, dimensions=8)
    named = {"default": folders.index, "short": short}
    replica = replica_of(folders, named)
    assert [replica.index_dimension(name) for name in named] == [24, 8]
    asked = [Question(text="kinase binds ATP"), Question(sequence=folders.sequences[7]), Question(accession="P00003")]

    async def ask() -> list[Any]:  # at once, so that batches hold questions for both
        return await asyncio.gather(*(replica.search(asked, Options(k=4), index=name) for name in named))

    for path, answers in zip(named.values(), asyncio.run(ask()), strict=True):
        own = Retriever.load(path, checkpoint=folders.args.checkpoint).search_all(asked, Options(k=4))
        assert rows(answers) == nearly(own)
    with pytest.raises(NotFoundError, match="index 'none'"):
        replica.index_dimension("none")


def test_an_unknown_name_is_told_with_those_that_there_are(replica):
    with pytest.raises(NotFoundError, match="index 'none': is not served; there are 'default'"):
        asyncio.run(replica.search([Question(text="a")], Options(), index="none"))
    with pytest.raises(NotFoundError, match="index 'none'"):
        asyncio.run(replica.protein("P00001", index="none"))


def test_a_change_adds_exchanges_and_removes_and_what_is_gone_leaves_memory(replica, named):
    old = weakref.ref(replica.indexes.retriever("default").indexes["protein"])
    for wanted in ({**named}, {"default": named["other"]}, {"texts": named["texts"]}):
        asyncio.run(change(replica, wanted))
        assert replica.refused() is None and asyncio.run(replica.state()).paths == wanted
    gc.collect()
    assert old() is None


def test_a_request_ends_on_the_index_with_which_it_began(replica, named, monkeypatch):
    began, go_on = threading.Event(), threading.Event()
    forward = replica._encoder.forward

    def slow(prepared: Any) -> Any:
        began.set()
        assert go_on.wait(10)
        return forward(prepared)

    monkeypatch.setattr(replica._encoder, "forward", slow)

    async def scenario() -> tuple[Any, Any]:
        before = asyncio.create_task(replica.search([Question(text="kinase")], Options()))
        await asyncio.to_thread(began.wait, 10)
        await change(replica, {"default": named["other"]})
        go_on.set()
        return (await before)[0], (await replica.search([Question(text="kinase")], Options()))[0]

    before, after = asyncio.run(scenario())
    assert before.index == read_index_manifest(named["default"]).fingerprint
    assert after.index == read_index_manifest(named["other"]).fingerprint


def test_what_was_told_last_holds_though_it_was_told_while_another_change_was_under_way(replica, named, monkeypatch):
    began, go_on = threading.Event(), threading.Event()
    load = replica.indexes.load

    def slow(given: Any) -> None:
        began.set()
        assert go_on.wait(10)
        load(given)

    monkeypatch.setattr(replica.indexes, "load", slow)

    async def scenario() -> None:
        await replica.reconfigure({"indexes": {"default": named["other"]}})
        await asyncio.to_thread(began.wait, 10)
        assert (await replica.state()).changing
        # It answers meanwhile.
        assert (await replica.search([Question(text="a")], Options()))[0].index != ""
        changing = replica._changing
        await replica.reconfigure({"indexes": {"default": named["default"], "texts": named["texts"]}})
        go_on.set()
        assert changing is not None
        await changing

    asyncio.run(scenario())
    assert asyncio.run(replica.state()).paths == {"default": named["default"], "texts": named["texts"]}


def test_replicas_of_a_machine_load_in_turn(replica, named):
    async def scenario() -> None:
        with locked(private_root() / LOADING):  # as another replica holds it
            await replica.reconfigure({"indexes": {"default": named["other"]}})
            changing = replica._changing
            await asyncio.sleep(0.2)
            state = await replica.state()
            assert state.changing and state.paths == {"default": named["default"]}
        assert changing is not None
        await changing
        assert (await replica.state()).paths == {"default": named["other"]}

    asyncio.run(scenario())


def test_an_index_whose_graphs_do_not_find_what_they_should_is_refused(replica, named, monkeypatch):
    def fail(_: Any) -> None:
        raise DataError("its graph finds 0.20 of the 10 nearest")

    monkeypatch.setattr("serve.indexes.probe", fail)
    asyncio.run(change(replica, {"default": named["other"]}))
    assert replica.refused() == "DataError"
    assert asyncio.run(replica.state()).paths == {"default": named["default"]}


def bad_indexes(folder: Any, folders: Any, named: dict[str, str]) -> dict[str, tuple[str, str]]:
    """What is wrong → the index, and the kind of error."""
    for name in ("foreign", "bfloat16"):
        (folder / name).mkdir()
    foreign = write_protein_index(folder / "foreign", tiny_model(seed=1), folders.sequences[:30])
    other_dtype = write_protein_index(folder / "bfloat16", tiny_model(dtype="bfloat16"), folders.sequences[:30])
    return {
        "damaged": (damage(named["other"], folder / "damaged"), "DataError"),
        "foreign": (foreign, "IndexMismatchError"),
        "dtype": (other_dtype, "IndexMismatchError"),
        "too large": (make_too_large(named["other"], folder / "large"), "ConfigError"),
        "unfinished": (str(folder), "DataError"),
        "relative": ("index", "ConfigError"),
    }


def test_a_bad_index_is_refused_and_the_old_ones_go_on_answering(replica, folders, named, tmp_path):
    before = asyncio.run(replica.search([Question(text="kinase")], Options()))
    for what, (path, kind) in bad_indexes(tmp_path, folders, named).items():
        # The good one beside it is not taken either.
        asyncio.run(change(replica, {"default": path, "other": named["other"]}))
        assert replica.refused() == kind, what
        assert asyncio.run(replica.state()).paths == {"default": folders.index}
        assert rows(asyncio.run(replica.search([Question(text="kinase")], Options()))) == nearly(before)
        found_before = asyncio.run(replica.check_indexes({"indexes": {"default": path}}))
        assert (found_before is None) == (what == "damaged")  # which its files alone say
    asyncio.run(change(replica, {}))
    assert replica.refused() == "ConfigError"
    asyncio.run(change(replica, {"default": folders.index}))  # back to what it was
    assert replica.refused() is None


def test_the_first_indexes_of_a_replica_are_loaded_or_it_does_not_start(folders, named, tmp_path):
    with pytest.raises(ConfigError, match="one index or more"):
        replica_of(folders, {})
    path, _ = bad_indexes(tmp_path, folders, named)["foreign"]
    with pytest.raises(IndexMismatchError):
        replica_of(folders, {"default": folders.index, "foreign": path})


def test_too_large_says_what_is_needed_and_what_is_free(replica, named, tmp_path, monkeypatch):
    needed = memory_bytes(read_index_manifest(named["other"]))
    assert needed == 50 * (4 * 24 + 600)
    monkeypatch.setattr("serve.indexes.free_bytes", lambda: needed)
    assert asyncio.run(replica.check_indexes({"indexes": {"a": named["other"]}})) is None
    # Two are needed together.
    problem = asyncio.run(replica.check_indexes({"indexes": {"a": named["other"], "b": named["other"]}}))
    assert problem is not None and "0.00 GB are needed beside what is loaded, and 0.00 GB are free" in problem
    path = make_too_large(named["other"], tmp_path / "large")
    assert "GB are needed" in str(asyncio.run(replica.check_indexes({"indexes": {"default": path}})))


def test_a_graph_that_finds_less_than_its_manifest_says_is_found_out(tmp_path, monkeypatch):
    monkeypatch.setattr("protclip.index.subindex.EXACT_ROWS", 50)
    monkeypatch.setattr("protclip.index.subindex.GRAPH_COST", 1)
    loaded = []
    for seed in (0, 1):
        vectors = np.random.default_rng(seed).standard_normal((600, 16)).astype(np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        build_from(
            read_embeddings(write_embeddings(tmp_path / f"e{seed}", vectors)), str(tmp_path / f"i{seed}"), IndexConfig()
        )
        loaded.append(Index.load(str(tmp_path / f"i{seed}")))
    good, other = loaded
    assert good.manifest.segments[0].recall["inside"]["at_10"] > 0.95
    probe(good)
    good.subindexes[0].graph = other.subindexes[0].graph
    with pytest.raises(DataError, match=r"segment-00000: its graph finds 0\.\d\d of the 10 nearest"):
        probe(good)
    quiet = replace(good.manifest, segments=(replace(good.manifest.segments[0], recall={}),))
    probe(Index(quiet, good.subindexes))  # nothing is known of what it should find
