"""Which failures of a remote model are worth another attempt, and when."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, TypeVar

import httpx
from tenacity import RetryCallState, retry_if_exception, wait_random_exponential

from ..logs import one_line
from ..retry_after import retry_after
from .errors import ModelCallError
from .protocols import Answer, LabelScores, Usage
from .retry_budget import FAILURES_IN_A_ROW, shared_budget

logger = logging.getLogger(__name__)

Read = TypeVar("Read", Answer, LabelScores)

_SCHEMA = re.compile(
    r"response.?format|json.?schema|structured|guided|grammar|unexpected keyword|extra (?:inputs|fields)",
    re.I,
)
_FILTERED = re.compile(r"content.?filter|content management policy|responsible.?ai|moderation|safety", re.I)
_TRANSIENT_STATUS = frozenset({408, 409, 425, 429})
_backoff = wait_random_exponential(multiplier=1.0, max=20.0)


def status_code(error: BaseException) -> int | None:
    """Return the HTTP status an exception carries, whichever client library raised it."""
    response = getattr(error, "response", None)
    for holder in (error, response):
        for name in ("status_code", "status", "code"):
            value = getattr(holder, name, None)
            if isinstance(value, int) and 100 <= value < 600:
                return value
    return None


def is_transient(error: BaseException) -> bool:
    """Tell whether a failure may pass: timeout, lost connection, rate limit, server error, broken body."""
    status = status_code(error)
    if status is not None:
        return status in _TRANSIENT_STATUS or status >= 500
    kinds = (TimeoutError, asyncio.TimeoutError, ConnectionError, httpx.TransportError, json.JSONDecodeError)
    # Client libraries wrap these in classes of their own, without a common base.
    named = any(word in type(error).__name__ for word in ("Timeout", "ConnectionError"))
    return isinstance(error, kinds) or named or _has_no_choice(error)


def _has_no_choice(error: BaseException) -> bool:
    """Tell whether a client found no answer in a response that was one: ``choices`` empty or null."""
    null = isinstance(error, (TypeError, AttributeError)) and "NoneType" in str(error)
    return null or isinstance(error, IndexError)


def is_refusal_of_parameters(error: BaseException) -> bool:
    """Tell whether a failure may mean that the server or client does not know a parameter."""
    refused = not is_transient(error) and status_code(error) in (None, 400, 404, 415, 422)
    return refused and _FILTERED.search(_words(error)) is None


def names_schema(error: BaseException) -> bool:
    """Tell whether a failure names the schema, or the parameter that holds it, as what is not known."""
    return _SCHEMA.search(_words(error)) is not None


def names_logprobs(error: BaseException) -> bool:
    """Tell whether a failure names log-probabilities as what is not known."""
    return "logprob" in _words(error)


def _words(error: BaseException) -> str:
    """Return what an exception and the response it carries say."""
    try:
        body = str(getattr(getattr(error, "response", None), "text", ""))
    except Exception:  # a streamed response that was not read
        body = ""
    return f"{error} {getattr(error, 'body', '')} {body}"


def _wait(state: RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    asked = retry_after(error)
    return _backoff(state) if asked is None else asked


class Attempts:
    """Counts the attempts at one call, which may share a budget of retries with others.

    Args:
        model_name: who is asked.
        max_retries: further attempts of this call.
        before: attempts that were made in another way.

    Attributes:
        made: attempts so far.
    """

    def __init__(self, model_name: str, max_retries: int, before: int = 0) -> None:
        self.model_name, self.max_retries = model_name, max_retries
        self.made = before
        self._budget = shared_budget()
        self._stopped = False

    def retry_options(self) -> dict[str, Any]:
        """Return the arguments of ``tenacity.Retrying`` and ``AsyncRetrying``."""
        return {
            "stop": self._stop,
            "wait": _wait,
            "retry": retry_if_exception(is_transient),
            "before_sleep": self._log,
            "reraise": True,
        }

    def done(self, read: Read) -> Read:
        """Note that there was an answer; returns it, with the number of attempts in its usage."""
        read.usage = replace(read.usage or Usage(), attempts=self.made)
        if self._budget is not None:
            self._budget.succeeded()
        return read

    @contextmanager
    def failures(self) -> Iterator[None]:
        """Name failures of the model.

        Raises:
            ModelCallError: there was no answer, or its server counts as down and is not asked.
        """
        if self._budget is not None and self._budget.given_up:
            raise ModelCallError(
                f"{self.model_name} was not asked: the last {FAILURES_IN_A_ROW} calls of this batch failed, "
                f"and the {self._budget.retries} retries that its queries share are used up",
                attempts=0,
            )
        try:
            yield
        except Exception as error:
            if self._budget is not None:
                (self._budget.failed if is_transient(error) else self._budget.succeeded)()
            failure = ModelCallError.from_cause(self.model_name, error, attempts=self.made)
            if self._stopped:
                failure.args = (f"{failure} (the retries that the queries of this batch share are used up)",)
            raise failure from error

    def _stop(self, state: RetryCallState) -> bool:
        if state.attempt_number > self.max_retries:
            return True
        self._stopped = self._budget is not None and not self._budget.take()
        return self._stopped

    def _log(self, state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        logger.warning(
            "%s: attempt %d of %d failed (%s: %s); the next one in %.1f s",
            one_line(self.model_name),
            state.attempt_number,
            self.max_retries + 1,
            type(error).__name__,
            one_line(str(error)),
            state.next_action.sleep if state.next_action else 0.0,
        )
