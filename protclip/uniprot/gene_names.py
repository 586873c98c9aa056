"""The names of a protein's genes: of each its name, synonyms, ordered locus names and names of open reading frames.

    GN   Name=HBA1;                                      →  HBA1, HBA2, HBZ
    GN   and
    GN   Name=HBA2 {ECO:0000269|PubMed:1}; Synonyms=HBZ;

The genes stand one behind the other, and a name comes once.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import zip_longest

from protclip.uniprot.cells import means_nothing
from protclip.uniprot.protein_names import unwrap

_KINDS = ("Synonyms", "OrderedLocusNames", "ORFNames")
# One that is not closed, in a damaged line, ends with its field.
_EVIDENCE = re.compile(r"\s*\{(?:ECO:|EI\d)(?:[^{}]*\}|[^{};]*)")


def each_once(names: Iterable[str]) -> tuple[str, ...]:
    """The names that are not empty, each where it comes first."""
    return tuple(dict.fromkeys(filter(None, names)))


def parse_gene_lines(lines: Sequence[str]) -> tuple[str, ...]:
    """Parse GN lines; what is no field of theirs, as in releases before 2004, gives nothing.

    Args:
        lines: the lines without their line code.
    """
    if not lines:
        return ()
    text = unwrap([";" if line.strip() == "and" else line for line in lines])
    if "{" in text:
        text = _EVIDENCE.sub("", text)
    names: list[str] = []
    for field in text.split(";"):
        kind, _, value = field.strip().partition("=")
        if kind == "Name":
            names.append(value.strip())
        elif kind in _KINDS:
            names += (name.strip(" ,") for name in value.split(", "))
    return each_once(names)


def parse_gene_cells(names: str, primary: str = "", *others: str) -> tuple[str, ...]:
    """Parse the cells of a table, as UniProt writes them: genes are cut at ``;``, and names at blanks.

    ``Gene Names`` has all. A name with a blank in it, such as ``Tha p 2``, is whole only in ``Gene Names (primary)``,
    from where it is taken. Without ``Gene Names`` the cells of the single kinds, which are empty where a gene has no
    such name, are put together gene by gene.

    Args:
        names: of the column ``Gene Names``.
        primary: of ``Gene Names (primary)``.
        others: of the synonyms, the ordered locus names and the open reading frames.
    """
    if not any((names, primary, *others)):
        return ()
    genes, first = _genes(names), _genes(primary)
    if not genes:
        kinds = [[[name] for name in first], *([_words(gene) for gene in _genes(cell)] for cell in others)]
        return each_once(name for gene in zip_longest(*kinds, fillvalue=[]) for kind in gene for name in kind)
    found: list[str] = []
    for gene, name in zip_longest(genes, first[: len(genes)], fillvalue=""):
        if name and gene.startswith(name) and gene[len(name) : len(name) + 1] in ("", " "):
            found += [name, *_words(gene[len(name) :])]
        else:
            found += _words(gene)
    return each_once(found)


def _genes(cell: str) -> list[str]:
    return [] if means_nothing(cell) else [gene.strip() for gene in cell.split(";")]


def _words(text: str) -> list[str]:
    return [word.strip(",") for word in text.split()]
