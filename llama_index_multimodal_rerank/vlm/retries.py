"""Which failures of a remote model are worth another attempt, and when."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from typing import Any

import httpx
from tenacity import (
    RetryCallState,
    retry_if_exception,
    stop_after_attempt,
    wait_random_exponential,
)

from ..logs import one_line

logger = logging.getLogger(__name__)

MAX_RETRY_AFTER_SECONDS = 60.0
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


def _words(error: BaseException) -> str:
    """Return what an exception and the response it carries say."""
    try:
        body = str(getattr(getattr(error, "response", None), "text", ""))
    except Exception:  # a streamed response that was not read
        body = ""
    return f"{error} {getattr(error, 'body', '')} {body}"


def _wait(state: RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    headers: Any = getattr(getattr(error, "response", None), "headers", None) or {}
    try:
        asked = float(headers.get("retry-after", ""))
    except ValueError:  # absent, or a date
        return _backoff(state)
    return min(max(asked, 0.0), MAX_RETRY_AFTER_SECONDS)


def retry_options(max_retries: int, *, model_name: str) -> dict[str, Any]:
    """Return the arguments of ``tenacity.Retrying`` and ``AsyncRetrying``."""

    def log(state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        logger.warning(
            "%s: attempt %d of %d failed (%s: %s); the next one in %.1f s",
            one_line(model_name),
            state.attempt_number,
            max_retries + 1,
            type(error).__name__,
            one_line(str(error)),
            state.next_action.sleep if state.next_action else 0.0,
        )

    return {
        "stop": stop_after_attempt(max_retries + 1),
        "wait": _wait,
        "retry": retry_if_exception(is_transient),
        "before_sleep": log,
        "reraise": True,
    }
