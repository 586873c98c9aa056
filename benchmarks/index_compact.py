"""The compact index beside a graph of whole vectors: memory, disk, speed, build. One thread; some 6 minutes.

    python benchmarks/index_compact.py              100,000 × 512
    python benchmarks/index_compact.py --quick      20,000 × 512; under 2 minutes
    python benchmarks/index_compact.py --embeddings FOLDER    what embed wrote, of which 1,000 rows are the questions
    python benchmarks/index_compact.py --million    1,000,000 × 512, built by one process, and searched in one that may
                                                    reserve 1 GB; half an hour

The vectors are those of benchmarks/index.py. The whole graph is hnswlib's own, called directly with the same M and
ef_construction. Each takes the smallest ef that reaches recall@10 .99, and both are asked in turns, in batches of 100;
processor time counts. Bytes in memory are those of the graph, which is what a compact index holds beside the names of
its rows: the whole vectors stay in a file.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import hnswlib
import numpy as np
from index import (
    DIMENSION,
    EF_CONSTRUCTION,
    EFS,
    NUM_QUERIES,
    ROUNDS,
    K,
    M,
    Rows,
    clustered,
    rate,
    size_mb,
    tuned,
    write_embeddings,
)
from numpy.typing import NDArray
from report import Claim, write_results

from protclip.embeddings.reading import read_embeddings
from protclip.embeddings.settings import PART_ROWS
from protclip.index.exact import exact_search
from protclip.index.index import Index

RECALL = 0.99
BUILD_ROUNDS = 3
BUILD_COMPACT = """
import json, sys, time
from protclip.embeddings.reading import read_embeddings
from protclip.index.build import build_from
from protclip.index.config import IndexConfig
began = time.process_time()
build_from(read_embeddings(sys.argv[1]), sys.argv[2], IndexConfig(shard_rows=int(sys.argv[3])))
print(json.dumps({"seconds": time.process_time() - began}))
"""
BUILD_WHOLE = """
import json, sys, time
import hnswlib
from protclip.embeddings.reading import read_embeddings
began = time.process_time()
vectors = read_embeddings(sys.argv[1]).vectors
graph = hnswlib.Index(space="cosine", dim=vectors.shape[1])
graph.init_index(len(vectors), M=int(sys.argv[3]), ef_construction=int(sys.argv[4]))
graph.add_items(vectors, num_threads=1)
graph.save_index(sys.argv[2])
print(json.dumps({"seconds": time.process_time() - began}))
"""
GRAPH, VECTORS = "segment-00000.hnsw", "segment-00000.npy"
LIMIT_BYTES = 1_000_000_000


def main() -> None:
    """Build both, find ef, measure in turns, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="20,000 vectors, under 2 minutes")
    parser.add_argument("--million", action="store_true", help="1,000,000 vectors, built and searched; half an hour")
    parser.add_argument("--embeddings", metavar="FOLDER", help="what embed wrote, in place of made-up vectors")
    parser.add_argument("--search", nargs=2, metavar=("INDEX", "QUERIES"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.search:
        print(json.dumps(searched(*args.search)))
    elif args.million:
        million()
    elif args.embeddings:
        vectors = np.unique(read_embeddings(args.embeddings).vectors, axis=0)
        order = np.random.default_rng(0).permutation(len(vectors))
        compare(vectors[order[1_000:]], vectors[order[:1_000]], name="index_compact_embeddings", quick=False)
    else:
        vectors, queries = clustered(20_000 if args.quick else 100_000, 1_000 if args.quick else NUM_QUERIES)
        compare(vectors, queries, name="index_compact", quick=args.quick)


def compare(vectors: NDArray[np.float32], queries: NDArray[np.float32], *, name: str, quick: bool) -> None:
    """The compact index beside hnswlib's graph."""
    count, dimension = vectors.shape
    truth = exact_search(vectors, queries, K)[1]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        embeddings = write_embeddings(folder / "embeddings", vectors, part_rows=PART_ROWS)
        rounds = 1 if quick else BUILD_ROUNDS
        built = [
            (
                told([sys.executable, "-c", BUILD_COMPACT, embeddings, f"{folder}/index-{i}", str(count)]),
                told([sys.executable, "-c", BUILD_WHOLE, embeddings, f"{folder}/whole", str(M), str(EF_CONSTRUCTION)]),
            )
            for i in range(rounds)
        ]
        (folder / "index-0").rename(folder / "index")
        index = Index.load(str(folder / "index"))
        manifest, (part,) = index.manifest, index.subindexes
        assert part.graph is not None and manifest.is_compact
        numbers = np.array([int(accession[1:]) for accession in part.metadata["accession"].to_pylist()])
        graph = hnswlib.Index(space="cosine", dim=dimension)
        graph.load_index(str(folder / "whole"), max_elements=count)
        for one in (graph, part.graph):
            one.set_num_threads(1)

        def compact_search(batch: NDArray[np.float32]) -> Rows:
            return numbers[index.search(batch, K)[1]]

        def whole_search(batch: NDArray[np.float32]) -> Rows:
            found: Rows = graph.knn_query(batch, k=K)[0].astype(np.int64)
            return found

        at = {
            "compact": tuned(compact_search, part.set_ef, queries, truth)[-1],
            "whole": tuned(whole_search, graph.set_ef, queries, truth)[-1],
        }
        assert at["compact"] and at["whole"], f"recall {RECALL} is not reached by {EFS[-1]}"
        part.set_ef(at["compact"]["ef"])
        graph.set_ef(at["whole"]["ef"])
        rounds = 5 if quick else ROUNDS
        rates = [(rate(compact_search, queries), rate(whole_search, queries)) for _ in range(rounds)]
        memory = size_mb(folder / "index" / GRAPH) / size_mb(folder / "whole")
        disk = size_mb(folder / "index") / size_mb(folder / "whole")
        sizes = {path.name: path.stat().st_size / count for path in (folder / "index").iterdir()}
        sizes["whole"] = (folder / "whole").stat().st_size / count
    ratio = float(np.median([one / other for one, other in rates]))
    build_ratio = float(np.median([one["seconds"] / other["seconds"] for one, other in built]))
    compact_s, whole_s = (float(np.median([one["seconds"] for one in builds])) for builds in zip(*built, strict=True))
    claims = [
        Claim(claim="index_compact_bytes_over_whole", value=memory, target=1 / 3, unit="x, at most"),
        Claim(claim="index_compact_disk_over_whole", value=disk, unit="x"),
        Claim(claim="index_compact_qps_vs_hnswlib", value=ratio, target=1, unit="x"),
        Claim(claim="index_compact_build_over_hnswlib", value=build_ratio, target=1, unit="x, at most"),
    ]
    compact_qps, whole_qps = (float(np.median(values)) for values in zip(*rates, strict=True))
    lines = [
        f"{count:,} × {dimension}, M = {M}, ef_construction = {EF_CONSTRUCTION}, one thread; graph of "
        f"{manifest.graph_dimension} numbers a vector. Each is built in a process of its own, from embed's files "
        f"to those that a search reads; median of {len(built)} in turns.",
        "",
        "| | build, core-s | bytes a row in memory | on disk | ef | recall@10 | queries/core-s |",
        "|---|---|---|---|---|---|---|",
        f"| compact | {compact_s:.1f} (recall measured too) | {sizes[GRAPH]:,.0f} | {disk * sizes['whole']:,.0f} | "
        f"{at['compact']['ef']} | {at['compact']['recall']:.4f} | {compact_qps:,.0f} |",
        f"| hnswlib, whole | {whole_s:.1f} | {sizes['whole']:,.0f} | {sizes['whole']:,.0f} | {at['whole']['ef']} | "
        f"{at['whole']['recall']:.4f} | {whole_qps:,.0f} |",
    ]
    figures = {"at": at, "built": built, "bytes_a_row": sizes, "recall": manifest.recall, "rates": rates}
    write_results(name, claims, figures, "\n".join(lines), quick=quick)


def million() -> None:
    """A million rows in one subindex, and their search in little memory."""
    count = 1_000_000
    vectors, queries = clustered(count, NUM_QUERIES)
    truth = exact_search(vectors, queries, K)[1]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        embeddings = write_embeddings(folder / "embeddings", vectors)
        del vectors
        np.savez(folder / "queries.npz", queries=queries, truth=truth)
        script = (
            "import json, resource, sys, time; from protclip.embeddings.reading import read_embeddings; "
            "from protclip.index.build import build_from; from protclip.index.config import IndexConfig; "
            "began = time.monotonic(); "
            "made = build_from(read_embeddings(sys.argv[1]), sys.argv[2], IndexConfig(shard_rows=10**6)); "
            "print(json.dumps({'seconds': time.monotonic() - began, 'peak_gb': "
            "resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 'recall': made.recall, "
            "'graph_dimension': made.graph_dimension, 'ef_search': made.ef_search, "
            "'unreached': made.segments[0].unreached}))"
        )
        built = told([sys.executable, "-c", script, embeddings, str(folder / "index")])
        found = told([sys.executable, __file__, "--search", str(folder / "index"), str(folder / "queries.npz")])
        graph_bytes = (folder / "index" / GRAPH).stat().st_size / count
        disk_bytes = size_mb(folder / "index") * 1e6 / count
    claims = [
        Claim(claim="index_million_build_h", value=built["seconds"] / 3600, unit="h, one thread"),
        Claim(claim="index_million_build_peak_gb", value=built["peak_gb"], unit="GB"),
        Claim(claim="index_million_recall_at_10_in_1_gb", value=found["recall"], target=RECALL, unit=""),
        Claim(claim="index_million_qps_in_1_gb", value=found["qps"], unit="queries/s, one thread"),
    ]
    table = (
        f"{count:,} × {DIMENSION}: {graph_bytes:,.0f} bytes a row in memory, {disk_bytes:,.0f} on disk; graph of "
        f"{built['graph_dimension']} numbers a vector, ef_search {built['ef_search']}, {built['unreached']} vectors "
        f"that the graph does not find. Searched by a process that may reserve {LIMIT_BYTES / 1e9:.0f} GB "
        f"(RLIMIT_DATA): {found['anonymous_mb']:,.0f} MB of its own at most."
    )
    write_results("index_million", claims, {"built": built, "found": found}, table, quick=False)


def told(command: list[str]) -> dict[str, Any]:
    """What a process of one thread prints at last; OpenBLAS reserves memory for each."""
    env = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=env)
    value: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return value


def searched(folder: str, path: str) -> dict[str, float]:
    """Recall and rate of an index, in a process that may reserve so much memory."""
    resource.setrlimit(resource.RLIMIT_DATA, (LIMIT_BYTES, LIMIT_BYTES))
    with np.load(path, allow_pickle=False) as arrays:
        queries, truth = arrays["queries"], arrays["truth"]
    index = Index.load(folder)
    (part,) = index.subindexes
    assert part.graph is not None
    part.graph.set_num_threads(1)
    index.search(queries[:100], K)
    began = time.monotonic()
    rows = np.concatenate([index.search(queries[i : i + 100], K)[1] for i in range(0, len(queries), 100)])
    seconds = time.monotonic() - began
    names = index.table(rows.ravel(), ())["accession"].to_pylist()
    found = np.array([int(name[1:]) for name in names]).reshape(rows.shape)
    recall = float(np.mean([len(set(a) & set(b)) / K for a, b in zip(found.tolist(), truth.tolist(), strict=True)]))
    status = Path("/proc/self/status").read_text()
    anonymous_kb = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("RssAnon"))
    return {"recall": recall, "qps": len(queries) / seconds, "anonymous_mb": anonymous_kb / 1e3}


if __name__ == "__main__":
    main()
