"""How fast a training step of all objectives is on a CPU, against the plain recipe. One thread; some minutes.

    python benchmarks/train_step.py            shapes of ESM-2 8M and 35M, and PubMedBERT's shape as text tower once
    python benchmarks/train_step.py --quick    8M alone, one step; about a minute

All train the same weights on the same batch: forward, losses, backward and AdamW, in turns. Their losses and gradients
are compared first.

    ours     the package: no padding, masked copies in one call, biotexts and properties in one call, heads where they
             are needed; in float32, and in bfloat16 where the processor has instructions for it, as a run does
    plain    what one would write first: HuggingFace's modules as they come in float32, the batch padded to its longest,
             a protein pass for each of the clean, MLM and BSR copies, a text pass for the biotexts and for each of the
             four properties, heads over all positions

The processor time of a step, and its share of the matrix product's measured rate in the same numbers. FLOPs are those
of ours: plain spends more, and they count as nothing. Beside it, what the frozen text tower takes of our step in
float32, and what reading its outputs from a cache in memory would take.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from report import Claim, write_results
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import cosine_similarity, cross_entropy, normalize
from torch.utils.flop_counter import FlopCounterMode

from protclip.config import ObjectivesConfig, OptimizerConfig
from protclip.data.collate import NO_TARGET, Batch, MaskedResidues, Masking, collate, pad
from protclip.data.tokenize import ESM2_VOCABULARY, PROPERTY_SCHEMA
from protclip.inputs import DTYPES
from protclip.losses.segment_alignment import segment_alignment
from protclip.losses.total import mean_counts, objective_terms, total_loss
from protclip.model.build import ESM2_FIELDS, NO_DROPOUT
from protclip.model.dual_encoder import Alignment, Architecture, DualEncoder, scale
from protclip.model.encoders import encoder_config
from protclip.model.inference import has_fast_bfloat16
from protclip.model.packed import bert_hidden, pack
from protclip.model.pooling import mean_pool, residue_positions
from protclip.model.precision import decided
from protclip.train.optim import build_optimizer

OBJECTIVES = ObjectivesConfig()
NUM_PAIRS, REPEATS = 8, 3
MEDIAN_RESIDUES, SPREAD = 240, 0.84
"""Of the log-normal distribution that UniProt's lengths are near to: 341 on average."""
MAX_RESIDUES = 1022
PROPERTY_TOKENS = (16, 70, 20, 18)
"""Median lengths of the four properties' texts; each is spread as the proteins are."""
ABSENT_SHARE = 0.3
"""Of each property but the name."""
MASK_ID = ESM2_VOCABULARY.index("<mask>")

PROTEIN_SHAPES: dict[str, dict[str, int]] = {
    "8m": {"hidden_size": 320, "num_hidden_layers": 6, "num_attention_heads": 20, "intermediate_size": 1280},
    "35m": {"hidden_size": 480, "num_hidden_layers": 12, "num_attention_heads": 20, "intermediate_size": 1920},
}
TEXT_SHAPES: dict[str, dict[str, int]] = {
    "BERT 4 × 256": {
        "hidden_size": 256,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "intermediate_size": 1024,
        "vocab_size": 8000,
    },
    "PubMedBERT 12 × 768": {
        "hidden_size": 768,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "intermediate_size": 3072,
        "vocab_size": 30522,
    },
}
SMALL_TEXT, LARGE_TEXT = TEXT_SHAPES


