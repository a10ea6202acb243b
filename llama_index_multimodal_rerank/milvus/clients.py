"""What the pymilvus clients that ``milvus_store`` puts into its MilvusVectorStore have in common."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from pymilvus import DataType, MilvusClient
from pymilvus.exceptions import MilvusException

from .filters import is_in, without_empty


class MilvusUnavailableError(MilvusException, ConnectionError):
    """A Milvus server that went away and did not come back in time; a Milvus Lite folder that is gone."""


class MilvusDiskError(MilvusException, OSError):
    """Milvus Lite could not write its file, for example because the disk is full."""


def disk_error(place: str, error: MilvusException) -> MilvusDiskError:
    """Return the error for a file that Milvus Lite cannot write."""
    return MilvusDiskError(
        error.code,
        f"Milvus Lite could not write to {place!r}: {error.message}. Rows of earlier requests are kept. Make "
        "room and do the same again; if it was adding, add the same nodes again: rows added again under "
        "their ids replace the old ones.",
    )


class NodeMilvusClient(MilvusClient):
    """A ``MilvusClient`` for rows that are nodes of LlamaIndex, whatever their ids are made of."""

    def insert(self, collection_name: str, data: Any, *args: Any, **kwargs: Any) -> Any:
        """As ``MilvusClient.insert``."""
        return super().insert(collection_name, filterable(data), *args, **kwargs)

    def upsert(self, collection_name: str, data: Any, *args: Any, **kwargs: Any) -> Any:
        """As ``MilvusClient.upsert``."""
        return super().upsert(collection_name, filterable(data), *args, **kwargs)

    def _pack_pks_expr(self, schema_dict: dict[str, Any], pks: list[Any]) -> str:
        # pymilvus puts ids between quotes as they are: delete(ids=["x'] or id != '"]) deletes every row.
        primary = self._extract_primary_field(schema_dict)
        if primary["type"] == DataType.VARCHAR:
            return is_in(primary["name"], pks)
        return str(super()._pack_pks_expr(schema_dict, [int(pk) for pk in pks]))


def filterable(rows: Any) -> Any:
    """Leave the empty metadata of nodes out of rows (:mod:`.filters`); other rows are not touched."""
    if isinstance(rows, dict):
        return without_empty(rows) if "_node_content" in rows else rows
    return [filterable(row) for row in rows] if isinstance(rows, list) else rows


class ThreadedMilvusClient:
    """The asynchronous methods of a client, run on the synchronous one in threads.

    pymilvus' own ``AsyncMilvusClient`` belongs to the event loop in which it was first used, and
    fails in the next (a second ``asyncio.run``, another thread's loop); the synchronous client
    also reconnects when an idle connection was cut. It is safe under threads.
    """

    def __init__(self, client: MilvusClient) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        method = getattr(self._client, name)

        async def call(*args: Any, **kwargs: Any) -> Any:
            return await asyncio.to_thread(method, *args, **kwargs)

        return call
