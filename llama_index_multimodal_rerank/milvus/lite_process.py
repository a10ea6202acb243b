"""The Milvus Lite databases (3.2) that this process has open, below pymilvus.

Lite keeps an open database, with the collections in it, until the process ends, and then writes what is not
written yet. Two things must not happen then, or before:

- A flush that fails has already put the table of rows aside, for good; the rows are only in the log. The next
  flush that succeeds removes all older logs, and with them those rows. So after a failure, collections are
  dropped from memory as they are and read again from their files, logs included.
- A folder that was deleted, moved or replaced is still written to by its path, where another database may be
  now. So such a database is closed without writing.

What is reached into for this: ``ServerManager._servers``, ``MilvusLite._collections`` and ``._lock_fd``, and
of a ``Collection`` the log and the worker. Lite offers no other way to close something without writing it.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import functools
import importlib.util
import logging
import os
import threading
from pathlib import Path
from typing import Any

from pymilvus.exceptions import MilvusException

from .clients import disk_error

logger = logging.getLogger(__name__)

_CLOSING = threading.Lock()


def open_database(path: str) -> Any:
    """Return the ``MilvusLite`` that this process has open at ``path``, None if there is none."""
    from milvus_lite import server_manager_instance

    entry = server_manager_instance._servers.get(os.path.abspath(path))  # noqa: PTH100 (as Lite itself)
    return entry[1] if entry else None


def check_can_open(path: str) -> None:
    """Make the folder of a database, if it is not there, and see whether it can be opened.

    ``ServerManager`` keeps the reason of a failure to itself (and prints a traceback).

    Raises:
        ConnectionError: another process has it open.
        PermissionError: it cannot be written.
        MilvusDiskError: it could not be opened for another reason.
    """
    from milvus_lite import DataDirLockedError, MilvusLite

    if open_database(path) is not None:
        return
    _disconnect(path)
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
        MilvusLite(path).close()
    except DataDirLockedError as error:
        raise ConnectionError(
            f"cannot open Milvus at {path!r}: another process has it open. Milvus Lite files serve one "
            "process at a time. For several processes run a Milvus server and pass its http:// address."
        ) from error
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise disk_error(path, MilvusException(message=str(error))) from error
        raise PermissionError(
            error.errno,
            f"cannot open Milvus at {path!r}: the place cannot be written ({error}). Milvus Lite writes even "
            "to search. Copy the whole folder to a place of your own, or ask for the right to write there.",
        ) from error


def is_in_place(path: str, database: Any) -> bool:
    """Tell whether what lies at ``path`` is still the folder that ``database`` was opened in."""
    try:
        return os.path.samestat(Path(path, "LOCK").stat(), os.fstat(database._lock_fd))
    except (OSError, TypeError):  # no such file; closed
        return False


def close_moved() -> None:
    """Close all databases whose folder was deleted, moved or replaced, and write nothing."""
    from milvus_lite import server_manager_instance

    with _CLOSING:
        for path, (server, database, _) in list(server_manager_instance._servers.items()):
            if is_in_place(path, database):
                continue
            server_manager_instance._servers.pop(path, None)
            server.stop(grace=0).wait()
            for key in list(database._collections):
                _forget(database, key)
            database.close()  # only the lock is left to be released
            logger.warning(
                "%s: the folder was deleted, moved or replaced while this process had it open.", path
            )


def _disconnect(path: str) -> None:
    """Let early pymilvus (2.6.7), which keeps connections by uri, forget those to a server that is closed."""
    if importlib.util.find_spec("pymilvus.client.connection_manager"):
        return  # keeps them by host and port
    from pymilvus import connections

    for alias, _ in connections.list_connections():
        if alias == path or alias.startswith(f"{path}-"):
            connections.disconnect(alias)


@functools.cache
def close_moved_at_exit() -> None:
    """Let databases be closed properly before Lite closes all that are open, at the end of the process."""
    import milvus_lite  # noqa: F401 (registers its own closing first; the last to come is the first to go)

    atexit.register(close_moved)


def logs_in_use(database: Any) -> list[Any]:
    """Return what changes when a collection begins a new log, as a flush does first."""
    return [collection._wal for collection in list(database._collections.values())]


def read_again(database: Any) -> list[tuple[str, str]]:
    """Drop all collections from memory, for their files to be read again.

    Returns:
        The databases and names of those that were loaded: they are to be loaded again.
    """
    loaded = [key for key, one in database._collections.items() if one.load_state == "loaded"]
    for key in list(database._collections):
        _forget(database, key)
    return loaded


def load_again(database: Any, key: tuple[str, str]) -> None:
    """Load a collection that :func:`read_again` dropped, if it is still there."""
    database_name, name = key
    if not database.has_collection(name, database_name=database_name):
        return
    collection = database.get_collection(name, database_name=database_name)
    try:
        collection.load()
    except Exception:  # an index that was not written to the end
        for index in Path(collection.data_dir).glob("partitions/*/indexes/*"):
            index.unlink()
        collection.load()


def _forget(database: Any, key: tuple[str, str]) -> None:
    collection = database._collections.pop(key)
    with collection._maintenance_lock:  # a flush whose caller has stopped waiting may be under way
        collection._bg_closed = True
    collection._bg_executor.shutdown(wait=True)
    log = collection._wal
    for writer, sink in ((log._data_writer, log._data_sink), (log._delta_writer, log._delta_sink)):
        if sink is None:
            continue
        # What could not be written waits in the sink, and would be written when that is closed: half a row
        # behind others, at any time. So the sink is led elsewhere first.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sink.fileno())
        os.close(nowhere)
        for one in (writer, sink):
            with contextlib.suppress(Exception):  # there is nothing to be saved
                one.close()
