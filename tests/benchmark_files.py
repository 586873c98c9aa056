"""Small seeded benchmarks with a signal in them, and files of them in each published format.

The signal is in the composition: a protein of class c is rich in LETTERS[c], one with a high number in LETTERS[0]. So
mean-pooled features of any encoder that tells residues apart predict the labels, and shuffled labels nothing does.
"""

from __future__ import annotations

import csv
import json
import pickle
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import lmdb
import numpy as np

from protclip.evaluation.chains import BRANCHES
from protclip.evaluation.interactions import MODES
from protclip.evaluation.knowledge_graph import NODE_TYPES, PROTEIN
from protclip.evaluation.labelled import AAV_REGION, LOCATIONS, MEMBRANE
from protclip.evaluation.task import Benchmark, Kind, Split
from protclip.uniprot.crc64 import crc64

LETTERS = "WHCMYFPQ"
BACKGROUND = "ADEGIKLNRSTV"
SIZES = {"train": 96, "valid": 32, "test": 64}
NUM_CLASSES = 4


def planted(
    kind: Kind,
    seed: int,
    *,
    shuffled: bool = False,
    pairs: bool = False,
    num_classes: int = NUM_CLASSES,
    sizes: dict[str, int] | None = None,
) -> Benchmark:
    """A benchmark whose labels are in the composition of its sequences, all of which are distinct.

    Args:
        kind: of the task. Of a similarity, a retrieval and a zero-shot task there is a test split alone.
        seed: of the sequences and labels.
        shuffled: whether labels are permuted within each split, so that nothing is to be learned.
        pairs: of labels: whether a row is two proteins, which share their labels.
        num_classes: of classes and labels, at least NUM_CLASSES; the first NUM_CLASSES of them occur.
        sizes: rows of each split; SIZES if None.
    """
    generator = np.random.default_rng(seed)
    benchmark = _planted(kind, generator, pairs, num_classes, sizes or SIZES)
    if not shuffled:
        return benchmark
    splits = {
        name: replace(split, labels=split.labels[generator.permutation(len(split.labels))])
        for name, split in benchmark.splits.items()
    }
    return replace(benchmark, splits=splits)


def _planted(
    kind: Kind, generator: np.random.Generator, pairs: bool, num_classes: int, sizes: dict[str, int]
) -> Benchmark:
    sequences: list[str] = []
    splits = {}
    width = 2 if pairs or kind == "similarity" else 1
    names = ("test",) if kind in ("similarity", "retrieval", "zero-shot") else tuple(sizes)
    for name in names:
        places, labels = [], []
        for _ in range(sizes[name]):
            shares = np.zeros((width, len(LETTERS)))
            label: Any
            if kind == "regression":
                label = round(float(generator.uniform(0, 0.6)), 6)
                shares[0, 0] = label
            elif kind == "similarity":
                shares[:, 0] = generator.uniform(0, 0.6, 2)
                label = round(1 - float(abs(shares[0, 0] - shares[1, 0])), 6)
            elif kind == "labels":
                label = np.zeros(num_classes, bool)
                label[generator.choice(NUM_CLASSES, generator.integers(1, 3), replace=False)] = True
                shares[:, :NUM_CLASSES] = 0.25 * label[:NUM_CLASSES]
            else:
                label = int(generator.integers(NUM_CLASSES))
                shares[:, label] = 0.4
            places.append([len(sequences) + place for place in range(width)])
            sequences += [_sequence(generator, row) for row in shares]
            labels.append(label)
        splits[name] = Split(proteins_NK=np.array(places, np.int64), labels=np.array(labels))
    assert len(set(sequences)) == len(sequences)
    has_classes = kind in ("classes", "labels", "zero-shot")
    has_texts = kind in ("retrieval", "graph", "zero-shot")
    return Benchmark(
        ids=tuple(f"P{place}" for place in range(len(sequences))),
        sequences=tuple(sequences),
        splits=splits,
        classes=tuple(f"class {place}" for place in range(num_classes)) if has_classes else (),
        texts=tuple(f"A protein that is rich in {letter}" for letter in LETTERS[:num_classes]) if has_texts else (),
    )


def _sequence(generator: np.random.Generator, shares: np.ndarray) -> str:
    """40 to 80 residues with these shares of LETTERS, in any order."""
    length = int(generator.integers(40, 81))
    counts = np.round(shares * length).astype(int)
    marked = "".join(letter * count for letter, count in zip(LETTERS, counts, strict=True))
    others = generator.choice(list(BACKGROUND), length - len(marked))
    return "".join(generator.permutation([*marked, *others]))


SMALL = {"train": 24, "valid": 8, "test": 12}


