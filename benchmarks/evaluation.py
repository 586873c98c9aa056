"""What the objectives and the text encoder are worth in held-out retrieval, with intervals. CPU.

    python benchmarks/evaluation.py                                        a synthetic proteome; some minutes on 2 cores
    python benchmarks/evaluation.py --data all.dat.gz --text-encoder BERT  real entries too, half an hour
    python benchmarks/evaluation.py --quick                                one seed, few steps; a minute

Two studies, three seeds each; a seed has the same rows in the same batches in both settings:

    objectives      all of them against the contrast alone, on the proteome of ``objectives.py``
    text encoder    a published one, frozen, against a small one from random weights, by the contrast, on UniProt's
                    entries as ``protclip curate`` splits them; BERT is a folder in HuggingFace's format

``protclip evaluate`` measures each model on the test split, and ``--compare`` holds the two of a seed against each
other row by row.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import tempfile
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from motif_proteome import motif_proteome
from objectives import BATCH_SIZE, HELDOUT_PROTEINS, MODEL, SETTINGS, TRAIN_PROTEINS, fit, look_at_neighbours
from report import Claim, write_results

from protclip.config import GC_ALONE, EncoderConfig, ModelConfig, ObjectivesConfig
from protclip.data.tokenize import biotexts, tokenize_pairs
from protclip.evaluation.compare import compare
from protclip.evaluation.evaluate import evaluate
from protclip.evaluation.retrieval_task import NAME
from protclip.evaluation.settings import EvaluateConfig
from protclip.manifest import write_manifest
from protclip.model.build import build_architecture, build_model, build_protein_tokenizer, build_text_tokenizer
from protclip.protanno.curate import CurateConfig, curate
from protclip.protanno.reading import CurationConfig
from protclip.protanno.sampling import SamplingConfig
from protclip.protanno.shards import KIND, SCHEMA, read_pairs, read_row_group
from protclip.protanno.splits import SplitConfig
from protclip.trained_model import ProtCLIP
from protclip.units import InProcess

SEEDS = 3
STEPS, QUICK_STEPS = {"objectives": 300, "text encoder": 200}, 40
TEXT_TOKENS = 64
"""Of the study of text encoders."""
MEASURES = ("recall@1", "recall@10", "mrr", "protein_to_text_recall@1")
REAL_MODEL = ModelConfig(
    projection_dim=256,
    protein=EncoderConfig(
        max_tokens=256,
        config={"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 256},
    ),
    text=EncoderConfig(
        max_tokens=TEXT_TOKENS,
        config={
            "vocab_size": 4000,
            "hidden_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "intermediate_size": 256,
            "max_position_embeddings": TEXT_TOKENS,
        },
    ),
)


class Setting(NamedTuple):
    """How a model is made."""

    model: ModelConfig
    objectives: ObjectivesConfig
    has_neighbours: bool
    """Whether the first layers are told to look at neighbours, as ``objectives.py`` has it."""


def main() -> None:
    """Train, evaluate, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one seed, few steps; a minute")
    parser.add_argument("--data", metavar="FILE", help="UniProt entries, for the study of text encoders")
    parser.add_argument("--text-encoder", metavar="BERT", help="a folder of a published BERT, for the same")
    arguments = parser.parse_args()
    if (arguments.data is None) != (arguments.text_encoder is None):
        parser.error("--data and --text-encoder go together")
    seeds = 1 if arguments.quick else SEEDS
    studies: dict[str, dict[str, Setting]] = {
        "objectives": {name: Setting(MODEL, SETTINGS[name], has_neighbours=True) for name in ("all", "GC")}
    }
    with tempfile.TemporaryDirectory() as folder:
        pairs = {
            ("objectives", seed): synthetic_pairs(Path(folder, f"synthetic-{seed}"), seed) for seed in range(seeds)
        }
        if arguments.data is not None:
            text = EncoderConfig(pretrained=os.path.abspath(arguments.text_encoder), max_tokens=TEXT_TOKENS)
            studies["text encoder"] = {
                "published, frozen": Setting(replace(REAL_MODEL, text=text), GC_ALONE, has_neighbours=False),
                "random weights": Setting(REAL_MODEL, GC_ALONE, has_neighbours=False),
            }
            real = real_pairs(Path(folder, "real"), arguments.data)
            pairs |= {("text encoder", seed): real for seed in range(seeds)}
        jobs = [
            (
                study,
                name,
                seed,
                QUICK_STEPS if arguments.quick else STEPS[study],
                pairs[study, seed],
                str(Path(folder, study, str(seed), name)),
                setting,
            )
            for study, settings in studies.items()
            for seed in range(seeds)
            for name, setting in settings.items()
        ]
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(os.cpu_count(), mp_context=context) as pool:
            runs = list(pool.map(run, *zip(*jobs, strict=True)))
        differences = {
            (study, seed): differences_of(Path(folder, study, str(seed)), *settings)
            for study, settings in studies.items()
            for seed in range(seeds)
        }
    write(studies, runs, differences, quick=arguments.quick)


