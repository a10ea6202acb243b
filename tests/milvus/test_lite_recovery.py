"""Milvus Lite files as killed processes leave them are opened again, with every acknowledged row."""

from __future__ import annotations

import json
import multiprocessing
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from llama_index.core.vector_stores.types import VectorStoreQuery
from llama_index.vector_stores.milvus import MilvusVectorStore
from milvus_lite import Collection, MilvusLite, server_manager_instance
from milvus_lite.storage.wal import WAL
from support.indexing_child import OneWord, open_store
from support.killed_states import State, Tree, node, read_tree, record, write_tree

from llama_index_multimodal_rerank.milvus.lite_recovery import repair

IMAGES = Path("collections", "images")


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "m.db"
    close(tmp_path / "m.db")


def close(path: Path) -> None:
    server_manager_instance.release_server(str(path))


def rows(store: MilvusVectorStore) -> list[tuple[str, int]]:
    """Ids and versions, as a query of all finds them."""
    found = store.client.query("images", filter='id != ""', output_fields=["id", "version"], limit=100)
    return sorted((row["id"], row["version"]) for row in found)


def rows_by_id(store: MilvusVectorStore, ids: list[str]) -> list[tuple[str, int]]:
    return sorted((found.node_id, found.metadata["version"]) for found in store.get_nodes(ids))


def ids_by_vector(store: MilvusVectorStore, row: str, version: int) -> list[str]:
    result = store.query(VectorStoreQuery(query_embedding=node(row, version).embedding, similarity_top_k=100))
    assert result.ids is not None
    return result.ids


# -- every moment --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def states(tmp_path_factory: pytest.TempPathFactory) -> list[State]:
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    path = tmp_path_factory.mktemp("recorded") / "m.db"
    child = context.Process(target=record, args=(str(path), path, sender), daemon=True)
    child.start()
    sender.close()
    recorded: list[State] = receiver.recv()
    child.join()
    before: Tree = {}
    torn = []
    for state in recorded:
        torn += state.torn(before)
        before = state.tree
    return recorded + torn


def problems(state: State, path: Path) -> Iterator[str]:
    """What does not hold of a state opened again."""
    store = open_store(str(path))
    found = rows(store)
    possible = [dict(state.rows)]
    if state.dropping:
        possible.append({})
    for row, version in state.under_way.items():
        possible.append({k: v for k, v in {**possible[-1], row: version}.items() if v is not None})
    if dict(found) not in possible or len(dict(found)) != len(found):
        yield f"rows {found}, not one of {possible}"
    ids = sorted({*state.rows, *state.under_way, "0", "1"})
    if (by_id := rows_by_id(store, ids)) != found:
        yield f"rows by id {by_id}, all rows {found}"
    for row, version in found:
        ranking = ids_by_vector(store, row, version)
        if ranking[0] != row or sorted(ranking) != [row for row, _ in found]:
            yield f"row {row} of version {version} found as {ranking}"
    store.add([node(row, 9) for row in ("0", "5", "8")])
    again = dict(found) | dict.fromkeys(("0", "5", "8"), 9)
    if rows(store) != sorted(again.items()) or ids_by_vector(store, "5", 9)[0] != "5":
        yield f"after adding again {rows(store)}"


def test_killed_at_every_moment(states: list[State], tmp_path: Path) -> None:
    moments = " ".join(state.moment for state in states)
    for file in ("schema.json.tmp", "manifest.json.tmp", "wal_data_", "wal_delta_", ".parquet", ".idx"):
        assert file in moments
    failed = []
    for number, state in enumerate(states):
        path = tmp_path / f"{number}.db"
        write_tree(state.tree, path)
        try:
            failed += [f"{state.moment}: {problem}" for problem in problems(state, path)]
        except Exception as error:  # of any of them; all are listed
            failed.append(f"{state.moment}: {type(error).__name__}: {error}")
        close(path)
    assert failed == []


# -- a collection that was not made to the end -----------------------------------------------------


