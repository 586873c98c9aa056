"""Edges of PrimeKG between proteins and what texts describe, in BioBridge's files (Wang et al. 2024).

BioBridge holds out a tenth of the nodes of each kind that edges start at (``dataset/build_train_test_split.py``); the
edges that start there are ``triplet_test.csv``. It has no validation split: here a tenth of the nodes of train is one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from protclip.errors import DataError
from protclip.evaluation.readers.found import DataFolder
from protclip.evaluation.readers.tables import read_columns
from protclip.evaluation.rows import Rows, other_counts
from protclip.evaluation.task import Benchmark

VALID_SHARE = 0.1
PROTEIN = "gene/protein"
NODE_TYPES = {
    "biological_process": "0",
    PROTEIN: "1",
    "disease": "2",
    "molecular_function": "5",
    "drug": "6",
    "cellular_component": "7",
}
"""BioBridge's numbers of the kinds of nodes (``data/BindData/data_config.json``)."""
_NODE_FILES = {
    "biological_process": "biological.csv",
    "disease": "disease.csv",
    "molecular_function": "molecular.csv",
    "drug": "drug.csv",
    "cellular_component": "cellular.csv",
}
_TRIPLETS = ("kg/triplet_{split}.csv", "BindData/train_test_split/triplet_{split}.csv")


def read_edges(root: str, head: str, tail: str, published: Mapping[str, int]) -> Benchmark:
    """The edges from one kind of node to another, of which one is PROTEIN; the other's texts are BioBridge's.

    A row is a protein and a text, whichever of them the edge starts at. Nodes without an edge of the kind are left out.

    Args:
        root: the data folder.
        head: where the edges start, a key of NODE_TYPES.
        tail: where they end.
        published: number of edges, by splits.
    """
    folder, rows = DataFolder(root), Rows()
    other = tail if head == PROTEIN else head
    sequences = _sequences(folder.need("kg/protein.csv", "Processed/protein.csv"))
    names = _texts(folder.need(f"kg/{_NODE_FILES[other]}", f"Processed/{_NODE_FILES[other]}"), other)
    texts: dict[str, int] = {}
    for split in ("train", "test"):
        path = folder.need(*(name.format(split=split) for name in _TRIPLETS))
        found: dict[tuple[int, int], None] = {}  # an edge may be there by several relations
        for where, start, end in _triplets(path, head, tail):
            protein, node = (start, end) if head == PROTEIN else (end, start)
            if protein not in sequences or node not in names:
                raise DataError(
                    f"{where}: of a node of the edge {start} to {end} there is no row in the files of nodes."
                )
            text = texts.setdefault(names[node], len(texts))
            found[rows.protein(sequences[protein], protein, where), text] = None
        for protein_place, text in found:
            rows.add(split, [protein_place], text)
    described = list(texts)
    rows.hold_out("valid", VALID_SHARE, by=None if head == PROTEIN else described.__getitem__)
    return rows.benchmark(folder, int, texts=described, notes=[other_counts(rows, published)])


def _triplets(path: str, head: str, tail: str) -> Iterator[tuple[str, str, str]]:
    """(place for messages, start, end) of the edges between nodes of two kinds."""
    kinds = ({head, NODE_TYPES[head]}, {tail, NODE_TYPES[tail]})
    columns = (["x_index"], ["y_index"], ["x_type"], ["y_type"])
    for line, (start, end, start_kind, end_kind) in read_columns(path, *columns):
        if start_kind in kinds[0] and end_kind in kinds[1]:
            yield f"{path}, line {line}", start, end


def _sequences(path: str) -> dict[str, str]:
    return {node: sequence for _, (node, sequence) in read_columns(path, ["node_index"], ["sequence"])}


def _texts(path: str, kind: str) -> dict[str, str]:
    """What BioBridge's encoders are given (``unimodal/``): of a drug its SMILES, of others name and definition."""
    if kind == "drug":
        return {node: smiles for _, (node, smiles) in read_columns(path, ["node_index"], ["smiles"])}
    columns = (["node_index"], ["node_name", "mondo_name"], ["description", "definition"])
    return {
        node: f"Name: {name}. Definition: {definition}" for _, (node, name, definition) in read_columns(path, *columns)
    }
