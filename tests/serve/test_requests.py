from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import ValidationError

from protclip import errors
from protclip.errors import NotFoundError, ProtclipError, RequestError
from protclip.questions import COLUMNS
from serve.errors import status_of
from serve.forms import MAX_PROBLEMS, Form, parse, with_limits
from serve.requests import (
    MAX_NAME_LENGTH,
    MAX_WIDTH,
    ClassifyRequest,
    EmbeddingsRequest,
    EmbedRequest,
    ExplainRequest,
    ScoreRequest,
    SearchRequest,
)
from serve.settings import AppArgs, Limits

pytestmark = pytest.mark.unit


def subclasses(error: type[ProtclipError]) -> set[type[ProtclipError]]:
    return {error}.union(*(subclasses(child) for child in error.__subclasses__()))


def test_an_error_is_the_requests_fault_where_its_family_says_so():
    ours = {error for error in subclasses(ProtclipError) if error.__module__ == errors.__name__}
    assert len(ours) >= 8
    for error in ours:
        assert (status_of(error("why")) < 500) == issubclass(error, RequestError)


LIMITS = Limits(max_items=2, max_sequence_length=5, max_text_length=3, max_filter_length=20, max_k=7)
DIMENSION = 2


def ask(form: type[Form], body: Any) -> Any:
    """What a route does with a body before it calls the model."""
    request: Any = parse(with_limits(LIMITS, form), json.dumps(body).encode())
    if isinstance(request, SearchRequest):
        return request.questions(LIMITS, DIMENSION), request.options(LIMITS)
    if isinstance(request, ExplainRequest):
        return request.check(LIMITS)
    with_dimensions = form in (EmbeddingsRequest, EmbedRequest)
    return request.questions(LIMITS, DIMENSION) if with_dimensions else request.questions(LIMITS)


