"""What a model replies is held against what was asked, whoever wrote the model.

A reply that does not fit is an error that names the model and the fault. Otherwise a candidate that a custom
model forgot would be lost, or one that it made up would be looked for, without a word.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from .protocols import ImagePrompt, LabelRanking, LabelScores, RankRequest


class ReplyError(ValueError):
    """A reply that does not fit the request."""


def check_count(replies: Any, requests: Sequence[ImagePrompt]) -> list[Any]:
    """Return the replies to a batch as a list, one per request.

    Raises:
        ReplyError: there are more or fewer, or they are no sequence.
    """
    if isinstance(replies, str) or not isinstance(replies, Sequence):
        raise ReplyError(f"answered with {_name(replies)}, expected a list of {len(requests)} answers")
    if len(replies) != len(requests):
        raise ReplyError(f"gave {len(replies)} answers to {len(requests)} requests")
    return list(replies)


def check_text(reply: Any) -> str:
    """Return a text.

    Raises:
        ReplyError: it is none.
    """
    if not isinstance(reply, str):
        raise ReplyError(f"answered with {_name(reply)}, expected str")
    return reply


def check_logprobs(reply: Any, request: RankRequest) -> list[float]:
    """Return the scores of the labels: one number each, of which minus infinity is one and NaN is none.

    Raises:
        ReplyError: they are no list, too many, too few, or no numbers.
    """
    if not isinstance(reply, list):
        raise ReplyError(f"answered with {_name(reply)}, expected list")
    if len(reply) != request.num_labels:
        raise ReplyError(f"gave {len(reply)} label logits for {request.num_labels} labels")
    values = [_number(value, "label logit", least=-math.inf) for value in reply]
    if isinstance(reply, LabelScores):
        return LabelScores(values, usage=reply.usage, answer=reply.answer)
    return values


def check_ranking(reply: Any, request: RankRequest, order: Sequence[int] | None) -> LabelRanking:
    """Return a ranking that names every label once, with a probability each.

    Args:
        reply: what the model gave.
        request: what it was asked.
        order: the order it was to write, if that was given.

    Raises:
        ReplyError: it is no such ranking.
    """
    if not isinstance(reply, LabelRanking):
        raise ReplyError(f"answered with {_name(reply)}, expected LabelRanking")
    try:
        labels = tuple(label.__index__() for label in reply.order)
    except (TypeError, AttributeError):
        raise ReplyError(f"gave the order {reply.order!r}, which are no whole numbers") from None
    if sorted(labels) != list(range(request.num_labels)):
        raise ReplyError(
            f"gave the order {labels} for {request.num_labels} labels; it must hold each of 0 to "
            f"{request.num_labels - 1} exactly once"
        )
    if order is not None and labels != tuple(order):
        raise ReplyError(f"was to write the order {tuple(order)}, and wrote {labels}")
    if not isinstance(reply.probabilities, Sequence) or len(reply.probabilities) != len(labels):
        raise ReplyError(f"gave the probabilities {reply.probabilities!r} for {len(labels)} labels")
    probabilities = tuple(_number(value, "probability", least=0.0) for value in reply.probabilities)
    return LabelRanking(labels, probabilities, check_text(reply.text), reply.usage)


def _number(value: Any, what: str, *, least: float) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise ReplyError(f"gave the {what} {value!r}, which is no number") from None
    if math.isnan(number) or number == math.inf or number < least:
        raise ReplyError(f"gave the {what} {number}; its arithmetic has failed, try another dtype")
    return number


def _name(reply: Any) -> str:
    return type(reply).__name__
