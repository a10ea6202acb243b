"""Which strategy ranks, by its name and by what the model can do."""

from __future__ import annotations

from ...vlm.protocols import ConstrainedModel, LabelScoringModel, VisionLanguageModel
from ..options import RerankOptions
from .answered_list import AnsweredList
from .base import RankingStrategy
from .constrained_list import ConstrainedList
from .first_token import FirstToken


def choose_strategy(model: VisionLanguageModel, options: RerankOptions) -> RankingStrategy:
    """Return the strategy that is set, in the way that fits the model.

    Raises:
        ValueError: the model lacks what the strategy needs.
    """
    constrained = isinstance(model, ConstrainedModel)
    if options.strategy == "first_token":
        if not isinstance(model, LabelScoringModel):
            raise ValueError(
                f"strategy='first_token' reads label logits, which {type(model).__name__} does not give; use "
                "strategy='listwise'"
            )
        return FirstToken(options.max_new_tokens, writes_reasons=constrained)
    if constrained:
        return ConstrainedList(options.max_new_tokens)
    return AnsweredList(options.max_new_tokens, options.on_bad_answer)
