"""An index in shards answers as the whole does: order, scores to the last bit, percentiles, errors.

In Serve's mode of one process; tests/serve/test_sharded.py has it over HTTP, with replicas that die.
"""

from __future__ import annotations

import asyncio
import dataclasses
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from tiny_model import WORDS, write_protein_index

from protclip.errors import ProtclipError
from protclip.index import subindex
from protclip.index.config import IndexConfig
from protclip.questions import COLUMNS, Options, Question
from serve.deployments import Replica
from serve.settings import Sharding

pytestmark = [pytest.mark.unit, pytest.mark.slow]

NUM_CASES = 150
FILTERS = (None, "reviewed", "length > 120 and not ec = 1", "gene contains gP0000", "accession in (P00001, P00030)")


@pytest.fixture(scope="module")
def servers(folders, tmp_path_factory) -> Iterator[tuple[Any, Replica]]:
    """A gateway over three shards of six subindexes, as a handle, and a replica with the whole index."""
    from ray import serve

    from serve.app import build_app

    patch = pytest.MonkeyPatch()
    patch.setattr(subindex, "EXACT_ROWS", 3)  # so that graphs are searched
    sequences = [*folders.sequences, *folders.sequences[:20]]  # equal vectors in several shards
    index = write_protein_index(
        tmp_path_factory.mktemp("shards"), folders.model, sequences, config=IndexConfig(shard_rows=15)
    )
    # Else a busy machine would have explanations of another stride.
    limits = folders.args.limits.model_copy(update={"explain_s": 600.0})
    args = folders.args.model_copy(update={"limits": limits, "sharding": Sharding(index=index, num_shards=3)})
    replica = Replica(args, folders.model.fingerprint)
    asyncio.run(replica.reconfigure({"indexes": {"default": index}}))
    yield serve.run(build_app(args), _local_testing_mode=True), replica
    patch.undo()


def random_case(rng: random.Random, folders: Any) -> tuple[list[Question], Options]:
    """Questions of all kinds under all options."""

    def question() -> Question:
        kind = rng.choice(["text", "sequence", "accession", "vector"])
        name = rng.choice([None, f"P{rng.randrange(80):05d}"])
        if kind == "vector":
            vector = folders.model.embed_proteins([rng.choice(folders.sequences)])[0]
            return Question(vector=vector, kind=rng.choice([None, "protein", "text"]), name=name)
        values = {
            "text": " ".join(rng.choices(WORDS, k=rng.randrange(1, 60))),
            "sequence": rng.choice(folders.sequences),
            "accession": f"P{rng.randrange(82):05d}",  # some are not there
        }
        return Question(**{kind: values[kind]}, name=name)

    options = Options(
        k=rng.choice([1, 3, 10, 100]),
        offset=rng.choice([0, 0, 2, 70]),
        where=rng.choice(FILTERS),
        min_score=rng.choice([None, None, -1, 0.0, 0.9]),
        exact=rng.random() < 0.3,
        exclude_self=rng.random() < 0.4,
        columns=rng.choice([None, (), ("gene",), COLUMNS]),
        map=rng.random() < 0.2,
    )
    return [question() for _ in range(rng.choice([1, 1, 1, 4]))], options


def of_whole(replica: Replica, method: str, *arguments: Any, **options: Any) -> Any:
    try:
        return asyncio.run(getattr(replica, method)(*arguments, **options))
    except ProtclipError as error:
        return type(error), str(error)


def of_shards(gateway: Any, method: str, *arguments: Any, **options: Any) -> Any:
    try:
        return getattr(gateway, method).remote(*arguments, **options).result()
    except ProtclipError as error:
        return type(error), str(error)


def test_answers_are_those_of_the_whole_index(servers, folders):
    gateway, replica = servers
    rng = random.Random(202611)
    num_errors = 0
    for _ in range(NUM_CASES):
        case = random_case(rng, folders)
        whole = of_whole(replica, "search", *case)
        num_errors += isinstance(whole, tuple)
        assert of_shards(gateway, "search", *case) == whole, case
    assert 0 < num_errors < NUM_CASES / 2


@pytest.mark.parametrize("accession", ["P00001", "P00029", "nobody"])
def test_what_is_known_of_a_protein_is_that_of_the_whole_index(servers, accession):
    gateway, replica = servers
    assert of_shards(gateway, "protein", accession) == of_whole(replica, "protein", accession)


@pytest.mark.parametrize(
    "asked", [{"sequence": "MKTAYIAKQRQ", "accession": None}, {"sequence": None, "accession": "P00001"}]
)
def test_explanations_are_those_of_the_whole_index(servers, asked):
    gateway, replica = servers
    asked |= {"window": 3, "stride": 1}
    found, whole = (
        of(server, "explain", "kinase", **asked) for of, server in ((of_shards, gateway), (of_whole, replica))
    )
    np.testing.assert_allclose(found.occlusion, whole.occlusion, atol=1e-5)  # how many passes go together varies
    assert dataclasses.replace(found, occlusion=[]) == dataclasses.replace(whole, occlusion=[])


def test_another_index_is_not_there(servers):
    gateway, replica = servers
    asked = [Question(text="kinase")], Options()
    for method, arguments in (("search", asked), ("protein", ("P00001",))):
        found = of_shards(gateway, method, *arguments, index="other")
        assert found == of_whole(replica, method, *arguments, index="other") and "'other'" in found[1]
