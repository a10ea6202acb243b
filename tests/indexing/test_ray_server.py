"""index_with_ray into a real Milvus server, as tests/milvus/test_server.py finds it."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pymilvus import MilvusClient

pytest.importorskip("ray", reason='Ray is not installed: pip install ".[ray]"')

from support.ray_behaviour import check_killed_runs

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
