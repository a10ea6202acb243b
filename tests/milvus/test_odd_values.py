"""Odd values on their way into a collection: nothing is written before all of it can be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from llama_index.core import StorageContext, VectorStoreIndex
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.schema import TextNode
from llama_index.vector_stores.milvus import MilvusVectorStore

from llama_index_multimodal_rerank import (
    VisualizedBGEEmbedding,
    image_node,
    load_image_nodes,
    milvus_store,
)


@pytest.fixture
def store(embed_model: VisualizedBGEEmbedding, tmp_path: Path) -> MilvusVectorStore:
    return milvus_store(tmp_path / "m.db", embed_model)


def rows(store: MilvusVectorStore) -> dict[str, dict[str, Any]]:
    found = store.client.query(store.collection_name, filter='id != ""', output_fields=["*"], limit=1000)
    return {row["id"]: row for row in found}


def test_numbers_of_numpy_reach_the_collection_by_every_way(
    store: MilvusVectorStore, embed_model: VisualizedBGEEmbedding, pictures: list[Path]
) -> None:
    metadata = {"price": np.float32(0.5), "sizes": [np.int64(1)], "new": np.bool_(True)}
    context = StorageContext.from_defaults(vector_store=store)
    texts = [TextNode(id_=name, text="a mug", metadata=dict(metadata)) for name in ("a", "b")]
    VectorStoreIndex([texts[0]], storage_context=context, embed_model=embed_model)
    IngestionPipeline(transformations=[embed_model], vector_store=store).run(nodes=[texts[1]])
    picture = image_node(pictures[0], id_="c")
    picture.metadata.update(metadata)
    VectorStoreIndex([picture], storage_context=context, embed_model=embed_model)
    found = rows(store)
    for name in ("a", "b", "c"):
        assert [found[name][key] for key in metadata] == [0.5, [1], True]
        (back,) = store.get_nodes(node_ids=[name])
        assert back.metadata["sizes"] == [1]


@pytest.mark.parametrize("value", [float("nan"), b"\xff", 2**64, "\ud800", {1}])
async def test_a_node_that_cannot_be_written_is_named_and_none_is_written(
    store: MilvusVectorStore, embed_model: VisualizedBGEEmbedding, pictures: list[Path], value: Any
) -> None:
    nodes = list(embed_model([*load_image_nodes(pictures), TextNode(id_="odd", text="a mug")]))
    nodes[-1].metadata["price"] = value
    with pytest.raises(ValueError, match=r"TextNode 'odd': metadata\['price'\] is"):
        store.add(nodes)
    with pytest.raises(ValueError, match=r"TextNode 'odd': metadata\['price'\] is"):
        await store.async_add(nodes)
    assert rows(store) == {}
    assert len(store.add(nodes[:-1])) == len(rows(store)) == 6


async def test_two_products_of_one_picture(
    store: MilvusVectorStore, embed_model: VisualizedBGEEmbedding, pictures: list[Path]
) -> None:
    context = StorageContext.from_defaults(vector_store=store)
    nodes = [image_node(pictures[0], metadata={"sku": sku}) for sku in ("A-1", "B-2")]
    with pytest.raises(ValueError, match="two different nodes have one id"):
        VectorStoreIndex(nodes, storage_context=context, embed_model=embed_model)
    assert rows(store) == {}
    apart = [image_node(pictures[0], metadata={"sku": sku}, id_=sku) for sku in ("A-1", "B-2")]
    for _ in range(2):  # indexed again, they replace themselves
        VectorStoreIndex(apart, storage_context=context, embed_model=embed_model)
        assert {row["sku"] for row in rows(store).values()} == {"A-1", "B-2"}


def test_the_rest_of_a_run_is_stored(
    store: MilvusVectorStore, tiny_checkpoint: Path, pictures: list[Path]
) -> None:
    model = VisualizedBGEEmbedding(
        model_name=str(tiny_checkpoint), device="cpu", dtype="float32", embed_batch_size=2, on_error="skip"
    )
    nodes = load_image_nodes(pictures)
    pictures[3].unlink()
    nodes[1].metadata["blob"] = b"\xff"
    IngestionPipeline(transformations=[model], vector_store=store).run(nodes=nodes)
    assert {row["file_name"] for row in rows(store).values()} == {f"picture-{i}.png" for i in (0, 2, 4, 5)}
    assert [skipped.node_id for skipped in model.skipped] == [nodes[1].node_id, nodes[3].node_id]
