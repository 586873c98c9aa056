"""Splits: relatives stay together, shares are kept, and nothing depends on the order of rows."""

from __future__ import annotations

import gzip
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from protclip.errors import ConfigError, DataError
from protclip.hashing import hash64
from protclip.protanno import minhash, splits
from protclip.protanno.components import Components
from protclip.protanno.shards import SPLITS
from protclip.protanno.splits import SplitConfig, SplitReport, read_splits, split_rows

pytestmark = pytest.mark.unit

RESIDUES = "ACDEFGHIKLMNPQRSTVWY"


def families(number: int, members: int, *, length: int, identity: float, seed: int) -> list[str]:
    """Mutated copies of random ancestors, family after family."""
    rng = random.Random(seed)
    found = []
    for _ in range(number):
        ancestor = rng.choices(RESIDUES, k=length)
        for _ in range(members):
            found.append("".join(x if rng.random() < identity else rng.choice(RESIDUES) for x in ancestor))
    return found


def split(
    folder: Path, sequences: Sequence[str], *, shards: int = 1, accessions: Sequence[str] | None = None, **config: Any
) -> tuple[SplitReport, list[int]]:
    """The code of each row, in the order of the rows."""
    accessions = accessions or [f"P{i:05d}" for i in range(len(sequences))]
    stems, outputs = [], []
    for shard in range(shards):
        part = list(zip(accessions, sequences, strict=True))[shard::shards]
        stem = f"{folder}/{shard}"
        hashes = pa.array([hash64(text) for _, text in part], pa.uint64())
        columns = {"accession": [name for name, _ in part], "sequence_hash": hashes}
        pq.write_table(pa.table({**columns, "merit": pa.array([0] * len(part), pa.uint64())}), f"{stem}.keys.parquet")
        pq.write_table(pa.table({"sequence": [text for _, text in part]}), f"{stem}.parquet")
        np.save(f"{stem}.npy", minhash.signatures([text for _, text in part]))
        stems.append(stem)
        outputs.append(f"{stem}.splits.npy")
    report = split_rows(stems, outputs, seed=1, deduplicate=False, config=SplitConfig(**config))
    codes = [0] * len(sequences)
    for shard in range(shards):
        codes[shard::shards] = read_splits(outputs[shard]).tolist()
    return report, codes


def test_components_name_each_node_by_its_smallest_relative() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        edges = rng.integers(0, 60, (2, 40))
        components = Components(60)
        for part in np.array_split(edges, 3, axis=1):
            components.join(*part)
        wanted = list(range(60))
        for _ in range(60):
            for a, b in edges.T.tolist():
                wanted[a] = wanted[b] = min(wanted[a], wanted[b])
        assert components.roots.tolist() == wanted


def test_slots_agree_as_often_as_the_sets_of_kmers_overlap() -> None:
    rng = random.Random(0)
    # Of one letter of each group, so that k-mers of letters are k-mers of groups.
    first, second, common = ("".join(rng.choices("ACDEFGHIKLPW", k=k)) for k in (300, 300, 600))
    one, other = common + first, common + second
    kmers = [{text[i : i + minhash.KMER] for i in range(len(text) - minhash.KMER + 1)} for text in (one, other)]
    jaccard = len(kmers[0] & kmers[1]) / len(kmers[0] | kmers[1])
    signatures = minhash.signatures([one, other, "MK", one])
    agreeing = (signatures[0] == signatures[1]).mean()
    assert abs(agreeing - jaccard) < 4 * (jaccard * (1 - jaccard) / minhash.NUM_HASHES) ** 0.5
    assert (signatures[0] == signatures[3]).all()
    assert (minhash.signatures([other])[0] == signatures[1]).all()


def test_a_signature_does_not_depend_on_its_neighbours(monkeypatch: pytest.MonkeyPatch) -> None:
    sequences = [*families(5, 3, length=50, identity=0.8, seed=0), "M", "MKVLA", "MKVLAA"]
    together = minhash.signatures(sequences)
    alone = np.concatenate([minhash.signatures([sequence]) for sequence in sequences])
    monkeypatch.setattr(minhash, "_BLOCK_RESIDUES", 120)
    assert (minhash.signatures(sequences) == together).all()
    assert (together == alone).all()


