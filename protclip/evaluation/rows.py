"""Rows as they are read, and the benchmark that they make."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from protclip.evaluation.readers.found import DataFolder
from protclip.evaluation.task import Benchmark, Split
from protclip.hashing import hash64
from protclip.uniprot.residues import checked_residues

SPLITS = ("train", "valid", "test")


class Rows:
    """The rows of a benchmark, and its distinct proteins in the order in which they were met."""

    def __init__(self) -> None:
        self.ids: list[str] = []
        self.place: dict[str, int] = {}
        """Of each sequence among the proteins."""
        self.proteins: dict[str, list[tuple[int, ...]]] = {}
        self.labels: dict[str, list[Any]] = {}

    def protein(self, sequence: str, name: str, where: str) -> int:
        """The place of a protein.

        Args:
            sequence: in one-letter code.
            name: as the file has it, or made of its row; the first that comes with a sequence is kept.
            where: its file and line, for messages.

        Raises:
            DataError: if the sequence is empty, or holds a letter that is no residue.
        """
        residues = checked_residues(sequence, where)
        if residues not in self.place:
            self.place[residues] = len(self.ids)
            self.ids.append(name)
        return self.place[residues]

    def add(self, split: str, proteins: Sequence[int], label: Any) -> None:
        """Add a row: the places of its proteins, and its label."""
        self.proteins.setdefault(split, []).append(tuple(proteins))
        self.labels.setdefault(split, []).append(label)

    def hold_out(self, split: str, share: float, by: Callable[[int], str] | None = None) -> None:
        """Move a share of the proteins that begin a row of ``train``, with all rows that they begin, to a split.

        Which they are is a matter of a hash of their sequences: the order of the files does not count.

        Args:
            split: to where.
            share: of the proteins.
            by: where it is a share of the labels instead: the name of a label.
        """
        rows = list(zip(self.proteins.pop("train", []), self.labels.pop("train", []), strict=True))
        sequences = list(self.place)
        keys = [by(label) if by else sequences[row[0]] for row, label in rows]
        ordered = sorted(set(keys), key=lambda key: hash64(split, key))
        chosen = set(ordered[: round(share * len(ordered))])
        for key, (row, label) in zip(keys, rows, strict=True):
            self.add(split if key in chosen else "train", row, label)

    def counts(self) -> dict[str, int]:
        """Rows of each split."""
        return {split: len(self.proteins.get(split, ())) for split in SPLITS}

    def benchmark(
        self,
        folder: DataFolder,
        dtype: type,
        *,
        classes: Sequence[str] = (),
        texts: Sequence[str] = (),
        notes: Iterable[str] = (),
    ) -> Benchmark:
        """The benchmark of these rows, whose labels become an array of this type."""
        return Benchmark(
            ids=tuple(self.ids),
            sequences=tuple(self.place),
            splits={
                split: Split(
                    proteins_NK=np.array(self.proteins[split], np.int64),
                    labels=np.array(self.labels[split], dtype),
                )
                for split in SPLITS
                if split in self.proteins
            },
            classes=tuple(classes),
            texts=tuple(texts),
            files=dict(folder.sha256),
            note="; ".join(note for note in notes if note),
        )


def other_counts(rows: Rows, published: Mapping[str, int]) -> str:
    """A note that tells of splits whose rows are not as many as were published; empty where all are.

    Args:
        rows: all that were read.
        published: number of rows by split; ``train+valid`` where only the sum is known.
    """
    counts = rows.counts()
    there = {splits: sum(counts[split] for split in splits.split("+")) for splits in published}
    return ", ".join(
        f"{splits}: {there[splits]:,} rows where {number:,} were published"
        for splits, number in published.items()
        if there[splits] != number
    )
