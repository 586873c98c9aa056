"""Damage an index and make its manifest fit, load and search it: a process of its own, since hnswlib may end it.

    python damaged_graphs.py INDEX SEED COUNT [ending]

prints one JSON object: how each kind of damage ended. On standard error stands the one in progress.
"""

from __future__ import annotations

import json
import struct
import sys
from collections import Counter
from pathlib import Path

import numpy as np

from protclip.errors import ProtclipError
from protclip.index import manifest as manifest_module
from protclip.index import subindex
from protclip.index.filters import parse_filter
from protclip.index.index import Index
from protclip.manifest import describe

HEAD = struct.calcsize("<6QiI3QdQ")


def damage(rng: np.random.Generator, content: bytearray) -> str:
    """Flip a bit, set a word, cut, grow, or aim at the head or the lists above level 0."""
    kind = ("flip", "word", "cut", "grow", "head", "links", "upper")[rng.integers(7)]
    words = [0, 1, 2**16, 2**16 + 1, 2**31 - 1, 2**32 - 1, 59, 60, 31, int(rng.integers(2**32))]
    word = int(words[rng.integers(len(words))]).to_bytes(4, "little")
    count, element_bytes = struct.unpack_from("<2Q", content, 16)
    behind = HEAD + count * element_bytes
    if kind == "flip":
        content[rng.integers(len(content))] ^= 1 << int(rng.integers(8))
    elif kind == "cut":
        del content[rng.integers(len(content)) :]
    elif kind == "grow":
        content += rng.bytes(int(rng.integers(1, 50)))
    else:
        start, end = {
            "word": (0, len(content)),
            "head": (0, HEAD),
            "links": (HEAD, behind),
            "upper": (behind, len(content)),
        }[kind]
        place = start + 4 * int(rng.integers((end - start) // 4))
        content[place : place + 4] = word
    return kind


def run(folder: Path, seed: int, count: int, ending: str) -> Counter[str]:
    """Damage the files of that ending, one after the other, so many times."""
    subindex.EXACT_ROWS = subindex.GRAPH_COST = 0  # graphs are searched whatever their size
    rng = np.random.default_rng(seed)
    manifest = json.loads((folder / "manifest.json").read_text())
    names = sorted(name for name in manifest["files"] if name.endswith(ending))
    good = {name: (folder / name).read_bytes() for name in names}
    queries = rng.standard_normal((20, manifest["dimension"])).astype(np.float32)
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    where = parse_filter("reviewed and length < 150")
    outcomes: Counter[str] = Counter()
    for number in range(count):
        name = names[rng.integers(len(names))]
        content = bytearray(good[name])
        kind = damage(rng, content) if ending == ".hnsw" else flip(rng, content)
        print(f"seed {seed}, number {number}: {kind} of {name}", file=sys.stderr, flush=True)
        (folder / name).write_bytes(content)
        manifest["files"][name] = describe(str(folder / name))
        body = {k: v for k, v in manifest.items() if k not in ("kind", "schema_version", "software", "digest")}
        manifest["digest"] = manifest_module._digest(body)
        (folder / "manifest.json").write_text(json.dumps(manifest))
        try:
            index = Index.load(str(folder))
            index.hits_of_each(queries, 7)
            index.hits_of_each(queries, 60)
            index.hits_of_each(queries, 7, where=where)
            outcomes[f"{kind}: answered"] += 1
        except ProtclipError as error:
            assert "\n" not in str(error), str(error)
            outcomes[f"{kind}: refused"] += 1
        (folder / name).write_bytes(good[name])
        manifest["files"][name] = describe(str(folder / name))
    return outcomes


def flip(rng: np.random.Generator, content: bytearray) -> str:
    """Change up to four bytes."""
    for _ in range(rng.integers(1, 5)):
        content[rng.integers(len(content))] = int(rng.integers(256))
    return "bytes"


if __name__ == "__main__":
    place, seed_text, count_text, *rest = sys.argv[1:]
    print(json.dumps(run(Path(place), int(seed_text), int(count_text), rest[0] if rest else ".hnsw"), sort_keys=True))