@pytest.mark.parametrize(
    ("form", "body", "message"),
    [
        (EmbedRequest, {}, "either 'proteins' or 'texts'"),
        (EmbedRequest, {"proteins": None}, "either 'proteins' or 'texts'"),
        (EmbedRequest, {"proteins": []}, "proteins: "),
        (EmbedRequest, {"proteins": "MKT"}, "proteins: "),
        (EmbedRequest, {"proteins": ["MKT"], "texts": ["a"]}, "either 'proteins' or 'texts'"),
        (EmbedRequest, {"proteins": [1]}, "proteins.0: "),
        (EmbedRequest, {"proteins": [""]}, "proteins.0: "),
        (EmbedRequest, {"texts": ["\ud800"]}, "hex escape"),
        (EmbedRequest, {"proteins": ["M"], "more": 1}, "more: "),
        (EmbedRequest, {"proteins": ["M"] * 3}, "proteins: holds 3 items; at most 2"),
        (EmbedRequest, {"proteins": ["M", "MMMMMM"]}, r"proteins\[1\]: has 6 .* at most 5"),
        (EmbedRequest, {"texts": ["four"]}, r"texts\[0\]: has 4 .* at most 3"),
        (EmbedRequest, {"proteins": ["M", "MK7"]}, r"proteins\[1\]'.* '7' at residue 3"),
        (EmbedRequest, {"texts": [" "]}, r"texts\[0\]' is empty"),
        (EmbedRequest, {"texts": ["a"], "long": "window-mean"}, "which is for proteins"),
        (EmbedRequest, {"texts": ["a"], "long": "cut"}, "long: "),
        (EmbedRequest, {"texts": ["a"], "encoding_format": "hex"}, "encoding_format: "),
        (EmbeddingsRequest, {"model": "protclip-text"}, "input: "),
        (EmbeddingsRequest, {"model": "protclip-text", "input": [1, 2]}, "token ids are not taken"),
        (EmbeddingsRequest, {"model": "protclip-text", "input": [[1, 2]]}, "token ids are not taken"),
        (EmbeddingsRequest, {"model": "protclip-text", "input": ["a", 1]}, "input.1: .*token ids are not taken"),
        (EmbeddingsRequest, {"model": "protclip-text", "input": ""}, "input: .*at least 1 character"),
        (EmbeddingsRequest, {"model": "protclip-text", "input": []}, "input: .*at least 1 item"),
        (EmbeddingsRequest, {"model": "protclip-text", "input": ["a"] * 3}, "input: holds 3 items; at most 2"),
        (EmbeddingsRequest, {"model": "protclip-text", "input": "four"}, r"input\[0\]: has 4"),
        (EmbeddingsRequest, {"model": "protclip-text", "input": "a", "dimensions": 3}, "dimensions: 3 .*has 2"),
        (EmbeddingsRequest, {"model": "protclip-text", "input": "a", "dimensions": 0}, "dimensions: "),
        (EmbedRequest, {"texts": ["a"], "dimensions": 3}, "dimensions: 3 .*has 2"),
        (EmbedRequest, {"texts": ["a"], "dimensions": -1}, "dimensions: "),
        (EmbedRequest, {"texts": ["a"], "dimensions": 1.5}, "dimensions: "),
        (EmbeddingsRequest, {"model": "protclip-text", "input": "a", "n": 1}, "n: "),
        (ScoreRequest, {"sequences": ["M"]}, "texts: "),
        (ScoreRequest, {"sequences": ["M"], "texts": ["a", "b"]}, "1 sequences and 2 texts make no pairs"),
        (ClassifyRequest, {"sequences": ["M"], "texts": []}, "texts: "),
        (ClassifyRequest, {"sequences": ["M"], "texts": ["a"] * 3}, "texts: holds 3 items"),
        (ClassifyRequest, {"sequences": ["M7"], "texts": ["a"]}, r"sequences\[0\]'.* '7'"),
        (ExplainRequest, {"sequence": "M"}, "text: "),
        (ExplainRequest, {"text": "a"}, "exactly one of 'sequence', 'accession'"),
        (ExplainRequest, {"text": "a", "sequence": "M", "accession": "P1"}, "exactly one of"),
        (ExplainRequest, {"text": "four", "sequence": "M"}, "text: has 4 .* at most 3"),
        (ExplainRequest, {"text": " ", "sequence": "M"}, "text is empty"),
        (ExplainRequest, {"text": "a", "sequence": "MMMMMM"}, "sequence: has 6 .* at most 5"),
        (ExplainRequest, {"text": "a", "sequence": "M7"}, "'7' at residue 2"),
        (ExplainRequest, {"text": "a", "accession": "P" * (MAX_NAME_LENGTH + 1)}, "accession: "),
        (ExplainRequest, {"text": "a", "accession": " "}, "accession is empty"),
        (ExplainRequest, {"text": "a", "sequence": "M", "window": 0}, "window: "),
        (ExplainRequest, {"text": "a", "sequence": "M", "window": 1.5}, "window: "),
        (ExplainRequest, {"text": "a", "sequence": "M", "stride": 0}, "stride: "),
        (ExplainRequest, {"text": "a", "sequence": "M", "stride": 10**9 + 1}, "stride: "),
        (ExplainRequest, {"text": ["a"], "sequence": "M"}, "text: "),
        (SearchRequest, {}, "exactly one of"),
        (SearchRequest, {"text": ""}, "text: "),
        (SearchRequest, {"text": "a", "sequence": "M"}, "exactly one of"),
        (SearchRequest, {"text": "a", "queries": [{"text": "a"}]}, "exactly one of"),
        (SearchRequest, {"text": "a", "k": 0}, "k: "),
        (SearchRequest, {"text": "a", "k": "5"}, "k: "),
        (SearchRequest, {"text": "a", "k": True}, "k: "),
        (SearchRequest, {"text": "a", "k": 1.5}, "k: "),
        (SearchRequest, {"text": "a", "k": float("nan")}, "k: "),
        (SearchRequest, {"text": "a", "k": 10**4299}, "k: "),
        (SearchRequest, {"text": "a", "accession": "P1"}, "exactly one of"),
        (SearchRequest, {"sequence": "M", "embedding": [1.0]}, "exactly one of"),
        (SearchRequest, {"text": "a", "embedding_kind": "text"}, "'embedding_kind' is that of"),
        (SearchRequest, {"text": "a", "offset": -1}, "offset: "),
        (SearchRequest, {"text": "a", "min_score": 1.5}, "min_score: "),
        (SearchRequest, {"text": "a", "min_score": float("nan")}, "min_score: "),
        (SearchRequest, {"text": "a", "exact": 1}, "exact: "),
        (SearchRequest, {"text": "a", "filter": ""}, "filter: "),
        (SearchRequest, {"text": "a", "columns": "name"}, "columns: "),
        (SearchRequest, {"text": "a", "columns": ["name"] * (len(COLUMNS) + 2)}, "columns: holds"),
        (SearchRequest, {"embedding": [float("inf")]}, "embedding.0: "),
        (SearchRequest, {"embedding": ["1"]}, "embedding.0: "),
        (SearchRequest, {"text": ["a"]}, "text: "),
        (SearchRequest, {"text": "a\ud800"}, "hex escape"),
        (SearchRequest, {"text": "four"}, "text: has 4"),
        (SearchRequest, {"sequence": "MMMMMM"}, "sequence: has 6"),
        (SearchRequest, {"accession": "P" * (MAX_NAME_LENGTH + 1)}, "accession: "),
        (SearchRequest, {"text": "a", "k": 8}, "k: 8"),
        (SearchRequest, {"text": "a", "k": 5, "offset": 3}, "k: 5 answers are wanted after the first 3; at most 7"),
        (SearchRequest, {"queries": [{"text": "a"}] * 2, "k": 4}, "k: 4 .* to each of 2 questions; at most 7"),
        (SearchRequest, {"text": "a", "k": 1, "filter": "lenght > 3"}, "filter 'lenght > 3', character 1"),
        (SearchRequest, {"text": "a", "k": 1, "filter": "length in (1,2,3,4,5)"}, "filter: has 21"),
        (SearchRequest, {"text": "a", "k": 1, "columns": ["sequence_hash"]}, "column 'sequence_hash'"),
        (SearchRequest, {"embedding": [0.0, 0]}, "not all 0"),
        (SearchRequest, {"embedding": []}, "embedding: "),
        (SearchRequest, {"embedding": [1.0] * MAX_WIDTH}, "embedding: has 65536 numbers"),
        (SearchRequest, {"embedding": [1.0] * (MAX_WIDTH + 1)}, "embedding: holds 65537 items; at most 65536"),
        (SearchRequest, {"embedding": [1.0]}, "embedding: has 1 numbers, and those of the index 2"),
        (SearchRequest, {"queries": []}, "queries: "),
        (SearchRequest, {"queries": [{"text": "a"}] * 3}, "queries: holds 3 items; at most 2"),
        (SearchRequest, {"queries": [{"text": "a"}, {"text": "four"}], "k": 1}, r"queries\[1\]\.text: has 4"),
        (SearchRequest, {"queries": [{"text": "a"}, {"sequence": "M7"}], "k": 1}, r"queries\[1\]: .*'7'"),
        (SearchRequest, {"queries": [{"embedding": [1.0]}], "k": 1}, r"queries\[0\]\.embedding: has 1"),
        (SearchRequest, {"queries": [{"text": "a"}, {}]}, "queries.1: give exactly one of"),
        (SearchRequest, {"queries": [{"text": "a", "k": 1}]}, "queries.0.k: "),
        (SearchRequest, {"queries": [{"text": "a"}], "name": "b"}, "'name' is that of one question"),
    ],
)
def test_what_cannot_be_asked_is_named(form, body, message):
    with pytest.raises(RequestError, match=message):
        ask(form, body)


