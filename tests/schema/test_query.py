"""ImageTextQuery: embedded with its picture by every standard retriever, never by a stale vector."""

from __future__ import annotations

import asyncio
import base64
import copy
import json
import pickle
import threading
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from llama_index.core import MockEmbedding, VectorStoreIndex
from llama_index.core.bridge.pydantic import Field
from llama_index.core.indices.query.query_transform import HyDEQueryTransform
from llama_index.core.instrumentation.events.retrieval import RetrievalStartEvent
from llama_index.core.llms import MockLLM
from llama_index.core.retrievers import QueryFusionRetriever
from llama_index.core.schema import QueryBundle, TextNode
from support.drawing import draw_picture

from llama_index_multimodal_rerank.schema.image_text import ImageText
from llama_index_multimodal_rerank.schema.query import ImageTextQuery


class Recorder(MockEmbedding):
    """Embeds every query as the same vector of its own, and notes what it was asked for."""

    asked: list[object] = Field(default_factory=list)
    value: float = 1.0

    def __init__(self, value: float = 1.0) -> None:
        super().__init__(embed_dim=2)
        self.value = value

    def _get_query_embedding(self, query: str) -> list[float]:
        self.asked.append(query)
        return [self.value, 0.0]

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._get_query_embedding(query)


def index_of(embed_model: Recorder) -> VectorStoreIndex:
    return VectorStoreIndex([TextNode(text="a", embedding=[1.0, 0.0])], embed_model=embed_model)


def only(asked: list[object]) -> ImageText:
    assert len(asked) == 1
    assert isinstance(asked[0], ImageText)
    return asked[0]


@pytest.mark.parametrize("use_async", [False, True])
@pytest.mark.parametrize("text", ["a mug with this", ""])
async def test_retrievers_are_handed_the_picture(use_async: bool, text: str) -> None:
    embed_model = Recorder()
    retriever = index_of(embed_model).as_retriever()
    query = ImageTextQuery(text, image_path="leopard.jpg")
    hits = await retriever.aretrieve(query) if use_async else retriever.retrieve(query)
    assert len(hits) == 1
    asked = only(embed_model.asked)
    assert (asked.text, asked.image) == (text, "leopard.jpg")


async def test_text_only_is_an_ordinary_query() -> None:
    embed_model = Recorder()
    index_of(embed_model).as_retriever().retrieve(ImageTextQuery("a mug"))
    assert embed_model.asked == ["a mug"]
    assert type(embed_model.asked[0]) is str


def test_a_plain_query_bundle_would_ignore_the_picture() -> None:
    # The trap this class exists for; if this fails, LlamaIndex has learnt to look.
    assert QueryBundle("a mug", image_path="leopard.jpg").embedding_strs == ["a mug"]


def test_fusion_and_hyde_keep_the_picture() -> None:
    embed_model = Recorder()
    fusion = QueryFusionRetriever(
        [index_of(embed_model).as_retriever()], llm=MockLLM(), num_queries=1, use_async=False
    )
    query = ImageTextQuery("a mug with this", image_path="leopard.jpg")
    assert len(fusion.retrieve(query)) == 1
    assert only(embed_model.asked).image == "leopard.jpg"

    embed_model.asked.clear()
    transformed = HyDEQueryTransform(llm=MockLLM())(query)
    index_of(embed_model).as_retriever().retrieve(transformed)
    assert [getattr(asked, "image", None) for asked in embed_model.asked] == [None, "leopard.jpg"]


def test_a_string_that_carries_a_picture_is_a_query_too() -> None:
    embed_model = Recorder()
    index_of(embed_model).as_retriever().retrieve(ImageText("a mug with this", "leopard.jpg"))
    assert only(embed_model.asked).image == "leopard.jpg"


# -- no stale vectors ------------------------------------------------------------------------


def test_a_reused_query_is_embedded_again() -> None:
    first, second = Recorder(1.0), Recorder(-1.0)
    query = ImageTextQuery("a mug", image_path="leopard.jpg")
    assert index_of(first).as_retriever().retrieve(query)[0].score == pytest.approx(1.0)
    assert query.embedding is None
    assert index_of(second).as_retriever().retrieve(query)[0].score == pytest.approx(-1.0)
    assert len(second.asked) == 1


def test_an_edited_query_is_embedded_again() -> None:
    embed_model = Recorder()
    retriever = index_of(embed_model).as_retriever()
    query = ImageTextQuery("a mug", image_path="leopard.jpg")
    retriever.retrieve(query)
    query.query_str = "a cushion"
    retriever.retrieve(query)
    assert [asked.text for asked in embed_model.asked] == ["a mug", "a cushion"]  # type: ignore[attr-defined]


