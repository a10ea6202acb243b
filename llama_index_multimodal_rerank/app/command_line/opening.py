"""From the options of a command to an open collection; what was left out on the way is named."""

from __future__ import annotations

import argparse
import sys

from ...logs import one_line
from ...milvus.folder_sync import FolderSync
from ..collections import Collection, CollectionSource, open_collection
from ..models import ModelChoice
from .parser import PROG, shows_progress


def source_of(options: argparse.Namespace) -> CollectionSource:
    """Return what is to be searched."""
    return CollectionSource(options.uri, options.images, options.collection, options.token)


def choice_of(options: argparse.Namespace) -> ModelChoice:
    """Return the models that were named."""
    return ModelChoice(options.model, getattr(options, "reranker", None), options.device, options.dtype)


def opened(options: argparse.Namespace) -> Collection:
    """Open what is to be searched; pictures of its folder that cannot be read are named."""
    collection, done = open_collection(
        source_of(options), choice_of(options), show_progress=shows_progress(options)
    )
    if done is not None:
        name_unreadable(done)
    return collection


def name_unreadable(done: FolderSync) -> None:
    """Print which files cannot be read, a line for each."""
    for each in done.unreadable:
        kept = " (its row is kept as it was)" if each.path in done.kept else ""
        warn(f"left out {each.path!r}{kept}: {each.reason}")


def warn(text: str) -> None:
    """Print a warning, as a line."""
    sys.stderr.write(f"{PROG}: warning: {one_line(text, 1000)}\n")
