"""Tasks that are a label for each protein of a file: a number, or one of few classes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from protclip.errors import DataError
from protclip.evaluation.readers.found import DataFolder
from protclip.evaluation.readers.numbers import class_number, number
from protclip.evaluation.readers.records import read_records
from protclip.evaluation.rows import SPLITS, Rows, other_counts
from protclip.evaluation.task import Benchmark
from protclip.uniprot.fasta import read_proteins

BETA_LACTAMASE = {"train": 4158, "valid": 520, "test": 520}
FLUORESCENCE = {"train": 21446, "valid": 5362, "test": 27217}
STABILITY = {"train": 53614, "valid": 2512, "test": 12851}
AAV = {"train+valid": 31807, "test": 50776}
THERMOSTABILITY = {"train+valid": 5792, "test": 1366}
BINARY = {"train": 5161, "valid": 1727, "test": 1746}
SUBCELLULAR = {"train": 8945, "valid": 2248, "test": 2768}

MEMBRANE = ("membrane-bound", "soluble")
LOCATIONS = (
    "Cell membrane",
    "Cytoplasm",
    "Endoplasmic reticulum",
    "Golgi apparatus",
    "Lysosome/Vacuole",
    "Mitochondrion",
    "Nucleus",
    "Peroxisome",
    "Plastid",
    "Extracellular",
)
"""Both in the order of PEER's numbers."""

AAV_REGION = slice(474, 674)
"""Of FLIP's sequences, from 0 and half-open: what ProtST cuts out (``protst/dataset.py``)."""
LOCATION_RESIDUES = 1000
"""PEER and InstructProtein keep the beginning alone of longer proteins."""

_SEQUENCE = ("seq", "sequence", "primary")
_LABEL = ("label", "target", "localization", "log_fluorescence", "stability_score", "scaled_effect1")


def read_numbers(root: str, name: str, published: Mapping[str, int]) -> Benchmark:
    """A regression that has a file for each split.

    Args:
        root: the data folder.
        name: of the folder in it.
        published: rows of each split.
    """
    folder, rows = DataFolder(root), Rows()
    for split in SPLITS:
        _add_file(rows, split, folder.need(*_names(name, split)), number)
    return rows.benchmark(folder, float, notes=[other_counts(rows, published)])


def read_classes(
    root: str, name: str, classes: Sequence[str], published: Mapping[str, int], *, lmdb: str = ""
) -> Benchmark:
    """A classification that has a file for each split, with numbers of classes.

    Args:
        root, name, published: as of ``read_numbers``.
        classes: in the order of their numbers.
        lmdb: of PEER's files, where they are not named as the folder.
    """
    folder, rows = DataFolder(root), Rows()
    for split in SPLITS:
        _add_file(rows, split, folder.need(*_names(name, split, lmdb)), _number_of(classes))
    return rows.benchmark(folder, int, classes=classes, notes=[other_counts(rows, published)])


def read_beta_lactamase(root: str) -> Benchmark:
    """β-lactamase in PEER's splits; or the variants of ESM's FASTA file, split anew into as many."""
    folder, rows = DataFolder(root), Rows()
    if folder.find(*_names("beta_lactamase", "test")):
        return read_numbers(root, "beta_lactamase", BETA_LACTAMASE)
    path = folder.need("beta_lactamase/P62593.fasta", *_names("beta_lactamase", "train"))
    for record in read_proteins(path):
        where = f"{path}, line {record.line}"
        variant, value = _variant(record.header.accession, where)
        if variant[0] != variant[-1]:  # else the wild type again, as which PEER does not count it
            protein = rows.protein(record.sequence, variant, where)
            rows.add("train", [protein], number(value, where))
    total = sum(BETA_LACTAMASE.values())
    rows.hold_out("test", BETA_LACTAMASE["test"] / total)
    rows.hold_out("valid", BETA_LACTAMASE["valid"] / (total - BETA_LACTAMASE["test"]))
    note = "PEER's splits are not there: its variants were split anew, at random (seeded)"
    return rows.benchmark(folder, float, notes=[note, other_counts(rows, BETA_LACTAMASE)])


def read_aav(root: str) -> Benchmark:
    """AAV in FLIP's split two_vs_many, the region that was mutated alone."""
    return _read_flip(root, ["aav/two_vs_many.csv"], AAV, region=AAV_REGION)


def read_thermostability(root: str) -> Benchmark:
    """Thermostability in FLIP's split human_cell; or in ``clustered``, which is another one."""
    return _read_flip(root, ["thermostability/human_cell.csv", "thermostability/clustered.csv"], THERMOSTABILITY)


