"""The steps of calls, taken here: what is sent where, what is waited, and what becomes of the answers."""

from __future__ import annotations

import base64
import json
import random
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import httpx2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protclip.client import Client, calls
from protclip.client.steps import Send, Servers, Steps, Wait, ask
from protclip.errors import ConfigError, IndexMismatchError, ProtclipError, ServerError
from protclip.questions import Coverage, Options, PartialAnswer, Question

pytestmark = pytest.mark.unit
ONE, TWO = "http://one:8000", "http://two:8000"
LIMITS = {"max_items": 8, "max_k": 50, "max_body_bytes": 2_000, "max_body_values": 100, "max_body_fields": 60}
TIGHT = {**LIMITS, "max_body_bytes": 200, "max_body_values": 25, "max_body_fields": 16}
INFO = {"limits": LIMITS, "model": {"fingerprint": "m", "dimension": 2, "scale": 10.0}}


@dataclass
class World:
    """Servers, what they answer, and what was done."""

    answer: Callable[[Send], Any]
    addresses: tuple[str, ...] = (ONE,)
    seed: int = 0
    now: float = 1000.0
    sent: list[Send] = field(default_factory=list)
    waited: list[float] = field(default_factory=list)

    def servers(self, patience_s: float = 60) -> Servers:
        return Servers(
            addresses=self.addresses,
            timeout_s=30,
            patience_s=patience_s,
            rng=random.Random(self.seed),
            clock=lambda: self.now,
        )

    def take(self, steps: Steps[Any]) -> Any:
        outcome = None
        try:
            while True:
                step = steps.send(outcome)
                if isinstance(step, Wait):
                    self.waited.append(step.seconds)
                    self.now += step.seconds
                    outcome = None
                else:
                    self.sent.append(step)
                    outcome = self.answer(step)
        except StopIteration as done:
            return done.value

    def hosts(self) -> str:
        return "".join("1" if send.url.startswith(ONE) else "2" for send in self.sent)


def error(status: int, kind: str = "OverloadedError", **headers: str) -> httpx2.Response:
    body = {"error": {"type": kind, "message": "said why.", "request_id": "abc"}}
    return httpx2.Response(
        status, json=body, headers={name.replace("_", "-"): value for name, value in headers.items()}
    )


def fine(**body: Any) -> httpx2.Response:
    return httpx2.Response(200, json=body)


def in_turn(*outcomes: Any) -> Callable[[Send], Any]:
    remaining = iter(outcomes)
    return lambda _: next(remaining)


LOST = httpx2.RemoteProtocolError("Server disconnected")


@pytest.mark.parametrize(
    "outcome",
    [
        LOST,
        httpx2.ReadTimeout(""),
        *map(error, (408, 429, 502, 503, 504)),
        error(404, "NoApplication"),
        httpx2.Response(404, text="Path '/info' not found."),
    ],
)
def test_what_passes_is_asked_again_after_waits_that_grow(outcome):
    world = World(in_turn(*[outcome] * 8, fine(a=1)))
    assert world.take(ask(world.servers(), "GET", "/info")) == {"a": 1}
    assert len(world.waited) == 8
    for waited, longest in zip(world.waited, (0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10, 10), strict=True):
        assert longest / 2 <= waited <= longest
    assert len({waited / longest for waited, longest in zip(world.waited, (0.2, 0.4, 0.8), strict=False)}) == 3


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 415, 422, 431, 500, 301])
@pytest.mark.parametrize("kind", ["SomeError", "NotFound"])
def test_what_does_not_pass_is_not_asked_again(status, kind):
    world = World(in_turn(error(status, kind)))
    with pytest.raises((ServerError, ConfigError), match=r"said why\..*request abc") as raised:
        world.take(ask(world.servers(), "GET", "/info"))
    answer = raised.value.answer
    assert answer is not None
    assert (answer.address, answer.status, answer.type, answer.request_id) == (ONE, status, kind, "abc")