@pytest.mark.parametrize("schema", [None, "", '{"collection_name": "ima', "{}"])
@pytest.mark.parametrize("collections", ["collections", "databases/shop/collections"])
def test_killed_before_the_schema_was_there(path: Path, collections: str, schema: str | None) -> None:
    # Milvus Lite 3.2.2: "[Errno 17] File exists", whenever it is opened.
    folder = path / collections / "images"
    folder.mkdir(parents=True)
    if schema is not None:
        (folder / "schema.json.tmp").write_text(schema)
    store = open_store(str(path), **({"db_name": "shop"} if "shop" in collections else {}))
    store.add([node("1", 1)])
    assert rows(store) == [("1", 1)]
    assert (folder / "schema.json").exists()


def test_what_another_process_is_making_is_left_alone(path: Path) -> None:
    with MilvusLite(str(path)):  # has the lock, as another process would
        (path / IMAGES).mkdir()
        with pytest.raises(ConnectionError, match="one process at a time"):
            open_store(str(path))
        assert (path / IMAGES).is_dir()


def test_what_another_thread_is_making_is_left_alone(path: Path) -> None:
    open_store(str(path), collection_name="open")
    (path / IMAGES).mkdir()
    repair(str(path))
    assert (path / IMAGES).is_dir()


def test_nothing_is_made_where_there_is_no_file(path: Path) -> None:
    repair(str(path))
    assert not path.exists()


def test_killed_between_two_indexes(path: Path) -> None:
    store = open_store(str(path), sparse_embedding_function=OneWord())
    names = sorted(store.client.list_indexes("images"))
    assert len(names) == 2
    close(path)
    manifest = json.loads((path / IMAGES / "manifest.json").read_text())
    del manifest["index_specs"]["sparse_embedding"]
    (path / IMAGES / "manifest.json").write_text(json.dumps(manifest))
    schema = json.loads((path / IMAGES / "schema.json").read_text())
    schema["properties"] = {}  # the embedding is remembered last
    (path / IMAGES / "schema.json").write_text(json.dumps(schema))
    store = open_store(str(path), sparse_embedding_function=OneWord(), similarity_metric="IP")
    assert sorted(store.client.list_indexes("images")) == names
    assert store.client.describe_index("images", "embedding")["metric_type"] == "IP"


# -- remains with rows ----------------------------------------------------------------------------


@pytest.fixture
def without_schema(path: Path) -> tuple[Path, bytes]:
    """A file whose collection of two rows, one flushed, has lost its schema; and the schema."""
    store = open_store(str(path))
    store.add([node("1", 1)])
    ids_by_vector(store, "1", 1)
    store.add([node("2", 1)])
    close(path)
    schema = path / IMAGES / "schema.json"
    content = schema.read_bytes()
    schema.unlink()
    return path, content


def test_rows_without_a_schema_are_kept_and_named(without_schema: tuple[Path, bytes]) -> None:
    path, schema = without_schema
    kept = read_tree(path / IMAGES)
    with pytest.raises(FileExistsError, match=r"m\.db/collections/images.*schema\.json.*overwrite=True"):
        open_store(str(path))
    open_store(str(path), collection_name="another")
    close(path)
    assert read_tree(path / IMAGES) == kept
    (path / IMAGES / "schema.json").write_bytes(schema)
    assert rows(open_store(str(path))) == [("1", 1), ("2", 1)]


def test_rows_without_a_schema_are_overwritten(without_schema: tuple[Path, bytes]) -> None:
    path, _ = without_schema
    store = open_store(str(path), overwrite=True)
    assert rows(store) == []
    store.add([node("3", 1)])
    assert rows(store) == [("3", 1)]


def test_a_schema_that_cannot_be_read_is_overwritten(without_schema: tuple[Path, bytes]) -> None:
    path, schema = without_schema
    (path / IMAGES / "schema.json").write_bytes(schema[:100])
    assert rows(open_store(str(path), overwrite=True)) == []
    assert [folder.name for folder in (path / "collections").iterdir()] == ["images"]


@pytest.mark.parametrize(
    "log", ["wal/wal_data_000001.arrow", "partitions/_default/data/data_000001_000002.parquet"]
)
def test_any_file_of_rows_counts(path: Path, log: str) -> None:
    file = path / IMAGES / log
    file.parent.mkdir(parents=True)
    file.touch()
    with pytest.raises(FileExistsError):
        open_store(str(path))
    assert file.exists()


