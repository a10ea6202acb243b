"""Calls of a model, as values: the reranking algorithm makes them, a driver carries them out.

So the algorithm exists once, for synchronous and asynchronous callers (:mod:`.driver`). A call knows the type
of its reply: ``texts = yield from ask(Generate(...))`` is a list of strings.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from .counting import count
from .errors import ModelCallError as ModelCallError
from .protocols import (
    AnswerScoringModel,
    AsyncModel,
    BatchGeneratingModel,
    BatchPrefillingModel,
    ConstrainedModel,
    ImagePrompt,
    JsonModel,
    LabelRanking,
    LabelScoringModel,
    PrefilledRequests,
    PrefillingModel,
    RankRequest,
    VisionLanguageModel,
)
from .replies import ReplyError, check_count, check_logprobs, check_ranking, check_text
from .side_by_side import aside_by_side, side_by_side

Reply = TypeVar("Reply")
Result = TypeVar("Result")


class ModelCall(ABC, Generic[Reply]):
    """A call of a model that is replied to with a ``Reply``."""

    @property
    @abstractmethod
    def num_prompts(self) -> int:
        """How many prompts it asks."""

    @abstractmethod
    def send(self, model: VisionLanguageModel) -> Any:
        """Return what the model replies, whatever that is."""

    async def asend(self, model: VisionLanguageModel) -> Any:
        """As :meth:`send`, without blocking the event loop."""
        return await asyncio.to_thread(self.send, model)

    @abstractmethod
    def check(self, reply: Any) -> Reply:
        """Return the reply, held against what was asked.

        Raises:
            ReplyError: it does not fit.
        """


@dataclass(frozen=True)
class RequestsCall(ModelCall[Reply]):
    """A call about sheets.

    Attributes:
        requests: the sheets, in one batch.
    """

    requests: tuple[RankRequest, ...]

    @property
    def num_prompts(self) -> int:
        """How many prompts it asks."""
        return len(self.requests)


ModelCalls = Generator[ModelCall[Any], Any, Result]
"""A piece of the algorithm: yields calls, is sent their replies, and returns a result."""


def ask(call: ModelCall[Reply]) -> ModelCalls[Reply]:
    """Make one call, and return the reply to it."""
    reply: Reply = yield call
    return reply


@dataclass(frozen=True)
class Generate(ModelCall[list[str]]):
    """Free answers, one string per prompt.

    Attributes:
        prompts: what to ask.
        max_new_tokens: length of each answer at most, in tokens.
        schema: JSON schema of the answers, for a :class:`JsonModel`.
    """

    prompts: tuple[ImagePrompt, ...]
    max_new_tokens: int
    schema: Mapping[str, Any] | None = None

    @property
    def num_prompts(self) -> int:
        """How many prompts it asks."""
        return len(self.prompts)

    def send(self, model: VisionLanguageModel) -> Any:
        """Ask in one batch, or one prompt after the other; a remote model several at once."""
        if isinstance(model, BatchGeneratingModel):
            return model.generate_batch(self.prompts, max_new_tokens=self.max_new_tokens)

        def one(prompt: ImagePrompt) -> str:
            if self.schema is not None and isinstance(model, JsonModel):
                return model.generate_json(prompt.images, prompt.prompt, schema=self.schema)
            return model.generate(prompt.images, prompt.prompt, max_new_tokens=self.max_new_tokens)

        return side_by_side(model, one, self.prompts)

    async def asend(self, model: VisionLanguageModel) -> Any:
        """As :meth:`send`; a remote model is asked by its own coroutines."""
        if not isinstance(model, AsyncModel):
            return await super().asend(model)

        async def one(prompt: ImagePrompt) -> str:
            if self.schema is not None and isinstance(model, JsonModel):
                return await model.agenerate_json(prompt.images, prompt.prompt, schema=self.schema)
            return await model.agenerate(prompt.images, prompt.prompt, max_new_tokens=self.max_new_tokens)

        return await aside_by_side(one, self.prompts)

    def check(self, reply: Any) -> list[str]:
        """Return as many texts as there are prompts."""
        return [check_text(each) for each in check_count(reply, self.prompts)]


@dataclass(frozen=True)
class ScoreLabels(RequestsCall[list[list[float]]]):
    """Log-probabilities of the labels, one list of floats per request; see :class:`LabelScoringModel`."""

    def send(self, model: VisionLanguageModel) -> Any:
        """Ask a :class:`LabelScoringModel`."""
        assert isinstance(model, LabelScoringModel)  # noqa: S101 (for the type checker)
        return model.label_logprobs(self.requests)

    def check(self, reply: Any) -> list[list[float]]:
        """Return a number for every label."""
        pairs = zip(check_count(reply, self.requests), self.requests, strict=True)
        return [check_logprobs(each, request) for each, request in pairs]


@dataclass(frozen=True)
class ScoreAnswers(RequestsCall[list[list[float]]]):
    """As :class:`ScoreLabels`, of a model of a server; see :class:`AnswerScoringModel`."""

    def send(self, model: VisionLanguageModel) -> Any:
        """Ask an :class:`AnswerScoringModel` several at once."""
        assert isinstance(model, AnswerScoringModel)  # noqa: S101 (for the type checker)
        return side_by_side(model, model.score_answer, self.requests)

    async def asend(self, model: VisionLanguageModel) -> Any:
        """As :meth:`send`, by the model's own coroutines."""
        assert isinstance(model, AnswerScoringModel)  # noqa: S101 (for the type checker)
        return await aside_by_side(model.ascore_answer, self.requests)

    def check(self, reply: Any) -> list[list[float]]:
        """Return a number for every label."""
        return ScoreLabels(self.requests).check(reply)