def test_a_given_vector_is_used_until_the_query_is_edited() -> None:
    embed_model = Recorder()
    retriever = index_of(embed_model).as_retriever()
    query = ImageTextQuery("a mug", embedding=[-1.0, 0.0])
    for _ in range(2):
        assert retriever.retrieve(query)[0].score == pytest.approx(-1.0)
    assert embed_model.asked == []
    query.query_str = "a cushion"
    assert retriever.retrieve(query)[0].score == pytest.approx(1.0)
    assert embed_model.asked == ["a cushion"]


def test_threads_do_not_take_each_others_vectors() -> None:
    query = ImageTextQuery("a mug", image_path="leopard.jpg")
    seen: dict[int, list[float] | None] = {}
    barrier = threading.Barrier(8)

    def work(i: int) -> None:
        query.embedding = [float(i)]
        barrier.wait()
        seen[i] = query.embedding

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == {i: [float(i)] for i in range(8)}


def test_replace_does_not_carry_a_written_vector() -> None:
    query = ImageTextQuery("a mug", image_path="leopard.jpg")
    index_of(Recorder()).as_retriever().retrieve(query)
    other = replace(query, query_str="a cushion")
    assert (other.query_str, other.image_path, other.embedding) == ("a cushion", "leopard.jpg", None)
    given = replace(query, embedding=[0.5, 0.5])
    assert given.embedding == given.embedding == [0.5, 0.5]


# -- construction and serialisation ----------------------------------------------------------


def test_what_makes_a_query() -> None:
    with pytest.raises(ValueError, match="empty query"):
        ImageTextQuery()
    with pytest.raises(ValueError, match="one picture"):
        ImageTextQuery("a", image_path="a.png", image=b"x")
    with pytest.raises(ValueError, match="image_path="):
        ImageTextQuery("a", image=Path("a.png"))
    assert ImageTextQuery("a", image_path=Path("b.png")).image_path == "b.png"  # type: ignore[arg-type]
    assert ImageTextQuery("a").image_source is None


def test_image_retrievers_get_path_or_stream() -> None:
    assert ImageTextQuery("", image_path="a.png").embedding_image == ["a.png"]
    assert ImageTextQuery("a").embedding_image == []
    (stream,) = ImageTextQuery("", image=b"12345").embedding_image
    assert isinstance(stream, BytesIO)
    assert stream.read() == b"12345"


@pytest.mark.parametrize("image", [None, b"12345", "picture"])
def test_json_pickle_and_copies(image: object) -> None:
    image = draw_picture(0) if image == "picture" else image
    path = "leopard.jpg" if image is None else None
    query = ImageTextQuery("a mug", image_path=path, image=image)  # type: ignore[arg-type]
    back = ImageTextQuery.from_dict(json.loads(query.to_json()))
    assert (back.query_str, back.image_path) == ("a mug", path)
    if image == b"12345":
        assert back.image == f"data:image/*;base64,{base64.b64encode(b'12345').decode()}"
    assert back.has_image
    for twin in (pickle.loads(pickle.dumps(query)), copy.copy(query), copy.deepcopy(query)):
        assert (twin.query_str, twin.image_path, twin.has_image) == ("a mug", path, True)
        assert isinstance(twin.embedding_strs[0], ImageText)


@given(
    query_str=st.text(),
    image_path=st.one_of(st.none(), st.text(min_size=1)),
    image=st.one_of(st.none(), st.binary(min_size=1)),
    custom=st.one_of(st.none(), st.lists(st.text())),
    embedding=st.one_of(st.none(), st.lists(st.floats(allow_nan=False), min_size=1)),
)
def test_any_query_survives_json(
    query_str: str,
    image_path: str | None,
    image: bytes | None,
    custom: list[str] | None,
    embedding: list[float] | None,
) -> None:
    try:
        query = ImageTextQuery(query_str, image_path, custom, embedding, image)
    except ValueError:
        assert (image and image_path) or not (query_str or image or image_path or custom)
        return
    back = ImageTextQuery.from_dict(json.loads(query.to_json()))
    assert (back.query_str, back.image_path, back.custom_embedding_strs) == (query_str, image_path, custom)
    assert back.embedding == embedding
    assert (None if back.image is None else base64.b64decode(back.image.partition(",")[2])) == image


def test_events_carry_it() -> None:
    query = ImageTextQuery("a mug", image_path="leopard.jpg")
    event = RetrievalStartEvent(str_or_query_bundle=query)
    assert event.str_or_query_bundle is query
    assert json.loads(event.model_dump_json())["str_or_query_bundle"]["image_path"] == "leopard.jpg"


def test_two_event_loops() -> None:
    retriever = index_of(Recorder()).as_retriever()
    for _ in range(2):
        hits = asyncio.run(retriever.aretrieve(ImageTextQuery("a", image_path="b.png")))
        assert len(hits) == 1
