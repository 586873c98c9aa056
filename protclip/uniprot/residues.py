"""The letters of a protein sequence, and what becomes of others.

What a user gives to the model is mapped so; the FASTA reader does the same:

    the 20 amino acids, B O U X Z    a token each in ESM-2
    J (leucine or isoleucine)        stays in the sequence; ESM-2 has no token for it, the model sees <unk>
    lower case (soft masking)        upper case
    white space                      removed: a pasted sequence may be wrapped
    one * at the end                 removed: the stop codon of a translation
    * elsewhere                      refused: an internal stop, so this is no protein
    - and . (gaps)                   refused: only the user knows whether they are columns of an alignment (then
                                     remove them) or unknown residues (then write X)
    anything else                    refused, with its place

``count_mapped`` counts what was mapped. DNA and RNA are written in letters that are amino acids too, so they pass;
``looks_like_nucleotides`` tells them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from protclip.errors import RequestError

RESIDUES = "ACDEFGHIKLMNPQRSTVWYBJOUXZ"
"""The 20 amino acids, then B, J, O, U, X, Z: ambiguous, rare or unknown residues."""

_INVALID = re.compile(f"[^{RESIDUES}{RESIDUES.lower()}]")
_SEQUENCE = re.compile(r"(?:[A-Z]{20,}|[acdefghiklmnpqrstvwy]{20,})\*?")
_PDB_NUCLEOTIDES = re.compile(r"(?:^|\s)mol:na(?:\s|$)")
_REMEDIES = {
    "*": "; a stop inside means that this is no protein",
    "-": "; remove the gaps of an alignment, write unknown residues as X",
    ".": "; remove the gaps of an alignment, write unknown residues as X",
}


def bare_residues(sequence: str) -> str:
    """The sequence without white space and one ``*`` at the end."""
    return "".join(sequence.split()).removesuffix("*")


def find_invalid_residue(sequence: str) -> int | None:
    """Position, from 0, of the first letter that is no residue; None where all are."""
    match = _INVALID.search(sequence)
    return match.start() if match else None


def invalid_residue_message(sequence: str, position: int) -> str:
    """What is wrong at the position, counted from 1, what is allowed, and a remedy where one is known."""
    letter = sequence[position]
    return (
        f"holds {letter!r} at residue {position + 1}; allowed are the 20 amino acids and BJOUXZ"
        f"{_REMEDIES.get(letter, '')}"
    )


def checked_residues(sequence: str, what: str) -> str:
    """The residues of a sequence that a user gave, mapped as above.

    Args:
        sequence: in one-letter code.
        what: names it in a message.

    Raises:
        RequestError: if it is empty or holds a letter that is no residue, naming its place.
    """
    residues = bare_residues(sequence)
    if not residues:
        raise RequestError(f"{what} is empty; remove it.")
    if (position := find_invalid_residue(residues)) is not None:
        raise RequestError(f"{what}: {invalid_residue_message(residues, position)}")
    return residues.upper()


def checked_sequences(sequences: Sequence[str]) -> list[str]:
    """``checked_residues`` of each, named by its number.

    Raises:
        RequestError: as ``checked_residues``.
    """
    count = len(sequences)
    return [checked_residues(text, f"sequence {number} of {count}") for number, text in enumerate(sequences, start=1)]


def looks_like_nucleotides(sequence: str, description: str | None = None) -> bool:
    """Whether upper-case letters are DNA or RNA rather than a protein.

    Args:
        sequence: at least 90 % of more than 100 letters are A, C, G, T or U in hardly any protein.
        description: of a FASTA header; PDB's says ``mol:na``.
    """
    if description and _PDB_NUCLEOTIDES.search(description):
        return True
    length = len(sequence)
    return length > 100 and 10 * sum(map(sequence.count, "ACGTU")) >= 9 * length


def looks_like_a_sequence(text: str) -> bool:
    """Whether a text is one word of 20 residues or more, all in one case: a protein, and no description of one."""
    return _SEQUENCE.fullmatch(text) is not None


def count_mapped(sequences: Iterable[str]) -> dict[str, int]:
    """How much the mapping above changes: letters, over all sequences, by kind."""
    counts = dict.fromkeys(("lower_case", "white_space", "end_stop", "unknown_token"), 0)
    for sequence in sequences:
        letters = "".join(sequence.split())
        counts["white_space"] += len(sequence) - len(letters)
        counts["end_stop"] += letters.endswith("*")
        counts["lower_case"] += sum(letter in _LOWER for letter in letters)
        counts["unknown_token"] += letters.count("J") + letters.count("j")
    return counts


@dataclass(kw_only=True, slots=True)
class Nucleotides:
    """The sequences of one input that look like DNA or RNA."""

    number: int = 0
    first: str = ""
    """Name of the first."""

    def add(self, name: str, number: int = 1) -> None:
        """Count some whose first has this name."""
        self.first = self.first or name
        self.number += number

    def warning(self, source: str) -> str:
        """One line for all of an input."""
        what = f"a sequence looks like DNA or RNA ({self.first})"
        if self.number > 1:
            what = f"{self.number:,} sequences look like DNA or RNA (the first is {self.first})"
        return f"warning: {source}: {what}; what is expected is proteins: translate it, or leave it out."


_LOWER = frozenset(RESIDUES.lower())
