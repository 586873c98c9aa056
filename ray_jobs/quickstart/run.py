"""``protclip quickstart``: the whole way once, from UniProt rows to HTTP answers, on this machine.

It is a pipeline (docs/pipeline.md) that gets a section more for each step, given as a command that a user could type,
against a Ray head of our own; then a server is started and asked. This file reads what they wrote.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import shlex
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests
import yaml

from cluster.environment import MARK_VARIABLE
from cluster.ports import free_ports
from protclip import files
from protclip.commands.answers import TABLE_COLUMNS, format_table
from protclip.config_file import load_config
from protclip.errors import ConfigError, ProtclipError
from protclip.manifest import read_manifest
from protclip.model.quality import quality_note, quality_of
from protclip.model.record import read_checkpoint_record
from protclip.protanno.biotext import biotext
from protclip.protanno.shards import PROPERTIES, read_pairs, read_row_group
from protclip.terminal import echo, printable
from ray_jobs.local_head import Head, start_head
from ray_jobs.pretrain.run import find_config
from ray_jobs.quickstart.data import uniprot_sample

BIN = Path(sys.executable).parent
LOGICAL_CPUS = 4
"""At least so many, also on 2 cores: two Train workers and their input streams, see docs/decisions/004."""

CONFIG = "tiny_cpu"
MIN_STEPS = 400
"""Optimizer steps after which a tiny model has something to show."""

SYNTHETIC = "synthetic"
"""In place of a file: have a proteome made."""

NUM_STAGES = 7
NUM_ANSWERS = 5

_RAY_PREFIX = re.compile(r"\x1b\[\d+m|^\(\w+ pid=\d+[^)]*\) ")
_PROGRESS = re.compile(r"(epoch \d|[\d,]+ (training pairs|steps) )")
"""What is shown of a job's log; Ray says much beside it, and the file has it all."""


