"""The reranking algorithm: from candidates to one order, as a generator of model calls.

It yields what it wants to ask and is sent the answers, so that it does not know whether a thread or an
event loop carries them out.
"""

from __future__ import annotations

import logging
import math
import random
import time
import uuid
from collections.abc import Iterator, MutableMapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from llama_index.core.prompts import BasePromptTemplate

from ..images.sources import pixels_digest
from ..vlm.calls import Generate, ModelCalls, Prefill, RankLabels, ScoreLabels, ask
from ..vlm.protocols import (
    ConstrainedModel,
    ImagePrompt,
    JsonModel,
    PrefilledRequests,
    RankRequest,
    VisionLanguageModel,
)
from .aggregation import borda_count, kendall_w
from .candidates import Candidate, Candidates, QueryContent
from .prompts import (
    describe_candidates,
    describe_query,
    json_format,
    list_format,
    list_labels,
    ranking_schema,
)
from .ranking import (
    Audit,
    BadAnswerError,
    OnBadAnswer,
    Ranking,
    cumulative_scores,
    rank_scores,
    ranking_from_answer,
    retrieval_order,
)
from .sheet import build_sheet
from .shortening import Shortener
from .windows import sliding_windows

if TYPE_CHECKING:
    from PIL.Image import Image

logger = logging.getLogger(__name__)

MAX_RETRIES = 2
"""How often ``on_bad_answer="retry"`` asks again before it repairs."""

MANY_WINDOWS = 4
"""From this many windows on there is a progress bar, on a terminal."""

CAPTION_TOKENS = 64
CAPTIONS_KEPT = 1024


@dataclass(frozen=True)
class RerankResult:
    """What came of a query.

    Attributes:
        order: candidate indices, best first; all of them.
        scores: score of each place of ``order``, never rising.
        reason: why the first is first, or None.
        caption: caption of the query picture, or None.
        audits: one per answer, in the order asked.
        confidence: agreement of permutations in the last window, or None.
        query_shortened: whether the query's text was cut for the prompt.
    """

    order: tuple[int, ...]
    scores: tuple[float, ...]
    reason: str | None
    caption: str | None
    audits: tuple[Audit, ...]
    confidence: float | None
    query_shortened: bool = False


