"""Starts the page: on this machine alone, with a folder for uploads that goes with it."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ...images.access import MAX_IMAGE_BYTES

logger = logging.getLogger(__name__)

HOST = "127.0.0.1"

KEPT_SECONDS = 30 * 60
"""How long an upload is kept that is not searched with."""

_SWEEP_SECONDS = 30


@contextmanager
def upload_folder(*, kept_seconds: float = KEPT_SECONDS) -> Iterator[Path]:
    """Make the folder that uploads go to, readable by this user alone; it is removed at the end.

    Within it, what is older than ``kept_seconds`` is removed, whoever put it there.
    """
    folder = Path(tempfile.mkdtemp(prefix="image-search-")).resolve()
    before = os.environ.get("GRADIO_TEMP_DIR")
    os.environ["GRADIO_TEMP_DIR"] = str(folder)  # the only way to tell Gradio
    ended = threading.Event()

    def sweep() -> None:
        while not ended.wait(min(_SWEEP_SECONDS, kept_seconds)):
            remove_old(folder, time.time() - kept_seconds)

    thread = threading.Thread(target=sweep, name="remove-uploads", daemon=True)
    thread.start()
    try:
        yield folder
    finally:
        ended.set()
        thread.join()
        if before is None:
            del os.environ["GRADIO_TEMP_DIR"]
        else:
            os.environ["GRADIO_TEMP_DIR"] = before
        shutil.rmtree(folder, ignore_errors=True)


def remove_old(folder: Path, before: float) -> None:
    """Remove files of a folder of uploads that were last used before a time, and folders left empty."""
    for path in sorted(folder.rglob("*"), reverse=True):  # what is in a folder comes before the folder
        try:
            if path.lstat().st_mtime >= before:
                continue
            if path.is_dir():
                path.rmdir()
            else:
                path.unlink()
        except OSError:  # not empty, or gone already
            continue
