"""milvus_store: a MilvusVectorStore, set up right for Milvus Lite, a server or Zilliz Cloud."""

from __future__ import annotations

import logging
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .connection import connect, lite_options, resolve_uri
from .fingerprint import (
    EmbeddingMismatchError as EmbeddingMismatchError,
)
from .fingerprint import (
    check_fingerprint,
    check_schema,
    fingerprint,
    remembered_fingerprint,
    to_property,
)
from .index import check_index
from .options import check_connection_options, check_store_options

if TYPE_CHECKING:
    from llama_index.vector_stores.milvus import MilvusVectorStore
    from llama_index.vector_stores.milvus.utils import BaseSparseEmbeddingFunction, BM25BuiltInFunction
    from pymilvus import MilvusClient

    from ..embeddings.image_text_embedding import ImageTextEmbedding

logger = logging.getLogger(__name__)

SIMILARITY_METRICS = ("COSINE", "IP")
LITE_COMFORTABLE_ROWS = 100_000
"""Rows above which one exact search on Milvus Lite takes about a second or more."""

_SERVER_CHECKS = frozenset({"scalar_field_types", "sparse_index_config", "collection_properties"})
"""Options that, as ``index_config``, a server may refuse; Milvus Lite takes them as they are."""


def milvus_store(
    uri: str | Path,
    embed_model: ImageTextEmbedding,
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
        overwrite: drop the collection first, if it exists; arguments are checked before.
        similarity_metric: ``"COSINE"`` or ``"IP"``.
        index_config: for example ``{"index_type": "HNSW", "M": 16}``. Default: exact search
            (``FLAT``) on Lite, ``AUTOINDEX`` elsewhere. A collection that is there keeps its index, and
            has to have this one.
        sparse_embedding_function: makes the collection hybrid:
            :class:`~llama_index_multimodal_rerank.BGEM3SparseEmbedding`, ``BM25BuiltInFunction()``, or one of
            your own. Search it with ``vector_store_query_mode="hybrid"``. To open a hybrid collection again,
            pass it again: the collection remembers the name of its class and, where it has one, its attribute
            ``fingerprint`` (``dict[str, str]``, what tells its weights from others').
        **kwargs: any other argument of ``MilvusVectorStore`` (``scalar_field_names``,
            ``scalar_field_types``, ``hybrid_ranker``, ``batch_size``; ``consistency_level="Strong"`` to see
            at once what other clients of a server wrote, too …) or of ``pymilvus.MilvusClient`` (``db_name``,
            ``timeout``, ``secure`` …).

    Returns:
        A ``MilvusVectorStore``, loaded and ready, that replaces rows added again under the same id
        and whose asynchronous methods work in any event loop. Its methods raise
        ``MilvusUnavailableError`` (a ``ConnectionError``, a ``MilvusException``) when a server
        went away and did not come back within half a minute, and ``MilvusDiskError`` (an
        ``OSError``, a ``MilvusException``) when Milvus Lite cannot write its file.

    Example:
        Three drawn products are stored; which of them is the umbrella with the print of the picture?

        >>> from tempfile import TemporaryDirectory
        >>> from llama_index.core import VectorStoreIndex
        >>> from llama_index_multimodal_rerank import (
        ...     ImageTextQuery, VisualizedBGEEmbedding, image_node, milvus_store)
        >>> from llama_index_multimodal_rerank.demo.catalogue import draw_query_picture
        >>> from llama_index_multimodal_rerank.demo.drawing.looks import Look
        >>> embed_model = VisualizedBGEEmbedding(model_name="demo")
        >>> products = ["mug leopard yellow", "umbrella leopard yellow", "mug plain blue"]
        >>> nodes = [image_node(draw_query_picture(Look(*product.split()), seed=1),
        ...                     metadata={"product": product}) for product in products]
        >>> folder = TemporaryDirectory()
        >>> store = milvus_store(f"{folder.name}/shop.db", embed_model)
        >>> len(store.add(embed_model(nodes)))
        3
        >>> index = VectorStoreIndex.from_vector_store(store, embed_model=embed_model)
        >>> leopard = draw_query_picture("leopard", seed=0)
        >>> query = ImageTextQuery("umbrella with this print", image=leopard)
        >>> index.as_retriever(similarity_top_k=1).retrieve(query)[0].metadata["product"]
        'umbrella leopard yellow'
        >>> folder.cleanup()

    Raises:
        EmbeddingMismatchError: the collection belongs to another embedding (or another sparse function, or
            another dimension); says which. Or its record of the embedding is damaged. A ValueError.
        FileExistsError: a Milvus Lite file holds remains of the collection that cannot be read, and that
            may hold rows; ``overwrite`` removes them.
        ConnectionError: Milvus does not answer at ``uri``, or another process has the file open.
        PermissionError: the place of a Milvus Lite file cannot be written.
        MilvusDiskError: Milvus Lite cannot write its file, for example because the disk is full; an OSError.
        ValueError: ``uri``, ``similarity_metric`` or a name (of collection, database or field) is not
            usable, or there is something at ``uri`` that is no Milvus Lite 3 database, or the collection is
            hybrid and no ``sparse_embedding_function`` was given (or the other way round), or it has another
            index than ``index_config`` asks for; or another argument has a value that it does not allow.
        TypeError: there is no such argument, in ``MilvusVectorStore`` and ``MilvusClient`` either, or it is
            one that is decided here (``upsert_mode`` …).
        MilvusException: a server refuses ``index_config`` or another option; nothing was dropped.
    """
    metric = similarity_metric.upper()
    if metric not in SIMILARITY_METRICS:
        raise ValueError(
            f"similarity_metric must be one of {SIMILARITY_METRICS}, got {similarity_metric!r}. "
            "(L2 gives distances, which LlamaIndex would read as similarities.)"
        )
    check_store_options(collection_name, kwargs, index_config)
    uri, local = resolve_uri(uri)
    if local:
        # MilvusVectorStore connects by itself, too, and with the same options shares the connection.
        kwargs = lite_options(kwargs)
    options = dict(
        kwargs,
        token=token,
        collection_name=collection_name,
        dim=embed_model.dim,
        similarity_metric=metric,
        index_config=index_config or {"index_type": "FLAT" if local else "AUTOINDEX"},
        sparse_embedding_function=sparse_embedding_function,
    )
    made_by = fingerprint(embed_model, metric, sparse_embedding_function)
    client = connect(uri, local, options)
    if overwrite and not local and (index_config or _SERVER_CHECKS & kwargs.keys()):
        _try_options(client, uri, options)
    is_remembered = _prepare_collection(client, options, made_by, overwrite=overwrite)
    if is_remembered and index_config and options.get("enable_dense", True):
        check_index(client, collection_name, options.get("embedding_field", "embedding"), index_config)
    store = _open(client, uri, options)
    if not is_remembered:
        client.alter_collection_properties(collection_name, to_property(made_by))
    client.load_collection(collection_name)  # Lite opens collections unloaded
    if local:
        _warn_if_large(client, collection_name)
    return store


def describe_collection(
    uri: str | Path, collection_name: str = "images", *, token: str = "", **kwargs: Any
) -> dict[str, Any] | None:
    """Return what Milvus says of a collection, None if there is none; nothing is made, no model is loaded.

    Args:
        uri: as :func:`milvus_store`.
        collection_name: the collection.
        token: as :func:`milvus_store`.
        **kwargs: arguments of ``pymilvus.MilvusClient``.

    Raises:
        ConnectionError: as :func:`milvus_store`.
        ValueError: ``uri`` or the name is not usable.
    """
    check_connection_options(collection_name, kwargs)
    uri, local = resolve_uri(uri)
    if local:
        if not Path(uri).exists():
            return None
        kwargs = lite_options(kwargs)
    client = connect(uri, local, {"token": token, **kwargs})
    if not client.has_collection(collection_name):
        return None
    return dict(client.describe_collection(collection_name))


def _prepare_collection(
    client: MilvusClient, options: dict[str, Any], made_by: dict[str, str], *, overwrite: bool
) -> bool:
    """The first step: nothing is left in the way of the store, or an error says what is.

    Returns:
        Whether the collection is there and remembers its embedding.
    """
    from .lite_client import LiteMilvusClient

    collection_name = options["collection_name"]
    if isinstance(client, LiteMilvusClient):
        client.clear_the_way(collection_name, options.get("db_name", ""), overwrite=overwrite)
    elif overwrite and client.has_collection(collection_name):
        client.drop_collection(collection_name)
    if not client.has_collection(collection_name):
        return False
    description = client.describe_collection(collection_name)
    remembered = remembered_fingerprint(description)
    is_empty = int(client.get_collection_stats(collection_name).get("row_count", 0)) == 0
    if remembered is not None:
        check_fingerprint(collection_name, remembered, made_by)
    elif not is_empty:  # an empty one was left behind by an interrupted first call
        raise EmbeddingMismatchError(
            f"collection {collection_name!r} does not say which embedding filled it (it was not made by "
            "milvus_store). Choose another collection_name, or rebuild it with overwrite=True."
        )
    check_schema(
        description,
        options["dim"] if options.get("enable_dense", True) else None,
        options.get("embedding_field", "embedding"),
        options["sparse_embedding_function"],
    )
    if remembered is None:
        _drop_indexes(client, collection_name)
    return remembered is not None


def _open(client: MilvusClient, uri: str, options: dict[str, Any]) -> MilvusVectorStore:
    """The second step: the store makes what is not there yet, and then works through our client."""
    from pymilvus.exceptions import MilvusException

    from .clients import disk_error
    from .vector_store import QuotingMilvusVectorStore

    try:
        store = QuotingMilvusVectorStore(
            uri=uri,
            upsert_mode=True,
            enable_sparse=options["sparse_embedding_function"] is not None,
            use_async_client=False,
            **options,
        )
    except MilvusException as error:
        if "[Errno " in error.message:
            raise disk_error(uri, error) from error
        raise
    store.use_client(client)
    return store


def _try_options(client: MilvusClient, uri: str, options: dict[str, Any]) -> None:
    """Make an empty collection of them: if the server refuses that, the one to be replaced is still there."""
    if not client.has_collection(options["collection_name"]):
        return
    trial = f"trial_{uuid.uuid4().hex}"
    try:
        _open(client, uri, {**options, "collection_name": trial})
    finally:
        client.drop_collection(trial)  # no error where there is none


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
