"""Events of LlamaIndex's instrumentation that it does not have itself."""

from __future__ import annotations

from typing import Any

from llama_index.core.instrumentation.events import BaseEvent


class RerankSkippedEvent(BaseEvent):
    """Fired by :class:`AdaptiveRerank` where it does not rerank.

    Attributes:
        query_str: words of the query.
        details: why, as in the audit.
    """

    query_str: str
    details: dict[str, Any]

    @classmethod
    def class_name(cls) -> str:
        """Name of the event."""
        return "RerankSkippedEvent"
