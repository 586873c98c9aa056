"""What an index is built of, and how."""

from __future__ import annotations

from dataclasses import dataclass, field

from protclip.errors import ConfigError
from protclip.fields import check_number, check_types
from protclip.index.hnsw import HnswConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class IndexConfig:
    """How an index is built."""

    graph: HnswConfig = field(default_factory=HnswConfig)
    shard_rows: int = 1_000_000
    """Largest number of rows of a subindex; subindexes are built side by side, each by one thread."""
    recall: float = 0.99
    """Recall at 10 to reach with each kind of queries: the smallest ef_search that does is chosen."""
    ef_search: int | None = None
    """Candidates kept while searching; instead of a recall."""
    graph_dimension: int | None = None
    """Numbers of a vector that the graphs hold, the whole vectors being in files beside them: few take little memory.
    Default: the fewest with which the wanted recall can be expected, all where that is not to be had. 0 for all."""
    max_stale: float = 0.2
    """With a previous index: build all anew if more than this share of rows is dead or in subindexes of changes."""

    def __post_init__(self) -> None:
        check_types("index.", self)
        check_number("index.shard_rows", self.shard_rows, at_least=1, at_most=2**31 - 1)
        check_number("index.recall", self.recall, at_least=0, at_most=1)
        check_number("index.ef_search", self.ef_search, at_least=1, at_most=100_000)
        check_number("index.graph_dimension", self.graph_dimension, at_least=0, at_most=65_536)
        check_number("index.max_stale", self.max_stale, at_least=0, at_most=1)


@dataclass(frozen=True, kw_only=True, slots=True)
class BuildConfig:
    """Embeddings into a searchable index."""

    embeddings: str
    """A folder that embed wrote, or a file of vectors that another tool made: a path or URL."""
    output: str
    """Folder or URL of the index."""
    model: str | None = None
    """Name of another tool's model, whose vectors are in the file EMBEDDINGS: HDF5 with a dataset per protein, such as
    UniProt's per-protein.h5, parquet, or .npy."""
    ids: str | None = None
    """With --model and .npy: the ids of its rows, one a line."""
    max_bad_fraction: float = 0.1
    """With --model: stop if a larger share of the rows is unusable."""
    previous: str | None = None
    """Index of an earlier release, from which everything that has not changed is taken."""
    queries: tuple[str, ...] = ()
    """Folder of embeddings of questions, such as texts. They are used to measure the recall, and percentiles for their
    kind of question. Once for each kind."""
    index: IndexConfig = field(default_factory=IndexConfig)
    """How it is built."""
    overwrite: bool = False
    """Replace an existing index."""

    def __post_init__(self) -> None:
        check_types("", self)
        check_number("max_bad_fraction", self.max_bad_fraction, at_least=0, at_most=1)
        if self.model is None and self.ids is not None:
            raise ConfigError(
                f"--ids {self.ids}: belongs to a .npy file of another tool's vectors; name its model by --model."
            )
