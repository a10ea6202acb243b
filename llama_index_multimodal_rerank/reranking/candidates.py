"""What a query and its candidates show: LlamaIndex's nodes and bundles, read for the reranker."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llama_index.core.schema import BaseNode, MetadataMode, NodeWithScore, QueryBundle

from ..images.access import DEFAULT_ACCESS, ImageAccess
from ..images.sources import ImageLoadError
from ..images.viewing import to_screen_depth
from ..logs import one_line
from ..schema.nodes import node_image
from ..schema.query import ImageTextQuery
from .sheet import Cell, fit
from .sheet_layout import LARGEST_PICTURE

if TYPE_CHECKING:
    from PIL.Image import Image

    from ..images.sources import ImageSource

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Candidate:
    """A node, as it is shown to the model.

    Attributes:
        node: the node with its retrieval score.
        cell: its picture (at most 672 pixels) or text.
        problem: why its picture cannot be shown, or None.
    """

    node: NodeWithScore
    cell: Cell
    problem: str | None = None


@dataclass(frozen=True)
class QueryContent:
    """What is looked for.

    Attributes:
        text: the words; may be empty if there is a picture.
        picture: the picture, at most 1344 pixels, or None.
    """

    text: str
    picture: Image | None


def query_image(query: QueryBundle) -> ImageSource | None:
    """Return the picture of a query, in any of the ways it can carry one, or None."""
    if isinstance(query, ImageTextQuery):
        return query.image_source
    if query.image_path is not None:
        return query.image_path
    carriers = [query.query_str, *query.embedding_strs]
    images = (getattr(text, "image", None) for text in carriers)
    return next((image for image in images if image is not None), None)


def read_query(query: QueryBundle, access: ImageAccess = DEFAULT_ACCESS) -> QueryContent:
    """Read a query, its picture as far as ``access`` allows.

    Raises:
        ImageLoadError: its picture cannot be read.
        ValueError: it has neither text nor picture.
    """
    source = query_image(query)
    text = str(getattr(query.query_str, "text", query.query_str)).strip()
    if source is None and not text:
        raise ValueError("the query has neither text nor picture to rank by")
    picture = None if source is None else _load(source, 2 * LARGEST_PICTURE, access)
    return QueryContent(text, picture)


def read_candidates(nodes: Sequence[NodeWithScore], access: ImageAccess = DEFAULT_ACCESS) -> list[Candidate]:
    """Read nodes in their order; one that occurs again is left out.

    Pictures that cannot be read, or that ``access`` refuses, are reported in :attr:`Candidate.problem`
    and logged.
    """
    unique = {node.node.node_id: node for node in reversed(nodes)}
    return [_read(unique.pop(node.node.node_id), access) for node in nodes if node.node.node_id in unique]


def _read(node: NodeWithScore, access: ImageAccess) -> Candidate:
    text = _text(node.node)
    problem = None
    picture = None
    try:
        source = node_image(node.node)
        if source is not None:
            picture = _load(source, LARGEST_PICTURE, access)
        elif not text:
            problem = "the node has neither picture nor text"
    except (ValueError, TypeError) as error:  # ImageLoadError, or base64 that is none
        problem = error.reason if isinstance(error, ImageLoadError) else str(error)
    if problem is not None:
        logger.warning("Candidate %s cannot be looked at: %s", one_line(node.node.node_id), one_line(problem))
    return Candidate(node, Cell(picture, text, unreadable=problem is not None), problem)


def _text(node: BaseNode) -> str:
    text = node.get_content(MetadataMode.NONE)
    return str(getattr(text, "text", text)).strip()


def _load(source: ImageSource, side: int, access: ImageAccess) -> Image:
    # The model looks at pictures as people do, so turned photographs are turned back and deep grey is scaled.
    image = to_screen_depth(access.load(source, apply_exif_orientation=True))
    return fit(image, min(side, max(image.size)))