def read_subcellular(root: str) -> Benchmark:
    """Ten locations in DeepLoc's splits; where ``train`` is not there, with another of what else is."""
    folder, rows = DataFolder(root), Rows()
    name, lmdb = "subcellular_localization", "subcellular_localization/subcellular_localization"
    fasta = "subcellular_localization/light_attention_valid.fasta"
    if folder.find(*_names(name, "train")) or not folder.find(fasta):
        return read_classes(root, name, LOCATIONS, SUBCELLULAR, lmdb=lmdb)
    _add_file(rows, "test", folder.need(*_names(name, "test")), _number_of(LOCATIONS))
    _add_file(rows, "train", folder.need(*_names(name, "valid")), _number_of(LOCATIONS))
    known = set(rows.place)
    path = folder.need(fasta)
    for record in read_proteins(path):
        location = (record.header.name or "").split("-")
        sequence = record.sequence[:LOCATION_RESIDUES]
        if len(location) == 2 and sequence not in known:  # three words: Cytoplasm-Nucleus, which is not one of the ten
            where = f"{path}, line {record.line}"
            protein = rows.protein(sequence, record.header.accession, where)
            rows.add("train", [protein], _location(location[0], where))
    rows.hold_out("valid", 0.2)
    note = (
        "DeepLoc's train is not there: train and valid are its valid and Light Attention's, put together and split "
        "anew (seeded)"
    )
    return rows.benchmark(folder, int, classes=LOCATIONS, notes=[note, other_counts(rows, SUBCELLULAR)])


def _read_flip(root: str, names: Sequence[str], published: Mapping[str, int], region: slice = slice(None)) -> Benchmark:
    """A file of FLIP: sequence, target, set, and validation where a row of train is for that."""
    folder, rows = DataFolder(root), Rows()
    path = folder.need(*names)
    notes = []
    if path.removesuffix(".gz").endswith(names[0]):
        fields = [_SEQUENCE, _LABEL, ("set",), ("validation",)]
    else:
        fields = [_SEQUENCE, _LABEL, ("set",)]
    for index, (where, (sequence, label, part, *validation)) in enumerate(read_records(path, *fields)):
        if part not in ("train", "test"):
            raise DataError(f"{where}: the set is {part!r}; it must be train or test.")
        split = "valid" if part == "train" and validation and validation[0].lower() == "true" else part
        rows.add(split, [rows.protein(sequence[region], f"row {index}", where)], number(label, where))
    if len(fields) == 3:
        rows.hold_out("valid", 0.1)
        other, expected = path.rsplit("/", 1)[-1], names[0].rsplit("/", 1)[-1]
        notes.append(
            f"another split of FLIP's: {other} instead of {expected}, its valid a seeded share of its train's proteins"
        )
    return rows.benchmark(folder, float, notes=[*notes, other_counts(rows, published)])


def _names(name: str, split: str, lmdb: str = "") -> tuple[str, ...]:
    """What the file of a split may be called: tables, the authors' JSON lines, PEER's LMDB."""
    return (
        f"{name}/{split}.csv",
        f"{name}/{split}.json",
        f"{lmdb or f'{name}/{name}'}_{split}.lmdb/data.mdb",
    )


def _add_file(rows: Rows, split: str, path: str, label: Callable[[Any, str], float]) -> None:
    for index, (where, (sequence, value)) in enumerate(read_records(path, _SEQUENCE, _LABEL)):
        rows.add(split, [rows.protein(sequence, f"{split} {index}", where)], label(value, where))


def _number_of(classes: Sequence[str]) -> Callable[[Any, str], float]:
    return lambda value, where: class_number(value, len(classes), where)


def _location(word: str, where: str) -> int:
    """The number of a location in the words of DeepLoc's FASTA files, such as ``Cell.membrane``."""
    name = word.replace(".", " ")
    if name not in LOCATIONS:
        raise DataError(f"{where}: the location is {name!r}; it must be one of {', '.join(LOCATIONS)}.")
    return LOCATIONS.index(name)


def _variant(accession: str, where: str) -> tuple[str, str]:
    """Substitution and fitness of ``0|beta-lactamase_P20S|1.58``."""
    parts = accession.split("|")
    if len(parts) != 3 or not parts[1].rpartition("_")[2]:
        raise DataError(f"{where}: the header is {accession[:100]!r}; it must be as '0|beta-lactamase_P20S|1.58'.")
    return parts[1].rpartition("_")[2], parts[2]
