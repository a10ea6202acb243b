"""RemoteImageTextEmbedding: the embedding of a service on another machine, or in another process."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import numpy as np
from llama_index.core.base.embeddings.base import Embedding
from llama_index.core.bridge.pydantic import Field, PrivateAttr, field_validator, model_validator
from tqdm.auto import tqdm

from ..images.sources import describe_source
from ..lazy import Lazy
from ..schema.image_text import ImageText
from .image_text_embedding import ImageTextEmbedding
from .local_model import LocalModelEmbedding
from .model_embedding import ModelEmbedding
from .progress import on_batch
from .remote_service import EmbeddingService, EncodedImage, ServiceSettings
from .remote_service import EmbeddingServiceError as EmbeddingServiceError
from .slices import EncodedTexts

if TYPE_CHECKING:
    from concurrent.futures import Future

    import numpy.typing as npt


# A context variable: LlamaIndex has no argument for it on the way to the requests.
_GIVEN_UP: ContextVar[threading.Event | None] = ContextVar("given_up", default=None)
"""Set when whoever began to embed a list of texts does not wait any more."""

_OF_THE_SERVICE = LocalModelEmbedding.model_fields.keys() - ModelEmbedding.model_fields.keys()


class RemoteImageTextEmbedding(ImageTextEmbedding):
    """Text, picture, or picture + text into one vector, by a service of this package.

    ``python -m llama_index_multimodal_rerank.serving`` starts the service. This is used as the embedding that
    the service has loaded, and gives the same vectors: ``fingerprint`` is that of the service's embedding, so
    ``milvus_store`` opens the collections that were filled by it. No model is loaded here.

    Pictures are read here (``allow_urls`` and ``data_root`` are this object's), and sent as they are; the
    service decodes them, and has the model's settings. A request that had no answer, because the service was
    down, starts again, or has too much to do, is repeated for ``retry_seconds``.

    Example:
        A service in a thread of this process, and its vector of a text.

        >>> from llama_index_multimodal_rerank import RemoteImageTextEmbedding, VisualizedBGEEmbedding
        >>> from llama_index_multimodal_rerank.serving.in_thread import serve_in_thread
        >>> served = VisualizedBGEEmbedding(model_name="demo", dtype="float32", device="cpu")
        >>> with serve_in_thread(served) as endpoint:
        ...     embed_model = RemoteImageTextEmbedding(endpoint=endpoint)
        ...     vector = embed_model.get_query_embedding("umbrella plain red")
        >>> len(vector) == served.dim
        True

    Raises:
        ValueError: at construction (pydantic's ValidationError), a field has a value that it does not allow.
            From all that embed, an empty text, a text that names a picture it does not carry, or what the
            service's model does not embed.
        ImageLoadError: from every method that embeds, a picture cannot be read; a ValueError.
        EmbeddingServiceError: at first use and from every method that embeds, the service does not answer, or
            has another model than when it was first asked; a ConnectionError.
    """

    endpoint: str = Field(description="Address of the service, such as 'http://127.0.0.1:8765'.")
    timeout: float = Field(
        default=60.0,
        gt=0,
        description="Seconds to wait for a connection, or for an answer to begin.",
    )
    retry_seconds: float = Field(
        default=120.0, ge=0, description="How long a request that had no answer is repeated. 0: not at all."
    )
    parallel_requests: int = Field(
        default=8, gt=0, le=256, description="Requests of this object under way at a time, at most."
    )
    items_per_request: int = Field(
        default=16, gt=0, description="Items of one request, at most; fewer where the service takes fewer."
    )

    _service: Lazy[EmbeddingService] = PrivateAttr(default_factory=Lazy)

    @model_validator(mode="before")
    @classmethod
    def _refuse_settings_of_the_model(cls, values: Any) -> Any:
        for name in sorted(_OF_THE_SERVICE & {*(values if isinstance(values, dict) else ())}):
            raise ValueError(f"{name} is a setting of the model: give it to the service, not to its client")
        return values

    @field_validator("endpoint")
    @classmethod
    def _check_endpoint(cls, endpoint: str) -> str:
        if not endpoint.lower().startswith(("http://", "https://")):
            raise ValueError(f"endpoint must start with http:// or https://, got {endpoint!r}")
        return endpoint.rstrip("/")

    @classmethod
    def class_name(cls) -> str:
        """Name under which LlamaIndex serialises the class."""
        return "RemoteImageTextEmbedding"

    @property
    def service(self) -> EmbeddingService:
        """The connection to the service; one for this object and its copies."""
        service = self._service.get(self._connect)
        if service.process != os.getpid():  # forked: its connections and threads are the parent's
            self._service = Lazy()
            service = self._service.get(self._connect)
        return service

    def _connect(self) -> EmbeddingService:
        return EmbeddingService(
            ServiceSettings(
                self.endpoint,
                self.timeout,
                self.retry_seconds,
                self.parallel_requests,
                self.items_per_request,
            )
        )

    @property
    def dim(self) -> int:
        """Length of the vectors. Asks the service, once."""
        return self.service.info.dim

    @property
    def fingerprint(self) -> dict[str, str]:
        """What makes vectors comparable, as the service's embedding says it. Asks the service, once."""
        return dict(self.service.info.fingerprint)

    def _encode_items(
        self, items: Sequence[str | tuple[str, Any]], *, show_progress: bool
    ) -> npt.NDArray[np.float32]:
        given_up = _GIVEN_UP.get() or threading.Event()
        dim = self.service.ask_info(given_up).dim
        vectors: npt.NDArray[np.float32] = np.empty((len(items), dim), dtype=np.float32)
        futures = self.service.submit(items, given_up)
        done, advance = 0, on_batch()
        try:
            with tqdm(total=len(items), desc="Embedding", disable=not show_progress) as progress:
                for future in futures:
                    part = future.result()
                    vectors[done : done + len(part)] = part
                    done += len(part)
                    progress.update(len(part))
                    if advance is not None:
                        advance(len(part))
        finally:
            if done < len(items):
                given_up.set()
            for future in futures:
                future.cancel()
        return vectors

    @contextmanager
    def _encode_ahead(self, texts: Sequence[str]) -> Iterator[EncodedTexts]:
        given_up = threading.Event()
        token = _GIVEN_UP.set(given_up)
        try:
            with super()._encode_ahead(texts) as encoded:
                try:
                    yield encoded
                except BaseException:  # Ctrl-C among them: the thread that encodes would go on repeating
                    given_up.set()
                    raise
        finally:
            _GIVEN_UP.reset(token)

    def _load_image(self, text: ImageText) -> EncodedImage:
        data = self._access.read_expected(
            text.image,  # type: ignore[arg-type]
            expected_digest=text.expected_digest,
            note_digest=text.note_digest if text.awaits_digest else None,
        )
        return EncodedImage(data, describe_source(text.image))  # type: ignore[arg-type]

    def _prepare_image(self, text: ImageText) -> EncodedImage:
        return self._load_image(text)

    def _prefetch(self, texts: Sequence[str], *, wait: bool = True) -> AbstractContextManager[None]:
        # The threads that send pictures read them. Encoded ones are large: none is kept ahead of them.
        return nullcontext()

    # Nothing computes here, so the event loop waits itself, and not in a thread for each call.

    async def _aget_text_embeddings(self, texts: list[str]) -> list[Embedding]:
        service = self.service
        if not service.knows_info:
            await asyncio.to_thread(lambda: service.info)
        given_up = threading.Event()
        futures = service.submit([self._to_item(text) for text in texts], given_up)
        advance = on_batch()

        async def answer(future: Future[npt.NDArray[np.float32]]) -> npt.NDArray[np.float32]:
            part = await asyncio.wrap_future(future)
            if advance is not None:
                advance(len(part))
            return part

        try:
            parts = await asyncio.gather(*map(answer, futures))
        finally:
            given_up.set()
            for future in futures:
                future.cancel()
        vectors: list[Embedding] = np.concatenate(parts).tolist()
        return vectors

    async def _aget_text_embedding(self, text: str) -> Embedding:
        return (await self._aget_text_embeddings([text]))[0]

    async def _aget_query_embedding(self, query: str) -> Embedding:
        return await self._aget_text_embedding(query)

    async def _aget_image_embedding(self, img_file_path: Any) -> Embedding:
        return await self._aget_text_embedding(ImageText("", img_file_path))
