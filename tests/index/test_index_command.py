from __future__ import annotations

import numpy as np
import pytest
from click.testing import CliRunner
from index_folders import unit_vectors, write_embeddings

from protclip.errors import ConfigError, DataError
from protclip.index.index import Index
from ray_jobs.index import main

pytestmark = pytest.mark.unit


def test_it_builds_an_index_and_says_what_it_made(tmp_path):
    embeddings = write_embeddings(tmp_path / "e", unit_vectors(60))
    result = CliRunner().invoke(main, [embeddings, "--output", str(tmp_path / "i"), "--ef-search", "64"])
    assert result.exit_code == 0, result.output
    assert "60 protein vectors of dimension 16, recall@10 1.0000 on 60 queries" in result.output
    assert Index.load(str(tmp_path / "i")).manifest.ef_search == 64


@pytest.mark.parametrize(
    ("vectors", "message"),
    [(np.full((3, 16), np.nan, np.float32), "row 0"), (np.empty((0, 16), np.float32), "no embeddings")],
)
def test_embeddings_that_cannot_be_indexed_are_one_clear_error(tmp_path, vectors, message):
    embeddings = write_embeddings(tmp_path / "e", vectors, parts=1)
    result = CliRunner().invoke(main, [embeddings, "--output", str(tmp_path / "i")])
    assert isinstance(result.exception, DataError) and message in str(result.exception)


def test_a_folder_without_manifest_is_one_clear_error(tmp_path):
    result = CliRunner().invoke(main, [str(tmp_path), "--output", str(tmp_path / "i")])
    assert isinstance(result.exception, DataError) and "manifest.json" in str(result.exception)


def test_a_setting_out_of_range_is_one_clear_error(tmp_path):
    embeddings = write_embeddings(tmp_path / "e", unit_vectors(3))
    result = CliRunner().invoke(main, [embeddings, "--output", str(tmp_path / "i"), "--m", "1"])
    assert isinstance(result.exception, ConfigError)
