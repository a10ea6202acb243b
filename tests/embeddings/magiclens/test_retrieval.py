"""MagicLensEmbedding through Milvus Lite and the reranker."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from llama_index.core import Settings, VectorStoreIndex
from llama_index.core.ingestion import IngestionPipeline
from support.vlm_doubles import TextModel

from llama_index_multimodal_rerank import (
    EmbeddingMismatchError,
    ImageText,
    ImageTextQuery,
    MagicLensEmbedding,
    Phi3VisionRerank,
    VisualizedBGEEmbedding,
    load_image_nodes,
    milvus_store,
)


@pytest.fixture
def no_llm() -> Any:
    Settings.llm = None
    yield
    Settings._llm = None


@pytest.mark.usefixtures("no_llm")
async def test_composed_query_through_milvus_and_the_reranker(
    lens: MagicLensEmbedding, pictures: list[Path], tmp_path: Path
) -> None:
    store = milvus_store(tmp_path / "m.db", lens)
    nodes = load_image_nodes(pictures[0].parent)
    IngestionPipeline(transformations=[lens], vector_store=store).run(nodes=nodes)
    index = VectorStoreIndex.from_vector_store(store, embed_model=lens)
    query = ImageTextQuery("the same, but at night", image_path=str(pictures[2]))
    hits = index.as_retriever(similarity_top_k=6).retrieve(query)
    # what the dot product with the model's own vectors says
    gallery = lens.encode([ImageText("", path) for path in pictures])
    scores = gallery @ lens.encode([ImageText(query.query_str, pictures[2])])[0]
    assert [hit.node.image_path for hit in hits] == [str(pictures[i]) for i in np.argsort(-scores)]
    np.testing.assert_allclose([hit.score for hit in hits], np.sort(scores)[::-1], atol=1e-4)
    later = await index.as_retriever(similarity_top_k=6).aretrieve(
        ImageTextQuery("the same, but at night", image_path=str(pictures[2]))
    )
    assert [hit.node.node_id for hit in later] == [hit.node.node_id for hit in hits]

    engine = index.as_query_engine(
        similarity_top_k=6,
        response_mode="no_text",
        node_postprocessors=[Phi3VisionRerank(model=TextModel(), top_n=3)],
    )
    response = engine.query(ImageTextQuery("the same, but at night", image_path=str(pictures[2])))
    kept = [hit.node.image_path for hit in response.source_nodes]
    assert len(set(kept)) == 3
    assert set(kept) <= {str(path) for path in pictures}
    assert all("rerank_rank" in hit.node.metadata for hit in response.source_nodes)
    with pytest.raises(ValueError, match="embeds no text alone"):
        engine.query("a mug")


def test_a_collection_of_another_model_is_refused(
    lens: MagicLensEmbedding, embed_model: VisualizedBGEEmbedding, pictures: list[Path], tmp_path: Path
) -> None:
    for first, second in ((lens, embed_model), (embed_model, lens)):
        place = tmp_path / f"{first.class_name()}.db"
        milvus_store(place, first).client.close()
        with pytest.raises(EmbeddingMismatchError) as caught:
            milvus_store(place, second)
        assert first.fingerprint["model"] in str(caught.value)
        assert second.fingerprint["model"] in str(caught.value)
        milvus_store(place, first).client.close()
