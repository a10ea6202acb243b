"""The folder of a Milvus Lite database is deleted, moved or replaced while this process has it open."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from llama_index.core.vector_stores.types import VectorStoreQuery
from llama_index.vector_stores.milvus import MilvusVectorStore
from milvus_lite import server_manager_instance
from support.indexing_child import DIM, open_store
from support.killed_states import node, read_tree

from llama_index_multimodal_rerank.milvus.clients import MilvusUnavailableError

TESTS = Path(__file__).parents[1]
OTHER_PROCESS = """
import json, sys
from support.indexing_child import open_store
store = open_store(sys.argv[1])
rows = store.client.query("images", filter='id != ""', output_fields=["id"], limit=100)
print(json.dumps(sorted(row["id"] for row in rows)))
"""


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "m.db"
    close(tmp_path / "m.db")


def close(path: Path) -> None:
    server_manager_instance.release_server(str(path))


def rows(store: MilvusVectorStore) -> list[str]:
    found = store.client.query("images", filter='id != ""', output_fields=["id"], limit=100)
    return sorted(row["id"] for row in found)


def rows_in_another_process(path: Path) -> list[str]:
    ran = subprocess.run(
        [sys.executable, "-c", OTHER_PROCESS, path], check=True, capture_output=True, text=True, cwd=TESTS
    )
    found: list[str] = json.loads(ran.stdout.splitlines()[-1])
    return found


def test_deleted(path: Path) -> None:
    old = open_store(str(path))
    old.add([node("1", 1)])
    shutil.rmtree(path)
    store = open_store(str(path))
    assert rows(store) == []
    store.add([node("2", 1)])
    close(path)
    assert rows_in_another_process(path) == ["2"]  # the collection says what made it


def test_an_old_store_says_so(path: Path) -> None:
    store = open_store(str(path))
    store.add([node("1", 1)])
    shutil.rmtree(path)
    for request in (
        lambda: store.add([node("2", 1)]),
        lambda: store.delete_nodes(["1"]),
        lambda: store.get_nodes(["1"]),
        lambda: store.query(VectorStoreQuery(query_embedding=[1.0] * DIM, similarity_top_k=1)),
        lambda: store.client.describe_collection("images"),
    ):
        with pytest.raises(MilvusUnavailableError, match=r"m\.db' was closed, or .*again with milvus_store"):
            request()
    assert not path.exists()
    open_store(str(path))
    with pytest.raises(MilvusUnavailableError):
        store.add([node("2", 1)])


def test_replaced_by_a_copy(path: Path) -> None:
    store = open_store(str(path))
    store.add([node("1", 1)])
    close(path)
    copy = path.with_name("copy")
    shutil.copytree(path, copy)
    store = open_store(str(path))
    store.add([node("2", 1)])
    shutil.rmtree(path)
    copy.rename(path)
    before = read_tree(path)
    with pytest.raises(MilvusUnavailableError):
        store.query(VectorStoreQuery(query_embedding=[1.0] * DIM, similarity_top_k=1))
    assert read_tree(path) == before
    store = open_store(str(path))
    assert rows(store) == ["1"]
    store.add([node("3", 1)])
    assert rows(store) == ["1", "3"]


def test_moved(path: Path) -> None:
    open_store(str(path)).add([node("1", 1)])
    moved = path.with_name("moved.db")
    path.rename(moved)
    store = open_store(str(moved))
    assert rows(store) == ["1"]
    assert rows(open_store(str(path))) == []
    store.add([node("2", 1)])
    assert rows(store) == ["1", "2"]
    close(moved)


ENDS_AFTER_A_MOVE = """
import shutil, sys
from pathlib import Path
from support.indexing_child import open_store
from support.killed_states import node
path, copy, moved = map(Path, sys.argv[1:])
open_store(str(path)).add([node("2", 1)])
path.rename(moved)
copy.rename(path)
"""


def test_the_end_of_a_process_writes_nothing_into_another_database(path: Path) -> None:
    """Milvus Lite writes at the end what it has in memory, to where the folder was."""
    open_store(str(path)).add([node("1", 1)])
    close(path)
    copy, moved = path.with_name("copy"), path.with_name("moved.db")
    shutil.copytree(path, copy)
    before = read_tree(copy)
    subprocess.run([sys.executable, "-c", ENDS_AFTER_A_MOVE, path, copy, moved], check=True, cwd=TESTS)
    assert read_tree(path) == before
    assert rows(open_store(str(path))) == ["1"]
    assert rows(open_store(str(moved))) == ["1", "2"]
    close(moved)
