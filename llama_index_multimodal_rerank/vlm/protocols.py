"""What the reranker asks of a model: pictures and a prompt in, text out; more where a model can.

Only :class:`VisionLanguageModel` must be implemented. The other protocols are found by their methods.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class ImagePrompt:
    """Pictures and a question about them, to be answered freely: what does this picture show?

    Attributes:
        images: the pictures, in the order the model gets them.
        prompt: the question.
    """

    images: tuple[Image, ...]
    prompt: str


@dataclass(frozen=True)
class RankRequest(ImagePrompt):
    """One sheet to be ranked.

    Attributes:
        images: the pictures, in the order the model gets them.
        prompt: the question.
        num_labels: the answer ranks the labels 1..num_labels.
    """

    num_labels: int


@dataclass(frozen=True)
class Usage:
    """What one answer took.

    Attributes:
        prompt_tokens: tokens that were read, those of pictures included; None if that is not known.
        answer_tokens: tokens that were written; None if that is not known.
        attempts: how often it was asked for.
    """

    prompt_tokens: int | None = None
    answer_tokens: int | None = None
    attempts: int = 1


@dataclass(frozen=True)
class LabelRanking:
    """A ranking written under the permutation constraint.

    Attributes:
        order: labels from 0, best first, each exactly once.
        probabilities: at each place of the order, the probability of its label among those left.
        text: what the model wrote after the list, stripped.
        usage: what it took, if the model says so.
    """

    order: tuple[int, ...]
    probabilities: tuple[float, ...]
    text: str
    usage: Usage | None = None


class Answer(str):
    """A text that a model wrote, with what its server says about it. A plain ``str`` is an answer as well.

    Attributes:
        finish_reason: why the text ends, in the server's words (``"stop"``, ``"length"`` …), or None.
        refusal: the server's or model's words for not answering, or None.
        usage: what it took, or None.
    """

    finish_reason: str | None
    refusal: str | None
    usage: Usage | None

    def __new__(
        cls,
        text: str,
        *,
        finish_reason: str | None = None,
        refusal: str | None = None,
        usage: Usage | None = None,
    ) -> Answer:
        """Make an answer of a text."""
        answer = super().__new__(cls, text)
        answer.finish_reason, answer.refusal, answer.usage = finish_reason, refusal, usage
        return answer


class LabelScores(list[float]):
    """Log-probabilities of labels, with what is known about them. A plain list does as well.

    Minus infinity is that of a label that the model did not score.

    Attributes:
        usage: what they took, or None.
        answer: the beginning of the answer that they are of, if it was written.
    """

    def __init__(
        self, logprobs: Iterable[float], *, usage: Usage | None = None, answer: Answer | None = None
    ) -> None:
        super().__init__(logprobs)
        self.usage = answer.usage if usage is None and answer is not None else usage
        self.answer = answer


@runtime_checkable
class VisionLanguageModel(Protocol):
    """A model that answers a prompt about pictures.

    It may be called from several threads at once.
    """

    @property
    def model_name(self) -> str:
        """Name for events and messages."""
        ...

    def generate(self, images: Sequence[Image], prompt: str, *, max_new_tokens: int) -> str:
        """Answer a prompt about pictures, and nothing but the answer (an :class:`Answer`, if more is known).

        Args:
            images: RGB pictures.
            prompt: the question.
            max_new_tokens: length of the answer at most, in tokens.
        """
        ...


@runtime_checkable
class BatchGeneratingModel(VisionLanguageModel, Protocol):
    """A model that answers several prompts in about the time of one."""

    def generate_batch(self, prompts: Sequence[ImagePrompt], *, max_new_tokens: int) -> list[str]:
        """As :meth:`VisionLanguageModel.generate`, an answer for each prompt."""
        ...


@runtime_checkable
class LoadableModel(Protocol):
    """A model that is loaded before its first use."""

    def load(self) -> Any:
        """Load it, unless it is; raises what keeps it from being loaded."""
        ...


@runtime_checkable
class TokenCountingModel(Protocol):
    """A model that says how long a text is for it; else LlamaIndex's tokenizer is asked."""

    def count_tokens(self, text: str) -> int:
        """Return how many tokens a text has."""
        ...


