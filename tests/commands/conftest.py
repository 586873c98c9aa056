from __future__ import annotations

import pytest
from searches import SEQUENCES, Folders, measured
from tiny_model import tiny_model, write_protein_index


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Folders:
    """A model, an index by it and its checkpoint; of float32 unless the test is ``in_each_dtype``."""
    folder = tmp_path_factory.mktemp("search")
    model = tiny_model(dtype=getattr(request, "param", "float32"))
    model.save_pretrained(str(folder / "checkpoint"), metrics=measured(0.5))
    return model, write_protein_index(folder, model, SEQUENCES), str(folder / "checkpoint")
