"""The rows that a MilvusVectorStore writes of nodes, made by the store itself."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from llama_index.core.schema import BaseNode

from ..milvus.clients import filterable
from ..milvus.vector_store import QuotingMilvusVectorStore
from ..schema.nodes import describe_node
from ..schema.values import NodeValueError

MAX_BYTES = 65_535
"""Bytes that Milvus keeps of a text, and of all metadata of a row."""


class _Recorder:
    """Stands where a store has its client, and keeps what it is told to write."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def upsert(self, collection_name: str, data: list[dict[str, Any]], **kwargs: Any) -> None:
        self.rows.extend(data)


def store_row(node: BaseNode, columns: Mapping[str, str]) -> dict[str, Any]:
    """Return the row of a node that has no vector yet.

    Args:
        node: what is written.
        columns: names of the store's own columns, by its arguments (``text_key``, ``embedding_field`` …).

    Returns:
        The row without its vector.

    Raises:
        NodeValueError: it is larger than Milvus allows; it names what is.
    """
    # Not opened: it has no server, and is asked for rows alone.
    store = QuotingMilvusVectorStore.model_construct(
        uri="", collection_name="rows", upsert_mode=True, enable_dense=True, enable_sparse=False, **columns
    )
    recorder = _Recorder()
    store._milvusclient = recorder
    store.add([node])
    row: dict[str, Any] = filterable(recorder.rows)[0]
    row.pop(store.embedding_field, None)
    own = {"id", store.text_key, store.doc_id_field}
    parts = {**{name: row[name] for name in own}, "metadata": dynamic_part(row, own)}
    for name, value in parts.items():
        size = len((value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)).encode())
        if size > MAX_BYTES:
            raise NodeValueError(
                describe_node(node), name, f"has {size} bytes in Milvus, more than its limit of {MAX_BYTES}"
            )
    return row


def dynamic_part(row: Mapping[str, Any], own: set[str]) -> dict[str, Any]:
    """Return what of a row is in none of the collection's own columns."""
    return {name: value for name, value in row.items() if name not in own}
