"""What the objectives do, measured on a synthetic proteome whose answers are known. CPU; about half an hour on 2 cores.

    python benchmarks/objectives.py            six settings with three seeds, variants of PDA with one
    python benchmarks/objectives.py --quick    two settings, one seed, less training; within five minutes

For each setting a small dual encoder is trained from random weights, then measured on proteins that it has not seen:

    retrieval        recall@1 and @10 among 256 texts
    reconstruction   BSR's cross-entropy given the right text, and given another protein's
    explanation      AUROC of a number per residue against the residues of the planted motif, by property:
                     occlusion, and the weights W of PDA's segments (of the projected text itself where there is no PDA)
    step cost        processor time of a training step beside its counted FLOPs, at ESM-2 8M's shape

Writes ``results/objectives_*.json``, ``.md`` and a plot of each result.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from motif_proteome import MotifProteome, motif_proteome
from objectives_report import draw, tables
from report import Claim, write_results
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

from protclip.config import GC_ALONE, EncoderConfig, ModelConfig, ObjectivesConfig, OptimizerConfig
from protclip.data.collate import Batch, Masking, collate, identity, ragged
from protclip.data.tokenize import biotexts, tokenize_pairs
from protclip.dimensions import cut_to
from protclip.explanation import occlusion, segments
from protclip.metrics.objectives import validation_terms
from protclip.metrics.retrieval import retrieval_metrics
from protclip.model.build import build_architecture, build_model, build_protein_tokenizer, build_text_tokenizer
from protclip.model.dual_encoder import DualEncoder
from protclip.pretraining.learner import DualEncoderLearner, part_of
from protclip.protanno.biotext import property_texts
from protclip.protanno.shards import PROPERTIES
from protclip.train.optim import build_optimizer, build_schedule
from protclip.train.state import TrainState
from protclip.train.step import Wishes, train_step
from protclip.trained_model import ProtCLIP

ALL = ObjectivesConfig(num_prototypes=128)
PDA = replace(ALL, mlm=0.0, bsr=0.0)
LOCALISING = {"pda": 0.3, "pda_negatives": "proteins", "segment_window": 9}
"""A loss over 64 proteins is larger than one over four properties; with weight 1 it crowds the contrast out."""
SETTINGS: dict[str, ObjectivesConfig] = {
    "GC": GC_ALONE,
    "GC + MLM": replace(GC_ALONE, mlm=0.3),
    "GC + BSR": replace(GC_ALONE, bsr=0.7),
    "GC + PDA": PDA,
    "all": ALL,
    "all, PDA between proteins": replace(ALL, **LOCALISING),  # type: ignore[arg-type]
}
VARIANTS: dict[str, ObjectivesConfig] = {
    "GC + PDA, threshold 0.7": replace(PDA, threshold=0.7),
    "GC + PDA, window 9": replace(PDA, segment_window=9),
    "GC + PDA between proteins, window 1": replace(PDA, pda=0.3, pda_negatives="proteins"),
    "GC + PDA between proteins, window 9": replace(PDA, **LOCALISING),  # type: ignore[arg-type]
}
QUICK = ("all", "all, PDA between proteins")
CLAIMED, CLAIMED_SEGMENTS = QUICK

TRAIN_PROTEINS, HELDOUT_PROTEINS, EXPLAINED_PROTEINS = 4000, 256, 48
BATCH_SIZE = 64
FULL_STEPS, QUICK_STEPS = 300, 200
OPTIMIZER = OptimizerConfig(learning_rate=1e-3, warmup_fraction=0.05)
MODEL = ModelConfig(
    projection_dim=64,
    protein=EncoderConfig(
        max_tokens=128,
        config={"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128},
    ),
    text=EncoderConfig(
        max_tokens=64,
        config={
            "vocab_size": 1200,
            "hidden_size": 64,
            "num_hidden_layers": 1,
            "num_attention_heads": 4,
            "intermediate_size": 128,
            "max_position_embeddings": 64,
        },
    ),
)
NEIGHBOURS = ((-1, 1, -2, 2), (-4, 4))
"""Where the heads of each layer look at the start; the other heads look anywhere."""

COST_MODEL = ModelConfig(
    projection_dim=512,
    protein=EncoderConfig(
        max_tokens=1024,
        config={"hidden_size": 320, "num_hidden_layers": 6, "num_attention_heads": 20, "intermediate_size": 1280},
    ),
    text=EncoderConfig(
        max_tokens=64,
        config={
            "vocab_size": 1200,
            "hidden_size": 256,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "intermediate_size": 1024,
            "max_position_embeddings": 64,
        },
    ),
)
COST_SETTINGS = {
    "GC": GC_ALONE,
    "all": ObjectivesConfig(),
    "all, masked passes shared": ObjectivesConfig(masked_passes="shared"),
    "all, PDA between proteins": ObjectivesConfig(**LOCALISING),  # type: ignore[arg-type]
}
QUICK_COSTS = ("GC", "all")
COST_PAIRS = 4


def main() -> None:
    """Train, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one seed, two settings, within five minutes")
    quick = parser.parse_args().quick
    started = time.monotonic()
    costs = step_costs(QUICK_COSTS if quick else tuple(COST_SETTINGS), repeats=2 if quick else 5)
    names = QUICK if quick else (*SETTINGS, *VARIANTS)
    # One seed shows which variants are worth three.
    jobs = [(name, seed) for seed in range(1 if quick else 3) for name in names if seed == 0 or name in SETTINGS]
    results = run_all(jobs, num_steps=QUICK_STEPS if quick else FULL_STEPS)

    cost = costs["all"]["time_over_gc"] / costs["all"]["flops_over_gc"]
    claimed = results[CLAIMED]
    claims = [
        Claim(claim="explain_occlusion_auroc", value=_least(claimed, "occlusion"), target=0.85, unit="AUROC"),
        Claim(claim="explain_segments_auroc", value=_least(results[CLAIMED_SEGMENTS], "segments"), unit="AUROC"),
        Claim(claim="reconstruction_nats_wrong_minus_right", value=_least(claimed, "nats"), target=0.1, unit="nat"),
        Claim(claim="step_cost_over_flops", value=cost, target=1.1, unit="x"),
    ]
    figures = {"seconds": round(time.monotonic() - started), "results": results, "step_cost": costs}
    path = write_results(
        "objectives",
        claims,
        figures,
        tables(results, costs, num_texts=HELDOUT_PROTEINS, num_pairs=COST_PAIRS),
        quick=quick,
    )
    if not quick:
        draw(results, costs, path.with_suffix(""))


