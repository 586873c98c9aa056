"""A replica without its HTTP: each question takes its queue, and is answered as ``Retriever`` answers it."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import numpy as np
import pytest
import torch
from tiny_model import random_texts

from protclip.errors import NotFoundError, RequestError
from protclip.index.filters import Filter
from protclip.questions import Options, Question
from serve import context
from serve.deployments import Replica
from serve.errors import DeadlineError, OverloadedError

pytestmark = pytest.mark.unit


@pytest.fixture(scope="module")
def replica(folders: Any) -> Replica:
    replica = Replica(folders.args, folders.model.fingerprint)
    asyncio.run(replica.reconfigure({"indexes": {"default": folders.index}}))
    return replica


def questions(folders: Any) -> list[Question]:
    vector = folders.model.embed_texts(["binds ATP"])[0]
    long = " ".join(random_texts(500))  # goes to the queue of long ones
    return [
        Question(text="kinase"),
        Question(accession="P00003"),
        Question(sequence=folders.sequences[4], name="P00004"),
        Question(vector=vector, name="v"),
        Question(text=long),
    ]


@pytest.mark.parametrize(
    "options",
    [
        Options(),
        Options(k=3, offset=2, columns=("gene",)),
        Options(exact=True),
        Options(where="length > 120", k=4),
        Options(exclude_self=True),
        Options(map=True),
    ],
)
def test_answers_are_those_of_the_retriever_in_the_order_of_the_questions(replica, folders, options):
    asked = questions(folders)
    found = asyncio.run(replica.search(asked, options))
    for one, other in zip(found, replica.indexes.retriever("default").search_all(asked, options), strict=True):
        assert [hit["accession"] for hit in one.hits] == [hit["accession"] for hit in other.hits]
        np.testing.assert_allclose([hit["score"] for hit in one.hits], [hit["score"] for hit in other.hits], atol=1e-6)
        assert [set(hit) for hit in one.hits] == [set(hit) for hit in other.hits]
        assert one.map == other.map


def test_what_is_at_fault_fails_alone_in_its_batch(replica):
    async def scenario() -> list[Any]:
        wrong = Question(vector=np.ones(3))
        calls = [
            replica.search([Question(text="kinase")], Options()),
            replica.search([wrong], Options()),
            replica.search([Question(accession="nobody")], Options()),
            replica.search([Question(accession="P00001")], Options()),
            replica.protein("nobody"),
            replica.protein("P00001"),
        ]
        return await asyncio.gather(*calls, return_exceptions=True)

    good, wrong, unknown, known, no_row, row = asyncio.run(scenario())
    assert len(good[0].hits) == 10 and known[0].hits[0]["accession"] == "P00001" and row["accession"] == "P00001"
    assert isinstance(wrong, RequestError) and "3 numbers" in str(wrong)
    assert isinstance(unknown, NotFoundError) and isinstance(no_row, NotFoundError)


def hold_exact(replica: Replica, monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """From now on exact answers wait for this event."""
    retriever = replica.indexes.retriever("default")
    held, find = threading.Event(), retriever.find

    def slow(asked: Any, options: Options) -> Any:
        assert not options.exact or held.wait(10)
        return find(asked, options)

    monkeypatch.setattr(retriever, "find", slow)
    return held


@pytest.mark.slow
def test_a_scan_that_takes_long_holds_up_no_search_and_ends_at_its_deadline(replica, monkeypatch):
    held = hold_exact(replica, monkeypatch)

    async def scenario() -> None:
        context.current.set(context.RequestContext(request_id="r", deadline=time.monotonic() + 1))
        scan = asyncio.create_task(replica.search([Question(text="kinase")], Options(exact=True)))
        await asyncio.sleep(0.05)
        context.current.set(None)
        assert len((await replica.search([Question(text="kinase")], Options()))[0].hits) == 10
        with pytest.raises(DeadlineError):
            await scan
        held.set()

    asyncio.run(scenario())


LONG_FILTER = " or ".join(["length > 1"] * 150)


def test_the_rows_are_gone_through_once_for_the_filter_of_a_request(replica, monkeypatch):
    filtered, mask = [], Filter.mask

    def counted(self: Filter, metadata: Any) -> Any:
        filtered.append(self.text)
        return mask(self, metadata)

    monkeypatch.setattr(Filter, "mask", counted)
    asked = [Question(accession=f"P{i:05d}") for i in range(40)]
    options = Options(where=LONG_FILTER, k=1)
    found = asyncio.run(replica.search(asked, options))
    assert [one.hits[0]["accession"] for one in found] == [one.accession for one in asked]
    assert filtered == [LONG_FILTER]


def test_a_long_filter_waits_as_what_it_costs_and_a_stuck_scan_is_seen(replica, monkeypatch):
    held = hold_exact(replica, monkeypatch)

    async def scenario() -> None:
        asked = [Question(accession="P00001")]
        tasks = [asyncio.create_task(replica.search(asked, Options(exact=True)))]
        async with asyncio.timeout(10):
            while not replica.load().batch_s:
                await asyncio.sleep(0.001)
        tasks += [asyncio.create_task(replica.search(asked, Options(where=LONG_FILTER))) for _ in range(4)]
        await asyncio.sleep(0)
        with pytest.raises(OverloadedError):
            await replica.search(asked, Options(where=LONG_FILTER))
        tasks.append(asyncio.create_task(replica.search(asked, Options(where="length > 1"))))
        held.set()
        assert all(len(found[0].hits) == 10 for found in await asyncio.gather(*tasks))
        assert not replica.load().batch_s

    asyncio.run(scenario())


def test_little_work_is_computed_by_one_thread_and_much_by_all(replica):
    before = torch.get_num_threads()
    try:
        replica._threads = 2
        replica._use_threads(1_000)
        assert torch.get_num_threads() == 1
        replica._use_threads(10**7)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
