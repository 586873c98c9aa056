"""An index in shards: the answers are those of a server that holds the whole, and of a part where one is missing."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from tiny_model import random_texts, write_protein_index

from protclip.index.build import IndexConfig
from serve.settings import Sharding


pytestmark = pytest.mark.serve


@pytest.fixture(scope="module")
def servers(server, tmp_path_factory) -> tuple[Any, Any]:
    """The whole index in one replica, and in three shards."""
    from ray import serve

    from serve.app import build_app

    sequences = [*server.sequences, *server.sequences[:20]]  # equal scores in several shards
    folder = tmp_path_factory.mktemp("shards")
    index = write_protein_index(folder, server.model, sequences, config=IndexConfig(shard_rows=17))
    whole = server.args.model_copy(update={"index": index})
    sharded = whole.model_copy(update={"sharding": Sharding(num_shards=3, num_replicas=2)})
    serve.run(build_app(whole), name="whole", route_prefix="/whole")
    serve.run(build_app(sharded), name="sharded", route_prefix="/sharded")
    return tuple(
        type(server)(model=server.model, sequences=sequences, args=args, url=f"{server.url}/{name}")
        for name, args in (("whole", whole), ("sharded", sharded))
    )


def test_first(servers):
    whole, sharded = servers
    for body in ({"text": "kinase"}, {"accession": "P00003", "exclude_self": True}, {"accession":"nobody"}):
        a, b = whole.post("/v1/search", body), sharded.post("/v1/search", body)
        print(a.json(), b.json())
