"""Run a function in threads, a bounded number of results ahead of the consumer."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


WORKERS = min(8, os.cpu_count() or 1)


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


def prefetch_map(
    function: Callable[[T], R], items: Iterable[T], *, ahead: int, workers: int = WORKERS
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
    with ThreadPoolExecutor(workers, thread_name_prefix="prefetch") as pool:
        pending: deque[Future[R]] = deque()
        try:
            for item in items:
                pending.append(pool.submit(function, item))
                if len(pending) > ahead:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()