def write_folder(folder: Path, seed: int, *, shuffled: bool = False) -> dict[str, Benchmark]:
    """A data folder with small files of every task in its published format; the planted rows of each by task.

    They are given where the files hold splits, so that what is read must be the same.
    """
    made: dict[str, Benchmark] = {}

    def plant(task: str, kind: Kind, num_classes: int = NUM_CLASSES) -> Benchmark:
        made[task] = planted(kind, seed + len(made), shuffled=shuffled, num_classes=num_classes, sizes=SMALL)
        return made[task]

    for name, field in (
        ("beta_lactamase", "scaled_effect1"),
        ("fluorescence", "log_fluorescence"),
        ("stability", "stability_score"),
    ):
        write_lmdb(folder / name / name, plant(name, "regression"), field, as_array=name != "beta_lactamase")
    write_flip(folder / "aav/two_vs_many.csv", plant("aav", "regression"), before="A" * AAV_REGION.start)
    write_flip(folder / "thermostability/human_cell.csv", plant("thermostability", "regression"))
    name = "subcellular_localization"
    write_json_lines(folder / name, plant(name, "classes", len(LOCATIONS)))
    binary = planted("classes", seed, shuffled=shuffled, sizes=SMALL)
    halves = {split: replace(rows, labels=rows.labels % len(MEMBRANE)) for split, rows in binary.splits.items()}
    made["binary_localization"] = replace(binary, splits=halves)
    write_lmdb(folder / f"{name}_2" / f"{name}_2", made["binary_localization"], "localization")
    write_deepfri(folder / "ec_go/nrPDB-EC_2020.04", {"EC-numbers": plant("ec", "labels", 538)})
    go = {}
    for shift, (branch, count) in enumerate(zip(BRANCHES, (489, 1943, 320), strict=True)):
        rows = planted("labels", seed, shuffled=shuffled, num_classes=count, sizes=SMALL)
        splits = {
            split: Split(proteins_NK=part.proteins_NK, labels=np.roll(part.labels, shift, axis=1))
            for split, part in rows.splits.items()
        }
        go[branch] = replace(rows, splits=splits)  # the same proteins, and of each branch other labels
    write_deepfri(folder / "ec_go/nrPDB-GO_2019.06.18", {f"GO-terms ({branch})": rows for branch, rows in go.items()})
    made |= {f"go_{short}": go[branch] for short, branch in zip(("mf", "bp", "cc"), BRANCHES, strict=True)}
    _write(folder / "reaction/unique_functions.txt", "".join(f"1.1.1.{place}\n" for place in range(384)))
    write_lmdb(folder / "Reaction/Reaction", plant("reaction", "classes", 384), "label")
    for name in ("SHS27k", "SHS148k"):
        write_interactions(folder / f"ppi_{name.lower()}", name, seed)
    write_annotated(folder / "go_semantic", seed)
    made |= write_graph(folder, seed, shuffled=shuffled)
    for name, count in (("subloc", len(LOCATIONS)), ("reaction", 384)):
        lines = [f"{place}\tIt is rich in {LETTERS[place % len(LETTERS)]}\tMore of it" for place in range(count)]
        _write(folder / f"prompts/{name}_template.tsv", "\n".join(["id\tname\tdescription", *lines]))
    return made


def write_table(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]], delimiter: str = ",") -> None:
    """A CSV file, or one that is cut by another delimiter."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.writer(file, delimiter=delimiter, lineterminator="\n")
        writer.writerows([header, *rows])


def rows_of(benchmark: Benchmark, split: str) -> list[tuple[str, Any]]:
    """(sequence of the first protein, label) of the rows of a split."""
    rows = benchmark.splits[split]
    return [
        (benchmark.sequences[place], label)
        for place, label in zip(rows.proteins_NK[:, 0], rows.labels.tolist(), strict=True)
    ]


def write_flip(path: Path, benchmark: Benchmark, before: str = "") -> None:
    """FLIP's CSV: sequence, with residues before it, target, set, validation."""
    rows = [
        (before + sequence, label, "test" if split == "test" else "train", "True" * (split == "valid"))
        for split in SMALL
        for sequence, label in rows_of(benchmark, split)
    ]
    write_table(path, ("sequence", "target", "set", "validation"), rows)


def write_json_lines(folder: Path, benchmark: Benchmark) -> None:
    """The ProtCLIP authors' JSON lines: seq, label."""
    for split in SMALL:
        lines = [json.dumps({"seq": seq, "label": label}) + "\n" for seq, label in rows_of(benchmark, split)]
        _write(folder / f"{split}.json", "".join(lines))


