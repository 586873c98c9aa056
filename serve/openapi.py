"""The schema of the API: forms with their limits, and an example of each request, answer and error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema

from protclip.version import __version__
from serve import haproxy_config
from serve.answers import ErrorResponse, Policies
from serve.forms import Form
from serve.guard import is_open
from serve.settings import Limits

_ID = "0b9c6a1e5d3f4c2a8e7f6d5c4b3a2918"
_HEX = "ed610b08" * 8
REQUEST_ID = {"X-Request-Id": {"description": "As in errors and in the log.", "schema": {"type": "string"}}}
_RETRY = {"Retry-After": {"description": "Seconds after which to ask again.", "schema": {"type": "integer"}}}

ERRORS: Mapping[int, tuple[str, str, str]] = {
    401: ("UnauthorizedError", "give a key, in the header Authorization: Bearer KEY.", "No key, or an unknown one."),
    403: (
        "ForbiddenHostError",
        "Host 'evil.example.org' is not this server's; the setting allowed_hosts takes names beside the loopback's.",
        "The Host header names another server.",
    ),
    404: ("NotFoundError", "accession 'P99999': the index does not hold it.", "What the request names is not there."),
    408: ("RequestTimeoutError", "body: was not whole within 10 s; 2048 bytes had come.", "The body came too slowly."),
    413: (
        "PayloadTooLargeError",
        "body: has 5000000 bytes; at most 4194304 are taken. Split the request.",
        "The body is too large.",
    ),
    415: (
        "EncodingError",
        "Content-Encoding 'gzip' is not taken; send the body as it is.",
        "The body is encoded in a way not taken.",
    ),
    422: (
        "RequestError",
        "sequence 'proteins[1]': holds '7' at residue 2; allowed are the 20 amino acids and BJOUXZ",
        "The request is malformed or passes a limit.",
    ),
    429: (
        "RateLimitError",
        "the key 'alice' may send 20 requests a second to each replica.",
        "The key's rate is passed.",
    ),
    500: (*haproxy_config.ERRORS[500], "The server is at fault."),
    503: ("OverloadedError", "too much is waiting; ask again later.", "Too much waits, or the time is over."),
}
"""Status → type and message of an example, and what the status means."""

OF_ANY = (401, 403, 429, 500, 503)
"""What a request may meet on any route but those of health."""
OF_BODY = (408, 413, 415, 422)
"""… and with a body."""

_HIT = {
    "rank": 1,
    "score": 0.71,
    "percentile": 99.5,
    "accession": "P00003",
    "name": "ATPase",
    "gene": ["ABC1"],
    "organism": "Homo sapiens",
    "organism_id": 9606,
    "reviewed": True,
    "length": 341,
    "ec": ["3.6.1.3"],
    "text": None,
}
_ANSWER = {
    "model": _HEX,
    "index": _HEX,
    "content": "protein",
    "query": None,
    "truncated": False,
    "hits": [_HIT],
    "map": [[0.0, 0.0]],
}
_INDEX = {"content": "protein", "count": 1216, "dimension": 512, "dtype": "float32", "recall_at_10": 0.998}
_NAMED_INDEX = {
    **_INDEX,
    "name": "default",
    "fingerprint": _HEX,
    "model": _HEX,
    "created": "2026-11-27T12:00:00Z",
    "age_s": 3600.0,
    "num_shards": None,
}
_PROTEIN = "MKTAYIAKQRQISFVKSHFSRQLEERLGLIEVQ"
_TEXT = "FUNCTION: Catalyzes the hydrolysis of ATP."
_OTHER_TEXT = "FUNCTION: Binds oxygen."

REQUESTS: Mapping[str, Mapping[str, Any]] = {
    "/v1/search": {
        "text": {"text": _TEXT, "k": 3},
        "sequence": {"sequence": _PROTEIN, "min_score": 0.5},
        "accession": {
            "accession": "P69905",
            "exclude_self": True,
            "k": 10,
            "offset": 10,
            "filter": "organism_id = 9606 and reviewed",
            "columns": ["gene", "name"],
        },
        "index": {"text": _TEXT, "index": "default", "k": 3},
        "queries": {"queries": [{"text": _TEXT, "name": "one"}, {"sequence": _PROTEIN, "name": "two"}], "k": 3},
    },
    "/v1/embed": {
        "proteins": {"proteins": [_PROTEIN], "long": "window-mean"},
        "texts": {"texts": [_TEXT], "encoding_format": "base64"},
    },
    "/v1/embeddings": {
        "protein": {"model": "protclip-protein", "input": [_PROTEIN]},
        "text": {"model": "protclip-text", "input": _TEXT, "encoding_format": "base64"},
    },
    "/v1/score": {"pair": {"sequences": [_PROTEIN], "texts": [_TEXT]}},
    "/v1/classify": {"two texts": {"sequences": [_PROTEIN], "texts": [_TEXT, _OTHER_TEXT]}},
    "/v1/explain": {
        "sequence": {"sequence": _PROTEIN, "text": _TEXT, "window": 5},
        "accession": {"accession": "P69905", "text": _OTHER_TEXT, "stride": 5},
    },
}
"""Route → examples of its body by name; docs/examples.py writes them into docs/serving.md."""

ANSWERS: Mapping[str, Any] = {
    "/v1/search": _ANSWER,
    "/v1/embed": {"model": _HEX, "dimension": 3, "embeddings": [[0.6, 0.0, 0.8]], "truncated": [False]},
    "/v1/embeddings": {
        "object": "list",
        "model": "protclip-protein",
        "data": [{"object": "embedding", "index": 0, "embedding": [0.6, 0.0, 0.8], "truncated": False}],
        "usage": {"prompt_tokens": 35, "total_tokens": 35},
    },
    "/v1/models": {
        "object": "list",
        "data": [{"id": "protclip-protein", "object": "model", "created": 0, "owned_by": "protclip"}],
    },
    "/v1/score": {"model": _HEX, "scores": [0.71]},
    "/v1/classify": {"model": _HEX, "probabilities": [[0.9, 0.1]]},
    "/v1/explain": {
        "model": _HEX,
        "accession": None,
        "text": _TEXT,
        "residues": "MKT",
        "length": 3,
        "window": 11,
        "stride": 1,
        "stride_grew": False,
        "occlusion": [0.01, 0.12, -0.02],
        "segments": None,
    },
    "/v1/proteins/{accession}": {
        **{name: _HIT[name] for name in _HIT if name not in ("rank", "score", "percentile")},
        "sequence": _PROTEIN,
    },
    "/v1/indexes": {"indexes": [_NAMED_INDEX], "refused": None},
    "/info": {
        "version": __version__,
        "model": {
            "fingerprint": _HEX,
            "dimension": 512,
            "max_protein_tokens": 1024,
            "max_text_tokens": 512,
            "num_parameters": 42_000_000,
            "scale": 14.3,
            "device": "cpu",
            "dtype": "float32",
            "metrics": {"valid": {"loss": 2.13}},
            "quality": {
                "recall_at_1": 0.31,
                "chance": 0.001,
                "num_pairs": 1000,
                "num_train_pairs": 450_000,
                "is_weak": False,
            },
            "quality_note": None,
        },
        "index": _NAMED_INDEX,
        "indexes": ["default"],
        "limits": Limits().model_dump(),
        "policies": Policies().model_dump(),
    },
    "/health": {"status": "ok", "model": _HEX, "index": _INDEX, "indexes": ["default"], "version": __version__},
    "/health/live": {"status": "ok"},
    "/health/ready": {"status": "ok"},
}
"""Route → example of its answer."""


def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """What a route may answer: 200, and errors in the one form."""
    described: dict[int | str, dict[str, Any]] = {200: {"description": "The answer.", "headers": REQUEST_ID}}
    for status in sorted(statuses):
        described[status] = {
            "model": ErrorResponse,
            "description": ERRORS[status][2],
            "headers": REQUEST_ID | (_RETRY if status in (429, 503) else {}),
        }
    return described


def body_of(form: type[Form]) -> dict[str, Any]:
    """A route's body, for ``openapi_extra``."""
    reference = {"$ref": f"#/components/schemas/{form.__name__}"}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": reference}}}}


