"""The pymilvus clients that ``milvus_store`` puts into its MilvusVectorStore."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import shutil
import threading
import time
import uuid
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

from pymilvus import DataType, MilvusClient
from pymilvus.client.types import Status
from pymilvus.exceptions import MilvusException

from .filters import is_in, without_empty
from .lite_recovery import DROPPED_PREFIX, collection_folders, is_incomplete, repair
from .names import check_name, checks_names

logger = logging.getLogger(__name__)

RETRY_TIMEOUT_SECONDS = 30.0
"""How long a request is repeated while a server does not answer."""

_OPENING = threading.Lock()  # a repair has the file for itself for a moment


class MilvusUnavailableError(MilvusException, ConnectionError):
    """A Milvus server that went away and did not come back in time."""


class MilvusDiskError(MilvusException, OSError):
    """Milvus Lite could not write its file, for example because the disk is full."""


class _ReadWriteLock:
    """Many may read at once; who writes is alone, and may take the lock again."""

    def __init__(self) -> None:
        self._writer = threading.RLock()
        self._changed = threading.Condition()
        self._readers = 0

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """Wait until nobody writes."""
        with self._writer, self._changed:
            self._readers += 1
        try:
            yield
        finally:
            with self._changed:
                self._readers -= 1
                self._changed.notify_all()

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Wait until nobody writes or reads; who waits keeps new readers out."""
        with self._writer:
            with self._changed:
                self._changed.wait_for(lambda: self._readers == 0)
            yield


_LOCKS: defaultdict[str, _ReadWriteLock] = defaultdict(_ReadWriteLock)  # by file


def _is_gone(error: MilvusException) -> bool:
    code = error.code() if callable(error.code) else error.code  # pymilvus 2.6.7 forgets to call it
    return code == Status.CONNECT_FAILED or getattr(code, "name", None) == "UNAVAILABLE"  # gRPC's


class NodeMilvusClient(MilvusClient):
    """A ``MilvusClient`` for rows that are nodes of LlamaIndex, whatever their ids are made of."""

    def insert(self, collection_name: str, data: Any, *args: Any, **kwargs: Any) -> Any:
        """As ``MilvusClient.insert``."""
        return super().insert(collection_name, _filterable(data), *args, **kwargs)

    def upsert(self, collection_name: str, data: Any, *args: Any, **kwargs: Any) -> Any:
        """As ``MilvusClient.upsert``."""
        return super().upsert(collection_name, _filterable(data), *args, **kwargs)

    def _pack_pks_expr(self, schema_dict: dict[str, Any], pks: list[Any]) -> str:
        # pymilvus puts ids between quotes as they are: delete(ids=["x'] or id != '"]) deletes every row.
        primary = self._extract_primary_field(schema_dict)
        if primary["type"] == DataType.VARCHAR:
            return is_in(primary["name"], pks)
        return str(super()._pack_pks_expr(schema_dict, [int(pk) for pk in pks]))


def _filterable(rows: Any) -> Any:
    """Leave the empty metadata of nodes out of rows (:mod:`.filters`); other rows are not touched."""
    if isinstance(rows, dict):
        return without_empty(rows) if "_node_content" in rows else rows
    return [_filterable(row) for row in rows] if isinstance(rows, list) else rows


def _with_retries(name: str) -> Any:
    """Make the method of a client that gives up on a server after a while, in words."""
    original = getattr(NodeMilvusClient, name)

    @functools.wraps(original)
    def method(self: ServerMilvusClient, *args: Any, **kwargs: Any) -> Any:
        kwargs.setdefault("retry_times", 1)  # of pymilvus itself
        deadline, pause = time.monotonic() + RETRY_TIMEOUT_SECONDS, 0.1
        while True:
            try:
                return original(self, *args, **kwargs)
            except MilvusException as error:
                if not _is_gone(error):
                    raise
                if time.monotonic() + pause > deadline:
                    raise MilvusUnavailableError(
                        error.code,
                        f"Milvus at {self._place!r} stopped answering in {name}, for "
                        f"{RETRY_TIMEOUT_SECONDS:.0f} seconds. Rows of earlier requests are kept. When it is "
                        "back, do the same again: rows added again under their ids replace the old ones. "
                        f"({error.message})",
                    ) from error
            time.sleep(pause)
            pause = min(2 * pause, 3.0)

    return method


class ServerMilvusClient(NodeMilvusClient):
    """A ``MilvusClient`` that sits out a short absence of its server, and says so when it is a long one.

    pymilvus tries 75 times, which is close to four minutes of silence, or (since about 2.6.10)
    gives up after one attempt to connect again, which a server that restarts does not survive.
    """

    def __init__(self, uri: str, **kwargs: Any) -> None:
        super().__init__(uri, **kwargs)
        self._place = uri

    insert = _with_retries("insert")
    upsert = _with_retries("upsert")
    delete = _with_retries("delete")
    search = _with_retries("search")
    hybrid_search = _with_retries("hybrid_search")
    query = _with_retries("query")
    get = _with_retries("get")
    flush = _with_retries("flush")