@dataclass(frozen=True)
class ListwiseReranker:
    """Settings of the algorithm, and the algorithm. Fields as in ``Phi3VisionRerank``.

    Attributes:
        captions: captions made so far, by model, prompt and picture; may be shared.
    """

    model: VisionLanguageModel
    strategy: Literal["first_token", "listwise"]
    window: int
    stride: int
    permutations: int
    seed: int
    caption: bool
    explain: bool
    show_text: bool
    num_crops: int
    max_new_tokens: int
    max_query_tokens: int
    max_text_tokens: int
    on_bad_answer: OnBadAnswer
    rank_prompt: BasePromptTemplate
    caption_prompt: BasePromptTemplate
    save_sheets: Path | None
    captions: MutableMapping[tuple[str, str, str], str]

    def run(self, query: QueryContent, candidates: Candidates) -> ModelCalls[RerankResult]:
        """Rank candidates."""
        n = len(candidates)
        if n == 0:
            return without_model(candidates)
        shortener = Shortener.of(self.model)
        words = shortener.cut(query.text, self.max_query_tokens)
        shown_query = replace(query, text=words)

        def shorten(text: str) -> str:
            return shortener.cut(text, self.max_text_tokens)

        order = list(range(n))
        audits: list[Audit] = []
        caption: str | None = None
        ranking: Ranking | None = None
        spans = sliding_windows(n, self.window, self.stride)
        for start, end in _progress(spans):
            members = order[start:end]
            shown = candidates.show(members, shorten)
            if all(member.problem is not None for member in shown):
                continue
            if n == 1 and not self.explain:
                return without_model(candidates)
            if ranking is None:
                caption = yield from self._caption(query.picture, shortener)
            ranking, asked = yield from self._rank_window(
                shown_query, caption, shown, explain=self.explain and start == 0
            )
            # What cannot be looked at does not travel upwards, whatever the model says about grey cells.
            best_first = [members[place] for place in ranking.order]
            order[start:end] = sorted(best_first, key=lambda index: index in candidates.problems)
            audits += asked
        if ranking is None:
            return without_model(candidates, error="no candidate can be looked at")
        # Probabilities of different sheets say nothing about each other; only the order does.
        scores = ranking.scores if len(spans) == 1 else rank_scores(n)
        if all(audit.action == "retrieval_order" for audit in audits):  # then they would tell of a ranking
            scores = _retrieval_scores(candidates)
        if len(spans) == 1:
            order = list(best_first)  # with which the scores go
        order, scores = unreadable_last(order, scores, candidates)
        if words != query.text or candidates.shortened:
            logger.warning(
                "Texts were cut for the prompt: that of the query (max_query_tokens=%d): %s; of candidates "
                "(max_text_tokens=%d): %d",
                self.max_query_tokens,
                "yes" if words != query.text else "no",
                self.max_text_tokens,
                len(candidates.shortened),
            )
        # An answer may hold a reason that nobody asked for, or for one that cannot be seen.
        explained = self.explain and order[0] == best_first[0]
        return RerankResult(
            tuple(order),
            scores,
            ranking.reason if explained else None,
            caption,
            tuple(audits),
            ranking.confidence,
            query_shortened=words != query.text,
        )

    # -- the query's caption ------------------------------------------------------------------

    def _caption(self, picture: Image | None, shortener: Shortener) -> ModelCalls[str | None]:
        if picture is None or not self.caption:
            return None
        prompt = self.caption_prompt.format()
        key = (self.model.model_name, prompt, pixels_digest(picture))
        if key not in self.captions:
            (answer,) = yield from ask(Generate((ImagePrompt((picture,), prompt),), CAPTION_TOKENS))
            text = " ".join(answer.split())
            if len(self.captions) >= CAPTIONS_KEPT:
                self.captions.clear()
            # Remote models have a length limit of their own, or none.
            self.captions[key] = shortener.cut(text, 2 * CAPTION_TOKENS)
        return self.captions.get(key) or None

    # -- one window ---------------------------------------------------------------------------

    def _rank_window(
        self, query: QueryContent, caption: str | None, members: Sequence[Candidate], *, explain: bool
    ) -> ModelCalls[tuple[Ranking, list[Audit]]]:
        """Rank the candidates of one sheet; returns the audit of each answer, too."""
        n = len(members)
        if n == 1 and not explain:
            return retrieval_order(1), []
        shuffles = self._shuffles(n)
        requests = tuple(
            self._request(query, caption, [members[place] for place in shuffle], explain=explain)
            for shuffle in shuffles
        )
        with_list = explain and len(shuffles) == 1 and self.strategy == "listwise"
        prefilled: PrefilledRequests | None = None
        if self.strategy == "first_token" and explain and len(shuffles) == 1:  # then for the reason
            scored = yield from ask(Prefill(requests))
            rankings, prefilled = [_from_logits(each) for each in scored.logprobs], scored.prefilled
        else:
            rankings = yield from self._ask(requests, explain=explain, with_list=with_list)
        audits = [ranking.audit for ranking in rankings]
        ranking = _consensus(shuffles, rankings)
        # A reason that was written with the list is all there is, if it is empty, too.
        if explain and not with_list and isinstance(self.model, ConstrainedModel):
            if len(shuffles) > 1:
                requests = (self._request(query, caption, members, explain=True),)
            (written,) = yield from ask(RankLabels(requests, self.max_new_tokens, ranking.order, prefilled))
            ranking = replace(ranking, reason=written.text or None)
        return ranking, audits

    def _shuffles(self, n: int) -> list[list[int]]:
        """Return, for each sheet, which candidate has which label."""
        if self.permutations == 1:
            return [list(range(n))]
        generator = random.Random(self.seed)  # noqa: S311 (no secret)
        return [generator.sample(range(n), n) for _ in range(self.permutations)]

    def _request(
        self, query: QueryContent, caption: str | None, members: Sequence[Candidate], *, explain: bool
    ) -> RankRequest:
        sheet = build_sheet(
            [member.cell for member in members],
            query.picture,
            num_crops=self.num_crops,
            show_text=self.show_text,
        )
        if self.save_sheets is not None:
            self.save_sheets.mkdir(parents=True, exist_ok=True)
            name = f"{time.strftime('%Y%m%d-%H%M%S')}-{time.monotonic_ns()}-{uuid.uuid4().hex[:6]}.png"
            sheet.image.save(self.save_sheets / name)
        prompt = self.rank_prompt.format(
            query=describe_query(query.text, has_picture=query.picture is not None, caption=caption),
            query_str=query.text,
            query_caption=caption or "",
            num_candidates=str(len(members)),
            labels=list_labels(len(members)),
            candidate_texts=describe_candidates([member.words for member in members]),
            answer_format=self._answer_format(explain),
        )
        return RankRequest((sheet.image,), prompt, len(members))

    def _answer_format(self, explain: bool) -> str:
        if isinstance(self.model, ConstrainedModel):
            return list_format(explain=explain, declared=False)
        if isinstance(self.model, JsonModel):
            return json_format(explain=explain)
        return list_format(explain=explain, declared=True)

    def _ask(
        self, requests: tuple[RankRequest, ...], *, explain: bool, with_list: bool
    ) -> ModelCalls[list[Ranking]]:
        """Rank the labels of each request of a batch."""
        n = requests[0].num_labels
        if self.strategy == "first_token":
            logprobs = yield from ask(ScoreLabels(requests))
            return [_from_logits(each) for each in logprobs]
        if isinstance(self.model, ConstrainedModel):
            written = yield from ask(RankLabels(requests, self.max_new_tokens if with_list else 0))
            audit = Audit(expected=n, source="constraint", listed=n)
            return [
                Ranking(each.order, cumulative_scores(each.probabilities), each.text or None, audit)
                for each in written
            ]
        return (yield from self._ask_for_text(requests, explain=explain))

    def _ask_for_text(self, requests: tuple[RankRequest, ...], *, explain: bool) -> ModelCalls[list[Ranking]]:
        n = requests[0].num_labels
        # Half a dozen tokens per entry hold it in any of the usual forms.
        tokens = 6 * n + 32 + self.max_new_tokens
        schema = ranking_schema(n, explain=explain)
        rankings: dict[int, Ranking] = {}
        open_requests = dict(enumerate(requests))
        attempts = 1 + (MAX_RETRIES if self.on_bad_answer == "retry" else 0)
        for attempt in range(1, attempts + 1):
            answers = yield from ask(Generate(tuple(open_requests.values()), tokens, schema))
            policy: OnBadAnswer = self.on_bad_answer
            if policy == "retry" and attempt == attempts:
                policy = "repair"
            for number, text in zip(list(open_requests), answers, strict=True):
                try:
                    ranking = ranking_from_answer(text, n, on_bad_answer=policy)
                except BadAnswerError as error:
                    if policy == "raise":
                        raise
                    open_requests[number] = _again(requests[number], error.audit)
                    continue
                audit = replace(ranking.audit, attempts=attempt)
                rankings[number] = replace(ranking, audit=audit)
                del open_requests[number]
            if not open_requests:
                break
        return [rankings[number] for number in range(len(requests))]


