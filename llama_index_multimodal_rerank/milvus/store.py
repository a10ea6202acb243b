"""milvus_store: a MilvusVectorStore, set up right for Milvus Lite, a server or Zilliz Cloud."""

from __future__ import annotations

import inspect
import json
import logging
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .lite_recovery import check_is_database
from .names import check_name

if TYPE_CHECKING:
    from llama_index.vector_stores.milvus import MilvusVectorStore
    from llama_index.vector_stores.milvus.utils import BaseSparseEmbeddingFunction, BM25BuiltInFunction
    from pymilvus import MilvusClient

    from ..embeddings.visualized_bge import VisualizedBGEEmbedding

logger = logging.getLogger(__name__)

SIMILARITY_METRICS = ("COSINE", "IP")
FINGERPRINT_PROPERTY = "llama_index_multimodal_rerank.embedding"
"""Collection property that remembers which embedding filled the collection (JSON)."""

LITE_COMFORTABLE_ROWS = 100_000
"""Rows above which one exact search on Milvus Lite takes about a second or more."""

QUIET_CONNECTION = {"grpc.keepalive_time_ms": 2**31 - 1, "grpc.keepalive_permit_without_calls": 0}
"""Options of gRPC with which Milvus Lite is not pinged.

pymilvus (2.6.17) pings every ten seconds, and gRPC's default server, which Lite is, takes that for an attack:
after a minute or two with few requests it closes the connection, and gRPC prints "ENHANCE_YOUR_CALM",
"too_many_pings". There is nothing to keep alive: the server is in the same process.
"""

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://|unix:")
_SERVER_SCHEMES = ("http://", "https://", "tcp://", "unix:")


class EmbeddingMismatchError(ValueError):
    """A collection that was filled by another embedding, or built for another dimension or metric."""


