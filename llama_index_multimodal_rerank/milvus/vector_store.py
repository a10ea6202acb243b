"""The MilvusVectorStore that ``milvus_store`` returns."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

from llama_index.core.bridge.pydantic import PrivateAttr
from llama_index.core.schema import BaseNode
from llama_index.core.vector_stores.types import MetadataFilters, VectorStoreQuery
from llama_index.core.vector_stores.utils import metadata_dict_to_node
from llama_index.vector_stores.milvus import MilvusVectorStore
from llama_index.vector_stores.milvus.base import MILVUS_ID_FIELD
from llama_index.vector_stores.milvus.utils import ScalarMetadataFilters
from pymilvus import DataType, MilvusClient

from ..schema.contents import require_distinct_ids
from ..schema.nodes import with_storable_metadata
from .clients import ThreadedMilvusClient
from .filters import FilterExpressions, is_in, joined, literal
from .lite_client import LiteMilvusClient

_PAGE = 1000
"""Rows fetched from a server at once."""


class QuotingMilvusVectorStore(MilvusVectorStore):
    """A ``MilvusVectorStore`` in which ids and values of filters are nothing but values.

    A subclass, although we avoid them: the store (1.2.0) writes ids, keys and values into its expressions
    unquoted, so that ``delete('x"] or id != "" or doc_id in ["y')`` empties the collection. By the time a
    client sees the expression, nobody can tell any more what was a value. So whatever makes expressions is
    replaced here, and nothing else: ``delete``, ``delete_nodes``, ``get_nodes``, and
    ``_prepare_before_search``, the one place where all kinds of queries get their expression.
    ``string_expr=`` of a query is an expression by intention, and is handed on as it is.

    The asynchronous methods are the synchronous ones in threads, as with its client.
    """

    _expressions: FilterExpressions = PrivateAttr()

    def use_client(self, client: MilvusClient) -> None:
        """Do everything by this client from now on.

        The store's constructor makes a plain ``MilvusClient``, and takes no other. So the private attributes
        that hold its clients are replaced: ``_milvusclient``, because the plain one gives up on a server
        that restarts, finds rows slowly or not at all while Milvus Lite writes, and quotes no ids; and
        ``_async_milvusclient``, because pymilvus' own works in one event loop only.
        """
        self._milvusclient = client
        self._async_milvusclient = ThreadedMilvusClient(client)
        fields = client.describe_collection(self.collection_name)["fields"]
        columns = {field["name"]: DataType(field["type"]) for field in fields}
        hiding = {MILVUS_ID_FIELD, self.text_key, self.embedding_field, self.sparse_embedding_field}
        self._expressions = FilterExpressions(
            columns, frozenset(hiding & columns.keys()), isinstance(client, LiteMilvusClient)
        )

    def add(self, nodes: Sequence[BaseNode], **add_kwargs: Any) -> list[str]:
        """Write nodes, each with its embedding.

        Numbers and arrays of NumPy and PyTorch in metadata become Python's.

        Args:
            nodes: what to write; rows of the same ids are replaced.
            **add_kwargs: ``milvus_partition_name``, ``force_flush``.

        Raises:
            ValueError: two different nodes have one id. Nothing is written.
            NodeValueError: a node holds a value that Milvus cannot keep; it names node and key. Nothing is
                written.
        """
        return super().add(_storable(nodes), **add_kwargs)  # type: ignore[no-any-return]

    async def async_add(self, nodes: Sequence[BaseNode], **add_kwargs: Any) -> list[str]:
        """As :meth:`add`."""
        return await super().async_add(_storable(nodes), **add_kwargs)  # type: ignore[no-any-return]

    def delete(self, ref_doc_id: str | Sequence[str], **delete_kwargs: Any) -> None:
        """Delete the nodes of a document, or of several.

        Args:
            ref_doc_id: the id of the document, or a list of ids.
            **delete_kwargs: ``milvus_partition_name``.

        Raises:
            ValueError: an id is no string.
        """
        ids = [ref_doc_id] if isinstance(ref_doc_id, str) else list(ref_doc_id)
        self._delete(is_in(self.doc_id_field, ids), delete_kwargs)

    async def adelete(self, ref_doc_id: str | Sequence[str], **delete_kwargs: Any) -> None:
        """As :meth:`delete`."""
        await asyncio.to_thread(self.delete, ref_doc_id, **delete_kwargs)

    def delete_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None, **delete_kwargs: Any
    ) -> None:
        """Delete nodes that have one of the ids and match the filters.

        Args:
            node_ids: ids of nodes; ``[]`` deletes none.
            filters: metadata filters.
            **delete_kwargs: ``milvus_partition_name``.

        Raises:
            ValueError: neither is given (:meth:`clear` deletes all), or Milvus cannot find what is meant.
        """
        expression = self._expressions.expression(filters)
        if node_ids is None and not expression:
            raise ValueError("give node_ids, filters or both; clear() deletes all nodes")
        parts = [] if node_ids is None else [is_in(MILVUS_ID_FIELD, node_ids)]
        self._delete(_all_of(*parts, expression), delete_kwargs)

    async def adelete_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None, **delete_kwargs: Any
    ) -> None:
        """As :meth:`delete_nodes`."""
        await asyncio.to_thread(self.delete_nodes, node_ids, filters, **delete_kwargs)

    def get_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None, **kwargs: Any
    ) -> list[BaseNode]:
        """Return the nodes that have one of the ids, or match the filters.

        Args:
            node_ids: ids of nodes; ``[]`` returns none.
            filters: metadata filters.
            **kwargs: ``milvus_partition_names``.

        Raises:
            ValueError: neither or both are given, or Milvus cannot find what is meant.
        """
        expression = self._expressions.expression(filters)
        if (node_ids is None) == (not expression):
            raise ValueError("give node_ids or filters, and not both")
        if node_ids is not None:
            expression = is_in(MILVUS_ID_FIELD, node_ids)
        rows = self.client.query(
            self.collection_name, filter=expression, partition_names=kwargs.get("milvus_partition_names")
        )
        return [self._to_node(row) for row in rows]

    async def aget_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None, **kwargs: Any
    ) -> list[BaseNode]:
        """As :meth:`get_nodes`."""
        return await asyncio.to_thread(self.get_nodes, node_ids, filters, **kwargs)

    def all_nodes(self) -> Iterator[BaseNode]:
        """Return all nodes of the collection, in no particular order, without their embeddings.

        Raises:
            MilvusUnavailableError: the server went away; a ConnectionError.
        """
        everything = f'{MILVUS_ID_FIELD} != ""'
        fields = [self.text_key, "_node_content", "_node_type"]
        if isinstance(self.client, LiteMilvusClient):  # in this process: nothing is sent
            parts = [everything]
        else:  # an answer has at most so many megabytes
            rows = self.client.query(self.collection_name, filter=everything, output_fields=[MILVUS_ID_FIELD])
            ids = [row[MILVUS_ID_FIELD] for row in rows]
            parts = [is_in(MILVUS_ID_FIELD, ids[at : at + _PAGE]) for at in range(0, len(ids), _PAGE)]
        for expression in parts:
            for row in self.client.query(self.collection_name, filter=expression, output_fields=fields):
                yield self._to_node(row)

    def _prepare_before_search(self, query: VectorStoreQuery, **kwargs: Any) -> tuple[str, list[str]]:
        scalar = kwargs.pop("milvus_scalar_filters", None)
        plain = dataclasses.replace(query, filters=None, doc_ids=None, node_ids=None)
        _, output_fields = super()._prepare_before_search(plain, **kwargs)
        expression = _all_of(
            self._expressions.expression(query.filters),
            *self._scalar_expressions(scalar),
            is_in(self.doc_id_field, query.doc_ids) if query.doc_ids else "",
            is_in(MILVUS_ID_FIELD, query.node_ids) if query.node_ids else "",
        )
        return expression, output_fields

    def _scalar_expressions(self, filters: list[dict[str, Any]] | None) -> list[str]:
        """Translate the store's own filters on columns that are arrays."""
        expressions = []
        for one in ScalarMetadataFilters.from_dict(filters).filters if filters else ():
            if one.key not in self._expressions.columns:
                raise ValueError(f"milvus_scalar_filters: the collection has no column {one.key!r}")
            expressions.append(one.operator.value.format(key=one.key, value=literal(one.value)))
        return expressions

    def _delete(self, expression: str, delete_kwargs: dict[str, Any]) -> None:
        self.client.delete(
            self.collection_name, filter=expression, partition_name=delete_kwargs.get("milvus_partition_name")
        )

    def _to_node(self, row: dict[str, Any]) -> BaseNode:
        node = metadata_dict_to_node(row, text=row[self.text_key])
        node.embedding = row.get(self.embedding_field)
        return node


def _storable(nodes: Sequence[BaseNode]) -> list[BaseNode]:
    require_distinct_ids(nodes)
    return [with_storable_metadata(node) for node in nodes]


def _all_of(*expressions: str) -> str:
    given = [expression for expression in expressions if expression]
    return joined("and", given) if given else ""
