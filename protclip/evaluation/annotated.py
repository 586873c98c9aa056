"""Tasks that are made of the GO terms of UniProt's entries: similarity of proteins, and retrieval by terms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from protclip import files
from protclip.errors import DataError
from protclip.evaluation.go_similarity import ROOTS, best_match_averages, information_content, lin_similarities
from protclip.evaluation.readers.found import DataFolder
from protclip.evaluation.readers.ontology import Term, read_go_links, read_obo
from protclip.evaluation.rows import Rows
from protclip.evaluation.task import Benchmark
from protclip.hashing import hash64
from protclip.uniprot.entry import Entry
from protclip.uniprot.formats import open_entries
from protclip.uniprot.streams import open_stream, read_blocks

NUM_PAIRS = 20_000
MAX_PROTEINS = 2000
"""Of more, those with the least hash are taken: the similarities of all pairs are in memory."""
ELECTRONIC = "IEA"
"""The code of terms that a program gave: most by likeness of sequences, which a model of sequences would find again."""
ENTRIES = ("go_semantic/entries.dat", "../uniprot/sample_1216.dat")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Annotated:
    """Proteins with their terms of one namespace, each as far as it is in the ontology."""

    terms: Mapping[str, Term]
    counts: Mapping[str, int]
    sequences: Mapping[str, str]
    """By accession; the first accession of each sequence."""
    terms_of: Mapping[str, list[str]]
    """By accession, sorted; at least one term."""


def read_similarity(root: str, namespace: str) -> Benchmark:
    """Pairs of proteins with their similarity by Lin and best matches, 0 to 1.

    Args:
        root: the data folder.
        namespace: a key of ROOTS.
    """
    folder, rows = DataFolder(root), Rows()
    annotated = _read(folder, namespace)
    accessions = sorted(annotated.terms_of, key=lambda accession: hash64(namespace, accession))[:MAX_PROTEINS]
    if len(accessions) < 2:
        raise DataError(f"{root}: {len(accessions)} protein has terms of {namespace}; a pair needs two.")
    names = sorted({name for accession in accessions for name in annotated.terms_of[accession]})
    place = {name: index for index, name in enumerate(names)}
    similar_PP = best_match_averages(
        lin_similarities(annotated.terms, annotated.counts, names),
        [[place[name] for name in annotated.terms_of[accession]] for accession in accessions],
    )
    proteins = [rows.protein(annotated.sequences[accession], accession, accession) for accession in accessions]
    first, second = np.triu_indices(len(accessions), k=1)
    chosen = np.random.default_rng(0).permutation(len(first))[:NUM_PAIRS]
    for a, b in zip(first[chosen], second[chosen], strict=True):
        rows.add("test", [proteins[a], proteins[b]], float(similar_PP[a, b]))
    number = f"{len(chosen):,} pairs of {len(accessions):,} proteins"
    note = f"not PROBE's pairs but {number}, seeded, with all terms but those of the evidence {ELECTRONIC}"
    return rows.benchmark(folder, float, notes=[note])


def read_retrieval(root: str) -> Benchmark:
    """Proteins with the definition of their most telling molecular function; several proteins may have the same."""
    folder, rows = DataFolder(root), Rows()
    namespace = "molecular_function"
    annotated = _read(folder, namespace)
    texts: dict[str, int] = {}
    for accession, names in annotated.terms_of.items():
        name = max(names, key=lambda name: information_content(annotated.counts, name, ROOTS[namespace]))
        text = f"FUNCTION: {annotated.terms[name].definition}"  # as ProtST's prompts are
        protein = rows.protein(annotated.sequences[accession], accession, accession)
        rows.add("test", [protein], texts.setdefault(text, len(texts)))
    note = "not ProtST's proteins, of which no list is published"
    return rows.benchmark(folder, int, texts=tuple(texts), notes=[note])


def _read(folder: DataFolder, namespace: str) -> _Annotated:
    terms, present = read_obo(folder.need("go_semantic/go-basic.obo"))
    counts = _read_counts(folder.need("go_semantic/frequency_counts_uniprot.json"))
    entries = folder.need(*ENTRIES)
    sequences: dict[str, str] = {}
    seen: set[str] = set()
    for entry in open_entries(entries):
        if not isinstance(entry, Entry):
            raise DataError(f"{entry}; mend or remove it.")
        if entry.sequence not in seen:
            seen.add(entry.sequence)
            sequences[entry.accession] = entry.sequence
    terms_of = {}
    for accession, links in read_go_links(entries):
        names = {present.get(name, name) for name, evidence in links if evidence != ELECTRONIC}
        known = sorted(name for name in names if name in terms and terms[name].namespace == namespace)
        without_root = [name for name in known if name != ROOTS[namespace]]
        if without_root and accession in sequences:
            terms_of[accession] = without_root
    return _Annotated(terms=terms, counts=counts, sequences=sequences, terms_of=terms_of)


def _read_counts(path: str) -> dict[str, int]:
    with open_stream(path) as stream:
        counts = files.parse_json(b"".join(read_blocks(stream, path)).decode(), path)
    if not isinstance(counts, dict) or not all(isinstance(count, int) for count in counts.values()):
        raise DataError(f"{path}: must be one JSON object with a whole number for each term; fetch it again.")
    return counts
