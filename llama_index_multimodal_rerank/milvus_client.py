"""The two pymilvus clients that ``milvus_store`` puts into a standard MilvusVectorStore."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from pymilvus import MilvusClient


class LiteMilvusClient(MilvusClient):
    """A ``MilvusClient`` that knows two ways of Milvus Lite.

    Lite scans rows that are not flushed yet one by one: a search is about ten times slower then.
    So it flushes before the first search after a write, which costs less than flushing after
    every inserted batch.

    Lite refuses ``drop_ratio_search``, a hint that trades accuracy for speed, and that
    MilvusVectorStore sends with every sparse search. So it is left out.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._unflushed: set[str] = set()

    def insert(self, collection_name: str, *args: Any, **kwargs: Any) -> Any:
        """As ``MilvusClient.insert``."""
        self._unflushed.add(collection_name)
        return super().insert(collection_name, *args, **kwargs)

    def upsert(self, collection_name: str, *args: Any, **kwargs: Any) -> Any:
        """As ``MilvusClient.upsert``."""
        self._unflushed.add(collection_name)
        return super().upsert(collection_name, *args, **kwargs)

    def search(self, collection_name: str, *args: Any, **kwargs: Any) -> Any:
        """As ``MilvusClient.search``."""
        self._flush_if_written(collection_name)
        params = (kwargs.get("search_params") or {}).get("params", {})
        if "drop_ratio_search" in params:
            exact = {name: value for name, value in params.items() if name != "drop_ratio_search"}
            kwargs["search_params"] = {**kwargs["search_params"], "params": exact}
        return super().search(collection_name, *args, **kwargs)

    def hybrid_search(self, collection_name: str, *args: Any, **kwargs: Any) -> Any:
        """As ``MilvusClient.hybrid_search``."""
        self._flush_if_written(collection_name)
        return super().hybrid_search(collection_name, *args, **kwargs)

    def _flush_if_written(self, collection_name: str) -> None:
        if collection_name in self._unflushed:
            # Before the flush, not after: rows that another thread writes meanwhile count again.
            self._unflushed.discard(collection_name)
            self.flush(collection_name)


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
