"""What postprocessors do with hits: each once, and notes in the metadata of copies."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Any

from llama_index.core.schema import NodeWithScore


def each_once(hits: Iterable[NodeWithScore]) -> list[NodeWithScore]:
    """Leave out a node that comes again, as after a fusion of retrievers; the first stays where it is."""
    first: dict[str, NodeWithScore] = {}
    for hit in hits:
        first.setdefault(hit.node.node_id, hit)
    return list(first.values())


def annotated(hit: NodeWithScore, score: float | None, metadata: Mapping[str, Any]) -> NodeWithScore:
    """Return a copy of a hit with a score and further metadata, kept out of what models read.

    Args:
        hit: is not changed.
        score: of the copy.
        metadata: what is added. A key whose value is None is removed, so that nothing is left of what the
            same postprocessor wrote in another query.
    """
    node = copy.copy(hit.node)  # model_copy makes another class of an ImageTextNode, for indexes
    known = {key: value for key, value in node.metadata.items() if key not in metadata}
    added = {key: value for key, value in metadata.items() if value is not None}
    node.metadata = {**known, **added}
    # A language model that reads the nodes has no use for it.
    node.excluded_llm_metadata_keys = [*dict.fromkeys([*node.excluded_llm_metadata_keys, *added])]
    node.excluded_embed_metadata_keys = [*dict.fromkeys([*node.excluded_embed_metadata_keys, *added])]
    return NodeWithScore(node=node, score=score)
