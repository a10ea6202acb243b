"""Names and texts of others in log lines."""

from __future__ import annotations


def one_line(text: str, limit: int = 500) -> str:
    """Return a text as it may stand in a log line.

    Names of files and messages of servers can hold line breaks, which would forge lines of the log, and
    control characters, which a terminal obeys.

    Args:
        text: any text.
        limit: characters kept.

    Returns:
        The text, with everything that is not printable as an escape.
    """
    shown = text if len(text) <= limit else f"{text[: limit - 1]}…"
    return "".join(char if char.isprintable() else _escaped(char) for char in shown)


def _escaped(char: str) -> str:
    return char.encode("unicode_escape", "backslashreplace").decode()
