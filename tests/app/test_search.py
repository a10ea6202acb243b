"""A search is a value, its result is one, and many run side by side without touching each other."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from llama_index_multimodal_rerank import ImageLoadError, ImageTextQuery, Phi3VisionRerank
from llama_index_multimodal_rerank.app.collections import Collection
from llama_index_multimodal_rerank.app.filters import parse_filters
from llama_index_multimodal_rerank.app.models import Models
from llama_index_multimodal_rerank.app.search import (
    SearchRequest,
    SearchResult,
    search,
    search_sides,
)
from llama_index_multimodal_rerank.demo.catalogue import draw_query_picture


def asked(result: SearchResult) -> list[tuple[Any, ...]]:
    return [(hit.rank, hit.was, hit.file, hit.score) for hit in result.hits]


def test_the_hits_are_those_of_the_retriever(collection: Collection, shop: Path) -> None:
    retriever = collection.index.as_retriever(similarity_top_k=4)
    for request, query in (
        (
            SearchRequest("a mug with this", shop / "leopard.png", top_k=4),
            ImageTextQuery("a mug with this", image_path=shop / "leopard.png"),
        ),
        (SearchRequest(image=shop / "leopard.png", top_k=4), ImageTextQuery(image_path=shop / "leopard.png")),
        (SearchRequest(" a shoe ", top_k=4), ImageTextQuery("a shoe")),
    ):
        result = search(collection, request)
        expected = [(hit.node.node_id, pytest.approx(hit.score)) for hit in retriever.retrieve(query)]
        assert [(hit.id, hit.score) for hit in result.hits] == expected
        assert (result.reranked, result.reason, result.audit, result.sheets) == (None, None, None, ())
        assert list(result.seconds) == ["embedding", "search"]
        assert [hit.moved for hit in result.hits] == [0] * 4


def test_a_picture_may_be_a_file_bytes_or_an_image(collection: Collection, shop: Path) -> None:
    path = shop / "leopard.png"
    found = [
        asked(search(collection, SearchRequest("a mug with this", image)))
        for image in (path, str(path), path.read_bytes(), Image.open(path))
    ]
    assert found[0][0][2] == "leopard-mug.png"
    assert all(each == found[0] for each in found)


@pytest.mark.parametrize("strategy", ["listwise", "first_token"])
def test_reranking_is_the_rerankers(collection: Collection, shop: Path, strategy: Any) -> None:
    request = SearchRequest(
        "a mug with this", shop / "leopard.png", top_k=5, strategy=strategy, keep_sheets=True
    )
    result = search(collection, request)
    query = ImageTextQuery("a mug with this", image=(shop / "leopard.png").read_bytes())
    before = collection.index.as_retriever(similarity_top_k=5).retrieve(query)
    reranker = Phi3VisionRerank(model="demo", device="cpu", dtype="float32", strategy=strategy, top_n=5)
    after = reranker.postprocess_nodes(before, query_bundle=query)
    assert [hit.id for hit in result.retrieved] == [hit.node.node_id for hit in before]
    assert [(hit.id, hit.score) for hit in result.hits] == [
        (hit.node.node_id, pytest.approx(hit.score, abs=1e-5)) for hit in after
    ]
    places = [hit.node.node_id for hit in before]
    assert [hit.was for hit in result.hits] == [places.index(hit.node.node_id) + 1 for hit in after]
    assert [hit.moved for hit in result.hits] == [hit.was - hit.rank for hit in result.hits]
    said = after[0].node.metadata
    assert (result.reason, result.caption) == (said["rerank_reason"], said["rerank_query_caption"])
    assert result.audit_word == "clean"
    assert result.audit is not None
    assert "5 pictures" in result.audit
    assert list(result.seconds) == ["embedding", "search", "loading", "reranking"]
    ranked, closer = result.sheets  # that of the reason is another one
    assert {Image.open(BytesIO(sheet)).format for sheet in (ranked, closer)} == {"PNG"}
    assert not any(key.startswith("rerank") for key in result.hits[0].metadata)
    assert result.hits[0].metadata["price"] == result.hits[0].node.metadata["price"]


def test_sheets_are_kept_where_wanted_alone(
    collection: Collection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    request = SearchRequest("a mug", top_k=3, strategy="first_token")
    assert search(collection, request).sheets == ()
    assert len(search(collection, replace(request, keep_sheets=True)).sheets) == 2
    assert list(tmp_path.glob("sheets-*")) == []


def test_filters(collection: Collection) -> None:
    found = search(collection, SearchRequest("a mug", filters=parse_filters(["price<30", "tags has dots"])))
    assert [hit.file for hit in found.hits] == ["dots-mug.png"]
    for text, prices in (
        ("sold=true", {50, 60, 70, 80}),
        ("sold=false", {0, 10, 20, 30, 40}),
        ("price in 10,20", {10, 20}),
        ("title~mug", {0, 10, 20}),
        ("title!=leopard-mug", {10, 20, 30, 40, 50, 60, 70, 80}),
    ):
        hits = search(collection, SearchRequest("a mug", filters=parse_filters([text]))).hits
        assert {hit.metadata["price"] for hit in hits} == prices, text
    nothing = search(
        collection, SearchRequest("a mug", filters=parse_filters(["price<-1"]), strategy="listwise")
    )
    assert (nothing.hits, nothing.reranked, nothing.audit) == ((), None, None)


def test_one_side_alone(collection: Collection, shop: Path) -> None:
    request = SearchRequest("a mug with this", shop / "leopard.png", top_k=3)
    sides = search_sides(collection, request)
    assert list(sides) == ["composed", "image", "text"]
    assert [sides[each].request.sides for each in sides] == ["composed", "image", "text"]
    assert asked(sides["composed"]) == asked(search(collection, request))
    assert asked(sides["image"]) == asked(search(collection, replace(request, text="")))
    assert asked(sides["text"]) == asked(search(collection, replace(request, image=None)))
    assert len({sides[each].hits[0].score for each in sides}) == 3
    with pytest.raises(ValueError, match="give a picture and words"):
        search_sides(collection, SearchRequest("a mug"))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({}, "nothing to look for"),
        ({"text": "  "}, "nothing to look for"),
        ({"text": "x", "top_k": 0}, "must be 1 to 1000, got 0"),
        ({"text": "x", "top_k": 1001}, "must be 1 to 1000, got 1001"),
        ({"text": "x", "strategy": "best"}, "one of none, .*, got 'best'"),
    ],
)
def test_requests_that_cannot_be(values: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        SearchRequest(**values)


@pytest.mark.parametrize("image", [b"no picture", Path("missing.png"), "http://127.0.0.1:9/a.png"])
def test_pictures_that_cannot_be_read(collection: Collection, image: Any) -> None:
    with pytest.raises(ImageLoadError):
        search(collection, SearchRequest("a mug", image))


def test_captions_are_shared_and_settings_are_not(collection: Collection) -> None:
    models = collection.models
    one, two = models.reranker("listwise", top_n=2), models.reranker("first_token", top_n=5)
    assert (one.strategy, one.top_n, two.strategy, two.top_n) == ("listwise", 2, "first_token", 5)
    assert one.vision_language_model is two.vision_language_model
    assert one._captions is two._captions
    assert isinstance(models, Models)


def test_twenty_searches_at_once(collection: Collection, shop: Path) -> None:
    surfaces = ("leopard", "dots", "stars", "waves", "plaid")
    requests = [
        SearchRequest(
            f"a {kind} with this",
            draw_query_picture(surface, seed),
            top_k=top_k,
            strategy=strategy,  # type: ignore[arg-type]
            filters=parse_filters(filters),
            keep_sheets=strategy != "none",
        )
        for seed, surface in enumerate(surfaces)
        for kind, top_k, strategy, filters in (
            ("mug", 2, "first_token", []),
            ("shoe", 3, "none", ["price<50"]),
            ("umbrella", 4, "none", []),
            ("mug", 9, "none", ["price>=20"]),
        )
    ]
    one_by_one = [search(collection, request) for request in requests]
    with ThreadPoolExecutor(20) as pool:
        together = list(pool.map(lambda request: search(collection, request), requests))
    assert len(together) == 20
    for alone, among in zip(one_by_one, together, strict=True):
        assert among.request is alone.request
        assert [hit.id for hit in among.hits] == [hit.id for hit in alone.hits]
        assert [hit.score for hit in among.hits] == pytest.approx([hit.score for hit in alone.hits], abs=1e-5)
        assert (among.reason, among.caption) == (alone.reason, alone.caption)
        # The captions were known the second time, so that the model was asked once less.
        assert (among.audit or "").partition(" The model")[0] == (alone.audit or "").partition(" The model")[
            0
        ]
        assert among.sheets == alone.sheets
    assert len({each.sheets for each in together}) == 6  # five, and those without
