"""A value made on first use, once, under any number of threads.

A model among them: in a process forked after one was loaded, the threads that torch computes in do not exist,
and the first operation waits for them for ever. With one thread it may still do so, in MKL, which keeps
account of the memory of threads that are gone. Both are an error here.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any, Generic, TypeVar

T = TypeVar("T")


_loaded_in: int | None = None  # the process that loaded a model; forked children inherit the number


class ForkedProcessError(RuntimeError):
    """A model is used in a process that was forked after one had been loaded."""


def _check_not_forked() -> None:
    if _loaded_in is None or _loaded_in == (process := os.getpid()):
        return
    raise ForkedProcessError(
        f"Process {process} was forked from process {_loaded_in} after that had loaded a model. The threads "
        "that torch computes in do not exist here, and computing might wait for them for ever. Load models "
        "only after the fork (gunicorn: without --preload), or start processes with "
        "multiprocessing.get_context('spawn')."
    )


class Lazy(Generic[T]):
    """Holds what is too heavy to make early, to copy, or to pickle.

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


class LazyModel(Lazy[T]):
    """Holds a model that torch computes."""

    def get(self, make: Callable[[], T]) -> T:
        """As :meth:`Lazy.get`.

        Raises:
            ForkedProcessError: this process was forked from one that had loaded a model.
        """
        global _loaded_in
        _check_not_forked()
        if self._value is None:
            _loaded_in = os.getpid()
        return super().get(make)