@dataclass(kw_only=True, slots=True)
class Run:
    """One way through the stages."""

    output: str
    started: float = field(default_factory=time.monotonic)
    stage: int = 0
    stages: dict[str, Any] = field(default_factory=dict)
    """Of the pipeline, with their settings."""
    environment: dict[str, str] = field(default_factory=dict)
    url: str = ""

    def path(self, *names: str) -> str:
        """A path in the output folder."""
        return files.join(self.output, *names)

    def whole_way(self, data: str | None) -> None:
        """All stages in order.

        Raises:
            ProtclipError: naming the stage that failed and its log.
        """
        data = choose_data(data)
        with self._timed("start Ray") as line:
            head = start_head(self.path("ray"), num_cpus=max(LOGICAL_CPUS, os.cpu_count() or 1))
            self.environment = head.environment()
            line.append(f"dashboard {head.dashboard_url}, for this run alone")
        self._curate(data)
        self._pretrain()
        self._embed()
        self._index()
        self._serve(head)
        self._query()
        echo(f"\nDone in {time.monotonic() - self.started:.0f} s. Everything is in {self.output}")

    def _curate(self, data: str | None) -> None:
        with self._timed("curate") as line:
            synthetic = data is None
            if data is None:
                data = self.path("synthetic.dat.gz")
                self._command("synthesize", ["protclip", "synthesize", "--output", data])
            # Small row groups, so that each of the training stream's lanes has some of so few pairs.
            curate = {"dataset": "all", "valid_fraction": 0.1, "test_fraction": 0.0, "row_group_rows": 32}
            if synthetic:
                # A few families make up the whole set, and a model of this size learns nothing of unseen ones.
                curate["split_by"] = "sequence"
            self._pipeline("curate", curate={"inputs": [files.absolute(data)], **curate})
            train, valid = map(read_pairs(self.path("pairs")).num_rows, ("train", "valid"))
            line.append(f"{train + valid:,} pairs, {valid:,} of them for validation")

    def _pretrain(self) -> None:
        with self._timed("pretrain", announce=True) as line:
            self._pipeline("pretrain", as_job=True, pretrain={"config": CONFIG, "epochs": self._epochs()})
            metrics = files.read_json(self.path("run", "metrics.json"))
            line.append(f"{metrics['steps']:,} steps on 2 workers, submitted as a Ray job")
        _print_retrieval(metrics)
        record = read_checkpoint_record(self._checkpoint)
        if (note := quality_note(quality_of(record.metrics, record.data))) is not None:
            echo(f"      Note: {note}")

    def _epochs(self) -> int:
        """The config's epochs, or more where the pairs are few."""
        config = load_config(find_config(CONFIG))
        num_pairs = read_pairs(self.path("pairs")).num_rows("train")
        steps = max(1, num_pairs // config.batch.global_batch_size)
        return max(config.epochs, math.ceil(MIN_STEPS / steps))

    def _embed(self) -> None:
        with self._timed("embed") as line:
            # With the questions the index learns what random texts score.
            self._pipeline("embed", embed={}, questions={})
            folders = map(self.path, ("embeddings", "questions"))
            proteins, questions = (read_manifest(folder, "embeddings")["rows"] for folder in folders)
            line.append(f"{proteins:,} proteins, {questions:,} texts as questions")

    def _index(self) -> None:
        with self._timed("index") as line:
            self._pipeline("index", index={})
            manifest = read_manifest(self.path("index"), "index")
            line.append(f"{manifest['count']:,} vectors, recall@10 {manifest['recall_at_10']:.3f} of exact search")

    def _serve(self, head: Head) -> None:
        with self._timed("serve") as line:
            (port,) = free_ports(1)
            self.url = f"http://127.0.0.1:{port}"
            command = ["protclip", "serve", self.path("index"), "--checkpoint", self._checkpoint, "--port", str(port)]
            log_path = self._log_path("serve", command)
            with log_path.open("a") as log:
                server = subprocess.Popen(
                    [str(BIN / command[0]), *command[1:]],
                    env={**self.environment, MARK_VARIABLE: head.mark},  # so that it ends with the head
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            health = self._wait_for_health(server, log_path, timeout_s=120)
            line.append(f"{self.url}, {health['index']['count']:,} proteins")

    def _wait_for_health(self, server: subprocess.Popen[bytes], log_path: Path, *, timeout_s: float) -> dict[str, Any]:
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline and server.poll() is None:
            with contextlib.suppress(ProtclipError, requests.ConnectionError, requests.Timeout):
                return self._ask("GET", "/health")
            time.sleep(0.5)
        state = "does not answer" if server.poll() is None else f"ended with status {server.returncode}"
        raise ConfigError(f"quickstart failed at 'serve': the server {state}; {_end_of(log_path)}")

    def _query(self) -> None:
        accession, sequence, text = _a_valid_pair(self.path("pairs"))
        with self._timed("query") as line:
            vectors = [
                self._ask("POST", "/v1/embed", {"proteins": [sequence]}),
                self._ask("POST", "/v1/embed", {"texts": [text]}),
            ]
            answers = [
                self._ask("POST", "/v1/search", {"text": text, "k": NUM_ANSWERS}),
                self._ask("POST", "/v1/search", {"sequence": sequence, "k": NUM_ANSWERS}),
            ]
            line.append("POST /v1/embed and /v1/search, with a protein and with a text each")
        for kind, answer in zip(("protein", "text"), vectors, strict=True):
            (vector,) = answer["embeddings"]
            length = sum(x * x for x in vector) ** 0.5
            echo(f"      embedding of a {kind}: {answer['dimension']} numbers, length {length:.4f}")
        _print_answers(f"Proteins for the text of validation pair {accession}: “{_cut(text, 90)}”", answers[0])
        _print_answers(f"Proteins for the sequence of validation pair {accession}: {_cut(sequence, 60)}", answers[1])

    @property
    def _checkpoint(self) -> str:
        return self.path("run", "best")

    @contextlib.contextmanager
    def _timed(self, name: str, *, announce: bool = False) -> Iterator[list[str]]:
        """Print a stage's line, which the caller fills in, after it; announced before it to a person who waits."""
        self.stage += 1
        started = time.monotonic()
        result: list[str] = []
        if announce or sys.stdout.isatty():
            echo(f"[{self.stage}/{NUM_STAGES}] {name} …")
        yield result
        echo(f"[{self.stage}/{NUM_STAGES}] {name:<9} {time.monotonic() - started:6.1f} s  {'; '.join(result)}")

    def _ask(self, method: str, route: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        with requests.Session() as session:
            session.trust_env = False  # a proxy is no way to this machine
            answer = session.request(method, self.url + route, json=body, timeout=60)
        if not answer.ok:
            raise ConfigError(
                f"quickstart failed at {method} {route}: the server answered {answer.status_code}: {answer.text[:500]}"
            )
        content: dict[str, Any] = answer.json()
        return content

    def _pipeline(self, name: str, *, as_job: bool = False, **stages: Mapping[str, Any]) -> None:
        """Add stages to the pipeline and give it again: those before them are skipped.

        Args:
            name: of the log.
            as_job: submit it as a Ray job, and show its progress.
            stages: their settings.
        """
        self.stages.update(stages)
        path = self.path("pipeline.yaml")
        with files.atomic_write(path) as stream:
            stream.write(yaml.safe_dump({"folder": self.output, **self.stages}, sort_keys=False).encode())
        if not as_job:
            self._command(name, ["protclip", "pipeline", path])
            return
        # The package is installed where the job runs, so an empty folder will do as its working directory.
        job_folder = self.path("job")
        files.make_folder(job_folder)
        submit = ["ray", "job", "submit", "--log-style=record", "--log-color=false", "--working-dir", job_folder]
        self._command(name, [*submit, "--", "python", "-m", "protclip", "pipeline", path], show_progress=True)

    def _log_path(self, name: str, command: Sequence[str]) -> Path:
        path = Path(self.path("logs", f"{name}.log"))
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"$ {shlex.join(command)}\n")
        return path

    def _command(self, name: str, command: Sequence[str], *, show_progress: bool = False) -> None:
        """Run one command to its end, its output in a log, and its progress, if wanted, on the terminal too.

        Raises:
            ConfigError: if it fails; with the end of the log.
        """
        log_path = self._log_path(name, command)
        with log_path.open("a") as log:
            process = subprocess.Popen(
                [str(BIN / command[0]), *command[1:]],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
            )
            assert process.stdout is not None
            try:
                shown: set[str] = set()
                for text in process.stdout:
                    log.write(text)
                    log.flush()
                    line = progress_line(text) if show_progress else None
                    if line is not None and line not in shown:
                        shown.add(line)
                        echo(f"      {line}")
                status = process.wait()
            except BaseException:
                process.terminate()
                process.wait()
                raise
        if status != 0:
            raise ConfigError(f"quickstart failed at {name!r} with status {status}; {_end_of(log_path)}")


def choose_data(data: str | None) -> str | None:
    """The file to curate, or None for a synthetic proteome; says which, unless the file was given."""
    why = "made for this trial"
    if data is None:
        try:
            path, what = uniprot_sample(echo)
        except ProtclipError as error:
            why = f"since UniProt's cannot be had: {error}"
        else:
            echo(f"Data: {what}")
            return path
    elif data != SYNTHETIC:
        return files.absolute(data)
    echo(f"Data: SYNTHETIC proteins and texts, {why}")
    return None


def progress_line(text: str) -> str | None:
    """A line of a job's log without what Ray puts before it, if it tells of progress."""
    line = _RAY_PREFIX.sub("", _RAY_PREFIX.sub("", text)).rstrip()
    return line if _PROGRESS.match(line) else None


def _a_valid_pair(pairs: str) -> tuple[str, str, str]:
    """Accession, sequence and biotext of the first validation pair."""
    row = read_row_group(read_pairs(pairs).row_groups("valid")[0]).slice(0, 1).to_pylist()[0]
    return row["accession"], row["sequence"], biotext(*(row[name] for name in PROPERTIES))


def _print_retrieval(metrics: Mapping[str, Any]) -> None:
    valid, untrained = metrics["valid"], metrics["untrained"]
    echo(
        f"      Retrieval among {valid['num_pairs']:,} validation pairs: {valid['num_proteins']:,} distinct proteins, "
        f"{valid['num_texts']:,} distinct texts"
    )
    echo(f"      {'':<40}   recall@1   recall@5  recall@10")
    rows = [
        ("text → protein, trained", valid["text_to_protein"]),
        ("protein → text, trained", valid["protein_to_text"]),
        ("text → protein, untrained", untrained["text_to_protein"]),
        ("chance", valid["chance"]),
    ]
    for name, values in rows:
        recalls = "".join(f"{values[f'recall@{k}']:>11.4f}" for k in (1, 5, 10))
        echo(f"      {name:<40}{recalls}")
    ratio = valid["text_to_protein"]["recall@10"] / valid["chance"]["recall@10"]
    echo(f"      text → protein recall@10 is {ratio:.1f} × chance")


def _print_answers(title: str, answer: Mapping[str, Any]) -> None:
    echo(f"\n{printable(title)}")
    echo(textwrap.indent(format_table(answer["hits"], TABLE_COLUMNS["protein"]), "  "))


def _end_of(log_path: Path) -> str:
    tail = "".join(f"\n  {line}" for line in log_path.read_text(errors="replace").splitlines()[-15:])
    return f"its log {log_path} ends:{tail}"


def _cut(value: str, width: int) -> str:
    return value if len(value) <= width else value[: width - 1] + "…"
