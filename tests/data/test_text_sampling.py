"""Sampled biotexts: what they are made of, and what they depend on."""

from __future__ import annotations

from collections import Counter
from itertools import permutations

import pyarrow as pa
import pytest
from tiny_model import pairs_table, random_pairs

from protclip.config import GC_ALONE
from protclip.data.collate import Masking, collate
from protclip.data.text_sampling import sampled_biotexts
from protclip.data.tokenize import SHOWN_HASH, ProteinTokenizer, TextTokenizer, biotexts, tokenize_pairs
from protclip.protanno.biotext import property_texts
from protclip.protanno.shards import PROPERTIES

pytestmark = pytest.mark.unit


def of_properties(num_rows: int, *present: str) -> pa.Table:
    """Rows that have these properties, the same in all, and accessions of their own."""
    rows = random_pairs(num_rows)
    for name in PROPERTIES:
        values = [name if name in present else None] * num_rows
        rows = rows.set_column(rows.schema.get_field_index(name), name, pa.array(values, pa.string()))
    return rows


@pytest.mark.slow
def test_all_orders_of_all_numbers_of_properties_are_drawn() -> None:
    present = ("function", "subcellular_location", "similarity")
    count = Counter(sampled_biotexts(of_properties(9000, *present), seed=1, epoch=0))
    assert count.keys() == {" ".join(some) for n in (1, 2, 3) for some in permutations(present, n)}
    for n, wanted in ((1, 1000), (2, 500), (3, 500)):  # 3,000 of each number
        assert all(abs(times - wanted) < 0.2 * wanted for some, times in count.items() if some.count(" ") + 1 == n)


def test_properties_are_whole_and_as_in_the_biotext() -> None:
    pairs = random_pairs(200)
    for row, text in zip(pairs.to_pylist(), sampled_biotexts(pairs, seed=0, epoch=2), strict=True):
        parts = [part for part in property_texts(*(row[name] for name in PROPERTIES)) if part]
        possible = {" ".join(some) for n in range(1, len(parts) + 1) for some in permutations(parts, n)}
        assert text in (possible or {""})


def test_samples_are_without_evidence() -> None:
    texts = [
        (
            "FUNCTION: Binds actin (PubMed:1, PubMed:22) {ECO:0000269|PubMed:1, ECO:0000305}. Slow (Ref.3).",
            "Binds actin. Slow.",
        ),
        ("FUNCTION: Binds actin (By similarity). {ECO:0000250}.", "Binds actin."),
        ("FUNCTION: Cleaves (in vitro) 5'-{N}-3' (EC 3.1.1.1).", "Cleaves (in vitro) 5'-{N}-3' (EC 3.1.1.1)."),
    ]
    pairs = pairs_table(["MKV"] * len(texts), [(None, text, None, None) for text, _ in texts])
    assert sampled_biotexts(pairs, seed=0, epoch=0) == [f"FUNCTION: {clean}" for _, clean in texts]


def test_a_sample_depends_on_seed_epoch_and_accession_alone() -> None:
    pairs = random_pairs(100)
    wanted = sampled_biotexts(pairs, seed=3, epoch=5)
    order = [*range(60, 100), *range(60)]
    assert sampled_biotexts(pairs.take(order), seed=3, epoch=5) == [wanted[i] for i in order]
    assert sampled_biotexts(pairs.slice(7, 9), seed=3, epoch=5) == wanted[7:16]
    for other in ({"seed": 4, "epoch": 5}, {"seed": 3, "epoch": 6}):
        assert sampled_biotexts(pairs, **other) != wanted


def test_an_entry_without_properties_has_an_empty_text() -> None:
    assert sampled_biotexts(of_properties(3), seed=0, epoch=0) == [""] * 3
    assert sampled_biotexts(of_properties(0, "name"), seed=0, epoch=0) == []


def test_pairs_that_are_shown_the_same_are_no_negatives_nor_those_of_one_biotext() -> None:
    pairs = of_properties(4, "function", "similarity")
    protein, text = ProteinTokenizer(), TextTokenizer.train(biotexts(pairs), vocabulary_size=60, max_tokens=16)
    shown = ["function", "similarity", "function", "function similarity"]
    tokens = tokenize_pairs(pairs, protein, text, shown=shown)
    assert tokens.column("text_ids").to_pylist() == text.encode(shown)
    assert tokens.drop_columns(["text_ids", SHOWN_HASH]).equals(
        tokenize_pairs(pairs, protein, text).drop_columns(["text_ids"])
    )
    masking = Masking(objectives=GC_ALONE, seed=0, epoch=0, mask_id=protein.mask_id)
    _, biotext_B, shown_B = collate(tokens, protein_pad_id=1, text_pad_id=0, masking=masking).identity_BI.T
    assert len(set(biotext_B.tolist())) == 1
    assert shown_B[0] == shown_B[2] and len(set(shown_B.tolist())) == 3
