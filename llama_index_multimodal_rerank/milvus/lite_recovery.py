"""What a killed process leaves in a Milvus Lite file (3.2.2), and how it is put right.

The order in which Lite writes its files decides what may be removed:

- A collection's folder is made first, then ``schema.json`` (as ``schema.json.tmp``, renamed). Only then can
  there be rows. Lite refuses to make the collection again while the folder is there.
- A flush writes the rows of all logs into segments, names them and the number of the next log in
  ``manifest.json`` (renamed, too), and only then removes the logs. Lite reads again those that were left, and
  takes their rows, older ones among them, for newer than the segments'.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

logger = logging.getLogger(__name__)

DROPPED_PREFIX = "_dropped_"
"""Begins the names that collections get before they are removed, so that a kill leaves all or nothing."""

_SCHEMA = "schema.json"
_LOCK = "LOCK"  # made by Lite when it first opens a folder, and never removed
_ENTRIES = {"collections", "databases", ".database-staging", "aliases.json", "database_properties.json"}
_SQLITE = b"SQLite format 3\0"
_DROPPED = re.compile(DROPPED_PREFIX + "[0-9a-f]{32}")
_LOG = re.compile(r"wal_(?:data|delta)_(\d+)\.arrow")


def collection_folder(path: str, collection_name: str, database: str = "") -> Path:
    """Return the folder in which Lite keeps a collection."""
    root = Path(path) if database in ("", "default") else Path(path, "databases", database)
    return root / "collections" / collection_name


def collection_folders(path: str) -> Iterator[Path]:
    """Yield the folders of all collections of all databases, whole or not."""
    for pattern in ("collections/*", "databases/*/collections/*"):
        yield from (folder for folder in Path(path).glob(pattern) if folder.is_dir())


def is_incomplete(folder: Path) -> bool:
    """Tell whether a collection's folder is there without the schema to read it by."""
    return folder.is_dir() and not (folder / _SCHEMA).exists()


def check_is_database(path: Path) -> None:
    """Refuse what is no database of Lite 3, and a folder that Lite would take for its own.

    Lite puts its folders into any folder, and it and :func:`repair` clear away what looks incomplete in them.

    Raises:
        ValueError: there is something else; says what.
    """
    for parent in path.parents:
        if os.path.lexists(parent):
            if not parent.is_dir():
                raise ValueError(f"{str(path)!r} cannot be made: {str(parent)!r} is {_describe(parent)}.")
            break
    if not os.path.lexists(path):
        return
    if not path.is_dir():
        raise ValueError(
            f"{str(path)!r} is {_describe(path)}, and no Milvus Lite database, which is a folder since "
            "Milvus Lite 3. Choose another name for the database, or move it away."
        )
    if (path / _LOCK).exists():
        return
    others = sorted({entry.name for entry in path.iterdir()} - _ENTRIES)
    if others:
        raise ValueError(
            f"{str(path)!r} is a folder and no Milvus Lite database: {others[0]!r} is in it. Choose another "
            "name for the database."
        )


def _describe(path: Path) -> str:
    """Say what is there instead of a folder."""
    if path.is_symlink() and not path.exists():
        return f"a link to {str(path.readlink())!r}, which is not there"
    if not path.is_file():
        return "neither a file nor a folder"
    with path.open("rb") as file:
        head = file.read(len(_SQLITE))
    if head == _SQLITE:
        return "a SQLite file, as Milvus Lite before 3 made them (index the pictures again)"
    return "a file" if head else "an empty file"


def may_hold_rows(incomplete: Path) -> bool:
    """Tell whether there is any file that making a collection does not leave before its schema."""
    return any(
        not entry.is_dir() and entry != incomplete / f"{_SCHEMA}.tmp" for entry in incomplete.rglob("*")
    )


def repair(path: str) -> None:
    """Put right what a killed process left. Nothing is done when the file is new, or open anywhere."""
    if not Path(path).is_dir():
        return
    from milvus_lite import DataDirLockedError, MilvusLite  # not needed for a server

    try:
        lock = MilvusLite(path)
    except DataDirLockedError:
        return  # whoever has it open has repaired it
    with lock:
        for folder in collection_folders(path):
            if _DROPPED.fullmatch(folder.name):
                shutil.rmtree(folder)
                logger.warning("%s: a process was killed while it dropped a collection; dropped now.", folder)
            elif not is_incomplete(folder):
                _remove_flushed_wal(folder)
            elif not may_hold_rows(folder):
                shutil.rmtree(folder)
                logger.warning("%s: a process was killed while it made this collection; removed.", folder)


def _remove_flushed_wal(folder: Path) -> None:
    try:
        active = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["active_wal_number"]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return  # never flushed, or nothing this function understands
    if not isinstance(active, int):
        return  # never flushed
    flushed = [log for log in folder.glob("wal/*") if (n := _LOG.fullmatch(log.name)) and int(n[1]) < active]
    for log in flushed:
        log.unlink()
    if flushed:
        logger.warning("%s: a process was killed while it flushed; its old logs are removed.", folder)
