"""CRC64 against a loop over bits, at the lengths where the table's chunks meet."""

from __future__ import annotations

import random

import pytest

from protclip.uniprot.crc64 import crc64

pytestmark = pytest.mark.unit


def by_bits(data: bytes) -> int:
    state = 0
    for byte in data:
        state ^= byte
        for _ in range(8):
            state = (state >> 1) ^ 0xD800000000000000 if state & 1 else state >> 1
    return state


@pytest.mark.parametrize("length", [0, 1, 7, 8, 9, 1023, 1024, 1025, 1030, 1032, 2048, 5001])
def test_crc64_is_that_of_a_loop_over_bits(length: int) -> None:
    data = bytes(random.Random(length).choices(b"ACDEFGHIKLMNPQRSTVWY", k=length))
    assert crc64(data) == by_bits(data)


def test_crc64_is_uniprots() -> None:
    # TMA7B_HUMAN, A0A024R1R8
    sequence = b"MSSHEGGKKKALKQPKKQAKEMDEEEKAFKQKQKEEQKKLEVLKAKVVGKGPLATGGIKKSGKK"
    assert f"{crc64(sequence):016X}" == "C00D8704F604CA72"
