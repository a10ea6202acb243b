"""VisualizedBGEEmbedding: LlamaIndex integration of Visualized BGE."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, Any, TypeGuard

from llama_index.core.base.embeddings.base import Embedding
from llama_index.core.bridge.pydantic import Field, PrivateAttr, field_validator
from llama_index.core.embeddings import MultiModalEmbedding
from llama_index.core.schema import BaseNode

from ..demo.checkpoints import DEMO, checkpoint_folder
from ..images.access import ImageAccess
from ..images.url_hosts import check_allow_urls
from ..lazy import Lazy
from ..models.batching import batch_order
from ..models.prefetch import prefetch_map
from ..schema.image_text import ImageText, has_lost_image
from ..schema.nodes import embedding_content, to_storable_node

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from PIL.Image import Image

    from ..images.sources import ImageSource
    from ..models.visualized_bge import VisualizedBGE

DEFAULT_MODEL_NAME = "BAAI/bge-visualized"


class VisualizedBGEEmbedding(MultiModalEmbedding):
    """Text, picture, or picture + text into one vector, with Visualized BGE.

    The model is loaded on first use, once, also when many threads ask at the same time.
    Copies (``copy``, ``deepcopy``) share it; pickles leave it behind and load it again.

    Where LlamaIndex passes strings, an :class:`ImageText` is embedded as picture + text. A plain
    string is embedded as text. An empty one is an error, and so is a text that names one of our
    pictures without carrying it (what a text splitter leaves of a picture).

    ``model_name="demo"`` is a tiny model that comes with this package, for trying things out offline: it was
    trained on drawn products alone (``llama_index_multimodal_rerank.demo``) and is of no use for photographs.

    Source: "VISTA: Visualized Text Embedding For Universal Multi-Modal Retrieval",
    arXiv:2406.04292, and the model card ``BAAI/bge-visualized``.
    """

    model_name: str = Field(
        default=DEFAULT_MODEL_NAME,
        description="Checkpoint: a name on the hub, or the path of a local file or folder; or 'demo', a tiny "
        "model in this package that was trained on drawings and knows nothing else. For a folder called "
        "demo write './demo'.",
    )
    device: str | None = Field(
        default=None, description="Torch device, such as 'cuda:0'. Default: the best one there is."
    )
    dtype: str | None = Field(
        default=None,
        description="'float32', 'bfloat16' or 'float16'. "
        "Default: bfloat16 where the hardware computes in it, float32 elsewhere.",
    )
    embed_batch_size: int = Field(
        default=32, gt=0, le=2048, description="Items embedded in one call of the model."
    )
    normalize: bool = Field(default=True, description="Scale vectors to length 1.")
    torch_compile: bool = Field(
        default=False,
        description="Compile the model's layers with torch.compile: faster once half a minute or more has "
        "gone into it. Needs a C++ compiler where the model runs on a CPU.",
    )
    cache_folder: str | None = Field(
        default=None, description="Where hub files are kept. Default: the hub's own cache."
    )
    revision: str | None = Field(default=None, description="Branch, tag or commit on the hub.")
    local_files_only: bool = Field(
        default=False, description="Never ask the hub. HF_HUB_OFFLINE=1 has the same effect."
    )
    apply_exif_orientation: bool = Field(
        default=False,
        description="Turn photographs as their EXIF tag says. The reference implementation does not, "
        "so vectors of turned photographs differ from its own. Index and query with the same value.",
    )
    allow_urls: bool | list[str] = Field(
        default=False,
        description="Fetch pictures given as http(s) URLs, in documents as in queries: true for public "
        "addresses, or a list of the hosts to fetch from ('images.example.org', 'localhost:8000'), which may "
        "be private.",
    )
    data_root: str | None = Field(
        default=None,
        description="The only folder that picture files are read from, '..' and symbolic links resolved. Set "
        "it where paths come from others. Default: any file that the process may read.",
    )
    show_progress_bar: bool = Field(
        default=False, description="Show a bar where LlamaIndex forwards no show_progress: in pipelines."
    )

    _loader: Lazy[VisualizedBGE] = PrivateAttr(default_factory=Lazy)

    @field_validator("allow_urls", mode="before")
    @classmethod
    def _check_allow_urls(cls, allow_urls: Any) -> Any:
        return check_allow_urls(allow_urls)

    @classmethod
    def class_name(cls) -> str:
        """Name under which LlamaIndex serialises the class."""
        return "VisualizedBGEEmbedding"

    @property
    def model(self) -> VisualizedBGE:
        """The model, loaded now if it was not before.

        Raises:
            OSError: the checkpoint is not there and cannot be fetched.
            ValueError: the checkpoint, ``device`` or ``dtype`` is not usable.
        """
        return self._loader.get(self._load)

    def _load(self) -> VisualizedBGE:
        from ..models.visualized_bge import VisualizedBGE

        model = VisualizedBGE.from_pretrained(
            checkpoint_folder("embedder") if self.model_name == DEMO else self.model_name,
            device=self.device,
            dtype=self.dtype,
            cache_folder=self.cache_folder,
            revision=self.revision,
            # None leaves the decision to HF_HUB_OFFLINE.
            local_files_only=self.local_files_only or None,
        )
        if self.torch_compile:
            model.compile()
        return model

    @property
    def _access(self) -> ImageAccess:
        return ImageAccess(self.allow_urls, self.data_root)

    @property
    def dim(self) -> int:
        """Length of the vectors. Loads the model."""
        return self.model.dim

    @property
    def fingerprint(self) -> dict[str, str]:
        """What makes vectors comparable: weights, preprocessing, dimension. Loads the model."""
        return {
            **self.model.fingerprint,
            "normalize": str(self.normalize),
            "apply_exif_orientation": str(self.apply_exif_orientation),
        }

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
        items = [self._to_item(text) for text in texts]
        vectors = self.model.encode(
            items, batch_size=self.embed_batch_size, normalize=self.normalize, show_progress=show_progress
        )
        if len(vectors) != len(texts):
            raise RuntimeError(f"the model returned {len(vectors)} vectors for {len(texts)} items")
        return vectors

    def _to_item(self, text: str) -> Any:
        if isinstance(text, _DecodedAhead):
            return text.text, next(text.pictures)
        if _has_picture(text):
            return text.text, partial(self._load_image, text)
        if has_lost_image(text):
            raise ValueError(
                f"this text names a picture but does not carry it: {text[:200]!r}. A text splitter, or a "
                "node read back from a store, lost it on the way; embedding the text would embed something "
                "else. Index pictures with IngestionPipeline(transformations=[embed_model]) or "
                "from_documents(..., transformations=[embed_model]), without a splitter, and turn nodes from "
                "a store into indexable ones with image_node(node.image_path)."
            )
        return str(text)

    def _load_image(self, text: ImageText) -> Image:
        return self._access.load(
            text.image,  # type: ignore[arg-type]
            apply_exif_orientation=self.apply_exif_orientation,
            expected_digest=text.expected_digest,
        )

    def _with_digest(self, text: str) -> str:
        return text.with_digest(self._access) if _has_picture(text) else text

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
        return await super().aget_query_embedding(self._with_digest(query))

    def get_text_embedding(self, text: str) -> Embedding:
        """Embed a text, or an :class:`ImageText`. Returns ``dim`` floats."""
        return super().get_text_embedding(self._with_digest(text))

    async def aget_text_embedding(self, text: str) -> Embedding:
        """Embed a text, asynchronously; see :meth:`get_text_embedding`."""
        return await super().aget_text_embedding(self._with_digest(text))

    def get_text_embedding_batch(
        self, texts: list[str], show_progress: bool = False, **kwargs: Any
    ) -> list[Embedding]:
        """Embed texts and :class:`ImageText`, mixed, ``embed_batch_size`` at a time; in order.

        Batches are made of one kind and of similar length. The pictures of the next batches are read and
        decoded while the model is busy with one.
        """
        texts = [self._with_digest(text) for text in texts]
        if len(texts) <= self.embed_batch_size:
            return super().get_text_embedding_batch(texts, show_progress=show_progress, **kwargs)
        order = _batch_order(texts)
        texts = [texts[i] for i in order]
        pictures = [text for text in texts if _has_picture(text)]
        # Cropped to the model's size at once: a few hundred decoded photographs would fill the memory. The
        # model is loaded for the first of them, so not where all are in the cache.
        stream = prefetch_map(
            lambda text: self.model.crop(self._load_image(text)), pictures, ahead=2 * self.embed_batch_size
        )
        with closing(stream):
            if self.embeddings_cache is None:  # with a cache, some pictures are not asked for
                texts = [_DecodedAhead(text, stream) if _has_picture(text) else text for text in texts]
            vectors = super().get_text_embedding_batch(texts, show_progress=show_progress, **kwargs)
        return _reordered(vectors, order)

    async def aget_text_embedding_batch(
        self, texts: list[str], show_progress: bool = False, **kwargs: Any
    ) -> list[Embedding]:
        """Embed a batch, asynchronously; see :meth:`get_text_embedding_batch`."""
        texts = [self._with_digest(text) for text in texts]
        order = _batch_order(texts)
        vectors = await super().aget_text_embedding_batch(
            [texts[i] for i in order], show_progress=show_progress, **kwargs
        )
        return _reordered(vectors, order)

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

        Takes ``ImageTextNode``, ``ImageNode``, ``ImageDocument``, ``Node`` and text nodes, mixed.

        Returns:
            The nodes, in order. A ``Node`` or ``ImageDocument`` with a picture is returned as an
            ``ImageTextNode`` of the same id, because a vector store would lose its picture.

        Raises:
            ValueError: a node has nothing to embed, or is audio or video.
            ImageLoadError: a picture cannot be read.
        """
        stored = self._to_storable_nodes(nodes)
        kwargs.setdefault("show_progress", self.show_progress_bar)
        vectors = self.get_text_embedding_batch([embedding_content(node) for node in stored], **kwargs)
        return _set_embeddings(nodes, stored, vectors)

    async def acall(self, nodes: Sequence[BaseNode], **kwargs: Any) -> Sequence[BaseNode]:
        """Set the embedding of every node, asynchronously; see :meth:`__call__`."""
        stored = await asyncio.to_thread(self._to_storable_nodes, nodes)
        contents = await asyncio.to_thread(lambda: [embedding_content(node) for node in stored])
        kwargs.setdefault("show_progress", self.show_progress_bar)
        vectors = await self.aget_text_embedding_batch(contents, **kwargs)
        return _set_embeddings(nodes, stored, vectors)

    def _to_storable_nodes(self, nodes: Sequence[BaseNode]) -> list[BaseNode]:
        return [to_storable_node(node, self._access) for node in nodes]


class _DecodedAhead(ImageText):
    """A text whose picture is the next of a stream; batches take them in order."""

    pictures: Iterator[Image]

    def __new__(cls, text: ImageText, pictures: Iterator[Image]) -> _DecodedAhead:
        self = str.__new__(cls, text)
        self.text, self.image, self._digest = text.text, text.image, text.expected_digest
        self.pictures = pictures
        return self


def _has_picture(text: str) -> TypeGuard[ImageText]:
    return isinstance(text, ImageText) and text.image is not None


def _batch_order(texts: Sequence[str]) -> list[int]:
    return batch_order(
        [len(text.text if _has_picture(text) else text) for text in texts], [*map(_has_picture, texts)]
    )


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
