"""How fast proteins are embedded on a CPU, end to end, against the plain loop. A quarter of an hour on two cores.

    python benchmarks/embed.py            shapes of ESM-2 8M and 35M; 256 sequences plain, 16,384 and 4,096 ours
    python benchmarks/embed.py --quick    8M alone, 96 sequences plain and 384 ours; within two minutes

Random weights; lengths as UniProt's are, seeded. Both on all cores of this machine.

    plain    what one would write first: HuggingFace's EsmModel, batches of 32 as they come, padded, fp32
    ours     ``protclip embed``: Ray, a worker of one thread for each core, FASTA in, committed parts out
    packed   the package's forward alone, of one part, by a process of one thread for each core, all at once

The rate is residues / (wall time × cores): ours from when as many parts are committed as there are workers to the last
one, of the parts in between; the time to the first one is stated as the start. The peak is that of matrix products in
the type that the model computes in, which is bfloat16 where the processor has instructions for it and float32
elsewhere; by all cores at once, as packed, before and after ours. Of the cores' time between the two parts, what the
workers and all other processes of the command took is stated. A worker's memory is the most that any has before and
after the middle of that time.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow.parquet as pq
import torch
from gpu_train_step import forward_flops
from report import Claim, write_results
from train_step import MAX_RESIDUES, MEDIAN_RESIDUES, PROTEIN_SHAPES, SPREAD, matmul_rate

from protclip.config import EncoderConfig, ModelConfig
from protclip.model.build import build_architecture, build_model, build_protein_tokenizer, build_text_tokenizer
from protclip.model.inference import has_fast_bfloat16
from protclip.trained_model import ProtCLIP

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
DTYPE = torch.bfloat16 if has_fast_bfloat16() else torch.float32
PLAIN_BATCH = 32
WATCH_S = 3.0
"""Between looks at the processes, which cost the workers time."""
TEXT_SHAPE = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}


def main() -> None:
    """Measure each shape, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the shape of ESM-2 8M alone, few sequences")
    parser.add_argument("--alone", nargs=2, metavar=("MODEL", "SEQUENCES"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.alone:
        print(json.dumps(alone(args.alone[0], int(args.alone[1]))))
        return
    quick = args.quick
    num_plain, parts_per_core = (96, 4) if quick else (256, 16)
    num_ours = {"8m": 384} if quick else {"8m": 16384, "35m": 4096}
    with tempfile.TemporaryDirectory() as folder:
        results = {
            shape: compare(shape, num_plain, number, max(1, number // (parts_per_core * CORES)), Path(folder) / shape)
            for shape, number in num_ours.items()
        }
    claims = [
        Claim(claim=f"embed_{shape}_vs_plain", value=r["ours"] / r["plain"], target=8.0, unit="x")
        for shape, r in results.items()
    ]
    claims += [
        Claim(claim=f"embed_{shape}_of_packed", value=r["ours"] / r["packed"], target=0.92, unit="of packed")
        for shape, r in results.items()
    ]
    claims += [
        Claim(
            claim=f"embed_{shape}_memory",
            value=r["late_mb"] / r["early_mb"],
            target=1.1,
            unit="of a worker's most, later / earlier, at most",
        )
        for shape, r in results.items()
    ]
    if "35m" in results:
        large = results["35m"]
        claims.append(
            Claim(claim="embed_35m_of_peak", value=large["of_peak"], target=0.36, unit=f"of {large['dtype']} matmul")
        )
    names = (
        "plain",
        "packed",
        "ours",
        "gflops",
        "peak_gflops",
        "of_peak",
        "workers",
        "others",
        "start_s",
        "early_mb",
        "late_mb",
    )
    lines = [
        f"{num_plain} sequences plain; ours in {parts_per_core} parts a core, {CORES} cores; "
        f"{str(DTYPE).removeprefix('torch.')}. Rates in residues per core-second.",
        "",
        "| shape | plain | packed | ours | GFLOP/s a core | peak | of the peak | workers, of the cores' time | "
        "others | start, s | worker, MB | later, MB |",
        "|" + "---|" * 12,
    ]
    lines += [f"| {shape} | {' | '.join(f'{r[name]:.3g}' for name in names)} |" for shape, r in results.items()]
    write_results("embed", claims, {"results": results}, "\n".join(lines), quick=quick)


def compare(shape: str, num_plain: int, num_ours: int, part_rows: int, folder: Path) -> dict[str, Any]:
    """Rates of the three on one shape."""
    config = ModelConfig(
        projection_dim=512,
        protein=EncoderConfig(max_tokens=MAX_RESIDUES + 2, config=PROTEIN_SHAPES[shape]),
        text=EncoderConfig(max_tokens=32, config={**TEXT_SHAPE, "vocab_size": 100}),
    )
    tokenizer = build_text_tokenizer(config, ["a protein that binds ATP"])
    network = build_model(config, build_architecture(config, tokenizer), seed=0)
    model = ProtCLIP(network, build_protein_tokenizer(config), tokenizer, dtype=DTYPE)
    model.save_pretrained(str(folder / "model"))
    sequences = uniprot_like(num_ours)
    before = on_all_cores(folder / "model", part_rows)
    ours = ours_rate(sequences, folder, part_rows)
    after = on_all_cores(folder / "model", part_rows)
    packed, peak = (max(before[name], after[name]) for name in ("packed", "peak"))
    torch.set_num_threads(CORES)
    plain = plain_rate(network, sequences[:num_plain], model)
    lengths = np.array([len(sequence) + 2 for sequence in sequences])
    flops_per_residue = forward_flops(network.architecture.protein, lengths) / float((lengths - 2).sum())
    gflops = ours["rate"] * flops_per_residue / 1e9
    return {
        "plain": plain,
        "packed": packed,
        "ours": ours.pop("rate"),
        "gflops": gflops,
        "peak_gflops": peak,
        "of_peak": gflops / peak,
        "dtype": str(DTYPE).removeprefix("torch."),
        "residues": int((lengths - 2).sum()),
        **ours,
    }


def uniprot_like(count: int) -> list[str]:
    """Random sequences with lengths near to UniProt's."""
    generator = np.random.default_rng(0)
    lengths = np.clip(MEDIAN_RESIDUES * np.exp(SPREAD * generator.standard_normal(count)), 30, MAX_RESIDUES)
    letters = np.frombuffer(b"ACDEFGHIKLMNPQRSTVWY", dtype=np.uint8)
    return [generator.choice(letters, int(length)).tobytes().decode() for length in lengths]


def on_all_cores(model: Path, num_sequences: int) -> dict[str, float]:
    """What ``alone`` measures in a process for each core, all at once: their means."""
    command = [sys.executable, __file__, "--alone", str(model), str(num_sequences)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(CORES)]
    told = [json.loads(process.communicate()[0].splitlines()[-1]) for process in processes]
    return {name: float(np.mean([one[name] for one in told])) for name in told[0]}


def alone(folder: str, num_sequences: int) -> dict[str, float]:
    """Residues a second of the forward alone, and GFLOP/s of matrix products, by one thread."""
    torch.set_num_threads(1)
    model, sequences = ProtCLIP.from_pretrained(folder, dtype=DTYPE), uniprot_like(num_sequences)
    model.embed_proteins(sequences[: num_sequences // 4])
    rates = []
    for _ in range(2):
        before = time.monotonic()
        model.embed_proteins(sequences)
        rates.append(sum(map(len, sequences)) / (time.monotonic() - before))
    return {"packed": max(rates), "peak": matmul_rate(DTYPE)}


def plain_rate(network: Any, sequences: list[str], model: ProtCLIP) -> float:
    """Residues a core-second of HuggingFace's module on padded batches in the order of the input."""
    encoder, ids = network.protein_encoder, [model.protein_tokenizer.encode(sequence) for sequence in sequences]
    before = time.monotonic()
    with torch.inference_mode():
        for start in range(0, len(ids), PLAIN_BATCH):
            rows = [torch.from_numpy(row.astype(np.int64)) for row in ids[start : start + PLAIN_BATCH]]
            ids_BL = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=1)
            mask_BL = ids_BL != 1
            hidden_BLH = encoder(input_ids=ids_BL, attention_mask=mask_BL).last_hidden_state
            _ = (hidden_BLH * mask_BL[..., None]).sum(1) / mask_BL.sum(1, keepdim=True)
    return sum(map(len, sequences)) / (time.monotonic() - before) / CORES


def ours_rate(sequences: list[str], folder: Path, part_rows: int) -> dict[str, float]:
    """Residues a core-second of the command, once each worker has committed a part; and what else is seen of it."""
    fasta, output = folder / "proteins.fasta.gz", folder / "embeddings"
    with gzip.open(fasta, "wt") as stream:
        stream.writelines(f">tr|A{i:06d}|A{i}_X Protein\n{sequence}\n" for i, sequence in enumerate(sequences))
    command = [sys.executable, "-m", "protclip", "embed", str(fasta), "--checkpoint", str(folder / "model")]
    command += ["--output", str(output), "--part-rows", str(part_rows), "--workers", str(CORES)]
    started = time.time()
    process = subprocess.Popen(command, cwd=Path(__file__).parents[1])
    seen: list[Seen] = []
    watch = threading.Thread(target=_watch, args=(process, seen), daemon=True)
    watch.start()
    if process.wait() != 0:
        sys.exit("embed: the command failed; nothing was measured.")
    parts = sorted(output.glob("part-*.parquet"), key=lambda path: path.stat().st_mtime_ns)
    times = [path.stat().st_mtime_ns / 1e9 for path in parts]
    begin, end = times[CORES - 1], times[-1]
    middle = (begin + end) / 2
    residues = [int(np.sum(pq.read_table(path, columns=["length"])["length"].to_numpy())) for path in parts]
    between = [one for one in seen if begin <= one.at <= end]
    cores_s = CORES * (between[-1].at - between[0].at)
    return {
        "rate": sum(residues[CORES:]) / (end - begin) / CORES,
        "start_s": times[0] - started,
        "wall_s": end - started,
        "workers": (between[-1].workers_s - between[0].workers_s) / cores_s,
        "others": (between[-1].others_s - between[0].others_s) / cores_s,
        "early_mb": max(one.largest for one in seen if one.at < middle) / 1e6,
        "late_mb": max(one.largest for one in seen if one.at >= middle) / 1e6,
    }


@dataclass(frozen=True, slots=True)
class Seen:
    """The processes of a run at a time."""

    at: float
    workers_s: float
    """Processor time of the actors so far."""
    others_s: float
    """And of all others."""
    largest: int
    """Resident bytes of the largest actor."""


def _watch(process: subprocess.Popen[bytes], seen: list[Seen]) -> None:
    """Note what a run's processes take."""
    spent: dict[tuple[bool, int], float] = {}  # of those that have ended, too
    while process.poll() is None:
        largest = 0
        with contextlib.suppress(psutil.Error):
            for child in [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]:
                with contextlib.suppress(psutil.Error):
                    is_worker = "ray::MapWorker" in " ".join(child.cmdline()[:1])
                    times = child.cpu_times()
                    spent[is_worker, child.pid] = times.user + times.system
                    if is_worker:
                        largest = max(largest, child.memory_info().rss)
        workers_s, others_s = (
            sum(value for (of_worker, _), value in spent.items() if of_worker == wanted) for wanted in (True, False)
        )
        seen.append(Seen(time.time(), workers_s, others_s, largest))
        time.sleep(WATCH_S)


if __name__ == "__main__":
    main()
