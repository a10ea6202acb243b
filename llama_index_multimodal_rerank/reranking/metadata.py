"""What a reranked node says about how it came where it is."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from llama_index.core.schema import NodeWithScore

from .candidates import Candidates
from .result import RerankResult


def annotated_nodes(
    candidates: Candidates, outcome: RerankResult, *, top_n: int, keep_retrieval_score: bool
) -> list[NodeWithScore]:
    """Return copies of the best nodes, with scores, and metadata as listed in ``Phi3VisionRerank``."""
    ranked = list(zip(outcome.order, outcome.scores, strict=True))[:top_n]
    return [
        annotated(
            candidates.nodes[index],
            score,
            {
                "rerank_rank": rank,
                "retrieval_score": candidates.nodes[index].score if keep_retrieval_score else None,
                "rerank_reason": outcome.reason if rank == 1 else None,
                "rerank_query_caption": outcome.caption,
                "rerank_audit": _audit_dict(outcome, candidates),
                "rerank_confidence": outcome.confidence,
                "rerank_unreadable": candidates.problems.get(index),
            },
        )
        for rank, (index, score) in enumerate(ranked, start=1)
    ]


def _audit_dict(outcome: RerankResult, candidates: Candidates) -> dict[str, Any]:
    """Return the audit of the one answer, or a summary of many; and which texts were cut before it."""
    audits = outcome.audits
    cut: dict[str, Any] = {"query_shortened": True} if outcome.query_shortened else {}
    if candidates.shortened:
        cut["texts_shortened"] = len(candidates.shortened)
    if len(audits) == 1:
        return {**audits[0].to_dict(), **cut}
    bad = [audit.to_dict() for audit in audits if not audit.clean]
    return {"answers": len(audits), "clean": len(audits) - len(bad), "not_clean": bad, **cut}


def annotated(hit: NodeWithScore, score: float | None, metadata: Mapping[str, Any]) -> NodeWithScore:
    """Return a copy of a node with a score and metadata; keys whose value is None are not on the copy."""
    node = copy.copy(hit.node)  # model_copy makes another class of an ImageTextNode, for indexes
    # What an earlier reranking wrote is gone even where this one has nothing to say.
    known = {key: value for key, value in node.metadata.items() if key not in metadata}
    added = {key: value for key, value in metadata.items() if value is not None}
    node.metadata = {**known, **added}
    # For people and programs; a language model that reads the nodes has no use for it.
    node.excluded_llm_metadata_keys = [*dict.fromkeys([*node.excluded_llm_metadata_keys, *added])]
    node.excluded_embed_metadata_keys = [*dict.fromkeys([*node.excluded_embed_metadata_keys, *added])]
    return NodeWithScore(node=node, score=score)