def _again(request: RankRequest, audit: Audit) -> RankRequest:
    return replace(
        request,
        prompt=f"{request.prompt}\nYour last answer was not a complete ranking: {audit.describe()}. Name "
        f"each of the numbers 1 to {request.num_labels} exactly once.",
    )


def _from_logits(logits: Sequence[float]) -> Ranking:
    probabilities = _softmax(logits)
    order = sorted(range(len(logits)), key=lambda label: (-logits[label], label))
    audit = Audit(expected=len(order), source="first_token", listed=len(order))
    return Ranking(tuple(order), tuple(probabilities[label] for label in order), None, audit)


def _softmax(logits: Sequence[float]) -> list[float]:
    highest = max(logits)
    if highest == -math.inf:
        return [1 / len(logits)] * len(logits)
    weights = [math.exp(logit - highest) for logit in logits]
    total = math.fsum(weights)
    return [weight / total for weight in weights]


def _consensus(shuffles: Sequence[Sequence[int]], rankings: Sequence[Ranking]) -> Ranking:
    """Turn rankings of labels into one ranking of candidates."""
    orders = [
        tuple(shuffle[label] for label in ranking.order)
        for shuffle, ranking in zip(shuffles, rankings, strict=True)
    ]
    if len(orders) == 1:
        return replace(rankings[0], order=orders[0])
    order, scores = borda_count(orders)
    reasons = (each.reason for own, each in zip(orders, rankings, strict=True) if own[0] == order[0])
    reason = next((reason for reason in reasons if reason), None)
    return Ranking(order, scores, reason, rankings[0].audit, confidence=kendall_w(orders))


def without_model(candidates: Candidates, *, error: str | None = None, attempts: int = 0) -> RerankResult:
    """Return the retrieval order, with its scores, where nothing was ranked.

    Args:
        candidates: in retrieval order.
        error: why, if a ranking was wanted.
        attempts: how often a model was asked for one.
    """
    kept = retrieval_order(len(candidates), error=error, attempts=attempts)
    order, scores = unreadable_last(kept.order, _retrieval_scores(candidates), candidates)
    return RerankResult(tuple(order), scores, None, None, (kept.audit,), None)


def _retrieval_scores(candidates: Candidates) -> tuple[float, ...]:
    """Return the scores that candidates came with, none above the one before; all 0 where one has none."""
    scores: list[float] = []
    for node in candidates.nodes:
        if node.score is None or not math.isfinite(node.score):
            return (0.0,) * len(candidates)
        scores.append(float(min(node.score, scores[-1] if scores else node.score)))
    return tuple(scores)


def unreadable_last(
    order: Sequence[int], scores: Sequence[float], candidates: Candidates
) -> tuple[list[int], tuple[float, ...]]:
    """Move candidates that could not be looked at behind the others, in their retrieval order, at score 0."""
    problems = candidates.problems
    readable = [index for index in order if index not in problems]
    kept = [score for index, score in zip(order, scores, strict=True) if index not in problems]
    last = min(0.0, kept[-1] if kept else 0.0)  # scores of retrieval can lie below
    return [*readable, *sorted(problems)], (*kept, *(last for _ in problems))


def _progress(spans: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    from tqdm.auto import tqdm

    # None: on a terminal only.
    yield from tqdm(spans, desc="Reranking", disable=None if len(spans) >= MANY_WINDOWS else True)
