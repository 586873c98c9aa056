"""Explanations beside searches: the numbers of ``Retriever.explain``, in time, in turns, and no further than wanted."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest

from protclip.questions import Explanation, Options, Question
from protclip.trained_model import ProtCLIP
from serve import context
from serve.deployments import Replica
from serve.errors import DeadlineError, OverloadedError
from serve.settings import Limits

pytestmark = pytest.mark.unit

LONGEST = "MKTAYIAKQR" * 7
SEEN = 62  # residues that the tiny model sees


def started(folders: Any, limits: Limits) -> Replica:
    replica = Replica(folders.args.model_copy(update={"limits": limits}), folders.model.fingerprint)
    asyncio.run(replica.reconfigure({"indexes": {"default": folders.index}}))
    return replica


@pytest.fixture
def replica(folders: Any) -> Replica:
    """One that nothing was asked of."""
    return started(folders, folders.args.limits)


def explain(replica: Replica, sequence: str = LONGEST, **options: Any) -> Any:
    return replica.explain(
        "kinase", **{"sequence": sequence, "accession": None, "window": None, "stride": 1, **options}
    )


@pytest.mark.parametrize(("window", "stride"), [(None, 1), (5, 3), (11, 1000)])
def test_an_explanation_is_that_of_the_retriever(replica, folders, window, stride):
    for sequence in (folders.sequences[4], LONGEST, "M"):
        found = asyncio.run(explain(replica, sequence, window=window, stride=stride))
        wanted = replica._encoder.explain(sequence, "kinase", window=window, stride=stride)
        np.testing.assert_allclose(found.occlusion, wanted.occlusion, atol=1e-6)
        assert {**asdict(found), "occlusion": 0} == {**asdict(wanted), "occlusion": 0}


class Passes:
    """Counts the passes of proteins, and lets each take some time, or wait for an event."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, seconds: float = 0.0) -> None:
        self.chunks: list[int] = []
        self.num_computed = 0
        self.may_go_on = threading.Event()
        self.may_go_on.set()
        forward = ProtCLIP.forward_proteins

        def slow(model: ProtCLIP, ids: Any) -> np.ndarray:
            self.chunks.append(len(ids))
            assert self.may_go_on.wait(10)
            time.sleep(seconds * len(ids))
            embedded = forward(model, ids)
            self.num_computed += 1
            return embedded

        monkeypatch.setattr(ProtCLIP, "forward_proteins", slow)


@pytest.mark.slow
def test_the_stride_grows_until_all_is_computed_in_time(folders, monkeypatch):
    passes = Passes(monkeypatch, seconds=0.02)
    replica = started(folders, folders.args.limits.model_copy(update={"explain_s": 0.4}))
    passes.chunks.clear()
    found: Explanation = asyncio.run(explain(replica))
    # 0.4 s are at most twenty passes.
    assert found.stride > SEEN / 20 and sum(passes.chunks) < 20
    wanted = replica._encoder.explain(LONGEST, "kinase", stride=found.stride)
    np.testing.assert_allclose(found.occlusion, wanted.occlusion, atol=1e-6)
    assert asyncio.run(explain(replica, stride=SEEN - 1)).stride == SEEN - 1


@pytest.mark.slow
def test_where_it_takes_longer_than_was_measured_the_stride_grows_threefold(replica, monkeypatch):
    passes = Passes(monkeypatch, seconds=0.02)
    monkeypatch.setattr(replica._explainer, "_explain_s", 0.5)
    monkeypatch.setattr(replica._explainer, "_seen_s", 1e-9)
    found: Explanation = asyncio.run(explain(replica, stride=1))
    assert found.stride in (3, 9, 27) and sum(passes.chunks) < SEEN
    wanted = replica._encoder.explain(LONGEST, "kinase", stride=found.stride)
    np.testing.assert_allclose(found.occlusion, wanted.occlusion, atol=1e-6)


def test_a_stride_beyond_the_protein_is_one_window(replica):
    assert len(set(asyncio.run(explain(replica, stride=10**9)).occlusion)) == 1


