"""JSON values are taken for what a dataclass says, or refused by key."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest

from protclip.checked import Count, Sha256, Size, Time, checked
from protclip.errors import CheckpointError, DataError

pytestmark = pytest.mark.unit


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    rows: Size
    share: float = 0.5


@dataclass(frozen=True, kw_only=True, slots=True)
class Whole:
    kind: Literal["a", "b"]
    parts: tuple[Part, ...] = ()
    digest: Sha256 | None = None
    counts: Mapping[str, Count] = field(default_factory=dict)
    pair: tuple[int, str] = (0, "")
    good: bool = True
    when: Time = ""
    other: Any = None


GOOD = {
    "kind": "a",
    "parts": [{"rows": 3, "share": 1}, {"rows": 4}],
    "digest": "0f" * 32,
    "counts": {"x": 0},
    "pair": [1, "x"],
    "good": False,
    "when": "2026-11-28T05:11:13+00:00",
    "other": [{}],
    "unknown": 1,
}


def test_json_becomes_the_dataclass() -> None:
    assert checked(Whole, GOOD, "x") == Whole(
        kind="a",
        parts=(Part(rows=3, share=1.0), Part(rows=4)),
        digest="0f" * 32,
        counts={"x": 0},
        pair=(1, "x"),
        good=False,
        when="2026-11-28T05:11:13+00:00",
        other=[{}],
    )
    assert checked(Whole, {"kind": "b", "digest": None}, "x") == Whole(kind="b")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ([], r"m\.json: the whole is \[\]; an object is needed\. Restore the file"),
        ({"kind": "c"}, "kind is 'c'; one of 'a', 'b' is needed"),
        ({"kind": ["a"]}, "kind is list; one of"),
        ({"parts": {}}, "parts is {}; a list is needed"),
        ({"parts": [{"rows": 1}, {"rows": 0}]}, r"parts\.1\.rows is 0; a whole number from 1 to 2147483647"),
        ({"parts": [{"rows": True}]}, r"parts\.0\.rows is True; a whole number"),
        ({"parts": [{"rows": 2.0}]}, r"parts\.0\.rows is 2\.0; a whole number"),
        ({"parts": [{"rows": "2"}]}, r"parts\.0\.rows is '2'; a whole number"),
        ({"parts": [{"rows": 10**4000}]}, r"parts\.0\.rows is 10+…; a whole number"),
        ({"parts": [{"rows": float("inf")}]}, r"parts\.0\.rows is inf; a whole number"),
        ({"parts": [{"rows": 1, "share": "x"}]}, r"parts\.0\.share is 'x'; a number"),
        ({"parts": [{}]}, r"parts\.0\.rows is missing"),
        ({"digest": "x" * 500}, r"digest is '?x+…; a text like|digest is .*; null is needed"),
        ({"counts": {"x": -1}}, r"counts\.x is -1; a whole number from 0"),
        ({"counts": None}, "counts is None; an object"),
        ({"pair": [1]}, "pair is list; a list of 2"),
        ({"good": 1}, "good is 1; true or false"),
        ({"when": "yesterday"}, "when is 'yesterday'; a time such as 2026"),
        ({"when": "2026-11-28T05:11:13"}, "when is '2026-11-28T05:11:13'; a time such as"),
    ],
)
def test_another_type_or_range_is_refused_by_key(changed: Any, message: str) -> None:
    values = changed if isinstance(changed, list) else {**GOOD, **changed}
    with pytest.raises(DataError, match=message):
        checked(Whole, values, "m.json")


def test_a_missing_key_is_refused_with_the_class_that_is_wanted() -> None:
    with pytest.raises(CheckpointError, match="kind is missing"):
        checked(Whole, {}, "m.json", error=CheckpointError)
