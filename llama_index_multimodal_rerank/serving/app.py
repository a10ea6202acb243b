"""The ASGI application: embedding texts and pictures over HTTP."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, TypeVar

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ..embeddings.remote_protocol import (
    EMBED_PATH,
    HEALTH_PATH,
    INFO_PATH,
    RequestError,
    WireError,
    answer_body,
    fingerprint_digest,
    parse_request,
)
from .embedder import Embedder, ItemError
from .limits import Admission, BodyTooLargeError, Limits, QueueFullError

if TYPE_CHECKING:
    from ..embeddings.image_text_embedding import ImageTextEmbedding

logger = logging.getLogger(__name__)

T = TypeVar("T")

RETRY_AFTER_SECONDS = 1
_DISCARDED = 8  # of a body that is too long, so many times the limit are read and dropped before the answer


def build_app(embed_model: ImageTextEmbedding, limits: Limits | None = None) -> Starlette:
    """Make the application; it loads the model when it starts, and answers from then on.

    Args:
        embed_model: what is served.
        limits: what it takes on.
    """
    return _Service(embed_model, limits or Limits()).app()


class _Service:
    def __init__(self, embed_model: ImageTextEmbedding, limits: Limits) -> None:
        self._embed_model = embed_model
        self._limits = limits
        self._admission = Admission(limits)

    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route(EMBED_PATH, self._embed, methods=["POST"]),
                Route(INFO_PATH, self._info, methods=["GET"]),
                Route(HEALTH_PATH, self._health, methods=["GET"]),
            ],
            lifespan=self._lifespan,
        )

    @asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:
        fingerprint = await asyncio.to_thread(lambda: self._embed_model.fingerprint)
        self._model = fingerprint_digest(fingerprint)
        self._about = {
            "dim": self._embed_model.dim,
            "fingerprint": fingerprint,
            "model": self._model,
            "max_items": self._limits.max_items,
            "max_body_bytes": self._limits.max_body_bytes,
        }
        self._embedder = Embedder(self._embed_model, self._limits.max_batch)
        running = asyncio.create_task(self._embedder.run())
        try:
            yield
        finally:
            running.cancel()

    async def _health(self, request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def _info(self, request: Request) -> Response:
        return JSONResponse(self._about)

    async def _embed(self, request: Request) -> Response:
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            return _error(415, WireError("RequestError", "content-type must be application/json"))
        try:
            with self._admission.admit(_content_length(request)):
                return Response(await self._answer(request), media_type="application/json")
        except QueueFullError as error:
            return _error(503, WireError("QueueFullError", str(error)), retry=True)
        except BodyTooLargeError as error:
            await self._discard(request)
            return _error(413, WireError("BodyTooLargeError", str(error)))
        except (TimeoutError, asyncio.TimeoutError):
            message = f"the request did not arrive within {self._limits.body_seconds:g} seconds"
            return _error(408, WireError("RequestError", message))
        except ClientDisconnect:
            return Response(status_code=499)
        except RequestError as error:
            return _error(400, WireError("RequestError", str(error)))
        except ItemError as error:
            return _error(422, error.error)
        except Exception as error:
            logger.exception("The model failed")
            return _error(500, WireError(type(error).__name__, str(error)))

    async def _answer(self, request: Request) -> bytes:
        body = await asyncio.wait_for(self._body(request), self._limits.body_seconds)
        items, encoding = await asyncio.to_thread(parse_request, body, self._limits.max_items)
        del body
        vectors = await _while_awaited(request, self._embedder.embed(items))
        return await asyncio.to_thread(answer_body, vectors, self._model, encoding)

    async def _body(self, request: Request) -> bytes:
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > self._limits.max_body_bytes:
                raise BodyTooLargeError(
                    f"the request has more bytes than the limit of {self._limits.max_body_bytes}"
                )
        return bytes(body)

    async def _discard(self, request: Request) -> None:
        """Read on for a while: who is still sending sees no answer, but a connection that is cut."""

        async def read() -> None:
            length = 0
            async for chunk in request.stream():
                length += len(chunk)
                if length > _DISCARDED * self._limits.max_body_bytes:
                    return

        try:
            await asyncio.wait_for(read(), self._limits.body_seconds)
        except (TimeoutError, asyncio.TimeoutError, ClientDisconnect, RuntimeError):
            return


async def _while_awaited(request: Request, work: Coroutine[object, object, T]) -> T:
    """Return what ``work`` returns; end it when nobody waits for it any more.

    A client that was not answered in time asks again. Were its earlier requests embedded all the same, a
    service that is too slow would have the more to do.

    Args:
        request: whose body was read.
        work: what it asked for.

    Raises:
        ClientDisconnect: its client is gone.
    """

    async def gone() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    working, waiting = asyncio.ensure_future(work), asyncio.ensure_future(gone())
    try:
        await asyncio.wait((working, waiting), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        working.cancel()
        waiting.cancel()


def _content_length(request: Request) -> int | None:
    try:
        return int(request.headers["content-length"])
    except (KeyError, ValueError):
        return None


def _error(status: int, error: WireError, *, retry: bool = False) -> Response:
    headers = {"retry-after": str(RETRY_AFTER_SECONDS)} if retry else None
    return Response(error.body(), status, headers, media_type="application/json")
