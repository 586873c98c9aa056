"""Masks: lengths, shares, and what they depend on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_model import make_batch, pairs_table, random_pairs, tiny_model, tokenized

from protclip.config import ObjectivesConfig
from protclip.data.collate import NO_TARGET, Batch, MaskedResidues
from protclip.data.masking import places, residue_mask, segment_mask, stream_keys
from protclip.hashing import hash64

pytestmark = pytest.mark.unit

FRACTION, MIN, MAX = 0.15, 5, 10
LENGTHS = np.concatenate([np.arange(1, 200), np.full(200, 1022), np.full(2000, 60)])


def keys(count: int, *, seed: int = 0, epoch: int = 0, purpose: str = "any") -> np.ndarray:
    accessions = np.array([hash64(f"P{i:05d}") for i in range(count)], dtype=np.uint64)
    return stream_keys(accessions, seed=seed, epoch=epoch, purpose=purpose)


def segments(lengths: np.ndarray, **place: int) -> np.ndarray:
    starts = keys(len(lengths), purpose="starts", **place)
    return segment_mask(keys(len(lengths), **place), starts, lengths, fraction=FRACTION, min_length=MIN, max_length=MAX)


def residues(lengths: np.ndarray) -> np.ndarray:
    nothing = np.zeros((len(lengths), lengths.max()), dtype=bool)
    return residue_mask(keys(len(lengths)), lengths, nothing, fraction=FRACTION)


def runs(row: np.ndarray) -> np.ndarray:
    """Lengths of the runs of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], row.astype(int), [0]])))
    return edges[1::2] - edges[::2]


def test_segments_are_5_to_10_residues_and_cover_15_percent_of_each_protein() -> None:
    masks = segments(LENGTHS)
    found = []
    for row, length in zip(masks, LENGTHS, strict=True):
        assert not row[length:].any()
        if length < MIN:
            assert not row.any()
            continue
        lengths = runs(row)
        found += lengths.tolist()
        assert lengths.min() >= MIN
        assert lengths.max() <= MAX
        quota = max(1, np.floor(FRACTION * length + 0.5))
        assert quota <= row.sum() <= quota + MAX - 1
    # No length is rare: each draw is as likely as another (proteins of 60 draw one or two).
    shares = np.bincount(found, minlength=MAX + 1)[MIN:] / len(found)
    assert shares.min() > 0.12
    assert shares.max() < 0.22


def test_single_residues_are_15_percent_of_each_protein_and_at_least_one() -> None:
    masks = residues(LENGTHS)
    wanted = np.maximum(1, np.floor(FRACTION * LENGTHS + 0.5))
    assert np.array_equal(masks.sum(1), wanted)
    assert not (masks & (np.arange(masks.shape[1]) >= LENGTHS[:, None])).any()


def test_no_place_is_favoured() -> None:
    lengths = np.full(4000, 60)
    single = residues(lengths).mean(0)
    assert np.abs(single - FRACTION).max() < 0.03
    inner = segments(lengths).mean(0)[MAX:-MAX]
    assert inner.min() > 0.7 * inner.max()


def test_places_pack_each_row_to_the_left() -> None:
    place, real = places(np.array([[0, 1, 0, 1], [0, 0, 0, 0], [1, 1, 1, 1]], dtype=bool))
    assert place.tolist() == [[1, 3, 0, 0], [0, 0, 0, 0], [0, 1, 2, 3]]
    assert real.sum(1).tolist() == [2, 0, 4]
    assert places(np.zeros((2, 3), dtype=bool))[0].shape == (2, 1)


def hidden(batch: Batch, row: int) -> dict[str, list[tuple[int, int]]]:
    """(place, residue) of what is masked in a row."""

    def of(masked: MaskedResidues | None) -> list[tuple[int, int]]:
        assert masked is not None
        real = masked.target_BQ[row] != NO_TARGET
        return list(zip(masked.place_BQ[row][real].tolist(), masked.target_BQ[row][real].tolist(), strict=True))

    return {"mlm": of(batch.mlm), "bsr": of(batch.bsr)}