def test_retry_after_is_waited_for_as_seconds_or_until_a_date():
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=20), usegmt=True)
    world = World(
        in_turn(error(503, Retry_After="7"), error(429, Retry_After=date), error(503, Retry_After="soon"), fine())
    )
    world.take(ask(world.servers(), "GET", "/info"))
    assert 7.1 <= world.waited[0] <= 7.2 and 18 <= world.waited[1] <= 20.4 and world.waited[2] <= 0.8


def test_no_wait_is_begun_that_would_end_after_the_patience():
    world = World(in_turn(error(503, Retry_After="61")))
    with pytest.raises(ServerError, match=r"OverloadedError: said why.*given up after 0 s, tries: 1\. Check"):
        world.take(ask(world.servers(), "GET", "/info"))
    assert world.waited == []


@given(st.integers(0, 10_000), st.floats(0.2, 60))
def test_all_tries_and_waits_end_within_the_patience(seed, patience_s):
    world = World(lambda _: LOST, seed=seed)
    with pytest.raises(ServerError, match="Server disconnected; given up after"):
        world.take(ask(world.servers(patience_s), "GET", "/info"))
    assert sum(world.waited) < patience_s
    assert all(send.timeout_s <= min(30, patience_s + 1e-6) for send in world.sent)


def test_the_next_address_is_asked_at_once_and_stays():
    down = {ONE}
    world = World(lambda send: LOST if send.url.removesuffix("/info") in down else fine(), addresses=(ONE, TWO))
    servers = world.servers()
    world.take(ask(servers, "GET", "/info"))
    world.take(ask(servers, "GET", "/info"))
    assert world.hosts() == "122" and world.waited == []
    down.add(TWO)
    down.remove(ONE)
    world.take(ask(servers, "GET", "/info"))
    assert world.hosts() == "122" + "21"


def test_an_address_that_wants_to_be_left_alone_does_not_hold_up_the_other():
    world = World(
        in_turn(error(503, Retry_After="5"), LOST, LOST, LOST, LOST, fine()),
        addresses=(ONE, TWO),
    )
    world.take(ask(world.servers(), "GET", "/info"))
    assert world.hosts() == "122222" and sum(world.waited) < 5
    world = World(in_turn(*[LOST] * 4), addresses=(ONE, TWO))
    with pytest.raises(ServerError, match=f"{ONE}: Server disconnected; {TWO}: Server disconnected; given up"):
        world.take(ask(world.servers(0.25), "GET", "/info"))


def test_a_certificate_that_is_refused_is_not_asked_again():
    refused = httpx2.ConnectError("certificate verify failed")
    refused.__cause__ = ssl.SSLCertVerificationError()
    world = World(in_turn(refused))
    with pytest.raises(ServerError, match=f"{ONE}: certificate verify failed"):
        world.take(ask(world.servers(), "GET", "/info"))


def test_an_answer_of_something_else_is_told():
    for response, message in (
        (httpx2.Response(200, text="<html>"), r"answers no JSON object; is it a ProtCLIP server\?"),
        (httpx2.Response(403, text="<html>"), "answers 403 Forbidden, which is not of a ProtCLIP server's form"),
    ):
        with pytest.raises(ServerError, match=message):
            World(in_turn(response)).take(ask(World(in_turn()).servers(), "GET", "/info"))
    world = World(lambda send: fine(**INFO) if send.url.endswith("/info") else fine(hits=[]))
    with pytest.raises(ServerError, match="answers in another form than this version's"):
        world.take(calls.search_all(world.servers(), [Question(text="a")]))


def embedding(send: Send, *, model: str = "m") -> httpx2.Response:
    """Of each text its length, twice."""
    assert send.body is not None
    vectors = [np.full(2, len(text), "<f4") for text in json.loads(send.body)["texts"]]
    return fine(model=model, embeddings=[base64.b64encode(one.tobytes()).decode() for one in vectors])


