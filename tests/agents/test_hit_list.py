"""HitListSynthesizer: print(response) says what was found."""

from __future__ import annotations

import doctest
from typing import Any

import pytest
from llama_index.core import Settings
from llama_index.core.base.response.schema import AsyncStreamingResponse, Response, StreamingResponse
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.retrievers import BaseRetriever
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode

from llama_index_multimodal_rerank import HitListSynthesizer
from llama_index_multimodal_rerank.agents import hit_list

HITS = [
    NodeWithScore(
        node=TextNode(
            text="", id_="a", metadata={"title": "A mug", "file_name": "a.png", "rerank_reason": "#1\nis red"}
        ),
        score=0.5,
    ),
    NodeWithScore(node=TextNode(text="a caption", id_="b"), score=None),
    NodeWithScore(node=TextNode(text="", id_="c"), score=0.25),
]
TEXT = "1. A mug, a.png (0.500): #1\\nis red\n2. a caption\n3. c (0.250)"


class Finds(BaseRetriever):
    def __init__(self, hits: list[NodeWithScore]) -> None:
        self.hits = hits
        super().__init__()

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return self.hits


def engine(hits: list[NodeWithScore], **options: Any) -> RetrieverQueryEngine:
    return RetrieverQueryEngine(Finds(hits), response_synthesizer=HitListSynthesizer(**options))


@pytest.fixture(autouse=True)
def _no_llm(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks for the default language model fails."""

    def fail(self: Any) -> None:
        raise AssertionError("a language model was asked for")

    monkeypatch.setattr(type(Settings), "llm", property(fail))


async def test_a_response_lists_what_was_found() -> None:
    for response in (engine(HITS).query("x"), await engine(HITS).aquery("x")):
        assert isinstance(response, Response)
        assert str(response) == TEXT
        assert response.source_nodes == HITS


async def test_streams() -> None:
    response = engine(HITS, streaming=True).query("x")
    assert isinstance(response, StreamingResponse)
    assert list(response.response_gen) == [f"{line}\n" for line in TEXT.split("\n")[:2]] + ["3. c (0.250)"]
    later = await engine(HITS, streaming=True).aquery("x")
    assert isinstance(later, AsyncStreamingResponse)
    assert str(await later.get_response()) == TEXT


async def test_nothing_found() -> None:
    assert str(engine([]).query("x")) == str(await engine([]).aquery("x")) == "Nothing was found."


def test_titles_are_taken_from_these_keys() -> None:
    hits = [NodeWithScore(node=TextNode(text="t", id_="a", metadata={"label": "L", "title": "T"}))]
    assert str(engine(hits, title_keys=["label"]).query("x")) == "1. L"
    assert str(engine(hits, title_keys=[]).query("x")) == "1. t"


def test_documented_example() -> None:
    found = doctest.testmod(hit_list)
    assert (found.failed, found.attempted > 5) == (0, True)