def write_lmdb(stem: Path, benchmark: Benchmark, field: str, *, as_array: bool = False) -> None:
    """TAPE's and PEER's LMDB: pickled records with the primary structure and a label."""
    for split in SMALL:
        records = [
            {"primary": seq, "protein_length": len(seq), field: np.array([label]) if as_array else label, "id": str(i)}
            for i, (seq, label) in enumerate(rows_of(benchmark, split))
        ]
        write_records(Path(f"{stem}_{split}.lmdb"), [pickle.dumps(record, protocol=4) for record in records])


def write_records(folder: Path, records: Sequence[bytes], *, count: int | None = None) -> None:
    """An LMDB folder of pickled records, which says that it holds so many."""
    folder.mkdir(parents=True)
    with lmdb.open(str(folder), map_size=1 << 22) as environment, environment.begin(write=True) as transaction:
        transaction.put(b"num_examples", pickle.dumps(len(records) if count is None else count, protocol=4))
        for index, record in enumerate(records):
            transaction.put(str(index).encode(), record)


def write_deepfri(stem: Path, branches: dict[str, Benchmark]) -> None:
    """DeepFRI's annotations, lists of chains and sequences; the branches have the same sequences."""
    first = next(iter(branches.values()))
    lines = []
    for heading, benchmark in branches.items():
        lines += [f"### {heading}", "\t".join(benchmark.classes)]
        if heading.startswith("GO"):
            lines += [f"### {heading.replace('terms', 'names')}", "\t".join(benchmark.classes)]
    lines.append("\t".join(["### PDB-chain", *branches]))
    for split, rows in first.splits.items():
        chains = [f"{place:04d}-A" for place in rows.proteins_NK[:, 0]]
        _write(Path(f"{stem}_{split}.txt"), "".join(f"{chain}\n" for chain in chains))
        for row, chain in enumerate(chains):
            cells = [
                ",".join(benchmark.classes[place] for place in np.flatnonzero(benchmark.splits[split].labels[row]))
                for benchmark in branches.values()
            ]
            lines.append("\t".join([chain, *cells]))
    _write(Path(f"{stem}_annot.tsv"), "\n".join(lines) + "\n")
    fasta = "".join(f">{place:04d}-A nrPDB\n{sequence}\n" for place, sequence in enumerate(first.sequences))
    _write(Path(f"{stem}_sequences.fasta"), fasta)


def write_interactions(folder: Path, name: str, seed: int, num_proteins: int = 60) -> None:
    """STRING's actions and GNN-PPI's table of sequences; two proteins rich in a letter have its kind of action."""
    generator = np.random.default_rng(seed)
    groups = generator.integers(0, len(MODES), num_proteins)
    shares = 0.4 * np.eye(len(LETTERS))[groups]
    names = [f"9606.ENSP{place:011d}" for place in range(num_proteins)]
    sequences = [f"{name}\t{_sequence(generator, share)}\n" for name, share in zip(names, shares, strict=True)]
    _write(folder / f"protein.{name}.sequences.dictionary.tsv", "".join(sequences))
    rows = []
    for place in range(num_proteins - 1):  # a path, so that all are connected, with branches
        for other in {place + 1, int(generator.integers(place + 1, num_proteins))}:
            for mode in {MODES[groups[place]], MODES[groups[other]]}:
                rows.append((names[place], names[other], mode, "", "f", "f", 900))
    header = ("item_id_a", "item_id_b", "mode", "action", "is_directional", "a_is_acting", "score")
    write_table(folder / f"protein.actions.{name}.STRING.txt", header, rows, "\t")


ROOT_TERMS = (
    ("GO:0003674", "molecular_function", "F"),
    ("GO:0008150", "biological_process", "P"),
    ("GO:0005575", "cellular_component", "C"),
)


def write_annotated(folder: Path, seed: int, num_entries: int = 30) -> None:
    """An ontology of three roots with NUM_CLASSES branches of two terms, its counts, and entries with links to it."""
    generator = np.random.default_rng(seed)
    stanzas, counts = ["format-version: 1.2\n"], {}
    for number, (root, namespace, _) in enumerate(ROOT_TERMS):
        stanzas.append(term_stanza(root, namespace, []))
        counts[root] = 100 * NUM_CLASSES
        for branch in range(NUM_CLASSES):
            upper, lower = (f"GO:{number}0{branch}000{level}" for level in (1, 2))
            stanzas += [term_stanza(upper, namespace, [root]), term_stanza(lower, namespace, [upper])]
            counts |= {upper: 100, lower: 10}
    _write(folder / "go-basic.obo", "\n".join(stanzas))
    _write(folder / "frequency_counts_uniprot.json", json.dumps(counts))
    entries = []
    for place in range(num_entries):
        branch = place % NUM_CLASSES
        links = [
            f"DR   GO; GO:{number}0{branch}000{1 + place % 2}; {letter}:some term; IDA:UniProtKB."
            for number, (_, _, letter) in enumerate(ROOT_TERMS)
        ]
        entries.append(entry_text(f"P{place:05d}", _sequence(generator, 0.4 * np.eye(len(LETTERS))[branch]), links))
    _write(folder / "entries.dat", "".join(entries))


