"""Runs a command; whatever goes wrong is one line, and the exit code 2."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module

from ...logs import one_line
from .parser import PROG, parse

PACKAGE = __name__.partition(".")[0]

FAILED, INTERRUPTED = 2, 130
"""Exit codes: of an error, and of Ctrl-C."""


def run() -> None:
    """Run what the command line says, and end the process."""
    for stream in ("stdout", "stderr"):
        if getattr(sys, stream) is None:  # closed before the start, as with >&-
            setattr(sys, stream, open(os.devnull, "w", encoding="utf-8"))  # noqa: PTH123, SIM115 (until the end)
    # Read when the libraries are imported. On a terminal their bars say that something is fetched.
    if not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    try:
        code = main(sys.argv[1:])
        sys.stdout.flush()
    except BrokenPipeError:  # whoever read the output, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    sys.exit(code)


def main(arguments: Sequence[str]) -> int:
    """Run a command.

    Args:
        arguments: the command line, without the program's name.

    Returns:
        The exit code: 0, 2 for an error, 130 if it was interrupted.

    Raises:
        SystemExit: the command line is wrong (2), or asks for help (0).
    """
    options = parse(arguments)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # names of files may have letters that a terminal does not
            stream.reconfigure(errors="backslashreplace")
    with _warnings_on_stderr():
        try:
            command = import_module(f".{options.command}_command", __package__)
            return int(command.run(options))
        except KeyboardInterrupt:
            print(f"{PROG}: interrupted", file=sys.stderr)  # noqa: T201 (this is what it is for)
            return INTERRUPTED
        except BrokenPipeError:
            raise
        except Exception as error:
            if options.traceback:
                raise
            print(f"{PROG}: error: {describe(error)}", file=sys.stderr)  # noqa: T201
            return FAILED


def describe(error: Exception) -> str:
    """Return an error as one line: its message, and what it is called where that is not said by ours."""
    from llama_index.core.bridge.pydantic import ValidationError

    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if isinstance(error, ValidationError):
        lines = [str(each["msg"]).removeprefix("Value error, ") for each in error.errors()]
    text = one_line(" ".join(lines), 2000)
    expected = isinstance(error, (OSError, ValueError, ImportError)) or type(error).__module__.startswith(
        PACKAGE
    )
    return text if expected and text else f"{type(error).__name__}: {text}"


class _Lines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return f"{PROG}: {record.levelname.lower()}: {one_line(record.getMessage(), 1000)}"


@contextmanager
def _warnings_on_stderr() -> Iterator[None]:
    """Print warnings of this package; not those of files that were left out, which commands list."""
    logger = logging.getLogger(PACKAGE)
    handler = logging.StreamHandler()
    handler.setLevel(logging.WARNING)
    handler.setFormatter(_Lines())
    handler.addFilter(lambda record: not record.name.startswith(f"{PACKAGE}.data."))
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
