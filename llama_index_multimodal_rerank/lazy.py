"""A value made on first use, once, under any number of threads."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Lazy(Generic[T]):
    """Holds what is too heavy to make early, to copy, or to pickle: a loaded model.

    Copies share the value. A pickle carries none, so the receiver makes its own.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._value: T | None = None

    def get(self, make: Callable[[], T]) -> T:
        """Return the value, made by ``make()`` if it does not exist yet.

        If ``make`` raises, nothing is kept and the next call tries again.
        """
        if self._value is None:
            with self._lock:
                if self._value is None:
                    self._value = make()
        return self._value

    def __copy__(self) -> Lazy[T]:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Lazy[T]:
        return self

    def __reduce__(self) -> tuple[type[Lazy[T]], tuple[()]]:
        return (type(self), ())
