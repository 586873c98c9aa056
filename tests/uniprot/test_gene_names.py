"""Gene names: all of an entry's genes in its order, each name once, and nothing made of what is no name."""

from __future__ import annotations

import csv
import gzip
import io
from pathlib import Path

import pytest

from protclip.uniprot.entry import Entry
from protclip.uniprot.formats import open_entries
from protclip.uniprot.gene_names import parse_gene_cells, parse_gene_lines
from protclip.uniprot.table import read_table

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("lines", "names"),
    [
        ("", ""),
        ("Name=SOX17;", "SOX17"),
        ("Name=ACS11; OrderedLocusNames=At4g08040; ORFNames=T17A2.2;", "ACS11|At4g08040|T17A2.2"),
        ("Name=APP {ECO:0000312|HGNC:HGNC:620}; Synonyms=A4, AD1;", "APP|A4|AD1"),
        ("Name=MGF 505-3R; Synonyms=a b, c;", "MGF 505-3R|a b|c"),
        ("Synonyms=cryB1 {ECO:0000303|PubMed:1}, cryII, cryIIA(a);", "cryB1|cryII|cryIIA(a)"),
        ("Name=HBA1;\nand\nName=HBA2; Synonyms=HBA1, HBZ;", "HBA1|HBA2|HBZ"),
        (
            "Synonyms=anon-EST:Posey231 {ECO:0000313|EMBL:AAF58838.2}, CCD\n{ECO:0000313|EMBL:AAF58838.2}, CCS\n"
            "{ECO:0000313|EMBL:AAF58838.2},\nDmel\\CG17753 {ECO:0000313|EMBL:AAF58838.2,\nECO:0000313|FlyBase:F10531};",
            "anon-EST:Posey231|CCD|CCS|Dmel\\CG17753",
        ),
        ("Name=RPLP0,PPIA; ORFNames=HLA-\nA {ECO:0000255|HAMAP-\nRule:MF_1};", "RPLP0,PPIA|HLA-A"),
        ("Name=NA;", "NA"),  # neuraminidase
        ("Name=nov{alpha} {EI1};", "nov{alpha}"),
        # Damaged lines, and those of releases before 2004.
        ("Name=A {ECO:0000303|PubMed:1; ORFNames=B;", "A|B"),
        ("Name=A\nand\nName=B", "A|B"),
        ("Name=; Synonyms=, ,A, ; ORFNames", "A"),
        ("Name=A;; ;and;=B;Nmae=C; Names=D;", "A"),
        ("HNS OR OSMZ OR BGLY.", ""),
        ("and\nand\n;\n{ECO:1}", ""),
    ],
)
def test_lines_give_the_names_of_all_genes_without_evidence(lines: str, names: str) -> None:
    assert parse_gene_lines(lines.split("\n") if lines else []) == tuple(filter(None, names.split("|")))


@pytest.mark.parametrize(
    ("cells", "names"),
    [
        ([""], ""),
        (["; "], ""),  # of two genes without a name of this kind
        (["GPER LOC107 G4P62_4886", "GPER", "LOC107", "", "G4P62_4886"], "GPER|LOC107|G4P62_4886"),
        (["HBA1 A; HBA2 A B"], "HBA1|A|HBA2|B"),
        (["Tha p 2"], "Tha|p|2"),
        (["Tha p 2 x y", "Tha p 2"], "Tha p 2|x|y"),
        (["o1; Tha p 2 x; z", "; Tha p 2; "], "o1|Tha p 2|x|z"),
        (["nov2 a", "nov"], "nov2|a"),  # not the beginning of another name
        (["a b", "c; d; e"], "a|b"),
        (["A, B,C;D"], "A|B,C|D"),
        (["", "A; B", "a1 a2; b1", "; lb", "oa; ob"], "A|a1|a2|oa|B|b1|lb|ob"),
        (["", "", "a1; b1", "", "oa; ob"], "a1|oa|b1|ob"),
        (["", "A"], "A"),
        (["", "A", "a; b; c"], "A|a|b|c"),
        (["-", "NA", "nan", ";", "none"], ""),
    ],
)
def test_cells_of_a_table_give_them_gene_by_gene(cells: list[str], names: str) -> None:
    assert parse_gene_cells(*cells) == tuple(filter(None, names.split("|")))