def test_another_model_is_not_found():
    with pytest.raises(NotFoundError, match=r"'gpt'.*protclip-protein and protclip-text"):
        ask(EmbeddingsRequest, {"model": "gpt", "input": "a"})


@pytest.mark.parametrize(
    ("form", "body"),
    [
        (EmbedRequest, {"proteins": ["MMMM"], "texts": None}),
        (EmbedRequest, {"proteins": ["MMMMM"] * 2, "long": "window-mean"}),
        (EmbedRequest, {"texts": ["aa", "aaa"], "encoding_format": "base64"}),
        (EmbeddingsRequest, {"model": "protclip-text", "input": ["aaa"] * 2, "dimensions": 2, "user": None}),
        (EmbeddingsRequest, {"model": "protclip-protein", "input": "MMMMM", "dimensions": None, "user": "me"}),
        (EmbeddingsRequest, {"model": "protclip-protein", "input": "MMMMM", "dimensions": 1}),
        (EmbedRequest, {"texts": ["aa"], "dimensions": 1}),
        (ScoreRequest, {"sequences": ["M", "MMMMM"], "texts": ["a", "aaa"]}),
        (ClassifyRequest, {"sequences": ["MMMMM"], "texts": ["a", "aaa"]}),
        (ExplainRequest, {"text": "aa", "sequence": "MMMM", "accession": None, "window": 1}),
        (ExplainRequest, {"text": "aaa", "sequence": "MMMMM", "window": None, "stride": 10**9}),
        (ExplainRequest, {"text": "a", "accession": "P" * MAX_NAME_LENGTH, "stride": 1}),
        (SearchRequest, {"text": "aaa", "k": 4, "offset": 3}),
        (SearchRequest, {"accession": "P" * MAX_NAME_LENGTH, "k": 6}),
        (SearchRequest, {"text": "a", "k": 1, "filter": "length in (1,2,3,4)"}),
        (SearchRequest, {"text": "a", "k": 1, "filter": "length in (1,2,3,44)"}),
        (SearchRequest, {"embedding": [1, 0.5], "embedding_kind": "protein", "name": "mine", "k": 1}),
        (SearchRequest, {"text": "a", "columns": [*COLUMNS, "accession"], "k": 1}),
        (SearchRequest, {"queries": [{"text": "a", "name": "one"}, {"accession": "P1"}], "k": 3}),
    ],
)
def test_a_request_at_the_limits_passes(form, body):
    ask(form, body)


