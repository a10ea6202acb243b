"""The slices of a list of texts, encoded one ahead of whoever asks for them.

LlamaIndex cuts a list into slices, asks for the vectors of one, and makes lists of floats of them before it
asks for the next. The model would wait meanwhile, on a GPU for a third of the time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from typing import Any

from ..models.prefetch import Prefetcher

_Key = tuple[int, ...]
_CURRENT: ContextVar[Prefetcher[_Key, Sequence[str], Any] | None] = ContextVar("encoded_slices", default=None)


@contextmanager
def encode_ahead(
    encode: Callable[[Sequence[str]], Any], texts: Sequence[str], *, slice_size: int
) -> Iterator[None]:
    """Encode slices in a thread, one ahead of :func:`take_slice` inside of the ``with`` block.

    Args:
        encode: called with every slice, in order.
        texts: what is encoded.
        slice_size: texts of a slice; the last may have fewer.
    """
    slices = [texts[start : start + slice_size] for start in range(0, len(texts), slice_size)]
    # The thread sees what this one does: the pictures that are being loaded.
    context = copy_context()
    prefetcher = Prefetcher(
        lambda own: context.run(encode, own), {_key(own): own for own in slices}, ahead=1, workers=1
    )
    token = _CURRENT.set(prefetcher)
    try:
        yield
    finally:
        _CURRENT.reset(token)
        prefetcher.close()


def take_slice(texts: Sequence[str]) -> Any | None:
    """Return what ``encode`` made of a slice, once; None where it is none of the slices.

    Raises whatever ``encode`` raised.
    """
    prefetcher = _CURRENT.get()
    try:
        future = prefetcher.take(_key(texts)) if prefetcher is not None else None
    except KeyError:  # not cut as expected, or a slice that came twice
        return None
    return future.result() if future is not None else None


def _key(texts: Sequence[str]) -> _Key:
    # By identity: equal texts may carry different pictures.
    return tuple(map(id, texts))
