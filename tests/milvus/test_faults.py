"""What is below us fails: the server, the disk. The documented exception, and what was done is kept."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from llama_index.core.vector_stores.types import VectorStoreQuery
from llama_index.vector_stores.milvus import MilvusVectorStore
from pymilvus.exceptions import MilvusException
from support.drawing import draw_catalogue
from support.indexing_child import DIM, DigestVectors, embedded
from support.tcp_proxy import CuttingProxy

from llama_index_multimodal_rerank import milvus_store
from llama_index_multimodal_rerank.milvus import server_client
from llama_index_multimodal_rerank.milvus.clients import MilvusUnavailableError

PICTURES = 24
BATCH = 4
TESTS = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_client, "RETRY_TIMEOUT_SECONDS", 1.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_catalogue(tmp_path_factory.mktemp("catalogue"), PICTURES)


@pytest.fixture
def proxy(tmp_path: Path) -> Iterator[CuttingProxy]:
    """A way to a Milvus, which is a Lite file, over TCP, that can be cut."""
    store = milvus_store(tmp_path / "m.db", DigestVectors())  # type: ignore[arg-type]
    host, port = store.client._get_connection()._address.split(":")
    proxy = CuttingProxy((host, int(port)))
    yield proxy
    proxy.close()


def connect(uri: str) -> MilvusVectorStore:
    return milvus_store(uri, DigestVectors(), batch_size=BATCH)  # type: ignore[arg-type]


def count(store: MilvusVectorStore) -> int:
    result = store.query(VectorStoreQuery(query_embedding=[1.0] * DIM, similarity_top_k=PICTURES * 2))
    assert result.ids is not None
    assert len(result.ids) == len(set(result.ids))
    return len(result.ids)


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_milvus_gone_in_the_middle_of_an_insert(
    proxy: CuttingProxy, folder: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = connect(proxy.uri)
    nodes = embedded(folder)
    proxy.go_away_after(25_000)
    add = store.add if kind == "sync" else lambda nodes: asyncio.run(store.async_add(nodes))
    with pytest.raises(MilvusUnavailableError, match=r"stopped answering in upsert.*do the same") as raised:
        add(nodes)
    assert isinstance(raised.value, ConnectionError)
    assert isinstance(raised.value, MilvusException)
    proxy.come_back()
    monkeypatch.setattr(server_client, "RETRY_TIMEOUT_SECONDS", 30.0)  # connections are not retried at once
    kept = count(store)
    assert 0 < kept < PICTURES
    assert kept % BATCH == 0
    store.add(nodes)
    assert count(store) == PICTURES


def test_milvus_gone_in_the_middle_of_a_query(
    proxy: CuttingProxy, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = connect(proxy.uri)
    store.add(embedded(folder))
    proxy.go_away_after(20)
    with pytest.raises(MilvusUnavailableError, match="stopped answering in search"):
        count(store)
    with pytest.raises(MilvusUnavailableError, match="stopped answering in query"):
        store.get_nodes(["a"])
    proxy.come_back()
    monkeypatch.setattr(server_client, "RETRY_TIMEOUT_SECONDS", 30.0)
    assert count(store) == PICTURES


def test_a_short_absence_is_sat_out(
    proxy: CuttingProxy, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_client, "RETRY_TIMEOUT_SECONDS", 30.0)
    store = connect(proxy.uri)
    proxy.go_away_after(25_000, absent_seconds=1.0)
    store.add(embedded(folder))
    assert proxy.absences > 0
    assert count(store) == PICTURES


SERVER = """
import sys, time
from support.indexing_child import open_store
store = open_store(sys.argv[1])
print(store.client._get_connection()._address, flush=True)
time.sleep(600)
"""


def test_the_server_process_is_killed_and_started_again(folder: Path, tmp_path: Path) -> None:
    def start() -> tuple[subprocess.Popen[str], str]:
        process = subprocess.Popen(
            [sys.executable, "-c", SERVER, str(tmp_path / "m.db")],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            cwd=TESTS,
        )
        assert process.stdout is not None
        return process, "http://" + process.stdout.readline().strip()

    nodes = embedded(folder)
    process, uri = start()
    store = connect(uri)
    store.add(nodes[: BATCH * 2])
    process.send_signal(signal.SIGKILL)
    process.wait()
    with pytest.raises(MilvusUnavailableError):
        store.add(nodes)
    process, uri = start()
    try:
        store = connect(uri)
        assert count(store) == BATCH * 2
        store.add(nodes)
        assert count(store) == PICTURES
    finally:
        process.kill()
        process.wait()
