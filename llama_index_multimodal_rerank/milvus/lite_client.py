"""LiteMilvusClient: a MilvusClient that knows the ways of Milvus Lite."""

from __future__ import annotations

import contextlib
import functools
import inspect
import logging
import shutil
import threading
import uuid
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pymilvus.client.types import Status
from pymilvus.exceptions import MilvusException

from .clients import MilvusDiskError, MilvusUnavailableError, NodeMilvusClient, disk_error
from .lite_process import (
    check_can_open,
    close_moved,
    close_moved_at_exit,
    is_in_place,
    load_again,
    logs_in_use,
    open_database,
    read_again,
)  # fmt: skip
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


@dataclass
class _Shared:
    """What all clients of one file must agree on."""

    lock: ReadWriteLock = field(default_factory=ReadWriteLock)
    unflushed: set[str] = field(default_factory=set)
    unloaded: list[tuple[str, str]] = field(default_factory=list)


_SHARED: defaultdict[str, _Shared] = defaultdict(_Shared)  # by file


def _recovers(cls: type[LiteMilvusClient]) -> type[LiteMilvusClient]:
    """Let all public methods find the file as it should be, and leave it so when they fail."""
    for name, method in inspect.getmembers(cls, inspect.isfunction):
        if not name.startswith("_") and name != "close":
            setattr(cls, name, _recovering(method))
    return cls


def _recovering(method: Callable[..., Any]) -> Callable[..., Any]:

    @functools.wraps(method)
    def recovering(self: LiteMilvusClient, *args: Any, **kwargs: Any) -> Any:
        if self._database is None or getattr(self._inside, "method", False):
            return method(self, *args, **kwargs)  # opening, or called by another method
        self._inside.method = True
        try:
            self._make_ready()
            logs = logs_in_use(self._database)
            try:
                return method(self, *args, **kwargs)
            except MilvusException as error:
                disk_failed = "[Errno " in error.message
                if disk_failed or logs != logs_in_use(self._database):
                    self._read_again()
                if disk_failed:
                    raise disk_error(self._place, error) from error
                raise
        finally:
            self._inside.method = False

    return recovering


@checks_names
@_recovers
class LiteMilvusClient(NodeMilvusClient):
    """A ``MilvusClient`` that knows the ways of Milvus Lite (3.2.2).

    Lite scans rows that are not flushed yet one by one: a search is about ten times slower then.
    So it flushes before the first search after a write, which costs less than flushing after
    every inserted batch.

    Lite's upsert keeps what a row had and the new one has not, so filters would find rows by metadata that
    they have no more. Its insert replaces a row of the same id, as a server's upsert does.

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

    A failed flush, and a folder that was deleted or replaced: :mod:`.lite_process`.

    What else a killed process leaves is put right before the file is opened (:mod:`.lite_recovery`).
    """

    _database: Any = None

    def __init__(self, uri: str, **kwargs: Any) -> None:
        check_name(kwargs.get("db_name"), "db_name")
        self._place = uri
        self._shared = _SHARED[uri]
        self._inside = threading.local()
        close_moved_at_exit()
        with _OPENING:
            close_moved()
            check_can_open(uri)
            repair(uri)
            super().__init__(uri, **kwargs)
            self._database = open_database(uri)

    def insert(self, collection_name: str, *args: Any, **kwargs: Any) -> Any:
        """As ``MilvusClient.insert``."""
        return self._write(super().insert, collection_name, *args, **kwargs)

    def upsert(self, collection_name: str, *args: Any, **kwargs: Any) -> Any:
        """As ``MilvusClient.upsert``, which replaces rows whole unless ``partial_update`` is set."""
        if kwargs.get("partial_update") or kwargs.get("field_ops"):
            return self._write(super().upsert, collection_name, *args, **kwargs)
        kwargs = {key: value for key, value in kwargs.items() if key not in ("partial_update", "field_ops")}
        done = dict(self._write(super().insert, collection_name, *args, **kwargs))
        return {"upsert_count": done.pop("insert_count"), **done}

    def delete(self, *args: Any, **kwargs: Any) -> Any:
        """As ``MilvusClient.delete``."""
        with self._shared.lock.writing():
            return super().delete(*args, **kwargs)

    def flush(self, *args: Any, **kwargs: Any) -> Any:
        """As ``MilvusClient.flush``."""
        with self._shared.lock.writing():
            return super().flush(*args, **kwargs)

    def _write(self, write: Callable[..., Any], collection_name: str, *args: Any, **kwargs: Any) -> Any:
        self._shared.unflushed.add(collection_name)
        with self._shared.lock.writing():
            return write(collection_name, *args, **kwargs)

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
        with self._shared.lock.reading():
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
        with self._shared.lock.reading():
            return super().hybrid_search(collection_name, *args, **kwargs)

    def query(self, *args: Any, **kwargs: Any) -> Any:
        """As ``MilvusClient.query``."""
        with self._shared.lock.reading():
            return super().query(*args, **kwargs)

    def get(self, *args: Any, **kwargs: Any) -> Any:
        """As ``MilvusClient.get``."""
        with self._shared.lock.reading():
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
        if collection_name in self._shared.unflushed:
            # Before the flush, not after: rows that another thread writes meanwhile count again.
            self._shared.unflushed.discard(collection_name)
            try:
                self.flush(collection_name)
            except MilvusException:
                self._shared.unflushed.add(collection_name)
                raise

    def _make_ready(self) -> None:
        """Refuse a file that is no longer there; load what a failure left unloaded."""
        if open_database(self._place) is not self._database or not is_in_place(self._place, self._database):
            raise MilvusUnavailableError(
                Status.CONNECT_FAILED,
                f"{self._place!r} was closed, or its folder was deleted, moved or replaced while it was "
                "open. Rows that were added are in that folder, wherever it is. Open the database again with "
                "milvus_store.",
            )
        if self._shared.unloaded:
            with self._shared.lock.writing():
                self._load_again()

    def _read_again(self) -> None:
        """Let Lite read all from its files: what it has in memory is not all, after a failure."""
        with self._shared.lock.writing():
            self._shared.unloaded += read_again(self._database)
            with contextlib.suppress(MilvusDiskError):  # then before the next request
                self._load_again()

    def _load_again(self) -> None:
        while self._shared.unloaded:
            try:
                load_again(self._database, self._shared.unloaded[0])
            except OSError as error:
                raise disk_error(self._place, MilvusException(message=str(error))) from error
            self._shared.unloaded.pop(0)


def _without_signs(found: Any) -> Any:
    """Make the scores of BM25, which is never negative, rise with the likeness."""
    for hits in found:
        for hit in list.__iter__(hits):  # not the iterator of pymilvus, which decodes all fields
            hit["distance"] = abs(hit["distance"])
        if hasattr(hits, "distances"):
            hits.distances = [abs(score) for score in hits.distances]
    return found