def main() -> None:
    """Measure each shape, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the shape of ESM-2 8M alone, about a minute")
    quick = parser.parse_args().quick
    torch.set_num_threads(1)
    cases = [("8m", SMALL_TEXT)] if quick else [("8m", SMALL_TEXT), ("35m", SMALL_TEXT), ("8m", LARGE_TEXT)]
    results = {
        # The large text tower is there for the reader, the claims are of the small one.
        f"{protein}, {text}": compare(protein, text, repeats=1 if quick or text == LARGE_TEXT else REPEATS)
        for protein, text in cases
    }
    claims = [
        claim
        for protein in ("8m", "35m")
        if (case := f"{protein}, {SMALL_TEXT}") in results
        for claim in claims_of(f"train_step_{protein}", results[case])
    ]
    lengths = protein_lengths()
    lines = [
        f"{NUM_PAIRS} pairs, proteins of {min(lengths)} to {max(lengths)} residues (mean {np.mean(lengths):.0f}), all "
        f"objectives, text tower frozen, one thread; processor time, median of up to {REPEATS} steps in turns. Load "
        f"average when it was over: {os.getloadavg()[0]:.1f}.",
        "",
        "| towers | plain, s | ours in | s | plain / ours | pairs/s | GFLOP | GFLOP/s | of the peak "
        "| gradient's cosine to plain's |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, r in results.items():
        for dtype, ours in r["ours"].items():
            numbers = [r["plain_s"] / ours["s"], NUM_PAIRS / ours["s"], r["gflop"], r["gflop"] / ours["s"]]
            cells = " | ".join(f"{number:.3g}" for number in [*numbers, ours["of_peak"]])
            cells += f" | {ours['gradient_cosine']:.5f}"
            lines.append(f"| {name} | {r['plain_s']:.3g} | {dtype} | {ours['s']:.3g} | {cells} |")
    lines += [
        "",
        "The frozen text tower: its outputs computed in each step, or read from memory in half precision (the tokens "
        "of biotexts, which BSR reads, and the means of properties).",
        "",
        "| towers | computed, s | share of our step | read, s | step / step that reads | KB of a pair |",
        "|---|---|---|---|---|---|",
    ]
    for name, r in results.items():
        text = r["text"]
        saved = text["computed_s"] - text["read_s"]
        step_s = r["ours"]["float32"]["s"]
        numbers = [text["computed_s"], text["computed_s"] / step_s, text["read_s"]]
        numbers += [step_s / (step_s - saved), text["kb_per_pair"]]
        lines.append(f"| {name} | {' | '.join(f'{number:.3g}' for number in numbers)} |")
    write_results("train_step", claims, {"results": results}, "\n".join(lines), quick=quick)


def claims_of(name: str, result: dict[str, Any]) -> list[Claim]:
    """As a run computes on this processor, and in float32."""
    default = decided("auto", use_gpu=False)
    ratio = {dtype: result["plain_s"] / ours["s"] for dtype, ours in result["ours"].items()}
    targets = {"train_step_8m": 5.0, "train_step_35m": 5.5}
    claims = [Claim(claim=f"{name}_float32_vs_plain", value=ratio["float32"], target=4.0, unit="x")]
    if default == "bfloat16":
        claims.append(Claim(claim=f"{name}_vs_plain", value=ratio[default], target=targets[name], unit="x"))
    of_peak = result["ours"][default]["of_peak"]
    return [*claims, Claim(claim=f"{name}_of_peak", value=of_peak, target=0.4, unit=f"of {default} matmul")]


def compare(protein: str, text: str, *, repeats: int) -> dict[str, Any]:
    """Seconds of a step of each, and what of the machine's rate ours reaches."""
    fields = {**PROTEIN_SHAPES[protein], **ESM2_FIELDS}
    architecture = Architecture(
        protein=encoder_config("protein", fields),
        text=encoder_config("text", {**TEXT_SHAPES[text], **NO_DROPOUT}),
        projection_dim=512,
        max_protein_tokens=MAX_RESIDUES + 2,
        max_text_tokens=512,
        objectives=OBJECTIVES,
    )
    torch.manual_seed(0)
    rows = tokenised_pairs(architecture.text.vocab_size)
    masking = Masking(objectives=OBJECTIVES, seed=0, epoch=0, mask_id=MASK_ID)
    batch = collate(rows, protein_pad_id=1, text_pad_id=0, masking=masking)
    property_batches = plain_properties(rows)
    # In bfloat16 without the instructions a step takes many times as long, and no run makes one.
    dtypes = DTYPES if has_fast_bfloat16() else DTYPES[:1]
    plain = DualEncoder(architecture, freeze_text=True)
    ours = {dtype: DualEncoder(architecture, freeze_text=True, precision=dtype) for dtype in dtypes}
    for model in (plain, *ours.values()):
        model.load_state_dict(plain.state_dict())
        model.eval()  # no noise, so that the losses compare; there is no dropout to leave out
    passes: dict[str, Callable[[], float]] = {"plain": lambda: plain_pass(plain, batch, property_batches)}
    passes |= {dtype: partial(our_pass, model, batch) for dtype, model in ours.items()}
    optimizers: dict[str, torch.optim.Optimizer] = {
        "plain": torch.optim.AdamW([p for p in plain.parameters() if p.requires_grad], lr=1e-5, weight_decay=0.0),
        **{dtype: build_optimizer(model, OptimizerConfig()) for dtype, model in ours.items()},
    }
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        passes["float32"]()
    # The warm-up, and a check that all compute the same.
    for optimizer in optimizers.values():
        optimizer.zero_grad(set_to_none=True)
    first = {name: run() for name, run in passes.items()}
    cosines = {
        dtype: float(cosine_similarity(gradient(plain), gradient(model), dim=0)) for dtype, model in ours.items()
    }
    for dtype in dtypes:
        assert abs(first["plain"] - first[dtype]) < (1e-4 if dtype == "float32" else 1e-3) * first["plain"], first
        assert 1 - cosines[dtype] < (1e-5 if dtype == "float32" else 1e-2), cosines
    peak = {dtype: matmul_rate(getattr(torch, dtype)) for dtype in dtypes}
    seconds: dict[str, list[float]] = {name: [] for name in passes}
    for _ in range(repeats):
        for name, run in passes.items():
            before = time.process_time()
            optimizers[name].zero_grad(set_to_none=True)
            run()
            optimizers[name].step()
            seconds[name].append(time.process_time() - before)
        peak = {dtype: max(rate, matmul_rate(getattr(torch, dtype))) for dtype, rate in peak.items()}
    medians = {name: float(np.median(values)) for name, values in seconds.items()}
    gflop = counter.get_total_flops() / 1e9
    return {
        "plain_s": medians["plain"],
        "ours": {
            dtype: {
                "s": medians[dtype],
                "loss": first[dtype],
                "gradient_cosine": cosines[dtype],
                "peak_gflops": peak[dtype],
                "of_peak": gflop / medians[dtype] / peak[dtype],
            }
            for dtype in dtypes
        },
        "gflop": gflop,
        "steps_s": seconds,
        "text": text_times(ours["float32"], batch),
    }


