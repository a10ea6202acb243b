"""Further attempts that many calls share, so that a server that is down does not cost each all of its own.

The budget of a batch reaches the model's retries by a context variable: models know nothing of batches.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

FAILURES_IN_A_ROW = 8
"""After so many failed calls in a row, with the budget used up, the server counts as down."""

_shared: ContextVar[RetryBudget | None] = ContextVar("retry_budget", default=None)


class RetryBudget:
    """A number of retries for many calls, and a circuit breaker. May be used by several threads.

    Args:
        retries: further attempts of all calls together, 0 or more.

    Raises:
        ValueError: ``retries`` is below 0.
    """

    def __init__(self, retries: int) -> None:
        if retries < 0:
            raise ValueError(f"retries must be 0 or more for all queries together, got {retries}")
        self.retries = self._left = retries
        self._failures = 0
        self._lock = threading.Lock()

    def take(self) -> bool:
        """Take one retry; False if there is none left."""
        with self._lock:
            left, self._left = self._left, max(0, self._left - 1)
        return left > 0

    @property
    def used_up(self) -> bool:
        """Whether there are no retries left."""
        return self._left == 0

    @property
    def given_up(self) -> bool:
        """Whether the server counts as down: nothing more should be asked of it."""
        return self.used_up and self._failures >= FAILURES_IN_A_ROW

    def succeeded(self) -> None:
        """Note that a server answered, be it by refusing."""
        with self._lock:
            self._failures = 0

    def failed(self) -> None:
        """Note that a call failed, after all its attempts, for a reason that might have passed."""
        with self._lock:
            self._failures += 1


def shared_budget() -> RetryBudget | None:
    """Return the budget of the batch that this call belongs to, or None."""
    return _shared.get()


@contextmanager
def share_retries(budget: RetryBudget | None) -> Iterator[None]:
    """Have all calls that are made within, in this thread and in contexts copied from it, share a budget."""
    token = _shared.set(budget)
    try:
        yield
    finally:
        _shared.reset(token)
