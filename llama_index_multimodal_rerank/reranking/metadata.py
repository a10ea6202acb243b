"""What a reranked node says about how it came where it is."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from llama_index.core.schema import NodeWithScore

from ..schema.annotations import annotated
from .candidates import Candidates
from .reason_labels import by_place
from .result import RerankResult


def annotated_nodes(
    candidates: Candidates,
    outcome: RerankResult,
    *,
    top_n: int,
    keep_retrieval_score: bool,
    cost: Mapping[str, Any],
) -> list[NodeWithScore]:
    """Return copies of the best nodes, with scores, and metadata as listed in ``Phi3VisionRerank``."""
    audit = _audit_dict(outcome, candidates)
    if cost:
        audit["cost"] = dict(cost)
    ranked = list(zip(outcome.order, outcome.scores, strict=True))[:top_n]
    reason = outcome.reason and by_place(outcome.reason, outcome.reason_labelled, outcome.order, top_n=top_n)
    # With several sheets a candidate has several.
    labels = {} if outcome.confidence is not None else _labels(outcome.labelled)
    return [
        annotated(
            candidates.nodes[index],
            score,
            {
                "rerank_rank": rank,
                "retrieval_score": candidates.nodes[index].score if keep_retrieval_score else None,
                "rerank_reason": reason if rank == 1 else None,
                "rerank_label": labels.get(index),
                "rerank_query_caption": outcome.caption,
                "rerank_audit": copy.deepcopy(audit),
                "rerank_confidence": outcome.confidence,
                "rerank_unreadable": candidates.problems.get(index),
            },
        )
        for rank, (index, score) in enumerate(ranked, start=1)
    ]


def _labels(labelled: Sequence[int]) -> dict[int, int]:
    return {index: label for label, index in enumerate(labelled, start=1)}


def _audit_dict(outcome: RerankResult, candidates: Candidates) -> dict[str, Any]:
    """Return the audit of the one answer, or a summary of many; and which texts were cut before it."""
    audits = outcome.audits
    cut: dict[str, Any] = {"query_shortened": True} if outcome.query_shortened else {}
    if candidates.shortened:
        cut["texts_shortened"] = len(candidates.shortened)
    if len(audits) == 1:
        return {**audits[0].to_dict(), **cut}
    bad = [audit.to_dict() for audit in audits if not audit.clean]
    summary = {"answers": len(audits), "clean": len(audits) - len(bad), "not_clean": bad, **cut}
    lost = [audit.reason_error for audit in audits if audit.reason_error]
    return {**summary, "reason_error": lost[0]} if lost else summary
