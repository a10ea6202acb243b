"""How long a server wants to be left alone: the header Retry-After of a failed request."""

from __future__ import annotations

from typing import Any

MAX_RETRY_AFTER_SECONDS = 60.0


def retry_after(error: BaseException | None) -> float | None:
    """Return the seconds that the response of an exception asks for, at most a minute.

    Args:
        error: what a client library raised; its ``response`` has the headers, if there was one.

    Returns:
        None where nothing is asked for, or a date.
    """
    headers: Any = getattr(getattr(error, "response", None), "headers", None) or {}
    try:
        asked = float(headers.get("retry-after", ""))
    except ValueError:
        return None
    return min(max(asked, 0.0), MAX_RETRY_AFTER_SECONDS)
