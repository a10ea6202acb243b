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


class EncodedTexts(list[str]):
    """Texts that can be looked through once a slice of them is encoded, and what was made of the slices.

    Args:
        encode: called with every slice, in order, in a thread; one ahead of whoever looks through the texts.
        texts: what is encoded.
        slice_size: texts of a slice; the last may have fewer.
        finish: returns the text that is handed out, once its slice is encoded.
    """

    def __init__(
        self,
        encode: Callable[[Sequence[str]], Any],
        texts: Sequence[str],
        *,
        slice_size: int,
        finish: Callable[[str], str],
    ) -> None:
        super().__init__(texts)
        self._finish = finish
        self._slices = [texts[start : start + slice_size] for start in range(0, len(texts), slice_size)]
        # The thread sees what this one does: the pictures that are being loaded.
        context = copy_context()
        self._prefetcher = Prefetcher(
            lambda own: context.run(encode, own), dict(enumerate(self._slices)), ahead=1, workers=1
        )
        self._encoded: dict[_Key, Any] = {}

    def __iter__(self) -> Iterator[str]:
        """Yield every text, once; raise whatever ``encode`` raised for its slice."""
        for number, own in enumerate(self._slices):
            encoded = self._prefetcher.take(number).result()
            finished = [*map(self._finish, own)]
            self._encoded[_key(finished)] = encoded
            yield from finished

    def take(self, texts: Sequence[str]) -> Any | None:
        """Return what ``encode`` made of a slice, once; None where it is none of the slices."""
        return self._encoded.pop(_key(texts), None)

    def close(self) -> None:
        """Wait for what is being encoded; begin nothing more."""
        self._prefetcher.close()


_CURRENT: ContextVar[EncodedTexts | None] = ContextVar("encoded_texts", default=None)


@contextmanager
def encode_ahead(
    encode: Callable[[Sequence[str]], Any],
    texts: Sequence[str],
    *,
    slice_size: int,
    finish: Callable[[str], str] = lambda text: text,
) -> Iterator[EncodedTexts]:
    """Encode slices for :func:`take_slice` inside of the ``with`` block; see :class:`EncodedTexts`."""
    encoded = EncodedTexts(encode, texts, slice_size=slice_size, finish=finish)
    token = _CURRENT.set(encoded)
    try:
        yield encoded
    finally:
        _CURRENT.reset(token)
        encoded.close()


def take_slice(texts: Sequence[str]) -> Any | None:
    """Return what was made of a slice that was looked through, once; None where it is none of the slices."""
    encoded = _CURRENT.get()
    return None if encoded is None else encoded.take(texts)


def _key(texts: Sequence[str]) -> _Key:
    # By identity: equal texts may carry different pictures.
    return tuple(map(id, texts))
