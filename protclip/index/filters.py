"""Filters over what is known of an index's rows: ``organism_id = 9606 and (reviewed or ec = 3.6)``.

    filter      = alternative { "or" alternative }
    alternative = term { "and" term }
    term        = "not" term | "(" filter ")" | condition
    condition   = column operator value | column "in" "(" value { "," value } ")" | "reviewed"
    operator    = "=" | "!=" | "<" | "<=" | ">" | ">=" | "contains"
    value       = a word, or anything in single or double quotes

A row whose value is not known meets no condition, and not the opposite either.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, NoReturn

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from protclip.errors import RequestError
from protclip.inputs import check_characters

Mask = Any
"""Arrow's: true, false or null for each row."""
Test = Callable[[pa.Table], Mask]

TEXT, NUMBER = ("=", "!=", "contains", "in"), ("=", "!=", "<", "<=", ">", ">=", "in")
OPERATORS = {
    "accession": ("=", "!=", "in"),
    "name": TEXT,
    "organism": TEXT,
    "organism_id": NUMBER,
    "reviewed": ("=", "!="),
    "length": NUMBER,
    "ec": ("=", "!=", "in"),
    "gene": TEXT,
    "text": TEXT,
}
"""What may be asked of each column. Texts are compared without regard to case; an EC number is met by all below it;
of several numbers or genes one has to meet it."""

KEYWORDS = ("and", "or", "not", "in", "contains")
MAX_DEPTH = 50
_COMPARE = {"<": pc.less, "<=": pc.less_equal, ">": pc.greater, ">=": pc.greater_equal}
_EC = re.compile(r"\d+(\.(\d+|n\d+|-)){0,3}")
_TOKEN = re.compile(
    r"""\s*(?:(?P<quoted>"[^"]*"|'[^']*')|(?P<sign><=|>=|!=|==|[=<>(),])|(?P<word>[^\s"'=<>!(),]+)|(?P<bad>\S))"""
)


@dataclass(frozen=True, slots=True)
class Filter:
    """A parsed filter."""

    text: str
    """As it was written."""
    _test: Test = field(repr=False, compare=False)

    def mask(self, metadata: pa.Table) -> NDArray[np.bool_]:
        """Which rows of a table of METADATA meet it, (rows,)."""
        met = pc.fill_null(self._test(metadata), False)
        return np.asarray(met.to_numpy(zero_copy_only=False), bool)


def parse_filter(text: str) -> Filter:
    """Parse a filter.

    Raises:
        RequestError: naming the place in the text, and what is allowed there.
    """
    check_characters(text, "filter")
    return Filter(text, _Parser(text).parse())


@dataclass(frozen=True, slots=True)
class _Token:
    value: str
    place: int
    kind: str

    def is_(self, word: str) -> bool:
        return self.kind != "quoted" and self.value.lower() == word


