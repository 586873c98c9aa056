"""A path that is no finished folder of the kind that is needed: the message says what stands there."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from protclip import files
from protclip.embeddings.reading import read_embeddings
from protclip.errors import DataError
from protclip.manifest import WORK_FOLDER, claim_folder, read_claim, read_manifest, resume_folder, write_manifest
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


class KilledError(Exception):
    """Stands for a kill."""


def test_a_folder_that_was_cleared_by_half_is_not_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, claim = str(tmp_path), {"seed": 0}
    work = resume_folder(folder, ["part-*"], claim, overwrite=False)
    files.write_json(f"{work}/parts/00000.json", {})
    (tmp_path / "part-00000").touch()

    def kill(path: str) -> None:
        if path == f"{folder}/{WORK_FOLDER}":  # in any order
            remove(f"{work}/parts")
            raise KilledError
        remove(path)

    remove = files.remove
    with monkeypatch.context() as patch, pytest.raises(KilledError):
        patch.setattr(files, "remove", kill)
        resume_folder(folder, ["part-*"], claim, overwrite=True)
    assert read_claim(folder) is None
    resume_folder(folder, ["part-*"], claim, overwrite=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == [WORK_FOLDER]


def test_a_folder_is_cleared_in_the_order_of_its_own_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("config.yaml", "metrics.json", "best"):
        (tmp_path / name).touch()
    removed: list[str] = []
    monkeypatch.setattr(files, "remove", lambda path: removed.append(Path(path).name))
    claim_folder(str(tmp_path), ["metrics.json", "best", "config.yaml"], overwrite=True)
    assert [name for name in removed if (tmp_path / name).exists()] == ["metrics.json", "best", "config.yaml"]
