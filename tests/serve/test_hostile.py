"""Requests that could stop the server, over real HTTP in both modes; tests/prove has them with times."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import hostile
import pytest
import requests
from hostile import KINDS, Statuses
from raw_http import exchange, head
from running import Running
from sockets import family, listening, open_to_others

from serve.haproxy import haproxy_binary
from serve.keys import new_key

pytestmark = pytest.mark.serve

LARGE = {
    "numbers",
    "empty_strings",
    "letters",
    "keys",
    "fewer_keys",
    "most_fields",
    "many_inputs",
    "small_chunks",
    "deep",
}
"""Above the session's server's 20,000 bytes."""


def all_at_once(port: int, kinds: dict[str, set[str]]) -> dict[str, Statuses]:
    """The answers of all kinds, beside a good client that must not be failed."""
    with ThreadPoolExecutor(len(kinds)) as pool:
        running = {kind: pool.submit(lambda send: Statuses(send(port)), KINDS[kind][0]) for kind in kinds}
        good = hostile.good_client(port, 3)
        answers = {kind: future.result() for kind, future in running.items()}
    assert good.number > 0 and good.failed == 0
    return answers


def test_behind_serves_own_proxy_each_is_refused_and_a_good_client_served(server):
    port = urlsplit(server.url).port
    kinds = {kind: {"413"} if kind in LARGE else allowed for kind, (_, allowed) in KINDS.items()}
    kinds["deep"] = {"413", "422"}
    kinds["small_chunks"] = {"413", hostile.CLOSED}
    kinds["half_large_bodies"] = kinds["gzip_bomb"] = {"413", "415"}
    for kind, found in all_at_once(port, kinds).items():
        assert found and set(found) <= kinds[kind], (kind, found)
    assert requests.get(f"{server.url}/health", timeout=60).status_code == 200


@pytest.fixture(scope="module")
def behind_haproxy(folders, tmp_path_factory) -> Iterator[tuple[Running, str, str]]:
    """A server with HAProxy and two keys, which others can reach."""
    if haproxy_binary() is None:
        pytest.skip("the HAProxy of ray[serve] does not run here")
    folder = tmp_path_factory.mktemp("behind-haproxy")
    (alice, alices), (bob, bobs) = new_key("alice"), new_key("bob", rate=2)
    (folder / "keys").write_text(f"{alices}\n{bobs}\n")
    options = ("--host", "0.0.0.0", "--keys", str(folder / "keys"))
    with Running(folders.index, folders.args.checkpoint, *options, env={"HOME": str(folder)}) as server:
        yield server.wait_ready(), alice, bob


def test_behind_haproxy_a_key_is_asked_for_and_anothers_rate_does_not_touch_mine(behind_haproxy):
    server, alice, bob = behind_haproxy

    def ask(key: str | None) -> requests.Response:
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        return requests.post(
            f"http://127.0.0.1:{server.port}/v1/search", json={"text": "a"}, headers=headers, timeout=60
        )

    assert ask(None).status_code == 401 and ask(alice + "x").status_code == 401
    bobs = [ask(bob) for _ in range(20)]
    assert {answer.status_code for answer in bobs} == {200, 429}
    assert int(next(answer for answer in bobs if answer.status_code == 429).headers["Retry-After"]) >= 1
    assert {ask(alice).status_code for _ in range(20)} == {200}
    assert requests.get(f"http://127.0.0.1:{server.port}/health", timeout=60).status_code == 200
    assert exchange(server.port, head("GET", "/metrics")).error["type"] == "UnauthorizedError"


def test_behind_haproxy_a_server_for_others_is_asked_by_any_of_its_names_with_a_key(behind_haproxy):
    server, alice, _ = behind_haproxy
    body = b'{"text":"a"}'
    for host in ("server.example.org", f"10.1.2.3:{server.port}"):
        lines = [
            "POST /v1/search HTTP/1.1",
            f"Host: {host}",
            "Content-Type: application/json",
            f"Content-Length: {len(body)}",
        ]
        for key, status in (([f"Authorization: Bearer {alice}"], 200), ([], 401)):
            request = "\r\n".join([*lines, *key]).encode() + b"\r\n\r\n" + body
            assert exchange(server.port, request).status == status
    assert open_to_others(listening(family(server.process.pid))) == [("0.0.0.0", server.port)]