def test_an_unknown_setting_is_refused():
    with pytest.raises(ValidationError):
        AppArgs.model_validate({"checkpoint": "/c", "keys": "none", "limits": {"max_itmes": 3}})


def test_many_problems_are_told_in_one_line():
    with pytest.raises(RequestError) as caught:
        ask(EmbedRequest, {"proteins": ["M"], **{f"more{i}": 1 for i in range(5)}})
    line = str(caught.value)
    assert line.startswith("more0: ") and line.endswith("and 2 more.") and "\n" not in line


def test_wrong_fields_are_named_or_where_they_are_many_counted():
    def wrong(count: int) -> dict[str, Any]:
        return {"proteins": ["M"], **{f"more{i}": 1 for i in range(count)}}

    with pytest.raises(RequestError, match=r"more0: .*and 97 more"):
        ask(EmbedRequest, wrong(MAX_PROBLEMS))
    with pytest.raises(RequestError, match=r"body: 101 of its values are wrong; .* are proteins,"):
        ask(EmbedRequest, wrong(MAX_PROBLEMS + 1))


@pytest.mark.parametrize(
    ("form", "body"),
    [
        (EmbedRequest, {"proteins": [1] * 1000}),
        (EmbedRequest, {"texts": [1] * 1000}),
        (SearchRequest, {"embedding": ["1"] * 1000}),
        (SearchRequest, {"text": "a", "columns": [1] * 1000}),
        (SearchRequest, {"queries": [1] * 1000}),
    ],
)
def test_a_thousand_wrong_values_are_one_error(form, body):
    with pytest.raises(ValidationError) as caught:
        with_limits(LIMITS, form).model_validate_json(json.dumps(body))
    assert caught.value.error_count() == 1


def test_an_unknown_field_is_named_but_not_all_of_a_long_name():
    with pytest.raises(RequestError, match=f"^{'a' * 80}: ") as refused:
        ask(EmbedRequest, {"a" * 4_000_000: 1})
    assert len(str(refused.value)) < 300
