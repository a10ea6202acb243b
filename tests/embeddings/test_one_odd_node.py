"""One node that cannot be embedded or stored: named before the first forward pass, or left out and named."""

from __future__ import annotations

import logging
import pickle
import threading
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from llama_index.core import VectorStoreIndex
from llama_index.core.ingestion import DocstoreStrategy, IngestionCache, IngestionPipeline
from llama_index.core.schema import BaseNode, ImageNode, TextNode
from llama_index.core.storage.docstore import SimpleDocumentStore
from llama_index.core.storage.kvstore import SimpleKVStore
from llama_index.core.vector_stores import SimpleVectorStore
from support.visualized_bge_golden import SAME

from llama_index_multimodal_rerank import (
    ImageLoadError,
    ImageText,
    VisualizedBGEEmbedding,
    image_node,
    load_image_nodes,
)
from llama_index_multimodal_rerank.images.sources import ImageNotFoundError


@pytest.fixture
def busy(embed_model: VisualizedBGEEmbedding, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Sizes of the batches that the model computed."""
    sizes: list[int] = []
    forward = embed_model.model.model.forward

    def counting(*args: Any) -> Any:
        sizes.append(len(args[0]))
        return forward(*args)

    monkeypatch.setattr(embed_model.model.model, "forward", counting)
    return sizes


@pytest.fixture
def skipping(tiny_checkpoint: Path) -> VisualizedBGEEmbedding:
    return VisualizedBGEEmbedding(
        model_name=str(tiny_checkpoint), device="cpu", dtype="float32", embed_batch_size=2, on_error="skip"
    )


def many(paths: list[Path], odd: BaseNode) -> list[BaseNode]:
    """Enough nodes for several batches, the odd one last."""
    return [TextNode(text=f"a mug {i}") for i in range(40)] + [*load_image_nodes(paths), odd]


# -- before the first forward pass -------------------------------------------------------------


async def test_a_value_is_named_before_anything_is_embedded(
    embed_model: VisualizedBGEEmbedding, pictures: list[Path], busy: list[int]
) -> None:
    for place, value in (("price", float("nan")), ("blob", b"\xff"), ("n", 2**64), ("a", "\ud800")):
        odd = image_node(pictures[5], id_="odd")
        odd.metadata[place] = value
        words = TextNode(id_="odd", text="a mug", metadata={place: value})
        named = rf"'odd'.*metadata\['{place}'\]"
        for node in (odd, words):
            with pytest.raises(ValueError, match=named):
                embed_model(many(pictures[:5], node))
            with pytest.raises(ValueError, match=named):
                await embed_model.acall(many(pictures[:5], node))
        with pytest.raises(ValueError, match=named):
            IngestionPipeline(transformations=[embed_model]).run(nodes=many(pictures[:5], odd))
        with pytest.raises(ValueError, match=named):
            VectorStoreIndex(many(pictures[:5], odd), embed_model=embed_model)
    assert busy == []


async def test_texts_and_queries_that_are_not_unicode(
    embed_model: VisualizedBGEEmbedding, pictures: list[Path], busy: list[int]
) -> None:
    broken = "a \ud83d mug"
    told = r"is 'a \\ud83d mug', which is not valid Unicode: character 2.*utf-16"
    for query in (broken, ImageText(broken, pictures[0])):
        for embed in (embed_model.get_query_embedding, embed_model.get_text_embedding):
            with pytest.raises(ValueError, match=told):
                embed(query)
        with pytest.raises(ValueError, match=told):
            await embed_model.aget_query_embedding(query)
        with pytest.raises(ValueError, match=told):
            embed_model.get_text_embedding_batch(["a mug"] * 40 + [query])
        with pytest.raises(ValueError, match=told):
            await embed_model.aget_text_embedding_batch(["a mug"] * 40 + [query])
    with pytest.raises(ValueError, match=told):
        VectorStoreIndex([TextNode(text="a mug")] * 40 + [TextNode(text=broken)], embed_model=embed_model)
    assert busy == []
    repaired = broken.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    assert len(embed_model.get_query_embedding(repaired)) == embed_model.dim


@pytest.mark.parametrize("odd", ["", " \n", float("nan"), None])
def test_no_text_at_all(embed_model: VisualizedBGEEmbedding, busy: list[int], odd: Any) -> None:
    with pytest.raises(ValueError, match=r"an empty text|a text is (nan|None), of type"):
        embed_model.get_text_embedding_batch(["a mug"] * 40 + [odd])
    assert busy == []


async def test_a_file_that_is_gone_is_named_before_anything_is_embedded(
    embed_model: VisualizedBGEEmbedding, pictures: list[Path], busy: list[int]
) -> None:
    nodes = many(pictures[:5], image_node(pictures[5]))
    pictures[5].unlink()
    for run in (
        lambda: embed_model(nodes),
        lambda: VectorStoreIndex(nodes, embed_model=embed_model),
        lambda: IngestionPipeline(transformations=[embed_model]).run(nodes=nodes),
    ):
        with pytest.raises(ImageNotFoundError, match=r"picture-5\.png"):
            run()
    with pytest.raises(ImageNotFoundError, match=r"picture-5\.png"):
        await embed_model.acall(nodes)
    assert busy == []


def test_a_cached_picture_needs_no_file(tiny_checkpoint: Path, pictures: list[Path]) -> None:
    cached = VisualizedBGEEmbedding(
        model_name=str(tiny_checkpoint), device="cpu", embeddings_cache=SimpleKVStore()
    )
    nodes = load_image_nodes(pictures)
    before = [node.embedding for node in cached(nodes)]
    pictures[0].unlink()
    assert [node.embedding for node in cached(nodes)] == before


def test_numbers_of_numpy_become_pythons_and_dates_stay(embed_model: VisualizedBGEEmbedding) -> None:
    dates = {"made": (1, 2)}
    nodes = [
        TextNode(text="a mug", metadata={"price": np.float32(0.5), "sizes": [np.int64(1)]}),
        TextNode(text="a cup", metadata=dates),
    ]
    before = nodes[1].hash
    embed_model(nodes)
    assert nodes[0].metadata == {"price": 0.5, "sizes": [1]}
    assert type(nodes[0].metadata["price"]) is float
    assert (nodes[1].metadata, nodes[1].hash) == (dates, before)


# -- on_error="skip" ---------------------------------------------------------------------------


def expected_of(embed_model: VisualizedBGEEmbedding, nodes: list[BaseNode]) -> np.ndarray:
    return np.asarray([embed_model.get_text_embedding(node.get_content("embed")) for node in nodes])  # type: ignore[arg-type]


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_the_rest_is_embedded(
    skipping: VisualizedBGEEmbedding,
    pictures: list[Path],
    caplog: pytest.LogCaptureFixture,
    asynchronous: bool,
) -> None:
    nodes: list[BaseNode] = [*load_image_nodes(pictures), TextNode(text="a mug")]
    nodes.append(TextNode(id_="odd", text="a cup", metadata={"price": float("nan")}))
    pictures[1].unlink()
    pictures[3].write_bytes(pictures[4].read_bytes())
    with caplog.at_level(logging.WARNING):
        kept = await skipping.acall(nodes) if asynchronous else skipping(nodes)
    left = [nodes[0], nodes[2], nodes[4], nodes[5], nodes[6]]
    assert list(kept) == left
    np.testing.assert_allclose([node.embedding for node in kept], expected_of(skipping, left), atol=SAME)
    assert nodes[1].embedding is nodes[3].embedding is None
    assert {skipped.node_id: skipped.reason.rpartition(": ")[2] for skipped in skipping.skipped} == {
        nodes[1].node_id: "no such file",
        nodes[3].node_id: "the file changed since its node was made; make the node again",
        "odd": "metadata['price'] is nan, which is no JSON; leave the key out, or write None",
    }
    for name in ("picture-1.png", "picture-3.png", "'odd'"):
        assert name in caplog.text
    skipping.skipped.clear()
    assert skipping(left[:1]) == left[:1]
    assert skipping.skipped == []


def test_a_file_that_vanishes_in_the_middle(
    skipping: VisualizedBGEEmbedding, pictures: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    nodes = load_image_nodes(pictures)
    load = type(skipping)._load_image
    lock = threading.Lock()

    def vanishing(model: VisualizedBGEEmbedding, text: ImageText) -> Any:
        with lock:  # when the first picture is read, all had been there
            pictures[4].unlink(missing_ok=True)
        return load(model, text)

    monkeypatch.setattr(type(skipping), "_load_image", vanishing)
    kept = skipping(nodes)
    assert kept == nodes[:4] + nodes[5:]
    assert [skipped.node_id for skipped in skipping.skipped] == [nodes[4].node_id]
    np.testing.assert_allclose([node.embedding for node in kept], expected_of(skipping, kept), atol=SAME)


def test_nothing_else_is_skipped(skipping: VisualizedBGEEmbedding, pictures: list[Path]) -> None:
    nodes = load_image_nodes(pictures)
    digest = nodes[0].metadata["image_digest"]
    stored = ImageNode(image_path=str(pictures[0]), metadata={"image_digest": digest})
    pictures[0].unlink()
    with pytest.raises(ImageLoadError, match=r"picture-0\.png"):  # a document store would take it for indexed
        skipping([stored])
    for query in (ImageText("", pictures[0]), ImageText("a mug", pictures[0])):
        with pytest.raises(ImageLoadError, match=r"picture-0\.png"):
            skipping.get_query_embedding(query)
    with pytest.raises(ImageLoadError, match=r"picture-0\.png"):
        VectorStoreIndex(nodes, embed_model=skipping)
    with pytest.raises(ValueError, match="neither text nor picture"):
        skipping([TextNode(text="")])
    with pytest.raises(ValueError, match="on_error"):
        VisualizedBGEEmbedding(on_error="ignore")  # type: ignore[arg-type]
    assert skipping.skipped == []


@pytest.mark.skipif(
    version("llama-index-core") == "0.14.0",
    reason="this llama-index-core puts nodes into the document store before they are embedded",
)
@pytest.mark.parametrize("strategy", list(DocstoreStrategy))
def test_what_was_left_out_is_taken_when_it_is_there_again(
    skipping: VisualizedBGEEmbedding, pictures: list[Path], tmp_path: Path, strategy: DocstoreStrategy
) -> None:
    store, docstore, cache = SimpleVectorStore(), SimpleDocumentStore(), IngestionCache()

    def run(nodes: list[Any]) -> set[str]:
        pipeline = IngestionPipeline(
            transformations=[skipping],
            vector_store=store,
            docstore=docstore,
            docstore_strategy=strategy,
            cache=cache,
        )
        pipeline.run(nodes=nodes)
        return set(store.data.embedding_dict)

    ids = [node.node_id for node in load_image_nodes(pictures)]
    odd = load_image_nodes(pictures)
    odd[5].metadata["blob"] = b"\xff"
    data = pictures[2].read_bytes()
    pictures[2].unlink()
    assert run(odd) == {*ids[:2], *ids[3:5]}
    docstore.persist(str(tmp_path / "docstore.json"))
    pictures[2].write_bytes(data)
    assert run(load_image_nodes(pictures)) == set(ids)
    done = len(skipping.skipped)
    assert run(load_image_nodes(pictures)) == set(ids)
    assert len(skipping.skipped) == done == 2


def test_settings_come_back(skipping: VisualizedBGEEmbedding) -> None:
    for twin in (
        VisualizedBGEEmbedding.from_dict(skipping.to_dict()),
        VisualizedBGEEmbedding.from_json(skipping.to_json()),
        pickle.loads(pickle.dumps(skipping)),
    ):
        assert (twin.on_error, twin.embed_batch_size, twin.skipped) == ("skip", 2, [])


# -- two nodes of one id -----------------------------------------------------------------------


async def test_one_picture_for_two_products_is_an_error(
    embed_model: VisualizedBGEEmbedding, pictures: list[Path], busy: list[int]
) -> None:
    for picture in (pictures[0], pictures[0].read_bytes()):
        first, second = (image_node(picture, metadata={"sku": sku}) for sku in ("A-1", "B-2"))
        assert first.node_id == second.node_id  # of the picture, so that indexing it again replaces it
        told = r"two different nodes have one id.*\{'sku': 'A-1'\} and \{'sku': 'B-2'\}.*id_="
        with pytest.raises(ValueError, match=told):
            embed_model([*many(pictures[1:], first)[1:], second])
        with pytest.raises(ValueError, match=told):
            await embed_model.acall([first, second])
        with pytest.raises(ValueError, match=told):
            IngestionPipeline(transformations=[embed_model]).run(nodes=[first, second])
        assert busy == []
        told_apart = [image_node(picture, metadata={"sku": sku}, id_=sku) for sku in ("A-1", "B-2")]
        rows = IngestionPipeline(transformations=[embed_model]).run(nodes=told_apart)
        assert [row.node_id for row in rows] == ["A-1", "B-2"]
        assert busy
        busy.clear()
    with pytest.raises(ValueError, match=r"TextNode 'a' is \{'text': 'a mug'\} and \{'text': 'a cup'\}"):
        embed_model([TextNode(id_="a", text="a mug"), TextNode(id_="a", text="a cup")])


def test_the_same_node_twice_is_none(embed_model: VisualizedBGEEmbedding, pictures: list[Path]) -> None:
    node = image_node(pictures[0])
    assert len(embed_model([node, node, image_node(pictures[0])])) == 3
