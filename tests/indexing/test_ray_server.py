"""index_with_ray into a real Milvus server, as tests/milvus/test_server.py finds it."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from llama_index.core.vector_stores.types import MetadataFilter, MetadataFilters
from pymilvus import MilvusClient, connections, utility

pytest.importorskip("ray", reason='Ray is not installed: pip install ".[ray]"')

from support.ray_behaviour import check_killed_runs, wait_for
from support.ray_doubles import PixelEmbedding, write_pictures

from llama_index_multimodal_rerank import ParquetFolder, index_with_ray, load_image_nodes, milvus_store

pytestmark = [pytest.mark.ray, pytest.mark.server, pytest.mark.usefixtures("ray_here")]


@pytest.fixture
def uri() -> str:
    uri = os.environ.get("MILVUS_TEST_URI")
    if not uri:
        pytest.skip("MILVUS_TEST_URI names no Milvus server (.ci/with-milvus-server starts one)")
    return uri


def test_a_killed_driver_and_a_killed_worker(tmp_path: Path, uri: str) -> None:
    client, collection = MilvusClient(uri), f"test_{uuid.uuid4().hex}"

    def read_rows() -> Iterator[dict[str, Any]]:
        if client.has_collection(collection):
            yield from client.query(
                collection, 'id != ""', ["id", "embedding"], limit=16_384, consistency_level="Strong"
            )

    try:
        check_killed_runs(
            tmp_path,
            {"uri": uri, "collection_name": collection, "batch_rows": 20},
            read_rows,
            count=300,
            bad=12,
        )
    finally:
        client.drop_collection(collection)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # pymilvus': 2.3 has no other way to import
def test_files_that_the_server_imports_give_the_nodes_that_the_store_writes(tmp_path: Path, uri: str) -> None:
    pictures, collection = tmp_path / "pictures", f"test_{uuid.uuid4().hex}"
    write_pictures(pictures, 20, 2)
    index_with_ray(pictures, PixelEmbedding(), ParquetFolder(tmp_path / "rows"), metadata={"price": 1.5})
    model = PixelEmbedding()
    nodes = model(load_image_nodes(pictures, metadata={"price": 1.5}, on_error="skip"))
    store = milvus_store(uri, model, collection_name=collection, consistency_level="Strong")
    by_store = milvus_store(uri, model, collection_name=f"{collection}_store", consistency_level="Strong")
    connections.connect(collection, uri=uri)
    try:
        by_store.add(nodes)
        for path in sorted((tmp_path / "rows").glob("*.parquet")):
            job = utility.do_bulk_insert(collection, [str(path)], using=collection)
            wait_for(lambda job=job: _is_done(job, collection), "the import")
        ids = [node.node_id for node in nodes]

        def are_found() -> bool:
            store.client.refresh_load(collection)
            return len(store.get_nodes(ids)) == len(ids)

        wait_for(are_found, "the imported rows")
        expected = {node.node_id: node for node in by_store.get_nodes(ids)}
        for node in store.get_nodes(ids):
            assert node.embedding == pytest.approx(expected[node.node_id].embedding, abs=1e-5)
            assert node.to_dict() == {**expected[node.node_id].to_dict(), "embedding": node.embedding}
        filters = MetadataFilters(filters=[MetadataFilter(key="price", value=1.5)])
        assert len(store.get_nodes(filters=filters)) == 18
    finally:
        store.client.drop_collection(collection)
        store.client.drop_collection(f"{collection}_store")
        connections.disconnect(collection)


def _is_done(job: int, alias: str) -> bool:
    state = utility.get_bulk_insert_state(job, using=alias)
    assert "Failed" not in state.state_name, state.failed_reason
    return bool(state.state_name == "Completed")
