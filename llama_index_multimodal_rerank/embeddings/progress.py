"""A bar that counts what is embedded, whichever of LlamaIndex' methods it goes through.

LlamaIndex' own bar counts what it hands to the model, up to 256 pictures at a time: on a CPU that is a minute
or more without a sign. Ours moves with every batch of the model.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

# A context variable, as for prefetched pictures: LlamaIndex has no argument for it on the way to the model.
_CURRENT: ContextVar[EmbeddingProgress | None] = ContextVar("embedding_progress", default=None)


class EmbeddingProgress:
    """A bar of texts and pictures.

    Args:
        bar: a tqdm bar.
    """

    def __init__(self, bar: Any) -> None:
        self._bar = bar
        self._lock = threading.Lock()  # batches of asynchronous calls end in different threads

    def advance(self, count: int) -> None:
        """Count some more."""
        with self._lock:
            self._bar.update(count)

    def set_to(self, count: int) -> None:
        """Say how many are done: some were in a cache, or had to be embedded twice."""
        with self._lock:
            self._bar.update(count - self._bar.n)


@contextmanager
def embedding_progress(total: int, show_progress: bool) -> Iterator[EmbeddingProgress | None]:
    """Show a bar, which the batches that are embedded inside of the ``with`` block move.

    Args:
        total: texts and pictures to be embedded.
        show_progress: False shows none, and leaves a bar around the block as it is.
    """
    if not show_progress:
        yield None
        return
    from tqdm.auto import tqdm

    with tqdm(total=total, desc="Embedding", unit="item") as bar:
        progress = EmbeddingProgress(bar)
        token = _CURRENT.set(progress)
        try:
            yield progress
        finally:
            _CURRENT.reset(token)


def on_batch() -> Callable[[int], None] | None:
    """Return what a model calls with the size of every batch that it embedded; None where no bar is shown."""
    progress = _CURRENT.get()
    return None if progress is None else progress.advance
