"""Run a function in threads, a bounded number of results ahead of the consumer."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Generator, Hashable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from typing_extensions import Self

T = TypeVar("T")
R = TypeVar("R")
K = TypeVar("K", bound=Hashable)


def available_cores() -> int:
    """Return how many cores this process may use, which in a container may be fewer than there are."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS and Windows
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


WORKERS = available_cores()
"""Threads that decode pictures: one a core, since Pillow decodes and resizes without holding the GIL."""


def lag_by_one(items: Iterable[T]) -> Generator[T, None, None]:
    """Yield every item once the next one has been made.

    A GPU is given the next batch before its last result is waited for.
    """
    late: deque[T] = deque()
    for item in items:
        late.append(item)
        if len(late) > 1:
            yield late.popleft()
    yield from late


class Prefetcher(Generic[K, T, R]):
    """``function(item)`` of every item by its key, computed in threads before it is asked for.

    Items are started in their order. At most ``ahead`` results are finished or under way beside those
    that were taken; an item asked for out of order is started at once, with all before it. Any number of
    threads may take results. Use it in a ``with`` statement, or close it.

    Args:
        function: what to run.
        items: its arguments, by the key under which the result is taken.
        ahead: how many items to start before the first result is taken.
        workers: number of threads.
    """

    def __init__(
        self, function: Callable[[T], R], items: Mapping[K, T], *, ahead: int, workers: int = WORKERS
    ) -> None:
        self._function = function
        self._ahead = ahead
        self._rest = deque(items.items())
        self._started: dict[K, Future[R]] = {}
        self._untaken = set(items)
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="prefetch")

    def take(self, key: K) -> Future[R]:
        """Return the future of an item, once.

        Raises:
            KeyError: it was taken before, or is none of the items.
        """
        with self._lock:
            self._untaken.remove(key)
            while key not in self._started:
                self._start_next()
            taken = self._started.pop(key)
            while self._rest and len(self._started) < self._ahead:
                self._start_next()
        return taken

    def _start_next(self) -> None:
        key, item = self._rest.popleft()
        self._started[key] = self._pool.submit(self._function, item)

    def close(self, *, wait: bool = True) -> None:
        """Cancel what has not begun; ``wait`` for what is under way."""
        self._pool.shutdown(wait=wait, cancel_futures=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def prefetch_map(
    function: Callable[[T], R], items: Sequence[T], *, ahead: int, workers: int = WORKERS
) -> Generator[R, None, None]:
    """Yield ``function(item)`` for every item, in order, computed in threads.

    At most ``ahead`` results are finished or under way while the consumer is busy with one. Close the
    iterator (``contextlib.closing``) to stop early.

    Args:
        function: what to run; its exceptions are raised unchanged, at the turn of their item.
        items: arguments.
        ahead: how many items to start before the first result is taken.
        workers: number of threads.
    """
    with Prefetcher(function, dict(enumerate(items)), ahead=ahead, workers=workers) as prefetched:
        for index in range(len(items)):
            yield prefetched.take(index).result()
