"""Interactions of proteins: SHS27k and SHS148k, in STRING's format of actions."""

from __future__ import annotations

import numpy as np

from protclip.errors import DataError
from protclip.evaluation.ppi_splits import Mode, seen_shares, test_edges
from protclip.evaluation.readers.found import DataFolder
from protclip.evaluation.readers.tables import read_columns, read_rows
from protclip.evaluation.rows import Rows, other_counts
from protclip.evaluation.task import Benchmark

MODES = ("reaction", "binding", "ptmod", "activation", "inhibition", "catalysis", "expression")
"""In GNN-PPI's order."""
EDGES = {"shs27k": 7624, "shs148k": 44488}
PUBLISHED_NAMES = {"shs27k": "SHS27k", "shs148k": "SHS148k"}
VALID_SHARE = 0.125
"""Of the edges to train on, so that valid is a tenth of all; GNN-PPI has none, and chooses by its test edges."""


def read_interactions(root: str, name: str, mode: Mode) -> Benchmark:
    """Pairs of proteins with the kinds of their interactions.

    Args:
        root: the data folder.
        name: a key of PUBLISHED_NAMES.
        mode: how the edges are parted.
    """
    folder, rows = DataFolder(root), Rows()
    stem, published = f"ppi_{name}", PUBLISHED_NAMES[name]
    actions = folder.need(f"{stem}/actions.tsv", f"{stem}/protein.actions.{published}.STRING.txt")
    sequences = _sequences(folder.need(f"{stem}/sequences.tsv", f"{stem}/protein.{published}.sequences.dictionary.tsv"))
    labels: dict[tuple[str, str], np.ndarray] = {}
    for line, (a, b, kind) in read_columns(actions, ["item_id_a"], ["item_id_b"], ["mode"]):
        where = f"{actions}, line {line}"
        if kind not in MODES:
            raise DataError(f"{where}: the mode is {kind!r}; it must be one of {', '.join(MODES)}.")
        for protein in (a, b):
            if protein not in sequences:
                raise DataError(f"{where}: of {protein!r} there is no sequence; fetch both files again.")
        label = labels.setdefault((min(a, b), max(a, b)), np.zeros(len(MODES), bool))
        label[MODES.index(kind)] = True
    edges = [tuple(rows.protein(*sequences[end]) for end in pair) for pair in labels]
    edges_E2 = np.array(edges)
    is_test = test_edges(edges_E2, mode, seed=0)
    is_valid = np.zeros(len(edges), bool)
    is_valid[_sample(np.flatnonzero(~is_test))] = True
    for edge, label, testing, validating in zip(edges, labels.values(), is_test, is_valid, strict=True):
        rows.add("test" if testing else "valid" if validating else "train", edge, label)
    shares = seen_shares(edges_E2[~is_test], edges_E2[is_test])
    unseen = f"{shares['one'] + shares['neither']:.1%} of the test edges have a protein that train and valid have not"
    notes = [f"{mode} split made here, seeded: {unseen}", other_counts(rows, {"train+valid+test": EDGES[name]})]
    return rows.benchmark(folder, bool, classes=MODES, notes=notes)


def _sequences(path: str) -> dict[str, tuple[str, str, str]]:
    """(sequence, name, place for messages) of each protein of a table without a header."""
    found = {}
    for line, cells in read_rows(path):
        if len(cells) < 2:
            raise DataError(f"{path}, line {line}: has {len(cells)} cell; it must have a name and a sequence.")
        found[cells[0]] = (cells[1], cells[0], f"{path}, line {line}")
    return found


def _sample(edges: np.ndarray) -> np.ndarray:
    chosen: np.ndarray = np.random.default_rng(0).choice(edges, round(VALID_SHARE * len(edges)), replace=False)
    return chosen
