"""What the cells of a table mean, as UniProt, R, pandas, Excel and databases write them."""

from __future__ import annotations

import re

from protclip.uniprot.entry import RefusedError

MAX_NOTHING_CHARS = 4
"""Of the longest word for nothing."""
_NOTHING = frozenset(("na", "n/a", "#n/a", "<na>", "nan", "null", "none"))
_BETWEEN = re.compile(r"[\W_]+")
_INTEGER = re.compile(r"([0-9]{1,9})(?:\.0)?")  # pandas writes integers as 9606.0 in a column with gaps
_STATUS = {
    "reviewed": True,
    "uniprotkbreviewedswissprot": True,  # the REST service's JSON
    "swissprot": True,
    "true": True,
    "unreviewed": False,
    "uniprotkbunreviewedtrembl": False,
    "trembl": False,
    "false": False,
}
EXISTENCE = (
    "Evidence at protein level",
    "Evidence at transcript level",
    "Inferred from homology",
    "Predicted",
    "Uncertain",
)
"""The levels from 1."""


def fold(text: str) -> str:
    """Letters and digits alone, in lower case: ``Function [CC]``, ``Function_CC`` and R's ``Function..CC.`` agree."""
    return _BETWEEN.sub("", text).lower()


_LEVELS = {fold(text): level for level, text in enumerate(EXISTENCE, start=1)}
_LEVELS |= {f"{level}{text}": level for text, level in _LEVELS.items()}  # 1: Evidence at protein level;


def unquoted(cell: str) -> str:
    """A cell of a table that knows no quoting, without blanks and the quotes that Excel and R put round it."""
    cell = cell.strip()
    if len(cell) > 1 and cell[0] == cell[-1] == '"' and '"' not in cell[1:-1].replace('""', ""):
        return cell[1:-1].replace('""', '"').strip()
    return cell


def means_nothing(cell: str) -> bool:
    """True of an empty cell, of words that programs write for nothing, NA or nan, and of marks alone, such as ``-``."""
    cell = cell.strip()
    return (len(cell) <= MAX_NOTHING_CHARS and cell.lower() in _NOTHING) or not any(map(str.isalnum, cell))


def text_or_none(cell: str) -> str | None:
    """The cell without the blanks round it, or None where it means nothing."""
    return None if means_nothing(cell) else cell.strip()


def status(cell: str) -> bool | None:
    """Whether an entry is reviewed, or None where the cell means nothing.

    Raises:
        RefusedError: if it says something else.
    """
    if means_nothing(cell):
        return None
    if (found := _STATUS.get(fold(cell))) is None:
        raise RefusedError("unknown status", cell, "reviewed or unreviewed, or nothing")
    return found


def existence(cell: str) -> int | None:
    """The level of protein existence, or None where the cell means nothing.

    Raises:
        RefusedError: if it says something else.
    """
    if means_nothing(cell):
        return None
    number = _INTEGER.fullmatch(cell)
    level = int(number[1]) if number else _LEVELS.get(fold(cell), 0)
    if not 1 <= level <= len(EXISTENCE):
        raise RefusedError("unknown protein existence", cell, f"{', '.join(EXISTENCE)}, or nothing")
    return level


def integer(cell: str, reason: str, example: str) -> int | None:
    """The number, or None where the cell means nothing.

    Raises:
        RefusedError: for this reason if it is no number from 0.
    """
    if means_nothing(cell):
        return None
    match = _INTEGER.fullmatch(cell)
    if match is None:
        raise RefusedError(reason, cell, f"a number such as {example}, or nothing")
    return int(match[1])


def taxon(cell: str) -> int | None:
    """The NCBI taxonomy identifier, or None where the cell means nothing.

    Raises:
        RefusedError: if it is no number.
    """
    return integer(cell, "unreadable taxonomy identifier", "9606")


def ec_numbers(cell: str) -> tuple[str, ...]:
    """The EC numbers of a cell, each once."""
    return () if means_nothing(cell) else tuple(dict.fromkeys(re.findall(r"[^;,\s]+", cell)))
