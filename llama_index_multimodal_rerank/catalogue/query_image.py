"""ExcludeQueryImage: the picture one searches with is no answer."""

from __future__ import annotations

import logging

from llama_index.core.schema import NodeWithScore, QueryBundle

from ..schema.annotations import each_once
from ..schema.query import query_image
from .left_out import QUERY_IMAGE_KEY, with_left_out
from .looking import LooksAtImages, look_at

logger = logging.getLogger(__name__)


class ExcludeQueryImage(LooksAtImages):
    """Leave the query's own picture out of the answer, and copies of it.

    Who searches a catalogue with one of its own pictures finds that picture first. Copies are told as by
    :class:`CollapseDuplicates`: by digest, and by the colours of 16 x 16 cells.

    The metadata of the first hit that stays has the ids of those left out, ``query_image_left_out``; if none
    stays, they are in the log. Scores and order stay; hits are copied, not changed. Without a picture in the
    query nothing is left out. A hit whose picture cannot be read stays, with a warning in the log.

    Retrieve a few rows more than you want to have: ``similarity_top_k=10`` for nine.

    Example:
        >>> from llama_index.core.schema import NodeWithScore
        >>> from llama_index_multimodal_rerank import ExcludeQueryImage, ImageTextQuery, image_node
        >>> from llama_index_multimodal_rerank.demo.catalogue import draw_query_picture
        >>> pictures = {name: draw_query_picture(name, seed=0) for name in ("leopard", "zebra")}
        >>> hits = [NodeWithScore(node=image_node(image, id_=name)) for name, image in pictures.items()]
        >>> query = ImageTextQuery("a mug with this", image=pictures["leopard"])
        >>> rest = ExcludeQueryImage().postprocess_nodes(hits, query_bundle=query)
        >>> [(hit.node.node_id, hit.node.metadata["query_image_left_out"]) for hit in rest]
        [('zebra', ['leopard'])]

    Args:
        near_duplicates: also leave out the same picture encoded or scaled differently; else digests alone
            are compared, and files are read only where a node has no ``image_digest``.
        tolerance: as in :class:`CollapseDuplicates`.
        allow_urls: fetch pictures given as http(s) URLs: True for public addresses, or a list of hosts.
        data_root: the only folder that picture files are read from, the query's too. Default: any file may
            be.

    Raises:
        ValueError: at construction and assignment, a field has a value that it does not allow; from
            ``postprocess_nodes``, there is no query.
        ImageLoadError: the query's picture cannot be read; a ValueError.
    """

    @classmethod
    def class_name(cls) -> str:
        """Name under which LlamaIndex serialises the class."""
        return "ExcludeQueryImage"

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        if query_bundle is None:
            raise ValueError("ExcludeQueryImage needs the query: pass query_bundle or query_str")
        source = query_image(query_bundle)
        hits = each_once(nodes)
        if source is None or not hits:
            return hits
        own = look_at(source, self._access, near=self.near_duplicates)
        looks = self._look_at(hits)
        is_own = [each.is_like(own, self.tolerance) for each in looks]
        left_out = [hit for hit, own in zip(hits, is_own, strict=True) if own]
        rest = [hit for hit, own in zip(hits, is_own, strict=True) if not own]
        if not rest:
            logger.warning("All %d hits are the query's own picture; none is left", len(left_out))
            return []
        return [with_left_out(rest[0], left_out, QUERY_IMAGE_KEY), *rest[1:]]
