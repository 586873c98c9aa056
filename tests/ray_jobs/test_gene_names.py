"""Gene names from a file of any format to the filter that asks for them; and folders of versions that knew none."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from index_folders import unit_vectors, write_embeddings
from older_folders import without_genes
from pairs_folders import row, write_pairs

from protclip.data.tokenize import biotexts
from protclip.embeddings.blocks import BLOCK_SCHEMA, pairs_blocks, read_block
from protclip.embeddings.inputs import find_inputs, read_rows
from protclip.embeddings.reading import METADATA, read_embeddings
from protclip.index.build import build_from
from protclip.index.config import IndexConfig
from protclip.index.filters import parse_filter
from protclip.index.index import Index
from protclip.manifest import read_manifest
from protclip.protanno.blocks import cut_blocks
from protclip.protanno.changes import write_changes
from protclip.protanno.reading import CurationConfig, read_unit
from protclip.protanno.sampling import SamplingConfig
from protclip.protanno.shards import read_pairs, read_row_group
from protclip.protanno.statistics import pairs_statistics
from protclip.uniprot.crc64 import crc64
from protclip.uniprot.entry import BadEntry, Entry

pytestmark = pytest.mark.unit

SEQUENCE = (
    "MVLSPADKTNVKAAWGKVGAHAGEYGAEALERMFLSFPTTKTYFPHFDLSHGSAQVKGHGKKVADALTNAVAHVDDMPNALSALSDLHAHKLRVDPVNFKLLSHCLLVTLAAHLPAEFTPAVHAS"
    "LDKFLASVSTVLTSKYR"
)
CRC = f"{crc64(SEQUENCE.encode()):016X}"
GENES = ["HBA1", "HBA", "HBA2", "HBZ 2", "L-alpha_1"]
FLAT = f"""ID   HBA_HUMAN               Reviewed;         {len(SEQUENCE)} AA.
AC   P69905; P01922;
DE   RecName: Full=Hemoglobin subunit alpha;
GN   Name=HBA1 {{ECO:0000312|HGNC:HGNC:4823}}; Synonyms=HBA
GN   {{ECO:0000303|PubMed:1}};
GN   and
GN   Name=HBA2; Synonyms=HBA, HBZ 2; ORFNames=L-alpha_1;
OS   Homo sapiens (Human).
OX   NCBI_TaxID=9606;
PE   1: Evidence at protein level;
SQ   SEQUENCE   {len(SEQUENCE)} AA;  15258 MW;  {CRC} CRC64;
     {SEQUENCE}
//
"""
XML = f"""<uniprot xmlns="http://uniprot.org/uniprot"><entry dataset="Swiss-Prot"><accession>P69905</accession>
<name>HBA_HUMAN</name>
<gene><name type="primary" evidence="1">HBA1</name><name type="synonym">HBA</name></gene>
<gene><name type="primary">HBA2</name><name type="synonym">HBA</name><name type="synonym">HBZ 2</name>
<name type="ORF">L-alpha_1</name></gene>
<sequence length="{len(SEQUENCE)}" checksum="{CRC}">{SEQUENCE}</sequence></entry></uniprot>
"""
JSON = {
    "entryType": "UniProtKB reviewed (Swiss-Prot)",
    "primaryAccession": "P69905",
    "genes": [
        {"geneName": {"value": "HBA1", "evidences": [{"evidenceCode": "ECO:1"}]}, "synonyms": [{"value": "HBA"}]},
        {
            "geneName": {"value": "HBA2"},
            "synonyms": [{"value": "HBA"}, {"value": "HBZ 2"}],
            "orfNames": [{"value": "L-alpha_1"}],
        },
    ],
    "sequence": {"value": SEQUENCE, "length": len(SEQUENCE), "crc64": CRC},
}
HEADER = ("Entry", "Reviewed", "Gene Names", "Gene Names (primary)", "Sequence")
CELLS = ("P69905", "reviewed", "HBA1 HBA; HBA2 HBA HBZ 2 L-alpha_1", "HBA1; HBA2", SEQUENCE)
FILES = {
    "a.dat": FLAT,
    "a.xml": XML,
    "a.json": json.dumps({"results": [JSON]}),
    "a.jsonl": json.dumps(JSON) + "\n",
    "a.tsv": "".join("\t".join(cells) + "\n" for cells in (HEADER, CELLS)),
    "a.csv": "".join(",".join(f'"{cell}"' for cell in cells) + "\n" for cells in (HEADER, CELLS)),
    "a.fasta": f">sp|P69905|HBA_HUMAN Hemoglobin subunit alpha OS=Homo sapiens OX=9606 GN=HBA1 PE=1 SV=2\n{SEQUENCE}\n",
}


def tables(path: Path) -> Iterator[pa.Table]:
    """The file's rows as curate writes them, as embed takes them from pairs, and as embed reads the file itself."""
    (block,) = cut_blocks(str(path))
    config = CurationConfig(sampling=SamplingConfig(dataset="all"))
    read_unit(block, str(path.parent / "unit"), config)
    yield pq.read_table(path.parent / "unit.parquet")
    yield read_block({"path": str(path.parent / "unit.parquet"), "row_groups": [0], "pairs": True}, "protein")
    yield pa.Table.from_pylist(embedded(path), schema=BLOCK_SCHEMA)


