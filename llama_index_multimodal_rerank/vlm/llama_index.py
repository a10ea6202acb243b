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

from ..logs import one_line
from .chat_answers import read_response
from .errors import ModelCallError
from .protocols import Answer
from .retries import is_refusal_of_parameters, names_schema, retry_options

if TYPE_CHECKING:
    from PIL.Image import Image

logger = logging.getLogger(__name__)

_JPEG_QUALITY = 92
_DOUBTS = 3
"""So many requests in a row must have passed without the schema only, before it is given up for a server that
does not say why."""


class LlamaIndexVLM:
    """A LlamaIndex LLM that takes ``ImageBlock`` messages, with retries, timeouts and a schema.

    The length of answers is the LLM's own setting (``max_tokens=`` of most classes): LlamaIndex has no
    common name for it that could be passed per call.

    Args:
        llm: the LLM. A class that also serves text completion must be set to chat
            (``OpenAILike(..., is_chat_model=True)``), or its pictures would be dropped.
        timeout: seconds for one attempt.
        max_retries: further attempts after failures that may pass: timeouts, lost connections,
            HTTP 408, 425, 429 and 5xx, bodies that are no JSON or hold no choice. Waits are random, up to
            1 second, then 2, 4 … 20, or what the server asks for, up to a minute.
        json_schema: send ``response_format={"type": "json_schema", ...}`` with ranking requests, as
            OpenAI-compatible servers take it. A request that fails with it for what may be its fault is made
            again without it. Where the LLM or server names it as the fault, and after three such requests in
            a row, later ones are made without it, and the attribute is False.

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
        self._schema_refusals = 0

    @property
    def model_name(self) -> str:
        """Name of the model, as the LLM gives it."""
        return str(self.llm.metadata.model_name)

    # The length limit is not passed on; see the class.

    def generate(self, images: Sequence[Image], prompt: str, *, max_new_tokens: int) -> Answer:
        """Answer a prompt about pictures; ``max_new_tokens`` is the LLM's own setting.

        Raises:
            ModelCallError: no attempt gave an answer.
        """
        del max_new_tokens
        return self._chat(_message(images, prompt))

    async def agenerate(self, images: Sequence[Image], prompt: str, *, max_new_tokens: int) -> Answer:
        """As :meth:`generate`."""
        del max_new_tokens
        return await self._achat(await asyncio.to_thread(_message, images, prompt))

    def generate_json(self, images: Sequence[Image], prompt: str, *, schema: Mapping[str, Any]) -> Answer:
        """Answer in JSON, held to ``schema`` where the server offers that.

        Raises:
            ModelCallError: no attempt gave an answer.
        """
        message = _message(images, prompt)
        if not self.json_schema:
            return self._chat(message)
        try:
            answer = self._chat(message, response_format=_response_format(schema))
        except ModelCallError as error:
            cause = _refusal(error)
            answer = self._chat(message, asked_before=error.attempts)
            self._schema_refused(cause)
            return answer
        self._schema_refusals = 0
        return answer

    async def agenerate_json(
        self, images: Sequence[Image], prompt: str, *, schema: Mapping[str, Any]
    ) -> Answer:
        """As :meth:`generate_json`."""
        message = await asyncio.to_thread(_message, images, prompt)
        if not self.json_schema:
            return await self._achat(message)
        try:
            answer = await self._achat(message, response_format=_response_format(schema))
        except ModelCallError as error:
            cause = _refusal(error)
            answer = await self._achat(message, asked_before=error.attempts)
            self._schema_refused(cause)
            return answer
        self._schema_refusals = 0
        return answer

    def _schema_refused(self, error: BaseException) -> None:
        """Note that a request failed with the schema and passed without it."""
        self._schema_refusals += 1
        if names_schema(error) or self._schema_refusals >= _DOUBTS:
            name, reason = one_line(self.model_name), one_line(str(error))
            logger.info("%s takes no JSON schema (%s); asking without one", name, reason)
            self.json_schema = False

    def _chat(self, message: ChatMessage, *, asked_before: int = 0, **kwargs: Any) -> Answer:
        attempts = 0
        try:
            for attempt in Retrying(**retry_options(self.max_retries, model_name=self.model_name)):
                attempts += 1
                with attempt:
                    return read_response(_within(self.timeout, lambda: self.llm.chat([message], **kwargs)))
        except Exception as error:
            raise ModelCallError.from_cause(
                self.model_name, error, attempts=asked_before + attempts
            ) from error
        raise AssertionError("unreachable: the last attempt returns or raises")

    async def _achat(self, message: ChatMessage, *, asked_before: int = 0, **kwargs: Any) -> Answer:
        attempts = 0
        try:
            async for attempt in AsyncRetrying(**retry_options(self.max_retries, model_name=self.model_name)):
                attempts += 1
                with attempt:
                    return read_response(await self._achat_once(message, **kwargs))
        except Exception as error:
            raise ModelCallError.from_cause(
                self.model_name, error, attempts=asked_before + attempts
            ) from error
        raise AssertionError("unreachable: the last attempt returns or raises")

    async def _achat_once(self, message: ChatMessage, **kwargs: Any) -> ChatResponse:
        try:
            return await asyncio.wait_for(self.llm.achat([message], **kwargs), self.timeout)
        except asyncio.TimeoutError as error:
            raise TimeoutError(f"no answer within {self.timeout} s") from error


def _refusal(error: ModelCallError) -> BaseException:
    """Return the cause of a failure that may be the schema's, or raise the failure again."""
    cause = error.__cause__ or error
    if not is_refusal_of_parameters(cause):
        raise error
    return cause


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
