"""Hits that are left out in favour of others, and what is written down about it."""

from __future__ import annotations

from collections.abc import Iterable

from llama_index.core.schema import NodeWithScore

from ..schema.annotations import annotated

DUPLICATES_KEY = "duplicates"
SAME_PRODUCT_KEY = "same_product"
QUERY_IMAGE_KEY = "query_image_left_out"

_KEYS = (DUPLICATES_KEY, SAME_PRODUCT_KEY, QUERY_IMAGE_KEY)


def represented(hit: NodeWithScore) -> list[str]:
    """Return the id of a hit, and those of all that were left out in its favour before."""
    ids = [hit.node.node_id]
    for key in _KEYS:
        value = hit.node.metadata.get(key)
        ids += value if isinstance(value, list) else []
    return ids


def with_left_out(hit: NodeWithScore, left_out: Iterable[NodeWithScore], key: str) -> NodeWithScore:
    """Return a copy of a hit whose metadata lists the ids of others under a key; the hit itself if none."""
    ids = [id_ for other in left_out for id_ in represented(other)]
    if not ids:
        return hit
    before = hit.node.metadata.get(key)
    both = [*(before if isinstance(before, list) else []), *ids]
    return annotated(hit, hit.score, {key: list(dict.fromkeys(both))})
