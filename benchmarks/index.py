"""Building and searching an index: against hnswlib called directly, faiss and usearch. One thread; some 20 minutes.

    python benchmarks/index.py            100,000 × 512
    python benchmarks/index.py --quick    20,000 × 512; under 2 minutes

Seeded unit vectors in clusters, M = 16, ef_construction = 200. Queries are other vectors of the same clusters. For each
wanted recall at 10 the smallest ef that reaches it is used, and the queries are asked in batches of 100; processor time
counts. The package and hnswlib take turns, since their ratio is the claim; the median of the ratios is taken.

    protclip   ``Index.search`` over a finished folder, its graph of whole vectors: queries checked, answers sorted
    hnswlib    ``knn_query`` on the same graph file
    faiss      HNSWFlat, inner product; where installed
    usearch    inner product, f32; where installed
    exact      ``Index.search(exact=True)``
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hnswlib
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from report import Claim, write_results

from protclip.embeddings.reading import METADATA, read_embeddings
from protclip.index.build import build_from
from protclip.index.config import IndexConfig
from protclip.index.exact import exact_search
from protclip.index.index import Index
from protclip.manifest import write_manifest

DIMENSION, M, EF_CONSTRUCTION, K, BATCH = 512, 16, 200, 10, 100
WANTED = (0.95, 0.99)
EFS = (10, 12, 14, 16, 20, 24, 28, 32, 40, 48, 64, 80, 96, 128, 160, 192, 256, 384, 512)
NUM_QUERIES, ROUNDS = 2_000, 15
Rows = NDArray[np.int64]
Search = Callable[[NDArray[np.float32]], Rows]


def main() -> None:
    """Build, find ef, measure in turns, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="20,000 vectors, under 2 minutes")
    quick = parser.parse_args().quick
    count = 20_000 if quick else 100_000
    vectors, queries = clustered(count, 1_000 if quick else NUM_QUERIES)
    truth = exact_search(vectors, queries, K)[1]
    with tempfile.TemporaryDirectory() as folder:
        results, ratios = measured(Path(folder), vectors, queries, truth, rounds=4 if quick else ROUNDS)
    claims = [
        Claim(claim=f"index_qps_recall_{wanted}_vs_hnswlib", value=ratios[wanted], target=0.95, unit="x")
        for wanted in WANTED
    ]
    lines = [
        f"{count:,} × {DIMENSION}, M = {M}, ef_construction = {EF_CONSTRUCTION}, one thread, batches of {BATCH}.",
        "",
        "| | build, core-s | MB | "
        + " | ".join(f"recall@10 ≥ {wanted}: ef, recall, queries/core-s" for wanted in WANTED)
        + " |",
        "|---|---|---|" + "---|" * len(WANTED),
    ]
    for name, values in results.items():
        cells = [
            f"{at['ef']}, {at['recall']:.4f}, {at['qps']:,.0f}" if at else "not reached" for at in values["search"]
        ]
        lines.append(f"| {name} | {values['build_s']:.1f} | {values['mb']:.0f} | {' | '.join(cells)} |")
    write_results("index", claims, {"results": results}, "\n".join(lines), quick=quick)


