"""Seeded decisions: the same (seed, purpose, key) gives the same number on every machine, in any order."""

from __future__ import annotations

import hashlib


def hash64(*parts: int | str) -> int:
    """A uniform 64-bit integer from the parts, by BLAKE2b."""
    return int.from_bytes(hashlib.blake2b("\x1f".join(map(str, parts)).encode(), digest_size=8).digest(), "little")


def uniform(*parts: int | str) -> float:
    """A uniform number in [0, 1) from the parts."""
    return (hash64(*parts) >> 11) / float(1 << 53)
