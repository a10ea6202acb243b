"""AdaptiveRerank: rerank only where it can matter, and where there are model calls left."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from llama_index.core.bridge.pydantic import (
    ConfigDict,
    Field,
    SerializeAsAny,
    field_serializer,
    field_validator,
)
from llama_index.core.instrumentation import get_dispatcher  # type: ignore[attr-defined]
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.prompts.mixin import PromptMixinType
from llama_index.core.schema import NodeWithScore, QueryBundle

from ..schema.annotations import annotated
from ..vlm.counting import counted_prompts
from ..vlm.retry_budget import RetryBudget, share_retries, shared_budget
from .adaptive_decision import Decision, PlanningReranker, Rules, decide
from .batch import (
    BATCH_SIZE,
    Asked,
    Result,
    all_results,
    check_batch_size,
    failures_of_batch,
    progress_bar,
    retry_budget,
)
from .budget import CallBudget
from .candidates import Candidates
from .events import RerankSkippedEvent
from .margins import FIRST_TWO, Places, check_places
from .metadata import annotated_nodes
from .postprocessor import Phi3VisionRerank
from .result import without_model

dispatcher = get_dispatcher(__name__)


class AdaptiveRerank(BaseNodePostprocessor):
    """Ask a reranker only where the retrieval is in doubt, and within a budget of model calls.

    A query is not reranked if the first retrieval scores lie at least ``margin`` apart, or if the budget has
    too few calls left. Its nodes come back in retrieval order, cut to the reranker's ``top_n``, with the
    metadata that the reranker writes. Whatever was decided, ``rerank_audit["adaptive"]`` of each node says
    why, see ``docs/reranking.md``.

    The margin is ``score[0] - score[1]`` with the scores that nodes come with, in the order they come in.
    It is in the units of these scores, so it is good for the embedding, and the kind of search, that it was
    chosen with (:func:`choose_margin`). Nodes without scores are always reranked; so are scores that rise
    down the list, such as distances.

    A model call is one picture with one prompt that the model reads: a sheet, the query's caption, a reason
    that is asked for apart. ``Phi3VisionRerank`` says how many it takes (``planned_calls``), and what is
    really asked is counted; of other rerankers each query counts as one call.

    Example:
        >>> from llama_index.core.schema import NodeWithScore, TextNode
        >>> from llama_index_multimodal_rerank import AdaptiveRerank, ImageTextQuery, Phi3VisionRerank
        >>> reranker = AdaptiveRerank(reranker=Phi3VisionRerank(model="demo", top_n=2), margin=0.1)
        >>> found = [("a mug", 0.75), ("a cup", 0.5), ("a shoe", 0.25)]
        >>> nodes = [NodeWithScore(node=TextNode(text=text), score=score) for text, score in found]
        >>> first, second = reranker.postprocess_nodes(nodes, ImageTextQuery("a mug"))
        >>> first.text, first.score, second.text
        ('a mug', 0.75, 'a cup')
        >>> first.metadata["rerank_audit"]["adaptive"]
        {'decision': 'skipped', 'because': 'margin', 'margin': 0.25, 'threshold': 0.1}

    Args:
        reranker: any reranker of LlamaIndex, ``Phi3VisionRerank`` above all.
        margin: difference of scores from which on a query is not reranked, 0 or more. A single node is not
            reranked either. Default: reranked whatever the scores are.
        margin_places: the two places whose scores are compared, from 1. ``(top_n, top_n + 1)`` asks whether
            the right nodes are returned, the default whether the first is the first.
        calls_per_query: model calls for one query, 1 or more. If its candidates take more, only as many of
            the first are reranked as these calls allow (windows, see ``Phi3VisionRerank``); the others are
            left out, or follow where the reranked ones are fewer than ``top_n``. Default: no limit.
        budget: model calls in any minute; a number, or a :class:`CallBudget` that several rerankers share.
            Default: no limit.

    Raises:
        ValueError: at construction and assignment, a field has a value that it does not allow.
        RerankBatchError: from ``rerank_batch``, queries failed; see ``Phi3VisionRerank.rerank_batch``.
        TypeError: when it is pickled, the reranker cannot be.
    """

    model_config = ConfigDict(validate_assignment=True, arbitrary_types_allowed=True)

    reranker: SerializeAsAny[BaseNodePostprocessor] = Field(frozen=True, description="Who is asked.")
    margin: float | None = Field(
        default=None, ge=0, description="Difference of retrieval scores from which on nothing is reranked."
    )
    margin_places: Places = Field(
        default=FIRST_TWO, description="The two places, from 1, whose scores are compared."
    )
    calls_per_query: int | None = Field(default=None, ge=1, description="Model calls for one query.")
    budget: CallBudget | None = Field(default=None, description="Model calls in any minute.")

    @classmethod
    def class_name(cls) -> str:
        """Name under which LlamaIndex serialises the class."""
        return "AdaptiveRerank"

    @field_validator("margin_places")
    @classmethod
    def _check_places(cls, places: Places) -> Places:
        return check_places(places)

    @field_validator("budget", mode="before")
    @classmethod
    def _number_as_budget(cls, budget: Any) -> Any:
        if isinstance(budget, dict):
            return CallBudget(**budget)
        return CallBudget(budget) if isinstance(budget, int) else budget

    @field_serializer("budget")
    def _budget_as_dict(self, budget: CallBudget | None) -> dict[str, Any] | None:
        return None if budget is None else {"calls": budget.calls, "seconds": budget.seconds}

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if name == "callback_manager":  # query engines set it on the postprocessors they are given
            self.reranker.callback_manager = value

    def __getstate__(self) -> dict[str, Any]:
        try:
            pickle.dumps(self.reranker)
        except Exception as error:  # LlamaIndex would leave the reranker out
            raise TypeError(f"{type(self.reranker).__name__} cannot be pickled: {error}") from error
        return super().__getstate__()

    def _get_prompt_modules(self) -> PromptMixinType:
        return {"reranker": self.reranker}  # type: ignore[dict-item]  # it has the methods, if not the class

    # -- LlamaIndex's two entrances -----------------------------------------------------------

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        decision = self._decide(nodes, query_bundle)
        if not decision.shown:
            return self._skipped(decision)
        with self._charged([decision]):
            ranked = self.reranker.postprocess_nodes(decision.nodes, query_bundle)
        return self._reranked(decision, ranked)

    async def _apostprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        decision = self._decide(nodes, query_bundle)
        if not decision.shown:
            return self._skipped(decision)
        with self._charged([decision]):
            ranked = await self.reranker.apostprocess_nodes(decision.nodes, query_bundle)
        return self._reranked(decision, ranked)

    # -- many queries -------------------------------------------------------------------------

    def rerank_batch(
        self,
        queries: Sequence[Asked],
        *,
        batch_size: int = BATCH_SIZE,
        retries: int | None = None,
        show_progress: bool | None = None,
    ) -> list[list[NodeWithScore]]:
        """As ``Phi3VisionRerank.rerank_batch``; only queries that are reranked take places in its batches.

        They are decided on in their order. A reranker without ``rerank_batch`` is asked query by query.

        Raises:
            ValueError: ``batch_size`` is below 1, or ``retries`` below 0, or given for a reranker that is no
                ``Phi3VisionRerank`` with the model of a server.
            RerankBatchError: queries failed; see ``Phi3VisionRerank.rerank_batch``.
        """
        batch = getattr(self.reranker, "rerank_batch", None)
        results: dict[int, Result] = {}
        budget = self._retries(len(queries), retries)
        with progress_bar(len(queries), show_progress) as progress, share_retries(budget):
            for part in self._parts(queries, batch_size, results, progress):
                decisions = list(part.values())
                with self._charged(decisions), failures_of_batch() as ranked:
                    if batch is None:
                        ranked += map(self._alone, decisions)
                    else:
                        asked = [(each.nodes, each.query) for each in decisions]
                        ranked += batch(asked, batch_size=batch_size, show_progress=False)
                results.update(zip(part, map(self._result, decisions, ranked), strict=True))
        return all_results([results[number] for number in range(len(queries))])

    async def arerank_batch(
        self,
        queries: Sequence[Asked],
        *,
        batch_size: int = BATCH_SIZE,
        retries: int | None = None,
        show_progress: bool | None = None,
    ) -> list[list[NodeWithScore]]:
        """As :meth:`rerank_batch`, without blocking the event loop."""
        batch = getattr(self.reranker, "arerank_batch", None)
        results: dict[int, Result] = {}
        budget = self._retries(len(queries), retries)
        with progress_bar(len(queries), show_progress) as progress, share_retries(budget):
            for part in self._parts(queries, batch_size, results, progress):
                decisions = list(part.values())
                with self._charged(decisions), failures_of_batch() as ranked:
                    if batch is None:
                        ranked += [await self._aalone(each) for each in decisions]
                    else:
                        asked = [(each.nodes, each.query) for each in decisions]
                        ranked += await batch(asked, batch_size=batch_size, show_progress=False)
                results.update(zip(part, map(self._result, decisions, ranked), strict=True))
        return all_results([results[number] for number in range(len(queries))])

    def _retries(self, num_queries: int, retries: int | None) -> RetryBudget | None:
        """Return the retries that all parts share."""
        if isinstance(self.reranker, Phi3VisionRerank):
            return retry_budget(num_queries, retries, model=self.reranker.vision_language_model)
        if retries is not None:
            raise ValueError(
                f"retries={retries} is for Phi3VisionRerank with the model of a server; "
                f"{type(self.reranker).__name__} has its own, leave it out"
            )
        return shared_budget()

    def _parts(
        self, queries: Sequence[Asked], batch_size: int, results: dict[int, Result], progress: Any
    ) -> Iterator[dict[int, Decision]]:
        """Decide about queries one by one; yield those to rerank in parts, put the others into results."""
        check_batch_size(batch_size)
        part: dict[int, Decision] = {}
        for number, (nodes, query) in enumerate(queries):
            decision = self._decide(nodes, query)
            if decision.shown:
                part[number] = decision
            else:
                results[number] = self._skipped(decision)
                progress.update()
            if len(part) == batch_size:
                yield part
                progress.update(len(part))
                part = {}
        if part:
            yield part
            progress.update(len(part))

    def _alone(self, decision: Decision) -> Result:
        try:
            return self.reranker.postprocess_nodes(decision.nodes, decision.query)
        except Exception as error:
            return error

    async def _aalone(self, decision: Decision) -> Result:
        try:
            return await self.reranker.apostprocess_nodes(decision.nodes, decision.query)
        except Exception as error:
            return error

    def _result(self, decision: Decision, ranked: Result) -> Result:
        return ranked if isinstance(ranked, Exception) else self._reranked(decision, ranked)

    # -- before and after ---------------------------------------------------------------------

    def _decide(self, nodes: Sequence[NodeWithScore], query: QueryBundle | None) -> Decision:
        rules = Rules(self.margin, self.margin_places, self.calls_per_query, self.budget)
        return decide(self.reranker, Candidates(nodes), query, rules)

    @contextmanager
    def _charged(self, decisions: Sequence[Decision]) -> Iterator[None]:
        """Have the budget charged with the calls that are made inside, also if they fail."""
        with counted_prompts() as counted:
            try:
                yield
            finally:
                known = isinstance(self.reranker, PlanningReranker)
                calls = counted.prompts if known else sum(each.planned for each in decisions)
                if self.budget is not None:
                    taken = [each.taken for each in decisions if each.taken is not None]
                    self.budget.settle(taken, calls)

    def _skipped(self, decision: Decision) -> list[NodeWithScore]:
        query = "" if decision.query is None else str(decision.query.query_str)
        dispatcher.event(RerankSkippedEvent(query_str=query, details=decision.details))
        kept = annotated_nodes(
            decision.candidates,
            without_model(decision.candidates),
            top_n=self._top_n(decision),
            keep_retrieval_score=getattr(self.reranker, "keep_retrieval_score", True),
            cost={},
        )
        return [_with_details(hit, decision.details) for hit in kept]

    def _reranked(self, decision: Decision, ranked: Sequence[NodeWithScore]) -> list[NodeWithScore]:
        """Return what the reranker did, with the audit; nodes it was not shown follow if there is place."""
        audited = isinstance(self.reranker, PlanningReranker)  # else an audit is one of another reranking
        hits = [_with_details(hit, decision.details, keep_audit=audited) for hit in ranked]
        more = self._top_n(decision) - decision.shown
        if more > 0:
            scores = [hit.score for hit in hits if hit.score is not None]
            last = min([0.0, *scores])  # scores of the retrieval are no probabilities
            for hit in decision.candidates.nodes[decision.shown :][:more]:
                place = {"rerank_rank": len(hits) + 1, "retrieval_score": hit.score}
                details = {**decision.details, "shown": False}
                hits.append(_with_details(annotated(hit, last, place), details, keep_audit=False))
        return hits

    def _top_n(self, decision: Decision) -> int:
        top_n = getattr(self.reranker, "top_n", None)
        return len(decision.candidates) if top_n is None else int(top_n)


def _with_details(hit: NodeWithScore, details: dict[str, Any], *, keep_audit: bool = True) -> NodeWithScore:
    audit = hit.node.metadata.get("rerank_audit") if keep_audit else None
    return annotated(hit, hit.score, {"rerank_audit": {**(audit or {}), "adaptive": details}})
