"""Writes the examples of requests into docs/serving.md: ``python docs/examples.py``.

Their source are the examples of the schema, ``serve.openapi.REQUESTS``. Where the page has

    <!-- example /v1/search text -->
    <!-- end -->

the request of that route and name is written between the two lines, for a shell and for ``protclip.client``; likewise
those of ``<!-- example /v1/indexes /info -->``, which have no body.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from serve.openapi import REQUESTS

PAGE = Path(__file__).with_name("serving.md")
URL = "http://127.0.0.1:8000"
FACTS = {
    "/v1/proteins/P69905": 'row = client.protein("P69905")',
    "/v1/indexes": "indexes = client.indexes()",
    "/info": "info = client.info()",
    "/health": "health = client.health()",
}
"""What is asked for without a body."""
_EXAMPLE = re.compile(r"(<!-- example (/[^\n]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def written(page: str) -> str:
    """The page with its examples as they are now."""
    return _EXAMPLE.sub(lambda match: f"{match[1]}{_blocks(match[2])}{match[3]}", page)


def _blocks(what: str) -> str:
    """The requests for a shell, and for Python where the client has a call for them."""
    path, _, name = what.partition(" ")
    if name and not name.startswith("/"):
        body = REQUESTS[path][name]
        shell = f"curl {URL}{path} -H 'Content-Type: application/json' \\\n  -d '{json.dumps(body)}'"
        python = _formatted(call(path, body))
    else:
        shell = "\n".join(f"curl {URL}{path}" for path in what.split())
        python = "\n".join(FACTS[path] for path in what.split() if path in FACTS)
    blocks = [("bash", shell), ("python", python)]
    return "".join(f"```{language}\n{code}\n```\n" for language, code in blocks if code)


def call(path: str, body: dict[str, Any]) -> str:
    """The client's call that sends this body to this route."""
    given = dict(body)
    if path == "/v1/search":
        given = {"where" if name == "filter" else name: value for name, value in given.items()}
        if "queries" not in given:
            return f"answer = {_call('client.search', given)}"
        questions = ", ".join(_call("Question", query) for query in given.pop("queries"))
        return f"answers = {_call('client.search_all', {}, f'[{questions}]', _call('Options', given))}"
    if path == "/v1/embed":
        given.pop("encoding_format", None)  # the client's own business
        kind = "proteins" if "proteins" in given else "texts"
        return f"vectors = {_call(f'client.embed_{kind}', given, repr_of(given.pop(kind)))}  # (n, D)"
    if path == "/v1/embeddings":
        lines = ["from openai import OpenAI", "", f'openai = OpenAI(base_url="{URL}/v1", api_key="none")']
        return "\n".join([*lines, f"answer = {_call('openai.embeddings.create', given)}"])
    if path == "/v1/explain":
        return f"explanation = {_call('client.explain', given)}"
    result, method = {"/v1/score": ("scores", "score"), "/v1/classify": ("shares", "classify")}[path]
    return f"{result} = {_call(f'client.{method}', {}, *map(repr_of, given.values()))}"


def repr_of(value: Any) -> str:
    """A JSON value as Python writes it, with double quotes."""
    return repr(value) if isinstance(value, bool) else json.dumps(value, ensure_ascii=False)


def _call(name: str, keywords: dict[str, Any], *positional: str) -> str:
    return f"{name}({', '.join([*positional, *(f'{key}={repr_of(value)}' for key, value in keywords.items())])})"


def _formatted(code: str) -> str:
    """As the rest of our Python; `make lint` looks at what stands in pages, too."""
    ruff = [Path(sys.executable).with_name("ruff"), "format", "--stdin-filename", PAGE.with_name("example.py"), "-"]
    return subprocess.run(ruff, input=code, capture_output=True, text=True, check=True).stdout.strip()


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text()))
