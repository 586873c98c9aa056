"""A run of pretraining: its folder is prepared, its workers are started, and its best checkpoint is published."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from importlib import resources
from typing import TYPE_CHECKING, Any

from cluster import environment
from protclip import files
from protclip.config import EncoderConfig, PretrainConfig
from protclip.config_file import config_yaml, forbidden_changes, load_config
from protclip.errors import ConfigError
from protclip.inputs import Dtype
from protclip.manifest import FILE_NAME, read_manifest, write_manifest
from protclip.occupied import FILE_NAME as RUNNING_FILE
from protclip.occupied import occupied
from protclip.terminal import echo
from protclip.units import InProcess
from ray_jobs.cluster import resolve_input, resolve_output
from ray_jobs.workers import RAY_FOLDER, make_room, train_together

if TYPE_CHECKING:
    from protclip.protanno.shards import Pairs, RowGroup
    from ray_jobs.pretrain.worker import TrainJob

RESOLVED_CONFIG, PAIRS_MARK, BEST = "config.yaml", "pairs.json", "best"
OWN_FILES = (
    BEST,  # first: without it the run is unfinished
    "checkpoints",  # second: without them it begins anew, whatever else is left
    "metrics.json",
    "steps.jsonl",
    "report.html",
    "tensorboard",
    "trackers.json",
    "rows",
    RAY_FOLDER,
    RESOLVED_CONFIG,  # until then the folder can be told as a run's
    PAIRS_MARK,
)
"""What a run leaves in its folder."""
TOKENIZER_TEXTS = 50_000
"""Biotexts, at most, from which a WordPiece vocabulary is learned."""


def find_config(name: str) -> str:
    """The path of a config file: the path itself, or that of a ready config of this name.

    Raises:
        ConfigError: if there is neither.
    """
    if files.exists(name):
        return name
    ready = resources.files("ray_jobs.pretrain") / "configs"
    stem = name.removesuffix(".yaml")
    names = sorted(entry.name.removesuffix(".yaml") for entry in ready.iterdir() if entry.name.endswith(".yaml"))
    if stem not in names:
        raise ConfigError(f"config {name!r} is neither a file nor one of the ready configs: {', '.join(names)}.")
    return str(ready / f"{stem}.yaml")


def pretrain(settings: PretrainConfig, *, fresh: bool = False, dry_run: bool = False) -> None:
    """Prepare the run's folder, start the workers, and publish the best checkpoint."""
    settings = with_absolute_paths(settings)
    with contextlib.nullcontext() if dry_run else occupied(settings.run_dir):
        _pretrain(settings, fresh=fresh, dry_run=dry_run)


