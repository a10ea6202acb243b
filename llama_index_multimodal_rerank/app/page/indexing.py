"""Indexing a folder while the page is up."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ...milvus.folder_sync import FolderSync, SyncProgress
from .messages import note

_NAMED = 5
"""Files that are named, of those that could not be read."""

Report = Callable[..., object]
"""Gradio's progress bar: called with a share or (done, total), ``desc`` and ``unit``."""


def show_progress(report: Report) -> Callable[[SyncProgress], None]:
    """Return what tells a progress bar how far an indexing is."""

    def tell(progress: SyncProgress) -> None:
        if progress.stage == "reading":
            report(0.0, desc="Looking through the folder")
        else:
            report((progress.done, progress.total), desc="Embedding", unit="pictures")

    return tell


def folder_of(text: str | None) -> Path:
    """Return the folder that was typed.

    Raises:
        ValueError: nothing was typed, or it is no absolute path.
    """
    typed = (text or "").strip()
    if not typed:
        raise ValueError("type the path of a folder on this machine, such as /home/me/photos")
    folder = Path(typed).expanduser()
    if not folder.is_absolute():
        raise ValueError(f"type the whole path of the folder, from / on, got {typed!r}")
    return folder


def in_words(folder: Path, done: FolderSync) -> str:
    """Return what an indexing did, as a message in HTML."""
    counts = [
        f"{count} {what}"
        for count, what in (
            (len(done.added), "new"),
            (len(done.changed), "changed"),
            (len(done.updated), "with other metadata"),
            (done.unchanged, "as before"),
            (len(done.removed), "gone and removed"),
        )
        if count
    ]
    pictures = "1 picture" if done.pictures == 1 else f"{done.pictures} pictures"
    return note(f"{pictures} of {folder} can be searched now: {', '.join(counts)}.{_unread(done)}")


def _unread(done: FolderSync) -> str:
    bad = done.unreadable
    if not bad:
        return ""
    named = "; ".join(f"{Path(each.path).name} ({each.reason})" for each in bad[:_NAMED])
    more = f"; and {len(bad) - _NAMED} more" if len(bad) > _NAMED else ""
    return f" Left out because {'it' if len(bad) == 1 else 'they'} cannot be read: {named}{more}."