# Training and its measures


def run_all(jobs: Sequence[tuple[str, int]], *, num_steps: int) -> dict[str, list[dict[str, float]]]:
    """The measures of each setting, one entry a seed; one process of one thread for each core."""
    found: dict[tuple[str, int], dict[str, float]] = {}
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=os.cpu_count(), mp_context=context) as pool:
        futures = {pool.submit(run, name, seed, num_steps): (name, seed) for name, seed in jobs}
        for future in tqdm(as_completed(futures), total=len(jobs), unit="run", disable=None):
            found[futures[future]] = future.result()
    return {name: [found[job] for job in jobs if job[0] == name] for name, _ in jobs}


def run(name: str, seed: int, num_steps: int) -> dict[str, float]:
    """Train one setting and measure it."""
    torch.set_num_threads(1)
    started = time.monotonic()
    model = trained({**SETTINGS, **VARIANTS}[name], seed=seed, num_steps=num_steps)
    heldout = heldout_proteome(seed)
    heldout_rows = tokenize_pairs(heldout.pairs, model.protein_tokenizer, model.text_tokenizer, properties=True)
    measures = {
        **retrieval(model, heldout_rows),
        **reconstruction(model.model, heldout_rows, seed=seed),
        **explanation(model, heldout),
    }
    return {"seed": seed, **measures, "seconds": round(time.monotonic() - started)}


def trained(objectives: ObjectivesConfig, *, seed: int, num_steps: int) -> ProtCLIP:
    """A model of a seed, trained on this seed's proteome."""
    train = motif_proteome(TRAIN_PROTEINS, seed=seed)
    text_tokenizer = build_text_tokenizer(MODEL, biotexts(train.pairs))
    protein_tokenizer = build_protein_tokenizer(MODEL)
    network = build_model(MODEL, build_architecture(MODEL, text_tokenizer, objectives), seed=seed)
    look_at_neighbours(network.protein_encoder)
    model = ProtCLIP(network, protein_tokenizer, text_tokenizer)

    rows = tokenize_pairs(train.pairs, protein_tokenizer, text_tokenizer, properties=True)
    fit(network, rows, seed=seed, num_steps=num_steps)
    network.eval()
    return model


