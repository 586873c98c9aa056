"""The letters of a protein sequence."""

from __future__ import annotations

import re

RESIDUES = "ACDEFGHIKLMNPQRSTVWYBJOUXZ"
"""The 20 amino acids, then B, J, O, U, X, Z: ambiguous, rare or unknown residues."""

_INVALID = re.compile(f"[^{RESIDUES}{RESIDUES.lower()}]")


def find_invalid_residue(sequence: str) -> int | None:
    """Position, from 0, of the first letter that is no residue; None where all are."""
    match = _INVALID.search(sequence)
    return match.start() if match else None


def invalid_residue_message(sequence: str, position: int) -> str:
    """What is wrong at the position, counted from 1, and what is allowed."""
    return f"holds {sequence[position]!r} at residue {position + 1}; allowed are the 20 amino acids and BJOUXZ"
