"""Any multimodal LLM of LlamaIndex as a reranking model, such as one of an OpenAI-compatible server."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from io import BytesIO
from typing import TYPE_CHECKING, Any

from llama_index.core.base.llms.types import ChatMessage, ChatResponse, ImageBlock, MessageRole, TextBlock
from llama_index.core.llms import LLM
from llama_index.core.multi_modal_llms import MultiModalLLM
from tenacity import AsyncRetrying, Retrying

from .retries import is_refusal_of_parameters, retry_options

if TYPE_CHECKING:
    from PIL.Image import Image

logger = logging.getLogger(__name__)

_JPEG_QUALITY = 92


class LlamaIndexVLM:
    """A LlamaIndex LLM that takes ``ImageBlock`` messages, with retries, timeouts and a schema.

    The length of answers is the LLM's own setting (``max_tokens=`` of most classes): LlamaIndex has no
    common name for it that could be passed per call.

    Args:
        llm: the LLM. A class that also serves text completion must be set to chat
            (``OpenAILike(..., is_chat_model=True)``), or its pictures would be dropped.
        timeout: seconds for one attempt.
        max_retries: further attempts after failures that may pass: timeouts, lost connections,
            HTTP 408, 425, 429 and 5xx, bodies that are no JSON. Waits are random, up to 1 second,
            then 2, 4 … 20, or what the server asks for, up to a minute.
        json_schema: send ``response_format={"type": "json_schema", ...}`` with ranking requests, as
            OpenAI-compatible servers take it. An LLM or server that refuses it is asked without it,
            from then on.

    Raises:
        TypeError: ``llm`` is no LLM of LlamaIndex.
        ValueError: ``llm`` is not set to chat, or a number is out of range.
    """

    def __init__(
        self,
        llm: LLM | MultiModalLLM,
        *,
        timeout: float = 60.0,
        max_retries: int = 3,
        json_schema: bool = True,
    ) -> None:
        if not isinstance(llm, (LLM, MultiModalLLM)):
            raise TypeError(f"llm must be a LlamaIndex LLM, got {type(llm).__name__}")
        if isinstance(llm, LLM) and not llm.metadata.is_chat_model:
            raise ValueError(
                f"{type(llm).__name__} is not set to chat, so LlamaIndex would drop the pictures silently. "
                "Pass is_chat_model=True to it, or use a multimodal chat class."
            )
        if not timeout > 0:
            raise ValueError(f"timeout must be above 0 seconds, got {timeout}")
        if max_retries < 0:
            raise ValueError(f"max_retries must be 0 or more, got {max_retries}")
        self.llm = llm
        self.timeout = timeout
        self.max_retries = max_retries
        self.json_schema = json_schema

    @property
    def model_name(self) -> str:
        """Name of the model, as the LLM gives it."""
        return str(self.llm.metadata.model_name)

    # The length limit is not passed on; see the class.

    def generate(self, images: Sequence[Image], prompt: str, *, max_new_tokens: int) -> str:
        """Answer a prompt about pictures; ``max_new_tokens`` is the LLM's own setting."""
        del max_new_tokens
        return self._chat(_message(images, prompt))

    async def agenerate(self, images: Sequence[Image], prompt: str, *, max_new_tokens: int) -> str:
        """As :meth:`generate`."""
        del max_new_tokens
        return await self._achat(await asyncio.to_thread(_message, images, prompt))

    def generate_json(self, images: Sequence[Image], prompt: str, *, schema: Mapping[str, Any]) -> str:
        """Answer in JSON, held to ``schema`` where the server offers that."""
        message = _message(images, prompt)
        if self.json_schema:
            try:
                return self._chat(message, response_format=_response_format(schema))
            except Exception as error:
                if not is_refusal_of_parameters(error):
                    raise
                answer = self._chat(message)
                self._schema_refused(error)
                return answer
        return self._chat(message)

    async def agenerate_json(self, images: Sequence[Image], prompt: str, *, schema: Mapping[str, Any]) -> str:
        """As :meth:`generate_json`."""
        message = await asyncio.to_thread(_message, images, prompt)
        if self.json_schema:
            try:
                return await self._achat(message, response_format=_response_format(schema))
            except Exception as error:
                if not is_refusal_of_parameters(error):
                    raise
                answer = await self._achat(message)
                self._schema_refused(error)
                return answer
        return await self._achat(message)

    def _schema_refused(self, error: Exception) -> None:
        logger.info("%s takes no JSON schema (%s); asking without one", self.model_name, error)
        self.json_schema = False

    def _chat(self, message: ChatMessage, **kwargs: Any) -> str:
        for attempt in Retrying(**retry_options(self.max_retries)):
            with attempt:
                return _text(_within(self.timeout, lambda: self.llm.chat([message], **kwargs)))
        raise AssertionError("unreachable: the last attempt returns or raises")

    async def _achat(self, message: ChatMessage, **kwargs: Any) -> str:
        async for attempt in AsyncRetrying(**retry_options(self.max_retries)):
            with attempt:
                try:
                    response = await asyncio.wait_for(self.llm.achat([message], **kwargs), self.timeout)
                except asyncio.TimeoutError as error:
                    raise TimeoutError(f"no answer within {self.timeout} s") from error
                return _text(response)
        raise AssertionError("unreachable: the last attempt returns or raises")


def _text(response: ChatResponse) -> str:
    return response.message.content or ""


def _message(images: Sequence[Image], prompt: str) -> ChatMessage:
    blocks: list[Any] = [ImageBlock(image=_jpeg(image), image_mimetype="image/jpeg") for image in images]
    return ChatMessage(role=MessageRole.USER, blocks=[*blocks, TextBlock(text=prompt)])


def _jpeg(image: Image) -> bytes:
    buffer = BytesIO()
    # Without chroma subsampling the red frame and coloured type keep their edges.
    image.convert("RGB").save(buffer, format="JPEG", quality=_JPEG_QUALITY, subsampling=0)
    return buffer.getvalue()


def _response_format(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "type": "json_schema",
        "json_schema": {"name": "ranking", "strict": True, "schema": dict(schema)},
    }


def _within(timeout: float, call: Callable[[], ChatResponse]) -> ChatResponse:
    """Return what ``call`` returns, or give up on it after ``timeout`` seconds.

    LLM classes have no common timeout. An abandoned call ends with its connection; its thread is a daemon, so
    that it cannot keep the program from ending.
    """
    future: Future[ChatResponse] = Future()
    context = contextvars.copy_context()

    def work() -> None:
        try:
            future.set_result(context.run(call))
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=work, name="vlm-call", daemon=True).start()
    try:
        return future.result(timeout)
    except (TimeoutError, FutureTimeoutError) as error:  # two classes before Python 3.11
        if future.done():
            raise
        raise TimeoutError(f"no answer within {timeout} s") from error