@dataclass(frozen=True)
class PrefilledScores:
    """Reply to :class:`Prefill`.

    Attributes:
        logprobs: as of :class:`ScoreLabels`.
        prefilled: what the model has read, for :class:`RankLabels`; None if it keeps nothing.
    """

    logprobs: list[list[float]]
    prefilled: PrefilledRequests | None


@dataclass(frozen=True)
class Prefill(RequestsCall[PrefilledScores]):
    """As :class:`ScoreLabels`, of requests that :class:`RankLabels` will be asked about next."""

    def send(self, model: VisionLanguageModel) -> Any:
        """Ask a :class:`PrefillingModel` for a handle, another :class:`LabelScoringModel` for the scores."""
        if isinstance(model, PrefillingModel):
            return model.prefill_requests(self.requests)
        return ScoreLabels(self.requests).send(model)

    def check(self, reply: Any) -> PrefilledScores:
        """Return a number for every label, and the handle if there is one."""
        prefilled = reply if isinstance(reply, PrefilledRequests) else None
        scores = reply if prefilled is None else prefilled.label_logprobs
        return PrefilledScores(ScoreLabels(self.requests).check(scores), prefilled)


@dataclass(frozen=True)
class RankLabels(RequestsCall[list[LabelRanking]]):
    """Rankings under the constraint, one :class:`LabelRanking` per request; see :class:`ConstrainedModel`.

    Attributes:
        max_new_tokens: tokens for the reason after the list; 0 for none.
        order: write this order (labels from 0), for its reason.
        prefilled: the same requests, as the model has read them.
    """

    max_new_tokens: int
    order: tuple[int, ...] | None = None
    prefilled: PrefilledRequests | None = None

    @property
    def num_prompts(self) -> int:
        """One a sheet that is not read yet."""
        return len(self.requests) if self.prefilled is None else 0

    def send(self, model: VisionLanguageModel) -> Any:
        """Ask a :class:`ConstrainedModel`, or the handle that it gave."""
        if self.prefilled is not None:
            return self.prefilled.rank_labels(max_new_tokens=self.max_new_tokens, order=self.order)
        assert isinstance(model, ConstrainedModel)  # noqa: S101 (for the type checker)
        return model.rank_labels(self.requests, max_new_tokens=self.max_new_tokens, order=self.order)

    def check(self, reply: Any) -> list[LabelRanking]:
        """Return rankings that name every label once."""
        pairs = zip(check_count(reply, self.requests), self.requests, strict=True)
        return [check_ranking(each, request, self.order) for each, request in pairs]


@dataclass(frozen=True)
class RankPrefilled(RequestsCall[list[LabelRanking]]):
    """As :class:`RankLabels`, of requests of several queries that were read together.

    Attributes:
        prefilled: the same, as the model has read them.
        orders: the order to write for each of them.
        max_new_tokens: tokens for the reason after the list; 0 for none.
    """

    prefilled: PrefilledRequests
    orders: tuple[tuple[int, ...], ...]
    max_new_tokens: int

    @property
    def num_prompts(self) -> int:
        """None that is not read yet."""
        return 0

    def send(self, model: VisionLanguageModel) -> Any:
        """Ask a :class:`BatchPrefillingModel`."""
        assert isinstance(model, BatchPrefillingModel)  # noqa: S101 (for the type checker)
        return model.rank_prefilled(self.prefilled, self.orders, max_new_tokens=self.max_new_tokens)

    def check(self, reply: Any) -> list[LabelRanking]:
        """Return rankings in the orders that were asked for."""
        asked = zip(check_count(reply, self.requests), self.requests, self.orders, strict=True)
        return [check_ranking(each, request, order) for each, request, order in asked]


def execute(model: VisionLanguageModel, call: ModelCall[Reply]) -> Reply:
    """Carry a call out.

    Raises:
        ModelCallError: the model raised, or its reply does not fit the request.
    """
    count(call.num_prompts)
    with _failures_named(model):
        return call.check(call.send(model))


async def aexecute(model: VisionLanguageModel, call: ModelCall[Reply]) -> Reply:
    """Carry a call out without blocking the event loop.

    Raises:
        ModelCallError: the model raised, or its reply does not fit the request.
    """
    count(call.num_prompts)
    with _failures_named(model):
        return call.check(await call.asend(model))


@contextmanager
def _failures_named(model: VisionLanguageModel) -> Iterator[None]:
    try:
        yield
    except ModelCallError:
        raise
    except ReplyError as error:
        raise ModelCallError(f"{model.model_name} {error}") from error
    except Exception as error:
        raise ModelCallError.from_cause(model.model_name, error) from error