@checks_names
class LiteMilvusClient(NodeMilvusClient):
    """A ``MilvusClient`` that knows the ways of Milvus Lite (3.2.2).

    Lite scans rows that are not flushed yet one by one: a search is about ten times slower then.
    So it flushes before the first search after a write, which costs less than flushing after
    every inserted batch.

    Lite refuses ``drop_ratio_search``, a hint that trades accuracy for speed, and that
    MilvusVectorStore sends with every sparse search. So it is left out.

    Lite writes index files in place: one whose writer was killed is cut short, and the collection
    cannot be loaded any more. Indexes follow from the rows, so they are then removed and made anew.
    Lite lets writes and flushes run at once, on one log: their bytes may mix, and a row may be written to
    a log that is about to be removed. Both lose rows when the process is killed. So they take turns.
    And rows that are being flushed, which a write may do as well, are found by nobody until the flush is
    over. So reading, which many may do at once, waits until nobody writes or flushes.

    Lite joins names into paths unchecked, and deletes what is there: a name that is none is a ``ValueError``
    (:mod:`.names`).

    What else a killed process leaves is put right before the file is opened (:mod:`.lite_recovery`).
    """

    def __init__(self, uri: str, **kwargs: Any) -> None:
        check_name(kwargs.get("db_name"), "db_name")
        with _OPENING:
            repair(uri)
            super().__init__(uri, **kwargs)
        self._place = uri
        self._lock = _LOCKS[uri]
        self._unflushed: set[str] = set()
        self._torn: set[str] = set()

    def insert(self, collection_name: str, *args: Any, **kwargs: Any) -> Any:
        """As ``MilvusClient.insert``."""
        return self._write(super().insert, collection_name, *args, **kwargs)

    def upsert(self, collection_name: str, *args: Any, **kwargs: Any) -> Any:
        """As ``MilvusClient.upsert``."""
        return self._write(super().upsert, collection_name, *args, **kwargs)

    def delete(self, *args: Any, **kwargs: Any) -> Any:
        """As ``MilvusClient.delete``."""
        with self._lock.writing():
            return super().delete(*args, **kwargs)

    def flush(self, *args: Any, **kwargs: Any) -> Any:
        """As ``MilvusClient.flush``."""
        with self._lock.writing():
            return super().flush(*args, **kwargs)

    def _write(self, write: Callable[..., Any], collection_name: str, *args: Any, **kwargs: Any) -> Any:
        self._unflushed.add(collection_name)
        try:
            with self._lock.writing():
                if collection_name in self._torn:
                    self.flush(collection_name)  # begins a new log
                    self._torn.discard(collection_name)
                return write(collection_name, *args, **kwargs)
        except MilvusException as error:
            if "[Errno " not in error.message:
                raise
            # The log may end in half a row now. Lite would go on behind it, and not read that after a crash.
            self._torn.add(collection_name)
            raise MilvusDiskError(
                error.code,
                f"Milvus Lite could not write to {self._place!r}: {error.message}. Rows of earlier "
                "requests are kept. Make room and add the same nodes again: rows added again under their ids "
                "replace the old ones.",
            ) from error

    def search(self, collection_name: str, *args: Any, **kwargs: Any) -> Any:
        """As ``MilvusClient.search``."""
        self._flush_if_written(collection_name)
        params = (kwargs.get("search_params") or {}).get("params", {})
        if "drop_ratio_search" in params:
            exact = {name: value for name, value in params.items() if name != "drop_ratio_search"}
            kwargs["search_params"] = {**kwargs["search_params"], "params": exact}
        with self._lock.reading():
            return super().search(collection_name, *args, **kwargs)

    def hybrid_search(self, collection_name: str, *args: Any, **kwargs: Any) -> Any:
        """As ``MilvusClient.hybrid_search``."""
        self._flush_if_written(collection_name)
        with self._lock.reading():
            return super().hybrid_search(collection_name, *args, **kwargs)

    def query(self, *args: Any, **kwargs: Any) -> Any:
        """As ``MilvusClient.query``."""
        with self._lock.reading():
            return super().query(*args, **kwargs)

    def get(self, *args: Any, **kwargs: Any) -> Any:
        """As ``MilvusClient.get``."""
        with self._lock.reading():
            return super().get(*args, **kwargs)

    def load_collection(self, collection_name: str, *args: Any, **kwargs: Any) -> Any:
        """As ``MilvusClient.load_collection``."""
        try:
            return super().load_collection(collection_name, *args, **kwargs)
        except MilvusException as error:
            indexes = [
                index
                for folder in collection_folders(self._place)
                for index in folder.glob("partitions/*/indexes/*")
            ]
            if not indexes:
                raise
            for index in indexes:
                index.unlink()
            logger.warning(
                "Collection %r of %r could not be loaded (%s); its index files were removed to be made anew.",
                collection_name,
                self._place,
                error.message,
            )
            return super().load_collection(collection_name, *args, **kwargs)

    def drop_whole_collection(self, folder: Path) -> None:
        """Drop the collection that is, or was, in ``folder``; if killed meanwhile, whole or not at all.

        Lite removes file after file, the schema somewhere in between.
        """
        dropped = f"{DROPPED_PREFIX}{uuid.uuid4().hex}"
        with contextlib.suppress(MilvusException):  # it cannot be read
            if self.has_collection(folder.name):  # pymilvus logs a traceback where there is none
                self.rename_collection(folder.name, dropped)
        self.drop_collection(dropped)
        self.drop_collection(folder.name)
        if is_incomplete(folder):
            shutil.rmtree(folder)

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