def embedded(path: Path) -> list[dict[str, Any] | BadEntry]:
    return list(read_rows(find_inputs([str(path)], id_column=None, value_column=None), "protein"))


@pytest.mark.parametrize("name", FILES)
def test_an_entry_is_found_by_the_same_genes_whatever_its_format_was(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(FILES[name])
    genes = GENES
    if name == "a.fasta":  # which has one name
        genes = GENES[:1]
    elif name in ("a.tsv", "a.csv"):  # where a blank is not told from the next name, but for a gene's first
        genes = [*GENES[:3], "HBZ", "2", GENES[-1]]
    for table in tables(tmp_path / name):
        assert table["gene"].to_pylist() == [genes]
        for gene in genes:
            assert parse_filter(f"gene = '{gene.lower()}'").mask(table).tolist() == [True]
        assert parse_filter("gene = HB").mask(table).tolist() == [False]
        assert parse_filter("gene != SOX17 and gene contains ba1").mask(table).tolist() == [True]


@pytest.mark.parametrize("name", FILES)
def test_an_entry_without_genes_is_of_unknown_genes(tmp_path: Path, name: str) -> None:
    text = FILES[name].replace(" GN=HBA1", "").replace('"genes"', '"keywords"').replace("Gene Names", "Annotation")
    text = "".join(line for line in text.splitlines(keepends=True) if not line.startswith(("GN   ", "<gene>")))
    (tmp_path / name).write_text(text.replace('<name type="ORF">L-alpha_1</name></gene>\n', ""))
    for table in tables(tmp_path / name):
        assert table["gene"].to_pylist() == [None]
        assert parse_filter("gene = HBA1 or gene != HBA1").mask(table).tolist() == [False]


def test_parquet_files_have_genes_as_a_list_or_as_a_table_writes_them(tmp_path: Path) -> None:
    for column, values, genes in (
        ("gene", [["NA", "Tha p 2", None, " NA "], [], None], [["NA", "Tha p 2"], None, None]),
        ("Gene Names", ["HBA1 a; HBA2", "NA", ""], [["HBA1", "a", "HBA2"], None, None]),
        ("gene_names", [7, 8, None], [["7"], ["8"], None]),
    ):
        path = tmp_path / "x.parquet"
        pq.write_table(pa.table({"id": ["A", "B", "C"], "sequence": ["MKV"] * 3, column: values}), path)
        assert pa.Table.from_pylist(embedded(path), schema=BLOCK_SCHEMA)["gene"].to_pylist() == genes


def entries() -> list[Entry]:
    return [Entry(accession=f"A{i}", sequence="MKV" * (i + 1), name="N", gene=(f"g{i}",)) for i in range(4)]


def rows_of(folder: str) -> list[dict[str, Any]]:
    groups = [group for split in ("train", "valid") for group in read_pairs(folder).row_groups(split)]
    return [item for group in groups for item in read_row_group(group, columns=["accession", "name"]).to_pylist()]


def test_pairs_of_earlier_versions_are_read_everywhere(tmp_path: Path) -> None:
    rows = [row(entry) for entry in entries()]
    for name in ("new", "old"):
        write_pairs(tmp_path / name, {"train-00000-of-00001": rows[:3], "valid-00000-of-00001": rows[3:]})
    new, old = str(tmp_path / "new"), without_genes(tmp_path / "old", "pairs")
    assert rows_of(old) == rows_of(new)
    assert biotexts(read_row_group(read_pairs(old).row_groups("train")[0])) == ["PROTEIN NAME: N."] * 2
    assert pairs_statistics(old) == pairs_statistics(new)
    for folder, genes in ((new, [["g3"], ["g0"], ["g1"], ["g2"]]), (old, [None] * 4)):
        blocks = [read_block(item, "protein") for item in pairs_blocks(folder, 2)]
        assert [gene for block in blocks for gene in block["gene"].to_pylist()] == genes
        assert all(block.select(METADATA.names).cast(METADATA).num_columns == len(METADATA) for block in blocks)
    (tmp_path / "next").mkdir()
    for before, after in ((old, new), (new, old)):
        shards = [str(path) for path in Path(after).glob("*.parquet")]
        assert write_changes(before, shards, str(tmp_path / "next")).unchanged == 4


def test_a_block_that_an_earlier_version_cut_is_embedded(tmp_path: Path) -> None:
    (tmp_path / "a.fasta").write_text(FILES["a.fasta"])
    table = pa.Table.from_pylist(embedded(tmp_path / "a.fasta"), schema=BLOCK_SCHEMA)
    pq.write_table(table.drop_columns(["gene"]), tmp_path / "00000.parquet")
    block = read_block({"path": str(tmp_path / "00000.parquet"), "row_groups": [0], "pairs": False}, "protein")
    assert block["gene"].to_pylist() == [None]
    assert block.select(METADATA.names).cast(METADATA)["accession"].to_pylist() == ["P69905"]


@pytest.mark.slow
def test_embeddings_and_indexes_of_earlier_versions_are_read_and_their_next_release_has_genes(tmp_path: Path) -> None:
    vectors = unit_vectors(60)
    new = read_embeddings(write_embeddings(tmp_path / "new", vectors, parts=3))
    old = read_embeddings(without_genes(write_embeddings(tmp_path / "old", vectors), "embeddings"))
    assert old.metadata.schema.equals(METADATA)
    assert set(old.metadata["gene"].to_pylist()) == {None}
    assert np.array_equal(old.vectors, new.vectors)

    config = IndexConfig(shard_rows=25)
    for name, embeddings in (("from-old", old), ("from-new", new), ("written-old", new)):
        build_from(embeddings, str(tmp_path / name), config)
    written_old = without_genes(tmp_path / "written-old", "index")
    asked = parse_filter("gene = gP00007")
    # The vectors are the same, so that nothing is built, but what knew no nodes; what is known of the rows is the new
    # release's.
    for folder, redescribed in ((str(tmp_path / "from-old"), 54), (written_old, None)):
        index = Index.load(folder)
        (hit,) = index.hits(vectors[7], 1)
        assert (hit["accession"], hit["gene"]) == ("P00007", None)
        assert index.hits(vectors[7], 3, where=asked) == []
        assert len(index.hits(vectors[7], 60, where=parse_filter("not gene = gP00007"))) == 0
        build_from(new, f"{folder}-next", config, previous=folder)
        release = read_manifest(f"{folder}-next", "index")["release"]
        assert (release["added"], release["changed"], release["redescribed"]) == (0, 0, redescribed)
        (hit,) = Index.load(f"{folder}-next").hits(vectors[7], 3, where=asked)
        assert (hit["accession"], hit["gene"]) == ("P00007", ["gP00007", "b_P00007"])
        assert (
            Path(f"{folder}-next/segment-00000.parquet").read_bytes()
            == (tmp_path / "from-new/segment-00000.parquet").read_bytes()
        )
    # And the other way: a release whose embeddings know no genes.
    build_from(old, str(tmp_path / "back"), config, previous=str(tmp_path / "from-new"))
    assert Index.load(str(tmp_path / "back")).hits(vectors[7], 1)[0]["gene"] is None
