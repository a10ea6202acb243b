"""A process that indexes pictures into Milvus Lite, to be killed; and one that looks at what it left.

Imports no torch: a picture's vector is drawn from the digest of its bytes.
"""

from __future__ import annotations

import os
import resource
import signal
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import milvus_lite.adapter.grpc.server  # noqa: F401 (slow; preloaded once for all children)
import numpy as np
from llama_index.core.vector_stores.types import VectorStoreQuery, VectorStoreQueryMode
from llama_index.vector_stores.milvus import MilvusVectorStore
from llama_index.vector_stores.milvus.utils import BaseSparseEmbeddingFunction, BM25BuiltInFunction
from milvus_lite.storage import wal

from llama_index_multimodal_rerank import ImageTextNode, load_image_nodes, milvus_store

DIM = 16
BATCH = 5


class DigestVectors:
    """What milvus_store asks of an embedding."""

    dim = DIM
    fingerprint = {"model": "digest", "dim": str(DIM)}  # noqa: RUF012


class OneWord(BaseSparseEmbeddingFunction):
    """Texts are one number each, and so are their sparse vectors."""

    def encode_queries(self, queries: list[str]) -> list[dict[int, float]]:
        return [{int(text): 1.0} for text in queries]

    encode_documents = encode_queries


def open_store(uri: str, **options: Any) -> MilvusVectorStore:
    return milvus_store(uri, DigestVectors(), **options)  # type: ignore[arg-type]


def embedded(folder: Path) -> list[ImageTextNode]:
    nodes = load_image_nodes(folder, text=lambda path: str(int(path.stem)))
    for node in nodes:
        seed = int(node.metadata["image_digest"][-8:], 16)
        vector = np.random.default_rng(seed).normal(size=DIM)
        node.embedding = (vector / np.linalg.norm(vector)).tolist()
    return nodes


def index(uri: str, folder: Path, acknowledged: Connection) -> None:
    """Add all pictures, in batches; send the ids of every batch once it is added."""
    acknowledged.send([])  # about to begin
    store = open_store(uri)
    _add_all(store, embedded(folder), acknowledged)


def index_until_killed(uri: str, folder: Path, acknowledged: Connection) -> None:
    """As :func:`index`, a hundred times: however slow the killer is, there is something to cut short."""
    # Where the tests run in the background of a shell, Ctrl-C is ignored, by their children too.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    acknowledged.send([])  # about to begin
    store = open_store(uri)
    nodes = embedded(folder)
    for _ in range(100):
        _add_all(store, nodes, acknowledged)


def index_and_die_in_flush(uri: str, folder: Path, acknowledged: Connection, words: Any = None) -> None:
    """Add all pictures; be killed when their segment is written and its log not yet removed."""
    store = open_store(uri, sparse_embedding_function=words)
    acknowledged.send(store.add(embedded(folder)))
    wal.WAL.close_and_delete = lambda self: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[method-assign]
    store.client.flush(store.collection_name)


def index_words_and_die_in_flush(uri: str, folder: Path, acknowledged: Connection) -> None:
    index_and_die_in_flush(uri, folder, acknowledged, OneWord())


def index_bm25_and_die_in_flush(uri: str, folder: Path, acknowledged: Connection) -> None:
    index_and_die_in_flush(uri, folder, acknowledged, BM25BuiltInFunction())


def rows_of_words(uri: str, folder: Path, answer: Connection, words: Any = None) -> None:
    """Send the ids found by their words, and the ids of all rows."""
    store = open_store(uri, sparse_embedding_function=words or OneWord())
    found = []
    for node in embedded(folder):
        query = VectorStoreQuery(query_str=node.text, similarity_top_k=1, mode=VectorStoreQueryMode.SPARSE)
        if store.query(query).ids == [node.node_id]:
            found.append(node.node_id)
    answer.send((found, _all_rows(store)))


def rows_of_bm25(uri: str, folder: Path, answer: Connection) -> None:
    rows_of_words(uri, folder, answer, BM25BuiltInFunction())


def index_on_a_full_disk(uri: str, folder: Path, acknowledged: Connection) -> None:
    """Add until the disk is full, send the error; make room, add the rest, and be killed."""
    store = open_store(uri)
    nodes = embedded(folder)
    resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, resource.RLIM_INFINITY))
    done = 0
    try:
        while True:
            acknowledged.send(store.add(nodes[done : done + BATCH]))
            done += BATCH
    except Exception as error:
        acknowledged.send([type(error).__name__, isinstance(error, OSError), str(error)])
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    for start in range(done, len(nodes), BATCH):
        acknowledged.send(store.add(nodes[start : start + BATCH]))
    os.kill(os.getpid(), signal.SIGKILL)


def _add_all(store: MilvusVectorStore, nodes: list[ImageTextNode], acknowledged: Connection) -> None:
    for start in range(0, len(nodes), BATCH):
        batch = nodes[start : start + BATCH]
        acknowledged.send(store.add(batch))
        if start % (3 * BATCH) == 0:  # a search flushes
            store.query(VectorStoreQuery(query_embedding=batch[0].embedding, similarity_top_k=1))


def look_and_finish(uri: str, folder: Path, answer: Connection) -> None:
    """Open what a killed process left; add all pictures again.

    Sends, before and after, the ids found by their vectors, the ids found by id, and the ids of all rows,
    doubles included.
    """
    store = open_store(uri)
    nodes = embedded(folder)
    answer.send((_found_by_vector(store, nodes), _by_id(store, nodes), _all_rows(store)))
    store.add(nodes)
    answer.send((_found_by_vector(store, nodes), _by_id(store, nodes), _all_rows(store)))


def _found_by_vector(store: MilvusVectorStore, nodes: list[ImageTextNode]) -> list[str]:
    found = []
    for node in nodes:
        result = store.query(VectorStoreQuery(query_embedding=node.embedding, similarity_top_k=1))
        if result.ids == [node.node_id]:
            found.append(node.node_id)
    return found


def _by_id(store: MilvusVectorStore, nodes: list[ImageTextNode]) -> list[str]:
    return [node.node_id for node in store.get_nodes([node.node_id for node in nodes])]


def _all_rows(store: MilvusVectorStore) -> list[str]:
    found: list[dict[str, Any]] = store.client.query(
        store.collection_name, filter='id != ""', output_fields=["id"], limit=10_000
    )
    return [row["id"] for row in found]