@given(st.lists(st.text(st.sampled_from('a,:"ü '), min_size=1).map("x".__add__), min_size=1, max_size=60))
def test_requests_keep_to_the_limits_and_vectors_to_their_order(texts):
    info = {**INFO, "limits": TIGHT}
    world = World(lambda send: fine(**info) if send.url.endswith("/info") else embedding(send))
    vectors = world.take(calls.embed(world.servers(), "texts", texts, "truncate"))
    assert vectors[:, 0].tolist() == list(map(len, texts))
    for body in (send.body for send in world.sent if send.body is not None):
        if (count := len(json.loads(body)["texts"])) > 1:
            assert count <= 8 and len(body) <= TIGHT["max_body_bytes"]
            assert body.count(b",") < TIGHT["max_body_values"] and body.count(b":") <= TIGHT["max_body_fields"]


def test_questions_have_no_more_answers_in_a_request_than_it_may_have():
    sizes = []

    def answer(send: Send) -> httpx2.Response:
        if send.url.endswith("/info"):
            return fine(**INFO)
        body = json.loads(send.body or b"")
        sizes.append(len(body.get("queries", [1])))
        one = {
            "model": "m",
            "index": "i",
            "content": "protein",
            "query": None,
            "truncated": False,
            "hits": [],
            "new": 1,
        }
        return fine(answers=[one] * sizes[-1]) if "queries" in body else fine(**one)

    for options, expected in (
        (Options(k=5), [8, 2]),
        (Options(k=10, offset=5), [3, 3, 3, 1]),
        (Options(k=99), [1] * 10),
    ):
        sizes.clear()
        questions = [Question(text="a")] * 10
        assert len(World(answer).take(calls.search_all(World(answer).servers(), questions, options))) == 10
        assert sizes == expected


def test_an_answer_of_a_part_of_the_index_is_taken_where_that_is_allowed_and_says_so():
    partial = {"missing_shards": [1], "searched_rows": 30, "total_rows": 60}
    one = {"model": "m", "index": "i", "content": "protein", "query": None, "truncated": False, "hits": []}
    for allow_partial in (True, False):
        world = World(in_turn(fine(**one, partial={**partial, "new": 1}) if allow_partial else fine(**one)))
        steps = calls.search_all(world.servers(), [Question(text="a")], allow_partial=allow_partial)
        (answer,) = world.take(steps)
        assert json.loads(world.sent[0].body or b"").get("allow_partial", False) is allow_partial
        assert isinstance(answer, PartialAnswer) is allow_partial
        if isinstance(answer, PartialAnswer):
            assert answer.partial == Coverage(**partial)


def test_what_is_too_slow_for_a_request_is_asked_in_halves():
    sizes = []

    def answer(send: Send) -> httpx2.Response:
        if send.url.endswith("/info"):
            return fine(**INFO)
        sizes.append(len(json.loads(send.body or b"")["texts"]))
        return error(503, "DeadlineError", Retry_After="1") if sizes[-1] > 3 else embedding(send)

    world = World(answer)
    assert len(world.take(calls.embed(world.servers(), "texts", ["a"] * 10, "truncate"))) == 10
    assert sizes == [8, 4, 2, 2, 2, 2, 2] and world.waited == []


def test_vectors_of_two_models_are_not_put_together():
    models = iter("mmn")
    world = World(lambda send: fine(**INFO) if send.url.endswith("/info") else embedding(send, model=next(models)))
    with pytest.raises(IndexMismatchError, match="went over to another model or index between two requests"):
        world.take(calls.embed(world.servers(), "texts", ["a"] * 20, "truncate"))


@pytest.mark.parametrize(
    "address", ["localhost:8000", "ftp://a", "http://", "http://a:b", "http://u:p@a", "http://a?b", "http://[a", ""]
)
def test_an_address_that_cannot_be_is_refused(address):
    with pytest.raises(ConfigError, match="is no http"):
        Client(address)


