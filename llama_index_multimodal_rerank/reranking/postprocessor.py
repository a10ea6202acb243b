"""Phi3VisionRerank: LlamaIndex integration of the reranker."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from llama_index.core.bridge.pydantic import (
    ConfigDict,
    Field,
    PrivateAttr,
    SerializeAsAny,
    field_serializer,
    field_validator,
    model_validator,
)
from llama_index.core.callbacks import CBEventType, EventPayload
from llama_index.core.instrumentation import get_dispatcher  # type: ignore[attr-defined]
from llama_index.core.instrumentation.events.rerank import ReRankEndEvent, ReRankStartEvent
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.prompts import BasePromptTemplate, PromptTemplate
from llama_index.core.prompts.mixin import PromptDictType, PromptMixin
from llama_index.core.schema import NodeWithScore, QueryBundle

from ..images.access import ImageAccess
from ..images.sources import ImageLoadError
from ..images.url_hosts import check_allow_urls
from ..lazy import Lazy
from ..logs import one_line
from ..vlm.calls import ModelCallError, ModelCalls
from ..vlm.driver import arun_calls, run_calls
from ..vlm.protocols import LabelScoringModel, LoadableModel, VisionLanguageModel
from ..vlm.resolve import DEFAULT_MODEL_NAME, DEFAULT_NUM_CROPS, resolve_model
from .candidates import Candidates, read_query
from .listwise import ListwiseReranker, RerankResult, without_model
from .metadata import annotated_nodes
from .prompts import (
    DEFAULT_CAPTION_PROMPT,
    DEFAULT_RANK_PROMPT,
    RANK_VARIABLES,
    check_caption_prompt,
    check_rank_prompt,
)
from .ranking import OnBadAnswer
from .sheet_layout import MAX_CELLS

if TYPE_CHECKING:
    from typing_extensions import Self

logger = logging.getLogger(__name__)
dispatcher = get_dispatcher(__name__)


class Phi3VisionRerank(BaseNodePostprocessor, PromptMixin):
    """Rerank pictures and texts by showing them, on one numbered sheet with the query, to a model.

    Returns ``min(top_n, n)`` nodes, each once, best first, with scores that never rise; never a node
    that was not given, and never fewer than asked for. Nodes are copies; the metadata of the copies
    says how they came where they are:

    - ``rerank_rank``: place, from 1.
    - ``retrieval_score``: the score the node came with (``keep_retrieval_score``).
    - ``rerank_reason``: the model's words why, on the first node (``explain``).
    - ``rerank_query_caption``: what the model saw in the query picture (``caption``).
    - ``rerank_audit``: what was right and wrong with the answers, see ``docs/reranking.md``.
    - ``rerank_confidence``: agreement of ``permutations`` orders, 0 to 1 (Kendall's W).
    - ``rerank_unreadable``: why the node's picture could not be looked at.

    They are kept out of what an LLM or embedding model reads.

    ``model="demo"`` is a tiny model that comes with this package, for trying things out offline: it was
    trained on drawn products alone (``llama_index_multimodal_rerank.demo``) and is of no use for photographs.

    Source: model card ``microsoft/Phi-3-vision-128k-instruct``; sliding windows: arXiv:2304.09542.
    """

    model_config = ConfigDict(validate_assignment=True)

    model: Any = Field(
        default=DEFAULT_MODEL_NAME,
        frozen=True,
        description="Phi-3 Vision by its name on the hub or local folder; or 'demo', a tiny model in this "
        "package that was trained on drawings and knows nothing else (for a folder called demo write "
        "'./demo'); or a VisionLanguageModel; or a multimodal LLM of LlamaIndex.",
    )
    top_n: int = Field(default=3, gt=0, description="Nodes to return.")
    device: str | None = Field(
        default=None,
        frozen=True,
        description="Torch device of a model given by name. Default: the best one there is.",
    )
    dtype: str | None = Field(
        default=None,
        frozen=True,
        description="'float32', 'bfloat16' or 'float16', for a model given by name. Default: bfloat16 where "
        "the hardware computes in it, float32 elsewhere.",
    )
    keep_retrieval_score: bool = Field(
        default=True, description="Keep the score that nodes came with in metadata['retrieval_score']."
    )
    strategy: Literal["first_token", "listwise"] = Field(
        default="listwise",
        description="'listwise' has the whole list written. 'first_token' sorts by the probability of each "
        "label to be written first: one forward pass; for models whose logits can be read.",
    )
    window: int = Field(
        default=9, ge=2, le=MAX_CELLS, description="Candidates on one sheet. More are ranked in windows."
    )
    stride: int | None = Field(
        default=None, ge=1, description="How far windows lie apart. Default: half a window."
    )
    permutations: int = Field(
        default=1,
        ge=1,
        description="Shuffled sheets per window, whose orders are counted together by Borda's rule.",
    )
    seed: int = Field(default=0, description="Seed of the shuffles.")
    caption: bool = Field(
        default=True, description="Have the query picture described first, and the words put in the prompt."
    )
    explain: bool = Field(default=True, description="Ask why the best is the best.")
    show_text: bool = Field(default=False, description="Write candidates' texts below their pictures.")
    num_crops: int | None = Field(
        default=None,
        frozen=True,
        ge=1,
        description="Tiles of 336 pixels that the model looks at, and that sheets are made for. Default: the "
        "model's own, else 16.",
    )
    max_new_tokens: int = Field(
        default=128, ge=1, description="Tokens for the reason; the list has its own. Local models only."
    )
    max_query_tokens: int = Field(
        default=512, ge=2, description="Tokens of the query's text in the prompt; the rest is cut off."
    )
    max_text_tokens: int = Field(
        default=64, ge=2, description="Tokens of each candidate's text in the prompt; the rest is cut off."
    )
    on_bad_answer: OnBadAnswer = Field(
        default="repair",
        description="An answer that does not name each candidate once: 'repair' it (first valid mentions, "
        "then the missing in retrieval order), 'retry' twice and then repair, 'keep_order', or 'raise'.",
    )
    on_error: Literal["raise", "keep_order"] = Field(
        default="raise",
        description="A model that gives no answer, or a query picture that cannot be read: 'raise', or "
        "'keep_order' of the retrieval and say so in the audit.",
    )
    rank_prompt: SerializeAsAny[BasePromptTemplate] = Field(
        default=DEFAULT_RANK_PROMPT,
        description="The question, a template or its text; variables: query, query_str, query_caption, "
        "num_candidates, labels, candidate_texts, and answer_format, which it must have.",
    )
    caption_prompt: SerializeAsAny[BasePromptTemplate] = Field(
        default=DEFAULT_CAPTION_PROMPT, description="Asks for the query picture's caption; no variables."
    )
    save_sheets: Path | None = Field(
        default=None, description="Folder to save every sheet in, to see what the model saw."
    )
    allow_urls: bool | list[str] = Field(
        default=False,
        description="Fetch pictures given as http(s) URLs: True for public addresses, or a list of hosts "
        "('images.example.org', 'localhost:8000'), which may be private.",
    )
    data_root: str | None = Field(
        default=None,
        description="The only folder that picture files are read from, '..' and symbolic links resolved. "
        "Default: any file that the process may read.",
    )

    _model: Lazy[VisionLanguageModel] = PrivateAttr(default_factory=Lazy)
    _captions: dict[tuple[str, str, str], str] = PrivateAttr(default_factory=dict)

    @classmethod
    def class_name(cls) -> str:
        """Name under which LlamaIndex serialises the class."""
        return "Phi3VisionRerank"

    @field_validator("model", mode="before")
    @classmethod
    def _path_as_name(cls, model: Any) -> Any:
        return os.fspath(model) if isinstance(model, os.PathLike) else model

    @field_validator("allow_urls", mode="before")
    @classmethod
    def _check_allow_urls(cls, allow_urls: Any) -> Any:
        return check_allow_urls(allow_urls)

    @field_validator("rank_prompt", "caption_prompt", mode="before")
    @classmethod
    def _text_as_prompt(cls, prompt: Any) -> Any:
        return PromptTemplate(prompt) if isinstance(prompt, str) else prompt

    @field_validator("rank_prompt")
    @classmethod
    def _usable_rank_prompt(cls, prompt: BasePromptTemplate) -> BasePromptTemplate:
        check_rank_prompt(prompt)
        return prompt

    @field_validator("caption_prompt")
    @classmethod
    def _usable_caption_prompt(cls, prompt: BasePromptTemplate) -> BasePromptTemplate:
        check_caption_prompt(prompt)
        return prompt

    @field_serializer("rank_prompt", "caption_prompt")
    def _prompt_as_text(self, prompt: BasePromptTemplate) -> Any:
        if not isinstance(prompt, PromptTemplate):
            return prompt.model_dump()
        # With our names for its variables, and with what it holds of others filled in.
        names: dict[str, Any] = {name: f"{{{name}}}" for name in RANK_VARIABLES}
        return prompt.format(**names)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.stride is not None and self.stride >= self.window:
            raise ValueError(
                f"stride must be smaller than window={self.window}, got {self.stride}: windows that do not "
                "overlap cannot carry the best to the top"
            )
        if not isinstance(self.model, str):
            for name in ("device", "dtype"):
                if (value := getattr(self, name)) is not None:
                    raise ValueError(f"{name}={value!r} is for models given by name; set it on the model")
        self._steps()  # nothing is loaded by this; mistakes show now
        return self

    @field_serializer("model")
    def _serialize_model(self, model: Any) -> Any:
        # LLMs hold keys, and models hold weights; neither belongs in a file.
        return model if isinstance(model, str) else {"model_name": self.model_name}

    def __setattr__(self, name: str, value: Any) -> None:
        before = self.__dict__.get(name)
        try:
            super().__setattr__(name, value)
        except ValueError:  # of checks that look at several fields, which come after the change
            if name in type(self).model_fields:
                self.__dict__[name] = before
            raise

    def __getstate__(self) -> dict[str, Any]:
        if not isinstance(self.model, str):
            import pickle

            try:
                pickle.dumps(self.model)
            except (
                Exception
            ) as error:  # LlamaIndex would drop the model, and the default would take its place
                raise TypeError(f"{type(self.model).__name__} cannot be pickled: {error}") from error
        return super().__getstate__()

    # -- the model ----------------------------------------------------------------------------

    @property
    def vision_language_model(self) -> VisionLanguageModel:
        """The model behind ``model``; weights are loaded when it is first asked."""
        return self._model.get(self._make_model)

    @property
    def model_name(self) -> str:
        """Name of the model, for events."""
        return self.model if isinstance(self.model, str) else self.vision_language_model.model_name

    @property
    def _access(self) -> ImageAccess:
        return ImageAccess(self.allow_urls, self.data_root)

    def _make_model(self) -> VisionLanguageModel:
        return resolve_model(self.model, device=self.device, dtype=self.dtype, num_crops=self.num_crops)

    def _steps(self) -> ListwiseReranker:
        model = self.vision_language_model
        if self.strategy == "first_token" and not isinstance(model, LabelScoringModel):
            raise ValueError(
                f"strategy='first_token' reads label logits, which {type(model).__name__} does not give; use "
                "strategy='listwise'"
            )
        own = getattr(model, "num_crops", None)
        if self.num_crops is not None and own is not None and own != self.num_crops:
            raise ValueError(f"num_crops={self.num_crops}, but the model was made with num_crops={own}")
        return ListwiseReranker(
            model=model,
            strategy=self.strategy,
            window=self.window,
            stride=self.stride or max(1, self.window // 2),
            permutations=self.permutations,
            seed=self.seed,
            caption=self.caption,
            explain=self.explain,
            show_text=self.show_text,
            num_crops=self.num_crops or own or DEFAULT_NUM_CROPS,
            max_new_tokens=self.max_new_tokens,
            max_query_tokens=self.max_query_tokens,
            max_text_tokens=self.max_text_tokens,
            on_bad_answer=self.on_bad_answer,
            rank_prompt=self.rank_prompt,
            caption_prompt=self.caption_prompt,
            save_sheets=self.save_sheets,
            captions=self._captions,
        )

    # -- prompts ------------------------------------------------------------------------------

    def _get_prompts(self) -> PromptDictType:
        return {"rank_prompt": self.rank_prompt, "caption_prompt": self.caption_prompt}

    def _update_prompts(self, prompts: PromptDictType) -> None:
        rank_prompt = prompts.get("rank_prompt", self.rank_prompt)
        check_rank_prompt(rank_prompt)  # before anything is changed
        self.caption_prompt = prompts.get("caption_prompt", self.caption_prompt)
        self.rank_prompt = rank_prompt

    # -- LlamaIndex's two entrances -----------------------------------------------------------

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        query = _required(query_bundle)
        with self._reported(nodes, query) as result:
            candidates = Candidates(nodes, self._access)
            try:
                outcome = run_calls(self.vision_language_model, self._rank(query, candidates))
            except (ModelCallError, ImageLoadError) as error:
                outcome = self._without_model(error, candidates)
            result += self._annotated(candidates, outcome)
        return result

    async def _apostprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        query = _required(query_bundle)
        with self._reported(nodes, query) as result:
            candidates = Candidates(nodes, self._access)
            try:
                # Reading pictures and drawing sheets take time, too; all of it is kept off the event loop.
                outcome = await arun_calls(self.vision_language_model, self._rank(query, candidates))
            except (ModelCallError, ImageLoadError) as error:
                outcome = self._without_model(error, candidates)
            result += self._annotated(candidates, outcome)
        return result

    def _rank(self, query: QueryBundle, candidates: Candidates) -> ModelCalls[RerankResult]:
        steps = self._steps()
        content = read_query(query, self._access)
        if len(candidates) and isinstance(steps.model, LoadableModel):
            steps.model.load()  # a checkpoint that is not there is no failed answer
        return (yield from steps.run(content, candidates))

    def _without_model(self, error: Exception, candidates: Candidates) -> RerankResult:
        if self.on_error == "raise":
            raise error
        logger.warning("Kept the retrieval order: %s", one_line(str(error)))
        return without_model(candidates, error=str(error), attempts=getattr(error, "attempts", 0))

    @contextmanager
    def _reported(self, nodes: list[NodeWithScore], query: QueryBundle) -> Iterator[list[NodeWithScore]]:
        """Fire LlamaIndex's events around a reranking; fill the list that is yielded."""
        name = self.model_name
        dispatcher.event(ReRankStartEvent(query=query, nodes=nodes, top_n=self.top_n, model_name=name))
        payload: dict[str, Any] = {
            EventPayload.NODES: nodes,
            EventPayload.MODEL_NAME: name,
            EventPayload.QUERY_STR: query.query_str,
            EventPayload.TOP_K: self.top_n,
        }
        result: list[NodeWithScore] = []
        with self.callback_manager.event(CBEventType.RERANKING, payload=payload) as event:
            yield result
            event.on_end(payload={EventPayload.NODES: result})
        dispatcher.event(ReRankEndEvent(nodes=result))

    def _annotated(self, candidates: Candidates, outcome: RerankResult) -> list[NodeWithScore]:
        return annotated_nodes(
            candidates, outcome, top_n=self.top_n, keep_retrieval_score=self.keep_retrieval_score
        )


def _required(query: QueryBundle | None) -> QueryBundle:
    if query is None:
        raise ValueError("Phi3VisionRerank needs the query: pass query_bundle or query_str")
    return query
