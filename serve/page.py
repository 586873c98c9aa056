"""The page: the files of ``serve/web``, read once, at ``/`` and below ``/web/``. They know the routes, and no data."""

from __future__ import annotations

import hashlib
from importlib.resources import files

from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException

MEDIA_TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
"""By a file's ending."""

HEADERS = {
    # Nothing from elsewhere, nothing inline, and no string of data becomes HTML.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'",
    "Referrer-Policy": "no-referrer",
    # Kept, and asked about each time: the files of two versions never meet.
    "Cache-Control": "no-cache",
}


def add_page(app: FastAPI) -> None:
    """Add the page's routes; the schema of the API does not have them."""
    folder = files("serve") / "web"
    contents = {file.name: file.read_bytes() for file in folder.iterdir()}

    async def page(request: Request) -> Response:
        return answer("index.html", request)

    async def part(name: str, request: Request) -> Response:
        return answer(name, request)

    def answer(name: str, request: Request) -> Response:
        content = contents.get(name)
        if content is None:
            raise HTTPException(404, f"the page has no file {name!r:.80}.")
        headers = {**HEADERS, "ETag": f'"{hashlib.sha256(content).hexdigest()[:32]}"'}
        if request.headers.get("if-none-match") == headers["ETag"]:
            return Response(status_code=304, headers=headers)
        return Response(content, media_type=MEDIA_TYPES[name.rpartition(".")[2]], headers=headers)

    for path, endpoint in (("/", page), ("/web/{name}", part)):
        app.add_api_route(path, endpoint, methods=["GET", "HEAD"], include_in_schema=False, response_class=Response)
