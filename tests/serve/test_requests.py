from __future__ import annotations

import pytest
from pydantic import ValidationError

from protclip import errors
from protclip.errors import ProtclipError, RequestError
from serve.errors import describe, status_of
from serve.schemas import EmbedRequest, SearchRequest
from serve.settings import AppArgs, Limits

pytestmark = pytest.mark.unit


def subclasses(error: type[ProtclipError]) -> set[type[ProtclipError]]:
    return {error}.union(*(subclasses(child) for child in error.__subclasses__()))


def test_an_error_is_the_requests_fault_where_its_family_says_so():
    ours = {error for error in subclasses(ProtclipError) if error.__module__ == errors.__name__}
    assert len(ours) >= 8
    for error in ours:
        assert (status_of(error("why")) < 500) == issubclass(error, RequestError)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"proteins": None},
        {"proteins": []},
        {"proteins": "MKT"},
        {"proteins": ["MKT"], "texts": ["a"]},
        {"proteins": [1]},
        {"proteins": [""]},
        {"texts": ["\ud800"]},
        {"proteins": ["\ud800"]},
        {"proteins": ["M"], "more": 1},
    ],
)
def test_an_embed_request_of_another_form_is_refused(body):
    with pytest.raises(ValidationError):
        EmbedRequest.model_validate(body)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"text": ""},
        {"text": "a", "sequence": "M"},
        {"text": "a", "k": 0},
        {"text": "a", "k": "5"},
        {"text": "a", "k": True},
        {"text": "a", "k": 1.5},
        {"text": "a", "k": float("nan")},
        {"text": "a", "accession": "P1"},
        {"sequence": "M", "embedding": [1.0]},
        {"text": "a", "offset": -1},
        {"text": "a", "min_score": 1.5},
        {"text": "a", "min_score": float("nan")},
        {"text": "a", "exact": 1},
        {"text": "a", "filter": ""},
        {"text": "a", "columns": "name"},
        {"embedding": [float("inf")]},
        {"embedding": ["1"]},
        {"text": ["a"]},
        {"text": "a\ud800"},
    ],
)
def test_a_search_request_of_another_form_is_refused(body):
    with pytest.raises(ValidationError):
        SearchRequest.model_validate(body)


LIMITS = Limits(max_items=2, max_sequence_length=5, max_text_length=3, max_filter_length=20, max_k=7)


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (EmbedRequest(proteins=["M"] * 3), "proteins: holds 3"),
        (EmbedRequest(proteins=["M", "MMMMMM"]), r"proteins\[1\]: has 6"),
        (EmbedRequest(texts=["four"]), r"texts\[0\]: has 4"),
        (EmbedRequest(proteins=["M", "MK7"]), r"proteins\[1\]'.* '7' at residue 3"),
        (EmbedRequest(texts=[" "]), r"texts\[0\]' is empty"),
        (SearchRequest(text="four"), "text: has 4"),
        (SearchRequest(sequence="MMMMMM"), "sequence: has 6"),
        (SearchRequest(text="a", k=8), "k: 8"),
        (SearchRequest(text="a", k=5, offset=3), "k: 5 answers are wanted after the first 3; at most 7"),
        (SearchRequest(text="a", k=1, filter="lenght > 3"), "filter 'lenght > 3', character 1"),
        (SearchRequest(text="a", k=1, filter="length in (1,2,3,4,5)"), "filter: has 21"),
        (SearchRequest(text="a", k=1, columns=["sequence_hash"]), "column 'sequence_hash'"),
        (SearchRequest(embedding=[0.0, 0]), "not all 0"),
        (SearchRequest(embedding=[]), "not all 0"),
    ],
)
def test_what_cannot_be_asked_is_named(request_, message):
    with pytest.raises(RequestError, match=message):
        ask(request_)


@pytest.mark.parametrize(
    "request_",
    [EmbedRequest(proteins=["MMMMM"] * 2), EmbedRequest(texts=["aaa"]), SearchRequest(text="aaa", k=4, offset=3)],
)
def test_a_request_at_the_limits_passes(request_):
    ask(request_)


def ask(request: EmbedRequest | SearchRequest) -> None:
    """What the route does before it calls the model."""
    if isinstance(request, EmbedRequest):
        request.questions(LIMITS)
    else:
        request.question(LIMITS)
        request.options(LIMITS)


def test_an_unknown_setting_is_refused():
    with pytest.raises(ValidationError):
        AppArgs.model_validate({"index": "/i", "checkpoint": "/c", "limits": {"max_itmes": 3}})


def test_many_problems_are_told_in_one_line():
    with pytest.raises(ValidationError) as caught:
        EmbedRequest.model_validate({"proteins": ["M"], **{f"more{i}": 1 for i in range(5)}})
    line = describe(caught.value.errors())
    assert line.startswith("more0: ") and line.endswith("and 2 more.") and "\n" not in line


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (EmbedRequest, {"proteins": [1] * 1000}),
        (EmbedRequest, {"texts": [1] * 1000}),
        (SearchRequest, {"embedding": ["1"] * 1000}),
        (SearchRequest, {"text": "a", "columns": [1] * 1000}),
        (SearchRequest, {"text": "a", **{f"more{i}": 1 for i in range(1000)}}),
    ],
)
def test_a_thousand_wrong_values_are_one_error(kind, body):
    with pytest.raises(ValidationError) as caught:
        kind.model_validate(body)
    assert caught.value.error_count() == 1
