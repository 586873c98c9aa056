"""Train, valid and test without leakage: relatives are clustered, and a cluster is in one split.

Rows of one sequence are always together. Beyond that relatives are found by ``--split-by``:

    sequence    not at all: for trials
    minhash     shared k-mers (minhash.py)
    uniref50    the clusters that a file names
    mmseqs      the program MMseqs2, at 50 % identity and 80 % coverage

The clusters are taken in the order of hash(seed, smallest sequence hash). One goes to valid where it has room, else to
test where that has, else to train. So a split has its share to a row or so, a cluster too large for a split is trained
on, and all depends on the set of rows and the seed alone.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from protclip import files
from protclip.errors import ConfigError, DataError
from protclip.fields import check_number, check_types
from protclip.hashing import hash64, splitmix64
from protclip.parquet import read_own_table
from protclip.protanno import minhash
from protclip.protanno.components import Components
from protclip.protanno.shards import PROPERTIES, SPLITS
from protclip.uniprot.cells import means_nothing, unquoted
from protclip.uniprot.streams import open_stream, read_lines

Method = Literal["minhash", "uniref50", "mmseqs", "sequence"]
MERGED_AWAY = -1
"""The code of a row that another one of the same sequence stands for; the others are indices into SPLITS."""
MMSEQS_OPTIONS = ("--min-seq-id", "0.5", "-c", "0.8", "--cov-mode", "0", "--threads", "1", "-v", "1")
PARAMETERS: Mapping[Method, Mapping[str, Any]] = {
    "minhash": {
        "num_hashes": minhash.NUM_HASHES,
        "kmer": minhash.KMER,
        "groups": list(minhash.GROUPS),
        "min_agreeing": list(minhash.MIN_AGREEING),
        "max_share": minhash.MAX_SHARE,
        "min_largest": minhash.MIN_LARGEST,
    },
    "uniref50": {},
    "mmseqs": {"options": " ".join(MMSEQS_OPTIONS)},
    "sequence": {},
}
"""What decides on the clusters beside the sequences, for the manifest."""
_CLUSTER_COLUMNS = {2: 1, 3: 2, 22: 9}
"""The column of the cluster by the number of columns: a list of ours, idmapping.dat, idmapping_selected.tab."""
_CLUSTER_FILES = (
    "a file of clusters has the two columns accession and cluster, or is UniProt's idmapping.dat or "
    "idmapping_selected.tab, plain or gzip"
)
_CHECKED_ROWS = 1000


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitConfig:
    """How rows are split."""

    split_by: str = "minhash"
    """How to find related proteins, which stay in one split. minhash: shared k-mers. uniref50=FILE: the clusters of a
    TSV of accession and cluster, or of UniProt's idmapping.dat or idmapping_selected.tab. mmseqs: the program MMseqs2,
    at 50 % identity. sequence: only equal sequences, for trials."""
    valid_fraction: float = 0.05
    """Share of the rows for valid, on which training is measured."""
    test_fraction: float = 0.05
    """Share of the rows for test, which training never sees."""

    def __post_init__(self) -> None:
        check_types("", self)
        method, _, path = self.split_by.partition("=")
        if method not in PARAMETERS or bool(path) != (method == "uniref50"):
            raise ConfigError(f"split_by={self.split_by!r} is none of minhash, uniref50=FILE, mmseqs and sequence.")
        check_number("valid_fraction", self.valid_fraction, at_least=0, below=1)
        check_number("test_fraction", self.test_fraction, at_least=0, below=1)
        if self.valid_fraction + self.test_fraction >= 1:
            raise ConfigError(
                f"valid_fraction={self.valid_fraction} and test_fraction={self.test_fraction} leave nothing to "
                "train on; their sum must be below 1."
            )

    @property
    def method(self) -> Method:
        """What keeps relatives in one split."""
        return cast(Method, self.split_by.partition("=")[0])

    @property
    def uniref50(self) -> str | None:
        """The file that names clusters, for the method of this name."""
        return self.split_by.partition("=")[2] or None


@dataclass(kw_only=True, slots=True)
class SplitReport:
    """What the splits are made of; all fields are JSON values."""

    num_clusters: int = 0
    largest_cluster: int = 0
    """Rows."""
    num_merged: int = 0
    """Rows that another one of the same sequence stands for."""
    num_unlisted: int | None = None
    """Rows that the file of clusters does not name; None without such a file."""
    num_rows: dict[str, int] = field(default_factory=dict)
    """By split."""


def merit(table: pa.Table) -> np.ndarray:
    """How well rows are described, as numbers of which the smallest is best.

    Reviewed ones come first, then those with more properties, then lower existence, then longer text.
    """
    reviewed = pc.fill_null(table["reviewed"], False).to_numpy()
    existence = pc.fill_null(table["existence"], 7).to_numpy().astype(np.uint64)
    lengths = np.sum([pc.fill_null(pc.utf8_length(table[name]), 0).to_numpy() for name in PROPERTIES], axis=0)
    absent = np.sum([~table[name].is_valid().to_numpy() for name in PROPERTIES[1:]], axis=0).astype(np.uint64)
    number = (~reviewed).astype(np.uint64) << np.uint64(60) | absent << np.uint64(50) | existence << np.uint64(40)
    result: np.ndarray = number | ((1 << 40) - 1 - lengths).astype(np.uint64)
    return result


def split_rows(
    merged: Sequence[str], outputs: Sequence[str], *, seed: int, deduplicate: bool, config: SplitConfig
) -> SplitReport:
    """Decide on every row which split it is in, or that another one of the same sequence stands for it.

    Args:
        merged: the stems that ``merge_shard`` wrote to, in the order of the shards.
        outputs: the files to write, one for each shard; ``read_splits`` reads them.
        seed: of the curation.
        deduplicate: keep one row of each sequence.
        config: how.

    Raises:
        ConfigError: if the program mmseqs is needed and missing.
        DataError: if it fails, or the file of clusters cannot be read.
    """
    tables = [read_own_table(f"{stem}.keys.parquet") for stem in merged]
    keys = pa.concat_tables(tables)
    hashes, sequence_N = np.unique(keys["sequence_hash"].to_numpy(), return_inverse=True)
    report = SplitReport()
    kept_N = _best_of_each_sequence(keys) if deduplicate else np.ones(len(keys), dtype=bool)
    report.num_merged = int((~kept_N).sum())
    if config.method == "minhash":
        roots = minhash.clusters(_signatures(merged, sequence_N, len(hashes)))
    elif config.method == "uniref50":
        assert config.uniref50 is not None
        roots, listed_N = _uniref50(config.uniref50, keys["accession"], sequence_N, len(hashes))
        report.num_unlisted = int((kept_N & ~listed_N).sum())
    elif config.method == "mmseqs":
        roots = _mmseqs(merged, sequence_N, len(hashes))
    else:
        roots = np.arange(len(hashes))
    sizes = np.bincount(roots[sequence_N[kept_N]], minlength=len(hashes))
    report.num_clusters, report.largest_cluster = int((sizes > 0).sum()), int(sizes.max(initial=0))
    codes_N = np.where(kept_N, _assign(sizes, hashes, seed, config)[roots[sequence_N]], MERGED_AWAY).astype(np.int8)
    report.num_rows = {split: int((codes_N == code).sum()) for code, split in enumerate(SPLITS)}
    start = 0
    for table, path in zip(tables, outputs, strict=True):
        with files.atomic_write(path) as stream:
            np.save(stream, codes_N[start : start + len(table)])
        start += len(table)
    return report


def read_splits(path: str) -> np.ndarray:
    """The code of each row of a shard."""
    with files.open_read(path) as stream:
        codes: np.ndarray = np.load(stream)
    return codes


def require_mmseqs() -> str:
    """The program's path.

    Raises:
        ConfigError: if it is missing.
    """
    program = shutil.which("mmseqs")
    if program is None:
        raise ConfigError(
            "--split-by mmseqs needs the program mmseqs, which is not on PATH; install it (apt install mmseqs2, "
            "conda install -c bioconda mmseqs2, or https://github.com/soedinglab/MMseqs2), or split by minhash."
        )
    return program


def _best_of_each_sequence(keys: pa.Table) -> np.ndarray:
    order = pc.sort_indices(
        keys, sort_keys=[("sequence_hash", "ascending"), ("merit", "ascending"), ("accession", "ascending")]
    ).to_numpy()
    hashes = keys["sequence_hash"].to_numpy()[order]
    best = np.zeros(len(order), dtype=bool)
    best[order[np.append(True, hashes[1:] != hashes[:-1])[: len(order)]]] = True
    return best


def _assign(sizes: np.ndarray, hashes: np.ndarray, seed: int, config: SplitConfig) -> np.ndarray:
    """The code of each cluster; sizes and hashes stand at its smallest member."""
    number = int(sizes.sum())
    valid, test = SPLITS.index("valid"), SPLITS.index("test")
    room = {valid: round(config.valid_fraction * number), test: round(config.test_fraction * number)}
    codes = np.full(len(sizes), SPLITS.index("train"), dtype=np.int8)
    order = np.argsort(splitmix64(hashes ^ np.uint64(hash64(seed, "split"))), kind="stable")
    order = order[sizes[order] > 0]
    for cluster, size in zip(order.tolist(), sizes[order].tolist(), strict=True):
        for code, left in room.items():
            if size <= left:
                codes[cluster] = code
                room[code] -= size
                break
        if not any(room.values()):
            break
    return codes


def _signatures(merged: Sequence[str], sequence_N: np.ndarray, number: int) -> np.ndarray:
    """The signature of each sequence, in the order of the sequences' hashes."""
    result = np.empty((number, minhash.NUM_HASHES), dtype=np.uint32)
    start = 0
    for stem in merged:
        part = read_splits(f"{stem}.npy")
        result[sequence_N[start : start + len(part)]] = part
        start += len(part)
    return result


