"""Towers without padding against HuggingFace's padded ones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_model import make_batch, random_pairs, tiny_model, tokenized
from torch import Tensor, nn

from protclip import ProtCLIP
from protclip.config import EncoderConfig, ModelConfig, ObjectivesConfig
from protclip.errors import ConfigError
from protclip.losses.total import objective_terms, total_loss
from protclip.model.build import ESM2_FIELDS, NO_DROPOUT, build_architecture
from protclip.model.dual_encoder import DualEncoder
from protclip.model.encoders import Kind, build_encoder, encoder_config
from protclip.model.packed import bert_hidden, check_packable, esm_hidden, pack, unpack
from protclip.model.pooling import mean_pool

MASK_ID = 32
SHAPE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
FIELDS: dict[Kind, dict[str, Any]] = {
    "protein": {**ESM2_FIELDS, **SHAPE, "max_position_embeddings": 1026},
    "text": {**NO_DROPOUT, **SHAPE, "vocab_size": 33, "max_position_embeddings": 1024},
}
LENGTHS = {
    "mixed": [1, 7, 1024, 2, 33, 512, 3],
    "one long, many short": [600, *range(1, 12), *[12] * 6],
    "equal": [64] * 5,
    "alone": [19],
}


def tower(kind: Kind, **fields: Any) -> nn.Module:
    torch.manual_seed(0)
    encoder = build_encoder(kind, encoder_config(kind, {**FIELDS[kind], **fields}))
    for parameter in encoder.parameters():
        nn.init.normal_(parameter, std=0.15)  # HuggingFace's own make biases of zero, which would hide that one is lost
    return encoder


def random_ids(lengths: list[int]) -> tuple[Tensor, Tensor]:
    """Padded ids and mask; every other sequence has ``<mask>`` tokens, each in another share."""
    generator = torch.Generator().manual_seed(1)
    mask_BL = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    ids_BL = torch.randint(4, 24, mask_BL.shape, generator=generator)
    share_B1 = torch.linspace(0, 0.5, len(lengths))[:, None] * (torch.arange(len(lengths))[:, None] % 2)
    hidden_BL = torch.rand(mask_BL.shape, generator=generator) < share_B1
    hidden_BL[:, 0] = False  # a sequence of nothing but <mask> has no scale
    return ids_BL.masked_fill(hidden_BL, MASK_ID).masked_fill(~mask_BL, 1), mask_BL


def packed_hidden(kind: Kind, encoder: nn.Module, ids_BL: Tensor, mask_BL: Tensor) -> Tensor:
    return (esm_hidden if kind == "protein" else bert_hidden)(encoder, *pack([(ids_BL, mask_BL)]))


def padded_hidden(encoder: nn.Module, ids_BL: Tensor, mask_BL: Tensor) -> Tensor:
    hidden_TH: Tensor = encoder(input_ids=ids_BL, attention_mask=mask_BL).last_hidden_state[mask_BL]
    return hidden_TH


def gradients(encoder: nn.Module, hidden_TH: Tensor) -> dict[str, Tensor]:
    weight_TH = torch.randn(hidden_TH.shape, generator=torch.Generator().manual_seed(2)).to(hidden_TH.dtype)
    (hidden_TH * weight_TH).mean().backward()
    found = {name: parameter.grad for name, parameter in encoder.named_parameters() if parameter.grad is not None}
    encoder.zero_grad(set_to_none=True)
    return found


@pytest.mark.slow
@pytest.mark.unit
@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
@pytest.mark.parametrize("kind", ["protein", "text"])
def test_packed_is_padded_in_values_and_gradients(kind: Kind, lengths: list[int]) -> None:
    ids_BL, mask_BL = random_ids(lengths)
    for dtype, bound in ((torch.float32, 1e-5), (torch.float64, 2e-7)):  # HuggingFace's rotation is always fp32
        encoder = tower(kind).to(dtype)
        wanted, found = padded_hidden(encoder, ids_BL, mask_BL), packed_hidden(kind, encoder, ids_BL, mask_BL)
        assert found.shape == (sum(lengths), 32)
        assert (found - wanted).abs().max() <= bound
        wanted_gradients, found_gradients = gradients(encoder, wanted), gradients(encoder, found)
        assert found_gradients.keys() == wanted_gradients.keys()
        for name, gradient in wanted_gradients.items():
            assert (found_gradients[name] - gradient).abs().max() <= bound * max(1.0, gradient.abs().max().item()), name


@pytest.mark.unit
@pytest.mark.parametrize("kind", ["protein", "text"])
def test_bf16_pools_to_the_direction_of_fp32(kind: Kind) -> None:
    ids_BL, mask_BL = random_ids(LENGTHS["mixed"])
    encoder = tower(kind)
    _, packing = pack([(ids_BL, mask_BL)])
    with torch.inference_mode():
        exact_SH = mean_pool(padded_hidden(encoder, ids_BL, mask_BL), packing.length_S)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found_SH = mean_pool(packed_hidden(kind, encoder, ids_BL, mask_BL), packing.length_S)
    assert found_SH.dtype == torch.float32
    assert torch.cosine_similarity(exact_SH, found_SH).min() >= 0.9999


@pytest.mark.unit
@pytest.mark.parametrize("kind", ["protein", "text"])
def test_sequences_do_not_see_each_other(kind: Kind) -> None:
    ids_BL, mask_BL = random_ids([30, 8, 30, 8])
    encoder = tower(kind)
    other_BL = ids_BL.clone()
    other_BL[1, :8] = 5
    with torch.inference_mode():
        one, two = (packed_hidden(kind, encoder, ids, mask_BL) for ids in (ids_BL, other_BL))
    changed_T = (one != two).any(1)
    assert changed_T[30:38].all()
    assert not changed_T[:30].any()
    assert not changed_T[38:].any()


@pytest.mark.unit
def test_checkpointed_layers_have_the_same_gradients() -> None:
    ids_BL, mask_BL = random_ids([9, 21, 4])
    encoder = tower("protein").train()
    wanted = gradients(encoder, packed_hidden("protein", encoder, ids_BL, mask_BL))
    encoder.activation_checkpointing_enable()  # type: ignore[operator]
    calls: list[int] = []
    encoder.encoder.layer[0].intermediate.dense.register_forward_hook(lambda *_: calls.append(1))  # type: ignore[index, union-attr]
    found = gradients(encoder, packed_hidden("protein", encoder, ids_BL, mask_BL))
    assert len(calls) == 2  # again in backward
    for name, gradient in wanted.items():
        torch.testing.assert_close(found[name], gradient, msg=name)


@pytest.mark.unit
def test_unpack_puts_zeros_where_padding_was() -> None:
    ids_BL, mask_BL = random_ids([3, 1, 5])
    ids_T, packing = pack([(ids_BL[:2], mask_BL[:2]), (ids_BL[2:], mask_BL[2:])])
    assert packing.lengths == (3, 1, 5)
    assert packing.start_S1.tolist() == [0, 3, 4, 9]
    assert packing.position_T.tolist() == [0, 1, 2, 0, 0, 1, 2, 3, 4]
    assert torch.equal(unpack(ids_T[:, None], packing)[..., 0], ids_BL * mask_BL)
    first = packing.first(2)
    assert torch.equal(unpack(ids_T[:4, None], first)[..., 0], (ids_BL * mask_BL)[:2, :3])


@pytest.mark.unit
@pytest.mark.parametrize(
    ("kind", "fields", "message"),
    [
        ("protein", {"position_embedding_type": "absolute"}, "position_embedding_type='absolute'"),
        ("protein", {"emb_layer_norm_before": True}, "emb_layer_norm_before=True"),
        ("protein", {"hidden_dropout_prob": 0.1}, "hidden_dropout_prob=0.1"),
        ("text", {"attention_probs_dropout_prob": 0.2}, "attention_probs_dropout_prob=0.2"),
        ("text", {"is_decoder": True}, "is_decoder=True"),
    ],
)
def test_what_cannot_be_packed_is_refused_with_the_setting_that_pads(
    kind: Kind, fields: dict[str, Any], message: str
) -> None:
    ids_BL, mask_BL = random_ids([4, 2])
    with pytest.raises(ConfigError, match=rf"the {kind} encoder has {message}.*model\.attention=padded"):
        packed_hidden(kind, tower(kind, **fields).train(), ids_BL, mask_BL)


@pytest.mark.unit
def test_dropout_matters_in_training_alone() -> None:
    encoder = tower("text", hidden_dropout_prob=0.1).eval()
    ids_BL, mask_BL = random_ids([4, 2])
    wanted, found = padded_hidden(encoder, ids_BL, mask_BL), packed_hidden("text", encoder, ids_BL, mask_BL)
    assert (found - wanted).abs().max() <= 1e-5
    check_packable("text", encoder.config, training=False)


@pytest.mark.unit
def test_an_encoder_with_dropout_trains_padded() -> None:
    def config(**model: Any) -> ModelConfig:
        protein = EncoderConfig(max_tokens=64, config={**SHAPE, "hidden_dropout_prob": 0.1})
        text = EncoderConfig(max_tokens=32, config={**SHAPE, "vocab_size": 120})
        return ModelConfig(projection_dim=24, protein=protein, text=text, **model)

    tokenizer = tiny_model().text_tokenizer
    with pytest.raises(ConfigError, match=r"hidden_dropout_prob=0\.1"):
        build_architecture(config(), tokenizer)
    assert build_architecture(config(attention="padded"), tokenizer).attention == "padded"


@pytest.mark.unit
@pytest.mark.parametrize("passes", ["separate", "shared"])
def test_a_padded_model_has_the_same_losses_gradients_and_fingerprint(passes: Any, tmp_path: Path) -> None:
    objectives = ObjectivesConfig(masked_passes=passes, num_prototypes=8)
    packed = tiny_model(objectives=objectives)
    padded = DualEncoder(replace(packed.model.architecture, attention="padded"))
    padded.load_state_dict(packed.model.state_dict())
    batch = make_batch(packed, tokenized(packed, random_pairs(9)))
    results = []
    for model in (packed.model, padded):
        terms = objective_terms([model.train()(batch)], [batch], objectives, group=None)
        total_loss(terms, objectives).backward()  # type: ignore[union-attr]
        results.append({**terms, **{name: p.grad for name, p in model.named_parameters()}})
    for name, wanted in results[1].items():
        torch.testing.assert_close(results[0][name], wanted, rtol=1e-4, atol=1e-5, msg=name)
    public = ProtCLIP(padded, packed.protein_tokenizer, packed.text_tokenizer)
    assert public.fingerprint == packed.fingerprint
    public.save_pretrained(str(tmp_path))
    assert ProtCLIP.from_pretrained(str(tmp_path)).model.architecture.attention == "padded"


@pytest.mark.unit
@pytest.mark.parametrize("passes", ["separate", "shared"])
def test_each_head_sees_its_own_copy_of_the_proteins(passes: Any) -> None:
    public = tiny_model(objectives=ObjectivesConfig(masked_passes=passes, num_prototypes=8))
    model, batch = public.model, make_batch(public, tokenized(public, random_pairs(9)))
    assert batch.masked_ids_XL is not None
    assert batch.mlm is not None
    assert batch.bsr is not None
    assert batch.properties is not None

    def hidden(encoder: Any, ids_BL: Tensor, mask_BL: Tensor) -> Tensor:
        hidden_BLH: Tensor = encoder(input_ids=ids_BL, attention_mask=mask_BL).last_hidden_state
        return hidden_BLH

    def at(hidden_BLH: Tensor, place_BQ: Tensor) -> Tensor:
        return hidden_BLH[torch.arange(9)[:, None], place_BQ]

    with torch.no_grad():
        found = model(batch)
        copies = [hidden(model.protein_encoder, ids, batch.protein_mask_BL) for ids in batch.masked_ids_XL.split(9)]
        clean_BLH = hidden(model.protein_encoder, batch.protein_ids_BL, batch.protein_mask_BL)
        text_BLH = hidden(model.text_encoder, batch.text_ids_BL, batch.text_mask_BL)
        mlm = model.heads.masked_logits(at(copies[0], batch.mlm.place_BQ))
        residues = model.protein_projection(at(copies[-1], batch.bsr.place_BQ))
        bsr = model.heads.segment_logits(residues, model.text_projection(text_BLH), batch.text_mask_BL)
        queries = model.encode_properties(batch.properties.ids_PL, batch.properties.mask_PL)
        proteins = model.encode_packed("protein", *pack([(batch.protein_ids_BL, batch.protein_mask_BL)]))
        texts = model.encode_packed("text", *pack([(batch.text_ids_BL, batch.text_mask_BL)]))
        residues = model.protein_projection(clean_BLH)
    mask_BL = batch.protein_mask_BL
    for value, wanted in (
        (found.mlm_logits_BQV, mlm),
        (found.bsr_logits_BQV, bsr),
        (found.protein_BD, proteins),
        (found.text_BD, texts),
        (found.alignment.residue_BLD[mask_BL], residues[mask_BL]),
        (found.alignment.property_BKD.flatten(0, 1)[batch.properties.slot_P], queries),
    ):
        assert (value - wanted).abs().max() <= 1e-5


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("kind", ["protein", "text"])
def test_variable_length_attention_is_padded_attention(kind: Kind) -> None:
    ids_BL, mask_BL = (tensor.cuda() for tensor in random_ids(LENGTHS["mixed"]))
    encoder = tower(kind).cuda()
    exact_TH = padded_hidden(encoder, ids_BL, mask_BL)
    wanted = gradients_on_device(encoder, exact_TH)
    with torch.autocast("cuda", dtype=torch.bfloat16):
        found_TH = packed_hidden(kind, encoder, ids_BL, mask_BL)
    found = gradients_on_device(encoder, found_TH.float())
    _, packing = pack([(ids_BL, mask_BL)])
    pooled = [mean_pool(hidden_TH, packing.length_S) for hidden_TH in (exact_TH, found_TH)]
    assert torch.cosine_similarity(*pooled).min() >= 0.9999
    for name, gradient in wanted.items():
        assert torch.cosine_similarity(found[name].flatten(), gradient.flatten(), dim=0) > 0.99, name


def gradients_on_device(encoder: nn.Module, hidden_TH: Tensor) -> dict[str, Tensor]:
    hidden_TH.square().mean().backward()
    found = {name: parameter.grad for name, parameter in encoder.named_parameters() if parameter.grad is not None}
    encoder.zero_grad(set_to_none=True)
    return found
