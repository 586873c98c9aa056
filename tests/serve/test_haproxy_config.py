"""HAProxy's configuration, and what HAProxy does with it."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from ports import free_port
from raw_http import exchange, head

from serve import haproxy_config
from serve.haproxy import haproxy_binary, script_for
from serve.haproxy_config import rewrite

pytestmark = pytest.mark.unit

RAYS = """global
    maxconn 100
    tune.bufsize 65536
defaults
    mode http
    timeout connect 5s
    timeout client 3600s
    timeout http-keep-alive 90s
    option splice-request
    option splice-response
    retry-on conn-failure
    retries 0
    errorfile 502 /tmp/500.http
    errorfile 503 /tmp/500.http
    errorfile 504 /tmp/500.http
    balance leastconn
frontend prometheus
    bind :{metrics}
    mode http
    no log
frontend http_frontend
    bind 127.0.0.1:{front}
    acl is_app path_beg /v1
    use_backend app if is_app
    default_backend default_backend
backend default_backend
    http-request return status 404 content-type text/plain lf-string "Path \\'%[path]\\' not found."
backend app
    timeout server 3600s
    server REPLICA 127.0.0.1:{replica}
listen stats
  bind *:{stats}
  stats enable
"""
"""Of Ray's template, what matters here."""


def test_it_has_our_time_limits_and_only_the_front_where_it_was_asked_for():
    text = rewrite(RAYS.format(metrics=1, front=2, replica=3, stats=4), "192.0.2.1:2")
    lines = [line.strip() for line in text.splitlines()]
    assert {line for line in lines if line.startswith("bind")} == {
        "bind 127.0.0.1:1",
        "bind 192.0.2.1:2",
        "bind 127.0.0.1:4",
    }
    assert sorted(line for line in lines if line.startswith("timeout")) == [
        "timeout client 60s",
        "timeout connect 5s",
        "timeout http-keep-alive 60s",
        "timeout http-request 10s",
        "timeout server 60s",
    ]
    assert rewrite(text, "192.0.2.1:2") == text
    assert "errorfile" not in text and "splice" not in text


@pytest.mark.parametrize(
    ("line", "other", "named"),
    [
        ("defaults\n", "defaults all\n", "defaults"),
        ("bind :1\n", "bind 0.0.0.0:1\n", "bind :"),
        ("bind *:4\n", "bind 0.0.0.0:4\n", "bind"),
        ("frontend http_frontend\n", "frontend other\n", "http_frontend"),
        ("status 404 ", "status 405 ", "404"),
        ("stats enable\n", "stats enable\n  bind 0.0.0.0:5\n", "listen on 0.0.0.0:5"),
        ("stats enable\n", "stats enable\n  bind 127.0.0.1:5,*:6\n", r"listen on 127.0.0.1:5,\*:6"),
    ],
)
def test_a_template_that_changed_is_not_passed_over(line, other, named):
    text = RAYS.format(metrics=1, front=2, replica=3, stats=4)
    assert text.count(line) == 1
    with pytest.raises(ValueError, match=named):
        rewrite(text.replace(line, other), "192.0.2.1:2")


def test_rays_own_template_is_laid_out_so():
    ray = find_spec("ray")
    assert ray is not None and ray.origin is not None
    template = (Path(ray.origin).parent / "serve/_private/haproxy_templates.py").read_text()
    # Only where the application speaks gRPC, which ours does not.
    text = rewrite(template.replace("bind {{ config.grpc_frontend_host }}", "bind 127.0.0.1"), "[::]:1")
    assert "bind 127.0.0.1:{{ config.metrics_port }}" in text and "bind 127.0.0.1:{{ config.stats_port }}" in text
    assert "errorfile 50" not in text and 'text/plain lf-string "Path' not in text


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Of a HAProxy that was started by our script over a replica that is not there."""
    binary = haproxy_binary()
    if binary is None:
        pytest.skip("the HAProxy of ray[serve] does not run here")
    folder: Path = tmp_path_factory.mktemp("haproxy")
    ports = {name: free_port() for name in ("metrics", "front", "replica", "stats")}
    (folder / "haproxy.cfg").write_text(RAYS.format(**ports))
    script = folder / "haproxy.sh"
    script.write_text(script_for(binary, "127.0.0.1", ports["front"]))
    with subprocess.Popen(["sh", script, "-db", "-f", folder / "haproxy.cfg"], stderr=subprocess.DEVNULL) as process:
        for _ in range(100):
            try:
                exchange(ports["front"], head("GET", "/"))
                break
            except ConnectionRefusedError:
                assert process.poll() is None
                time.sleep(0.1)
        yield ports["front"]
        process.terminate()


def test_its_own_errors_have_our_form_and_their_status(port):
    answer = exchange(port, head("GET", "/v1/x", X_Request_Id="mine"))
    assert answer.status == 503 and answer.error["request_id"] == "mine" and answer.headers["retry-after"] == "1"
    answer = exchange(port, head("GET", "/v1/x", X_Request_Id='"}evil'))
    assert answer.status == 503 and len(answer.error["request_id"]) == 32
    answer = exchange(port, head("GET", "/nothing"))
    assert answer.status == 404 and answer.error["type"] == "NoApplication"


@pytest.mark.parametrize("given", ['good,"}evil', '"}evil,good', "a,b", "a b", "a" * 129, ""])
def test_an_id_that_is_not_one_as_a_whole_is_replaced(port, given):
    for path in ("/v1/x", "/nothing"):
        assert len(exchange(port, head("GET", path, X_Request_Id=given)).error["request_id"]) == 32


def test_of_several_ids_the_last_is_taken(port):
    for first, last in (("good", '"}evil'), ('"}evil', "good")):
        lines = f"GET /v1/x HTTP/1.1\r\nHost: a\r\nX-Request-Id: {first}\r\nX-Request-Id: {last}\r\n\r\n"
        given = exchange(port, lines.encode()).error["request_id"]
        assert given == "good" if last == "good" else len(given) == 32


@pytest.mark.slow
def test_a_body_that_does_not_come_is_408_with_an_id(port):
    answer = exchange(port, head("POST", "/v1/x", Content_Length=100, X_Request_Id="mine") + b"half")
    assert answer.status == 408 and answer.error["type"] == "RequestTimeoutError"
    assert len(answer.error["request_id"]) == 32


@pytest.mark.parametrize("status", sorted(haproxy_config.ERRORS))
def test_each_error_is_json(status):
    kind, message = haproxy_config.ERRORS[status]
    assert "'" not in kind + message and "%" not in kind + message and '"' not in message
