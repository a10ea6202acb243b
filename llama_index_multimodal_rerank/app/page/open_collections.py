"""The collections that the page can search, for all who have it open."""

from __future__ import annotations

import threading
from pathlib import Path

from ...milvus.folder_sync import FolderSync, folder_path
from ..collections import Collection, CollectionSource, OnProgress, connect
from .filter_panel import FilterPanel


class OpenCollections:
    """Collections by their titles, each with what it can be filtered by. Threads may share it.

    Args:
        first: is there from the beginning; collections made here use its models.
    """

    def __init__(self, first: Collection) -> None:
        self._first = first
        self._lock = threading.Lock()
        self._open = {first.title: (first, FilterPanel.of(first.fields()))}

    @property
    def titles(self) -> list[str]:
        """Their titles, in the order in which they were opened."""
        return list(self._open)

    def __getitem__(self, title: str) -> Collection:
        """Return the collection of a title.

        Raises:
            ValueError: there is none.
        """
        return self._find(title)[0]

    def panel(self, title: str) -> FilterPanel:
        """Return what a collection can be filtered by, as of when it was last indexed.

        Raises:
            ValueError: there is none of this title.
        """
        return self._find(title)[1]

    def _find(self, title: str) -> tuple[Collection, FilterPanel]:
        try:
            return self._open[title]
        except KeyError:
            raise ValueError(f"{title!r} is not open: choose one of {', '.join(self._open)}") from None

    def index_folder(self, folder: Path, *, on_progress: OnProgress) -> tuple[str, FolderSync]:
        """Index a folder into a collection of its own, or bring that one in step with it.

        Args:
            folder: of pictures.
            on_progress: called now and then.

        Returns:
            The collection's title, and what was done.

        Raises:
            FileNotFoundError: there is no such folder.
            NotADirectoryError: it is a file.
            ValueError: it has no pictures; nothing is opened.
            OSError: Milvus cannot be reached, or cannot write.
        """
        folder = folder_path(folder)
        with self._lock:  # one after the other: they may mean the same file
            known = self._of_folder(folder)
            collection = known or connect(CollectionSource(images=folder), models=self._first.models)
            try:
                done = collection.sync(folder, on_progress=on_progress)
                self._open[collection.title] = (collection, FilterPanel.of(collection.fields()))
            except BaseException:
                if known is None:
                    collection.close()
                raise
        return collection.title, done

    def _of_folder(self, folder: Path) -> Collection | None:
        for collection, _ in self._open.values():
            images = collection.source.images
            if images is not None and folder_path(images) == folder:
                return collection
        return None

    def close(self) -> None:
        """Let go of all but the first, which was not opened here."""
        for collection, _ in self._open.values():
            if collection is not self._first:
                collection.close()
