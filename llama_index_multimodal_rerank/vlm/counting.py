"""How many prompts models are asked, counted where they are asked."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar


class PromptCount:
    """A count that threads may add to.

    Attributes:
        prompts: pictures with words that a model was given to answer. One that is asked for again counts
            again, unless the model itself asks its server again.
    """

    def __init__(self) -> None:
        self.prompts = 0
        self._lock = threading.Lock()

    def add(self, prompts: int) -> None:
        """Count some more."""
        with self._lock:
            self.prompts += prompts


_counts: ContextVar[tuple[PromptCount, ...]] = ContextVar("prompt_counts", default=())
# Threads and tasks that a driver starts get a copy of the context, which holds the same counts.


@contextmanager
def counted_prompts() -> Iterator[PromptCount]:
    """Count what is asked inside, in the threads and tasks started there as well."""
    own = PromptCount()
    token = _counts.set((*_counts.get(), own))
    try:
        yield own
    finally:
        _counts.reset(token)


def count(prompts: int) -> None:
    """Tell all that count here."""
    for each in _counts.get():
        each.add(prompts)