def clustered(count: int, num_queries: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Unit vectors round the centres of clusters of some 50, in directions of 64 dimensions, and queries among them."""
    rng = np.random.default_rng(0)
    basis = rng.standard_normal((64, DIMENSION)).astype(np.float32)
    centres = rng.standard_normal((count // 50, 64)).astype(np.float32)
    chosen = rng.integers(len(centres), size=count + num_queries)
    points = centres[chosen] + 0.7 * rng.standard_normal((len(chosen), 64)).astype(np.float32)
    vectors = points @ basis + 0.5 * rng.standard_normal((len(chosen), DIMENSION)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors[:count], vectors[count:]


def measured(
    folder: Path, vectors: NDArray[np.float32], queries: NDArray[np.float32], truth: Rows, *, rounds: int
) -> tuple[dict[str, Any], dict[float, float]]:
    """Of each library what it takes and gives, and ours over hnswlib at each wanted recall."""
    results: dict[str, Any] = {}
    started = time.process_time()
    embeddings = read_embeddings(write_embeddings(folder / "embeddings", vectors))
    build_from(
        embeddings, str(folder / "index"), IndexConfig(ef_search=100, shard_rows=len(vectors), graph_dimension=0)
    )
    ours_s = time.process_time() - started
    index = Index.load(str(folder / "index"))
    (part,) = index.subindexes
    path = folder / "index" / "segment-00000.hnsw"
    assert part.graph is not None, "the graph must be measured"
    # Labels of the graph are rows of the subindex; answers are compared by accession.
    numbers = np.array([int(name[1:]) for name in part.metadata["accession"].to_pylist()])
    graph = hnswlib.Index(space="cosine", dim=DIMENSION)
    graph.load_index(str(path))
    for one in (graph, part.graph):
        one.set_num_threads(1)

    def protclip_search(batch: NDArray[np.float32]) -> Rows:
        return numbers[index.search(batch, K)[1]]

    def hnswlib_search(batch: NDArray[np.float32]) -> Rows:
        found: Rows = graph.knn_query(batch, k=K)[0].astype(np.int64)
        return numbers[found]

    ours = tuned(protclip_search, part.set_ef, queries, truth)
    ratios = {}
    for wanted, at in zip(WANTED, ours, strict=True):
        assert at is not None, f"no ef reaches {wanted}"
        part.set_ef(at["ef"])
        graph.set_ef(at["ef"])
        rates = [(rate(protclip_search, queries), rate(hnswlib_search, queries)) for _ in range(rounds)]
        ratios[wanted] = float(np.median([one / other for one, other in rates]))
        at["qps"], direct = (float(np.median(values)) for values in zip(*rates, strict=True))
        results.setdefault("hnswlib", {"search": []})["search"].append({**at, "qps": direct})
    results = {"protclip": {"build_s": ours_s, "mb": size_mb(folder / "index"), "search": ours}, **results}

    started = time.process_time()
    direct_graph = hnswlib.Index(space="cosine", dim=DIMENSION)
    direct_graph.init_index(len(vectors), M=M, ef_construction=EF_CONSTRUCTION)
    direct_graph.add_items(vectors, num_threads=1)
    direct_graph.save_index(str(folder / "direct"))
    results["hnswlib"].update(build_s=time.process_time() - started, mb=size_mb(folder / "direct"))
    for name, build in (("faiss", faiss_graph), ("usearch", usearch_graph)):
        if installed(name):
            started = time.process_time()
            search, set_ef = build(vectors, folder / name)
            spent = time.process_time() - started
            found = tuned(search, set_ef, queries, truth)
            results[name] = {"build_s": spent, "mb": size_mb(folder / name), "search": found}
    exact = rate(lambda batch: index.search(batch, K, exact=True)[1], queries[:500])
    at = {"ef": "–", "recall": 1.0, "qps": exact}
    results["exact"] = {"build_s": 0.0, "mb": vectors.nbytes / 1e6, "search": [at] * len(WANTED)}
    return results, ratios


def installed(name: str) -> bool:
    """Whether a library can be imported."""
    with contextlib.suppress(ImportError):
        importlib.import_module(f"{name}.index" if name == "usearch" else name)
        return True
    return False


def tuned(search: Search, set_ef: Callable[[int], None], queries: NDArray[np.float32], truth: Rows) -> list[Any]:
    """For each wanted recall the smallest ef that reaches it, with recall and queries per core-second."""
    found: list[Any] = []
    for ef in EFS:
        set_ef(ef)
        rows = np.concatenate([search(queries[i : i + BATCH]) for i in range(0, len(queries), BATCH)])
        pairs = zip(rows.tolist(), truth.tolist(), strict=True)
        recall = float(np.mean([len(set(a) & set(b)) / K for a, b in pairs]))
        while len(found) < len(WANTED) and recall >= WANTED[len(found)]:
            found.append(
                {"ef": ef, "recall": recall, "qps": float(np.median([rate(search, queries) for _ in range(3)]))}
            )
        if len(found) == len(WANTED):
            break
    return found + [None] * (len(WANTED) - len(found))


def rate(search: Search, queries: NDArray[np.float32]) -> float:
    """Queries per core-second."""
    started = time.process_time()
    for i in range(0, len(queries), BATCH):
        search(queries[i : i + BATCH])
    return len(queries) / (time.process_time() - started)


def faiss_graph(vectors: NDArray[np.float32], path: Path) -> tuple[Search, Callable[[int], None]]:
    """faiss's HNSWFlat, saved to the path."""
    import faiss

    faiss.omp_set_num_threads(1)
    index = faiss.IndexHNSWFlat(DIMENSION, M, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction = EF_CONSTRUCTION
    index.add(vectors)
    faiss.write_index(index, str(path))
    return lambda batch: index.search(batch, K)[1], lambda ef: setattr(index.hnsw, "efSearch", ef)


def usearch_graph(vectors: NDArray[np.float32], path: Path) -> tuple[Search, Callable[[int], None]]:
    """usearch's graph, saved to the path."""
    from usearch.index import Index as Graph

    graph = Graph(ndim=DIMENSION, metric="ip", dtype="f32", connectivity=M, expansion_add=EF_CONSTRUCTION)
    graph.add(np.arange(len(vectors)), vectors, threads=1)
    graph.save(str(path))

    def set_ef(ef: int) -> None:
        graph.expansion_search = ef

    return lambda batch: graph.search(batch, K, threads=1).keys.astype(np.int64), set_ef


def write_embeddings(folder: Path, vectors: NDArray[np.float32], *, part_rows: int = 2**31) -> str:
    """A folder as ``protclip embed`` leaves it."""
    folder.mkdir()
    columns = {field.name: pa.nulls(len(vectors), field.type) for field in METADATA}
    columns["accession"] = pa.array([f"P{i:09d}" for i in range(len(vectors))])
    columns["embedding"] = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1])
    table = pa.table(columns)
    parts = {f"part-{i:05d}.parquet": table.slice(i * part_rows, part_rows) for i in range(-(-len(table) // part_rows))}
    for name, part in parts.items():
        pq.write_table(part, folder / name)
    record: dict[str, Any] = {
        "content": "protein",
        "model_fingerprint": "0" * 64,
        "dimension": vectors.shape[1],
        "rows": len(vectors),
    }
    write_manifest(str(folder), "embeddings", list(parts), **record)
    return str(folder)


def size_mb(path: Path) -> float:
    """Of a file, or of all in a folder."""
    paths = path.iterdir() if path.is_dir() else [path]
    return sum(one.stat().st_size for one in paths) / 1e6


if __name__ == "__main__":
    main()
