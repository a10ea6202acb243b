"""ImageTextEmbedding: what the LlamaIndex integrations of all image-text models share."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from llama_index.core.base.embeddings.base import Embedding
from llama_index.core.bridge.pydantic import Field, PrivateAttr
from llama_index.core.schema import BaseNode

from ..images.errors import ImageLoadError
from ..models.batching import batch_order
from ..schema.contents import (
    embedding_content,
    require_distinct_content,
    require_distinct_ids,
    require_own_image,
)
from ..schema.conversion import to_storable_node
from ..schema.nodes import EmbedsAsImage, describe_node, storable_values
from ..schema.values import NodeValueError, storable_part, without_arrays
from .progress import embedding_progress
from .string_embedding import StringEmbedding, has_image

logger = logging.getLogger(__name__)


class SkippedNode(NamedTuple):
    """A node that an embedding left out under ``on_error="skip"``, and why."""

    node_id: str
    node: str
    """Its class, its id and its file, as errors name it."""
    reason: str


class _Prepared(NamedTuple):
    given: BaseNode
    stored: BaseNode
    content: str


class ImageTextEmbedding(StringEmbedding):
    """Text, picture, or picture + text into one vector; as a transformation, of whole nodes."""

    on_error: Literal["raise", "skip"] = Field(
        default="raise",
        description="What a pipeline's run does with a node whose picture cannot be read, or that holds a "
        "value which stores cannot keep: 'raise', or 'skip', which leaves it out of the nodes returned, logs "
        "a warning, and lists it in .skipped. Indexes that embed texts and not nodes (VectorStoreIndex), and "
        "queries, always raise.",
    )

    _skipped: list[SkippedNode] = PrivateAttr(default_factory=list)

    @property
    def skipped(self) -> list[SkippedNode]:
        """The nodes that ``on_error="skip"`` left out, of all calls so far; ``skipped.clear()`` forgets them.

        Those that a pipeline's ``num_workers`` left out are in its processes, and in the log alone.
        """
        return self._skipped

    def to_dict(self, **kwargs: Any) -> dict[str, Any]:
        """Return the settings, of which a pipeline makes its cache's keys.

        Under ``on_error="skip"`` no two are alike: the cache would give back the nodes of a run in which one
        was left out, and it would stay left out when its picture is there again.
        """
        data: dict[str, Any] = super().to_dict(**kwargs)
        if self.on_error == "skip":
            data["never_cached"] = uuid.uuid4().hex
        return data

    def __call__(self, nodes: Sequence[BaseNode], **kwargs: Any) -> Sequence[BaseNode]:
        """Set the embedding of every node: its picture with its text, or its text.

        Takes ``ImageTextNode``, ``ImageNode`` as stores return it, and text nodes, mixed. Values, ids and
        whether files are there is checked before the first of them is embedded. Numbers and arrays of NumPy
        and PyTorch in metadata become Python's.

        Returns:
            The nodes, in order, without those that ``on_error="skip"`` left out. A ``Node`` of text is
            returned as a ``TextNode`` of the same id, because stores fail on it.

        Raises:
            ValueError: a node has nothing to embed, is audio or video, has lost its picture to a text
                splitter or a reader, or has a picture that a pipeline's cache could not tell from others
                (pass such nodes through :func:`to_image_nodes`); or two different nodes have one id.
            NodeValueError: a node holds a value that stores cannot keep; it names node and key.
            ImageLoadError: a picture cannot be read. Under ``on_error="skip"`` only for nodes that are not
                ``ImageTextNode``: a document store would take them for indexed.
        """
        kwargs["show_progress"] = self._shows_progress(kwargs)
        prepared = self._prepare(nodes)
        if self.on_error == "skip":
            return self._embed_readable(prepared, **kwargs)
        return _set_embeddings(
            prepared, self.get_text_embedding_batch([one.content for one in prepared], **kwargs)
        )

    async def acall(self, nodes: Sequence[BaseNode], **kwargs: Any) -> Sequence[BaseNode]:
        """Set the embedding of every node, asynchronously; see :meth:`__call__`."""
        if self.on_error == "skip":
            return await asyncio.to_thread(self, nodes, **kwargs)
        kwargs["show_progress"] = self._shows_progress(kwargs)
        prepared = await asyncio.to_thread(self._prepare, nodes)
        vectors = await self.aget_text_embedding_batch([one.content for one in prepared], **kwargs)
        return _set_embeddings(prepared, vectors)

    def _shows_progress(self, kwargs: Mapping[str, Any]) -> bool:
        # Pipelines of llama-index-core 0.14.0 forward False where nobody asked, later ones nothing.
        return self.show_progress_bar or bool(kwargs.get("show_progress"))

    def _prepare(self, nodes: Sequence[BaseNode]) -> list[_Prepared]:
        for node in nodes:
            require_own_image(node)
            require_distinct_content(node)
        require_distinct_ids(nodes)
        prepared = []
        for node in nodes:
            try:
                stored = to_storable_node(node, self._access)
                metadata = storable_values(stored)
                content = embedding_content(stored)
                if self.on_error == "skip":
                    content = self._ready(content)
            except (NodeValueError, ImageLoadError) as error:
                self._leave_out(node, error)
                continue
            kept = without_arrays(stored.metadata, metadata)
            if kept is not stored.metadata:  # each assignment has pydantic look at the whole value
                stored.metadata = kept
            prepared.append(_Prepared(node, stored, content))
        return prepared

    def _embed_readable(
        self, prepared: list[_Prepared], *, show_progress: bool, **kwargs: Any
    ) -> list[BaseNode]:
        """Embed batch by batch; of a batch with a picture that cannot be read, one by one."""
        lengths = [len(getattr(one.content, "text", one.content)) for one in prepared]
        order = batch_order(lengths, [has_image(one.content) for one in prepared])
        batches = [order[i : i + self.embed_batch_size] for i in range(0, len(order), self.embed_batch_size)]
        vectors: dict[int, Embedding] = {}
        done = 0
        with (
            embedding_progress(len(prepared), show_progress) as progress,
            self._prefetch([prepared[i].content for i in order]),
        ):
            for batch in batches:
                contents = [prepared[i].content for i in batch]
                try:
                    vectors.update(zip(batch, self._embed_batch(contents, **kwargs), strict=True))
                except ImageLoadError:
                    if progress is not None:
                        progress.set_to(done)  # what was embedded of the batch is embedded again
                    for i in batch:
                        vectors.update(self._embed_one(i, prepared[i], **kwargs))
                done += len(batch)
                if progress is not None:
                    progress.set_to(done)
        kept = sorted(vectors)
        return _set_embeddings([prepared[i] for i in kept], [vectors[i] for i in kept])

    def _embed_one(self, index: int, one: _Prepared, **kwargs: Any) -> dict[int, Embedding]:
        try:
            return {index: self._embed_batch([one.content], **kwargs)[0]}
        except ImageLoadError as error:
            self._leave_out(one.stored, error)
            return {}

    def _embed_batch(self, contents: list[str], **kwargs: Any) -> list[Embedding]:
        return super().get_text_embedding_batch(contents, **kwargs)

    def _leave_out(self, node: BaseNode, error: NodeValueError | ImageLoadError) -> None:
        """Name a node that is left out, or raise where nothing may be."""
        may_skip = isinstance(node, EmbedsAsImage) or isinstance(error, NodeValueError)
        if self.on_error != "skip" or not may_skip:
            raise error
        skipped = SkippedNode(node.node_id, describe_node(node), str(error))
        logger.warning("Left out %s: %s", skipped.node, skipped.reason)
        self._skipped.append(skipped)
        if isinstance(node, EmbedsAsImage):
            node._left_out = True
        # A document store that was given the node would fail on the value when it is written to a file.
        node.metadata = storable_part(node.metadata, skipped.node)


def _set_embeddings(prepared: Sequence[_Prepared], vectors: Sequence[Embedding]) -> list[BaseNode]:
    for one, vector in zip(prepared, vectors, strict=True):
        one.stored.embedding = vector
        if one.given is not one.stored:
            one.given.embedding = vector
    return [one.stored for one in prepared]
