"""HitListSynthesizer: a query engine's answer that says what was found, without a language model."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator, Sequence
from typing import Any

from llama_index.core.base.response.schema import RESPONSE_TYPE
from llama_index.core.llms import MockLLM
from llama_index.core.prompts.mixin import PromptDictType
from llama_index.core.response_synthesizers import BaseSynthesizer
from llama_index.core.schema import NodeWithScore, QueryType
from llama_index.core.types import RESPONSE_TEXT_TYPE

from .results import file_name, short_text, title


class HitListSynthesizer(BaseSynthesizer):  # type: ignore[misc, unused-ignore]
    """Answers with a list of what was found, a line for each; no language model is asked, or made.

    With ``response_mode="no_text"``, ``str(response)`` is ``"None"``, and with ``"context_only"`` it is blank
    lines: pictures have no text, and what is known about them is kept from language models. ``source_nodes``
    are the same.

    Example:
        >>> from llama_index.core import VectorStoreIndex
        >>> from llama_index.core.query_engine import RetrieverQueryEngine
        >>> from llama_index_multimodal_rerank import HitListSynthesizer, VisualizedBGEEmbedding, image_node
        >>> from llama_index_multimodal_rerank.demo.catalogue import draw_query_picture
        >>> from llama_index_multimodal_rerank.demo.drawing.looks import Look
        >>> looks = [Look(kind, "dots", "red") for kind in ("mug", "shoe")]
        >>> shown = {look.kind: draw_query_picture(look, seed=1) for look in looks}
        >>> nodes = [image_node(picture, metadata={"title": kind}) for kind, picture in shown.items()]
        >>> index = VectorStoreIndex(nodes, embed_model=VisualizedBGEEmbedding(model_name="demo"))
        >>> engine = RetrieverQueryEngine(index.as_retriever(), response_synthesizer=HitListSynthesizer())
        >>> print(engine.query("a shoe with dots"))  # doctest: +ELLIPSIS
        1. shoe (0...)
        2. mug (0...)

    Args:
        streaming: answer with a stream of lines.
        title_keys: metadata that may hold a title; the first that is there is shown, else the node's text,
            else its file.
    """

    def __init__(self, *, streaming: bool = False, title_keys: Sequence[str] = ("title", "name")) -> None:
        super().__init__(llm=MockLLM(), streaming=streaming, empty_response="Nothing was found.")
        self._title_keys = tuple(title_keys)

    def synthesize(
        self,
        query: QueryType,
        nodes: list[NodeWithScore],
        additional_source_nodes: Sequence[NodeWithScore] | None = None,
        **response_kwargs: Any,
    ) -> RESPONSE_TYPE:
        """List the nodes."""
        return super().synthesize(query, nodes, additional_source_nodes, hits=nodes, **response_kwargs)

    async def asynthesize(
        self,
        query: QueryType,
        nodes: list[NodeWithScore],
        additional_source_nodes: Sequence[NodeWithScore] | None = None,
        **response_kwargs: Any,
    ) -> RESPONSE_TYPE:
        """List the nodes."""
        return await super().asynthesize(query, nodes, additional_source_nodes, hits=nodes, **response_kwargs)

    def get_response(
        self,
        query_str: str,
        text_chunks: Sequence[str],
        *,
        hits: Sequence[NodeWithScore] = (),
        **response_kwargs: Any,
    ) -> RESPONSE_TEXT_TYPE:
        """Return the list."""
        lines = self._lines(hits)
        return _stream(lines) if self._streaming else "".join(lines)

    async def aget_response(
        self,
        query_str: str,
        text_chunks: Sequence[str],
        *,
        hits: Sequence[NodeWithScore] = (),
        **response_kwargs: Any,
    ) -> RESPONSE_TEXT_TYPE:
        """Return the list."""
        lines = self._lines(hits)
        return _astream(lines) if self._streaming else "".join(lines)

    def _lines(self, hits: Sequence[NodeWithScore]) -> list[str]:
        """Return lines, each but the last with its end."""
        lines = []
        for rank, hit in enumerate(hits, start=1):
            names = dict.fromkeys(filter(None, (title(hit.node, self._title_keys), file_name(hit.node))))
            score = "" if hit.score is None else f" ({hit.score:.3f})"
            reason = short_text(hit.node.metadata.get("rerank_reason"))
            said = f": {reason}" if reason else ""
            lines.append(f"{rank}. {', '.join(names) or hit.node.node_id}{score}{said}")
        return [f"{line}\n" for line in lines[:-1]] + lines[-1:]

    def _get_prompts(self) -> PromptDictType:
        return {}

    def _update_prompts(self, prompts: PromptDictType) -> None:
        """Nothing is asked."""


def _stream(lines: Sequence[str]) -> Generator[str, None, None]:
    yield from lines


async def _astream(lines: Sequence[str]) -> AsyncGenerator[str, None]:
    for line in lines:
        yield line
