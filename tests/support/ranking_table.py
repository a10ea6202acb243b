"""An embedding that ranks a gallery as a table says: picture i is the i-th unit vector."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.bridge.pydantic import PrivateAttr

from llama_index_multimodal_rerank import ImageText
from llama_index_multimodal_rerank.schema.image_text import words_of


class RankingTable(BaseEmbedding):
    """Embeds a query so that the pictures' inner products with it fall in the order of the table.

    Args:
        pictures: the names of the gallery's files, without their endings.
        rankings: by the name of the query's picture (``""`` without) and its text: names, the best first;
            those left out follow in the order of ``pictures``.
    """

    pictures: list[str]
    rankings: dict[tuple[str, str], list[str]]
    _asked: list[tuple[str, str]] = PrivateAttr(default_factory=list)

    @property
    def asked(self) -> list[tuple[str, str]]:
        """Picture and text of each query that was embedded."""
        return self._asked

    @property
    def fingerprint(self) -> dict[str, str]:
        return {"weights_sha256": "0" * 64}

    def _get_text_embedding(self, text: str) -> list[float]:
        place = self.pictures.index(_stem(text))
        return [float(i == place) for i in range(len(self.pictures))]

    def _get_query_embedding(self, query: str) -> list[float]:
        key = (_stem(query), words_of(query))
        self._asked.append(key)
        first = self.rankings[key]
        order = [*first, *(name for name in self.pictures if name not in first)]
        return [float(len(order) - order.index(name)) for name in self.pictures]

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._get_query_embedding(query)


def _stem(text: Any) -> str:
    image = text.image if isinstance(text, ImageText) else None
    return Path(image).stem if image is not None else ""