def gradient(model: DualEncoder) -> Tensor:
    """Of all parameters in one row."""
    return torch.cat(
        [parameter.grad.double().flatten() for parameter in model.parameters() if parameter.grad is not None]
    )


def text_times(model: DualEncoder, batch: Batch) -> dict[str, float]:
    """Seconds for the outputs of the frozen text tower, computed and read from memory, and what a pair takes there."""
    assert batch.properties is not None
    texts = [(batch.text_ids_BL, batch.text_mask_BL), (batch.properties.ids_PL, batch.properties.mask_PL)]

    def compute() -> tuple[Tensor, Tensor, list[int]]:
        with torch.no_grad():
            ids_T, packing = pack(texts)
            hidden_TH = bert_hidden(model.text_encoder, ids_T, packing)
            lengths = list(packing.first(NUM_PAIRS).lengths)
            return hidden_TH[: sum(lengths)], mean_pool(hidden_TH, packing.length_S)[NUM_PAIRS:], lengths

    token_TH, mean_PH, lengths = compute()
    stored = [part.clone() for part in (*torch.split(token_TH.half(), lengths), *mean_PH.half())]

    def read() -> list[Tensor]:
        return [torch.cat(stored[:NUM_PAIRS]).float(), torch.stack(stored[NUM_PAIRS:]).float()]

    return {
        "computed_s": median_seconds(compute),
        "read_s": median_seconds(read),
        "kb_per_pair": sum(part.numel() * 2 for part in stored) / NUM_PAIRS / 1e3,
    }


def median_seconds(run: Callable[[], Any]) -> float:
    """Processor time of a few calls, the median."""
    times = []
    for _ in range(REPEATS):
        before = time.process_time()
        run()
        times.append(time.process_time() - before)
    return float(np.median(times))


def matmul_rate(dtype: torch.dtype = torch.float32, size: int = 2048) -> float:
    """GFLOP/s of a square matrix product on one thread."""
    a, b = (torch.randn(size, size).to(dtype) for _ in range(2))
    times = []
    for _ in range(4):
        before = time.process_time()
        a @ b
        times.append(time.process_time() - before)
    return 2 * size**3 / min(times) / 1e9


# The batch


def protein_lengths() -> list[int]:
    """Residues of each protein: quantiles of the distribution, so that few stand for many."""
    standard_B = torch.special.ndtri((torch.arange(NUM_PAIRS, dtype=torch.float64) + 0.5) / NUM_PAIRS)
    lengths: list[int] = (MEDIAN_RESIDUES * (SPREAD * standard_B).exp()).clamp(30, MAX_RESIDUES).long().tolist()
    return lengths


def tokenised_pairs(vocabulary_size: int) -> pa.Table:
    """Random rows of PROPERTY_SCHEMA with such lengths."""
    rng = np.random.default_rng(0)
    residues = [ESM2_VOCABULARY.index(letter) for letter in "ACDEFGHIKLMNPQRSTVWY"]
    rows = []
    for number, length in enumerate(protein_lengths()):
        medians = [median if k == 0 or rng.random() > ABSENT_SHARE else 0 for k, median in enumerate(PROPERTY_TOKENS)]
        sizes = [int(np.clip(median * rng.lognormal(0, 0.6), 3, 300)) if median else 0 for median in medians]
        properties = [rng.integers(5, vocabulary_size, size).tolist() for size in sizes]
        rows.append(
            {
                "accession_hash": number,
                "sequence_hash": number,
                "text_hash": number,
                "protein_ids": [0, *rng.choice(residues, length).tolist(), 2],
                "text_ids": [token for ids in properties for token in ids][:512],
                "property_ids": properties,
            }
        )
    return pa.Table.from_pylist(rows, schema=PROPERTY_SCHEMA)


