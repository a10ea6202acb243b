"""Which failures of a remote model are worth another attempt, and when."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

import httpx
from tenacity import (
    RetryCallState,
    before_sleep_log,
    retry_if_exception,
    stop_after_attempt,
    wait_random_exponential,
)

logger = logging.getLogger(__name__)

MAX_RETRY_AFTER_SECONDS = 60.0
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
    return isinstance(error, kinds) or named


def is_refusal_of_parameters(error: BaseException) -> bool:
    """Tell whether a failure may mean that the server or client does not know a parameter."""
    return not is_transient(error) and status_code(error) in (None, 400, 404, 415, 422)


def _wait(state: RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    headers: Any = getattr(getattr(error, "response", None), "headers", None) or {}
    try:
        asked = float(headers.get("retry-after", ""))
    except ValueError:  # absent, or a date
        return _backoff(state)
    return min(max(asked, 0.0), MAX_RETRY_AFTER_SECONDS)


def retry_options(max_retries: int) -> dict[str, Any]:
    """Return the arguments of ``tenacity.Retrying`` and ``AsyncRetrying``."""
    return {
        "stop": stop_after_attempt(max_retries + 1),
        "wait": _wait,
        "retry": retry_if_exception(is_transient),
        "before_sleep": before_sleep_log(logger, logging.WARNING),
        "reraise": True,
    }
