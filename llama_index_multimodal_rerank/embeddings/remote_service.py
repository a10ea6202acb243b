"""EmbeddingService: the client of an embedding service, with retries and a bounded number of requests."""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import httpx
import numpy as np
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception,
    sleep_using_event,
    stop_after_delay,
    stop_when_event_set,
    wait_random_exponential,
)

from ..images.errors import ImageLoadError
from ..lazy import Lazy
from ..logs import one_line
from ..retry_after import retry_after
from .remote_protocol import (
    EMBED_PATH,
    INFO_PATH,
    ServiceInfo,
    encode_image,
    parse_answer,
    parse_error,
    request_body,
)

if TYPE_CHECKING:
    import numpy.typing as npt

logger = logging.getLogger(__name__)

_TRANSIENT_STATUS = frozenset({408, 425, 429, 502, 503, 504})
_backoff = wait_random_exponential(multiplier=0.2, max=5.0)
_ITEM_OVERHEAD = 64  # bytes of JSON around an item, and more


class EmbeddingServiceError(ConnectionError):
    """A service of embeddings that does not answer, cannot, or answers for another model."""


class EncodedImage(NamedTuple):
    """A picture's bytes, and its name for errors."""

    data: bytes
    name: str


Item = str | tuple[str, EncodedImage | Callable[[], EncodedImage]]


@dataclass(frozen=True)
class ServiceSettings:
    """How a service is asked.

    Attributes:
        endpoint: its address, without a path of its own.
        timeout: seconds to wait for a part of an answer.
        retry_seconds: how long a request is repeated.
        parallel_requests: requests under way at a time, at most.
        items_per_request: items of a request, at most.
    """

    endpoint: str
    timeout: float
    retry_seconds: float
    parallel_requests: int
    items_per_request: int