def check_clusters(path: str) -> None:
    """Find out whether a file names clusters, by its first rows: before hours are spent on what is to be clustered.

    Raises:
        DataError: if it cannot be read, or its rows are not those of a file of clusters.
    """
    num_rows = sum(1 for _ in islice(_members(path), _CHECKED_ROWS))
    if not num_rows:
        raise DataError(f"{path}: holds no row; {_CLUSTER_FILES}.")


def _members(path: str) -> Iterator[tuple[str, str]]:
    """Accession and cluster of each row; the cluster is empty where it means nothing or is of another database."""
    with open_stream(path) as stream:
        for number, line in read_lines(stream, path, "a file of clusters"):
            if not line.strip() or line.startswith(b"#"):
                continue
            text = line.decode(errors="replace")
            fields = text.split("\t") if "\t" in text else re.split("[,;]", text)
            if len(fields) not in _CLUSTER_COLUMNS or (len(fields) != 2 and "\t" not in text):
                raise DataError(
                    f"{path}, line {number}: {text[:80]!r} has {len(fields)} column{'s'[: len(fields) > 1]}; "
                    f"{_CLUSTER_FILES}."
                )
            cluster = unquoted(fields[_CLUSTER_COLUMNS[len(fields)]])
            # UniProt's idmapping.dat names many databases.
            is_one = (len(fields) != 3 or fields[1] == "UniRef50") and not means_nothing(cluster)
            yield unquoted(fields[0]), cluster if is_one else ""


