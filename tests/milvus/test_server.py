"""milvus_store on a real Milvus server, in collections of its own that are dropped afterwards.

Runs where ``MILVUS_TEST_URI`` names one (``http://127.0.0.1:19530``). ``.ci/with-milvus-server`` starts
one, out of reach of the network.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from llama_index.vector_stores.milvus import MilvusVectorStore
from pymilvus import MilvusClient
from support.catalogue_behaviour import *  # noqa: F403 (those of docs/catalogues.md)
from support.milvus_behaviour import *  # noqa: F403 (the tests of every Milvus)
from support.milvus_behaviour import Place, fill, search
from support.milvus_filters import *  # noqa: F403 (those of ids and filters)

from llama_index_multimodal_rerank import VisualizedBGEEmbedding

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
