"""The unit of embed: a block becomes a part."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from tiny_model import RESIDUES, random_sequences, tiny_model

from protclip import passes
from protclip.embeddings.parts import EmbedBlock
from protclip.embeddings.reading import METADATA, read_embeddings
from protclip.embeddings.settings import EmbedConfig
from protclip.errors import CheckpointError, DataError
from protclip.inputs import DTYPES, Dtype
from protclip.manifest import write_manifest
from protclip.model.dual_encoder import DualEncoder
from protclip.model.packed import Packing
from protclip.protanno.shards import SCHEMA
from protclip.trained_model import ProtCLIP

pytestmark = pytest.mark.unit

LONGEST = 62  # residues that the tiny model sees
LENGTHS = [5, 63, 62, 90, 7, 64, 200, 9]


def config_of(model: str, output: object, *, dtype: Dtype = "float32", **fields: Any) -> EmbedConfig:
    """As ``embed`` has it when nothing is left open."""
    fields = {"content": "protein", "long": "truncate"} | fields
    return EmbedConfig(inputs=("some",), checkpoint=model, output=str(output), dtype=dtype, **fields)


@pytest.fixture
def pairs(tmp_path: Path) -> tuple[str, dict[str, str]]:
    """A shard of row groups of 3, 3 and 2 rows, and its sequences by accession."""
    generator = np.random.default_rng(0)
    sequences = {f"A{i}": "".join(generator.choice(list(RESIDUES), n)) for i, n in enumerate(LENGTHS)}
    rows = [
        {"accession": name, "sequence": sequence, "name": "kinase", "ec": [], "sequence_hash": 0, "probability": 1.0}
        for name, sequence in sequences.items()
    ]
    path = str(tmp_path / "train-00000-of-00001.parquet")
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), path, row_group_size=3)
    tiny_model().save_pretrained(str(tmp_path / "model"))
    return path, sequences


def embed(
    pairs: str, row_groups: list[int], *, dtype: Dtype = "float32", **settings: Any
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The record and the rows of the part."""
    folder = Path(pairs).parent
    config = config_of(str(folder / "model"), folder, dtype=dtype, **settings)
    unit = EmbedBlock(config, str(folder / "work"))
    record = unit({"path": pairs, "row_groups": row_groups, "unit": "00007", "pairs": True})
    assert record == json.loads(json.dumps(record))
    part = folder / "part-00007.parquet"
    assert list(record["files"]) == ([part.name] if part.exists() else [])
    return record, pq.read_table(part).to_pylist() if part.exists() else []


def test_long_pairs_are_refused_by_their_place_in_the_shard(pairs: tuple[str, dict[str, str]]) -> None:
    path, sequences = pairs
    report, rows = embed(path, [1, 2], long="error")
    assert [row["accession"] for row in rows] == ["A4", "A7"]
    wanted = tiny_model().embed_proteins([sequences["A4"], sequences["A7"]])
    assert np.abs(np.array([row["embedding"] for row in rows]) - wanted).max() <= 1e-6
    places = [(entry["line"], entry["accession"], entry["value"]) for entry in report["refused"]]
    assert places == [(4, "A3", "90 residues"), (6, "A5", "64 residues"), (7, "A6", "200 residues")]
    assert {entry["source"] for entry in report["refused"]} == {path}
    assert (report["read"], report["rows"], report["long"]) == (5, 2, 0)


def test_a_pair_without_a_text_is_refused_and_the_others_are_embedded(pairs: tuple[str, dict[str, str]]) -> None:
    path, _ = pairs
    table = pq.read_table(path)
    names = pa.array([None if i in (1, 7) else f"kinase {i}" for i in range(len(table))])
    table = table.set_column(table.column_names.index("name"), SCHEMA.field("name"), names)
    pq.write_table(table, path, row_group_size=3)
    report, rows = embed(path, [0, 2], content="text", long=None)
    assert [row["accession"] for row in rows] == ["A0", "A2", "A6"]
    assert [(entry["reason"], entry["line"], entry["accession"]) for entry in report["refused"]] == [
        ("no text", 2, "A1"),
        ("no text", 8, "A7"),
    ]
    assert (report["read"], report["rows"]) == (5, 3)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("policy", ["truncate", "window-mean"])