@runtime_checkable
class AsyncModel(VisionLanguageModel, Protocol):
    """A model that waits for a network rather than for a processor; its calls run side by side."""

    async def agenerate(self, images: Sequence[Image], prompt: str, *, max_new_tokens: int) -> str:
        """As :meth:`VisionLanguageModel.generate`."""
        ...


@runtime_checkable
class JsonModel(VisionLanguageModel, Protocol):
    """A model that can be held to a JSON schema; it is asked to answer in JSON."""

    def generate_json(self, images: Sequence[Image], prompt: str, *, schema: Mapping[str, Any]) -> str:
        """Answer with a JSON text that fits ``schema``, as far as the model can be held to it."""
        ...

    async def agenerate_json(self, images: Sequence[Image], prompt: str, *, schema: Mapping[str, Any]) -> str:
        """As :meth:`generate_json`."""
        ...


@runtime_checkable
class LabelScoringModel(VisionLanguageModel, Protocol):
    """A model whose label logits can be read; ``strategy="first_token"`` needs one."""

    def label_logprobs(self, requests: Sequence[RankRequest]) -> list[list[float]]:
        """Return, for each request, one logit per label: how likely the label is to be named first."""
        ...


@runtime_checkable
class AnswerScoringModel(VisionLanguageModel, Protocol):
    """A model of a server that says how likely each label is to begin its answer.

    With it ``strategy="first_token"`` goes over a network.

    Attributes:
        max_scored_labels: labels of a sheet at most.
    """

    max_scored_labels: int

    def score_answer(self, request: RankRequest) -> LabelScores:
        """Return the log-probability of each label to begin the answer, and that answer's beginning."""
        ...

    async def ascore_answer(self, request: RankRequest) -> LabelScores:
        """As :meth:`score_answer`."""
        ...


@runtime_checkable
class ConstrainedModel(VisionLanguageModel, Protocol):
    """A model that can be made to write complete rankings only."""

    def rank_labels(
        self, requests: Sequence[RankRequest], *, max_new_tokens: int, order: Sequence[int] | None = None
    ) -> list[LabelRanking]:
        """Rank the labels of each request.

        Args:
            requests: the sheets, ranked in one batch.
            max_new_tokens: tokens for the reason after the list; 0 for none.
            order: write this order (labels from 0), for its reason.
        """
        ...


@runtime_checkable
class PrefilledRequests(Protocol):
    """Requests that a model has read: a handle, to have them ranked without reading them again."""

    @property
    def label_logprobs(self) -> list[list[float]]:
        """What :meth:`LabelScoringModel.label_logprobs` returns for the requests."""
        ...

    def rank_labels(self, *, max_new_tokens: int, order: Sequence[int] | None = None) -> list[LabelRanking]:
        """As :meth:`ConstrainedModel.rank_labels`, of the requests. What was read may be freed after that."""
        ...


@runtime_checkable
class PrefillingModel(LabelScoringModel, ConstrainedModel, Protocol):
    """A model that can go on from what it has read.

    ``strategy="first_token"`` asks about one sheet twice, first for the order, then for its reason. Of other
    models it uses ``label_logprobs`` and ``rank_labels``, and the sheet is read twice.
    """

    def prefill_requests(self, requests: Sequence[RankRequest]) -> PrefilledRequests:
        """Read requests; what it takes is freed with the handle at the latest."""
        ...


@runtime_checkable
class BatchPrefillingModel(PrefillingModel, Protocol):
    """A model that goes on from what it has read for several queries, each in an order of its own."""

    def rank_prefilled(
        self, prefilled: PrefilledRequests, orders: Sequence[Sequence[int]], *, max_new_tokens: int
    ) -> list[LabelRanking]:
        """Rank requests as :meth:`PrefilledRequests.rank_labels` does.

        Args:
            prefilled: what this model has read.
            orders: the order to write for each request, labels from 0.
            max_new_tokens: tokens for the reason after the list; 0 for none.
        """
        ...
