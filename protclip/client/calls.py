"""What each call asks of a server, and what it makes of the answers.

Several items go in as many requests as the server's limits want, one after another. The answers must be of one model:
between two requests a server may have gone over to another.

Shapes: n items, D width of an embedding, T texts.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, cast
from urllib.parse import quote, urlencode

import numpy as np
from numpy.typing import NDArray

from protclip.client.steps import Servers, Steps, TooMuchAtOnceError, ask
from protclip.errors import IndexMismatchError, ProtclipError, RequestError, ServerError
from protclip.index.filters import Filter
from protclip.inputs import (
    Items,
    LongPolicy,
    check_characters,
    check_count,
    check_one_of,
    check_pairs,
    check_texts,
    listed,
)
from protclip.questions import DEFAULTS, Answer, Coverage, Explanation, Options, PartialAnswer, Protein, Question
from protclip.retrieval import softmax
from protclip.uniprot.residues import checked_sequences

Kind = Literal["proteins", "texts"]
Body = Callable[[Sequence[Any]], dict[str, Any]]
Read = Callable[[Mapping[str, Any]], int]

_BODY_LIMITS = ("max_body_bytes", "max_body_values", "max_body_fields")
_LIMITS = (*_BODY_LIMITS, "max_items", "max_k")
_PLACE = re.compile(r"\b(queries|proteins|texts|sequences)\[(\d+)\]")
_EXPLANATION_FIELDS = [field.name for field in dataclasses.fields(Explanation)]
_ANSWER_FIELDS = [field.name for field in dataclasses.fields(Answer)]
_COVERAGE_FIELDS = [field.name for field in dataclasses.fields(Coverage)]


def search_all(
    servers: Servers,
    questions: Sequence[Question],
    options: Options = DEFAULTS,
    index: str | None = None,
    *,
    allow_partial: bool = False,
) -> Steps[list[Answer]]:
    """As ``Retriever.search_all``, in the server's index of that name, or in what can be reached of it."""
    if options.content is not None:
        raise RequestError(f"content={options.content!r}: an index of a server is chosen by its name, with index.")
    answers: list[Answer] = []

    def body(part: Sequence[dict[str, Any]]) -> dict[str, Any]:
        return part[0] if len(part) == 1 else {"queries": part}

    def read(found: Mapping[str, Any]) -> int:
        given = found.get("answers", [found])
        for one in given:
            known = {name: one[name] for name in _ANSWER_FIELDS if name in one}
            if known.get("map") is not None:
                known["map"] = [(x, y) for x, y in known["map"]]
            partial = one.get("partial")
            answers.append(
                Answer(**known)
                if partial is None
                else PartialAnswer(**known, partial=Coverage(**{name: partial[name] for name in _COVERAGE_FIELDS}))
            )
            if (answers[-1].model, answers[-1].index) != (answers[0].model, answers[0].index):
                raise _changed(servers)
        return len(given)

    queries = [_query(one) for one in questions]
    rest = _settings(options) | ({} if index is None else {"index": index})
    if allow_partial:
        rest["allow_partial"] = True
    num_answers = options.offset + options.k
    yield from _in_parts(servers, "/v1/search", queries, body, read, rest=rest, num_answers=num_answers)
    return answers


def embed(
    servers: Servers, kind: Kind, items: Items, long: LongPolicy, dimensions: int | None = None
) -> Steps[NDArray[np.float32]]:
    """As ``ProtCLIP.embed_proteins`` and ``embed_texts``."""
    return (yield from _embed(servers, kind, items, long, dimensions))[0]


def score(servers: Servers, sequences: Sequence[str], texts: Sequence[str]) -> Steps[NDArray[np.float32]]:
    """As ``Retriever.score``."""
    check_pairs(sequences, texts)
    pairs = list(zip(_checked("proteins", sequences)[0], _checked("texts", texts)[0], strict=True))
    scores: list[float] = []
    models = set()

    def body(part: Sequence[tuple[str, str]]) -> dict[str, Any]:
        return {"sequences": [sequence for sequence, _ in part], "texts": [text for _, text in part]}

    def read(found: Mapping[str, Any]) -> int:
        models.add(found["model"])
        scores.extend(map(float, found["scores"]))
        if len(models) > 1:
            raise _changed(servers)
        return len(found["scores"])

    yield from _in_parts(servers, "/v1/score", pairs, body, read)
    return np.array(scores, np.float32)


