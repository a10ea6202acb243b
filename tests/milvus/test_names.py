"""Names become paths in a Milvus Lite file: whatever is no name is refused before anything is touched."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from llama_index.vector_stores.milvus import MilvusVectorStore
from pymilvus import DataType, MilvusClient
from support.indexing_child import DIM, open_store
from support.killed_states import Tree, node, read_tree

from llama_index_multimodal_rerank.milvus.lite_client import LiteMilvusClient
from llama_index_multimodal_rerank.milvus.names import NAME_PARAMETERS

NO_NAMES = [
    "../../photos", "", ".", "..", "x/keep", "images/..", "./images", "a\\b", "a\0b", "-", "1st", "a b",
    "a.b", "ä", "a\n", "$a", "a" * 256,
]  # fmt: skip


@pytest.fixture
def names(tmp_path: Path) -> list[str]:
    return [*NO_NAMES, str(tmp_path / "d" / "photos"), str(tmp_path)]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of the user's, two levels above a collection's, and a database of two collections."""
    (tmp_path / "d" / "photos" / "2024").mkdir(parents=True)
    (tmp_path / "d" / "photos" / "2024" / "a.jpg").write_bytes(b"a picture")
    (tmp_path / "d" / "photos" / "schema.json").write_text("{}")
    for collection in ("images", "keep"):
        open_store(str(tmp_path / "d" / "m.db"), collection_name=collection).add([node("1", 1)])
    return tmp_path


def files(folder: Path) -> Tree:
    return {name: content for name, content in read_tree(folder).items() if not str(name).endswith("LOCK")}


def assert_refused(folder: Path, *calls: Callable[[], Any]) -> None:
    before = files(folder)
    for call in calls:
        with pytest.raises(ValueError, match="letters, digits and underscores"):
            call()
        assert files(folder) == before


@pytest.mark.parametrize("overwrite", [False, True])
def test_names_of_collections_and_databases(photos: Path, names: list[str], overwrite: bool) -> None:
    uri = str(photos / "d" / "m.db")
    for name in names:
        calls = [lambda name=name: open_store(uri, collection_name=name, overwrite=overwrite)]
        if name:  # "" is the default database
            calls.append(lambda name=name: open_store(uri, db_name=name, overwrite=overwrite))
        assert_refused(photos, *calls)


def test_nothing_is_made_for_a_name_that_is_refused(tmp_path: Path) -> None:
    assert_refused(tmp_path, lambda: open_store(str(tmp_path / "new" / "m.db"), collection_name=".."))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "option",
    [
        {"embedding_field": "../x"},
        {"sparse_embedding_field": "a/b"},
        {"text_key": ""},
        {"doc_id_field": "a.b"},
        {"scalar_field_names": ["ok", "../x"], "scalar_field_types": [DataType.INT64] * 2},
    ],
)
def test_names_of_fields(tmp_path: Path, option: dict[str, Any]) -> None:
    assert_refused(tmp_path, lambda: open_store(str(tmp_path / "m.db"), **option))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("uri", ["http://127.0.0.1:9", "m.db"])
def test_names_are_refused_before_connecting(uri: str, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"collection_name must .* got '\.\./photos'"):
        open_store(uri, collection_name="../photos")


def test_the_names_that_milvus_allows(tmp_path: Path) -> None:
    for name in ("a", "_", "_Images_2024", "a$b", "z" * 255):
        store = open_store(str(tmp_path / "m.db"), collection_name=name, overwrite=True)
        store.add([node("1", 1)])
        assert len(store.get_nodes(["1"])) == 1


# -- the client of the store, and what the store says to it ------------------------------------------


def public_routes() -> list[tuple[str, str]]:
    """Methods of a client, and the parameters in which they take names."""
    found = []
    for method, function in inspect.getmembers(MilvusClient, inspect.isfunction):
        if not method.startswith("_"):
            found += [
                (method, name) for name in inspect.signature(function).parameters if name in NAME_PARAMETERS
            ]
    return found


