"""``multimodal-rerank index``."""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import Any

from ...milvus.folder_sync import FolderSync, folder_path
from ..collections import Collection, CollectionSource, connect
from ..metadata_file import MetadataFile, MetadataFileError, read_metadata_file
from .opening import choice_of, name_unreadable, warn
from .output import collection_json, print_json, print_lines, seconds_line
from .parser import shows_progress


def run(options: argparse.Namespace) -> int:
    """Bring a collection in step with a folder."""
    start = time.perf_counter()
    folder = folder_path(options.folder)
    described = _describing(options, folder)
    source = CollectionSource(options.uri, folder, options.collection, options.token)
    collection = connect(source, choice_of(options))
    try:
        done = collection.sync(
            folder,
            glob=options.glob,
            recursive=not options.no_recursive,
            show_progress=shows_progress(options),
            **described,
        )
    finally:
        collection.close()
    name_unreadable(done)
    seconds = time.perf_counter() - start
    if options.json:
        print_json(_as_json(collection, folder, done, seconds))
    else:
        print_lines(_as_line(collection, done), seconds_line({"all": seconds}))
    return 0


def _describing(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Return what tells captions and metadata of pictures."""
    if options.metadata is None:
        if options.caption is not None:
            raise ValueError("--caption names a column of --metadata: give both")
        return {}
    table = read_metadata_file(options.metadata)
    described: dict[str, Any] = {"metadata": lambda path: table.of(path, folder)}
    if options.caption is not None:
        if not any(options.caption in row for row in table.rows.values()):
            known = ", ".join(dict.fromkeys(key for row in table.rows.values() for key in row)) or "none"
            raise MetadataFileError(f"{table.path} has no column {options.caption!r}; there are: {known}")
        described["text"] = lambda path: str(table.of(path, folder).get(options.caption, ""))
    _warn_of_unmatched(table, folder)
    return described


def _warn_of_unmatched(table: MetadataFile, folder: Path) -> None:
    unmatched = [name for name in table.rows if not os.path.lexists(folder / name)]
    if folder.is_dir() and len(unmatched) == len(table.rows):
        raise MetadataFileError(
            f"none of the {len(unmatched)} lines of {table.path} names a file of the folder, such as "
            f"{unmatched[0]!r}: write paths from {str(folder)!r} on"
        )
    if unmatched:
        warn(
            f"{len(unmatched)} of {len(table.rows)} lines of {table.path} name no file of the folder, such "
            f"as {unmatched[0]!r}"
        )


def _as_line(collection: Collection, done: FolderSync) -> str:
    parts = [
        f"{len(names)} {what}"
        for names, what in (
            (done.added, "new"),
            (done.changed, "changed"),
            (done.updated, "with other metadata"),
            (done.removed, "removed"),
        )
    ]
    unread = len(done.unreadable)
    return (
        f"{collection.uri}: {done.pictures} pictures of the folder ({', '.join(parts)}, {done.unchanged} as "
        f"they were; {unread} {'file' if unread == 1 else 'files'} could not be read)."
    )


def _as_json(collection: Collection, folder: Path, done: FolderSync, seconds: float) -> dict[str, Any]:
    return {
        "collection": collection_json(collection),
        "folder": str(folder),
        "pictures": done.pictures,
        "added": list(done.added),
        "changed": list(done.changed),
        "updated": list(done.updated),
        "unchanged": done.unchanged,
        "removed": list(done.removed),
        "unreadable": [each._asdict() for each in done.unreadable],
        "kept": list(done.kept),
        "seconds": round(seconds, 3),
    }