class _Parser:
    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens = [
            _Token(match[match.lastgroup or 0], match.start(match.lastgroup or 0), match.lastgroup or "")
            # White space behind the last token would be looked through again from each of its letters.
            for match in _TOKEN.finditer(text.rstrip())
        ]
        self.tokens.append(_Token("", len(text), "end"))
        self.next = 0

    @property
    def token(self) -> _Token:
        return self.tokens[self.next]

    def parse(self) -> Test:
        test = self.filter(0)
        if self.token.kind != "end":
            self.fail(self.token, "'and', 'or' or the end")
        return test

    def filter(self, depth: int) -> Test:
        tests = [self.alternative(depth)]
        while self.take("or"):
            tests.append(self.alternative(depth))
        return _all(pc.or_kleene, tests)

    def alternative(self, depth: int) -> Test:
        tests = [self.term(depth)]
        while self.take("and"):
            tests.append(self.term(depth))
        return _all(pc.and_kleene, tests)

    def term(self, depth: int) -> Test:
        if depth > MAX_DEPTH:
            self.fail(self.token, f"at most {MAX_DEPTH} levels of 'not' and parentheses")
        if self.take("not"):
            inner = self.term(depth + 1)
            return lambda table: pc.invert(inner(table))
        if self.take("("):
            inner = self.filter(depth + 1)
            self.expect(")")
            return inner
        return self.condition()

    def condition(self) -> Test:
        token = self.token
        column = token.value.lower()
        if token.kind != "word" or column not in OPERATORS:
            self.fail(token, f"a column ({', '.join(OPERATORS)}), 'not' or '('")
        self.next += 1
        operator = self.token
        symbol = "=" if operator.value == "==" else operator.value.lower()
        if operator.kind == "quoted" or symbol not in OPERATORS[column]:
            if column == "reviewed" and (operator.kind == "end" or operator.value.lower() in ("and", "or", ")")):
                return lambda table: table["reviewed"]
            self.fail(operator, f"one of {', '.join(OPERATORS[column])}, after {column!r}")
        self.next += 1
        if symbol != "in":
            return _condition(column, symbol, [self.value(column)])
        self.expect("(")
        values = [self.value(column)]
        while self.take(","):
            values.append(self.value(column))
        self.expect(")")
        return _condition(column, "=", values)

    def value(self, column: str) -> Any:
        token = self.token
        if token.kind not in ("word", "quoted") or (token.kind == "word" and token.value.lower() in KEYWORDS):
            self.fail(token, f"a value for {column!r}; one of several words, or of signs, is put in quotes")
        self.next += 1
        text = token.value[1:-1] if token.kind == "quoted" else token.value
        if column in ("organism_id", "length"):
            if not re.fullmatch(r"-?\d{1,9}", text):
                self.fail(token, f"a whole number for {column!r}")
            return int(text)
        if column == "reviewed":
            if text.lower() not in ("true", "false"):
                self.fail(token, "true or false for 'reviewed'")
            return text.lower() == "true"
        if column == "ec" and not _EC.fullmatch(text):
            self.fail(token, "an EC number such as 3.6.1.3, or the beginning of one such as 3.6, for 'ec'")
        return text

    def take(self, word: str) -> bool:
        found = self.token.is_(word)
        self.next += found
        return found

    def expect(self, word: str) -> None:
        if not self.take(word):
            self.fail(self.token, repr(word))

    def fail(self, token: _Token, allowed: str) -> NoReturn:
        found = "the end" if token.kind == "end" else f"{token.value!r:.80}"
        raise RequestError(
            f"filter {self.text!r:.300}, character {token.place + 1}: found {found}, where {allowed} is expected. "
            'An example: organism_id = 9606 and (reviewed or name contains "kinase")'
        )


def _all(join: Callable[[Mask, Mask], Mask], tests: list[Test]) -> Test:
    if len(tests) == 1:
        return tests[0]

    def test(table: pa.Table) -> Mask:
        result = tests[0](table)
        for other in tests[1:]:
            result = join(result, other(table))
        return result

    return test


def _condition(column: str, operator: str, values: list[Any]) -> Test:
    """The test of a column; several values are met where one of them is, and are looked for in one pass."""
    if operator == "!=":
        equal = _condition(column, "=", values)
        return lambda table: pc.invert(equal(table))
    if operator in _COMPARE:
        return lambda table: _COMPARE[operator](table[column], values[0])
    if column == "ec":
        wanted = {re.sub(r"(\.-)+$", "", number) for number in values}  # 3.6.-.- is all of 3.6
        return lambda table: _any(table["ec"], lambda numbers: _ec_below(numbers, wanted))
    if column not in ("name", "organism", "text", "gene"):
        return lambda table: _one_of(table[column], pa.array(values))
    lowered = pc.utf8_lower(pa.array(values))

    def met(texts: pa.ChunkedArray) -> Mask:
        texts = pc.utf8_lower(texts)
        return _one_of(texts, lowered) if operator == "=" else pc.match_substring(texts, lowered[0].as_py())

    return (lambda table: _any(table[column], met)) if column == "gene" else (lambda table: met(table[column]))


def _one_of(column: pa.ChunkedArray, values: pa.Array) -> Mask:
    """Where a column holds one of some values; null where it holds nothing."""
    found = pc.is_in(column, value_set=values.cast(column.type))
    return pc.if_else(pc.is_valid(column), found, pa.scalar(None, pa.bool_()))


def _ec_below(numbers: pa.Array, wanted: set[str]) -> Mask:
    """Where an EC number is a wanted one or below it: 3.6 is met by 3.6.1.3, and not by 3.61.1.1."""
    known = pc.unique(numbers).drop_null().to_pylist()
    met = [
        number for number in known if any(above in wanted for above in accumulate(number.split("."), "{}.{}".format))
    ]
    return pc.is_in(numbers, value_set=pa.array(met, numbers.type))


def _any(column: pa.ChunkedArray, test: Callable[[pa.Array], Mask]) -> Mask:
    """Where one of a row's values meets the test; null where the row has no list."""
    lists = column.combine_chunks()
    lists = pa.concat_arrays(lists.chunks) if isinstance(lists, pa.ChunkedArray) else lists
    met = test(pc.list_flatten(lists))
    mask = np.zeros(len(lists), bool)
    mask[pc.list_parent_indices(lists).filter(pc.fill_null(met, False)).to_numpy()] = True
    return pa.array(mask, mask=pc.is_null(lists).to_numpy(zero_copy_only=False))
