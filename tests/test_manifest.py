"""A path that is no finished folder of the kind that is needed: the message says what stands there."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from protclip.embeddings.reading import read_embeddings
from protclip.errors import DataError
from protclip.manifest import read_manifest, write_manifest
from protclip.uniprot.formats import expand_inputs

pytestmark = pytest.mark.unit


def test_uniprots_precomputed_embeddings_are_told_from_ours(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "per-protein.h5", "w") as file:
        file["P12345"] = np.zeros(1024, np.float16)
    with pytest.raises(
        DataError, match=r"per-protein\.h5: is HDF5, .* another model.*embeddings \(made by embed\) is needed"
    ):
        read_embeddings(str(tmp_path / "per-protein.h5"))


@pytest.mark.parametrize(
    ("there", "message"),
    [
        ("nothing", "is missing; an index"),
        ("file", "is a file; an index"),
        ("empty", r"has no manifest\.json: it is unfinished or not ours; an index"),
        ("work", "is unfinished: run the command that makes it again"),
        ("run", r"is no finished folder itself but holds such \(best, last\); an index"),
        ("pairs", r"is a folder of pairs \(made by curate\), and an index \(made by index\) is needed here"),
        ("other", r"is a folder of another kind \('soup'\), and an index"),
    ],
)
def test_a_message_says_what_is_there_and_what_is_needed(tmp_path: Path, there: str, message: str) -> None:
    (tmp_path / "file").write_text("text")
    (tmp_path / "empty").mkdir()
    (tmp_path / "work/.work").mkdir(parents=True)
    for name, kind in (("run/best", "checkpoint"), ("run/last", "checkpoint"), ("pairs", "pairs"), ("other", "soup")):
        write_manifest(str(tmp_path / name), kind, [])
    with pytest.raises(DataError, match=f"{there}: {message}"):
        read_manifest(str(tmp_path / there), "index")


def test_a_folder_of_ours_is_no_input_of_curate(tmp_path: Path) -> None:
    write_manifest(str(tmp_path / "model"), "checkpoint", [])
    with pytest.raises(
        DataError, match=r"model: is a checkpoint \(made by pretrain\), and files of UniProtKB are needed"
    ):
        expand_inputs([str(tmp_path / "model")])
