"""Label probabilities out of the log-probabilities that a server gives of an answer's first tokens."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from llama_index.core.base.llms.types import ChatResponse

from .chat_answers import at_path, read_response
from .protocols import LabelScores

TOP_LOGPROBS = 20
"""Tokens whose log-probability is asked for: as many as OpenAI's protocol allows, and vLLM by default."""

MAX_LABELS = 9
"""Labels that one token can tell apart: most tokenizers write 12 as 1 and 2."""

MAX_TOKENS = 4
"""Tokens that are written: a blank or bracket may come before the first label, and counts as a token."""

_OPENING = re.compile(r"[\s\u2581\u0120\[({\"'`*_#]*")
_LABEL = re.compile(r"[\s\u2581\u0120\[({\"'`*_#]*([1-9])[\s\])}\"'`*_.,:;>]*", re.ASCII)
_NO_ANSWER = re.compile(r"content.?filter|refus|safety|prohibited|blocklist", re.I)
_LEAST = -9999.0
"""What vLLM writes for minus infinity, which JSON has not."""


class NoLogprobsError(ValueError):
    """A response without the log-probabilities that were asked for."""


class _Position(NamedTuple):
    written: str
    tops: list[tuple[str, float]]


def read_label_scores(response: ChatResponse, num_labels: int) -> LabelScores:
    """Return the log-probabilities of the labels 1..num_labels to begin an answer.

    They are read where the first token stands that is more than a blank, bracket or quotation mark. Tokens
    that name the same label (``"3"``, ``" 3"``, ``"[3"``) are added up. A label that is not among the tokens
    that the server tells of has minus infinity.

    Args:
        response: the response to a request with ``logprobs`` and ``top_logprobs``.
        num_labels: how many labels there are, 1 to 9.

    Raises:
        NoLogprobsError: there are no log-probabilities, and the response is no refusal.
    """
    answer = read_response(response)
    positions = _positions(response)
    if positions is None:
        if not answer.refusal and not _NO_ANSWER.search(answer.finish_reason or ""):
            raise NoLogprobsError(
                "the response has no log-probabilities of its tokens, which strategy='first_token' reads; "
                f"use a server that gives them (logprobs=True, top_logprobs={TOP_LOGPROBS}), or "
                "strategy='listwise'"
            )
        positions = []
    first = next((each for each in positions if not _OPENING.fullmatch(each.written)), None)
    found: list[list[float]] = [[] for _ in range(num_labels)]
    for token, logprob in first.tops if first else []:
        label = _LABEL.fullmatch(token)
        if label and int(label[1]) <= num_labels and logprob > _LEAST:
            found[int(label[1]) - 1].append(logprob)
    return LabelScores(map(_log_sum, found), answer=answer)


def _positions(response: ChatResponse) -> list[_Position] | None:
    """Return what a response tells of its tokens; None if it tells nothing."""
    content = at_path(response.raw, ("choices", 0, "logprobs", "content"))
    if content is not None:
        return [
            _Position(str(at_path(each, ("token",)) or ""), _tops(at_path(each, ("top_logprobs",)) or [each]))
            for each in content
        ]
    if response.logprobs is not None:  # of each position, LlamaIndex keeps the top tokens only
        tops = [_tops(each) for each in response.logprobs]
        return [_Position(max(each, key=lambda top: top[1])[0], each) for each in tops if each]
    return None


def _tops(entries: Sequence[Any]) -> list[tuple[str, float]]:
    pairs = [(at_path(each, ("token",)), at_path(each, ("logprob",))) for each in entries]
    # A token may be named twice: as the one that was written, and among the top ones.
    return [*{str(token): float(logprob) for token, logprob in pairs if logprob is not None}.items()]


def _log_sum(logprobs: Sequence[float]) -> float:
    if not logprobs:
        return -math.inf
    highest = max(logprobs)
    return highest + math.log(math.fsum(math.exp(each - highest) for each in logprobs))
