"""milvus_store on a real Milvus server, in collections of its own that are dropped afterwards.

Runs where ``MILVUS_TEST_URI`` names one (``http://127.0.0.1:19530``). ``.ci/with-milvus-server`` starts
one, out of reach of the network.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from llama_index.core.vector_stores.types import VectorStoreQuery
from llama_index.vector_stores.milvus import MilvusVectorStore
from pymilvus import MilvusClient
from pymilvus.exceptions import MilvusException
from support.catalogue_behaviour import *  # noqa: F403 (those of docs/catalogues.md)
from support.milvus_behaviour import *  # noqa: F403 (the tests of every Milvus)
from support.milvus_behaviour import Place, fill, search
from support.milvus_filters import *  # noqa: F403 (those of ids and filters)

from llama_index_multimodal_rerank import VisualizedBGEEmbedding, image_node

pytestmark = pytest.mark.server


@pytest.fixture(scope="module")
def client() -> MilvusClient:
    uri = os.environ.get("MILVUS_TEST_URI")
    if not uri:
        pytest.skip("MILVUS_TEST_URI names no Milvus server (.ci/with-milvus-server starts one)")
    return MilvusClient(uri)


@pytest.fixture
def place(client: MilvusClient) -> Iterator[Place]:
    version = tuple(int(part) for part in client.get_server_version().lstrip("v").split(".")[:2])
    place = Place(
        os.environ["MILVUS_TEST_URI"],
        f"test_{uuid.uuid4().hex}",
        sparse=version >= (2, 4),
        bm25=version >= (2, 5),
        infix=version >= (2, 5),
        # Tests read what another client wrote a moment ago, and what was just deleted.
        consistency_level="Strong",
        every=8,
    )
    yield place
    client.drop_collection(place.collection)


def test_the_server_chooses_its_index(store: MilvusVectorStore, place: Place) -> None:
    index = store.client.describe_index(place.collection, "embedding")
    assert (index["index_type"], index["metric_type"]) == ("AUTOINDEX", "COSINE")


def test_by_default_a_store_reads_what_it_wrote_itself(
    place: Place, embed_model: VisualizedBGEEmbedding, pictures: list[Path]
) -> None:
    store = place.open(embed_model, consistency_level="Session")
    fill(store, embed_model, pictures[0].parent)
    assert len(search(store, [1.0] * store.dim)) == 6


@pytest.mark.parametrize(
    "config",
    [
        {"index_type": "HNSW", "M": 8, "efConstruction": 64},
        {"index_type": "IVF_SQ8", "nlist": 16},
        {"index_type": "FLAT"},
    ],
)
def test_index_config_reaches_the_server(
    place: Place, embed_model: VisualizedBGEEmbedding, config: dict[str, Any]
) -> None:
    store = place.open(embed_model, index_config=config)
    index = store.client.describe_index(place.collection, "embedding")
    assert {name: index[name] for name in config} == {name: str(value) for name, value in config.items()}
    assert index["metric_type"] == "COSINE"
    again = place.open(embed_model, index_config=config)
    assert again.client.describe_index(place.collection, "embedding") == index


def test_an_index_with_other_parameters_is_refused(place: Place, embed_model: VisualizedBGEEmbedding) -> None:
    place.open(embed_model, index_config={"index_type": "HNSW", "M": 8, "efConstruction": 64})
    with pytest.raises(ValueError, match="M: collection '8', index_config 16"):
        place.open(embed_model, index_config={"index_type": "HNSW", "M": 16, "efConstruction": 64})


@pytest.mark.parametrize(
    "config", [{"index_type": "HNWS"}, {"index_type": "HNSW", "M": "many", "efConstruction": 64}]
)
def test_overwrite_drops_nothing_for_an_index_that_the_server_refuses(
    place: Place,
    client: MilvusClient,
    embed_model: VisualizedBGEEmbedding,
    pictures: list[Path],
    config: dict[str, Any],
) -> None:
    fill(place.open(embed_model), embed_model, pictures[0].parent)
    before = client.list_collections()
    with pytest.raises(MilvusException):
        place.open(embed_model, overwrite=True, index_config=config)
    assert client.list_collections() == before
    assert len(search(place.open(embed_model), [1.0] * embed_model.dim)) == 6
    store = place.open(embed_model, overwrite=True, index_config={"index_type": "FLAT"})
    assert search(store, [1.0] * embed_model.dim) == []
    assert client.list_collections() == before


def test_an_index_is_exchanged_as_documented(
    place: Place, embed_model: VisualizedBGEEmbedding, pictures: list[Path]
) -> None:
    """docs/milvus_at_size.md"""
    store = place.open(embed_model, index_config={"index_type": "HNSW", "M": 8, "efConstruction": 64})
    fill(store, embed_model, pictures[0].parent)
    client, name = store.client, store.collection_name
    client.release_collection(name)
    client.drop_index(name, "embedding")
    index = client.prepare_index_params()
    index.add_index("embedding", "IVF_SQ8", "embedding", metric_type="COSINE", params={"nlist": 16})
    client.create_index(name, index)
    again = place.open(embed_model, index_config={"index_type": "IVF_SQ8", "nlist": 16})
    assert search(again, embed_model.get_image_embedding(pictures[4]), 1) == [str(pictures[4])]


def test_partitions_as_documented(
    place: Place, embed_model: VisualizedBGEEmbedding, pictures: list[Path]
) -> None:
    """docs/milvus_at_size.md"""
    store = place.open(embed_model)
    for shop, own in (("shop_a", pictures[:2]), ("shop_b", pictures[2:4])):
        store.client.create_partition(place.collection, shop)
        store.add(list(embed_model([image_node(path) for path in own])), milvus_partition_name=shop)
    query = VectorStoreQuery(
        query_embedding=embed_model.get_image_embedding(pictures[0]), similarity_top_k=10
    )
    found = store.query(query, milvus_partition_names=["shop_b"]).nodes or []
    assert {node.image_path for node in found} == {str(path) for path in pictures[2:4]}
    assert len(store.query(query).nodes or []) == 4