def build_schema(app: FastAPI, forms: Sequence[type[Form]], *, secured: bool) -> dict[str, Any]:
    """The whole schema.

    Args:
        app: its routes.
        forms: the bodies that ``body_of`` refers to.
        secured: whether keys are asked for.
    """
    schema: dict[str, Any] = get_openapi(
        title=app.title, version=app.version, description=app.description, routes=app.routes
    )
    _, bodies = models_json_schema(
        [(form, "validation") for form in forms], ref_template="#/components/schemas/{model}"
    )
    components = schema.setdefault("components", {})
    components.setdefault("schemas", {}).update(bodies["$defs"])
    # Here, since FastAPI leaves what is null out of examples that a route gives it.
    for path, methods in schema["paths"].items():
        for operation in methods.values():
            if "requestBody" in operation:
                examples = {name: {"value": value} for name, value in REQUESTS[path].items()}
                operation["requestBody"]["content"]["application/json"]["examples"] = examples
            for status, answer in operation["responses"].items():
                if status != "200":
                    kind, message, _ = ERRORS[int(status)]
                    example: Any = {"error": {"type": kind, "message": message, "request_id": _ID}}
                else:
                    example = ANSWERS.get(path)
                if example is not None:
                    answer["content"]["application/json"]["example"] = example
    schema["paths"]["/v1/search"]["post"]["responses"]["200"]["links"] = {
        "best": {"operationId": "protein", "parameters": {"accession": "$response.body#/hits/0/accession"}}
    }
    if secured:
        components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        for path, methods in schema["paths"].items():
            for operation in methods.values():
                operation["security"] = [] if is_open(path) else [{"key": []}]
    return schema