def term_stanza(name: str, namespace: str, parents: Sequence[str], *more: str) -> str:
    """A term in OBO."""
    lines = [f"id: {name}", f"name: term {name}", f"namespace: {namespace}", f'def: "What {name} means." [GOC:x]']
    return "\n".join(["[Term]", *lines, *(f"is_a: {parent} ! its name" for parent in parents), *more]) + "\n"


def entry_text(accession: str, sequence: str, links: Sequence[str]) -> str:
    """An entry of a UniProtKB flat file with these DR lines."""
    lines = [
        f"ID   {accession}_HUMAN            Reviewed;         {len(sequence)} AA.",
        f"AC   {accession};",
        "DE   RecName: Full=A protein;",
        "OS   Homo sapiens (Human).",
        "OX   NCBI_TaxID=9606;",
        *links,
        "PE   1: Evidence at protein level;",
        f"SQ   SEQUENCE   {len(sequence)} AA;  1000 MW;  {crc64(sequence.encode()):016X} CRC64;",
        f"     {sequence}",
        "//",
    ]
    return "\n".join(lines) + "\n"


NUM_DISEASES = 5 * NUM_CLASSES
"""Of each split."""
_GRAPH_FILES = {
    "kg_protein_bp": ("biological_process", "biological.csv"),
    "kg_protein_mf": ("molecular_function", "molecular.csv"),
    "kg_protein_cc": ("cellular_component", "cellular.csv"),
    "kg_protein_drug": ("drug", "drug.csv"),
    "kg_disease_protein": ("disease", "disease.csv"),
}


def write_graph(folder: Path, seed: int, *, shuffled: bool = False) -> dict[str, Benchmark]:
    """BioBridge's files of nodes and of triplets, in both directions; the planted edges of each task.

    Of a disease all edges are in one split, as BioBridge holds out what edges start at.
    """
    made, proteins = {}, []
    triplets: dict[str, list[tuple[object, ...]]] = {"train": [], "test": []}
    node = 0
    for place, (task, (kind, file)) in enumerate(_GRAPH_FILES.items()):
        rows = planted("graph", seed + place, shuffled=shuffled, sizes={"train": 32, "test": 12})
        made[task] = rows
        first = node
        proteins += [(first + i, i, PROTEIN, f"gene {i}", "NCBI", seq) for i, seq in enumerate(rows.sequences)]
        node += len(rows.sequences)
        is_disease = kind == "disease"
        copies = NUM_DISEASES // NUM_CLASSES if is_disease else 1
        described = [
            (node + i, i, kind, f"{text} ({i})", "GO", "As it says") for i, text in enumerate(rows.texts * 2 * copies)
        ]
        # Each split has diseases of its own, so that none is on both sides.
        texts = {split: node + NUM_DISEASES * (is_disease and split == "test") for split in triplets}
        node += len(described)
        if kind == "drug":
            write_table(
                folder / "Processed" / file,
                ("node_index", "node_name", "smiles"),
                [r[:1] + r[3:4] * 2 for r in described],
            )
        elif is_disease:
            write_table(
                folder / "Processed" / file,
                ("node_index", "mondo_id", "mondo_name", "definition"),
                [(r[0], r[1], r[3], r[5]) for r in described],
            )
        else:
            header = ("node_index", "node_id", "node_type", "node_name", "node_source", "description")
            write_table(folder / "Processed" / file, header, described)
        for split, rows_of_split in rows.splits.items():
            for i, (protein, label) in enumerate(
                zip(rows_of_split.proteins_NK[:, 0], rows_of_split.labels, strict=True)
            ):
                text = texts[split] + label + NUM_CLASSES * (i % copies)
                ends = [(first + protein, NODE_TYPES[PROTEIN]), (text, NODE_TYPES[kind])]
                (a, a_type), (b, b_type) = reversed(ends) if is_disease else ends
                triplets[split].append((a, b, 2, "some_relation", a_type, b_type))
    header = ("node_index", "node_id", "node_type", "node_name", "node_source", "sequence")
    write_table(folder / "Processed/protein.csv", header, proteins)
    for split, lines in triplets.items():
        header = ("x_index", "y_index", "display_relation", "relation", "x_type", "y_type")
        write_table(folder / f"BindData/train_test_split/triplet_{split}.csv", header, lines)
    return made


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
