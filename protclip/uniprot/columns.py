"""Columns go by their name: whatever its case is and whatever stands between its letters."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence

from protclip.uniprot.cells import fold

COLUMNS = {
    "accession": ("Entry", "accession"),
    "entry_name": ("Entry name", "id"),
    "reviewed": ("Reviewed", "Status"),
    "name": ("Protein names", "protein_name"),
    "organism": ("Organism", "organism_name"),
    "organism_id": ("Organism (ID)", "Taxonomic ID"),
    "sequence": ("Sequence",),
    "length": ("Length",),
    "existence": ("Protein existence",),
    "ec": ("EC number", "ec"),
    "gene": ("Gene Names", "gene_names", "gene"),
    "gene_primary": ("Gene Names (primary)", "gene_primary"),
    "gene_synonym": ("Gene Names (synonym)", "gene_synonym"),
    "gene_locus": ("Gene Names (ordered locus)", "gene_oln"),
    "gene_orf": ("Gene Names (ORF)", "gene_orf"),
    "function": ("Function [CC]", "cc_function", "Function"),
    "subcellular_location": ("Subcellular location [CC]", "cc_subcellular_location", "Subcellular location"),
    "similarity": ("Sequence similarities", "cc_similarity"),
    "families": ("Protein families",),
}
"""The names of each column, on the website and in the REST API; an earlier one wins."""

_FIELDS = {fold(name): field for field, names in COLUMNS.items() for name in names}
_ALIKE = 0.75


def find_column(header: Sequence[str], names: Iterable[str]) -> int | None:
    """The place of the first of the names that a header has; one that is written alike wins over one that is not."""
    folded = [fold(cell) for cell in header]
    for name in names:
        for cells, wanted in ((header, name), (folded, fold(name))):
            if wanted in cells:
                return cells.index(wanted)
    return None


def find_columns(header: Sequence[str]) -> dict[str, int]:
    """The places of the columns that a header has, by field of COLUMNS."""
    places = {field: find_column(header, names) for field, names in COLUMNS.items()}
    return {field: place for field, place in places.items() if place is not None}


def describe_unused(header: Sequence[str], index: Mapping[str, int]) -> str | None:
    """The columns that are not read, each with what was probably meant; None where all are.

    Args:
        header: of a table.
        index: what ``find_columns`` found in it.
    """
    absent = [name for name, field in _FIELDS.items() if field not in index]
    described = []
    for i, name in enumerate(header):
        if i in index.values() or not fold(name):
            continue
        near = difflib.get_close_matches(fold(name), absent, n=1, cutoff=_ALIKE)
        if (field := _FIELDS.get(fold(name))) is not None:
            described.append(f"{name!r} (read is {header[index[field]]!r})")
        else:
            described.append(f"{name!r}" + (f" (did you mean {COLUMNS[_FIELDS[near[0]]][0]!r}?)" if near else ""))
    return ", ".join(described) or None


def nearest(header: Sequence[str], field: str) -> str | None:
    """The column that was probably meant as this field, which the header lacks."""
    by_name = {fold(cell): cell for cell in header}
    found = (difflib.get_close_matches(fold(name), list(by_name), n=1, cutoff=_ALIKE) for name in COLUMNS[field])
    return next((by_name[near[0]] for near in found if near), None)