def test_a_part_says_which_proteins_were_longer_than_the_model_sees(
    pairs: tuple[str, dict[str, str]], policy: Any, dtype: Dtype
) -> None:
    path, sequences = pairs
    report, rows = embed(path, [0, 1, 2], long=policy, dtype=dtype)
    assert [row["long"] for row in rows] == [policy if length > LONGEST else None for length in LENGTHS]
    assert (report["read"], report["rows"], report["long"], report["refused"]) == (8, 8, 4, [])
    wanted = tiny_model(dtype=dtype).embed_proteins(list(sequences.values()), long=policy)
    assert np.abs(np.array([row["embedding"] for row in rows]) - wanted).max() <= 1e-6
    part = pq.read_schema(Path(path).parent / "part-00007.parquet")
    assert part.names == [*METADATA.names, "long", "embedding"]


def test_a_block_of_long_proteins_alone_leaves_no_part(pairs: tuple[str, dict[str, str]], tmp_path: Path) -> None:
    alone = str(tmp_path / "alone.parquet")
    table = pq.read_table(pairs[0])
    pq.write_table(table.take([1, 3]), alone)
    report, rows = embed(alone, [0], long="error")
    assert (report["files"], report["rows"], len(report["refused"]), rows) == ({}, 0, 2, [])


def test_texts_have_no_policy(pairs: tuple[str, dict[str, str]]) -> None:
    report, rows = embed(pairs[0], [0], content="text", long=None)
    assert {row["long"] for row in rows} == {None}
    assert (report["rows"], report["long"], report["mapped"]) == (3, 0, {})


def test_a_part_tells_which_of_its_rows_look_like_nucleotides(pairs: tuple[str, dict[str, str]]) -> None:
    path, _ = pairs
    rows = pq.read_table(path).to_pylist()
    rows[3]["sequence"] = rows[5]["sequence"] = "ACGT" * 30
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), path, row_group_size=3)
    report, _ = embed(path, [0, 1, 2])
    assert report["nucleotides"] == {path: {"number": 2, "first": "A3"}}


def test_the_same_sequence_is_computed_once(pairs: tuple[str, dict[str, str]], monkeypatch: pytest.MonkeyPatch) -> None:
    path, _ = pairs
    table = pq.read_table(path)
    pq.write_table(pa.concat_tables([table, table.take([2, 0])]), path)
    computed: list[int] = []
    embed_proteins = ProtCLIP.embed_proteins

    def counted(self: ProtCLIP, sequences: Sequence[str], **options: Any) -> np.ndarray:
        computed.append(len(sequences))
        return embed_proteins(self, sequences, **options)

    monkeypatch.setattr(ProtCLIP, "embed_proteins", counted)
    _, rows = embed(path, [0])
    assert computed == [len(LENGTHS)]
    assert len(rows) == len(LENGTHS) + 2
    assert [rows[8]["embedding"], rows[9]["embedding"]] == [rows[2]["embedding"], rows[0]["embedding"]]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "settings", [{}, {"residues": True}, {"long": "window-mean"}, {"content": "text", "long": None}]
)
def test_batches_side_by_side_give_the_same_bytes(
    tmp_path: Path, dtype: Dtype, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    computed_in: set[str] = set()
    pack = passes.pack_rows
    note = lambda *given: (computed_in.add(threading.current_thread().name), pack(*given))[1]  # noqa: E731
    monkeypatch.setattr(passes, "pack_rows", note)
    tiny_model().save_pretrained(str(tmp_path / "model"))
    names = {"name": "binds " * 30, "ec": [], "sequence_hash": 0, "probability": 1.0}
    rows = [{"accession": f"A{i}", "sequence": sequence, **names} for i, sequence in enumerate(random_sequences(300))]
    path = str(tmp_path / "train-00000-of-00001.parquet")
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), path)
    item = {"path": path, "row_groups": [0], "unit": "00000", "pairs": True}
    threads_before = torch.get_num_threads()
    alone, together = (
        EmbedBlock(config_of(str(tmp_path / "model"), tmp_path / f"{n}", dtype=dtype, **settings), "work", threads=n)
        for n in (1, 4)
    )
    assert alone(item) == together(item)
    assert len(computed_in) > 1
    assert torch.get_num_threads() == threads_before