def plain_properties(rows: pa.Table) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Ids, mask and presence of each property of all pairs; an absent one is its two special tokens."""
    columns = zip(*rows.column("property_ids").to_pylist(), strict=True)
    return [
        (*pad([ids or [2, 3] for ids in column], 0), torch.tensor([bool(ids) for ids in column])) for column in columns
    ]


# The two steps


def our_pass(model: DualEncoder, batch: Batch) -> float:
    """The package's loss and gradients."""
    loss = total_loss(objective_terms([model(batch)], [batch], OBJECTIVES, group=None), OBJECTIVES)
    loss.backward()  # type: ignore[no-untyped-call]
    return loss.item()


def plain_pass(model: DualEncoder, batch: Batch, properties: list[tuple[Tensor, Tensor, Tensor]]) -> float:
    """The same, one objective after the other, each over everything that is padded.

    Each has a backward of its own, so that the activations of one protein pass at a time are in memory.
    """
    assert batch.masked_ids_XL is not None
    mlm_ids_BL, bsr_ids_BL = batch.masked_ids_XL.chunk(2)
    mask_BL, heads = batch.protein_mask_BL, model.heads

    def encode(encoder: nn.Module, ids_BL: Tensor, mask_BL: Tensor) -> Tensor:
        hidden_BLH: Tensor = encoder(input_ids=ids_BL, attention_mask=mask_BL).last_hidden_state
        return hidden_BLH

    text_BTH = encode(model.text_encoder, batch.text_ids_BL, batch.text_mask_BL)
    property_BKH = torch.stack([mean(encode(model.text_encoder, ids, mask), mask) for ids, mask, _ in properties], 1)
    present_BK = torch.stack([present for *_, present in properties], 1)

    clean_BLH = encode(model.protein_encoder, batch.protein_ids_BL, mask_BL)
    protein_BD = normalize(model.protein_projection(mean(clean_BLH, mask_BL)), dim=-1)
    text_BD = normalize(model.text_projection(mean(text_BTH, batch.text_mask_BL)), dim=-1)
    logits_BB = scale(model.logit_scale) * protein_BD @ text_BD.T
    diagonal_B = torch.arange(len(logits_BB))
    gc = 0.5 * (cross_entropy(logits_BB, diagonal_B) + cross_entropy(logits_BB.T, diagonal_B))
    property_BKD = model.text_projection(property_BKH)
    query_BKD = heads.property_queries(property_BKD.flatten(0, 1), None).view_as(property_BKD)
    alignment = Alignment(
        residue_BLD=model.protein_projection(clean_BLH),
        residue_mask_BL=residue_positions(mask_BL),
        property_BKD=query_BKD * present_BK[..., None],
        present_BK=present_BK,
        text_hash_BK=present_BK.long(),
        logit_scale=heads.segment_logit_scale,
    )
    num_aligned = mean_counts([batch], group=None).pda
    pda = segment_alignment(alignment, threshold=OBJECTIVES.threshold, window=1, mean_count=num_aligned)
    torch.autograd.backward(gc + OBJECTIVES.pda * pda)
    del clean_BLH, alignment

    mlm_logits_BLV = heads.mlm_head(encode(model.protein_encoder, mlm_ids_BL, mask_BL))
    mlm = cross_entropy(mlm_logits_BLV.flatten(0, 1), labels(batch.mlm, mask_BL).flatten())
    (OBJECTIVES.mlm * mlm).backward()  # type: ignore[no-untyped-call]
    del mlm_logits_BLV

    fused_BLD = heads.segment_attention(
        model.protein_projection(encode(model.protein_encoder, bsr_ids_BL, mask_BL)),
        model.text_projection(text_BTH),
        batch.text_mask_BL,
    )
    bsr = cross_entropy(heads.segment_head(fused_BLD).flatten(0, 1), labels(batch.bsr, mask_BL).flatten())
    (OBJECTIVES.bsr * bsr).backward()  # type: ignore[no-untyped-call]
    return total_loss({"gc": gc.item(), "bsr": bsr.item(), "pda": pda.item(), "mlm": mlm.item()}, OBJECTIVES)


def mean(hidden_BLH: Tensor, mask_BL: Tensor) -> Tensor:
    """Over the tokens that are no padding."""
    return (hidden_BLH * mask_BL[..., None]).sum(1) / mask_BL.sum(1, keepdim=True)


def labels(residues: MaskedResidues | None, mask_BL: Tensor) -> Tensor:
    """Targets of all positions, NO_TARGET where nothing is masked."""
    assert residues is not None
    labels_BL = torch.full(mask_BL.shape, NO_TARGET)
    for row_L, place_Q, target_Q in zip(labels_BL, residues.place_BQ, residues.target_BQ, strict=True):
        real_Q = target_Q != NO_TARGET
        row_L[place_Q[real_Q]] = target_Q[real_Q]
    return labels_BL


if __name__ == "__main__":
    main()
