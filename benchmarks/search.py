"""How fast are search and insertion, by index type, and what do approximate indexes miss?

    python -m benchmarks.search --rows 1000 10000 100000 --json out.json
    .ci/with-milvus-server python -m benchmarks.search --server --rows 10000 100000 --json out.json

The first asks Milvus Lite, the second the server that MILVUS_TEST_URI names. Everything goes through
``milvus_store`` and the store that it returns. Beside each figure stands numpy's: an exact search over the
same vectors, in memory, in the same run; recall is the share of its ten nearest that were found. Vectors are
random, in clusters (``_clustered.py``).
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import statistics
import time
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from llama_index.core.schema import ImageNode
from llama_index.core.vector_stores.types import VectorStoreQuery
from pymilvus.exceptions import MilvusException
from tqdm import tqdm

from llama_index_multimodal_rerank import milvus_store

from ._clustered import ClusteredVectors
from ._databases import temporary_databases

TOP_K = 10
BATCH = 1000

INDEXES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "FLAT": ({}, {}),
    "IVF_FLAT": ({"nlist": 1024}, {"nprobe": 32}),
    "IVF_SQ8": ({"nlist": 1024}, {"nprobe": 32}),
    "HNSW": ({"M": 16, "efConstruction": 200}, {"ef": 100}),
    "DISKANN": ({}, {"search_list": 100}),
}
"""Index types of a server, each with its parameters for building and for searching."""


@dataclass(frozen=True)
class Figures:
    """What one collection gave."""

    where: str
    index_type: str
    rows: int
    insert_rows_per_s: float
    ready_s: float
    """From the last row to an index that all rows are in; on Lite, to the first answer."""
    p50_ms: float
    p99_ms: float
    recall: float
    numpy_p50_ms: float


def seconds_of(call: Callable[[int], Any], repeats: int) -> list[float]:
    """Return the times of ``call(0)``, ``call(1)`` …, after one call that does not count."""
    call(0)
    times = []
    for i in range(repeats):
        started = time.perf_counter()
        call(i)
        times.append(time.perf_counter() - started)
    return times


def fill(store: Any, data: ClusteredVectors) -> float:
    """Write all rows; return the seconds that it took."""
    started = time.perf_counter()
    rows = len(data.vectors)
    for start in tqdm(range(0, rows, BATCH), desc=f"{rows} rows", leave=False, disable=None):
        part = data.vectors[start : start + BATCH].tolist()
        store.add(
            [
                ImageNode(id_=str(start + i), image_path=f"/pictures/{start + i}.jpg", embedding=vector)
                for i, vector in enumerate(part)
            ]
        )
    return time.perf_counter() - started


def wait_until_indexed(store: Any) -> None:
    """Return when all rows are in the index, and the index is in the memory of who searches.

    Raises:
        TimeoutError: the server says that it has finished, and for ten minutes the index holds not all rows.
    """
    client, name = store.client, store.collection_name
    client.flush(name)
    total = int(client.get_collection_stats(name)["row_count"])
    unchanged = 0
    while True:
        index = client.describe_index(name, "embedding")
        if index["pending_index_rows"] == 0 and index["indexed_rows"] >= total:
            break
        unchanged = unchanged + 1 if index["state"] == "Finished" else 0
        if unchanged == 3000:
            raise TimeoutError(f"{index['indexed_rows']} of {total} rows are in the index, and no more come")
        time.sleep(0.2)
    client.release_collection(name)
    client.load_collection(name)


def measure(uri: str, where: str, index_type: str, data: ClusteredVectors, repeats: int) -> Figures:
    """Fill a collection, search it, and search the same vectors with numpy."""
    build, search = INDEXES[index_type]
    embed_model: Any = SimpleNamespace(dim=data.vectors.shape[1], fingerprint={"model": "random"})
    store = milvus_store(
        uri,
        embed_model,
        collection_name=f"search_{uuid.uuid4().hex}",
        index_config={"index_type": index_type, **build},
        search_config=search,
        batch_size=BATCH,
    )
    queries = data.queries

    def ask(i: int) -> list[int]:
        query = VectorStoreQuery(query_embedding=queries[i % len(queries)].tolist(), similarity_top_k=TOP_K)
        return [int(node.node_id) for node in store.query(query).nodes or []]

    try:
        insert = fill(store, data)
        started = time.perf_counter()
        if where == "server":
            wait_until_indexed(store)
        else:
            ask(0)
        ready = time.perf_counter() - started
        times = seconds_of(ask, repeats)
        nearest = [data.nearest(query, TOP_K) for query in queries]
        found = [ask(i) for i in range(len(queries))]
    finally:
        store.client.drop_collection(store.collection_name)
    by_numpy = seconds_of(lambda i: data.nearest(queries[i % len(queries)], TOP_K), repeats)
    hits = sum(len({*a} & {*b}) for a, b in zip(found, nearest, strict=True))
    return Figures(
        where,
        index_type,
        len(data.vectors),
        len(data.vectors) / insert,
        ready,
        1000 * statistics.median(times),
        1000 * float(np.percentile(times, 99)),
        hits / (TOP_K * len(queries)),
        1000 * statistics.median(by_numpy),
    )


HEADER = (
    f"{'where':8} {'index':9} {'rows':>8} {'insert/s':>9} {'ready':>9} {'p50':>10} {'p99':>10} "
    f"{'recall@10':>10} {'numpy p50':>11}"
)


def line(figures: Figures) -> str:
    """Return a line of the table."""
    f = figures
    return (
        f"{f.where:8} {f.index_type:9} {f.rows:>8} {f.insert_rows_per_s:>9.0f} {f.ready_s:>7.1f} s "
        f"{f.p50_ms:>7.1f} ms {f.p99_ms:>7.1f} ms {f.recall:>10.3f} {f.numpy_p50_ms:>8.1f} ms"
    )


def main() -> None:
    """Parse arguments, measure, print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[1000, 10_000, 100_000])
    parser.add_argument("--dim", type=int, default=768)
    parser.add_argument("--repeats", type=int, default=100, help="searches that are timed")
    parser.add_argument("--queries", type=int, default=100, help="different queries, for recall")
    parser.add_argument("--server", action="store_true", help="ask the server that MILVUS_TEST_URI names")
    parser.add_argument("--index", nargs="+", choices=INDEXES, help="default: all on a server, FLAT on Lite")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    uri = os.environ.get("MILVUS_TEST_URI", "")
    if options.server and not uri:
        parser.error("MILVUS_TEST_URI names no server (.ci/with-milvus-server COMMAND starts one)")
    logging.getLogger("grpc").setLevel(logging.CRITICAL)  # Lite's server reports calls it does not know
    results: list[Figures] = []
    print(HEADER, flush=True)
    with temporary_databases() as folder:
        for rows in options.rows:
            data = ClusteredVectors.make(rows, options.queries, options.dim)
            for index_type in options.index or ([*INDEXES] if options.server else ["FLAT"]):
                place = uri if options.server else str(folder / f"{index_type}_{rows}.db")
                where = "server" if options.server else "lite"
                try:
                    figures = measure(place, where, index_type, data, options.repeats)
                except (MilvusException, TimeoutError) as error:
                    print(f"{where:8} {index_type:9} {rows:>8} {error}", flush=True)
                    continue
                results.append(figures)
                print(line(figures), flush=True)
    if options.json:
        text = json.dumps({"dim": options.dim, "top_k": TOP_K, "results": [*map(asdict, results)]}, indent=2)
        options.json.write_text(text)


if __name__ == "__main__":
    main()
