"""How many prompts the algorithm will ask, before it asks the first."""

from __future__ import annotations

from ..vlm.protocols import PrefillingModel
from .listwise import ListwiseReranker
from .windows import sliding_windows


def planned_prompts(reranker: ListwiseReranker, num_candidates: int, *, query_picture: bool) -> int:
    """Return how many prompts are asked, if every answer is good and no caption is known.

    Args:
        reranker: the algorithm, with its settings.
        num_candidates: how many candidates it is given.
        query_picture: whether the query has a picture.
    """
    options = reranker.options
    spans = sliding_windows(num_candidates, options.window, options.stride)
    prompts = 0
    for start, end in spans if num_candidates else []:
        explain = options.explain is True and start == 0
        if end - start == 1 and not explain:  # there is nothing to order
            continue
        prompts += options.permutations
        if explain:
            prompts += reranker.strategy.prompts_for_reason(
                options.permutations, prefills=isinstance(reranker.model, PrefillingModel)
            )
    prompts += int(num_candidates > 0 and options.explain == "closer_look")
    return prompts + int(bool(prompts) and query_picture and options.caption)
