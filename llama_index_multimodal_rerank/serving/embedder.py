"""Embedder: from the items of a request to vectors, with those of other requests in one batch."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np

from ..embeddings.remote_protocol import WireError, WireItem
from ..images.errors import ImageLoadError
from ..schema.image_text import ImageText
from .batcher import Batcher, Vectors

if TYPE_CHECKING:
    from ..embeddings.image_text_embedding import ImageTextEmbedding

_READERS = os.cpu_count() or 1


class ItemError(ValueError):
    """An item has no embedding.

    Attributes:
        error: which item, and why.
    """

    def __init__(self, error: WireError) -> None:
        super().__init__(error.message)
        self.error = error


class Embedder:
    """Reads pictures in threads, each item for itself, and has the model embed what is ready.

    Args:
        embed_model: what is served. Pictures come as bytes, so it reads no file and no address.
        max_batch: items that the model is given at a time.
    """

    def __init__(self, embed_model: ImageTextEmbedding, max_batch: int) -> None:
        self._embed_model = embed_model
        self._batcher = Batcher(embed_model.encode_prepared, max_batch)
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="pictures")
        # Decoded pictures wait for the model, and are larger than encoded ones.
        self._ready = asyncio.Semaphore(2 * max_batch)

    async def run(self) -> None:
        """Serve until cancelled."""
        try:
            await self._batcher.run()
        finally:
            self._readers.shutdown(wait=False, cancel_futures=True)

    async def embed(self, items: Sequence[WireItem]) -> Vectors:
        """Embed the items of a request, in order; vectors are (items, dim).

        Raises:
            ItemError: one of them has no embedding: the first, where there are several.
        """
        vectors = await asyncio.gather(
            *(self._embed_item(index, item) for index, item in enumerate(items)), return_exceptions=True
        )
        for vector in vectors:
            if isinstance(vector, BaseException):
                raise vector
        return np.stack(vectors)  # type: ignore[arg-type]

    async def _embed_item(self, index: int, item: WireItem) -> Vectors:
        text = item.text if item.image is None else ImageText(item.text, item.image)
        loop = asyncio.get_running_loop()
        async with self._ready:
            try:
                prepared = await loop.run_in_executor(self._readers, self._embed_model.prepare, text)
            except ImageLoadError as error:
                raise ItemError(
                    WireError("ImageLoadError", f"items[{index}]: {error}", index, error.reason)
                ) from error
            except ValueError as error:
                raise ItemError(WireError("ValueError", f"items[{index}]: {error}", index)) from error
            return await self._batcher.embed(prepared)
