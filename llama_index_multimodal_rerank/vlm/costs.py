"""What the answers to one query took: calls, tokens, time, retries, and why answers ended."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

from .calls import ModelCall, ModelCalls, PrefilledScores, Result
from .errors import ModelCallError
from .protocols import Answer, Usage


class CostMeter:
    """Adds up what the calls of one query take. The calls come one after the other, from any thread.

    Attributes:
        calls: prompts that a model was asked.
        retries: further attempts at them.
    """

    def __init__(self) -> None:
        self.calls = self.retries = 0
        self._tokens: dict[str, int] = {}
        self._finish_reasons: Counter[str] = Counter()
        self._seconds = 0.0
        self._asked_at: float | None = None
        self._failure: BaseException | None = None

    @property
    def seconds(self) -> float:
        """How long answers were waited for, retries and the pauses before them included."""
        waiting = 0.0 if self._asked_at is None else time.perf_counter() - self._asked_at
        return self._seconds + waiting

    def asked(self, call: ModelCall[Any]) -> None:
        """Note that a call is made."""
        self.calls += call.num_prompts
        self._asked_at = time.perf_counter()

    def answered(self, reply: Any) -> None:
        """Note the reply to it."""
        self._stop()
        answers: Sequence[Any] = reply.logprobs if isinstance(reply, PrefilledScores) else reply
        for answer in answers:
            usage = getattr(answer, "usage", None)
            if isinstance(usage, Usage):
                self.retries += usage.attempts - 1
                self._add("prompt_tokens", usage.prompt_tokens)
                self._add("answer_tokens", usage.answer_tokens)
            text = answer if isinstance(answer, Answer) else getattr(answer, "answer", None)
            if text is not None and text.finish_reason:
                self._finish_reasons[text.finish_reason] += 1

    def failed(self, error: Exception) -> None:
        """Note that there is no reply; an error that was noted before counts once."""
        self._stop()
        if error is not self._failure and isinstance(error, ModelCallError):
            self.retries += max(0, error.attempts - 1)
            self.calls -= error.attempts == 0
        self._failure = error

    def to_dict(self) -> dict[str, Any]:
        """Return what is known, as JSON values; nothing if no model was asked.

        Tokens are those of the answers that say so.
        """
        if self.calls <= 0:
            return {}
        known: dict[str, Any] = {"calls": self.calls, "retries": self.retries}
        known |= {"seconds": round(self.seconds, 3), **self._tokens}
        if self._finish_reasons:
            known["finish_reasons"] = dict(sorted(self._finish_reasons.items()))
        return known

    def _add(self, name: str, tokens: int | None) -> None:
        if tokens is not None:
            self._tokens[name] = self._tokens.get(name, 0) + tokens

    def _stop(self) -> None:
        self._seconds, self._asked_at = self.seconds, None


def metered(calls: ModelCalls[Result], meter: CostMeter) -> ModelCalls[Result]:
    """Pass an algorithm's calls on, and note what they take."""
    reply: Any = None
    try:
        while True:
            try:
                call = calls.throw(reply) if isinstance(reply, Exception) else calls.send(reply)
            except StopIteration as stop:
                result: Result = stop.value
                return result
            meter.asked(call)
            try:
                reply = yield call
                meter.answered(reply)
            except ModelCallError as error:
                meter.failed(error)
                reply = error
    finally:
        calls.close()
