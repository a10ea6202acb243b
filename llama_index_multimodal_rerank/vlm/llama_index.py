"""Any multimodal LLM of LlamaIndex as a reranking model, such as one of an OpenAI-compatible server."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from llama_index.core.base.llms.types import ChatMessage, ChatResponse
from llama_index.core.llms import LLM
from llama_index.core.multi_modal_llms import MultiModalLLM
from tenacity import AsyncRetrying, Retrying

from ..logs import one_line
from .chat_answers import read_response
from .errors import ModelCallError
from .label_tokens import MAX_LABELS, MAX_TOKENS, TOP_LOGPROBS, NoLogprobsError, read_label_scores
from .llm_requests import LLMCall, LLMRequests, image_message
from .protocols import Answer, LabelScores, RankRequest
from .retries import Attempts, is_refusal_of_parameters, names_logprobs, names_schema

if TYPE_CHECKING:
    from PIL.Image import Image

logger = logging.getLogger(__name__)

Read = TypeVar("Read", Answer, LabelScores)

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
        structured_outputs: for vLLM from 0.12 on: send the schema as ``structured_outputs={"json": ...}``
            instead, and with ``strategy="first_token"`` ``{"choice": [labels]}``, so that an answer begins
            with a label. The LLM's class must take ``extra_body``, as ``OpenAILike`` does.

    Attributes:
        max_scored_labels: labels of a sheet at most, with ``strategy="first_token"``.

    Raises:
        TypeError: ``llm`` is no LLM of LlamaIndex.
        ValueError: ``llm`` is not set to chat, or a number is out of range.
    """

    max_scored_labels = MAX_LABELS

    def __init__(
        self,
        llm: LLM | MultiModalLLM,
        *,
        timeout: float = 60.0,
        max_retries: int = 3,
        json_schema: bool = True,
        structured_outputs: bool = False,
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
        self._requests = LLMRequests(llm, structured_outputs=structured_outputs)
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
        return self._chat(self._requests.free(), image_message(images, prompt), read_response)

    async def agenerate(self, images: Sequence[Image], prompt: str, *, max_new_tokens: int) -> Answer:
        """As :meth:`generate`."""
        del max_new_tokens
        return await self._achat(self._requests.free(), await _message(images, prompt), read_response)

    def generate_json(self, images: Sequence[Image], prompt: str, *, schema: Mapping[str, Any]) -> Answer:
        """Answer in JSON, held to ``schema`` where the server offers that.

        Raises:
            ModelCallError: no attempt gave an answer.
        """
        message, free = image_message(images, prompt), self._requests.free()
        if not self.json_schema:
            return self._chat(free, message, read_response)
        try:
            answer = self._chat(self._requests.json(schema), message, read_response)
        except ModelCallError as error:
            cause = _refusal(error)
            answer = self._chat(free, message, read_response, asked_before=error.attempts)
            self._schema_refused(cause)
            return answer
        self._schema_refusals = 0
        return answer

    async def agenerate_json(
        self, images: Sequence[Image], prompt: str, *, schema: Mapping[str, Any]
    ) -> Answer:
        """As :meth:`generate_json`."""
        message, free = await _message(images, prompt), self._requests.free()
        if not self.json_schema:
            return await self._achat(free, message, read_response)
        try:
            answer = await self._achat(self._requests.json(schema), message, read_response)
        except ModelCallError as error:
            cause = _refusal(error)
            answer = await self._achat(free, message, read_response, asked_before=error.attempts)
            self._schema_refused(cause)
            return answer
        self._schema_refusals = 0
        return answer

    def score_answer(self, request: RankRequest) -> LabelScores:
        """Return the log-probability of each label to begin the answer; see ``AnswerScoringModel``.

        One request, of four tokens, with ``logprobs=True, top_logprobs=20``.

        Raises:
            ModelCallError: no attempt gave an answer, or the server or LLM class gives no log-probabilities.
        """
        scored = self._scored(request)
        with _listwise_named(self.model_name):
            return self._chat(scored, image_message(request.images, request.prompt), _reader(request))

    async def ascore_answer(self, request: RankRequest) -> LabelScores:
        """As :meth:`score_answer`."""
        scored = self._scored(request)
        message = await _message(request.images, request.prompt)
        with _listwise_named(self.model_name):
            return await self._achat(scored, message, _reader(request))

    def _scored(self, request: RankRequest) -> LLMCall:
        return self._requests.scored(request.num_labels, max_tokens=MAX_TOKENS, top_logprobs=TOP_LOGPROBS)

    def _schema_refused(self, error: BaseException) -> None:
        """Note that a request failed with the schema and passed without it."""
        self._schema_refusals += 1
        if names_schema(error) or self._schema_refusals >= _DOUBTS:
            name, reason = one_line(self.model_name), one_line(str(error))
            logger.info("%s takes no JSON schema (%s); asking without one", name, reason)
            self.json_schema = False

    def _chat(
        self,
        call: LLMCall,
        message: ChatMessage,
        read: Callable[[ChatResponse], Read],
        *,
        asked_before: int = 0,
    ) -> Read:
        llm, kwargs = call
        count = Attempts(self.model_name, self.max_retries, asked_before)
        with count.failures():
            for attempt in Retrying(**count.retry_options()):
                count.made += 1
                with attempt:
                    response = _within(self.timeout, lambda: llm.chat([message], **kwargs))
                    return count.done(read(response))
        raise AssertionError("unreachable: the last attempt returns or raises")

    async def _achat(
        self,
        call: LLMCall,
        message: ChatMessage,
        read: Callable[[ChatResponse], Read],
        *,
        asked_before: int = 0,
    ) -> Read:
        llm, kwargs = call
        count = Attempts(self.model_name, self.max_retries, asked_before)
        with count.failures():
            async for attempt in AsyncRetrying(**count.retry_options()):
                count.made += 1
                with attempt:
                    try:
                        response = await asyncio.wait_for(llm.achat([message], **kwargs), self.timeout)
                    except asyncio.TimeoutError as error:
                        raise TimeoutError(f"no answer within {self.timeout} s") from error
                    return count.done(read(response))
        raise AssertionError("unreachable: the last attempt returns or raises")


def _reader(request: RankRequest) -> Callable[[ChatResponse], LabelScores]:
    return partial(read_label_scores, num_labels=request.num_labels)


@contextmanager
def _listwise_named(model_name: str) -> Iterator[None]:
    """Say what to do where a server or an LLM class does not take the request for log-probabilities."""
    try:
        yield
    except ModelCallError as error:
        cause = error.__cause__
        if cause is None or not is_refusal_of_parameters(cause) or isinstance(cause, NoLogprobsError):
            raise
        if not names_logprobs(cause):
            raise
        raise ModelCallError(
            f"{error}. strategy='first_token' reads log-probabilities, which {model_name} does not give; use "
            "strategy='listwise'",
            attempts=error.attempts,
        ) from cause


def _refusal(error: ModelCallError) -> BaseException:
    """Return the cause of a failure that may be the schema's, or raise the failure again."""
    cause = error.__cause__
    if cause is None or not is_refusal_of_parameters(cause):
        raise error
    return cause


async def _message(images: Sequence[Image], prompt: str) -> ChatMessage:
    return await asyncio.to_thread(image_message, images, prompt)


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
