"""What embeddings cut to fewer dimensions still find, with and without training for it. CPU.

    python benchmarks/matryoshka.py            three seeds; some ten minutes on 2 cores
    python benchmarks/matryoshka.py --quick    one seed, less training; within two minutes
    python benchmarks/matryoshka.py --pairs FOLDER PLAIN SHORT    two checkpoints of protclip pretrain, the second with
                                               gc_prefixes, and the validation and test pairs of the folder

Three small dual encoders a seed, of the same first weights and the same batches, are trained on the synthetic proteome
of ``objectives.py`` by the contrast alone: of whole embeddings (plain), and over ``objectives.gc_prefixes`` from 16 or
from 4 dimensions on. Retrieval is text to protein among 256 held-out pairs, by the first numbers of the embeddings, of
unit length anew.

Writes ``results/matryoshka_*.json`` and ``.md``.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from objectives import FULL_STEPS, HELDOUT_PROTEINS, MODEL, heldout_proteome, retrieval, trained
from report import Claim, write_results

from protclip.config import GC_ALONE
from protclip.data.tokenize import tokenize_pairs
from protclip.protanno.shards import read_pairs, read_row_group
from protclip.trained_model import ProtCLIP

WIDTHS = (4, 8, 16, 32, MODEL.projection_dim)
SETTINGS = {
    "plain": GC_ALONE,
    "from 16": replace(GC_ALONE, gc_prefixes=WIDTHS[2:]),
    "from 4": replace(GC_ALONE, gc_prefixes=WIDTHS),
}
MEASURES = ("recall@1", "recall@10")
SEEDS = 3
STEPS, QUICK_STEPS = 2 * FULL_STEPS, 100
CLAIMED, CLAIMED_WIDTH = "from 16", 16
"""A quarter of the dimensions."""


def main() -> None:
    """Train, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one seed, less training; within two minutes")
    parser.add_argument(
        "--pairs", nargs=3, metavar=("FOLDER", "PLAIN", "SHORT"), help="measure what was trained on them"
    )
    args = parser.parse_args()
    if args.pairs:
        of_pairs(*args.pairs)
        return
    quick = args.quick
    jobs = [(name, seed, QUICK_STEPS if quick else STEPS) for seed in range(1 if quick else SEEDS) for name in SETTINGS]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(os.cpu_count(), mp_context=context) as pool:
        runs = list(pool.map(run, *zip(*jobs, strict=True)))
    results = {name: [found for (of, _, _), found in zip(jobs, runs, strict=True) if of == name] for name in SETTINGS}
    cut, whole = (
        {name: mean(found, width, "recall@1") for name, found in results.items()}
        for width in (CLAIMED_WIDTH, WIDTHS[-1])
    )
    claims = [
        Claim(claim="recall_at_1_of_16_of_64_dimensions_trained", value=cut[CLAIMED], unit="recall"),
        Claim(claim="recall_at_1_of_16_of_64_dimensions_plain", value=cut["plain"], unit="recall"),
        Claim(claim="recall_at_1_whole_trained_minus_plain", value=whole[CLAIMED] - whole["plain"], unit="recall"),
    ]
    figures = {"steps": jobs[0][2], "widths": WIDTHS, "results": results}
    write_results("matryoshka", claims, figures, table(results), quick=quick)


def run(name: str, seed: int, num_steps: int) -> dict[str, Any]:
    """Train one setting and measure it at each width."""
    torch.set_num_threads(1)
    started = time.monotonic()
    model = trained(SETTINGS[name], seed=seed, num_steps=num_steps)
    seconds = time.monotonic() - started
    heldout = heldout_proteome(seed).pairs
    rows = tokenize_pairs(heldout, model.protein_tokenizer, model.text_tokenizer, properties=True)
    found = {str(width): retrieval(model, rows, dimensions=width) for width in WIDTHS}
    return {"seed": seed, "seconds": round(seconds), "dimensions": found}


def of_pairs(folder: str, plain: str, short: str) -> None:
    """Measure two checkpoints on held-out pairs."""
    pairs = read_pairs(folder)
    heldout = pa.concat_tables([read_row_group(one) for split in ("valid", "test") for one in pairs.row_groups(split)])
    models = {"plain": ProtCLIP.from_pretrained(plain), "with gc_prefixes": ProtCLIP.from_pretrained(short)}
    widths = models["with gc_prefixes"].model.architecture.objectives.gc_prefixes
    found = {}
    for name, model in models.items():
        rows = tokenize_pairs(heldout, model.protein_tokenizer, model.text_tokenizer)
        found[name] = {width: retrieval(model, rows, dimensions=width) for width in widths}
    columns = [(name, measure) for measure in MEASURES for name in models]
    lines = [
        f"Text to protein among {len(heldout)} held-out pairs of real proteins, once.",
        "",
        f"| dimensions | {' | '.join(f'{measure}, {name}' for name, measure in columns)} |",
        "|---" * (1 + len(columns)) + "|",
        *(
            f"| {width} | {' | '.join(f'{found[name][width][measure]:.3f}' for name, measure in columns)} |"
            for width in widths
        ),
    ]
    claims = [
        Claim(claim=f"recall_at_10_of_{widths[0]}_dimensions_{name}", value=of[widths[0]]["recall@10"], unit="recall")
        for name, of in found.items()
    ]
    write_results("matryoshka_pairs", claims, {"results": found}, "\n".join(lines), quick=False)


def mean(seeds: Sequence[Mapping[str, Any]], width: int, measure: str) -> float:
    """Of a measure over the seeds."""
    return float(np.mean([one["dimensions"][str(width)][measure] for one in seeds]))


def table(results: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """Means over the seeds, and the least and most of them."""
    columns = [(name, measure) for measure in MEASURES for name in results]
    lines = [
        f"Text to protein among {HELDOUT_PROTEINS} held-out pairs: mean over {len(results['plain'])} seeds, and "
        "from the least to the most of them.",
        "",
        f"| dimensions | {' | '.join(f'{measure}, {name}' for name, measure in columns)} |",
        "|---" * (1 + len(columns)) + "|",
    ]
    for width in WIDTHS:
        cells = []
        for name, measure in columns:
            values = [one["dimensions"][str(width)][measure] for one in results[name]]
            cells.append(f"{np.mean(values):.3f} ({min(values):.3f} – {max(values):.3f})")
        lines.append(f"| {width} | {' | '.join(cells)} |")
    seconds = ", ".join(f"{name} {np.mean([one['seconds'] for one in seeds]):.0f} s" for name, seeds in results.items())
    return "\n".join([*lines, "", f"Training, one thread: {seconds}."])


if __name__ == "__main__":
    main()
