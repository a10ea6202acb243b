"""ImageTextEmbedding: what the LlamaIndex integrations of all image-text models share."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any, TypeGuard

from llama_index.core.base.embeddings.base import Embedding
from llama_index.core.schema import BaseNode

from ..models.batching import batch_order
from ..schema.contents import embedding_content, require_distinct_content
from ..schema.conversion import to_storable_node
from ..schema.image_text import ImageText, has_lost_image, recover_image
from .local_model import LocalModelEmbedding
from .prefetched_images import prefetch_images, take_image

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from PIL.Image import Image

    from ..images.sources import ImageSource


class ImageTextEmbedding(LocalModelEmbedding):
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
        vectors = self.model.encode(
            [self._to_item(text) for text in texts],
            batch_size=self.embed_batch_size,
            normalize=self.normalize,
            show_progress=show_progress,
        )
        if len(vectors) != len(texts):
            raise RuntimeError(f"the model returned {len(vectors)} vectors for {len(texts)} items")
        return vectors

    def _to_item(self, text: str) -> str | tuple[str, Any]:
        text = recover_image(text)
        if _has_image(text):
            prefetched = take_image(text)
            return text.text, partial(self._load_image, text) if prefetched is None else prefetched
        if has_lost_image(text):
            raise ValueError(
                f"this text names a picture but does not carry it: {text[:200]!r}. A text splitter, or a "
                "node read back from a store, lost it on the way; embedding the text would embed something "
                "else. Index pictures with IngestionPipeline(transformations=[embed_model]) or "
                "from_documents(..., transformations=[embed_model]), without a splitter, and turn nodes from "
                "a store into indexable ones with image_node(node.image_path)."
            )
        return text.text if isinstance(text, ImageText) else text

    def _load_image(self, text: ImageText) -> Image:
        return self._access.load(
            text.image,  # type: ignore[arg-type]
            apply_exif_orientation=self.apply_exif_orientation,
            expected_digest=text.expected_digest,
        )

    def _prepare_image(self, text: ImageText) -> Any:
        # The model is loaded for the first picture, so not where there is none.
        return self.model.preprocess(self._load_image(text))

    def _with_digest(self, text: str) -> str:
        text = recover_image(text)
        return text.with_digest(self._access) if _has_image(text) else text

    def _get_text_embedding(self, text: str) -> Embedding:
        return self._get_text_embeddings([text])[0]

    def _get_text_embeddings(self, texts: list[str]) -> list[Embedding]:
        vectors: list[Embedding] = self.encode(texts).tolist()
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
        decoded while the model is busy with one.
        """
        ordered, order = self._arrange(texts)
        with self._prefetch(ordered):
            vectors = super().get_text_embedding_batch(ordered, show_progress=show_progress, **kwargs)
        return _reordered(vectors, order)

    async def aget_text_embedding_batch(
        self, texts: list[str], show_progress: bool = False, **kwargs: Any
    ) -> list[Embedding]:
        """Embed a batch, asynchronously; see :meth:`get_text_embedding_batch`."""
        ordered, order = await asyncio.to_thread(self._arrange, texts)
        with self._prefetch(ordered, wait=False):
            vectors = await super().aget_text_embedding_batch(ordered, show_progress=show_progress, **kwargs)
        return _reordered(vectors, order)

    def _arrange(self, texts: Sequence[str]) -> tuple[list[str], list[int]]:
        """Make texts distinct, and bring those of several batches into an order that makes good ones."""
        texts = [self._with_digest(text) for text in texts]
        if len(texts) <= self.embed_batch_size:
            return texts, [*range(len(texts))]
        lengths = [len(text.text if _has_image(text) else text) for text in texts]
        order = batch_order(lengths, [*map(_has_image, texts)])
        return [texts[i] for i in order], order

    def _prefetch(self, texts: Sequence[str], *, wait: bool = True) -> AbstractContextManager[None]:
        """Prefetch pictures from batch to batch; within a batch the model does.

        Not with a cache, which may hold the vectors already.
        """
        if len(texts) <= self.embed_batch_size or self.embeddings_cache is not None:
            return nullcontext()
        images = [text for text in texts if _has_image(text)]
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

    # -- as a transformation in a pipeline -------------------------------------------------------

    def __call__(self, nodes: Sequence[BaseNode], **kwargs: Any) -> Sequence[BaseNode]:
        """Set the embedding of every node: its picture with its text, or its text.

        Takes ``ImageTextNode``, ``ImageNode`` as stores return it, and text nodes, mixed.

        Returns:
            The nodes, in order. A ``Node`` of text is returned as a ``TextNode`` of the same id, because
            stores fail on it.

        Raises:
            ValueError: a node has nothing to embed, is audio or video, or has a picture that a pipeline's
                cache could not tell from others: pass such nodes through :func:`to_image_nodes`.
            ImageLoadError: a picture cannot be read.
        """
        stored, contents = self._contents(nodes)
        kwargs.setdefault("show_progress", self.show_progress_bar)
        vectors = self.get_text_embedding_batch(contents, **kwargs)
        return _set_embeddings(nodes, stored, vectors)

    async def acall(self, nodes: Sequence[BaseNode], **kwargs: Any) -> Sequence[BaseNode]:
        """Set the embedding of every node, asynchronously; see :meth:`__call__`."""
        stored, contents = await asyncio.to_thread(self._contents, nodes)
        kwargs.setdefault("show_progress", self.show_progress_bar)
        vectors = await self.aget_text_embedding_batch(contents, **kwargs)
        return _set_embeddings(nodes, stored, vectors)

    def _contents(self, nodes: Sequence[BaseNode]) -> tuple[list[BaseNode], list[str]]:
        for node in nodes:
            require_distinct_content(node)
        stored = [to_storable_node(node, self._access) for node in nodes]
        return stored, [embedding_content(node) for node in stored]


def _has_image(text: str) -> TypeGuard[ImageText]:
    return isinstance(text, ImageText) and text.image is not None


def _reordered(vectors: Sequence[Embedding], order: Sequence[int]) -> list[Embedding]:
    """Put vectors where their texts were before these were brought into ``order``."""
    embeddings: list[Embedding] = [[] for _ in order]
    for place, vector in zip(order, vectors, strict=True):
        embeddings[place] = vector
    return embeddings


def _set_embeddings(
    nodes: Sequence[BaseNode], stored: list[BaseNode], vectors: list[Embedding]
) -> list[BaseNode]:
    for node, kept, vector in zip(nodes, stored, vectors, strict=True):
        kept.embedding = node.embedding = vector
    return stored
