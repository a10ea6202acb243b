"""How many questions models are asked, counted where they are asked."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar


class QuestionCount:
    """A count that threads may add to.

    Attributes:
        questions: pictures with a prompt that a model was given to answer. One that is asked for again counts
            again, unless the model itself asks its server again.
    """

    def __init__(self) -> None:
        self.questions = 0
        self._lock = threading.Lock()

    def add(self, questions: int) -> None:
        """Count some more."""
        with self._lock:
            self.questions += questions


_counts: ContextVar[tuple[QuestionCount, ...]] = ContextVar("question_counts", default=())
# Threads and tasks that a driver starts get a copy of the context, which holds the same counts.


@contextmanager
def counted_questions() -> Iterator[QuestionCount]:
    """Count what is asked inside, in the threads and tasks started there as well."""
    own = QuestionCount()
    token = _counts.set((*_counts.get(), own))
    try:
        yield own
    finally:
        _counts.reset(token)


def count(questions: int) -> None:
    """Tell all that count here."""
    for each in _counts.get():
        each.add(questions)