def heldout_proteome(seed: int) -> MotifProteome:
    """Proteins of a seed that no model is trained on."""
    return motif_proteome(HELDOUT_PROTEINS, seed=seed, first=TRAIN_PROTEINS)


@torch.no_grad()
def look_at_neighbours(encoder: Any) -> None:
    """Give heads of the first layers a place to look at, relative to their own: ``NEIGHBOURS``.

    It stands in for what a pretrained protein model knows; from random weights a transformer takes thousands of steps
    to find out that neighbours matter. Constant queries and keys, which rotary positions turn by their distance, have
    their highest product at the wanted one. Both go on to be trained.
    """
    frequency_F = encoder.rotary_embeddings.inv_freq
    strength = 5.0
    for layer, offsets in zip(encoder.encoder.layer, NEIGHBOURS, strict=True):
        attention = layer.attention.self
        for head, offset in enumerate(offsets):
            angle_F = -offset * frequency_F
            part = slice(head * 2 * len(frequency_F), (head + 1) * 2 * len(frequency_F))
            attention.query.bias[part] = strength * torch.cat([torch.ones_like(angle_F), torch.zeros_like(angle_F)])
            attention.key.bias[part] = strength * torch.cat([angle_F.cos(), angle_F.sin()])


def fit(network: DualEncoder, rows: pa.Table, *, seed: int, num_steps: int, backwards: bool = False) -> list[float]:
    """Train on shuffled batches; returns the loss of each step.

    ``backwards`` turns the rows of each batch round: the same sums, rounded otherwise.
    """
    optimizer = build_optimizer(network, OPTIMIZER)
    schedule = build_schedule(OPTIMIZER, epoch_ends=[num_steps])
    state = TrainState(model=network, optimizer=optimizer, schedule=schedule)
    network.train()
    per_epoch = len(rows) // BATCH_SIZE
    losses = []
    for step in range(num_steps):
        epoch, batch = divmod(step, per_epoch)
        order = np.random.default_rng([seed, epoch]).permutation(len(rows))
        places = order[batch * BATCH_SIZE : (batch + 1) * BATCH_SIZE]
        chosen = rows.take(pa.array(places[::-1] if backwards else places))
        losses.append(one_step(state, _collate(chosen, network, seed=seed, epoch=epoch)))
    return losses


def one_step(state: TrainState, batch: Batch) -> float:
    """Forward, backward and update, in one process and without a bound on the gradient; returns the loss."""
    model = state.model
    assert isinstance(model, DualEncoder)
    learner = DualEncoderLearner(model, model, None)
    part = part_of([batch], [], model)
    report = train_step(state, learner, part, group=None, max_grad_norm=math.inf, wishes=Wishes())
    return learner.loss(report.terms)


def retrieval(model: ProtCLIP, rows: pa.Table, *, dimensions: int | None = None) -> dict[str, float]:
    """Text to protein among all held-out pairs, by embeddings cut to so many dimensions; None for whole ones."""
    protein_ND, text_ND = (
        torch.from_numpy(cut_to(vectors_ND, dimensions))
        for vectors_ND in (
            model.forward_proteins(ragged(rows.column("protein_ids"))),
            model.forward_texts(ragged(rows.column("text_ids"))),
        )
    )
    metrics = retrieval_metrics(protein_ND, text_ND, identity(rows)[:, 1])["text_to_protein"]
    return {name: metrics[name] for name in ("recall@1", "recall@10", "mrr")}


def reconstruction(network: DualEncoder, rows: pa.Table, *, seed: int) -> dict[str, float]:
    """BSR's cross-entropy with each protein's own text and with the next one's, in nats per masked residue."""
    if network.architecture.objectives.bsr == 0:
        return {}

    def batches(shift: int) -> Iterator[Batch]:
        for start in range(0, len(rows), BATCH_SIZE):
            batch = _collate(rows.slice(start, BATCH_SIZE), network, seed=seed, epoch=-1)
            texts = {name: getattr(batch, name).roll(shift, 0) for name in ("text_ids_BL", "text_mask_BL")}
            yield replace(batch, **texts)

    right, wrong = (validation_terms(network, batches(shift), group=None)["bsr"] for shift in (0, 1))
    return {"right_text": right, "wrong_text": wrong, "nats": wrong - right}