def test_what_does_not_fit_into_memory_is_refused_by_its_place(
    pairs: tuple[str, dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, _ = pairs
    encode = DualEncoder.encode_packed

    def small_device(self: DualEncoder, kind: Any, ids_T: torch.Tensor, packing: Packing) -> torch.Tensor:
        if len(ids_T) > 20:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return encode(self, kind, ids_T, packing)

    monkeypatch.setattr(DualEncoder, "encode_packed", small_device)
    record, rows = embed(path, [0, 1, 2])
    assert [row["accession"] for row in rows] == ["A0", "A4", "A7"]
    assert [(entry["line"], entry["accession"]) for entry in record["refused"]] == [
        (i + 1, f"A{i}") for i in (1, 2, 3, 5, 6)
    ]
    assert {entry["reason"] for entry in record["refused"]} == {"does not fit into memory"}


def test_another_model_under_the_same_name_is_refused_on_its_node(
    pairs: tuple[str, dict[str, str]],  # noqa: ARG001
    tmp_path: Path,
) -> None:
    config = config_of(str(tmp_path / "model"), tmp_path, dtype="float32")
    fingerprint = tiny_model().fingerprint
    assert EmbedBlock(config, str(tmp_path), fingerprint=fingerprint).model.fingerprint == fingerprint
    with pytest.raises(CheckpointError, match=f"is the model {fingerprint} on the node .*, and {'0' * 64}"):
        _ = EmbedBlock(config, str(tmp_path), fingerprint="0" * 64).model


@pytest.mark.parametrize("form", ["parquet", "npy", "h5"])
@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_every_format_gives_the_same_vectors(
    pairs: tuple[str, dict[str, str]], form: Any, precision: Any, tmp_path: Path
) -> None:
    if form == "h5":
        pytest.importorskip("h5py", reason="h5py is not installed")
    config = config_of(str(tmp_path / "model"), tmp_path / "out", format=form, precision=precision, residues=True)
    unit = EmbedBlock(config, str(tmp_path / "work"))
    record = unit({"path": pairs[0], "row_groups": [0, 1, 2], "unit": "00000", "pairs": True})
    facts = {"content": "protein", "dimension": 24, "model_fingerprint": "f", "rows": 8}
    write_manifest(str(tmp_path / "out"), "embeddings", [], described=record["files"], **facts)
    found = read_embeddings(str(tmp_path / "out"))
    wanted = tiny_model().embed_proteins(list(pairs[1].values())).astype(precision).astype(np.float32)
    assert np.abs(found.vectors - wanted).max() <= 1e-6
    assert found.ids.tolist() == [f"A{i}" for i in range(8)]
    assert np.array_equal(np.concatenate([vectors for vectors, _ in found.parts()]), found.vectors)
    if form == "npy":
        assert isinstance(found.matrices[0], np.memmap)
        assert found.matrices[0].dtype == precision
    else:
        with pytest.raises(DataError, match="--format npy"):
            _ = found.matrices
    residues = tiny_model().embed_residues(list(pairs[1].values()))
    if form == "h5":
        import h5py

        with h5py.File(tmp_path / "out" / "residues-00000.h5") as file:
            stored = [file[f"A{i}"][()] for i in range(8)]
        with h5py.File(tmp_path / "out" / "part-00000.h5") as file:
            assert file["A3"].shape == (24,)
    else:
        table = pq.read_table(tmp_path / "out" / "residues-00000.parquet")
        stored = [np.array(row, dtype=np.float16) for row in table["residues"].to_pylist()]
    assert all(np.abs(a.astype(np.float32) - b).max() <= 2e-3 for a, b in zip(stored, residues, strict=True))
    before = {name: entry["sha256"] for name, entry in record["files"].items()}
    again = unit({"path": pairs[0], "row_groups": [0, 1, 2], "unit": "00000", "pairs": True})
    assert {name: entry["sha256"] for name, entry in again["files"].items()} == before