def test_columns_go_by_their_names_on_the_website_old_and_new_and_in_the_api() -> None:
    for columns in (
        ["Gene Names (primary)", "Gene Names (synonym)", "Gene Names (ordered locus)", "Gene Names (ORF)"],
        ["Gene names  (primary )", "Gene names  (synonym )", "Gene names  (ordered locus )", "Gene names  (ORF )"],
        ["gene_primary", "gene_synonym", "gene_oln", "gene_orf"],
    ):
        text = "\t".join(["Entry", "Sequence", *columns]) + "\nQ1\tMKV\tA\tb c\td\te\n"
        assert list(read_table(io.BytesIO(text.encode()), "x.tsv")) == [
            Entry(accession="Q1", sequence="MKV", gene=("A", "b", "c", "d", "e"))
        ]


def entries(path: Path) -> list[Entry]:
    return [entry for entry in open_entries(str(path)) if isinstance(entry, Entry)]


def test_names_of_real_flat_files_come_without_marks_and_survive_a_table(real_data: Path) -> None:
    flat = entries(real_data / "uniprot/sample_1216.dat.gz")
    by_accession = {entry.accession: entry.gene for entry in flat}
    assert by_accession["A0A075TMP8"] == ("patI", "PEX2_082860")
    with_genes = [entry for entry in flat if entry.gene]
    with gzip.open(real_data / "uniprot/sample_1216.dat.gz", "rt") as stream:
        texts = stream.read().split("\n//\n")
    assert len(with_genes) == sum("\nGN   " in text for text in texts) > 1100
    for entry in with_genes:
        assert all(name == name.strip() and not set(name) & set(";={}") for name in entry.gene)
        assert len(set(entry.gene)) == len(entry.gene)
    rows = "".join(f"{e.accession}\tM\t{' '.join(e.gene)}\t{e.gene[0] if e.gene else ''}\n" for e in flat)
    header = "Entry\tSequence\tGene Names\tGene Names (primary)\n"
    read = [entry for entry in read_table(io.BytesIO((header + rows).encode()), "x.tsv") if isinstance(entry, Entry)]
    different = [(e.gene, t.gene) for e, t in zip(flat, read, strict=True) if e.gene != t.gene]
    # What a table cannot say: a blank in a name that is not the first.
    assert all(any(" " in name for name in gene[1:]) for gene, _ in different) and len(different) < 10


def test_the_columns_of_a_real_export_say_the_same_with_and_without_the_one_that_has_all(real_data: Path) -> None:
    path = real_data / "uniprot/trembl_export_186.csv.gz"
    whole = entries(path)
    with gzip.open(path, "rt", encoding="utf-8-sig", newline="") as stream:
        header, *rows = csv.reader(stream)
    kept = [i for i, name in enumerate(header) if name != "Gene Names"]
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([[row[i] for i in kept] for row in (header, *rows)])
    parts = [e for e in read_table(io.BytesIO(text.getvalue().encode()), "x.csv") if isinstance(e, Entry)]
    assert [entry.gene for entry in parts] == [entry.gene for entry in whole]
    assert sum(bool(entry.gene) for entry in whole) > 150


def test_a_real_fasta_has_one_name_each(real_data: Path) -> None:
    genes = [entry.gene for entry in entries(real_data / "uniprot/sequences_20000.fasta.gz")]
    assert sum(len(gene) for gene in genes) == 17_467 and max(map(len, genes)) == 1
    assert ("MGF 505-3R",) in genes
