"""Errors as messages: what a person can act on, never a traceback."""

from __future__ import annotations

import logging
import re
from pathlib import Path

from ...images.errors import ImageLoadError
from ...logs import one_line
from ...vlm.errors import ModelCallError
from .markup import render

logger = logging.getLogger(__name__)

NOTHING = ""
"""Where a message would be, and none is."""

_MAX_CHARS = 600


def error_message(error: BaseException) -> str:
    """Return an error as HTML, and write what is not for users into the log.

    Args:
        error: what was raised. Mistakes of a user (``ValueError``), files and servers (``OSError``), and
            models that give no answer speak for themselves; of others the name is told, and where to look.
    """
    if isinstance(error, ImageLoadError):
        logger.info("A picture was refused: %s", error)
        name = Path(error.source.strip("'\"")).name
        return problem(f"“{name}” cannot be used as a picture: {error.reason}.")
    if isinstance(error, (ValueError, OSError, ModelCallError)):
        logger.info("A request was refused: %r", error)
        return problem(_first_lines(error))
    logger.error("A request failed", exc_info=error)
    return problem(
        f"This did not work: {type(error).__name__}. The program's log says more; the page goes on working."
    )


def problem(text: str) -> str:
    """Return an error message as HTML."""
    return render("message", kind="error", text=one_line(text, _MAX_CHARS))


def note(text: str) -> str:
    """Return a message that is no error as HTML."""
    return render("message", kind="note", text=one_line(text, _MAX_CHARS))


def _first_lines(error: BaseException) -> str:
    # Pydantic's and Milvus' errors go on with addresses and inputs.
    text = str(error) or type(error).__name__
    return re.split(r"\n\s*\n|\n\s+For further information", text)[0]