def _pretrain(settings: PretrainConfig, *, fresh: bool, dry_run: bool) -> None:
    from protclip.data.tokenize import TOKENIZED_COLUMNS, tokenize_pairs
    from protclip.model.build import (
        build_architecture,
        build_protein_tokenizer,
        build_text_tokenizer,
        check_architecture,
    )
    from protclip.pretraining.checks import check_pairs, check_words
    from protclip.pretraining.estimate import estimate
    from protclip.pretraining.run import Pretraining
    from protclip.protanno.shards import read_pairs, read_row_group
    from protclip.reporting.report import write_report
    from protclip.reporting.trackers import require_trackers
    from protclip.train.selection import describe
    from ray_jobs.pipelines import OnRay
    from ray_jobs.pretrain.lanes import LanePlan, count_drawn
    from ray_jobs.pretrain.worker import TrainJob

    settings = replace(settings, precision=_precision(settings, fresh=fresh))
    require_trackers(settings.trackers)
    pairs = read_pairs(settings.data.pairs)
    train, valid = (pairs.row_groups(split) for split in ("train", "valid"))
    if not valid:
        raise ConfigError(
            f"{settings.data.pairs}: has no validation pairs to measure on; curate with --valid-fraction above 0."
        )
    check_pairs(pairs, settings.objectives, valid_pairs=settings.valid_pairs)
    drawn_EG = None
    if pairs.draws_each_epoch:
        drawn_EG = count_drawn(
            train,
            seed=settings.seed,
            epochs=settings.epochs,
            run=InProcess() if environment.address() is None else OnRay(),
        )
    plan = LanePlan(
        groups=train,
        drawn_EG=drawn_EG,
        seed=settings.seed,
        epoch=0,
        num_lanes=settings.data.lanes,
        global_batch_size=settings.batch.global_batch_size,
    )
    started = time.monotonic()
    _check_run(settings, pairs, fresh=fresh)
    tokenizer = build_text_tokenizer(settings.model, _texts(train))
    architecture = build_architecture(settings.model, tokenizer, settings.objectives)
    check_architecture(settings.model, architecture)
    if (name := settings.model.text.pretrained) is not None:
        check_words(tokenizer, train, name=name)
    echo(config_yaml(settings).removesuffix("\n"))
    steps = [replace(plan, epoch=epoch).num_batches for epoch in range(settings.epochs)]
    pretraining = Pretraining(
        config=settings,
        batches_per_epoch=steps,
        valid=valid,
        text_tokenizer_json=tokenizer.json,
        data={
            "train_pairs": pairs.num_rows("train"),
            "valid_pairs": pairs.num_rows("valid"),
            "fingerprint": pairs.fingerprint,
        },
    )
    drawn = "" if drawn_EG is None else f" drawn of {pairs.num_rows('train')} candidates"
    about = "" if drawn_EG is None else "about "
    echo(
        f"{about}{plan.num_rows} training pairs{drawn}, {about}{steps[0]} batches of "
        f"{settings.batch.global_batch_size} ({settings.worker_batch_size} per worker) in each of {settings.epochs} "
        f"epochs, {sum(steps)} steps"
    )
    if dry_run:
        read_pairs(settings.data.pairs, verify=True)
        rows = read_row_group(train[0], columns=list(TOKENIZED_COLUMNS))
        tokens = tokenize_pairs(rows, build_protein_tokenizer(settings.model), tokenizer)
        echo("\n".join(estimate(settings, architecture, tokens, num_steps=sum(steps))))
        echo("every file of the pairs has its checksum; nothing was written")
        return
    if fresh:
        _clear(settings.run_dir)
    _run(TrainJob(pretraining=pretraining, plan=plan), pairs)
    summary = _publish(settings, seconds=time.monotonic() - started)
    write_report(settings.run_dir)
    valid = summary["valid"]
    recall = valid["text_to_protein"]["recall@10"]
    echo(
        f"{summary['steps']} steps in {summary['seconds']:.0f} s; best epoch {summary['best_epoch']}, of "
        f"{describe(settings.selection)}: validation loss "
        f"{valid['loss']:.3f}, text to protein recall@10 {recall:.3f} "
        f"(untrained {summary['untrained']['text_to_protein']['recall@10']:.3f}, chance "
        f"{valid['chance']['recall@10']:.3f}; {valid['num_pairs']} pairs of {valid['num_proteins']} proteins and "
        f"{valid['num_texts']} texts); "
        f"checkpoint {files.join(settings.run_dir, BEST)}; curves {files.join(settings.run_dir, 'report.html')}"
    )


def with_absolute_paths(settings: PretrainConfig) -> PretrainConfig:
    """The same with paths that mean the same in every folder."""
    from protclip.model.pretrained import is_local

    def absolute(encoder: EncoderConfig) -> EncoderConfig:
        name = encoder.pretrained
        # What is no folder here is the name of a published encoder.
        return encoder if name is None or not is_local(name) else replace(encoder, pretrained=resolve_input(name))

    return replace(
        settings,
        run_dir=resolve_output(settings.run_dir),
        data=replace(settings.data, pairs=resolve_input(settings.data.pairs)),
        model=replace(settings.model, protein=absolute(settings.model.protein), text=absolute(settings.model.text)),
    )


def _precision(settings: PretrainConfig, *, fresh: bool) -> Dtype:
    """What a run computes in: as it is asked for, as the unfinished run does, or as is fast where the run starts."""
    from protclip.model.precision import decided

    path = files.join(settings.run_dir, RESOLVED_CONFIG)
    if settings.precision != "auto" or fresh or not files.exists(path):
        return decided(settings.precision, use_gpu=settings.workers.use_gpu)
    before = load_config(path)
    if before.precision == "auto":  # of an earlier version, which had no such setting
        return "bfloat16" if before.workers.use_gpu else "float32"
    return before.precision


