"""Leaks: proteins that were trained on, and their relatives."""

from __future__ import annotations

import numpy as np
import pytest
from tiny_model import RESIDUES

from protclip.evaluation import leaks
from protclip.evaluation.leaks import find_leaks

pytestmark = pytest.mark.unit


def random_protein(generator: np.random.Generator, length: int) -> str:
    return "".join(generator.choice(list(RESIDUES), size=length))


def mutated(sequence: str, share: float, generator: np.random.Generator) -> str:
    """So many of its residues are others."""
    letters = np.array(list(sequence))
    for place in generator.choice(len(letters), size=round(share * len(letters)), replace=False):
        letters[place] = generator.choice([letter for letter in RESIDUES if letter != letters[place]])
    return "".join(letters)


def test_equal_sequences_and_relatives_are_found_and_strangers_are_not() -> None:
    generator = np.random.default_rng(0)
    test = [random_protein(generator, 350) for _ in range(40)]
    near = [mutated(sequence, 0.3, generator) for sequence in test[10:20]]
    far = [mutated(sequence, 0.65, generator) for sequence in test[20:30]]
    strangers = [random_protein(generator, 350) for _ in range(600)]
    found = find_leaks(test, [*strangers, *test[:10], *near, *far])
    assert found.identical_T.tolist() == [True] * 10 + [False] * 30
    assert found.similar_T.tolist() == [True] * 20 + [False] * 20
    assert found.counts() == {"proteins": 40, "identical": 10, "similar": 20}


def test_the_order_and_the_blocks_of_training_proteins_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(1)
    test = [random_protein(generator, 100) for _ in range(20)]
    train = [mutated(sequence, share, generator) for sequence in test for share in (0.2, 0.5)]
    whole = find_leaks(test, train)
    monkeypatch.setattr(leaks, "_BLOCK", 7)
    for again in (find_leaks(test, iter(train)), find_leaks(test, train[::-1])):
        np.testing.assert_array_equal(again.similar_T, whole.similar_T)


def test_k_mers_are_counted_as_a_plain_loop_counts_them() -> None:
    generator = np.random.default_rng(2)
    letters = "AC"  # so that many are shared
    sequences = ["".join(generator.choice(list(letters), size=n)) for n in generator.integers(3, 40, size=60)]
    test, train = sequences[:30], sequences[30:]

    def kmers(sequence: str) -> set[str]:
        return {sequence[i : i + leaks.KMER] for i in range(len(sequence) - leaks.KMER + 1)}

    def similar(one: str, other: str) -> bool:
        shared = len(kmers(one) & kmers(other))
        return shared >= max(leaks.MIN_SHARED, len(kmers(one)) * leaks.MIN_IDENTITY**leaks.KMER)

    wanted = [any(similar(one, other) or one == other for other in train) for one in test]
    assert 0 < sum(wanted) < 30
    assert find_leaks(test, train).similar_T.tolist() == wanted


@pytest.mark.parametrize("test", [[], ["MK"], ["", "MKV"]])
def test_proteins_shorter_than_a_k_mer_are_similar_to_their_equals_alone(test: list[str]) -> None:
    assert find_leaks(test, ["MKVLA" * 9, "MK"]).similar_T.tolist() == [sequence == "MK" for sequence in test]
    assert not find_leaks(test, []).similar_T.any()
