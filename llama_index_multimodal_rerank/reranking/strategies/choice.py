"""Which strategy ranks, by its name and by what the model can do."""

from __future__ import annotations

from ...vlm.protocols import AnswerScoringModel, ConstrainedModel, LabelScoringModel, VisionLanguageModel
from ..options import RerankOptions
from .answered_first_token import AnsweredFirstToken
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
            if isinstance(model, AnswerScoringModel):
                return _over_a_network(model, options)
            raise ValueError(
                f"strategy='first_token' reads label logits, which {type(model).__name__} does not give; use "
                "strategy='listwise'"
            )
        return FirstToken(options.max_new_tokens, writes_reasons=constrained)
    if constrained:
        return ConstrainedList(options.max_new_tokens)
    return AnsweredList(options.max_new_tokens, options.on_bad_answer)


def _over_a_network(model: AnswerScoringModel, options: RerankOptions) -> RankingStrategy:
    if options.window > model.max_scored_labels:
        raise ValueError(
            f"strategy='first_token' tells {model.max_scored_labels} candidates of a sheet apart over a "
            f"network, since larger numbers begin like others (1 and 12), got window={options.window}; set "
            f"window to 2 to {model.max_scored_labels}, or use strategy='listwise'"
        )
    return AnsweredFirstToken(options.max_new_tokens, options.on_bad_answer)
