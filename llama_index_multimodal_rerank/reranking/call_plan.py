"""How many questions the algorithm will ask, before it asks the first."""

from __future__ import annotations

from ..vlm.protocols import PrefillingModel
from .listwise import ListwiseReranker
from .windows import sliding_windows


def planned_questions(reranker: ListwiseReranker, num_candidates: int, *, query_picture: bool) -> int:
    """Return how many questions are asked, if every answer is good and no caption is known.

    Args:
        reranker: the algorithm, with its settings.
        num_candidates: how many candidates it is given.
        query_picture: whether the query has a picture.
    """
    options = reranker.options
    spans = sliding_windows(num_candidates, options.window, options.stride)
    questions = 0
    for start, end in spans if num_candidates else []:
        explain = options.explain and start == 0
        if end - start == 1 and not explain:  # there is nothing to order
            continue
        questions += options.permutations
        if explain:
            questions += reranker.strategy.questions_for_reason(
                options.permutations, prefills=isinstance(reranker.model, PrefillingModel)
            )
    return questions + int(bool(questions) and query_picture and options.caption)
