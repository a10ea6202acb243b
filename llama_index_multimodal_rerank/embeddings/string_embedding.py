"""StringEmbedding: from LlamaIndex's strings, which may carry pictures, to vectors."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any, TypeGuard

from llama_index.core.base.embeddings.base import Embedding

from ..images.files import check_is_there
from ..images.sources import as_path, describe_source
from ..models.batching import batch_order
from ..schema.contents import (
    DECODED_IMAGE,
    DECODED_IMAGE_ADVICE,
    IMAGE_METADATA_ADVICE,
    LOST_IMAGE,
    LOST_IMAGE_ADVICE,
)
from ..schema.image_text import ImageText, has_lost_image, recover_image, text_with_digest, words_of
from ..schema.not_the_image import is_decoded_image, is_image_metadata
from ..schema.values import check_text
from .model_embedding import ModelEmbedding
from .prefetched_images import prefetch_images, take_image
from .progress import embedding_progress
from .slices import EncodedTexts, encode_ahead, take_slice

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from ..images.sources import ImageSource


class StringEmbedding(ModelEmbedding):
    """Text, picture, or picture + text into one vector: LlamaIndex's methods, all through :meth:`encode`.

    Where LlamaIndex passes strings, an :class:`ImageText` is embedded as picture + text. A plain
    string is embedded as text. An empty one is an error, and so is a text that names one of our
    pictures without carrying it (what a text splitter leaves of a picture).
    """

    # -- from LlamaIndex's strings to vectors ------------------------------------------------

    def encode(self, texts: Sequence[str], *, show_progress: bool = False) -> npt.NDArray[np.float32]:
        """Embed strings and :class:`ImageText`, mixed as they come.

        Args:
            texts: what to embed; order is kept.
            show_progress: show a progress bar.

        Returns:
            float32 array, shape (len(texts), dim).

        Raises:
            ValueError: an empty text, or a text that names a picture it does not carry.
            ImageLoadError: a picture cannot be read, or changed since its node was made.
        """
        return self.encode_prepared([self._to_item(text) for text in texts], show_progress=show_progress)

    def prepare(self, text: str) -> str | tuple[str, Any]:
        """Check a text and read its picture, all that can fail because of this text alone.

        Returns:
            What :meth:`encode_prepared` takes; a picture is as small as the model needs it.

        Raises:
            ValueError, ImageLoadError: as :meth:`encode`.
        """
        text = _checked(text)
        return (text.text, self._prepare_image(text)) if has_image(text) else self._to_item(text)

    def encode_prepared(
        self, items: Sequence[str | tuple[str, Any]], *, show_progress: bool = False
    ) -> npt.NDArray[np.float32]:
        """Embed what :meth:`prepare` returned; of whatever callers, in one batch.

        Args:
            items: order is kept.
            show_progress: show a progress bar.

        Returns:
            float32 array, shape (len(items), dim).
        """
        vectors = self._encode_items(items, show_progress=show_progress)
        if len(vectors) != len(items):
            raise RuntimeError(f"the model returned {len(vectors)} vectors for {len(items)} items")
        return vectors

    def _to_item(self, text: str) -> str | tuple[str, Any]:
        text = _checked(text)
        if has_image(text):
            prefetched = take_image(text)
            return text.text, partial(self._load_image, text) if prefetched is None else prefetched
        _check_plain_text(text)
        return text.text if isinstance(text, ImageText) else text

    def _with_digest(self, text: str) -> str:
        text = _checked(text)
        if has_image(text):
            return text.with_digest(self._access)
        _check_plain_text(text)
        return text_with_digest(text)

    def _get_text_embedding(self, text: str) -> Embedding:
        return self._get_text_embeddings([text])[0]

    def _get_text_embeddings(self, texts: list[str]) -> list[Embedding]:
        encoded = take_slice(texts)
        vectors: list[Embedding] = (self.encode(texts) if encoded is None else encoded).tolist()
        return vectors

    def _get_query_embedding(self, query: str) -> Embedding:
        return self._get_text_embedding(query)

    def _get_image_embedding(self, img_file_path: Any) -> Embedding:
        return self._get_text_embedding(ImageText("", img_file_path))

    # The model is busy, not waiting: a thread of its own keeps the event loop free.

    async def _aget_text_embedding(self, text: str) -> Embedding:
        return await asyncio.to_thread(self._get_text_embedding, text)

    async def _aget_text_embeddings(self, texts: list[str]) -> list[Embedding]:
        return await asyncio.to_thread(self._get_text_embeddings, texts)

    async def _aget_query_embedding(self, query: str) -> Embedding:
        return await asyncio.to_thread(self._get_query_embedding, query)

    async def _aget_image_embedding(self, img_file_path: Any) -> Embedding:
        return await asyncio.to_thread(self._get_image_embedding, img_file_path)

    # -- public methods: LlamaIndex's own, with pictures told apart in caches and events ---------

    def get_query_embedding(self, query: str) -> Embedding:
        """Embed a query: a text, or an :class:`ImageText`. Returns ``dim`` floats."""
        return super().get_query_embedding(self._with_digest(query))

    async def aget_query_embedding(self, query: str) -> Embedding:
        """Embed a query, asynchronously; see :meth:`get_query_embedding`."""
        return await super().aget_query_embedding(await asyncio.to_thread(self._with_digest, query))

    def get_text_embedding(self, text: str) -> Embedding:
        """Embed a text, or an :class:`ImageText`. Returns ``dim`` floats."""
        return super().get_text_embedding(self._with_digest(text))

    async def aget_text_embedding(self, text: str) -> Embedding:
        """Embed a text, asynchronously; see :meth:`get_text_embedding`."""
        return await super().aget_text_embedding(await asyncio.to_thread(self._with_digest, text))

    def get_text_embedding_batch(
        self, texts: list[str], show_progress: bool = False, **kwargs: Any
    ) -> list[Embedding]:
        """Embed texts and :class:`ImageText`, mixed, ``embed_batch_size`` at a time; in order.

        Batches are made of one kind and of similar length. The pictures of the next batches are read and
        decoded while the model is busy with one. The progress bar moves with every batch of the model.
        """
        with embedding_progress(len(texts), show_progress) as progress:
            if self.embeddings_cache is not None:  # it may hold the vectors already
                ordered, order = self._arrange([*map(self._ready, texts)])
                vectors = super().get_text_embedding_batch(ordered, **kwargs)
            else:
                ordered, order = self._arrange([*map(self._ready_to_read, texts)])
                with self._prefetch(ordered), self._encode_ahead(ordered) as encoded:
                    vectors = super().get_text_embedding_batch(encoded, **kwargs)
            if progress is not None:
                progress.set_to(len(texts))
        return _reordered(vectors, order)

    async def aget_text_embedding_batch(
        self, texts: list[str], show_progress: bool = False, **kwargs: Any
    ) -> list[Embedding]:
        """Embed a batch, asynchronously; see :meth:`get_text_embedding_batch`."""
        ordered, order = await asyncio.to_thread(lambda: self._arrange([*map(self._ready, texts)]))
        with embedding_progress(len(texts), show_progress) as progress, self._prefetch(ordered, wait=False):
            vectors = await super().aget_text_embedding_batch(ordered, **kwargs)
            if progress is not None:
                progress.set_to(len(texts))
        return _reordered(vectors, order)

    def _arrange(self, texts: Sequence[str]) -> tuple[list[str], list[int]]:
        """Bring the texts of several batches into an order that makes good ones."""
        if len(texts) <= self.embed_batch_size:
            return [*texts], [*range(len(texts))]
        lengths = [len(text.text if has_image(text) else text) for text in texts]
        order = batch_order(lengths, [*map(has_image, texts)])
        return [texts[i] for i in order], order

    def _ready(self, text: str) -> str:
        """Return a text with its digest; a file that is not there is noticed before anything is embedded."""
        text = _checked(text)
        if has_image(text) and text.expected_digest is not None and self.embeddings_cache is None:
            self._is_file(text)
        ready = self._with_digest(text)
        _check_not_metadata(text)
        return ready

    def _ready_to_read(self, text: str) -> str:
        """As :meth:`_ready`, but a file whose digest is not known gets it when it is read to be embedded."""
        text = _checked(text)
        if not has_image(text):
            return self._ready(text)
        if self._is_file(text) and text.expected_digest is None:
            return text.to_be_read()
        return text.with_digest(self._access)

    def _is_file(self, text: ImageText) -> bool:
        """Tell whether a picture is a file; raise if that is not there."""
        path = as_path(text.image)  # type: ignore[arg-type]
        if path is not None:
            check_is_there(path, name=describe_source(path), data_root=self.data_root)
        return path is not None

    def _encode_ahead(self, texts: Sequence[str]) -> AbstractContextManager[EncodedTexts]:
        """Encode the next slice while LlamaIndex is busy with one; the asynchronous way does it by itself."""

        def with_digest(text: str) -> str:
            return text.with_digest(self._access) if has_image(text) else text

        return encode_ahead(self.encode, texts, slice_size=self.embed_batch_size, finish=with_digest)

    def _prefetch(self, texts: Sequence[str], *, wait: bool = True) -> AbstractContextManager[None]:
        """Prefetch pictures from batch to batch; within a batch the model does.

        Not with a cache, which may hold the vectors already.
        """
        if len(texts) <= self.embed_batch_size or self.embeddings_cache is not None:
            return nullcontext()
        images = [text for text in texts if has_image(text)]
        # Cropped to the model's size at once: a few hundred decoded photographs would fill the memory.
        return prefetch_images(self._prepare_image, images, ahead=2 * self.embed_batch_size, wait=wait)

    # Pictures go the way of texts, so that their events carry strings and the cache serves them.

    def get_image_embedding(self, img_file_path: ImageSource) -> Embedding:
        """Embed a picture (any :func:`load_image` source). Returns ``dim`` floats."""
        return self.get_text_embedding(ImageText("", img_file_path))

    async def aget_image_embedding(self, img_file_path: ImageSource) -> Embedding:
        """Embed a picture, asynchronously."""
        return await self.aget_text_embedding(ImageText("", img_file_path))

    def get_image_embedding_batch(
        self, img_file_paths: Sequence[ImageSource], show_progress: bool = False
    ) -> list[Embedding]:
        """Embed pictures, in order, ``embed_batch_size`` at a time."""
        return self.get_text_embedding_batch(
            [ImageText("", image) for image in img_file_paths], show_progress=show_progress
        )

    async def aget_image_embedding_batch(
        self, img_file_paths: Sequence[ImageSource], show_progress: bool = False
    ) -> list[Embedding]:
        """Embed pictures, asynchronously; see :meth:`get_image_embedding_batch`."""
        return await self.aget_text_embedding_batch(
            [ImageText("", image) for image in img_file_paths], show_progress=show_progress
        )

    def get_image_text_embedding(self, text: str, image: ImageSource) -> Embedding:
        """Embed a picture and a text into one vector. Returns ``dim`` floats."""
        return self.get_text_embedding(ImageText(text, image))

    async def aget_image_text_embedding(self, text: str, image: ImageSource) -> Embedding:
        """Embed a picture and a text into one vector, asynchronously."""
        return await self.aget_text_embedding(ImageText(text, image))


def has_image(text: str) -> TypeGuard[ImageText]:
    """Tell whether a string carries a picture."""
    return isinstance(text, ImageText) and text.image is not None


def _reordered(vectors: Sequence[Embedding], order: Sequence[int]) -> list[Embedding]:
    """Put vectors where their texts were before these were brought into ``order``."""
    embeddings: list[Embedding] = [[] for _ in order]
    for place, vector in zip(order, vectors, strict=True):
        embeddings[place] = vector
    return embeddings


def _checked(text: str) -> str:
    check_text(text, "cannot embed", "a text")
    return recover_image(text)


def _check_not_metadata(text: str) -> None:
    if type(text) is str and is_image_metadata(text):
        raise ValueError(f"this text is the metadata of a picture: {text[:200]!r}. {IMAGE_METADATA_ADVICE}")


def _check_plain_text(text: str) -> None:
    if not words_of(text).strip():
        raise ValueError(f"an empty text has no embedding, got {text!r}: give words, a picture, or both.")
    if is_decoded_image(text):
        raise ValueError(f"this text {DECODED_IMAGE}: {text[:200]!r}. {DECODED_IMAGE_ADVICE}")
    if has_lost_image(text):
        raise ValueError(f"this text {LOST_IMAGE}: {text[:200]!r}. {LOST_IMAGE_ADVICE}")