def test_settings_that_cannot_be_are_refused():
    for make, message in (
        (Client, "no address is given"),
        (lambda: Client(ONE, timeout_s=0), "timeout_s=0: seconds above 0"),
        (lambda: Client(ONE, patience_s=float("nan")), "patience_s=nan"),
        (lambda: Client(ONE, key="a\nb"), "the key holds white space"),
    ):
        with pytest.raises(ConfigError, match=message):
            make()
    client = Client(f"{ONE}/", TWO, key="protclip_secret")
    assert repr(client) == f"Client('{ONE}', '{TWO}')"


EMPTY = {"model": "m", "index": "i", "answers": [], "embeddings": [], "scores": [], "limits": LIMITS}


@pytest.mark.parametrize(
    "found", [[], None, "text", {}, {"limits": {}, "model": {}}, EMPTY, {**EMPTY, "scores": ["x"]}]
)
@pytest.mark.parametrize(
    "call",
    [
        lambda servers: calls.search_all(servers, [Question(text="a")]),
        lambda servers: calls.search_all(servers, [Question(text="a")] * 3),
        lambda servers: calls.embed(servers, "texts", ["a"], "truncate"),
        lambda servers: calls.embed(servers, "texts", ["a", "b"], "truncate"),
        lambda servers: calls.embed(servers, "texts", [], "truncate"),
        lambda servers: calls.score(servers, ["M"], ["a"]),
        lambda servers: calls.classify(servers, ["M"], ["a"]),
        calls.indexes,
    ],
)
def test_an_answer_of_another_form_is_an_error_of_the_server(found, call):
    world = World(lambda _: httpx2.Response(200, json=found))
    with pytest.raises(ServerError, match=r"another form|no JSON object"):
        world.take(call(world.servers()))
    assert not world.waited


@pytest.mark.parametrize(("status", "kind"), [(422, "RequestError"), (401, "UnauthorizedError"), (500, "Inter\x1bnal")])
def test_what_a_server_says_does_nothing_to_a_terminal(status, kind):
    told = {"type": kind, "message": "one\ntwo \x1b]0;title\x07 \u202e", "request_id": "\r"}
    world = World(lambda _: httpx2.Response(status, json={"error": told}))
    with pytest.raises(ProtclipError) as error:
        world.take(calls.get(world.servers(), "/info"))
    assert str(error.value).isprintable() and r"one\ntwo \x1b]0;title\x07 \u202e" in str(error.value)
    assert error.value.answer is not None and error.value.answer.message == told["message"]


def test_what_no_further_try_mends_is_told_at_once():
    moved = httpx2.Response(301, headers={"Location": "https://one/"})
    bare = httpx2.Response(401, text="<html>")
    plain = httpx2.ConnectError("[SSL: WRONG_VERSION_NUMBER] wrong version number (_ssl.c:989)")
    plain.__cause__ = ssl.SSLError(1, str(plain))
    for outcome, message in (
        (moved, "http://one:8000/info: the server is at https://one/; give the address of that"),
        (bare, "http://one:8000/info: a key is wanted, by something before the server or another server. Set"),
        (plain, r"it answers without TLS: is its address http://"),
        (httpx2.Response(200, text="[" * 100_000), "no JSON object"),
    ):
        world = World(lambda _, outcome=outcome: outcome)
        with pytest.raises((ServerError, ConfigError), match=message):
            world.take(calls.get(world.servers(), "/info"))
        assert not world.waited


@pytest.mark.parametrize(
    "address", ["http://exa\nmple", "http://a..b", f"http://{'a' * 300}", "http://\u2603.localhost"]
)
def test_a_name_that_no_machine_has_is_refused(address):
    with pytest.raises(ConfigError, match="is no http://HOST:PORT"):
        Client(address)


def test_an_environment_without_a_way_out_is_told(monkeypatch):
    for name, value in (("HTTP_PROXY", "ftp://proxy"), ("SSL_CERT_FILE", "/no/such.pem")):
        with monkeypatch.context() as patch, Client(ONE) as client:
            patch.setenv(name, value)
            with pytest.raises(ConfigError, match="cannot be used"):
                client.health()
            patch.delenv(name)
