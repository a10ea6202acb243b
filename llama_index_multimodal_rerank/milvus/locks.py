"""A lock for many readers or one writer."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator


class ReadWriteLock:
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
