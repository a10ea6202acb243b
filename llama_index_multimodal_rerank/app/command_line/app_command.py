"""``multimodal-rerank app``: the page, in ``app/page/``, which needs Gradio."""

from __future__ import annotations

import argparse
from importlib import import_module

from .opening import choice_of, source_of


def run(options: argparse.Namespace) -> int:
    """Open the page, and stay until it is closed.

    Raises:
        NoGradioError: Gradio is not installed; it says which extra brings it.
    """
    if options.port is not None and not 0 < options.port < 65536:
        raise ValueError(f"--port must be 1 to 65535, got {options.port}")
    page = import_module("..page", __package__)
    page.launch(source_of(options), choice_of(options), port=options.port, open_browser=options.open)
    return 0