def test_a_drop_that_was_cut_short_is_finished(path: Path) -> None:
    store = open_store(str(path))
    store.add([node("1", 1)])
    close(path)
    (path / IMAGES).rename(path / "collections" / f"_dropped_{'0' * 32}")
    assert rows(open_store(str(path))) == []
    assert [folder.name for folder in (path / "collections").iterdir()] == ["images"]


# -- logs ------------------------------------------------------------------------------------------


def logs(path: Path) -> dict[str, bytes]:
    return {log.name: log.read_bytes() for log in sorted((path / IMAGES / "wal").iterdir())}


def test_killed_while_old_logs_were_removed(path: Path) -> None:
    # Milvus Lite 3.2.2 would show row 1 as it was, row 2 as if not deleted, and (by id) no row 3.
    store = open_store(str(path))
    store.add([node(row, 1) for row in ("1", "2", "3")])
    store.delete_nodes(["3"])
    store.add([node("3", 2)])
    left = read_tree(path)
    close(path)
    path.rename(path.with_name("closed"))
    write_tree(left, path)  # as if killed

    store = open_store(str(path))
    store.add([node("1", 2)])
    store.delete_nodes(["2"])
    written = logs(path)
    assert list(written) == [
        "wal_data_000001.arrow", "wal_data_000002.arrow", "wal_delta_000001.arrow", "wal_delta_000002.arrow",
    ]  # fmt: skip
    ids_by_vector(store, "1", 2)  # flushes
    close(path)
    for some in (
        ["wal_data_000001.arrow", "wal_delta_000001.arrow"],
        ["wal_delta_000001.arrow"],
        list(written),
    ):
        for name in some:
            (path / IMAGES / "wal" / name).write_bytes(written[name])
        store = open_store(str(path))
        assert rows(store) == rows_by_id(store, ["1", "2", "3"]) == [("1", 2), ("3", 2)]
        assert ids_by_vector(store, "1", 2) == ["1", "3"]
        close(path)


def test_writes_and_flushes_take_turns(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store(str(path))
    other = open_store(str(path))
    busy: list[str] = []
    together: list[list[str]] = []
    second = threading.Event()

    def alone(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def method(*args: Any, **kwargs: Any) -> Any:
            busy.append(name)
            if len(busy) > 1:
                together.append(list(busy))
                second.set()
            second.wait(0.2)
            try:
                return original(*args, **kwargs)
            finally:
                busy.remove(name)

        return method

    for owner, name in ((WAL, "write_insert"), (WAL, "write_delete"), (Collection, "flush")):
        monkeypatch.setattr(owner, name, alone(name, getattr(owner, name)))
    with ThreadPoolExecutor() as pool:
        for _ in pool.map(
            lambda job: job(),
            [
                lambda: store.add([node("1", 1)]),
                lambda: other.add([node("2", 1)]),
                lambda: other.delete_nodes(["3"]),
                lambda: store.client.flush("images"),
                lambda: other.client.flush("images"),
            ],
        ):
            pass
    assert together == []
    assert rows(store) == [("1", 1), ("2", 1)]


@pytest.mark.parametrize("manifest", [None, "", "[]", "{}", '{"active_wal_number": null}'])
def test_logs_are_kept_unless_they_are_known_to_be_flushed(path: Path, manifest: str | None) -> None:
    wal = path / IMAGES / "wal"
    wal.mkdir(parents=True)
    (path / IMAGES / "schema.json").touch()
    if manifest is not None:
        (path / IMAGES / "manifest.json").write_text(manifest)
    (wal / "wal_data_000001.arrow").touch()
    repair(str(path))
    assert (wal / "wal_data_000001.arrow").exists()


def test_only_logs_before_the_next_are_removed(path: Path) -> None:
    wal = path / IMAGES / "wal"
    wal.mkdir(parents=True)
    (path / IMAGES / "schema.json").touch()
    (path / IMAGES / "manifest.json").write_text('{"active_wal_number": 10}')
    for name in ("wal_data_000009", "wal_delta_000002", "wal_data_000010", "wal_delta_000011"):
        (wal / f"{name}.arrow").touch()
    (wal / "notes.txt").touch()
    repair(str(path))
    assert sorted(log.name for log in wal.iterdir()) == [
        "notes.txt", "wal_data_000010.arrow", "wal_delta_000011.arrow",
    ]  # fmt: skip
