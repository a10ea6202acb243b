"""Pictures of a list of texts, made ready for the model before the batches ask for them.

LlamaIndex cuts a list into batches and calls the embedding with one batch at a time. To have the pictures
of the next batches at hand, the method that is given the whole list starts to load them, and the method that
is called with a batch finds them by text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from ..models.prefetch import Prefetcher
from ..schema.image_text import ImageText

# A context variable: LlamaIndex has no argument for it, and threads and tasks that it starts for a batch see
# that of their own call, however many calls there are at a time.
_CURRENT: ContextVar[Prefetcher[int, ImageText, Any] | None] = ContextVar("prefetched_images", default=None)


@contextmanager
def prefetch_images(
    load: Callable[[ImageText], Any], texts: Sequence[ImageText], *, ahead: int, wait: bool = True
) -> Iterator[None]:
    """Load the pictures of texts in threads, ahead of :func:`take_image` inside of the ``with`` block.

    Args:
        load: makes a text's picture ready for the model.
        texts: texts with a picture, in the order in which they are embedded.
        ahead: how many pictures may be ready or under way before they are taken.
        wait: at the end of the block, for pictures under way that nobody needs any more.
    """
    # By identity: equal texts may carry different pictures.
    prefetcher = Prefetcher(load, {id(text): text for text in texts}, ahead=ahead)
    token = _CURRENT.set(prefetcher)
    try:
        yield
    finally:
        _CURRENT.reset(token)
        prefetcher.close(wait=wait)


def take_image(text: ImageText) -> Any | None:
    """Return what ``load`` made of a text's picture, once; None where it is not being prefetched.

    Raises whatever ``load`` raised.
    """
    prefetcher = _CURRENT.get()
    try:
        future = prefetcher.take(id(text)) if prefetcher is not None else None
    except KeyError:  # taken before: a list may hold one text twice
        return None
    return future.result() if future is not None else None