class EmbeddingService:
    """Asks one service; for any number of threads.

    Embedding the same items again gives the same vectors and changes nothing, so every request that had no
    answer is repeated.

    Args:
        settings: how it is asked.
    """

    def __init__(self, settings: ServiceSettings) -> None:
        self.process = os.getpid()
        self._settings = settings
        self._client = httpx.Client(
            base_url=settings.endpoint,
            timeout=settings.timeout,
            limits=httpx.Limits(max_connections=settings.parallel_requests),
            # A proxy of the environment (HTTP_PROXY) reaches its own loopback device, not this one.
            mounts=dict.fromkeys(("all://localhost", "all://127.0.0.1", "all://[::1]")),
        )
        self._pool = ThreadPoolExecutor(settings.parallel_requests, thread_name_prefix="embedding-service")
        self._info = Lazy[ServiceInfo]()
        self.knows_info = False  # whether `info` answers at once

    @property
    def info(self) -> ServiceInfo:
        """What the service says about itself; asked once.

        Raises:
            EmbeddingServiceError: it does not answer in time, or something else does.
        """
        return self.ask_info(threading.Event())

    def ask_info(self, given_up: threading.Event) -> ServiceInfo:
        """As :attr:`info`, until ``given_up`` is set."""
        return self._info.get(lambda: self._get_info(given_up))

    def submit(
        self, items: Sequence[Item], given_up: threading.Event
    ) -> list[Future[npt.NDArray[np.float32]]]:
        """Begin to embed items; pictures are read in the threads that send them.

        Args:
            items: what to embed.
            given_up: set when nobody waits for them any more: no request is repeated then.

        Returns:
            Futures of vectors, each (items of a request, dim), in order. They raise

            ImageLoadError: a picture cannot be read here or by the service, or is too large for it.
            ValueError: the service says that an item has no embedding.
            EmbeddingServiceError: there was no answer in time, or one that is of no use.
        """
        size = self._settings.items_per_request
        return [
            self._pool.submit(self._embed, items[start : start + size], given_up)
            for start in range(0, len(items), size)
        ]

    def _embed(self, items: Sequence[Item], given_up: threading.Event) -> npt.NDArray[np.float32]:
        info = self.ask_info(given_up)
        parts = _parts(items, info)
        return np.concatenate([self._embed_part(part, names, info, given_up) for part, names in parts])

    def _embed_part(
        self, items: list[dict[str, str]], names: list[str], info: ServiceInfo, given_up: threading.Event
    ) -> npt.NDArray[np.float32]:
        body = request_body(items)
        headers = {"content-type": "application/json"}
        try:
            response = self._send("POST", EMBED_PATH, given_up, content=body, headers=headers)
        except httpx.HTTPStatusError as error:
            raise self._item_error(error.response, names) from error
        try:
            answer = parse_answer(response.content, len(items), info.dim)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise EmbeddingServiceError(
                f"what answers at {self._settings.endpoint} is no embedding service: {error}"
            ) from error
        if answer.model != info.model:
            raise EmbeddingServiceError(
                f"the embedding service at {self._settings.endpoint} has another model or other "
                f"settings than when it was first asked ({answer.model}, was {info.model}): its "
                "vectors cannot be compared with those it gave before. Start it as it was, or make a new "
                "RemoteImageTextEmbedding."
            )
        return answer.vectors

    def _item_error(self, response: httpx.Response, names: list[str]) -> Exception:
        """Return what an answer that is not to be repeated means: the library's own error, if it is one."""
        error = parse_error(response.content)
        place = f"the embedding service at {self._settings.endpoint}"
        if error is None:
            return EmbeddingServiceError(f"{place} answered {response.status_code}")
        if error.type == "ImageLoadError" and error.item is not None and error.item < len(names):
            return ImageLoadError(names[error.item], error.reason or error.message)
        if response.status_code == 422:
            return ValueError(error.message)
        return EmbeddingServiceError(f"{place} answered {response.status_code}: {one_line(error.message)}")

    def _get_info(self, given_up: threading.Event) -> ServiceInfo:
        try:
            info = ServiceInfo.model_validate_json(self._send("GET", INFO_PATH, given_up).content)
        except (httpx.HTTPStatusError, ValueError) as error:
            raise EmbeddingServiceError(
                f"what answers at {self._settings.endpoint} is no embedding service: {one_line(str(error))}"
            ) from error
        self.knows_info = True
        return info

    def _send(self, method: str, path: str, given_up: threading.Event, **options: object) -> httpx.Response:
        """Send a request until there is an answer, or nobody waits for one.

        Raises:
            EmbeddingServiceError: there is none in time.
            httpx.HTTPStatusError: the answer is an error that would be the same again.
        """

        def send() -> httpx.Response:
            return self._client.request(method, path, **options).raise_for_status()  # type: ignore[arg-type]

        retrying = Retrying(
            stop=stop_after_delay(self._settings.retry_seconds) | stop_when_event_set(given_up),
            sleep=sleep_using_event(given_up),
            wait=_wait,
            retry=retry_if_exception(_is_transient),
            before_sleep=self._log,
            reraise=True,
        )
        try:
            return retrying(send)
        except httpx.HTTPError as error:
            if not _is_transient(error):
                raise
            raise EmbeddingServiceError(
                f"the embedding service at {self._settings.endpoint} gave no answer for "
                f"{self._settings.retry_seconds:g} seconds ({type(error).__name__}: {one_line(str(error))}). "
                f"{self._advice(error)} What failed changed nothing: do it again."
            ) from error

    def _advice(self, error: httpx.HTTPError) -> str:
        settings = self._settings
        if isinstance(error, httpx.ReadTimeout):
            return (
                f"It is there, and was slower than timeout={settings.timeout:g} allows: raise timeout, or "
                f"lower items_per_request={settings.items_per_request} or "
                f"parallel_requests={settings.parallel_requests}."
            )
        if isinstance(error, httpx.HTTPStatusError):
            return (
                "It, or what stands before it, has too much to do or is not ready: raise retry_seconds, or "
                f"lower parallel_requests={settings.parallel_requests}."
            )
        return "Is the address right, and the service running?"

    def _log(self, state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        logger.warning(
            "%s: attempt %d failed (%s: %s); the next one in %.1f s",
            one_line(self._settings.endpoint),
            state.attempt_number,
            type(error).__name__,
            one_line(str(error)),
            state.next_action.sleep if state.next_action else 0.0,
        )


def _parts(items: Sequence[Item], info: ServiceInfo) -> Iterator[tuple[list[dict[str, str]], list[str]]]:
    """Read pictures, and yield requests that the service takes: their items, and names of their pictures."""
    part: list[dict[str, str]] = []
    names: list[str] = []
    length = _ITEM_OVERHEAD
    for item in items:
        text, image = (item, None) if isinstance(item, str) else item
        read = image() if callable(image) else image
        body = {"text": text} if read is None else {"text": text, "image": encode_image(read.data)}
        own = len(json.dumps(text)) + len(body.get("image", "")) + _ITEM_OVERHEAD
        if part and (len(part) == info.max_items or length + own > info.max_body_bytes):
            yield part, names
            part, names, length = [], [], _ITEM_OVERHEAD
        if read is not None and own > info.max_body_bytes:
            raise ImageLoadError(
                read.name,
                f"it has {len(read.data)} bytes, a third more as base64, and the embedding service takes "
                f"requests of at most {info.max_body_bytes} bytes",
            )
        part.append(body)
        names.append(text[:200] if read is None else read.name)
        length += own
    yield part, names


def _is_transient(error: BaseException) -> bool:
    if isinstance(error, httpx.HTTPStatusError):
        return error.response.status_code in _TRANSIENT_STATUS
    return isinstance(error, httpx.TransportError)


def _wait(state: RetryCallState) -> float:
    asked = retry_after(state.outcome.exception() if state.outcome else None)
    backoff = float(_backoff(state))
    # Not all at the same moment: a full queue would be full again.
    return backoff if asked is None else asked + min(backoff, 1.0)
