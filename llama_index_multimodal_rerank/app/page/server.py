"""Starts the page: on this machine alone, with a folder for uploads that goes with it."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import gradio as gr
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware

from ...images.access import MAX_IMAGE_BYTES
from .theme import page_theme

logger = logging.getLogger(__name__)

HOST = "127.0.0.1"


@contextmanager
def upload_folder() -> Iterator[Path]:
    """Make the folder that uploads go to, readable by this user alone; it is removed at the end."""
    folder = Path(tempfile.mkdtemp(prefix="image-search-")).resolve()
    before = os.environ.get("GRADIO_TEMP_DIR")
    os.environ["GRADIO_TEMP_DIR"] = str(folder)  # the only way to tell Gradio
    try:
        yield folder
    finally:
        if before is None:
            del os.environ["GRADIO_TEMP_DIR"]
        else:
            os.environ["GRADIO_TEMP_DIR"] = before
        shutil.rmtree(folder, ignore_errors=True)


def start(page: gr.Blocks, *, port: int | None = None, open_browser: bool = False) -> str:
    """Start a page in threads of its own, for this machine alone; return its address.

    Whatever the environment says: no share link, no server for agents, and of this machine's files none but
    uploads. Requests by other names are refused: a page of others that has its name lead to this machine.

    Args:
        page: the page.
        port: TCP port. Default: the first free one from 7860 on.
        open_browser: open it in the browser, too.

    Raises:
        OSError: the port, or each of the first hundred, is taken.
    """
    blocked = os.environ.pop("GRADIO_ALLOWED_PATHS", None)  # an empty list of ours would not overrule it
    if blocked:
        logger.warning("GRADIO_ALLOWED_PATHS is not heeded: the page serves no files but uploads")
    _, address, _ = page.launch(
        server_name=HOST,
        server_port=port,
        share=False,
        inbrowser=open_browser,
        prevent_thread_lock=True,
        quiet=True,
        show_error=True,
        app_kwargs={"middleware": [Middleware(TrustedHostMiddleware, allowed_hosts=[HOST, "localhost"])]},
        max_file_size=MAX_IMAGE_BYTES,
        ssr_mode=False,
        mcp_server=False,
        pwa=False,
        enable_monitoring=False,
        run_history=False,
        footer_links=["settings"],
        theme=page_theme(),
        css_paths=[Path(__file__).with_name("style.css")],
    )
    return str(address)
