"""Search results as text: JSON for an LLM, a list for people. Short, and without the server's paths."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePath
from typing import Any

from llama_index.core.schema import BaseNode, MetadataMode, NodeWithScore

from ..images.sources import as_path
from ..logs import one_line
from ..schema.nodes import node_image

MAX_CHARS = 200
"""Longest text of one value of a result."""


def describe_hits(
    hits: Sequence[NodeWithScore], *, title_keys: Sequence[str], metadata_keys: Iterable[str]
) -> list[dict[str, Any]]:
    """Return hits as JSON values.

    Args:
        hits: best first.
        title_keys: metadata that may hold a title; the first that is there is taken, else the node's text.
        metadata_keys: metadata to show.
    """
    return [
        {
            "rank": rank,
            "id": hit.node.node_id,
            **{key: value for key, value in _facts(hit, title_keys).items() if value not in (None, "")},
            **_shown(hit.node.metadata, metadata_keys),
        }
        for rank, hit in enumerate(hits, start=1)
    ]


def _facts(hit: NodeWithScore, title_keys: Sequence[str]) -> dict[str, Any]:
    metadata = hit.node.metadata
    return {
        "file": file_name(hit.node),
        "title": title(hit.node, title_keys),
        "score": _number(hit.score),
        "retrieval_score": _number(metadata.get("retrieval_score")),
        "reason": short_text(metadata.get("rerank_reason")),
        "unreadable": True if metadata.get("rerank_unreadable") else None,
    }


def _number(value: Any) -> float | None:
    known = isinstance(value, (int, float)) and math.isfinite(value)
    return round(float(value), 4) if known else None


def _shown(metadata: Mapping[str, Any], keys: Iterable[str]) -> dict[str, Any]:
    shown = {key: _value(metadata[key]) for key in keys if metadata.get(key) is not None}
    return {"metadata": shown} if shown else {}


def _value(value: Any) -> Any:
    if isinstance(value, (bool, int)) or (isinstance(value, float) and math.isfinite(value)):
        return value
    return short_text(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str))


def short_text(value: Any) -> str | None:
    """Return a value as one line of at most ``MAX_CHARS`` characters."""
    if value is None:
        return None
    text = one_line(str(value))
    return text if len(text) <= MAX_CHARS else f"{text[: MAX_CHARS - 1]}…"


def file_name(node: BaseNode) -> str | None:
    """Return the name of a picture's file, without its folder; None if it has none."""
    source = node_image(node)
    path = None if source is None else as_path(source)
    name = node.metadata.get("file_name") or (path and PurePath(path).name)
    return short_text(PurePath(str(name)).name) if name else None


def title(node: BaseNode, keys: Sequence[str]) -> str | None:
    """Return what a node is called: the first metadata of these keys, else its text."""
    for key in keys:
        if isinstance(value := node.metadata.get(key), str) and value.strip():
            return short_text(value)
    return short_text(node.get_content(MetadataMode.NONE).strip()) or None


def audit_word(hits: Sequence[NodeWithScore]) -> str | None:
    """Say in a word how the reranking went; None if there was none.

    Returns:
        ``"clean"``, ``"repaired"`` (an answer was incomplete), or ``"not reranked"`` (the order is the
        retrieval's).
    """
    audit = next((hit.node.metadata.get("rerank_audit") for hit in hits), None)
    if not isinstance(audit, Mapping):
        return None
    each = audit.get("not_clean") if "not_clean" in audit else [audit]
    actions = {one.get("action") for one in each or ()}
    if "retrieval_order" in actions or (audit.get("source") == "none" and audit.get("error")):
        whole = audit.get("answers", 1) == len(each or ())
        return "not reranked" if whole and actions == {"retrieval_order"} else "repaired"
    return "repaired" if "repaired" in actions else "clean"


def as_json(values: Mapping[str, Any]) -> str:
    """Return JSON with all letters as they are."""
    return json.dumps(values, ensure_ascii=False, allow_nan=False)
