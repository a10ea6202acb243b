"""The page to try image search with, in a browser on this machine. Needs Gradio: the extra ``app``.

What is shown is made in :mod:`.cards`, :mod:`.steps` and :mod:`.messages`; where it is, in :mod:`.layout`;
what happens when, in :mod:`.page`. Nothing here knows how to search: that is :mod:`..search`.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..collections import Collection, CollectionSource
    from ..models import ModelChoice

EXTRA = "app"
"""The extra of this package that brings Gradio."""


class NoGradioError(ImportError):
    """Gradio is not installed."""


@contextmanager
def page_running(
    collection: Collection,
    *,
    port: int | None = None,
    open_browser: bool = False,
) -> Iterator[str]:
    """Have the page up, on this machine alone, while a ``with`` block runs.

    Args:
        collection: what is searched; more can be indexed on the page, with its models.
        port: TCP port. Default: the first free one from 7860 on.
        open_browser: open it in the browser, too.

    Yields:
        Its address.

    Raises:
        NoGradioError: Gradio is not installed.
        OSError: the port is taken.
    """
    _find_gradio()
    from .open_collections import OpenCollections
    from .page import build_page
    from .server import start, upload_folder

    with upload_folder() as uploads:
        collections = OpenCollections(collection)
        page = build_page(collections, uploads)
        try:
            yield start(page, port=port, open_browser=open_browser)
        finally:
            page.close(verbose=False)
            collections.close()


def launch(
    source: CollectionSource,
    choice: ModelChoice | None = None,
    *,
    port: int | None = None,
    open_browser: bool = False,
) -> None:
    """Open a collection and have the page up until Ctrl-C, SIGTERM or the terminal is closed.

    Its address is printed, and progress before.

    Args:
        source: what is to be searched.
        choice: which models, as far as that is not left to the collection.
        port: as :func:`page_running`.
        open_browser: as :func:`page_running`.

    Raises:
        NoGradioError: Gradio is not installed.
        Exception: as :func:`..collections.open_collection`.
    """
    from ..collections import open_collection

    _find_gradio()
    collection, _ = open_collection(source, choice, show_progress=True)
    try:
        with page_running(collection, port=port, open_browser=open_browser) as address:
            print(f"The page is at {address} - for this machine alone. Ctrl-C ends it.", flush=True)  # noqa: T201
            _wait_for_the_end()
    finally:
        collection.close()


def _wait_for_the_end() -> None:
    """Return at Ctrl-C, or when the process is asked to end, so that uploads are removed."""
    ended = threading.Event()
    if threading.current_thread() is threading.main_thread():  # others cannot
        for name in ("SIGTERM", "SIGHUP"):  # Windows has no SIGHUP, and nohup has it ignored
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, lambda *_: ended.set())
    with suppress(KeyboardInterrupt):
        ended.wait()


def _find_gradio() -> None:
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when Gradio is imported, and later
    try:
        import gradio  # noqa: F401
    except ImportError as error:
        raise NoGradioError(
            f"the page needs Gradio, which the extra {EXTRA!r} brings: pip install "
            f'"llama-index-multimodal-rerank[{EXTRA}]". index, search and evaluate work without it'
        ) from error