def _uniref50(
    path: str, accessions: pa.ChunkedArray, sequence_N: np.ndarray, number: int
) -> tuple[np.ndarray, np.ndarray]:
    """Roots of the sequences, and which rows the file names."""
    rows = {accession: row for row, accession in enumerate(accessions.to_pylist())}
    first: dict[str, int] = {}
    edges = []
    listed_N = np.zeros(len(rows), dtype=bool)
    for accession, cluster in _members(path):
        row = rows.get(accession)
        if row is not None and cluster:
            listed_N[row] = True
            sequence = int(sequence_N[row])
            edges.append((first.setdefault(cluster, sequence), sequence))
    if not edges:
        raise DataError(
            f"{path}: names none of the {len(rows):,} accessions, such as {next(iter(rows), None)!r}, so "
            f"relatives could not be kept together; {_CLUSTER_FILES}. Give that of these proteins, or split by minhash."
        )
    components = Components(number)
    components.join(*np.array(edges).T)
    return components.roots, listed_N


def _mmseqs(merged: Sequence[str], sequence_N: np.ndarray, number: int) -> np.ndarray:
    program = require_mmseqs()
    column = pa.concat_tables([read_own_table(f"{stem}.parquet", columns=["sequence"]) for stem in merged])["sequence"]
    rows = np.empty(number, dtype=np.int64)
    rows[sequence_N[::-1]] = np.arange(len(sequence_N))[::-1]
    components = Components(number)
    with tempfile.TemporaryDirectory() as folder:
        with (
            files.telling_what_cannot_be_written(folder),
            Path(folder, "sequences.fasta").open("w") as stream,
        ):
            # In the order of their hashes, so that the clusters depend on the set of sequences alone.
            for i, sequence in enumerate(pc.cast(column, pa.large_string()).take(pa.array(rows)).to_pylist()):
                stream.write(f">{i}\n{sequence}\n")
        command = [program, "easy-cluster", "sequences.fasta", "result", "scratch", *MMSEQS_OPTIONS]
        run = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        if run.returncode:
            raise DataError(f"mmseqs failed with status {run.returncode}: {(run.stderr or run.stdout)[-500:].strip()}")
        pairs = np.loadtxt(Path(folder, "result_cluster.tsv"), dtype=np.int64, delimiter="\t", ndmin=2)
    components.join(pairs[:, 0], pairs[:, 1])
    return components.roots
