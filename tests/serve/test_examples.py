"""The examples of docs/serving.md: of one source, they work as they stand, and ask the same in both languages."""

from __future__ import annotations

import base64
import json
import re
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests

from docs.examples import URL, call, written
from protclip.client import Client
from protclip.questions import Options, Question
from serve.openapi import ANSWERS, REQUESTS

PAGE = (Path(__file__).parents[2] / "docs/serving.md").read_text()


@pytest.mark.unit
def test_the_page_has_them_as_they_are_now():
    assert written(PAGE) == PAGE, "run: python docs/examples.py"
    changed = PAGE.replace("client.search(text=", "client.search(sequence=")
    assert written(changed) != changed


@pytest.mark.serve
def test_what_is_typed_into_a_shell_is_answered(server):
    text = PAGE.split("## The routes")[1].split("\n## ")[0].replace("\\\n", "").replace("P69905", "P00007")
    seen = set()
    for path, rest in re.findall(r"^curl http://127.0.0.1:8000(\S+)(.*)$", text, re.MULTILINE):
        body = re.search("-d '(.*)'", rest)
        answer = server.post(path, json.loads(body[1])) if body else requests.get(server.url + path, timeout=60)
        assert answer.status_code == 200, (path, answer.text)
        seen.add(path.replace("P00007", "{accession}"))
    assert seen >= {*ANSWERS, "/metrics"}


@pytest.mark.serve
def test_the_python_of_the_page_runs(server):
    scope: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
        exec(block.replace(URL, server.url).replace("P69905", "P00007"), scope)
    assert scope["row"]["accession"] == "P00007" and scope["vectors"].shape == (200, 24)


@pytest.mark.serve
@pytest.mark.parametrize(("path", "name"), [(path, name) for path in REQUESTS for name in REQUESTS[path]])
def test_python_asks_what_the_shell_asks(server, path, name):
    body = json.loads(json.dumps(REQUESTS[path][name]).replace("P69905", "P00007"))
    told = server.post(path, {**body, "encoding_format": "float"} if "embed" in path else body).json()
    scope: dict[str, Any] = {"client": Client(server.url), "Question": Question, "Options": Options}
    code = call(path, body).replace(URL, server.url)
    exec(code, scope)
    mine = scope[re.findall(r"^(\w+) = ", code, re.MULTILINE)[-1]]
    if path == "/v1/search":
        told, mine = (told["answers"], mine) if "answers" in told else ([told], [mine])
        for one, other in zip(told, mine, strict=True):
            assert is_dataclass(other) and [hit["accession"] for hit in one["hits"]] == [
                hit["accession"] for hit in asdict(other)["hits"]
            ]
        return
    if path == "/v1/explain":
        np.testing.assert_allclose(mine.occlusion, told["occlusion"], atol=1e-6)
        return
    if path == "/v1/embeddings":
        told, mine = ([item["embedding"] for item in told["data"]], [_numbers(item.embedding) for item in mine.data])
    else:
        told = next(told[field] for field in ("embeddings", "scores", "probabilities") if field in told)
    np.testing.assert_allclose(mine, np.array(told, np.float32), atol=1e-6)


def _numbers(embedding: list[float] | str) -> Any:
    """OpenAI's client hands base64 on where it was asked for."""
    return np.frombuffer(base64.b64decode(embedding), "<f4") if isinstance(embedding, str) else embedding