def explanation(model: ProtCLIP, heldout: MotifProteome) -> dict[str, float]:
    """Mean AUROC of both methods over the properties of the first held-out proteins."""
    scores: dict[str, list[float]] = {"occlusion": [], "segments": []}
    for row, span_K2 in zip(heldout.pairs.slice(0, EXPLAINED_PROTEINS).to_pylist(), heldout.spans_NK2, strict=False):
        texts = property_texts(*(row[name] for name in PROPERTIES))
        present = [k for k, text in enumerate(texts) if text is not None]
        wanted = [texts[k] or "" for k in present]
        for name, method in (("occlusion", occlusion), ("segments", segments)):
            for score_R, k in zip(method(model, row["sequence"], wanted), present, strict=True):
                planted_R = np.zeros(len(score_R), dtype=bool)
                planted_R[slice(*span_K2[k])] = True
                scores[name].append(auroc(score_R, planted_R))
    return {name: float(np.mean(values)) for name, values in scores.items()}


def auroc(score_R: np.ndarray, right_R: np.ndarray) -> float:
    """The chance that a right residue scores above a wrong one; ties count half (Mann and Whitney 1947)."""
    difference = score_R[right_R][:, None] - score_R[~right_R][None]
    return float((difference > 0).mean() + 0.5 * (difference == 0).mean())


def _collate(rows: pa.Table, network: DualEncoder, *, seed: int, epoch: int) -> Batch:
    protein = build_protein_tokenizer(MODEL)
    objectives = network.architecture.objectives
    masking = Masking(objectives=objectives, seed=seed, epoch=epoch, mask_id=protein.mask_id)
    return collate(rows, protein_pad_id=protein.pad_id, text_pad_id=0, masking=masking)


# The cost of a step


def step_costs(names: Sequence[str], *, repeats: int) -> dict[str, dict[str, float]]:
    """Fastest and median processor time of a step of each setting in one thread, interleaved, and its FLOPs."""
    torch.set_num_threads(1)
    steps = {name: _cost_step(COST_SETTINGS[name]) for name in names}
    flops = {}
    for name, (state, batch) in steps.items():
        # The counter knows matrix products alone; the plain backend writes attention as such.
        with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
            one_step(state, batch)
        flops[name] = counter.get_total_flops()
        one_step(state, batch)  # warm-up
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in tqdm(range(repeats), desc="step cost", unit="repeat", disable=None):
        for name, (state, batch) in steps.items():
            before = time.process_time()
            one_step(state, batch)
            seconds[name].append(time.process_time() - before)
    return {
        name: {
            "gflop": flops[name] / 1e9,
            "fastest_s": min(seconds[name]),
            "median_s": float(np.median(seconds[name])),
            "flops_over_gc": flops[name] / flops["GC"],
            "time_over_gc": float(np.median(seconds[name]) / np.median(seconds["GC"])),
        }
        for name in steps
    }


def _cost_step(objectives: ObjectivesConfig) -> tuple[TrainState, Batch]:
    pairs = _uniprot_like_pairs(COST_PAIRS)
    text_tokenizer = build_text_tokenizer(COST_MODEL, biotexts(motif_proteome(500, seed=0).pairs))
    architecture = build_architecture(COST_MODEL, text_tokenizer, objectives)
    network = DualEncoder(architecture, freeze_text=True).train()
    rows = tokenize_pairs(pairs, build_protein_tokenizer(COST_MODEL), text_tokenizer, properties=True)
    optimizer = build_optimizer(network, OPTIMIZER)
    schedule = build_schedule(OPTIMIZER, epoch_ends=[1000])
    state = TrainState(model=network, optimizer=optimizer, schedule=schedule)
    return state, _collate(rows, network, seed=0, epoch=0)


def _uniprot_like_pairs(count: int) -> pa.Table:
    """Pairs with proteins of lengths spread as UniProt's are, 341 residues on average."""
    pairs = motif_proteome(64 * count, seed=0).pairs
    residues = "".join(pairs.column("sequence").to_pylist())
    # Quantiles of a log-normal distribution, so that few proteins stand for many.
    standard = torch.special.ndtri((torch.arange(count, dtype=torch.float64) + 0.5) / count)
    lengths = (240 * (0.84 * standard).exp()).clamp(30, 1022).long().tolist()
    ends = np.cumsum(lengths)
    sequences = [residues[end - length : end] for end, length in zip(ends, lengths, strict=True)]
    column = pairs.schema.get_field_index("sequence")
    return pairs.slice(0, count).set_column(column, "sequence", pa.array(sequences))


def _least(seeds: Sequence[Mapping[str, float]], key: str) -> float:
    return min(entry[key] for entry in seeds)


if __name__ == "__main__":
    main()