@pytest.mark.parametrize("passes", ["separate", "shared"])
def test_masks_depend_on_seed_epoch_and_accession_alone(passes: str) -> None:
    model = tiny_model(objectives=ObjectivesConfig(masked_passes=passes))  # type: ignore[arg-type]
    tokens = tokenized(model, random_pairs(20))
    batch = make_batch(model, tokens)
    order = np.random.default_rng(1).permutation(20)
    shuffled = make_batch(model, tokens.take(order))
    for row, source in enumerate(order):
        alone = make_batch(model, tokens.slice(source, 1))  # padded otherwise, too
        assert hidden(batch, source) == hidden(shuffled, row) == hidden(alone, 0)
    noise = [properties.noise_key_P for properties in (batch.properties, shuffled.properties) if properties is not None]
    assert sorted(noise[0].tolist()) == sorted(noise[1].tolist())
    assert len(set(noise[0].tolist())) == len(noise[0])
    others = [make_batch(model, tokens, seed=1), make_batch(model, tokens, epoch=1)]
    for name in ("mlm", "bsr"):
        for other in others:
            same = [hidden(batch, row)[name] == hidden(other, row)[name] for row in range(20)]
            assert sum(same) < 10
    renamed = tokens.set_column(1, "accession_hash", tokens.column("accession_hash").take(order))
    assert hidden(make_batch(model, renamed), 0) != hidden(batch, 0)


def test_masked_copies_have_mask_at_the_places_and_the_rest_as_it_was() -> None:
    model = tiny_model(objectives=ObjectivesConfig())
    batch = make_batch(model, tokenized(model, random_pairs(20)))
    mask_id = model.protein_tokenizer.mask_id
    assert batch.masked_ids_XL is not None
    for masked, copy in zip((batch.mlm, batch.bsr), batch.masked_ids_XL.split(20), strict=True):
        assert masked is not None
        changed = copy != batch.protein_ids_BL
        assert torch.equal(changed, copy == mask_id)
        assert changed.sum() == (masked.target_BQ != NO_TARGET).sum()
        special = ~batch.protein_mask_BL
        special[:, 0] = True
        special[torch.arange(20), batch.protein_mask_BL.sum(1) - 1] = True
        assert not (changed & special).any()
        real = masked.target_BQ != NO_TARGET
        assert torch.equal(batch.protein_ids_BL.gather(1, masked.place_BQ)[real], masked.target_BQ[real])
        assert (copy.gather(1, masked.place_BQ)[real] == mask_id).all()


def test_a_shared_copy_masks_disjoint_places() -> None:
    model = tiny_model(objectives=ObjectivesConfig(masked_passes="shared"))
    batch = make_batch(model, tokenized(model, random_pairs(20)))
    assert batch.masked_ids_XL is not None
    assert batch.masked_ids_XL.shape == batch.protein_ids_BL.shape
    for row in range(20):
        single, segment = (set(found) for found in hidden(batch, row).values())
        assert single
        assert not single & segment
        masked = (batch.masked_ids_XL[row] == model.protein_tokenizer.mask_id).sum()
        assert masked == len(single) + len(segment)


def test_what_is_off_is_not_made() -> None:
    on = ObjectivesConfig()
    for name, count in [("mlm", 1), ("bsr", 1), ("pda", 2)]:
        model = tiny_model(objectives=replace(on, **{name: 0.0}))
        batch = make_batch(model, tokenized(model, random_pairs(6)))
        assert batch.masked_ids_XL is not None
        assert len(batch.masked_ids_XL) == count * 6
        assert getattr(batch, {"pda": "properties"}.get(name, name)) is None


def test_absent_properties_are_never_in_the_batch() -> None:
    model = tiny_model(objectives=ObjectivesConfig())
    table = pairs_table(["MKTAYIAK", "MKT", "MAK"], [["a", None, "binds", ""], ["b", None, None, None], [None] * 4])
    batch = make_batch(model, tokenized(model, table))
    assert batch.properties is not None
    assert batch.properties.slot_P.tolist() == [0, 2, 4]
    assert batch.counts.pda == 1
    wanted = model.text_tokenizer.encode(["PROTEIN NAME: a.", "binds", "PROTEIN NAME: b."])
    found = [ids[mask].tolist() for ids, mask in zip(batch.properties.ids_PL, batch.properties.mask_PL, strict=True)]
    assert found == wanted
