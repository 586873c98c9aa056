"""Shards: an index shared out over several machines, each of which holds consecutive subindexes of it."""

from __future__ import annotations

import numpy as np

from protclip.errors import ConfigError
from protclip.index.manifest import IndexManifest


def split_subindexes(manifest: IndexManifest, num_shards: int) -> list[range]:
    """The subindexes of each shard: all in their order, each once, with about as many rows in every shard.

    A cut is made at the end of the subindex that is nearest to the shard's share.

    Raises:
        ConfigError: for more shards than subindexes.
    """
    subindexes = manifest.segments
    if num_shards > len(subindexes):
        raise ConfigError(
            f"{num_shards} shards are wanted, and the index has {len(subindexes)} subindexes, which are shared whole; "
            f"make it again with a smaller shard_rows than {manifest.shard_rows}, or take fewer shards."
        )
    rows_before = np.cumsum([0, *(subindex.rows for subindex in subindexes)])
    cuts = [0]
    for number in range(1, num_shards):
        first, last = cuts[-1] + 1, len(subindexes) - (num_shards - number)
        share = rows_before[-1] * number / num_shards
        cuts.append(first + int(np.abs(rows_before[first : last + 1] - share).argmin()))
    return [range(first, end) for first, end in zip(cuts, [*cuts[1:], len(subindexes)], strict=True)]
