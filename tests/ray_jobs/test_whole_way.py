"""The way of a row through the commands on a real Ray: curate → pretrain → embed → index → search."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result
from older_folders import without_genes
from tiny_model import tiny_model

from protclip import ProtCLIP
from protclip.__main__ import cli
from protclip.embeddings.reading import read_embeddings
from protclip.errors import CheckpointError, ConfigError, DataError, ProtclipError
from protclip.inputs import DTYPES, Dtype
from protclip.manifest import read_manifest
from protclip.protanno.shards import SPLITS, read_pairs, read_row_group

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]

# A model that is trained in seconds.
SMALL = [
    "batch.global_batch_size=16",
    "data.lanes=4",
    "epochs=2",
    "selection={metric: loss, mode: min}",
    "objectives={mlm: 0.3, bsr: 0.7, pda: 1.0, num_prototypes: 16}",
    "model.projection_dim=32",
    "model.protein.config.hidden_size=16",
    "model.text.config.hidden_size=16",
    "model.text.config.vocab_size=300",
]


def run(*arguments: str) -> Result:
    """Run a command; what it raises comes out as it is."""
    return CliRunner().invoke(cli, list(arguments), catch_exceptions=False)


def refused(error: type[ProtclipError], *arguments: str) -> str:
    with pytest.raises(error) as caught:
        run(*arguments)
    return str(caught.value)


@dataclass(frozen=True, kw_only=True)
class Folders:
    """What the stages left."""

    pairs: str
    run: str

    @property
    def checkpoint(self) -> str:
        return f"{self.run}/best"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory, ray_cluster: None) -> Folders:  # noqa: ARG001
    folder = tmp_path_factory.mktemp("way")
    data, pairs, run_dir = (str(folder / name) for name in ("proteome.dat.gz", "pairs", "run"))
    run("synthesize", "--output", data, "--entries", "240", "--families", "8")
    run(
        "curate",
        data,
        "--output",
        pairs,
        "--dataset",
        "all",
        "--split-by",
        "sequence",
        "--valid-fraction",
        "0.2",
        "--row-group-rows",
        "16",
    )
    result = run("pretrain", "tiny_cpu", f"data.pairs={pairs}", f"run_dir={run_dir}", *SMALL)
    assert "recall@10" in result.output
    return Folders(pairs=pairs, run=run_dir)


def embeddings(folder: Path) -> dict[str, np.ndarray]:
    table = pq.read_table(sorted(folder.glob("part-*.parquet")))
    return {row["accession"]: np.array(row["embedding"], dtype=np.float32) for row in table.to_pylist()}


def test_a_run_leaves_its_settings_metrics_and_best_checkpoint(folders: Folders) -> None:
    metrics = json.loads(Path(folders.run, "metrics.json").read_text())
    pairs = read_pairs(folders.pairs)
    train_rows, valid_rows = map(pairs.num_rows, ("train", "valid"))
    assert [entry["epoch"] for entry in metrics["history"]] == [0, 1, 2]
    assert metrics["steps"] == 2 * (train_rows // 16)
    assert metrics["valid"]["num_pairs"] == metrics["untrained"]["num_pairs"] == valid_rows
    assert metrics["valid"]["chance"]["recall@10"] >= 10 / valid_rows - 1e-9
    assert 1 < metrics["valid"]["num_texts"] <= valid_rows
    assert metrics["valid"]["num_proteins"] <= valid_rows
    assert metrics["valid"]["loss"] == min(entry["valid"]["loss"] for entry in metrics["history"][1:])
    assert metrics["valid"]["loss"] < metrics["untrained"]["loss"]
    for entry in metrics["history"]:
        for losses in [entry["valid"], *([entry["train"]] if entry["epoch"] else [])]:
            assert losses["loss"] == losses["gc"] + 0.7 * losses["bsr"] + 1.0 * losses["pda"] + 0.3 * losses["mlm"]
    manifest = read_manifest(folders.checkpoint, "checkpoint", verify=True)
    assert manifest["metrics"]["valid"] == metrics["valid"]
    assert manifest["data"] == {
        "train_pairs": train_rows,
        "valid_pairs": valid_rows,
        "fingerprint": pairs.fingerprint,
    }
    assert not any("trainer" in name for name in manifest["files"])


def test_reported_validation_metrics_are_those_of_the_best_checkpoint(folders: Folders) -> None:
    import torch

    from protclip.data.tokenize import biotexts
    from protclip.hashing import hash64
    from protclip.metrics.retrieval import retrieval_metrics

    precision = read_manifest(folders.checkpoint, "checkpoint")["run"]["precision"]
    assert precision in DTYPES  # the decision, not "auto"
    model = ProtCLIP.from_pretrained(folders.checkpoint, dtype=precision)
    rows = [row for group in read_pairs(folders.pairs).row_groups("valid") for row in read_row_group(group).to_pylist()]
    texts = [
        text for group in read_pairs(folders.pairs).row_groups("valid") for text in biotexts(read_row_group(group))
    ]
    found = retrieval_metrics(
        torch.from_numpy(model.embed_proteins([row["sequence"] for row in rows])),
        torch.from_numpy(model.embed_texts(texts)),
        torch.tensor([hash64("text", text) >> 1 for text in texts]),
    )
    reported = json.loads(Path(folders.run, "metrics.json").read_text())["valid"]
    assert found["text_to_protein"]["mrr"] == pytest.approx(reported["text_to_protein"]["mrr"], abs=1e-3)


def test_a_finished_run_and_other_settings_are_not_overwritten(folders: Folders, tmp_path: Path) -> None:
    arguments = ["pretrain", "tiny_cpu", f"data.pairs={folders.pairs}", *SMALL]
    assert "holds a finished run" in refused(ConfigError, *arguments, f"run_dir={folders.run}")
    unfinished = tmp_path / "run"
    unfinished.mkdir()
    text = Path(folders.run, "config.yaml").read_text()
    (unfinished / "config.yaml").write_text(text.replace(folders.run, str(unfinished)).replace("seed: 0", "seed: 1"))
    (unfinished / "pairs.json").write_text('{"train-00000-of-00001.parquet": "another"}')
    message = refused(ConfigError, *arguments, f"run_dir={unfinished}", "workers.num=1", "log_every_s=1")
    assert "seed: 1 there, 0 here; data.pairs:" in message
    assert "workers" not in message


def test_pretraining_refuses_what_cannot_work(folders: Folders, tmp_path: Path) -> None:
    pairs, run_dir = f"data.pairs={folders.pairs}", f"run_dir={tmp_path / 'run'}"
    assert "tiny_cpu" in refused(ConfigError, "pretrain", "nonsense", pairs, run_dir)
    assert "unknown key" in refused(ConfigError, "pretrain", "tiny_cpu", pairs, run_dir, "nonsense=1")
    assert "is missing" in refused(DataError, "pretrain", "tiny_cpu", f"data.pairs={tmp_path}/nothing", run_dir)
    assert "fewer than" in refused(ConfigError, "pretrain", "tiny_cpu", pairs, run_dir, "batch.global_batch_size=4096")
    assert "cannot be built" in refused(
        ConfigError, "pretrain", "tiny_cpu", pairs, run_dir, "model.text.config.hidden_size=65"
    )
    (tmp_path / "file").write_text("")
    assert "cannot be written" in refused(ConfigError, "pretrain", "tiny_cpu", pairs, f"run_dir={tmp_path}/file/run")
    assert not (tmp_path / "run" / "config.yaml").exists()


@pytest.mark.parametrize("dtype", DTYPES)
def test_embedded_pairs_equal_the_python_api_and_keep_their_columns(
    folders: Folders, tmp_path: Path, dtype: Dtype
) -> None:
    output = tmp_path / "embeddings"
    options = ["--checkpoint", folders.checkpoint, "--output", str(output), "--workers", "2", "--dtype", dtype]
    run("embed", folders.pairs, *options)
    found = embeddings(output)
    rows = [
        row
        for split in SPLITS
        for group in read_pairs(folders.pairs).row_groups(split)
        for row in read_row_group(group).to_pylist()
    ]
    assert len(found) == len(rows) == 240
    model = ProtCLIP.from_pretrained(folders.checkpoint, dtype=dtype)
    wanted = model.embed_proteins([row["sequence"] for row in rows])
    assert max(np.abs(found[row["accession"]] - wanted[i]).max() for i, row in enumerate(rows)) <= 1e-5
    manifest = read_manifest(str(output), "embeddings", verify=True)
    assert manifest["model_fingerprint"] == model.fingerprint
    assert manifest["rows"] == 240
    first = pq.read_table(sorted(output.glob("part-*.parquet"))[0]).to_pylist()[0]
    source = next(row for row in rows if row["accession"] == first["accession"])
    assert first["name"] == source["display_name"]
    assert first["length"] == len(source["sequence"])
    assert first["organism_id"] == source["organism_id"]
    assert manifest["settings"]["dtype"] == read_embeddings(str(output)).dtype == dtype
    message = refused(ConfigError, "embed", folders.pairs, *options)
    assert "already finished" in message

    index = tmp_path / "index"
    run("index", str(output), "--output", str(index))
    answer = run("search", str(index), "--checkpoint", folders.checkpoint, "--sequence", rows[7]["sequence"], "--json")
    hit = json.loads(answer.stdout)["hits"][0]
    assert (hit["accession"], hit["score"]) == (rows[7]["accession"], pytest.approx(1, abs=1e-5))


def test_anybodys_fasta_and_text_lines_are_embedded(folders: Folders, tmp_path: Path) -> None:
    fasta = tmp_path / "mine.fasta"
    albumin = ">sp|P02769|ALBU_BOVIN Albumin OS=Bos taurus OX=9913 PE=1 SV=4\nMKWV\n"
    dna = ">1abc_B\tmol:na length:4\nACGT\n"
    fasta.write_text(f">a my first\nMKTAYIAK\nQRQ\n>b\nMK7\n>c\nMKV\n>a again\nMKV\n{albumin}{dna}")
    output = tmp_path / "proteins"
    result = run("embed", str(fasta), "--checkpoint", folders.checkpoint, "--output", str(output), "--dtype", "float32")
    assert "4 rows embedded, 2 quarantined" in result.output
    assert f"embed: warning: {fasta}: a sequence looks like DNA or RNA (1abc_B);" in result.stderr
    assert read_manifest(str(output), "embeddings")["counts"]["nucleotides"] == 1
    found = embeddings(output)
    assert set(found) == {"a", "c", "P02769", "1abc_B"}
    model = ProtCLIP.from_pretrained(folders.checkpoint)
    assert np.abs(found["a"] - model.embed_proteins(["MKTAYIAKQRQ"])[0]).max() <= 1e-5
    refusals = [json.loads(line) for line in (output / "quarantine.jsonl").read_text().splitlines()]
    assert {refusal["accession"] for refusal in refusals} == {"a", "b"}

    lines = tmp_path / "queries.txt"
    lines.write_text("binds ATP\n\nhydrolase\n")
    arguments = ["--checkpoint", folders.checkpoint, "--output", str(tmp_path / "texts"), "--dtype", "bfloat16"]
    run("embed", str(lines), *arguments)
    texts = embeddings(tmp_path / "texts")
    assert set(texts) == {"line-1", "line-3"}
    model = ProtCLIP.from_pretrained(folders.checkpoint, dtype="bfloat16")
    assert np.abs(texts["line-3"] - model.embed_texts(["hydrolase"])[0]).max() <= 1e-5


LONGEST = 62  # residues that the tiny model sees
LONG_SEQUENCE = "MKTAYIAKQR" * 9


@pytest.mark.parametrize("dtype", DTYPES)
def test_each_row_tells_how_a_long_protein_was_read(tmp_path: Path, dtype: Dtype) -> None:
    model = tiny_model(dtype=dtype)
    model.save_pretrained(str(tmp_path / "model"))
    short, fits = "MJKVJ", "M" * LONGEST
    fasta = tmp_path / "mine.fasta"
    fasta.write_text(f">short\n{short}\n>bad\nMK7\n>fits\n{fits}\n>long\n{LONG_SEQUENCE}\n")

    def embed(name: str, *arguments: str) -> tuple[Result, dict[str, Any], dict[str, Any]]:
        output = tmp_path / name
        options = ["--checkpoint", str(tmp_path / "model"), "--output", str(output), "--dtype", dtype, *arguments]
        result = run("embed", str(fasta), *options)
        rows = pq.read_table(sorted(output.glob("part-*.parquet"))).to_pylist()
        return result, {row["accession"]: row for row in rows}, read_manifest(str(output), "embeddings", verify=True)

    for policy, words in [("truncate", "1 cut to 62 residues"), ("window-mean", "1 as means over windows of 62")]:
        result, rows, manifest = embed(policy, *([] if policy == "truncate" else ["--long", policy]))
        assert f"3 rows embedded, 1 quarantined, {words}" in result.output
        assert "2 letters mapped (unknown_token)" in result.output
        assert {name: row["long"] for name, row in rows.items()} == {"short": None, "fits": None, "long": policy}
        wanted = model.embed_proteins([LONG_SEQUENCE], long=policy)[0]  # type: ignore[arg-type]
        assert np.abs(np.array(rows["long"]["embedding"]) - wanted).max() <= 1e-5
        assert manifest["settings"]["long"] == policy
        counts: dict[str, Any] = {"truncated": 0, "window_mean": 0, "mapped_letters": {"unknown_token": 2}}
        counts["quarantined_by_reason"] = {"letter outside the alphabet": 1}
        counts["truncated" if policy == "truncate" else "window_mean"] = 1
        assert manifest["counts"] == counts

    result, rows, manifest = embed("error", "--long", "error")
    assert "2 rows embedded, 2 quarantined, 2 letters mapped" in result.output
    assert {name: row["long"] for name, row in rows.items()} == {"short": None, "fits": None}
    assert (manifest["rows"], manifest["quarantined"]) == (2, 2)
    refusals = [json.loads(line) for line in (tmp_path / "error" / "quarantine.jsonl").read_text().splitlines()]
    assert refusals[1] == {
        "source": str(fasta),
        "line": 7,
        "accession": "long",
        "reason": "longer than the model sees",
        "value": "90 residues",
        "allowed": "at most 62 residues, or --long truncate, or --long window-mean",
    }
    run("index", str(tmp_path / "window-mean"), "--output", str(tmp_path / "index"))
    question = ["--checkpoint", str(tmp_path / "model"), "--sequence", fits, "--json"]
    hits = json.loads(run("search", str(tmp_path / "index"), *question).stdout)["hits"]
    assert hits[0]["accession"] == "fits"


def test_nothing_but_long_proteins_is_an_error_that_lists_them(tmp_path: Path) -> None:
    tiny_model().save_pretrained(str(tmp_path / "model"))
    (tmp_path / "mine.fasta").write_text(f">a\n{LONG_SEQUENCE}\n>b\n{LONG_SEQUENCE}\n")
    output = tmp_path / "out"
    arguments = ["--checkpoint", str(tmp_path / "model"), "--output", str(output), "--long", "error"]
    assert "all 2 are bad" in refused(DataError, "embed", str(tmp_path / "mine.fasta"), *arguments)
    assert len((output / "quarantine.jsonl").read_text().splitlines()) == 2
    assert not (output / "manifest.json").exists()
    (tmp_path / "texts.txt").write_text("binds ATP\n")
    assert "--long error is for proteins" in refused(ConfigError, "embed", str(tmp_path / "texts.txt"), *arguments)


def test_a_damaged_checkpoint_is_one_error_and_a_finished_folder_survives_a_wrong_input(
    folders: Folders, tmp_path: Path
) -> None:
    source = tmp_path / "mine.fasta"
    source.write_text(">a\nMKTAYIAK\n")
    output = str(tmp_path / "out")
    run("embed", str(source), "--checkpoint", folders.checkpoint, "--output", output)
    arguments = ["--checkpoint", folders.checkpoint, "--output", output, "--overwrite"]
    assert "does not exist" in refused(DataError, "embed", str(tmp_path / "nothing.fasta"), *arguments)
    damaged = tmp_path / "checkpoint"
    shutil.copytree(folders.checkpoint, damaged)
    weights = bytearray((damaged / "model.safetensors").read_bytes())
    weights[-5] ^= 1
    (damaged / "model.safetensors").write_bytes(weights)
    again = ["--checkpoint", str(damaged), "--output", output, "--overwrite"]
    assert "model.safetensors: its SHA-256" in refused(CheckpointError, "embed", str(source), *again)
    assert set(embeddings(tmp_path / "out")) == {"a"}


def test_embed_refuses_what_it_cannot_use(folders: Folders, tmp_path: Path) -> None:
    def message(error: type[ProtclipError], source: str, checkpoint: str = folders.checkpoint) -> str:
        output = str(tmp_path / f"out-{len(list(tmp_path.iterdir()))}")  # another input is another run
        return refused(error, "embed", source, "--checkpoint", checkpoint, "--output", output)

    empty = tmp_path / "empty.fasta"
    empty.write_text("")
    bad = tmp_path / "bad.fasta"
    bad.write_text(">a\nMK7\n")
    assert "holds no sequence" in message(DataError, str(empty))
    assert "all 1 are bad" in message(DataError, str(bad))
    assert "does not exist" in message(DataError, str(tmp_path / "nothing.fasta"))
    assert "no file system" in message(ConfigError, "nonsense://bucket/a.fasta")
    (tmp_path / "data.docx").write_text("")
    assert "known kind" in message(ConfigError, str(tmp_path / "data.docx"))
    assert "is missing" in message(CheckpointError, str(bad), str(tmp_path / "no-model"))


def test_folders_of_versions_without_genes_go_the_way_too_and_their_next_release_has_them(
    folders: Folders, tmp_path: Path
) -> None:
    old = {name: str(tmp_path / name) for name in ("pairs", "run", "embeddings", "index")}
    new = {name: str(tmp_path / f"new-{name}") for name in ("embeddings", "index")}
    shutil.copytree(folders.pairs, old["pairs"])
    without_genes(old["pairs"], "pairs")
    run("pretrain", "tiny_cpu", f"data.pairs={old['pairs']}", f"run_dir={old['run']}", *SMALL, "epochs=1")
    model = ("--checkpoint", folders.checkpoint)
    run("embed", old["pairs"], *model, "--output", old["embeddings"])
    assert set(read_embeddings(old["embeddings"]).metadata["gene"].to_pylist()) == {None}
    without_genes(old["embeddings"], "embeddings")
    run("index", old["embeddings"], "--output", old["index"])
    without_genes(old["index"], "index")

    result = run("embed", folders.pairs, *model, "--output", new["embeddings"], "--previous", old["embeddings"])
    assert "240 rows embedded, 240 of them as before, 0 computed" in result.output
    run("index", new["embeddings"], "--output", new["index"], "--previous", old["index"])
    assert read_manifest(new["index"], "index")["release"]["compacted"]  # the old one knew no nodes
    pair = read_row_group(read_pairs(folders.pairs).row_groups("valid")[0]).to_pylist()[0]
    question = ("--text", "FUNCTION: Any.", "--filter", f"gene = {pair['gene'][0].upper()}", "--json")
    (hit,) = json.loads(run("search", new["index"], *model, *question).stdout)["hits"]
    assert (hit["accession"], hit["gene"]) == (pair["accession"], pair["gene"])
    assert json.loads(run("search", old["index"], *model, *question).stdout)["hits"] == []
