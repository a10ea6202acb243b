"""CollapseDuplicates: no picture twice, however it is encoded."""

from __future__ import annotations

from llama_index.core.schema import NodeWithScore, QueryBundle

from ..schema.annotations import each_once
from .left_out import DUPLICATES_KEY, with_left_out
from .looking import Looks, LooksAtImages


class CollapseDuplicates(LooksAtImages):
    """Keep the first of pictures that are identical, or the same picture encoded or scaled differently.

    Identical are pictures with one digest. For near-duplicates the pictures are read, averaged over 16 x 16
    cells, and the cells' colours compared (``tolerance``); a crop, a mirror image or another photograph of
    the same thing is no duplicate. Every hit is compared with those that stay.

    The metadata of the first has the ids of the others, ``duplicates``, which are kept out of what an LLM or
    embedding model reads. Scores and order stay; hits are copied, not changed. A hit whose picture cannot be
    read stays, with a warning in the log; texts stay.

    Example:
        A picture, its copy in another format, and another picture:

        >>> from io import BytesIO
        >>> from llama_index.core.schema import NodeWithScore
        >>> from llama_index_multimodal_rerank import CollapseDuplicates, image_node
        >>> from llama_index_multimodal_rerank.demo.catalogue import draw_query_picture
        >>> leopard, zebra = draw_query_picture("leopard", seed=0), draw_query_picture("zebra", seed=0)
        >>> leopard.convert("RGB").save(copy := BytesIO(), "JPEG", quality=60)
        >>> nodes = [image_node(leopard, id_="leopard"), image_node(copy.getvalue(), id_="copy"),
        ...          image_node(zebra, id_="zebra")]
        >>> hits = CollapseDuplicates().postprocess_nodes([NodeWithScore(node=node) for node in nodes])
        >>> [(hit.node.node_id, hit.node.metadata.get("duplicates")) for hit in hits]
        [('leopard', ['copy']), ('zebra', None)]

    Args:
        near_duplicates: also compare what pictures show; else their digests alone, and files are read only
            where a node has no ``image_digest``.
        tolerance: how much near-duplicates may differ in red, green or blue of any cell, 0 to 255; on
            average over all cells by a sixth of it. Where it comes from: docs/catalogues.md.
        allow_urls: fetch pictures given as http(s) URLs: True for public addresses, or a list of hosts.
        data_root: the only folder that picture files are read from. Default: any file may be.

    Raises:
        ValueError: at construction and assignment, a field has a value that it does not allow.
    """

    @classmethod
    def class_name(cls) -> str:
        """Name under which LlamaIndex serialises the class."""
        return "CollapseDuplicates"

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        hits = each_once(nodes)
        kept: list[tuple[Looks, list[NodeWithScore]]] = []
        for hit, looks in zip(hits, self._look_at(hits), strict=True):
            for first, members in kept:
                if first.is_like(looks, self.tolerance):
                    members.append(hit)
                    break
            else:
                kept.append((looks, [hit]))
        return [with_left_out(first, others, DUPLICATES_KEY) for _, (first, *others) in kept]
