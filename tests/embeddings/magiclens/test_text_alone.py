"""MagicLens embeds no text alone: the error says so before anything is written, and names the other ways."""

from __future__ import annotations

from pathlib import Path

import pytest
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.schema import TextNode

from llama_index_multimodal_rerank import (
    ImageText,
    MagicLensEmbedding,
    image_node,
    milvus_store,
)


@pytest.mark.parametrize("text", ["a mug", ImageText("a mug")])
async def test_a_text_alone_is_an_error_that_names_the_alternative(
    text: str, lens: MagicLensEmbedding
) -> None:
    message = r"embeds no text alone.*'a mug'.*ImageTextQuery\(text, image_path=.*VisualizedBGEEmbedding"
    for embed in (lens.get_text_embedding, lens.get_query_embedding):
        with pytest.raises(ValueError, match=message):
            embed(text)
    with pytest.raises(ValueError, match=message):
        await lens.aget_query_embedding(text)
    with pytest.raises(ValueError, match=message):
        lens([TextNode(text=str(text))])


@pytest.mark.parametrize("text", ["", "  \n", ImageText("")])
def test_empty_text_is_an_error(lens: MagicLensEmbedding, text: str) -> None:
    with pytest.raises(ValueError, match="empty text"):
        lens.get_text_embedding(text)


def test_a_text_alone_needs_no_weights_to_be_refused() -> None:
    with pytest.raises(ValueError, match="embeds no text alone"):
        MagicLensEmbedding(model_name="/nowhere")._to_item("a mug")


def test_a_text_among_pictures_stops_before_anything_is_written(
    lens: MagicLensEmbedding, pictures: list[Path], tmp_path: Path
) -> None:
    store = milvus_store(tmp_path / "m.db", lens)
    pipeline = IngestionPipeline(transformations=[lens], vector_store=store)
    nodes = [*map(image_node, pictures), TextNode(text="only words")]
    with pytest.raises(ValueError, match="embeds no text alone"):
        pipeline.run(nodes=nodes)
    rows = store.client.query(store.collection_name, filter="", output_fields=["count(*)"])
    assert rows[0]["count(*)"] == 0
