"""What is searched: a folder, an existing collection, the demo's catalogue."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from llama_index_multimodal_rerank import EmbeddingMismatchError, VisualizedBGEEmbedding, milvus_store
from llama_index_multimodal_rerank.app import collections
from llama_index_multimodal_rerank.app.collections import (
    Collection,
    CollectionSource,
    NoCollectionError,
    connect,
    default_uri,
    open_collection,
)
from llama_index_multimodal_rerank.app.models import ModelChoice
from llama_index_multimodal_rerank.demo.catalogue import draw_catalogue
from llama_index_multimodal_rerank.milvus.folder_sync import SyncProgress

CPU = ModelChoice(device="cpu", dtype="float32")
DEMO = ModelChoice("demo", device="cpu", dtype="float32")


def test_a_folder_is_kept_in_the_cache(shop: Path, cache: Path) -> None:
    seen: list[SyncProgress] = []
    source = CollectionSource(images=shop / "photos")
    opened, done = open_collection(source, DEMO, on_progress=seen.append)
    assert done is not None
    assert (done.embedded, opened.count()) == (9, 9)
    assert seen == [("reading", 0, 0), ("embedding", 0, 9), ("embedding", 9, 9)]
    assert Path(opened.uri).parent == cache
    assert Path(opened.uri).name.startswith("photos-")
    opened.close()
    again, done = open_collection(source, DEMO)
    assert done is not None
    assert (done.embedded, done.unchanged, again.uri) == (0, 9, opened.uri)
    again.close()


def test_folders_and_models_have_places_of_their_own(tmp_path: Path) -> None:
    places = {
        default_uri(folder, model)
        for folder in (None, tmp_path / "a" / "photos", tmp_path / "b" / "photos")
        for model in ("demo", "BAAI/bge-visualized")
    }
    assert len(places) == 6
    assert default_uri(tmp_path / "a" / ".." / "a" / "photos", "demo") in places
    assert default_uri(tmp_path / "Fotos für \n Öde?", "demo").name.startswith("Fotos-f-r-de-")


def test_an_existing_collection_remembers_its_model(shop: Path, tmp_path: Path) -> None:
    uri = str(tmp_path / "c.db")
    made, _ = open_collection(CollectionSource(uri, shop / "photos"), DEMO)
    made.close()
    found, done = open_collection(CollectionSource(uri), CPU)  # which names no model
    assert (done, found.count(), found.models.embedding_name) == (None, 9, "demo")
    assert found.models.reranker_name == "demo"
    found.close()


def test_a_model_of_a_folder_is_remembered_from_everywhere(
    shop: Path, tmp_path: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tiny_checkpoint.parent)
    uri = str(tmp_path / "c.db")
    choice = ModelChoice(tiny_checkpoint.name, device="cpu", dtype="float32")
    connect(CollectionSource(uri, shop / "photos"), choice).close()
    monkeypatch.chdir(tmp_path)
    opened = connect(CollectionSource(uri), CPU)
    assert opened.models.embedding_name == str(tiny_checkpoint)
    opened.close()


def test_a_collection_of_a_program_names_the_models_that_are_known(tmp_path: Path) -> None:
    embed_model = VisualizedBGEEmbedding(model_name="demo", device="cpu", dtype="float32")
    store = milvus_store(tmp_path / "c.db", embed_model, collection_name="shop")
    store.client.close()
    opened = connect(CollectionSource(str(tmp_path / "c.db"), name="shop"), CPU)
    assert opened.models.embedding_name == "demo"
    opened.close()


def test_another_model_than_the_one_that_filled_it(shop: Path, tmp_path: Path, tiny_checkpoint: Path) -> None:
    uri = str(tmp_path / "c.db")
    connect(CollectionSource(uri, shop / "photos"), DEMO).close()
    with pytest.raises(EmbeddingMismatchError, match="was filled by another embedding"):
        connect(CollectionSource(uri), ModelChoice(str(tiny_checkpoint), device="cpu", dtype="float32"))


@pytest.mark.parametrize("name", ["images", "other"])
def test_nothing_is_made_where_there_is_nothing(tmp_path: Path, shop: Path, name: str) -> None:
    uri = str(tmp_path / "c.db")
    if name == "other":
        connect(CollectionSource(uri, shop / "photos"), DEMO).close()
    with pytest.raises(
        NoCollectionError, match=f"there is no collection '{name}' at .*multimodal-rerank index"
    ):
        open_collection(CollectionSource(uri, name=name), DEMO)
    assert Path(uri).exists() == (name == "other")


def test_a_cache_that_cannot_be_made(shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LLAMA_INDEX_CACHE_DIR", str(tmp_path / "file" / "cache"))
    with pytest.raises(OSError, match=r"file/cache.* cannot be made .*LLAMA_INDEX_CACHE_DIR.*--uri"):
        connect(CollectionSource(images=shop / "photos"), DEMO)


def test_a_missing_folder_is_said_before_anything_is_made(tmp_path: Path, cache: Path) -> None:
    for source in (
        CollectionSource(images=tmp_path / "none"),
        CollectionSource(str(tmp_path / "c.db"), tmp_path / "none"),
    ):
        with pytest.raises(FileNotFoundError, match="no such folder"):
            open_collection(source, DEMO)
    assert not (tmp_path / "c.db").exists()
    assert not cache.exists()


def test_the_demo_is_the_drawn_catalogue(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collections, "draw_catalogue", partial(draw_catalogue, count=16))  # of 900
    opened, done = open_collection(CollectionSource(), CPU)
    assert done is not None
    assert (done.embedded, opened.title) == (16, "the demo's drawn catalogue")
    assert (opened.models.embedding_name, opened.models.reranker_name) == ("demo", "demo")
    kinds = {field.key: field for field in opened.fields()}
    assert {"title", "kind", "surface", "colour"} <= kinds.keys()
    assert "mug" in kinds["kind"].values
    assert Path(opened.uri).parent == cache
    opened.close()


def test_pictures_are_found_by_the_ids_of_results(collection: Collection) -> None:
    node = next(iter(collection.store.all_nodes()))
    assert collection.image_of(node.node_id) == node.metadata["file_path"]
    for strange in ("none", '" or id != "'):
        with pytest.raises(NoCollectionError, match="no picture of this collection has the id"):
            collection.image_of(strange)


def test_fields_of_a_collection(collection: Collection) -> None:
    fields = {field.key: field for field in collection.fields()}
    assert (fields["price"].low, fields["price"].high) == (0.0, 80.0)
    assert fields["tags"].values == ("dots", "leopard", "plain")


def test_a_token_is_in_no_message() -> None:
    assert "secret" not in repr(CollectionSource("http://127.0.0.1:1", token="secret"))
