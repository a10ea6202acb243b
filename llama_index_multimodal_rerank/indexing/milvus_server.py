"""MilvusServer: a collection that the workers of Ray write into."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..milvus.connection import connect, resolve_uri
from ..milvus.filters import is_in
from ..milvus.store import milvus_store
from .items import content_key
from .targets import EmbeddingFacts

if TYPE_CHECKING:
    from pymilvus import MilvusClient


class MilvusServer:
    """A collection on a Milvus server or on Zilliz Cloud.

    Args:
        uri: ``http(s)://host:19530``, or a Zilliz Cloud endpoint, that every worker can reach.
        collection_name: the collection; made if it is missing.
        token: ``"user:password"`` or API key. It is sent to the workers.
        batch_rows: rows written at once, 1 to 10,000.
        **options: other arguments of ``milvus_store``: ``similarity_metric``, ``index_config``,
            ``overwrite``, ``db_name``, ``consistency_level`` …

    Raises:
        ValueError: ``uri`` is a Milvus Lite file, which one process at a time can open; or
            ``sparse_embedding_function`` is among the options: only dense vectors are made here; or
            ``batch_rows`` is out of range, or called ``batch_size``.
    """

    def __init__(
        self,
        uri: str,
        *,
        collection_name: str = "images",
        token: str = "",
        batch_rows: int = 500,
        **options: Any,
    ) -> None:
        self._uri, local = resolve_uri(uri)
        if local:
            raise ValueError(
                f"Milvus Lite serves one process, and workers of Ray are many: {str(uri)!r} cannot be their "
                "target. Give the address of a Milvus server; or let them write ParquetFolder(folder) and "
                "insert its rows in one process; or index in this process: "
                "IngestionPipeline(transformations=[embed_model], vector_store=milvus_store(...))."
            )
        if "sparse_embedding_function" in options:
            raise ValueError(
                "sparse_embedding_function: workers make dense vectors alone. Fill a hybrid collection by a "
                "pipeline with milvus_store(..., sparse_embedding_function=...)."
            )
        if "batch_size" in options:
            raise ValueError(f"batch_size is batch_rows here, got batch_size={options['batch_size']!r}")
        if not 1 <= batch_rows <= 10_000:
            raise ValueError(f"batch_rows must be from 1 to 10,000, got {batch_rows}")
        self._collection_name = collection_name
        self._batch_rows = batch_rows
        self._options = {**options, "token": token}

    def open(self, embedding: EmbeddingFacts) -> OpenMilvusServer:
        """Make the collection, if it is missing, and check that it is one of this embedding.

        Raises:
            EmbeddingMismatchError: it is not.
            ConnectionError: the server does not answer.
        """
        store = milvus_store(
            self._uri,
            embedding,  # type: ignore[arg-type]  # of which it asks no more
            collection_name=self._collection_name,
            **self._options,
        )
        columns = {
            "text_key": store.text_key,
            "embedding_field": store.embedding_field,
            "doc_id_field": store.doc_id_field,
        }
        return OpenMilvusServer(self._uri, self._collection_name, self._options, columns, self._batch_rows)


@dataclass(frozen=True)
class OpenMilvusServer:
    """A collection that is ready, as the workers know it; see :class:`~.targets.OpenTarget`."""

    uri: str
    collection_name: str
    options: Mapping[str, Any] = field(repr=False)
    columns: Mapping[str, str]
    batch_rows: int

    def stored(self, ids: Sequence[str]) -> dict[str, str]:
        """See :class:`~.targets.OpenTarget`. What other clients wrote a moment ago is seen."""
        text_key = self.columns["text_key"]
        found = self._client.query(
            self.collection_name,
            filter=is_in("id", list(ids)),
            output_fields=["id", text_key, "_node_content"],
            consistency_level="Strong",
        )
        return {
            row["id"]: content_key(row[text_key], json.loads(row["_node_content"])["metadata"])
            for row in found
            if row.get("_node_content")
        }

    def write(self, rows: list[dict[str, Any]]) -> None:
        """See :class:`~.targets.OpenTarget`; a server that is away for less than half a minute is waited for.

        Raises:
            MilvusUnavailableError: it was away for longer.
        """
        self._client.upsert(self.collection_name, rows)

    def close(self) -> None:
        """See :class:`~.targets.OpenTarget`: there is nothing to finish."""

    @property
    def _client(self) -> MilvusClient:
        key = f"{self.uri} {sorted(self.options.items())!r}"
        if key not in _CLIENTS:
            _CLIENTS[key] = connect(self.uri, False, dict(self.options))
        return _CLIENTS[key]


_CLIENTS: dict[str, MilvusClient] = {}
"""The connections of this process, which serves many batches."""
