"""LiteMilvusClient: a MilvusClient that knows the ways of Milvus Lite."""

from __future__ import annotations

import contextlib
import logging
import shutil
import threading
import uuid
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pymilvus.exceptions import MilvusException

from .clients import MilvusDiskError, NodeMilvusClient
from .lite_recovery import (
    DROPPED_PREFIX,
    collection_folder,
    collection_folders,
    is_incomplete,
    may_hold_rows,
    repair,
)  # fmt: skip
from .locks import ReadWriteLock
from .names import check_name, checks_names

logger = logging.getLogger(__name__)

_OPENING = threading.Lock()  # a repair has the file for itself for a moment
_LOCKS: defaultdict[str, ReadWriteLock] = defaultdict(ReadWriteLock)  # by file


@checks_names
class LiteMilvusClient(NodeMilvusClient):
    """A ``MilvusClient`` that knows the ways of Milvus Lite (3.2.2).

    Lite scans rows that are not flushed yet one by one: a search is about ten times slower then.
    So it flushes before the first search after a write, which costs less than flushing after
    every inserted batch.

    Lite refuses ``drop_ratio_search``, a hint that trades accuracy for speed, and that
    MilvusVectorStore sends with every sparse search. So it is left out.

    Lite gives BM25's scores with a minus sign, so that the best is the lowest. They are turned round. It
    compares ``radius`` and ``range_filter`` with the negative scores: a ``ValueError``.

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

    def search(self, collection_name: str, data: Any = None, *args: Any, **kwargs: Any) -> Any:
        """As ``MilvusClient.search``."""
        self._flush_if_written(collection_name)
        by_words = self._is_bm25(collection_name, data, kwargs.get("anns_field"))
        params = (kwargs.get("search_params") or {}).get("params", {})
        params = {name: value for name, value in params.items() if name != "drop_ratio_search"}
        if by_words and not params.keys().isdisjoint({"radius", "range_filter"}):
            raise ValueError(
                "Milvus Lite compares radius and range_filter with the negative of BM25's scores. Leave them "
                "out, and drop the hits that score too low."
            )
        if kwargs.get("search_params"):
            kwargs["search_params"] = {**kwargs["search_params"], "params": params}
        with self._lock.reading():
            found = super().search(collection_name, data, *args, **kwargs)
        return _without_signs(found) if by_words else found

    def _is_bm25(self, collection_name: str, data: Any, field: str | None) -> bool:
        if not (isinstance(data, list) and data and isinstance(data[0], str)):
            return False  # only texts are compared by BM25
        indexes = self.list_indexes(collection_name, field_name=field) if field else []
        return any(self.describe_index(collection_name, name)["metric_type"] == "BM25" for name in indexes)

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

    def clear_the_way(self, collection_name: str, db_name: str, *, overwrite: bool) -> None:
        """Drop a collection and its remains, or refuse remains that may hold rows.

        Raises:
            FileExistsError: there are such remains, and they are not to be overwritten.
        """
        folder = collection_folder(self._place, collection_name, db_name)
        if overwrite:
            self._drop_whole_collection(folder)
        elif is_incomplete(folder) and may_hold_rows(folder):
            raise FileExistsError(
                f"{str(folder)!r} may hold rows of a collection {collection_name!r}, but its schema.json, "
                "which tells how to read them, is missing. Put it back from a backup, or choose another "
                "collection_name, or remove what is there with overwrite=True."
            )

    def _drop_whole_collection(self, folder: Path) -> None:
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


def _without_signs(found: Any) -> Any:
    """Make the scores of BM25, which is never negative, rise with the likeness."""
    for hits in found:
        for hit in list.__iter__(hits):  # not the iterator of pymilvus, which decodes all fields
            hit["distance"] = abs(hit["distance"])
        if hasattr(hits, "distances"):
            hits.distances = [abs(score) for score in hits.distances]
    return found
