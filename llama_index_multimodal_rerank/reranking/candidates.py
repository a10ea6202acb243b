"""What a query and its candidates show: LlamaIndex's nodes and bundles, read for the reranker."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llama_index.core.schema import BaseNode, MetadataMode, NodeWithScore, QueryBundle

from ..images.access import DEFAULT_ACCESS, ImageAccess
from ..images.sources import ImageLoadError
from ..images.viewing import to_screen_depth
from ..logs import one_line
from ..schema.annotations import each_once
from ..schema.image_text import words_of
from ..schema.nodes import node_image
from ..schema.query import query_image
from .sheet import Cell, fit
from .sheet_layout import LARGEST_PICTURE

if TYPE_CHECKING:
    from PIL.Image import Image

    from ..images.sources import ImageSource

logger = logging.getLogger(__name__)

READERS = min(8, os.cpu_count() or 1)
"""Threads that read and decode the candidates of a window."""


@dataclass(frozen=True)
class Candidate:
    """A node, as it is shown to the model.

    Attributes:
        cell: its picture, in the size in which a sheet shows it, or text.
        words: its text, as it stands in the prompt; may be cut.
        problem: why its picture cannot be shown, or None.
    """

    cell: Cell
    words: str = ""
    problem: str | None = None


class Candidates:
    """The candidates of a query, each looked at when it is shown, and not held longer than that.

    A decoded picture takes a megabyte, so a thousand of them are never in memory together.

    Args:
        nodes: nodes with their scores, the best first; one that occurs again is left out.
        access: which pictures may be read.

    Attributes:
        nodes: the nodes, each once.
        problems: why candidates that were shown so far cannot be looked at, by index.
        shortened: indices of those whose texts were cut.
    """

    def __init__(self, nodes: Sequence[NodeWithScore], access: ImageAccess = DEFAULT_ACCESS) -> None:
        self.nodes = each_once(nodes)
        self.problems: dict[int, str] = {}
        self.shortened: set[int] = set()
        self._access = access
        self._shown: dict[int, Candidate] = {}
        self._side = 0

    def __len__(self) -> int:
        return len(self.nodes)

    def show(
        self, indices: Sequence[int], shorten: Callable[[str], str], *, side: int = LARGEST_PICTURE
    ) -> list[Candidate]:
        """Read candidates, unless they were shown the last time, and forget all others.

        Args:
            indices: which.
            shorten: cuts texts for the prompt.
            side: pixels of the square that a picture is shown in.
        """
        new = [index for index in indices if index not in self._shown]
        nodes = [self.nodes[index] for index in new]
        if len(nodes) > 1:
            with ThreadPoolExecutor(min(READERS, len(nodes)), thread_name_prefix="candidates") as pool:
                read = list(pool.map(lambda node: _read(node, self._access, side), nodes))
        else:
            read = [_read(node, self._access, side) for node in nodes]
        found = {
            index: self._candidate(index, cell, problem, shorten)
            for index, (cell, problem) in zip(new, read, strict=True)
        }
        self._shown = {index: found[index] if index in found else self._shown[index] for index in indices}
        self._side = side
        return [self._shown[index] for index in indices]

    def show_larger(self, index: int, shorten: Callable[[str], str], *, side: int) -> Candidate:
        """Read a candidate once more, unless it was shown as large; what goes wrong is kept in it alone.

        Args:
            index: which.
            shorten: cuts its text for the prompt.
            side: pixels of the square that its picture is shown in.
        """
        if index in self._shown and self._side >= side:
            return self._shown[index]
        cell, problem = _read(self.nodes[index], self._access, side)
        return Candidate(cell, shorten(cell.text), problem)

    def release(self) -> None:
        """Forget the pictures that were read; what is known of problems stays."""
        self._shown = {}

    def _candidate(
        self, index: int, cell: Cell, problem: str | None, shorten: Callable[[str], str]
    ) -> Candidate:
        words = shorten(cell.text)
        if words != cell.text:
            self.shortened.add(index)
        if problem is not None:
            node_id = self.nodes[index].node.node_id
            logger.warning("Candidate %s cannot be looked at: %s", one_line(node_id), one_line(problem))
            self.problems[index] = problem
        return Candidate(cell, words, problem)


@dataclass(frozen=True)
class QueryContent:
    """What is looked for.

    Attributes:
        text: the words; may be empty if there is a picture.
        picture: the picture, at most 1344 pixels, or None.
    """

    text: str
    picture: Image | None


def read_query(
    query: QueryBundle, access: ImageAccess = DEFAULT_ACCESS, *, side: int = 2 * LARGEST_PICTURE
) -> QueryContent:
    """Read a query, its picture as far as ``access`` allows.

    Args:
        query: the query.
        access: which pictures may be read.
        side: pixels of the longer side of its picture, at most.

    Raises:
        ImageLoadError: its picture cannot be read.
        ValueError: it has neither text nor picture.
    """
    source = query_image(query)
    text = words_of(query.query_str).strip()
    if source is None and not text:
        raise ValueError("the query has neither text nor picture to rank by")
    picture = None if source is None else _load(source, side, access)
    return QueryContent(text, picture)


def _read(node: NodeWithScore, access: ImageAccess, side: int) -> tuple[Cell, str | None]:
    """Read a node; returns its cell, and why it cannot be looked at."""
    text = _text(node.node)
    problem = None
    picture = None
    try:
        source = node_image(node.node)
        if source is not None:
            picture = _load(source, side, access)
        elif not text:
            problem = "the node has neither picture nor text"
    except (ValueError, TypeError) as error:  # ImageLoadError, or base64 that is none
        problem = error.reason if isinstance(error, ImageLoadError) else str(error)
    return Cell(picture, text, unreadable=problem is not None), problem


def _text(node: BaseNode) -> str:
    text = node.get_content(MetadataMode.NONE)
    return str(getattr(text, "text", text)).strip()


def _load(source: ImageSource, side: int, access: ImageAccess) -> Image:
    # The model looks at pictures as people do, so turned photographs are turned back and deep grey is scaled.
    image = to_screen_depth(access.load(source, apply_exif_orientation=True, shown_side=side))
    return fit(image, min(side, max(image.size)))
