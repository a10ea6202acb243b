"""The reranking algorithm: from candidates to one order, as a generator of model calls.

It yields what it wants to ask and is sent the answers, so that it does not know whether a thread or an
event loop carries them out. Windows slide over the candidates (:mod:`.windows`). Each is ranked on one sheet,
or on several that are shuffled (:mod:`.permutations`), by a strategy (:mod:`.strategies`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from ..vlm.calls import ModelCalls
from ..vlm.protocols import RankRequest, VisionLanguageModel
from .candidates import Candidate, Candidates, QueryContent
from .captions import Captions, write_caption
from .closer_look import closer_look
from .options import RerankOptions
from .permutations import consensus, shuffled
from .ranking import Audit, Ranking, rank_scores, retrieval_order
from .result import RerankResult, retrieval_scores, unreadable_last, without_model
from .sheet_layout import largest_picture_side
from .sheet_request import describe_answer, sheet_request
from .shortening import Shortener
from .strategies.base import RankingStrategy, without_reason
from .windows import sliding_windows

logger = logging.getLogger(__name__)

MANY_WINDOWS = 4
"""From this many windows on there is a progress bar, on a terminal."""


@dataclass(frozen=True)
class ListwiseReranker:
    """The algorithm.

    Attributes:
        model: who is asked; what it can do decides how answers are asked for.
        strategy: how the labels of a sheet are ranked.
        options: all settings.
        captions: captions made so far; may be shared.
    """

    model: VisionLanguageModel
    strategy: RankingStrategy
    options: RerankOptions
    captions: Captions

    def picture_side(self, num_candidates: int, *, query: bool) -> int:
        """Return the side, in pixels, of the squares that sheets show pictures in.

        Args:
            num_candidates: 1 or more.
            query: whether the query has a picture.

        Raises:
            ValueError: so many candidates are too small to be looked at with so few tiles.
        """
        return largest_picture_side(
            min(num_candidates, self.options.window),
            query=query,
            num_crops=self.options.num_crops,
            show_text=self.options.show_text,
        )

    def run(self, query: QueryContent, candidates: Candidates) -> ModelCalls[RerankResult]:
        """Rank candidates."""
        options, n = self.options, len(candidates)
        if n == 0:
            return without_model(candidates)
        shortener = Shortener.of(self.model)
        words = shortener.cut(query.text, options.max_query_tokens)
        shown_query = replace(query, text=words)

        def shorten(text: str) -> str:
            return shortener.cut(text, options.max_text_tokens)

        order = list(range(n))
        audits: list[Audit] = []
        caption: str | None = None
        ranking: Ranking | None = None
        side = self.picture_side(n, query=query.picture is not None)
        spans = sliding_windows(n, options.window, options.stride)
        for start, end in _progress(spans):
            members = order[start:end]
            shown = candidates.show(members, shorten, side=side)
            if all(member.problem is not None for member in shown):
                continue
            if n == 1 and not options.explain:
                return without_model(candidates)
            if ranking is None:
                caption = yield from self._caption(query, shortener)
            ranking, asked = yield from self._rank_window(
                shown_query, caption, shown, explain=options.explain is True and start == 0
            )
            # What cannot be looked at does not travel upwards, whatever the model says about grey cells.
            labelled, best_first = tuple(members), [members[place] for place in ranking.order]
            order[start:end] = sorted(best_first, key=lambda index: index in candidates.problems)
            audits += asked
        if ranking is None:
            return without_model(candidates, error="no candidate can be looked at")
        # Probabilities of different sheets say nothing about each other; only the order does.
        scores = ranking.scores if len(spans) == 1 else rank_scores(n)
        if all(audit.source == "none" or audit.action == "retrieval_order" for audit in audits):
            # The others would tell of a ranking.
            scores = retrieval_scores(candidates)
        if len(spans) == 1:
            order = list(best_first)  # with which the scores go
        order, scores = unreadable_last(order, scores, candidates)
        reason, reason_labelled = ranking.reason, labelled
        if options.explain == "closer_look":
            reason_labelled = (order[0],)
            reason, lost = yield from self._closer_look(shown_query, caption, candidates, order[0], shorten)
            audits[0] = replace(audits[0], reason_error=lost)
        elif not options.explain or order[0] != best_first[0]:
            reason = None  # one that nobody asked for, or for one that cannot be seen
        if words != query.text or candidates.shortened:
            logger.warning(
                "Texts were cut for the prompt: that of the query (max_query_tokens=%d): %s; of candidates "
                "(max_text_tokens=%d): %d",
                options.max_query_tokens,
                "yes" if words != query.text else "no",
                options.max_text_tokens,
                len(candidates.shortened),
            )
        return RerankResult(
            tuple(order),
            scores,
            reason,
            caption,
            tuple(audits),
            ranking.confidence,
            query_shortened=words != query.text,
            labelled=labelled,
            reason_labelled=reason_labelled,
        )

    def _caption(self, query: QueryContent, shortener: Shortener) -> ModelCalls[str | None]:
        if query.picture is None or not self.options.caption:
            return None
        return (
            yield from write_caption(
                query.picture,
                self.options.caption_prompt.format(),
                model_name=self.model.model_name,
                captions=self.captions,
                shortener=shortener,
            )
        )

    def _closer_look(
        self,
        query: QueryContent,
        caption: str | None,
        candidates: Candidates,
        best: int,
        shorten: Callable[[str], str],
    ) -> ModelCalls[tuple[str | None, str | None]]:
        """Return why the best is the best, or what kept it from being looked at or told."""
        side = self.picture_side(1, query=query.picture is not None)
        shown = candidates.show_larger(best, shorten, side=side)
        if shown.problem is not None:
            return None, shown.problem
        return (yield from without_reason(closer_look(query, caption, shown, self.options)))

    def _rank_window(
        self, query: QueryContent, caption: str | None, members: Sequence[Candidate], *, explain: bool
    ) -> ModelCalls[tuple[Ranking, list[Audit]]]:
        """Rank the candidates of one window; returns the audit of each answer, too."""
        n = len(members)
        if n == 1 and not explain:
            only = retrieval_order(1)
            return only, [only.audit]
        answer_format = self.strategy.answer_format() or describe_answer(self.model, explain=explain)

        def draw(places: Sequence[int]) -> RankRequest:
            shown = [members[place] for place in places]
            return sheet_request(query, caption, shown, answer_format=answer_format, options=self.options)

        shuffles = shuffled(n, self.options.permutations, self.options.seed)
        requests = tuple(map(draw, shuffles))
        rankings = yield from self.strategy.rank(requests, explain=explain)
        ranking = consensus(shuffles, rankings)
        if explain and len(shuffles) > 1:
            drawn = dict(zip(map(tuple, shuffles), requests, strict=True))
            unshuffled = drawn.get(tuple(range(n)))  # whose sheet the model has seen
            explaining = self.strategy.explain(ranking, lambda: unshuffled or draw(range(n)))
            reason, lost = yield from without_reason(explaining)
            ranking = replace(ranking, reason=reason)
            rankings[0] = replace(rankings[0], audit=replace(rankings[0].audit, reason_error=lost))
        return ranking, [each.audit for each in rankings]


def _progress(spans: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    from tqdm.auto import tqdm

    # None: on a terminal only.
    yield from tqdm(spans, desc="Reranking", disable=None if len(spans) >= MANY_WINDOWS else True)
