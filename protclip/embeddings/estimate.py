"""``protclip embed --dry-run``: how much there is to do, and how long it takes, from a sample."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from protclip import files
from protclip.embeddings.blocks import pairs_blocks, read_block
from protclip.embeddings.inputs import Inputs, read_rows
from protclip.embeddings.job import EmbedJob
from protclip.embeddings.reading import Content
from protclip.embeddings.settings import THREADS, EmbedConfig
from protclip.errors import DataError
from protclip.parquet import open_parquet
from protclip.uniprot.entry import BadEntry
from protclip.units import Item, Report, Run

SAMPLE_BYTES = 8 << 20
"""Of each file that has to be read to know what is in it, as it lies on the disk."""
SAMPLE_ROWS = 4096
MEASURE_S = 10.0
"""How long the sample is embedded, about."""
_MEASURE_ROWS = 64


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """Some values of an input, and what they say of the whole."""

    values: list[str]
    """Sequences or texts."""
    num_rows: int
    """Of the whole input."""
    is_exact: bool
    """Whether the rows were counted, and not estimated from a part."""

    @property
    def mean_length(self) -> float:
        """Residues, or characters, of a row."""
        return sum(map(len, self.values)) / len(self.values)


def estimate(job: EmbedJob, run: Run) -> Iterator[str]:
    """Lines that say how much there is to do and how long it takes, by a sample; nothing is written.

    Raises:
        DataError: if nothing in the sample can be embedded.
    """
    sample = take_sample(job.inputs, job.content)
    work = job.with_model(partial(measure_rate, config=job.config, threads=run.threads))
    (report,) = run(replace(work, title="measuring", workers=(1, 1)), [{"values": sample.values}])
    return describe_work(
        sample,
        report["residues_per_s"],
        part_rows=job.part_rows,
        workers=(job.config.num_workers or (1, run.room(work.num_gpus)))[1],
        dimension=job.dimension,
        precision=job.config.precision,
        content=job.content,
    )


def take_sample(inputs: Inputs, content: Content) -> Sample:
    """The first rows of an input, and how many there are.

    Raises:
        DataError: if nothing in them can be embedded.
    """
    column = "sequence" if content == "protein" else "text"
    if inputs.kind == "pairs":
        blocks = pairs_blocks(inputs.paths[0], SAMPLE_ROWS)
        rows = read_block(blocks[0], content)[column].to_pylist() if blocks else []
        values = [value for value in rows if value.strip()]  # a pair may have no text
        return _checked(Sample(values=values, num_rows=sum(block["rows"] for block in blocks), is_exact=True), inputs)
    if inputs.kind == "parquet":
        good = [row for row in islice(read_rows(inputs, content), SAMPLE_ROWS) if not isinstance(row, BadEntry)]
        num_rows = 0
        for path in inputs.paths:
            with open_parquet(path) as file:
                num_rows += file.metadata.num_rows
        return _checked(Sample(values=[row[column] for row in good], num_rows=num_rows, is_exact=True), inputs)
    values, count, is_exact = [], 0.0, True
    for path in inputs.paths:
        some, share = _first_rows(replace(inputs, paths=(path,)), content, column)
        values += some[: SAMPLE_ROWS - len(values)]
        count += len(some) / share
        is_exact &= share == 1
    return _checked(Sample(values=values, num_rows=round(count), is_exact=is_exact), inputs)


def measure_rate(item: Item, *, config: EmbedConfig, threads: int) -> Report:
    """A unit that embeds ``values`` for a while; the report has its ``residues_per_s``."""
    from protclip.embeddings.parts import load_model, torch_threads

    model = load_model(config, threads=threads)

    def embed(values: list[str]) -> None:
        if config.content == "text":
            model.embed_texts(values)
        else:
            long: Any = "truncate" if config.long == "error" else config.long
            model.embed_proteins(values, long=long)

    values, done = item["values"], 0
    with torch_threads(THREADS):
        embed(values[:4])
        started = time.monotonic()
        for start in range(0, len(values), _MEASURE_ROWS):
            embed(values[start : start + _MEASURE_ROWS])
            done += sum(map(len, values[start : start + _MEASURE_ROWS]))
            if time.monotonic() - started > MEASURE_S:
                break
    return {"residues_per_s": done / (time.monotonic() - started)}


def describe_work(
    sample: Sample, rate: float, *, part_rows: int, workers: int, dimension: int, precision: str, content: Content
) -> Iterator[str]:
    """Lines that say how much there is to do.

    Args:
        sample: of the input.
        rate: residues, or characters, a second of one worker.
        part_rows: of a part.
        workers: that work at once.
        dimension: of a vector.
        precision: of its numbers.
        content: what is embedded.
    """
    unit = "residues" if content == "protein" else "characters"
    about = "" if sample.is_exact else "about "
    total = sample.num_rows * sample.mean_length
    num_bytes = sample.num_rows * dimension * (4 if precision == "float32" else 2)
    yield f"{about}{sample.num_rows:,} rows in {math.ceil(sample.num_rows / part_rows):,} parts of {part_rows:,}"
    yield f"about {total:,.0f} {unit}: {sample.mean_length:.0f} a row in a sample of {len(sample.values):,}"
    yield f"about {num_bytes / 1e9:.3g} GB of vectors: {dimension} of {precision} a row"
    hours = total / rate / workers / 3600
    yield f"{rate:,.0f} {unit}/s a worker, measured: about {hours:.3g} hours with {workers} workers"


def _first_rows(inputs: Inputs, content: Content, column: str) -> tuple[list[str], float]:
    """The values in the first SAMPLE_BYTES of a file, and what share of the file they are."""
    (path,) = inputs.paths
    share = min(1.0, SAMPLE_BYTES / max(1, files.size(path)))
    values: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        if share < 1:
            start = Path(folder) / path.rsplit("/", 1)[-1]
            with files.open_read(path) as stream:
                start.write_bytes(stream.read(SAMPLE_BYTES))
            inputs = replace(inputs, paths=(str(start),))
        try:
            for row in read_rows(inputs, content):
                if not isinstance(row, BadEntry):
                    values.append(row[column])
        except DataError:
            if share == 1:  # else it is where the sample ends
                raise
    return values, share


def _checked(sample: Sample, inputs: Inputs) -> Sample:
    if not sample.values:
        raise DataError(f"{', '.join(inputs.paths)}: holds nothing in its first rows that can be embedded.")
    return sample
