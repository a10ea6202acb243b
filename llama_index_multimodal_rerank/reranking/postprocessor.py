"""Phi3VisionRerank: LlamaIndex integration of the reranker."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from llama_index.core.bridge.pydantic import PrivateAttr, field_serializer, model_validator
from llama_index.core.callbacks import CBEventType, EventPayload
from llama_index.core.instrumentation import get_dispatcher  # type: ignore[attr-defined]
from llama_index.core.instrumentation.events.rerank import ReRankEndEvent, ReRankStartEvent
from llama_index.core.prompts.mixin import PromptDictType, PromptMixin
from llama_index.core.schema import NodeWithScore, QueryBundle

from ..images.sources import ImageLoadError
from ..lazy import Lazy
from ..logs import one_line
from ..schema.query import query_image
from ..vlm.batch_driver import arun_batch, run_batch
from ..vlm.calls import ModelCallError, ModelCalls
from ..vlm.driver import arun_calls, run_calls
from ..vlm.protocols import LoadableModel, VisionLanguageModel
from ..vlm.resolve import resolve_model
from ..vlm.retry_budget import share_retries
from .asked import AskedBatch, AskedQuery
from .batch import BATCH_SIZE, all_results, parts, progress_bar, retry_budget
from .call_plan import planned_prompts
from .candidates import Candidates, read_query
from .listwise import ListwiseReranker
from .metadata import annotated_nodes
from .prompts import PROMPTS
from .result import RerankResult, without_model
from .settings import RerankSettings
from .sheet_layout import LARGEST_PICTURE
from .strategies.choice import choose_strategy

if TYPE_CHECKING:
    from typing_extensions import Self

logger = logging.getLogger(__name__)
dispatcher = get_dispatcher(__name__)


class Phi3VisionRerank(RerankSettings, PromptMixin):
    """Rerank pictures and texts by showing them, on one numbered sheet with the query, to a model.

    Returns ``min(top_n, n)`` nodes, each once, best first, with scores that never rise; never a node
    that was not given, and never fewer than asked for. Nodes are copies; the metadata of the copies
    says how they came where they are:

    - ``rerank_rank``: place, from 1.
    - ``retrieval_score``: the score the node came with (``keep_retrieval_score``).
    - ``rerank_reason``: the model's words why, on the first node (``explain``). Candidates that it calls by
      their numbers on its sheet, in brackets, are called by their places in this list: ``#1``.
    - ``rerank_label``: the node's number on the sheet, if one sheet decided.
    - ``rerank_query_caption``: what the model saw in the query picture (``caption``).
    - ``rerank_audit``: what was right and wrong with the answers, see ``docs/reranking.md``.
    - ``rerank_confidence``: agreement of ``permutations`` orders, 0 to 1 (Kendall's W).
    - ``rerank_unreadable``: why the node's picture could not be looked at.

    They are kept out of what an LLM or embedding model reads.

    ``model="demo"`` is a tiny model that comes with this package, for trying things out offline: it was
    trained on drawn products alone (``llama_index_multimodal_rerank.demo``) and is of no use for photographs.

    Example:
        Which of nine red products is the umbrella with the print of the picture?

        >>> from llama_index.core.schema import NodeWithScore
        >>> from llama_index_multimodal_rerank import ImageTextQuery, Phi3VisionRerank, image_node
        >>> from llama_index_multimodal_rerank.demo.catalogue import draw_query_picture
        >>> from llama_index_multimodal_rerank.demo.drawing.looks import Look
        >>> kinds, surfaces = ("mug", "umbrella", "shoe"), ("leopard", "dots", "plain")
        >>> shop = [Look(kind, surface, "red") for kind in kinds for surface in surfaces]
        >>> nodes = [image_node(draw_query_picture(look, seed=1), id_=str(look)) for look in shop]
        >>> query = ImageTextQuery("an umbrella with this", image=draw_query_picture("leopard", seed=0))
        >>> reranker = Phi3VisionRerank(model="demo", top_n=3, strategy="first_token")
        >>> best, *others = reranker.postprocess_nodes([NodeWithScore(node=node) for node in nodes], query)
        >>> best.node.node_id
        'red leopard umbrella'
        >>> best.node.metadata["rerank_query_caption"]
        'a leopard.'
        >>> len(others), best.score > others[0].score >= others[1].score > 0
        (2, True)

    Args:
        model: name on the hub or local folder of Phi-3 Vision, ``"demo"`` (for a folder called demo
            ``"./demo"``), a :class:`VisionLanguageModel`, or a multimodal LLM of LlamaIndex.
        top_n: nodes to return, 1 or more.
        device: torch device of a model given by name. Default: the best one there is.
        dtype: ``"float32"``, ``"bfloat16"`` or ``"float16"``, for a model given by name. Default: bfloat16
            where the hardware computes in it, float32 elsewhere.
        keep_retrieval_score: keep the scores that nodes came with in their metadata.
        strategy: ``"listwise"`` has the whole list written. ``"first_token"`` sorts by the probability of
            each number to be written first, in one forward pass (FIRST); for models whose logits can be read.
        window: candidates on one sheet, 2 to 25. More are ranked in windows, from the last to the first
            (RankGPT).
        stride: how many candidates windows lie apart, 1 to ``window - 1``. Default: half a window.
        permutations: sheets per window, 1 or more, each shuffled, whose orders are counted together by
            Borda's rule (permutation self-consistency).
        seed: of the shuffles.
        caption: have the query picture described first, and the words put in the prompt.
        explain: ask why the best is the best: True, after the list and on its sheet; ``"closer_look"``,
            apart, on a sheet of the query and the best alone, where it is larger and no other can be meant;
            one prompt more. Default: ``"closer_look"`` for the demo's model, which was taught so, else True.
        show_text: write candidates' texts below their pictures.
        num_crops: tiles of 336 pixels that the model looks at, 1 or more; sheets are made for them. Default:
            the model's own, else 16.
        max_new_tokens: tokens for the reason, 1 or more; the list has its own. Local models only.
        max_query_tokens: tokens of the query's text in the prompt, 2 or more; the rest is cut off.
        max_text_tokens: tokens of each candidate's text in the prompt, 2 or more; the rest is cut off.
        on_bad_answer: an answer that does not name each candidate once: ``"repair"`` it, ``"retry"`` twice
            and then repair, ``"keep_order"``, or ``"raise"``.
        on_error: no answer, or a query picture that cannot be read: ``"raise"``, or ``"keep_order"`` of the
            retrieval and say so in the audit.
        rank_prompt: template of the question, see ``docs/reranking.md``.
        caption_prompt: asks for the query picture's caption; no variables.
        reason_prompt: template of the question of a closer look, see ``docs/reranking.md``.
        save_sheets: folder to save every sheet in, as PNG.
        allow_urls: fetch pictures given as http(s) URLs: True for public addresses, or a list of hosts.
        data_root: the only folder that picture files are read from. Default: any file may be.

    Raises:
        ValueError: at construction and assignment (pydantic's ValidationError), a field has a value that it
            does not allow, or values that do not go together. From ``postprocess_nodes``, there is no query,
            or one without words and picture.
        OSError: at the first query, the checkpoint is not there and cannot be fetched.
        ModelCallError: the model gave no answer, and ``on_error`` is ``"raise"``.
        ImageLoadError: the query picture cannot be read, and ``on_error`` is ``"raise"``; a ValueError. A
            candidate's picture that cannot be read is no error: the candidate comes last.
        BadAnswerError: an answer is no complete ranking, and ``on_bad_answer`` is ``"raise"``; a ValueError.

    Sources:
        Model card ``microsoft/Phi-3-vision-128k-instruct``.
        ``first_token``: "FIRST: Faster Improved Listwise Reranking with Single Token Decoding",
        arXiv:2406.15657.
        ``permutations``: "Found in the Middle: Permutation Self-Consistency Improves Listwise Ranking in
        Large Language Models", arXiv:2310.07712.
        ``window``: "Is ChatGPT Good at Search? Investigating Large Language Models as Re-Ranking Agents"
        (RankGPT), arXiv:2304.09542.
    """

    _model: Lazy[VisionLanguageModel] = PrivateAttr(default_factory=Lazy)
    _captions: dict[tuple[str, str, str], str] = PrivateAttr(default_factory=dict)

    @classmethod
    def class_name(cls) -> str:
        """Name under which LlamaIndex serialises the class."""
        return "Phi3VisionRerank"

    @model_validator(mode="after")
    def _check_model(self) -> Self:
        self._reranker()  # nothing is loaded by this; mistakes show now
        return self

    @field_serializer("model")
    def _serialize_model(self, model: Any) -> Any:
        # LLMs hold keys, and models hold weights; neither belongs in a file.
        return model if isinstance(model, str) else {"model_name": self.model_name}

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

    def _make_model(self) -> VisionLanguageModel:
        return resolve_model(self.model, device=self.device, dtype=self.dtype, num_crops=self.num_crops)

    def _reranker(self) -> ListwiseReranker:
        model = self.vision_language_model
        options = self._options(
            getattr(model, "num_crops", None), looks_closer=getattr(model, "looks_closer", False)
        )
        return ListwiseReranker(model, choose_strategy(model, options), options, self._captions)

    def planned_calls(self, num_candidates: int, query: QueryBundle) -> int:
        """Return how many model calls a query takes: sheets, caption, and a reason that is asked for apart.

        A model call is one picture with one prompt that the model reads and answers. It can come to fewer,
        where a caption is known or nothing can be looked at, and to more, where ``on_bad_answer="retry"``.

        Args:
            num_candidates: how many nodes there are, each once.
            query: the query; its picture is not read.
        """
        has_picture = query_image(query) is not None
        return planned_prompts(self._reranker(), num_candidates, query_picture=has_picture)

    # -- prompts ------------------------------------------------------------------------------

    def _get_prompts(self) -> PromptDictType:
        return {name: getattr(self, name) for name in PROMPTS}

    def _update_prompts(self, prompts: PromptDictType) -> None:
        known = {name: prompts[name] for name in PROMPTS if name in prompts}
        for name, prompt in known.items():  # all before any is changed
            PROMPTS[name](prompt)
        for name, prompt in known.items():
            setattr(self, name, prompt)

    # -- LlamaIndex's two entrances -----------------------------------------------------------

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        query = _required(query_bundle)
        with self._reported(nodes, query) as result:
            asked = AskedQuery(nodes, query, self._access)
            try:
                outcome = run_calls(self.vision_language_model, asked.calls(self._rank))
            except (ModelCallError, ImageLoadError) as error:
                outcome = self._without_model(error, asked)
            result += self._annotated(asked, outcome)
        return result

    async def _apostprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        query = _required(query_bundle)
        with self._reported(nodes, query) as result:
            asked = AskedQuery(nodes, query, self._access)
            try:
                # Reading pictures and drawing sheets take time, too; all of it is kept off the event loop.
                outcome = await arun_calls(self.vision_language_model, asked.calls(self._rank))
            except (ModelCallError, ImageLoadError) as error:
                outcome = self._without_model(error, asked)
            result += self._annotated(asked, outcome)
        return result

    # -- many queries -------------------------------------------------------------------------

    def rerank_batch(
        self,
        queries: Sequence[tuple[Sequence[NodeWithScore], QueryBundle]],
        *,
        batch_size: int = BATCH_SIZE,
        retries: int | None = None,
        show_progress: bool | None = None,
    ) -> list[list[NodeWithScore]]:
        """Rerank for many queries; each result is what ``postprocess_nodes`` returns.

        Sheets of equally many candidates share a batch of a local model's decoder; a remote model is asked
        about several queries side by side.

        Args:
            queries: (nodes, query), as many as there are.
            batch_size: queries to work on together, 1 or more: their pictures, and on a local model the keys
                and values of their sheets, are in memory at the same time. Of a remote model, those that are
                under way: the next begins as soon as one has ended.
            retries: of a remote model: further attempts after failures that may pass, of all queries
                together, 0 or more; each call has ``max_retries`` of its own at most. When they are used up
                and eight calls in a row have failed, the others are not made. Default: one for five queries,
                10 at least.
            show_progress: show a progress bar. Default: on a terminal.

        Returns:
            In the order of ``queries``, the nodes of each.

        Raises:
            ValueError: ``batch_size`` is below 1, or ``retries`` below 0 or given for a local model.
            OSError: the checkpoint is not there and cannot be fetched.
            RerankBatchError: queries failed, and ``on_error`` is ``"raise"`` or does not cover their errors;
                it holds the results of the others.
        """
        model = self.vision_language_model
        results: list[list[NodeWithScore] | Exception] = []
        budget = retry_budget(len(queries), retries, model=model)
        with progress_bar(len(queries), show_progress) as progress, share_retries(budget):
            for part in parts(queries, batch_size, model=model):
                if isinstance(model, LoadableModel):
                    model.load()
                batch = AskedBatch(part, self._access, progress)
                outcomes = run_batch(model, batch.calls(self._rank), batch.done, side_by_side=batch_size)
                results += map(self._batch_result, batch.asked, outcomes)
        return all_results(results)

    async def arerank_batch(
        self,
        queries: Sequence[tuple[Sequence[NodeWithScore], QueryBundle]],
        *,
        batch_size: int = BATCH_SIZE,
        retries: int | None = None,
        show_progress: bool | None = None,
    ) -> list[list[NodeWithScore]]:
        """As :meth:`rerank_batch`, without blocking the event loop."""
        model = self.vision_language_model
        results: list[list[NodeWithScore] | Exception] = []
        budget = retry_budget(len(queries), retries, model=model)
        with progress_bar(len(queries), show_progress) as progress, share_retries(budget):
            for part in parts(queries, batch_size, model=model):
                if isinstance(model, LoadableModel):
                    await asyncio.to_thread(model.load)
                batch = AskedBatch(part, self._access, progress)
                calls = batch.calls(self._rank)
                outcomes = await arun_batch(model, calls, batch.done, side_by_side=batch_size)
                results += map(self._batch_result, batch.asked, outcomes)
        return all_results(results)

    def _batch_result(
        self, asked: AskedQuery, outcome: RerankResult | Exception
    ) -> list[NodeWithScore] | Exception:
        try:
            with self._reported(asked.nodes, asked.query) as result:
                if isinstance(outcome, ModelCallError | ImageLoadError):
                    outcome = self._without_model(outcome, asked)
                if isinstance(outcome, Exception):
                    raise outcome
                result += self._annotated(asked, outcome)
        except Exception as error:
            return error
        return result

    def _rank(self, query: QueryBundle, candidates: Candidates) -> ModelCalls[RerankResult]:
        reranker = self._reranker()
        side = 2 * LARGEST_PICTURE  # the caption looks at more of it than a sheet shows
        if len(candidates) and not reranker.options.caption:
            alone = reranker.options.explain == "closer_look"
            side = reranker.picture_side(1 if alone else len(candidates), query=True)
        content = read_query(query, self._access, side=side)
        if len(candidates) and isinstance(reranker.model, LoadableModel):
            reranker.model.load()  # a checkpoint that is not there is no failed answer
        return (yield from reranker.run(content, candidates))

    def _without_model(self, error: Exception, asked: AskedQuery) -> RerankResult:
        asked.cost.failed(error)
        if self.on_error == "raise":
            raise error
        logger.warning("Kept the retrieval order: %s", one_line(str(error)))
        return without_model(asked.candidates, error=str(error), attempts=getattr(error, "attempts", 0))

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

    def _annotated(self, asked: AskedQuery, outcome: RerankResult) -> list[NodeWithScore]:
        return annotated_nodes(
            asked.candidates,
            outcome,
            top_n=self.top_n,
            keep_retrieval_score=self.keep_retrieval_score,
            cost=asked.cost.to_dict(),
        )


def _required(query: QueryBundle | None) -> QueryBundle:
    if query is None:
        raise ValueError("Phi3VisionRerank needs the query: pass query_bundle or query_str")
    return query