def milvus_store(
    uri: str | Path,
    embed_model: VisualizedBGEEmbedding,
    *,
    collection_name: str = "images",
    token: str = "",
    overwrite: bool = False,
    similarity_metric: str = "COSINE",
    index_config: dict[str, Any] | None = None,
    sparse_embedding_function: BaseSparseEmbeddingFunction | BM25BuiltInFunction | None = None,
    **kwargs: Any,
) -> MilvusVectorStore:
    """Open, or create, the collection for an embedding model.

    Args:
        uri: a file ending in ``.db`` (Milvus Lite, inside this process; one process at a time), or
            ``http(s)://host:19530`` (Milvus standalone, cluster), or a Zilliz Cloud endpoint.
        embed_model: the model whose vectors are kept; it gives dimension and fingerprint, so it is
            loaded now.
        collection_name: the collection.
        token: ``"user:password"`` or API key, for servers and Zilliz Cloud.
        overwrite: drop the collection first, if it exists.
        similarity_metric: ``"COSINE"`` or ``"IP"``.
        index_config: for example ``{"index_type": "HNSW", "M": 16}``. Default: exact search
            (``FLAT``) on Lite, ``AUTOINDEX`` elsewhere.
        sparse_embedding_function: makes the collection hybrid:
            :class:`~llama_index_multimodal_rerank.BGEM3SparseEmbedding` or ``BM25BuiltInFunction()``.
            Search it with ``vector_store_query_mode="hybrid"``. To open a hybrid collection again,
            pass it again.
        **kwargs: any other argument of ``MilvusVectorStore`` (``scalar_field_names``,
            ``hybrid_ranker``, ``batch_size``; ``consistency_level="Strong"`` to see at once what
            other clients of a server wrote, too …) or of ``pymilvus.MilvusClient`` (``db_name``,
            ``timeout``, ``secure`` …).

    Returns:
        A ``MilvusVectorStore``, loaded and ready, that replaces rows added again under the same id
        and whose asynchronous methods work in any event loop. Its methods raise
        ``MilvusUnavailableError`` (a ``ConnectionError``, a ``MilvusException``) when a server
        went away and did not come back within half a minute, and ``MilvusDiskError`` (an
        ``OSError``, a ``MilvusException``) when Milvus Lite cannot write its file.

    Raises:
        EmbeddingMismatchError: the collection belongs to another embedding; says which.
        FileExistsError: a Milvus Lite file holds remains of the collection that cannot be read, and that
            may hold rows; ``overwrite`` removes them.
        ConnectionError: Milvus does not answer at ``uri``, or another process has the file open.
        ValueError: ``uri``, ``similarity_metric`` or a name (of collection, database or field) is not
            usable, or the collection is hybrid and no ``sparse_embedding_function`` was given (or the
            other way round).
    """
    from llama_index.vector_stores.milvus import MilvusVectorStore

    metric = similarity_metric.upper()
    if metric not in SIMILARITY_METRICS:
        raise ValueError(
            f"similarity_metric must be one of {SIMILARITY_METRICS}, got {similarity_metric!r}. "
            "(L2 gives distances, which LlamaIndex would read as similarities.)"
        )
    _check_names(collection_name, kwargs)
    uri, local = _resolve_uri(uri)
    if local:
        # MilvusVectorStore connects by itself, too, and with the same options shares the connection.
        kwargs["grpc_options"] = {**QUIET_CONNECTION, **(kwargs.get("grpc_options") or {})}
    fingerprint = {**embed_model.fingerprint, "dim": str(embed_model.dim), "metric": metric}
    own = inspect.signature(MilvusVectorStore.__init__).parameters
    connection = {name: value for name, value in kwargs.items() if name not in own}
    from .lite_client import LiteMilvusClient
    from .lite_recovery import collection_folder, is_incomplete, may_hold_rows
    from .vector_store import QuotingMilvusVectorStore

    client = _connect(uri, token, local, connection)

    if isinstance(client, LiteMilvusClient):
        folder = collection_folder(uri, collection_name, connection.get("db_name", ""))
        if overwrite:
            client.drop_whole_collection(folder)
        elif is_incomplete(folder) and may_hold_rows(folder):
            raise FileExistsError(
                f"{str(folder)!r} may hold rows of a collection {collection_name!r}, but its schema.json, "
                "which tells how to read them, is missing. Put it back from a backup, or choose another "
                "collection_name, or remove what is there with overwrite=True."
            )
    elif overwrite and client.has_collection(collection_name):
        client.drop_collection(collection_name)
    hybrid = sparse_embedding_function is not None
    exists = client.has_collection(collection_name)
    remembered = exists and _check_collection(client, collection_name, fingerprint, hybrid=hybrid)
    if exists and not remembered:
        _drop_indexes(client, collection_name)
    store = QuotingMilvusVectorStore(
        uri=uri,
        token=token,
        collection_name=collection_name,
        dim=embed_model.dim,
        upsert_mode=True,
        similarity_metric=metric,
        index_config=index_config or {"index_type": "FLAT" if local else "AUTOINDEX"},
        enable_sparse=hybrid,
        sparse_embedding_function=sparse_embedding_function,
        use_async_client=False,
        **kwargs,
    )
    if not remembered:
        client.alter_collection_properties(
            collection_name, {FINGERPRINT_PROPERTY: json.dumps(fingerprint, sort_keys=True)}
        )
    client.load_collection(collection_name)  # Lite opens collections unloaded
    store.use_client(client)
    if local:
        _warn_if_large(client, collection_name)
    return store


def _check_names(collection_name: str, options: dict[str, Any]) -> None:
    """Refuse names before anything is opened, made or dropped: MilvusVectorStore connects by itself, too."""
    if collection_name is None:
        raise ValueError("collection_name must be a str, got None")
    check_name(collection_name, "collection_name")
    for option in ("db_name", "embedding_field", "sparse_embedding_field", "text_key", "doc_id_field"):
        check_name(options.get(option), option)
    for name in options.get("scalar_field_names") or ():
        check_name(name, "scalar_field_names")