def synthetic_pairs(folder: Path, seed: int) -> str:
    """A folder of pairs of the motif proteome."""
    folder.mkdir(parents=True)
    shards = {
        "train-00000-of-00001.parquet": motif_proteome(TRAIN_PROTEINS, seed=seed),
        "test-00000-of-00001.parquet": motif_proteome(HELDOUT_PROTEINS, seed=seed, first=TRAIN_PROTEINS),
    }
    for name, proteome in shards.items():
        columns = {
            field.name: proteome.pairs.column(field.name)
            if field.name in proteome.pairs.column_names
            else pa.nulls(len(proteome.pairs), field.type)
            for field in SCHEMA
        }
        pq.write_table(pa.table(columns), folder / name)
    write_manifest(str(folder), KIND, list(shards), counts={}, composition={}, settings={"sampling": {"draw": "once"}})
    return str(folder)


def real_pairs(folder: Path, data: str) -> str:
    """Entries of UniProt as pairs, a fifth of them for the test."""
    split = SplitConfig(valid_fraction=0.0, test_fraction=0.2)
    curation = CurationConfig(sampling=SamplingConfig(dataset="all"), split=split)
    curate(CurateConfig(inputs=(data,), output=str(folder), curation=curation), InProcess())
    return str(folder)


def run(
    study: str, name: str, seed: int, steps: int, pairs_folder: str, folder: str, setting: Setting
) -> dict[str, Any]:
    """Train one model, and evaluate it."""
    torch.set_num_threads(1)
    pairs = read_pairs(pairs_folder)
    train = pa.concat_tables([read_row_group(group) for group in pairs.row_groups("train")])
    texts, proteins = build_text_tokenizer(setting.model, biotexts(train)), build_protein_tokenizer(setting.model)
    architecture = build_architecture(setting.model, texts, setting.objectives)
    network = build_model(setting.model, architecture, seed=seed)
    if setting.has_neighbours:
        look_at_neighbours(network.protein_encoder)
    losses = fit(network, tokenize_pairs(train, proteins, texts, properties=True), seed=seed, num_steps=steps)
    network.eval()
    checkpoint = str(Path(folder, "best"))
    ProtCLIP(network, proteins, texts).save_pretrained(
        checkpoint, data={"fingerprint": pairs.fingerprint}, run={"data": {"pairs": pairs_folder}}
    )
    config = EvaluateConfig(
        checkpoints=(checkpoint,), pairs=pairs_folder, tasks=(NAME,), output=str(Path(folder, "report"))
    )
    results = evaluate(config, InProcess(threads=1))
    score = results.best(NAME, results.of_role("checkpoint")[0].name)
    assert score is not None
    return {
        "study": study,
        "setting": name,
        "seed": seed,
        "steps": steps,
        "loss": float(np.mean(losses[-10:])),
        "train_pairs": len(train),
        "test_pairs": results.tasks[0].rows["test"],
        **asdict(score),
    }


def differences_of(folder: Path, first: str, second: str) -> dict[str, float]:
    """recall@1 of the first setting less the second's, on the rows of one seed."""
    (found,) = compare(str(folder / first / "report"), str(folder / second / "report"))
    low, high = found.difference.interval
    return {"value": found.difference.value, "low": low, "high": high, "p": found.difference.p_value}


def write(
    studies: Mapping[str, Mapping[str, Setting]],
    runs: list[dict[str, Any]],
    differences: Mapping[tuple[str, int], dict[str, float]],
    *,
    quick: bool,
) -> None:
    """The results files."""
    claims, lines = [], []
    for study, settings in studies.items():
        own = [found for found in runs if found["study"] == study]
        first, second = settings
        by_seed = [difference for (of, _), difference in differences.items() if of == study]
        mean = float(np.mean([difference["value"] for difference in by_seed]))
        claims.append(Claim(claim=f"{study.replace(' ', '_')}_recall@1_difference", value=mean, unit="recall@1"))
        lines += [
            f"## {study}: {first} against {second}",
            "",
            f"{own[0]['train_pairs']:,} training pairs, {own[0]['steps']} steps of {BATCH_SIZE}; retrieval among "
            f"{own[0]['test_pairs']:,} test pairs. In brackets 95 % intervals over the test pairs.",
            "",
            "| setting | seed | recall@1 | " + " | ".join(MEASURES[1:]) + " | chance@1 | last loss |",
            "|---" * (len(MEASURES) + 4) + "|",
        ]
        for found in own:
            measures = " | ".join(f"{found['metrics'][name]:.3f}" for name in MEASURES[1:])
            recall = f"{found['value']:.3f} ({found['low']:.3f}–{found['high']:.3f})"
            chance = f"{found['metrics']['chance_recall@1']:.3f}"
            lines.append(
                f"| {found['setting']} | {found['seed']} | {recall} | {measures} | {chance} | {found['loss']:.2f} |"
            )
        lines += ["", f"| {first} less {second}, seed | recall@1 | 95 % interval | p |", "|---|---|---|---|"]
        lines += [
            f"| {seed} | {one['value']:+.3f} | {one['low']:+.3f} to {one['high']:+.3f} | {one['p']:.3f} |"
            for seed, one in enumerate(by_seed)
        ]
        values = [one["value"] for one in by_seed]
        lines += [f"| mean | {mean:+.3f} | seeds from {min(values):+.3f} to {max(values):+.3f} | |", ""]
    figures = {"runs": runs, "differences": [{"study": s, "seed": n, **one} for (s, n), one in differences.items()]}
    write_results("evaluation", claims, figures, "\n".join(lines), quick=quick)


if __name__ == "__main__":
    main()
