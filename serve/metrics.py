"""What a replica counts, in Prometheus's form. The numbers are those of one replica since it started."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.answers import NamedIndex

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_ITEMS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_TOKENS = (16, 64, 256, 1024, 2048, 4096, 8192, 16384, 32768, 65536)

CLIENT_GONE = 499
"""Counted in place of a status where the client went before its answer."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Load:
    """What a replica has to do at this moment."""

    num_items: int
    """That wait."""
    num_tokens: int
    """Cost of these, as ``max_waiting_tokens`` counts it."""
    num_explanations: int
    """Under way."""
    batch_s: float
    """For which the oldest batch under way has been computed; 0 where there is none."""
    missing: str | None = None
    """What no request can do without and has no replica, in words: of a sharded deployment."""
    missing_shards: tuple[int, ...] = ()
    """Numbers of the shards without a replica."""


class Metrics:
    """The counters of a replica; they may be written from any thread."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each, that says when it began
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._requests = Counter("protclip_requests", "Answered requests.", ["route", "status"], registry=self.registry)
        self._request_s = Histogram(
            "protclip_request_seconds",
            "From a request's head to the end of its answer.",
            ["route"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._batch_items = Histogram(
            "protclip_batch_items", "Items computed together.", buckets=_ITEMS, registry=self.registry
        )
        self._batch_tokens = Histogram(
            "protclip_batch_tokens", "Tokens computed together.", buckets=_TOKENS, registry=self.registry
        )
        self._batch_s = Histogram(
            "protclip_batch_seconds",
            "For which a batch was embedded and searched.",
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._tokens = Counter("protclip_embedded_tokens", "Tokens that the model has seen.", registry=self.registry)
        self._replicas_up = Gauge(
            "protclip_replicas_up",
            "Of the encoder and of each shard, where the index is in shards.",
            ["part"],
            registry=self.registry,
        )
        self._explained = Counter(
            "protclip_explained_tokens", "Tokens that it has seen for explanations beside them.", registry=self.registry
        )

        # To find a series by its labels takes longer than to count.
        self._of_route = cache(
            lambda route, status: (self._requests.labels(route, status), self._request_s.labels(route))
        )

    def watch(self, load: Callable[[], Load], indexes: Callable[[], Sequence[NamedIndex]]) -> None:
        """Have the queue and the indexes looked at whenever the numbers are asked for."""

        def gauge(name: str, help_text: str, value: Callable[[], float]) -> None:
            Gauge(name, help_text, registry=self.registry).set_function(value)

        gauge("protclip_queue_items", "Items that wait.", lambda: load().num_items)
        gauge(
            "protclip_queue_tokens",
            "Cost of the waiting items, in tokens as max_waiting_tokens counts them.",
            lambda: load().num_tokens,
        )
        gauge("protclip_explanations", "Explanations under way.", lambda: load().num_explanations)
        self.registry.register(_OfIndexes(indexes))

    def watch_replicas(self, part: str, num_up: Callable[[], int]) -> None:
        """Have the replicas of a part of a sharded deployment counted whenever the numbers are asked for."""
        self._replicas_up.labels(part).set_function(num_up)

    def count_request(self, route: str, status: int, seconds: float) -> None:
        """A request was answered."""
        counter, histogram = self._of_route(route, status)
        counter.inc()
        histogram.observe(seconds)

    def count_batch(self, num_items: int, num_tokens: int, seconds: float) -> None:
        """A batch was computed."""
        self._batch_items.observe(num_items)
        self._batch_tokens.observe(num_tokens)
        self._batch_s.observe(seconds)
        self._tokens.inc(num_tokens)

    def count_explained(self, num_tokens: int) -> None:
        """Passes of an explanation were computed."""
        self._explained.inc(num_tokens)

    def text(self) -> bytes:
        """All of it, as Prometheus reads it."""
        return generate_latest(self.registry)


class _OfIndexes(Collector):
    """Numbers of each index; its name is a label."""

    def __init__(self, indexes: Callable[[], Sequence[NamedIndex]]) -> None:
        self.indexes = indexes

    def describe(self) -> Iterable[Metric]:
        """Nothing, so that no index is asked for before there is one."""
        return []

    def collect(self) -> Iterable[Metric]:
        rows = GaugeMetricFamily("protclip_index_rows", "Rows that may answer.", labels=["index"])
        recall = GaugeMetricFamily("protclip_index_recall_at_10", "The lowest that was measured.", labels=["index"])
        age = GaugeMetricFamily(
            "protclip_index_age_seconds", "Since the index's manifest was written.", labels=["index"]
        )
        for one in self.indexes():
            for family, value in ((rows, one.count), (recall, one.recall_at_10), (age, one.age_s)):
                family.add_metric([one.name], float("nan") if value is None else value)
        return [rows, recall, age]


class CountRequests:
    """Counts the requests to an application, by route and status: what no route answers is ``other``."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app = app
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        begin = time.perf_counter()
        status: int | None = None

        async def tell(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, tell)
        except Exception:
            status = status or 500  # what is outside makes it one
            raise
        finally:
            route = getattr(scope.get("route"), "path", "other")
            self.metrics.count_request(route, status or CLIENT_GONE, time.perf_counter() - begin)