def classify(servers: Servers, sequences: Sequence[str], texts: Sequence[str]) -> Steps[NDArray[np.float32]]:
    """As ``Retriever.classify``.

    The softmax is taken here: its texts must be together, and may be more than a request holds.
    """
    if not len(texts):
        raise RequestError("no text is given; one or more are needed.")
    protein_ND, *models = yield from _embed(servers, "proteins", sequences, "truncate")
    text_TD, *others = yield from _embed(servers, "texts", texts, "truncate")
    fingerprint, scale = yield from _info(servers, "model", "fingerprint", "scale")
    if {*models, *others} != {fingerprint}:
        raise _changed(servers)
    return softmax(scale * (np.atleast_2d(protein_ND) @ np.atleast_2d(text_TD).T))


def explain(
    servers: Servers,
    sequence: str | None,
    text: str,
    accession: str | None,
    index: str | None,
    window: int | None,
    stride: int,
) -> Steps[Explanation]:
    """As ``Retriever.explain``; without a sequence, of that which the server has of the accession."""
    Question(text=text)
    Question(sequence=sequence, accession=accession if sequence is None else None)
    asked = {"accession": accession, "index": index} if sequence is None else {"sequence": sequence}
    body = {**asked, "text": text, "window": window, "stride": stride}
    found = yield from ask(
        servers, "POST", "/v1/explain", {name: value for name, value in body.items() if value is not None}
    )
    with _reading(servers, "/v1/explain"):
        return Explanation(**{name: found[name] for name in _EXPLANATION_FIELDS} | {"accession": accession})


def protein(servers: Servers, accession: str, index: str | None) -> Steps[Protein]:
    """As ``Retriever.row``, in the server's index of that name."""
    check_characters(accession, "accession")
    query = "" if index is None else f"?{urlencode({'index': index})}"
    return cast(Protein, (yield from get(servers, f"/v1/proteins/{quote(accession, safe='')}{query}")))


def indexes(servers: Servers) -> Steps[list[dict[str, Any]]]:
    """The server's indexes."""
    path = "/v1/indexes"
    found = yield from get(servers, path)
    with _reading(servers, path):
        return cast(list[dict[str, Any]], found["indexes"])


def get(servers: Servers, path: str) -> Steps[dict[str, Any]]:
    """What a route says that is asked nothing."""
    return cast(dict[str, Any], (yield from ask(servers, "GET", path)))


def _info(servers: Servers, about: str, *names: str) -> Steps[list[Any]]:
    """Some of what the server says of itself."""
    path = "/info"
    found = yield from get(servers, path)
    with _reading(servers, path):
        return [found[about][name] for name in names]


def _embed(
    servers: Servers, kind: Kind, items: Items, long: LongPolicy, dimensions: int | None = None
) -> Steps[tuple[NDArray[np.float32], str]]:
    """Embeddings, and the fingerprint of their model."""
    check_one_of("long", long, ("truncate", "error", "window-mean") if kind == "proteins" else ("truncate", "error"))
    check_count("dimensions", dimensions, unit="dimensions")
    given, single = _checked(kind, items)
    if not given:
        dimension, fingerprint = yield from _info(servers, "model", "dimension", "fingerprint")
        return np.empty((0, dimensions or dimension), np.float32), fingerprint
    vectors: list[NDArray[np.float32]] = []
    models = set()

    def body(part: Sequence[str]) -> dict[str, Any]:
        return {kind: part}

    def read(found: Mapping[str, Any]) -> int:
        models.add(found["model"])
        vectors.extend(np.frombuffer(base64.b64decode(one), "<f4") for one in found["embeddings"])
        if len(models) > 1:
            raise _changed(servers)
        return len(found["embeddings"])

    rest: dict[str, Any] = {"encoding_format": "base64", "long": long}
    if dimensions is not None:
        rest["dimensions"] = int(dimensions)
    yield from _in_parts(servers, "/v1/embed", given, body, read, rest=rest)
    vectors_ND = np.stack(vectors).astype(np.float32, copy=False)
    return (vectors_ND[0] if single else vectors_ND), models.pop()


