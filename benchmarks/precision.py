"""What bfloat16 costs in training: the losses and the retrieval of float32, on a synthetic proteome. CPU.

    python benchmarks/precision.py            three seeds, 200 steps in each dtype; some minutes on 2 cores
    python benchmarks/precision.py --quick    one seed, 40 steps; about a minute

The same weights on the same batches in float32 and in bfloat16, all objectives, as ``objectives.py`` trains them. The
losses are compared as means of ten steps, which are what one looks at; those of single steps drift apart as two runs in
float32 do whose sums are added in another order. Retrieval is of proteins that no step has seen, computed in the dtype
of the training. A processor without instructions for bfloat16 computes the same, more slowly.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np
import torch
from motif_proteome import motif_proteome
from objectives import ALL, HELDOUT_PROTEINS, MODEL, TRAIN_PROTEINS, fit, look_at_neighbours, retrieval
from report import Claim, write_results

from protclip.data.tokenize import biotexts, tokenize_pairs
from protclip.inputs import DTYPES, Dtype
from protclip.model.build import build_architecture, build_model, build_protein_tokenizer, build_text_tokenizer
from protclip.trained_model import ProtCLIP

SEEDS, STEPS, QUICK_STEPS = 3, 200, 40
WINDOW = 10
"""Steps whose losses are averaged."""
BAND = 0.02
"""How far the means may be from those of float32, relatively."""
MEASURES = ("recall@1", "recall@10", "mrr")


def main() -> None:
    """Train, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one seed, few steps; about a minute")
    quick = parser.parse_args().quick
    steps = QUICK_STEPS if quick else STEPS
    jobs = [(seed, dtype) for seed in range(1 if quick else SEEDS) for dtype in DTYPES]
    with ProcessPoolExecutor(os.cpu_count(), mp_context=multiprocessing.get_context("spawn")) as pool:
        runs = dict(zip(jobs, pool.map(run, *zip(*jobs, strict=True), [steps] * len(jobs)), strict=True))

    apart = {seed: band(runs[seed, "float32"]["losses"], runs[seed, "bfloat16"]["losses"]) for seed, _ in jobs}
    claims = [
        Claim(claim="bf16_losses_from_fp32", value=max(apart.values()), target=BAND, unit="relative, at most"),
        *(spread_claim(name, runs) for name in MEASURES),
    ]
    lines = [
        f"{TRAIN_PROTEINS} proteins, {steps} steps of all objectives; losses are means of {WINDOW} steps, retrieval is "
        f"text to protein among {HELDOUT_PROTEINS} held-out pairs.",
        "",
        "| seed | dtype | first loss | last loss | farthest from float32 | " + " | ".join(MEASURES) + " |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for (seed, dtype), found in runs.items():
        losses = windows(found["losses"])
        farthest = "–" if dtype == "float32" else f"{apart[seed]:.2%}"
        measures = " | ".join(f"{found[name]:.3f}" for name in MEASURES)
        lines.append(f"| {seed} | {dtype} | {losses[0]:.3f} | {losses[-1]:.3f} | {farthest} | {measures} |")
    figures: dict[str, Any] = {"runs": [{"seed": seed, "dtype": dtype, **run} for (seed, dtype), run in runs.items()]}
    write_results("precision", claims, figures, "\n".join(lines), quick=quick)


def run(seed: int, dtype: Dtype, steps: int) -> dict[str, Any]:
    """Train in one dtype: the loss of each step, and retrieval afterwards."""
    torch.set_num_threads(1)
    train = motif_proteome(TRAIN_PROTEINS, seed=seed)
    heldout = motif_proteome(HELDOUT_PROTEINS, seed=seed, first=TRAIN_PROTEINS)
    texts, proteins = build_text_tokenizer(MODEL, biotexts(train.pairs)), build_protein_tokenizer(MODEL)
    network = build_model(MODEL, build_architecture(MODEL, texts, ALL), seed=seed, precision=dtype)
    look_at_neighbours(network.protein_encoder)
    rows, heldout_rows = (
        tokenize_pairs(pairs, proteins, texts, properties=True) for pairs in (train.pairs, heldout.pairs)
    )
    losses = fit(network, rows, seed=seed, num_steps=steps)
    network.eval()
    return {"losses": losses, **retrieval(ProtCLIP(network, proteins, texts, dtype=dtype), heldout_rows)}


def windows(losses: list[float]) -> np.ndarray:
    """Means of WINDOW steps, one after the other."""
    means: np.ndarray = np.reshape(losses, (-1, WINDOW)).mean(1)
    return means


def band(exact: list[float], found: list[float]) -> float:
    """The largest relative distance of a mean."""
    wanted = windows(exact)
    return float((np.abs(windows(found) - wanted) / wanted).max())


def spread_claim(name: str, runs: dict[tuple[int, Dtype], dict[str, Any]]) -> Claim:
    """How far the mean of bfloat16's seeds is from that of float32's, and float32's standard deviation."""
    exact, found = ([run[name] for (_, dtype), run in runs.items() if dtype == wanted] for wanted in DTYPES)
    distance = abs(float(np.mean(found)) - float(np.mean(exact)))
    spread = float(np.std(exact, ddof=1)) if len(exact) > 1 else None
    return Claim(claim=f"bf16_{name}_from_fp32", value=distance, target=spread, unit="at most float32's spread")


if __name__ == "__main__":
    main()
