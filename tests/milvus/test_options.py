"""Arguments of milvus_store: none is ignored, and a wrong one is found before the collection is dropped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from llama_index.vector_stores.milvus.utils import BM25BuiltInFunction
from pymilvus import DataType

from llama_index_multimodal_rerank import VisualizedBGEEmbedding, image_node, milvus_store
from llama_index_multimodal_rerank.milvus.store import describe_collection

WRONG: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"collection": "shop"}, TypeError, "no argument 'collection'.* ignored. Did you mean collection_name?"),
    ({"similarity_metrics": "IP"}, TypeError, "Did you mean similarity_metric?"),
    ({"searchconfig": {}}, TypeError, "Did you mean search_config?"),
    ({"servername": "x"}, TypeError, "Did you mean server_name?"),
    ({"xyz": 1}, TypeError, r"Known are .*batch_size.*timeout.*\.$"),
    ({"upsert_mode": False}, TypeError, "takes no upsert_mode, got False"),
    ({"use_async_client": True}, TypeError, "takes no use_async_client, got True"),
    ({"enable_sparse": True}, TypeError, "takes no enable_sparse, .*: it follows from sparse_embedding"),
    ({"dim": 3}, TypeError, "takes no dim, got 3: the embedding says it"),
    ({"batch_size": "many"}, ValueError, "batch_size(.|\n)*valid integer(.|\n)*'many'"),
    ({"batch_size": 0}, ValueError, "batch_size must be at least 1, got 0: nothing would be written"),
    ({"batch_size": -1}, ValueError, "batch_size must be at least 1, got -1"),
    ({"output_fields": [1]}, ValueError, "output_fields"),
    ({"index_config": "FLAT"}, ValueError, "index_config(.|\n)*valid dictionary(.|\n)*'FLAT'"),
    ({"consistency_level": "Stronk"}, ValueError, "must be one of .*'Strong'.*, got 'Stronk'"),
    ({"scalar_field_names": ["price"]}, ValueError, "needs scalar_field_types, .* got .'price'. and None"),
    ({"scalar_field_names": ["../x"], "scalar_field_types": [DataType.INT64]}, ValueError, "got '../x'"),
    ({"scalar_field_names": ["price"], "scalar_field_types": ["money"]}, ValueError, "scalar_field_types"),
]


@pytest.mark.parametrize(("options", "error", "message"), WRONG, ids=[str([*case[0]]) for case in WRONG])
def test_a_wrong_argument_is_named_and_nothing_is_dropped(
    options: dict[str, Any],
    error: type[Exception],
    message: str,
    embed_model: VisualizedBGEEmbedding,
    pictures: list[Path],
    tmp_path: Path,
) -> None:
    store = milvus_store(tmp_path / "m.db", embed_model)
    store.add(list(embed_model([image_node(pictures[0])])))
    with pytest.raises(error, match=message):
        milvus_store(tmp_path / "m.db", embed_model, overwrite=True, **options)
    assert len(list(store.all_nodes())) == 1


def test_all_arguments_of_store_and_client_are_taken(
    embed_model: VisualizedBGEEmbedding, pictures: list[Path], tmp_path: Path
) -> None:
    store = milvus_store(
        tmp_path / "m.db",
        embed_model,
        token="",
        db_name="",
        timeout=20,
        index_config={"index_type": "FLAT"},
        search_config={},
        batch_size=2,
        consistency_level="Strong",
        embedding_field="vector",
        output_fields=["price"],
        scalar_field_names=["price"],
        scalar_field_types=[DataType.INT64],
        collection_properties=None,
        sparse_embedding_function=BM25BuiltInFunction(),
        sparse_index_config=None,
        hybrid_ranker="RRFRanker",
        hybrid_ranker_params={"k": 10},
    )
    fields = {field["name"] for field in store.client.describe_collection("images")["fields"]}
    assert {"vector", "price"} <= fields
    store.add(list(embed_model([image_node(path, metadata={"price": 3}) for path in pictures])))
    assert len(list(store.all_nodes())) == 6


def test_describing_a_collection_ignores_nothing(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="describe_collection has no argument 'tokn'"):
        describe_collection(tmp_path / "m.db", tokn="x")
