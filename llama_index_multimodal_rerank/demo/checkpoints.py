"""Where the demo's checkpoints lie: beside this file, in the installed package."""

from __future__ import annotations

import atexit
from contextlib import ExitStack
from functools import cache
from importlib.resources import as_file, files
from pathlib import Path

DEMO = "demo"
"""The name that stands for the demo's checkpoint instead of one of the hub; ``./demo`` is a folder."""


@cache
def checkpoint_folder(part: str) -> Path:
    """Return the folder of a checkpoint that comes with the package.

    Args:
        part: ``"embedder"`` or ``"reranker"``.

    Raises:
        FileNotFoundError: it is not in this installation.
    """
    folder = files(__package__) / part
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(
            f"The demo's {part} is not in this installation: there is no {folder / 'config.json'}. Train it "
            f"in a checkout with `python -m training.{part} --output FOLDER` and name FOLDER/model as the "
            "model, or name a released one."
        )
    opened = ExitStack()
    atexit.register(opened.close)
    return opened.enter_context(as_file(folder))