def until(condition: Callable[[], bool]) -> Any:
    async def wait() -> None:
        async with asyncio.timeout(10):
            while not condition():
                await asyncio.sleep(0.001)

    return wait()


def test_one_whose_client_has_gone_goes_no_further(replica, monkeypatch):
    passes = Passes(monkeypatch, seconds=0.005)

    async def scenario() -> None:
        passes.chunks.clear()
        task = asyncio.create_task(explain(replica))
        await until(lambda: len(passes.chunks) > 2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until(lambda: not replica._explainer.running_s())

    asyncio.run(scenario())
    assert 2 < sum(passes.chunks) < SEEN / 2


def test_one_whose_time_is_over_goes_no_further(replica, monkeypatch):
    passes = Passes(monkeypatch)

    async def scenario() -> None:
        passes.may_go_on.clear()
        passes.chunks.clear()
        context.current.set(context.RequestContext(request_id="r", deadline=time.monotonic() + 0.2))
        with pytest.raises(DeadlineError):
            await explain(replica)
        passes.may_go_on.set()
        await until(lambda: not replica._explainer.running_s())

    asyncio.run(scenario())
    assert len(passes.chunks) == 1


@pytest.mark.parametrize("number", [1, 2, 3])
def test_one_waits_for_another_and_more_are_told_when_to_come_again(replica, monkeypatch, number):
    passes = Passes(monkeypatch)
    # So that a pass is believed to take 2 s.
    for name, value in (("_explain_s", 80.0), ("_seen_s", 2.0), ("_seen_tokens", SEEN + 2.0)):
        monkeypatch.setattr(replica._explainer, name, value)

    async def scenario() -> list[Any]:
        passes.may_go_on.clear()
        tasks = [asyncio.create_task(explain(replica)) for _ in range(number)]
        await asyncio.sleep(0.01)
        passes.may_go_on.set()
        return await asyncio.gather(*tasks, return_exceptions=True)

    first, *others = asyncio.run(scenario())
    assert first.stride == 3  # 56 s are 28 passes
    for second in others[:1]:
        assert second.stride == 5  # 32 s are left of 80
    for third in others[1:]:
        assert isinstance(third, OverloadedError) and third.retry_after_s == pytest.approx(20)


@pytest.mark.parametrize("is_under_way", [False, True])
def test_searches_are_answered_before_an_explanation_goes_on(replica, monkeypatch, is_under_way):
    """Beside a batch that is held, a chunk waits as long as it may, before it or within it, and then goes on."""
    passes = Passes(monkeypatch)
    retriever = replica.indexes.retriever("default")
    held, find = threading.Event(), retriever.find

    def slow(asked: Any, options: Options) -> Any:
        assert held.wait(10)
        return find(asked, options)

    monkeypatch.setattr(retriever, "find", slow)
    monkeypatch.setattr(replica._embeddings, "_at_once_s", 0.0)  # it waits, and so takes the processor for nothing
    monkeypatch.setattr("serve.explaining.PATIENCE", 1e9)

    async def scenario() -> None:
        if is_under_way:
            passes.may_go_on.clear()
            explanation = asyncio.create_task(explain(replica))
            await until(lambda: bool(passes.chunks))
        search = asyncio.create_task(replica.search([Question(text="kinase")], Options()))
        await until(lambda: replica._embeddings.running_s() > 0)
        if is_under_way:
            passes.may_go_on.set()
        else:
            explanation = asyncio.create_task(explain(replica))
        await asyncio.sleep(0.05)
        assert not passes.num_computed
        held.set()
        await search
        await explanation

    asyncio.run(scenario())
    monkeypatch.setattr("serve.explaining.PATIENCE", 2.0)
    held.clear()

    async def never_starved() -> None:
        search = asyncio.create_task(replica.search([Question(text="kinase")], Options()))
        await until(lambda: replica._embeddings.running_s() > 0)
        await explain(replica)
        assert not search.done()
        held.set()
        await search

    asyncio.run(never_starved())
