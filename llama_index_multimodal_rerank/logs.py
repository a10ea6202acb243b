"""Names and texts of others in log lines and errors."""

from __future__ import annotations


def escape_control(text: str) -> str:
    """Return a text with all that does not print, line ends and escape codes first, written as escapes.

    So that a name that others chose cannot begin a line of a log, or write over one.
    """
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode("ascii") for letter in text
    )


def one_line(text: str, limit: int = 500) -> str:
    """Return a text as it may stand in a log line: shortened, and escaped by :func:`escape_control`.

    Args:
        text: any text.
        limit: characters kept.
    """
    return escape_control(text if len(text) <= limit else f"{text[: limit - 1]}…")
