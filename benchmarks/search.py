"""Where does the embedded default end? Milvus Lite's search time against the number of rows.

    python -m benchmarks.search --rows 1000 10000 100000 --json out.json

Beside each figure stands numpy's: the same exact search over the same vectors, in memory, in the
same run. Vectors are random; an exact search does not care.
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from llama_index.core.schema import ImageNode
from llama_index.core.vector_stores.types import VectorStoreQuery
from tqdm import tqdm

from llama_index_multimodal_rerank import milvus_store

from ._databases import temporary_databases

TOP_K = 9


def median_seconds(call: Callable[[int], Any], repeats: int) -> float:
    """Return the median time of ``call(0)``, ``call(1)`` …, after one call that does not count."""
    call(0)
    times = []
    for i in range(repeats):
        started = time.perf_counter()
        call(i)
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def measure(rows: int, dim: int, repeats: int, folder: Path) -> dict[str, float]:
    """Fill a collection, search it, and search the same vectors with numpy."""
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((rows, dim), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    embed_model: Any = SimpleNamespace(dim=dim, fingerprint={"model": "random"})
    store = milvus_store(folder / f"{rows}.db", embed_model, batch_size=1000)

    started = time.perf_counter()
    for start in tqdm(range(0, rows, 1000), desc=f"{rows} rows", leave=False):
        part = vectors[start : start + 1000].tolist()
        store.add(
            [
                ImageNode(id_=str(start + i), image_path=f"/pictures/{start + i}.jpg", embedding=vector)
                for i, vector in enumerate(part)
            ]
        )
    insert = time.perf_counter() - started

    def ask(i: int) -> list[str]:
        query = VectorStoreQuery(query_embedding=vectors[i].tolist(), similarity_top_k=TOP_K)
        return [node.node_id for node in store.query(query).nodes or []]

    def brute_force(i: int) -> list[str]:
        scores = vectors @ vectors[i]
        best = np.argpartition(-scores, TOP_K)[:TOP_K]
        return [str(row) for row in best[np.argsort(-scores[best])]]

    started = time.perf_counter()
    ask(0)
    first = time.perf_counter() - started  # flushes
    assert ask(3) == brute_force(3)
    lite, numpy = median_seconds(ask, repeats), median_seconds(brute_force, repeats)
    return {
        "rows": rows,
        "insert_rows_per_s": rows / insert,
        "first_search_s": first,
        "search_s": lite,
        "numpy_s": numpy,
        "ratio": lite / numpy,
    }


def main() -> None:
    """Parse arguments, measure, print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[1000, 10_000, 100_000])
    parser.add_argument("--dim", type=int, default=768)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    logging.getLogger("grpc").setLevel(logging.CRITICAL)  # Lite's server reports calls it does not know
    results = []
    print(f"{'rows':>8} {'insert/s':>10} {'first search':>13} {'search':>10} {'numpy':>10} {'ratio':>7}")
    with temporary_databases() as folder:
        for rows in options.rows:
            r = measure(rows, options.dim, options.repeats, folder)
            results.append(r)
            print(
                f"{rows:>8} {r['insert_rows_per_s']:>10.0f} {r['first_search_s']:>11.3f} s "
                f"{r['search_s']:>8.4f} s {r['numpy_s']:>8.4f} s {r['ratio']:>7.1f}"
            )
    if options.json:
        options.json.write_text(
            json.dumps({"dim": options.dim, "top_k": TOP_K, "results": results}, indent=2)
        )


if __name__ == "__main__":
    main()
