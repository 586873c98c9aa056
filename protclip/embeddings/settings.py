"""``EmbedConfig``: what the stage ``embed`` is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from protclip.embeddings.reading import Content
from protclip.embeddings.writing import Format, Precision
from protclip.errors import ConfigError
from protclip.fields import check_number, check_types
from protclip.inputs import Dtype, Layer, LongPolicy

PART_ROWS = 4096
"""Rows of a part where CPUs embed: the unit of work, and the window that is sorted by length."""
GPU_PART_ROWS = 32_768
"""The same on GPUs: about a minute of work for ESM-2 650M, and 67 MB of 512 float32 a row."""

THREADS = 1
"""Of torch for one batch: sums depend on it in their last bits."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EmbedConfig:
    """Proteins or texts into a folder of embeddings."""

    inputs: tuple[str, ...]
    """Files of proteins or texts, or one folder of pairs, as docs/embedding.md lists them: paths, globs or URLs."""
    checkpoint: str
    """Folder, name (such as published) or URL of the model."""
    output: str
    """Folder of embeddings to write: a path or an fsspec URL."""
    content: Content | None = None
    """What to embed from pairs, UniProt files or parquet files. Default: protein."""
    id_column: str | None = None
    """For parquet files: the column with the key. Default: accession, or id."""
    column: str | None = None
    """For parquet files: the column to embed. Default: sequence, or text."""
    long: LongPolicy | None = None
    """Proteins longer than the model sees: cut at the C-terminus, quarantined, or embedded as the mean over overlapping
    windows. Default: truncate."""
    layer: Layer = "projection"
    """What the vectors are: projection, embeddings of unit length; hidden, for heads of other tasks: the mean of the
    encoder's last hidden states, before the projection."""
    dimensions: int | None = None
    """Write the first so many numbers of each embedding, of unit length anew. Models trained with
    objectives.gc_prefixes lose little by it, others more. Default: all."""
    residues: bool = False
    """Also write the vectors of all residues, as float16."""
    format: Format = "parquet"
    """Where to put the vectors: in the parquet files, or beside them as HDF5 with a dataset per accession, or in
    numpy's format, which can be memory-mapped."""
    precision: Precision = "float32"
    """Number format of the stored vectors."""
    dtype: Dtype | None = None
    """Number format of the model's matrix products, on all workers; the index and its queries use it too. Default: that
    of the run that is resumed, or of --previous; otherwise bfloat16 on GPUs and where this machine's processor has
    instructions for it, else float32."""
    deduplicate: bool = False
    """Compute identical sequences, or texts, once in the whole input, not only once in a part; rows that repeat one
    come last."""
    part_rows: int | None = None
    """Rows of a part. Default: 4096; with --use-gpu 32768."""
    previous: str | None = None
    """Embeddings of the previous release, by the same model and settings: rows with the same accession and sequence, or
    text, take their vectors from there."""
    workers: int | str | None = None
    """Number of actors on Ray; a range such as 1-8 lets it follow the work. Default: 1 to one for each CPU, or GPU, of
    the cluster."""
    use_gpu: bool = False
    """Give each actor a GPU."""
    overwrite: bool = False
    """Replace a finished folder, or start an unfinished one again."""

    def __post_init__(self) -> None:
        check_types("", self)
        check_number("part_rows", self.part_rows, at_least=1)
        check_number("dimensions", self.dimensions, at_least=1)
        if self.content == "text" and self.long is not None:
            raise ConfigError(f"--long {self.long} is for proteins, and texts are embedded; leave it out.")
        if self.residues and (self.content == "text" or self.long == "window-mean"):
            what = "texts have none" if self.content == "text" else "means over windows have none"
            raise ConfigError(f"--residues: {what}; leave it out.")
        if self.layer == "hidden" and (self.residues or self.long == "window-mean"):
            other = "--residues" if self.residues else "--long window-mean"
            raise ConfigError(f"--layer hidden does not go with {other}; leave one out.")
        if self.dimensions is not None and (self.residues or self.layer == "hidden"):
            other = "--residues" if self.residues else "--layer hidden"
            raise ConfigError(f"--dimensions is of embeddings and does not go with {other}; leave one out.")
        if self.residues and self.previous is not None:
            raise ConfigError("--previous has no residues to take over; leave --residues or --previous out.")
        if self.deduplicate and (self.residues or self.previous is not None):
            other = "residues" if self.residues else "previous"
            raise ConfigError(f"--deduplicate does not go with --{other}; leave one out.")
        _ = self.num_workers

    def settings(self) -> dict[str, Any]:
        """What decides on the bytes of a part, beside its rows and the model, as JSON values."""
        names = ("dtype", "content", "long", "format", "precision", "deduplicate", "residues")
        # Which earlier versions did not have.
        layer = {} if self.layer == "projection" else {"layer": self.layer}
        dimensions = {} if self.dimensions is None else {"dimensions": self.dimensions}
        settings = {**{name: getattr(self, name) for name in names}, **layer, **dimensions}
        return {**settings, "device": self.device, "threads": THREADS}

    @property
    def device(self) -> str:
        """Where the model computes."""
        return "cuda" if self.use_gpu else "cpu"

    @property
    def num_workers(self) -> tuple[int, int] | None:
        """The fewest and the most actors; None for as many as there is room for."""
        if self.workers is None:
            return None
        fewest, _, most = str(self.workers).partition("-")
        try:
            found = int(fewest), int(most or fewest)
        except ValueError:
            found = 0, 0
        if not 1 <= found[0] <= found[1]:
            raise ConfigError(f"workers={self.workers!r} is neither a number of workers nor a range such as 1-8.")
        return found
