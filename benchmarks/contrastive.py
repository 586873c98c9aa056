"""The global contrast in tiles against the whole matrix of logits: memory and time. One thread; some minutes.

    python benchmarks/contrastive.py            1,024 to 32,768 pairs
    python benchmarks/contrastive.py --quick    1,024 and 8,192; within a minute

Forward and backward with the gradients of both sides and of the logit scale, D = 512, fp32, no process group. Each
measure is a process of its own: processor time, and by how much its peak memory exceeds what it had with the inputs
made.

    tiled    the package's ``global_contrast``
    full     the formula as it stands: two matrices of logits, the same mask, two cross-entropies; left out where it
             would need more than ``MAX_FULL_GB``
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from report import Claim, write_results
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from protclip.losses.global_contrast import global_contrast
from protclip.model.dual_encoder import scale

SIZES, QUICK_SIZES = (1024, 2048, 4096, 8192, 16384, 32768), (1024, 8192)
CLAIMED = 8192
WIDTH, REPEATS = 512, 3
MAX_FULL_GB = 8.0
FULL_BYTES_PER_LOGIT = 17
"""Measured: what the whole matrix takes of memory for each of its N² logits."""


def main() -> None:
    """Measure in turns, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two sizes, within a minute")
    quick = parser.parse_args().quick
    results: dict[int, dict[str, dict[str, float]]] = {}
    for size in QUICK_SIZES if quick else SIZES:
        fits = size**2 * FULL_BYTES_PER_LOGIT <= MAX_FULL_GB * 1e9
        names = ("full", "tiled") if fits else ("tiled",)
        runs: dict[str, list[dict[str, float]]] = {name: [] for name in names}
        for _ in range(REPEATS if size <= CLAIMED and not quick else 1):
            for name in names:
                runs[name].append(measured(name, size))
        results[size] = {
            name: {key: float(np.median([run[key] for run in values])) for key in values[0]}
            for name, values in runs.items()
        }
        losses = [values["loss"] for values in results[size].values()]
        assert max(losses) - min(losses) < 1e-4 * max(losses), "the two do not compute the same"

    full, tiled = results[CLAIMED]["full"], results[CLAIMED]["tiled"]
    claims = [
        Claim(
            claim="contrastive_8k_memory_full_over_tiled",
            value=full["peak_mb"] / tiled["peak_mb"],
            target=4.0,
            unit="x",
        ),
        Claim(claim="contrastive_8k_time_full_over_tiled", value=full["cpu_s"] / tiled["cpu_s"], target=1.0, unit="x"),
    ]
    lines = [
        f"D = {WIDTH}, fp32, one thread, forward and backward; median of up to {REPEATS}.",
        "",
        "| pairs | full, s | tiled, s | full, MB | tiled, MB |",
        "|---|---|---|---|---|",
    ]
    for size, values in results.items():
        cells = [
            f"{values[name][key]:.{digits}f}" if name in values else "–"
            for key, digits in (("cpu_s", 2), ("peak_mb", 0))
            for name in ("full", "tiled")
        ]
        lines.append(f"| {size:,} | {' | '.join(cells)} |")
    figures = {"results": {str(size): values for size, values in results.items()}}
    write_results("contrastive", claims, figures, "\n".join(lines), quick=quick)


def measured(name: str, size: int) -> dict[str, float]:
    """Loss, processor time and memory of one forward and backward in a new process."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_measure, args=(name, size, theirs))
    process.start()
    result: dict[str, float] = ours.recv()
    process.join()
    return result


def _measure(name: str, size: int, answer: Any) -> None:
    torch.set_num_threads(1)
    loss_of = {"full": full_loss, "tiled": tiled_loss}[name]
    _forward_backward(loss_of, *_inputs(256))  # what libraries set up on first use
    inputs = _inputs(size)
    held = _memory_mb("VmRSS")
    started = time.process_time()
    loss = _forward_backward(loss_of, *inputs)
    cpu_s = time.process_time() - started
    answer.send({"loss": loss, "cpu_s": cpu_s, "peak_mb": _memory_mb("VmHWM") - held})


def _inputs(size: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    protein_ND, text_ND = (normalize(torch.randn(size, WIDTH, generator=generator), dim=-1) for _ in range(2))
    identity_N2 = torch.stack([torch.arange(size), torch.arange(size) % (size * 7 // 8)], 1)  # some texts repeat
    scale_log = torch.tensor(2.66, requires_grad=True)
    return protein_ND.requires_grad_(), text_ND.requires_grad_(), scale_log, identity_N2


def _forward_backward(loss_of: Callable[..., Tensor], *inputs: Tensor) -> float:
    loss = loss_of(*inputs)
    loss.backward()  # type: ignore[no-untyped-call]
    return loss.item()


def tiled_loss(protein_ND: Tensor, text_ND: Tensor, logit_scale: Tensor, identity_N2: Tensor) -> Tensor:
    """The package's."""
    return global_contrast(protein_ND, text_ND, logit_scale, identity_N2, group=None)


def full_loss(protein_ND: Tensor, text_ND: Tensor, logit_scale: Tensor, identity_N2: Tensor) -> Tensor:
    """As one would write it, for rows gathered from several workers: each side against all of the other."""
    own_N = torch.arange(len(protein_ND))
    neither_NN = (identity_N2[:, None] == identity_N2[None]).any(-1)
    neither_NN[own_N, own_N] = False
    factor = scale(logit_scale)
    to_text_NN = (factor * protein_ND @ text_ND.T).masked_fill(neither_NN, -torch.inf)
    to_protein_NN = (factor * text_ND @ protein_ND.T).masked_fill(neither_NN, -torch.inf)
    return 0.5 * (cross_entropy(to_text_NN, own_N) + cross_entropy(to_protein_NN, own_N))


def _memory_mb(field: str) -> float:
    status = Path("/proc/self/status").read_text()
    return float(status.split(f"{field}:")[1].split()[0]) / 1024


if __name__ == "__main__":
    main()