def _checked(kind: Kind, items: Items) -> tuple[list[str], bool]:
    """Items that can be embedded, and whether it is a single one; nothing is sent where one of them cannot be."""
    given, single = listed(items, "sequence" if kind == "proteins" else "text")
    if kind == "proteins":
        return checked_sequences(given), single
    check_texts(given)
    return given, single


def _query(question: Question) -> dict[str, Any]:
    """A question in the server's form."""
    vector = question.vector
    given = {
        "text": question.text,
        "sequence": question.sequence,
        "accession": question.accession,
        "embedding": None if vector is None else vector.tolist(),
        "embedding_kind": None if vector is None else question.kind,
        "name": question.name,
    }
    return {name: value for name, value in given.items() if value is not None}


def _settings(options: Options) -> dict[str, Any]:
    """Options in the server's form."""
    given = {
        "k": options.k,
        "offset": options.offset,
        "filter": options.where.text if isinstance(options.where, Filter) else None,
        "min_score": None if options.min_score is None else float(options.min_score),
        "exact": bool(options.exact),
        "exclude_self": bool(options.exclude_self),
        "columns": options.columns,
        "map": bool(options.map),
    }
    return {name: value for name, value in given.items() if value is not None}


def _in_parts(
    servers: Servers,
    path: str,
    items: Sequence[Any],
    body: Body,
    read: Read,
    *,
    rest: Mapping[str, Any] | None = None,
    num_answers: int = 0,
) -> Steps[None]:
    """Ask for items in requests that the server takes, in their order.

    Args:
        servers: who is asked.
        path: of the route.
        items: in JSON's types.
        body: of a request for some of them.
        read: takes what was answered, and says to how many items.
        rest: of each body.
        num_answers: to each item, of which a request may have ``max_k``.
    """
    rest = rest or {}
    if len(items) > 1 and servers.limits is None:
        servers.limits = dict(zip(_LIMITS, (yield from _info(servers, "limits", *_LIMITS)), strict=True))
    limits = servers.limits or {"max_items": 1}
    at_most = limits["max_items"]
    if len(items) > 1 and num_answers:
        at_most = max(1, min(at_most, limits["max_k"] // num_answers))
    start = 0
    while start < len(items):
        part = items[start : start + at_most]
        if len(part) > 1:
            part = part[: _num_fitting(part, rest, limits)]
        try:
            found = yield from ask(servers, "POST", path, {**body(part), **rest}, divisible=len(part) > 1)
            with _reading(servers, path):
                if (num_read := read(found)) != len(part):
                    raise ValueError(f"{num_read} for {len(part)}")
        except TooMuchAtOnceError:
            at_most = len(part) // 2  # for the others too
            continue
        except ProtclipError as error:
            raise _placed(error, start) from None
        start += len(part)


@contextlib.contextmanager
def _reading(servers: Servers, path: str) -> Iterator[None]:
    """Tell of an answer whose fields are not those that are known here."""
    try:
        yield
    except (KeyError, TypeError, ValueError) as error:
        address = servers.addresses[servers.current]
        raise ServerError(f"{address}{path}: answers in another form than this version's ({error!r}).") from error


def _num_fitting(items: Sequence[Any], rest: Mapping[str, Any], limits: Mapping[str, Any]) -> int:
    """How many of the items, one or more, make a body within the limits."""
    sums = np.zeros(3, np.int64)
    # Beside the items there are the rest, and names of lists.
    for count, item in enumerate([rest, *items]):
        text = json.dumps(item, ensure_ascii=False)
        sums += len(text.encode()) + 10, text.count(",") + 3, text.count(":") + 3
        if (sums > [limits[name] for name in _BODY_LIMITS]).any():
            return max(1, count - 1)
    return len(items)


def _placed(error: ProtclipError, start: int) -> ProtclipError:
    """The error with the item's place among all items, in place of that in the request."""
    if not start or not isinstance(error, RequestError):
        return error
    moved = type(error)(_PLACE.sub(lambda match: f"{match[1]}[{int(match[2]) + start}]", str(error), count=1))
    moved.answer = error.answer
    return moved


def _changed(servers: Servers) -> IndexMismatchError:
    return IndexMismatchError(
        f"{', '.join(servers.addresses)}: went over to another model or index between two requests, whose answers do "
        "not go together; ask again."
    )
