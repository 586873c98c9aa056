"""The files of the page as they are served; tests/serve/test_page.py looks at the page in a browser."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import requests

from serve.page import MEDIA_TYPES

pytestmark = pytest.mark.serve
WEB = Path(__file__).parents[2] / "serve" / "web"
NAMES = sorted(path.name for path in WEB.iterdir())


def get(url: str, **headers: str) -> requests.Response:
    return requests.get(url, headers=headers, timeout=60)


@pytest.mark.parametrize("prefix", ["", "/bfloat16"])
def test_every_file_is_served_as_it_is_below_any_prefix(server, bfloat16_server, prefix):  # noqa: ARG001
    for name in NAMES:
        answer = get(f"{server.url}{prefix}/web/{name}")
        assert (answer.status_code, answer.content) == (200, (WEB / name).read_bytes())
        assert answer.headers["Content-Type"] == MEDIA_TYPES[name.rpartition(".")[2]]
    # Without the slash, what the page names by relative addresses would be sought beside it.
    answer = get(server.url + prefix)
    assert answer.url == f"{server.url}{prefix}/" and answer.content == (WEB / "index.html").read_bytes()


def test_the_page_loads_its_own_files_alone(server):
    answer = get(f"{server.url}/")
    policy = dict(rule.partition(" ")[::2] for rule in answer.headers["Content-Security-Policy"].split("; "))
    assert policy.pop("default-src") == policy.pop("base-uri") == policy.pop("form-action") == "'none'"
    assert {policy.pop(kind) for kind in ("script-src", "style-src", "img-src", "connect-src")} == {"'self'"}
    assert policy == {
        "frame-ancestors": "'none'",
        "require-trusted-types-for": "'script'",
        "trusted-types": "'none'",
    }
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    named = {*re.findall(r'(?:src|href)="web/([^"]+)"', answer.text)}
    for script in WEB.glob("*.js"):
        named |= {*re.findall(r'from "\./([^"]+)"', script.read_text())}
    assert named | {"index.html"} == {*NAMES}
    assert not re.search(r"https?:", answer.text)


def test_a_kept_file_is_asked_about_and_not_sent_again(server):
    url = f"{server.url}/web/app.js"
    first = get(url)
    assert first.headers["Cache-Control"] == "no-cache"
    again = get(url, **{"If-None-Match": first.headers["ETag"]})
    assert (again.status_code, again.content, again.headers["ETag"]) == (304, b"", first.headers["ETag"])
    assert get(url, **{"If-None-Match": '"another"'}).content == first.content
    head = requests.head(url, timeout=60)
    assert head.headers["Content-Length"] == str(len(first.content)) and head.content == b""


@pytest.mark.parametrize(
    "path", ["page.py", "../page.py", "%2e%2e/page.py", "..%2fpage.py", "%2fetc%2fpasswd", "..%5cpage.py", ""]
)
def test_nothing_but_the_files_of_the_page_is_found(server, path):
    prepared = requests.Request("GET", server.url).prepare()
    prepared.url = f"{server.url}/web/{path}"  # as it is written: requests would tidy the path up
    with requests.Session() as session:
        answer = session.send(prepared, timeout=60)
    assert answer.status_code == 404 and answer.json()["error"]["type"] == "NotFound"