def test_every_method_of_the_client(photos: Path, names: list[str]) -> None:
    client = open_store(str(photos / "d" / "m.db")).client
    routes = public_routes()
    assert {"drop_collection", "rename_collection", "create_partition", "drop_database"} < {
        m for m, _ in routes
    }
    assert len(routes) > 50
    for name in names:
        for method, parameter in routes:
            if name or parameter not in ("db_name", "target_db", "field_name"):
                value = [name] if parameter == "partition_names" else name
                call = getattr(client, method)
                position = (
                    list(inspect.signature(getattr(MilvusClient, method)).parameters).index(parameter) - 1
                )
                with pytest.raises(ValueError, match="letters, digits and underscores"):
                    call(**{parameter: value})
                with pytest.raises(ValueError, match="letters, digits and underscores"):
                    call(*[None] * position, value)
    assert files(photos)


def test_names_given_by_position(photos: Path) -> None:
    store = open_store(str(photos / "d" / "m.db"))
    client = store.client
    schema = client.create_schema()
    schema.add_field("id", DataType.VARCHAR, max_length=9, is_primary=True)
    schema.add_field("../x", DataType.FLOAT_VECTOR, dim=2)
    assert_refused(
        photos,
        lambda: client.drop_collection("../../photos"),
        lambda: client.rename_collection("images", "../../photos/images"),
        lambda: client.rename_collection("../../photos", "images2"),
        lambda: client.create_collection("../../../new", 2),
        lambda: client.create_collection("new", schema=schema),
        lambda: client.create_partition("images", "../../../../photos"),
        lambda: client.drop_partition("images", ""),
        lambda: client.create_database("../x"),
        lambda: client.use_database(".."),
        lambda: client.truncate_collection(".."),
        lambda: client.query("images", partition_names=["_default", "../x"]),
        lambda: asyncio.run(store.aclient.drop_collection("../../photos")),
        lambda: LiteMilvusClient(str(photos / "d" / "m.db"), db_name=".."),
    )
    client.create_partition("images", "summer")
    client.drop_partition("images", "summer")


@pytest.mark.parametrize("name", ["../../photos", ""])
def test_a_store_that_was_given_another_name(photos: Path, name: str) -> None:
    store: MilvusVectorStore = open_store(str(photos / "d" / "m.db"))
    store.collection_name = name
    assert_refused(
        photos,
        store.clear,
        lambda: asyncio.run(store.aclear()),
        lambda: store.add([node("2", 1)]),
        lambda: store.get_nodes(["1"]),
        lambda: store.delete("1"),
    )


def test_partitions_of_the_store(photos: Path) -> None:
    store = open_store(str(photos / "d" / "m.db"))
    assert_refused(photos, lambda: store.add([node("2", 1)], milvus_partition_name="../x"))
    assert len(node("2", 1).embedding or ()) == DIM


# -- the file itself ------------------------------------------------------------------------------


def test_a_folder_of_other_things_is_not_taken_for_a_database(tmp_path: Path) -> None:
    folder = tmp_path / "photos.db"
    (folder / "collections" / "empty album").mkdir(
        parents=True
    )  # would be taken for an incomplete collection
    (folder / ".database-staging").mkdir()
    (folder / ".database-staging" / "a.jpg").write_bytes(b"a picture")  # would be cleaned away
    (folder / "b.jpg").write_bytes(b"a picture")
    before = read_tree(folder)
    for overwrite in (False, True):
        with pytest.raises(ValueError, match=r"photos\.db.* folder .*no Milvus Lite database"):
            open_store(str(folder), overwrite=overwrite)
    assert read_tree(folder) == before
    assert (folder / "collections" / "empty album").is_dir()


def test_an_empty_folder_becomes_a_database(tmp_path: Path) -> None:
    (tmp_path / "m.db").mkdir()
    open_store(str(tmp_path / "m.db")).add([node("1", 1)])


@pytest.mark.parametrize("uri", ["sqlite:///m.db", "file:///tmp/m.db", "http://host/m.db", "unix:/tmp/m.db"])
def test_addresses_that_are_no_files(uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"uri .*got "):
        open_store(uri)
    assert list(tmp_path.iterdir()) == []
