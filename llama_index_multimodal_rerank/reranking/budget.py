"""How many model calls may be made in a minute."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(eq=False)
class Reservation:
    """Calls that a :class:`CallBudget` has let through.

    Attributes:
        time: when, by the budget's clock.
        calls: how many.
    """

    time: float
    calls: int


class CallBudget:
    """At most so many model calls in any minute, for as many threads and rerankers as share it.

    What is over the budget is not waited for: :meth:`take` says no. Copies share the calls made; a pickle
    carries none, so each process has a budget of its own.

    Example:
        >>> budget = CallBudget(3)
        >>> first = budget.take(2)
        >>> budget.take(2) is None, budget.used
        (True, 2)
        >>> budget.settle([first], 1)  # fewer were made than thought
        >>> budget.take(2) is None, budget.used
        (False, 3)

    Args:
        calls: model calls, 1 or more.
        seconds: length of the sliding window, above 0.
        clock: seconds from anywhere, never falling.

    Raises:
        ValueError: ``calls`` or ``seconds`` is too small.
    """

    def __init__(
        self, calls: int, seconds: float = 60.0, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        if isinstance(calls, bool) or not isinstance(calls, int) or calls < 1:
            raise ValueError(f"calls must be a whole number, 1 or more, got {calls!r}")
        if not seconds > 0:
            raise ValueError(f"seconds must be above 0, got {seconds!r}")
        self.calls, self.seconds = calls, float(seconds)
        self._clock = clock
        self._lock = threading.Lock()
        self._taken: list[Reservation] = []

    def __repr__(self) -> str:
        return f"CallBudget({self.calls}, seconds={self.seconds:g})"

    @property
    def used(self) -> int:
        """Calls of the last ``seconds``."""
        with self._lock:
            return self._used(self._clock())

    def take(self, calls: int) -> Reservation | None:
        """Let calls through, all of them, or None if they would be too many.

        Args:
            calls: how many are going to be made, 0 or more.
        """
        with self._lock:
            now = self._clock()
            if self._used(now) + calls > self.calls:
                return None
            taken = Reservation(now, calls)
            self._taken.append(taken)
            return taken

    def settle(self, taken: Sequence[Reservation], calls: int) -> None:
        """Count what was really made, from now on, instead of what was taken.

        Args:
            taken: what :meth:`take` has let through.
            calls: calls made of all of them together; may be more than were taken, where answers were asked
                for again.
        """
        with self._lock:
            now = self._clock()
            self._taken = [each for each in self._taken if each not in taken]
            self._taken.append(Reservation(now, calls))

    def _used(self, now: float) -> int:
        self._taken = [each for each in self._taken if each.time > now - self.seconds and each.calls]
        return sum(each.calls for each in self._taken)

    def __copy__(self) -> CallBudget:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> CallBudget:
        return self

    def __reduce__(self) -> tuple[Callable[..., CallBudget], tuple[int, float]]:
        return type(self), (self.calls, self.seconds)