def test_families_are_clusters_and_strangers_are_not() -> None:
    sequences = families(30, 6, length=300, identity=0.92, seed=0)
    roots = minhash.clusters(minhash.signatures(sequences))
    assert roots.tolist() == [i // 6 * 6 for i in range(len(sequences))]


def test_far_relations_make_no_cluster_of_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    # Each of a chain shares half of its residues with the next.
    pieces = families(81, 1, length=120, identity=1, seed=0)
    chain = [pieces[i] + pieces[i + 1] for i in range(80)]
    signatures = minhash.signatures(chain)
    assert np.bincount(minhash.clusters(signatures)).max() == 80
    monkeypatch.setattr(minhash, "MIN_LARGEST", 20)
    monkeypatch.setattr(minhash, "MIN_AGREEING", (40, 10, 5))
    assert np.bincount(minhash.clusters(signatures)).max() == 1
    monkeypatch.setattr(minhash, "MIN_LARGEST", 80)
    assert np.bincount(minhash.clusters(signatures)).max() == 80


@pytest.mark.parametrize("method", ["minhash", "sequence"])
def test_splits_are_of_the_set_of_sequences_and_the_seed(tmp_path: Path, method: str) -> None:
    sequences = families(60, 4, length=200, identity=0.92, seed=0)
    report, codes = split(tmp_path, sequences, split_by=method, valid_fraction=0.1, test_fraction=0.2)
    order = random.Random(1).sample(range(len(sequences)), len(sequences))
    again, shuffled = split(
        tmp_path, [sequences[i] for i in order], shards=3, split_by=method, valid_fraction=0.1, test_fraction=0.2
    )
    assert again == report
    assert [codes[i] for i in order] == shuffled
    assert report.num_rows == {"train": 168, "valid": 24, "test": 48}
    assert report.num_clusters == (60 if method == "minhash" else 240)
    together = [len(set(codes[i : i + 4])) == 1 for i in range(0, len(codes), 4)]
    assert all(together) == (method == "minhash")


def test_a_cluster_too_large_for_a_split_is_trained_on(tmp_path: Path) -> None:
    sequences = families(1, 50, length=200, identity=0.9, seed=0) + families(50, 1, length=200, identity=1, seed=1)
    report, codes = split(tmp_path, sequences, valid_fraction=0.1, test_fraction=0.1)
    assert report.largest_cluster == 50
    assert set(codes[:50]) == {0}
    assert report.num_rows == {"train": 80, "valid": 10, "test": 10}


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("style", ["two columns", "idmapping", "idmapping_selected"])
def test_uniref50_clusters_are_the_files_and_who_is_not_listed_is_alone(
    tmp_path: Path, style: str, packed: bool
) -> None:
    sequences = families(40, 1, length=50, identity=1, seed=0)
    sequences[39] = sequences[0]  # one sequence under an accession that is not listed
    members = [(f"P{i:05d}", f"UniRef50_{i // 4}") for i in range(36)]
    lines = ["\t".join(pair) for pair in members]
    if style == "idmapping":
        lines = [f"{name}\tUniRef50\t{cluster}\n{name}\tUniRef90\tall\n{name}\tEnsembl\tx" for name, cluster in members]
    if style == "idmapping_selected":
        columns = ("{}", "A_B", "", "", "", "", "", "UniRef100_x", "UniRef90_all", "{}", *[""] * 12)
        lines = ["\t".join(columns).format(name, cluster) for name, cluster in members]
    else:
        lines = ["From\tTo", *lines, "X99999\tUniRef50_0"]
    text = ("\n".join(lines) + "\n").encode()
    (tmp_path / "clusters.tsv").write_bytes(gzip.compress(text) if packed else text)
    splits.check_clusters(str(tmp_path / "clusters.tsv"))
    config = {"split_by": f"uniref50={tmp_path}/clusters.tsv", "valid_fraction": 0.2}
    report, codes = split(tmp_path, sequences, **config)
    assert (report.num_clusters, report.largest_cluster, report.num_unlisted) == (12, 5, 4)
    assert all(len(set(codes[i : i + 4])) == 1 for i in range(0, 36, 4))
    assert codes[39] == codes[0]
    assert report.num_rows["valid"] == 8
    (tmp_path / "clusters.tsv").write_text("P00001\n")
    for check in (
        lambda: splits.check_clusters(str(tmp_path / "clusters.tsv")),
        lambda: split(tmp_path, sequences, **config),
    ):
        with pytest.raises(DataError, match=r"clusters\.tsv, line 1: .*P00001.* has 1 column"):
            check()


def test_a_file_of_clusters_that_names_no_row_is_an_error(tmp_path: Path) -> None:
    """Every row would be a cluster of its own, and relatives of the test set in train."""
    (tmp_path / "clusters.tsv").write_text("A0A000\tUniRef50_1\n")
    sequences = families(4, 1, length=50, identity=1, seed=0)
    with pytest.raises(DataError, match=r"clusters\.tsv: names none of the 4 accessions"):
        split(tmp_path, sequences, split_by=f"uniref50={tmp_path}/clusters.tsv")


@pytest.mark.parametrize(
    "text",
    [
        "accession\tcluster\nQ0\tC\nQ1\tC\nQ2\tNA\nQ3\t\nQ4\tNA\n",  # R
        "# of release 1\r\raccession,cluster\rQ0,C\rQ1,C\rQ2,nan\rQ4,nan\r",  # an old Mac's
        '"accession";"cluster"\r\n"Q0";"C"\r\n" Q1 ";"C"\r\n"Q2";""\r\n',  # Excel
        "Q0\tUniRef50\tC\nQ1\tUniRef50\tC\nQ2\tGO\tC\nQ2\tUniRef50\t-\nQ4\tUniRef50\t-\n\n",
    ],
)
def test_who_has_no_cluster_in_the_file_is_alone_however_the_file_is_written(tmp_path: Path, text: str) -> None:
    sequences = families(6, 1, length=50, identity=1, seed=0)
    (tmp_path / "clusters.tsv").write_bytes(text.encode("utf-16"))
    config = {"split_by": f"uniref50={tmp_path}/clusters.tsv"}
    report, _ = split(tmp_path, sequences, accessions=[f"Q{i}" for i in range(6)], **config)
    assert (report.num_clusters, report.largest_cluster, report.num_unlisted) == (5, 2, 4)


def test_without_mmseqs_the_error_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(splits.shutil, "which", lambda _: None)
    with pytest.raises(ConfigError, match="apt install mmseqs2"):
        splits.require_mmseqs()


def test_codes_are_indices_of_the_splits() -> None:
    assert SPLITS == ("train", "valid", "test")
    assert splits.MERGED_AWAY not in range(len(SPLITS))