def _resolve_uri(uri: str | Path) -> tuple[str, bool]:
    """Return the URI for pymilvus, and whether it is a Milvus Lite file."""
    text = str(uri)
    scheme = _SCHEME.match(text)
    # pymilvus takes every address that ends in ".db" for a file.
    if scheme and scheme[0].lower() in _SERVER_SCHEMES and not text.endswith(".db"):
        return text, False
    if scheme or not text.endswith(".db"):
        raise ValueError(
            f"uri must be a file name ending in '.db' (Milvus Lite) or start with http:// or https:// "
            f"(Milvus server, Zilliz Cloud), got {text!r}"
        )
    path = Path(text).expanduser().absolute()
    check_is_database(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    return str(path), True


def _connect(uri: str, token: str, local: bool, connection: dict[str, Any]) -> MilvusClient:
    from pymilvus.exceptions import MilvusException

    from .lite_client import LiteMilvusClient
    from .server_client import ServerMilvusClient

    try:
        return (LiteMilvusClient if local else ServerMilvusClient)(uri=uri, token=token, **connection)
    except MilvusException as error:
        hint = (
            "Milvus Lite files serve one process at a time: is another one using it? "
            "For several processes run a Milvus server and pass its http:// address."
            if local
            else "Is the address right, the server running, and the token valid?"
        )
        raise ConnectionError(f"cannot open Milvus at {uri!r}: {error.message}. {hint}") from error


def _check_collection(
    client: MilvusClient, collection_name: str, fingerprint: dict[str, str], *, hybrid: bool
) -> bool:
    """Raise unless the collection may be opened; tell whether it already remembers the embedding."""
    from pymilvus import DataType

    described = client.describe_collection(collection_name)
    sparse = any(entry["type"] == DataType.SPARSE_FLOAT_VECTOR for entry in described["fields"])
    if sparse and not hybrid:
        raise ValueError(
            f"collection {collection_name!r} is hybrid: pass the sparse_embedding_function it was made with"
        )
    if hybrid and not sparse:
        raise ValueError(
            f"collection {collection_name!r} was made without sparse vectors: open it without "
            "sparse_embedding_function, or choose another collection_name, or rebuild it with overwrite=True"
        )
    stored = described.get("properties", {}).get(FINGERPRINT_PROPERTY)
    if stored is None:
        if int(client.get_collection_stats(collection_name).get("row_count", 0)) == 0:
            return False  # left behind by an interrupted first call
        raise EmbeddingMismatchError(
            f"collection {collection_name!r} does not say which embedding filled it (it was not made by "
            "milvus_store). Choose another collection_name, or rebuild it with overwrite=True."
        )
    expected: dict[str, str] = json.loads(stored)
    differences = [
        f"{key}: collection {expected.get(key)!r}, embed_model {fingerprint.get(key)!r}"
        for key in sorted({*expected, *fingerprint})
        if expected.get(key) != fingerprint.get(key)
    ]
    if differences:
        raise EmbeddingMismatchError(
            f"collection {collection_name!r} was filled by another embedding; its vectors cannot be compared "
            f"with this model's ({'; '.join(differences)}). Use the model it was made with, or another "
            "collection_name, or rebuild it with overwrite=True."
        )
    return True


def _drop_indexes(client: MilvusClient, collection_name: str) -> None:
    """Let MilvusVectorStore make all indexes: where there is one, it takes the others to be there."""
    client.release_collection(collection_name)
    for index in client.list_indexes(collection_name):
        client.drop_index(collection_name, index)


def _warn_if_large(client: MilvusClient, collection_name: str) -> None:
    rows = int(client.get_collection_stats(collection_name).get("row_count", 0))
    if rows > LITE_COMFORTABLE_ROWS:
        logger.warning(
            "Collection %r holds %d rows. Milvus Lite compares a query with every one of them, about a "
            "second or more a search; a Milvus server does better, and the same code works there.",
            collection_name,
            rows,
        )
