"""Tasks on chains of the PDB: EC numbers and GO terms in DeepFRI's files, reactions in IEConv's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from protclip.errors import DataError, MissingDataError
from protclip.evaluation.labelled import read_classes
from protclip.evaluation.readers.found import DataFolder
from protclip.evaluation.readers.numbers import class_number
from protclip.evaluation.readers.tables import read_columns, read_rows
from protclip.evaluation.rows import SPLITS, Rows, other_counts
from protclip.evaluation.task import Benchmark
from protclip.uniprot.fasta import read_proteins

EC = {"train": 15551, "valid": 1729, "test": 1919}
GO = {"train": 29902, "valid": 3323, "test": 3416}
REACTION = {"train": 29215, "valid": 2562, "test": 5651}
BRANCHES = ("molecular_function", "biological_process", "cellular_component")

_EC = "ec_go/nrPDB-EC_2020.04"
_GO = "ec_go/nrPDB-GO_2019.06.18"


def read_ec(root: str) -> Benchmark:
    """EC numbers, all levels of them as DeepFRI counts them; chains without a sequence at hand are left out."""
    folder = DataFolder(root)
    annotations = folder.need(f"{_EC}_annot.tsv")
    classes = _class_line(annotations, "### EC-numbers")
    sequences = _sequences(folder, f"{_EC}_sequences.fasta", f"{_EC}_test_sequences.fasta")
    table = folder.find("ec_go/ec_split_with_sequences.csv")
    if table is not None:
        for line, (chain, sequence) in read_columns(table, ["chain"], ["sequence"]):
            sequences.setdefault(chain, (sequence, f"{table}, line {line}"))
    return _annotated(folder, _EC, annotations, 1, classes, sequences, EC)


def read_go(root: str, branch: str) -> Benchmark:
    """GO terms of a branch, a name in BRANCHES; a chain without any is a row without labels, as in TorchDrug's copy."""
    folder = DataFolder(root)
    annotations = folder.need(f"{_GO}_annot.tsv")
    classes = _class_line(annotations, f"### GO-terms ({branch})")
    sequences = _sequences(folder, f"{_GO}_sequences.fasta", f"{_GO}_test_sequences.fasta")
    return _annotated(folder, _GO, annotations, 1 + BRANCHES.index(branch), classes, sequences, GO)


def read_reaction(root: str) -> Benchmark:
    """The reaction of each chain, one of 384; or of those chains alone whose sequence is at hand."""
    folder, rows = DataFolder(root), Rows()
    classes = [cells[0].strip() for _, cells in read_rows(folder.need("reaction/unique_functions.txt"))]
    table = folder.find("reaction/reaction_with_sequences.csv")
    if table is None:
        return read_classes(root, "reaction", classes, REACTION, lmdb="Reaction/Reaction")
    for line, (chain, split, label, sequence) in read_columns(table, ["chain"], ["set"], ["label"], ["sequence"]):
        where = f"{table}, line {line}"
        if split not in SPLITS:
            raise DataError(f"{where}: the set is {split!r}; it must be one of {', '.join(SPLITS)}.")
        rows.add(split, [rows.protein(sequence, chain, where)], class_number(label, len(classes), where))
    return rows.benchmark(folder, int, classes=classes, notes=[other_counts(rows, REACTION)])


def _annotated(
    folder: DataFolder,
    stem: str,
    annotations: str,
    column: int,
    classes: list[str],
    sequences: Mapping[str, tuple[str, str]],
    published: Mapping[str, int],
) -> Benchmark:
    """The chains of the lists of splits that have a sequence, with the classes in a column of the annotations."""
    rows = Rows()
    split_of = {
        cells[0].strip(): split for split in SPLITS for _, cells in read_rows(folder.need(f"{stem}_{split}.txt"))
    }
    place = {name: index for index, name in enumerate(classes)}
    for line, cells in _below_header(annotations):
        split = split_of.get(cells[0])
        if split is None or cells[0] not in sequences:
            continue
        where = f"{annotations}, line {line}"
        labels = np.zeros(len(classes), bool)
        for name in filter(None, cells[column].split(",") if len(cells) > column else []):
            if name not in place:
                raise DataError(f"{where}: {name!r} is none of the {len(classes)} classes that the file lists.")
            labels[place[name]] = True
        sequence, source = sequences[cells[0]]
        rows.add(split, [rows.protein(sequence, cells[0], source)], labels)
    if not rows.proteins:
        raise MissingDataError(f"{stem}: of none of its chains is the sequence there; {stem}_sequences.fasta has them.")
    return rows.benchmark(folder, bool, classes=classes, notes=[other_counts(rows, published)])


def _class_line(path: str, heading: str) -> list[str]:
    """The names in the line below a heading."""
    rows = read_rows(path)
    for _, cells in rows:
        if cells == [heading]:
            return next(rows, (0, [""]))[1]
    raise DataError(f"{path}: has no line {heading!r}; it must be DeepFRI's file of annotations.")


def _below_header(path: str) -> Iterator[tuple[int, list[str]]]:
    """The rows of chains."""
    rows = read_rows(path)
    for _, cells in rows:
        if cells[0] == "### PDB-chain":
            yield from rows
            return
    raise DataError(f"{path}: has no line '### PDB-chain'; it must be DeepFRI's file of annotations.")


def _sequences(folder: DataFolder, *names: str) -> dict[str, tuple[str, str]]:
    """(sequence, place for messages) of each chain, of those files that are there."""
    paths = [path for name in names if (path := folder.find(name)) is not None]
    return {
        record.header.accession: (record.sequence, f"{path}, line {record.line}")
        for path in paths
        for record in read_proteins(path)
    }
