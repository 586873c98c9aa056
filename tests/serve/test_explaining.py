"""Explanations beside searches: the numbers of ``Retriever.explain``, in time, in turns, and no further than wanted."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest

from serve.deployments import Replica

pytestmark = pytest.mark.unit


@pytest.fixture(scope="module")
def replica(folders: Any) -> Replica:
    return Replica(folders.args, folders.model.fingerprint, "float32")


@pytest.mark.parametrize(("window", "stride"), [(None, 1), (5, 3), (11, 1000)])
def test_an_explanation_is_that_of_the_retriever(replica, folders, window, stride):
    sequence = folders.sequences[4]
    found = asyncio.run(replica.explain("kinase", sequence=sequence, accession=None, window=window, stride=stride))
    wanted = replica.retriever.explain(sequence, "kinase", window=window, stride=stride)
    np.testing.assert_allclose(found.occlusion, wanted.occlusion, atol=1e-6)
    assert {**asdict(found), "occlusion": 0} == {**asdict(wanted), "occlusion": 0}