def _check_run(settings: PretrainConfig, pairs: Pairs, *, fresh: bool) -> None:
    """Look whether the run's folder is free, or holds an unfinished run that can go on with these settings and pairs.

    Raises:
        ConfigError: if it holds a finished run, or an unfinished one that cannot.
    """
    from protclip.protanno.changes import CHANGES_FILE

    path = files.join(settings.run_dir, RESOLVED_CONFIG)
    if not files.exists(path):
        # A run that is killed while it claims or clears the folder leaves the mark, or a part of either file.
        own = (RUNNING_FILE, PAIRS_MARK, RESOLVED_CONFIG)
        if names := [name for name in files.list_folder(settings.run_dir) if not name.startswith(own)]:
            raise ConfigError(
                f"run_dir={settings.run_dir} holds other files ({', '.join(names[:3])} …); choose another."
            )
        return
    if fresh:
        return
    if files.exists(files.join(settings.run_dir, BEST, FILE_NAME)):
        raise ConfigError(f"run_dir={settings.run_dir} holds a finished run; choose another, or give --fresh.")
    found = forbidden_changes(load_config(path), settings)
    mark = files.read_json(files.join(settings.run_dir, PAIRS_MARK))
    if isinstance(mark, dict):
        mark.pop(CHANGES_FILE, None)  # in those of older versions, though no pair is in it
    if mark != pairs.shards:
        found.append(f"data.pairs: {pairs.folder} holds other pairs than those that the run began with")
    if found:
        raise ConfigError(
            f"run_dir={settings.run_dir} holds an unfinished run that cannot go on so ({'; '.join(found)}); give its "
            "own settings to finish it, choose another run_dir, or give --fresh to start over."
        )
    echo(f"going on with the unfinished run in {settings.run_dir}")


def _clear(run_dir: str) -> None:
    files.remove(files.join(run_dir, BEST, FILE_NAME))  # first, so that half a folder is no checkpoint
    for name in OWN_FILES:
        files.remove(files.join(run_dir, name))


def _texts(groups: Sequence[RowGroup]) -> Iterator[str]:
    from protclip.data.tokenize import biotexts
    from protclip.protanno.shards import PROPERTIES, read_row_group

    missing = TOKENIZER_TEXTS
    for group in groups:
        if missing <= 0:
            return
        yield from biotexts(read_row_group(group, columns=list(PROPERTIES)))
        missing -= group.num_rows


def _run(job: TrainJob, pairs: Pairs) -> None:
    from ray_jobs.pretrain.lanes import TASK_CPUS
    from ray_jobs.pretrain.worker import train_worker

    settings = job.pretraining.config
    make_room(settings.workers, cpus_beside=TASK_CPUS)
    # The folder is claimed when nothing is left that could be refused; the config is the mark of a run.
    files.write_json(files.join(settings.run_dir, PAIRS_MARK), pairs.shards)
    with files.atomic_write(files.join(settings.run_dir, RESOLVED_CONFIG)) as stream:
        stream.write(config_yaml(settings).encode())
    train_together(train_worker, job, settings.workers, run_dir=settings.run_dir, max_failures=settings.max_failures)


def _publish(settings: PretrainConfig, *, seconds: float) -> dict[str, Any]:
    """Copy the checkpoint of the best epoch to ``best`` and write the run's summary."""
    from protclip.model.record import KIND
    from protclip.reporting.report import METRICS
    from protclip.train import checkpoints
    from protclip.train.state import PROGRESS, TENSORS

    source, target = checkpoints.best(settings.run_dir, settings.selection), files.join(settings.run_dir, BEST)
    manifest = read_manifest(source, KIND, verify=True)
    names = [name for name in manifest["files"] if name not in (TENSORS, PROGRESS)]
    for name in names:
        files.copy(files.join(source, name), files.join(target, name))
    # A run that an older version began has no data.
    record = {key: manifest[key] for key in ("fingerprint", "metrics", "run", "data") if key in manifest}
    metrics = files.join(settings.run_dir, METRICS)
    history = files.read_json(metrics)["history"]
    summary = {
        "selection": asdict(settings.selection),
        "valid": record["metrics"]["valid"],
        "untrained": history[0]["valid"],
        "best_epoch": record["metrics"]["epoch"],
        "steps": history[-1]["step"],
        "seconds": round(seconds, 1),
        "history": history,
    }
    files.write_json(metrics, summary)
    write_manifest(target, KIND, names, **record)
    return summary
