"""Processes that tests start hear signals, also where the tests run in the background or under nohup."""

from __future__ import annotations

import signal


def hear() -> None:
    """Undo what a shell ignores for those it starts, and theirs; a ``preexec_fn`` of ``subprocess.Popen``."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
