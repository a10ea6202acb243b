"""sync_folder: what changed is embedded, what is gone is deleted, and nothing else is touched."""

from __future__ import annotations

import doctest
from collections.abc import Iterator
from pathlib import Path

import pytest
from llama_index.core.schema import TextNode
from llama_index.core.vector_stores.types import (
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
    VectorStoreQuery,
)
from support.drawing import draw_picture

from llama_index_multimodal_rerank import (
    EmbeddingMismatchError,
    VisualizedBGEEmbedding,
    image_node,
    milvus_store,
    sync_folder,
)
from llama_index_multimodal_rerank.milvus import folder_sync, vector_store
from llama_index_multimodal_rerank.milvus.folder_sync import SyncProgress
from llama_index_multimodal_rerank.milvus.vector_store import QuotingMilvusVectorStore


@pytest.fixture
def store(embed_model: VisualizedBGEEmbedding, tmp_path: Path) -> Iterator[QuotingMilvusVectorStore]:
    store = milvus_store(tmp_path / "photos.db", embed_model)
    yield store
    store.client.close()


def names(paths: tuple[str, ...]) -> list[str]:
    return [Path(path).name for path in paths]


def rows(store: QuotingMilvusVectorStore) -> list[str]:
    return sorted(node.metadata["file_name"] for node in store.all_nodes())


def test_only_what_changed_is_embedded(
    store: QuotingMilvusVectorStore,
    embed_model: VisualizedBGEEmbedding,
    pictures: list[Path],
    embedded: list[int],
) -> None:
    folder, all_names = pictures[0].parent, [path.name for path in pictures]
    first = sync_folder(folder, store, embed_model)
    assert (names(first.added), first.changed, first.unchanged, first.removed) == (all_names, (), 0, ())
    assert sum(embedded) == first.embedded == first.pictures == 6

    again = sync_folder(folder, store, embed_model)
    assert (again.embedded, again.unchanged, again.removed) == (0, 6, ())
    assert sum(embedded) == 6

    draw_picture(70).save(pictures[4])
    pictures[2].unlink()
    draw_picture(71).save(folder / "new.png")
    third = sync_folder(folder, store, embed_model)
    assert (names(third.added), names(third.changed)) == (["new.png"], [all_names[4]])
    assert (third.unchanged, names(third.removed), third.kept) == (4, [all_names[2]], ())
    assert sum(embedded) == 8
    assert rows(store) == sorted({*all_names, "new.png"} - {all_names[2]})


def test_captions_and_metadata_are_compared_too(
    store: QuotingMilvusVectorStore,
    embed_model: VisualizedBGEEmbedding,
    pictures: list[Path],
    embedded: list[int],
) -> None:
    folder = pictures[0].parent
    prices = {path.name: {"price": place, "tags": ["a", "b"]} for place, path in enumerate(pictures)}
    assert sync_folder(folder, store, embed_model, metadata=lambda path: prices[path.name]).embedded == 6
    prices[pictures[3].name] = {"price": 30, "tags": ["a", "b"]}
    again = sync_folder(folder, store, embed_model, metadata=lambda path: prices[path.name])
    assert (names(again.updated), again.embedded, again.unchanged) == ([pictures[3].name], 0, 5)
    assert (again.pictures, sum(embedded)) == (6, 6)  # a price is no reason to embed
    dear = MetadataFilters(filters=[MetadataFilter(key="price", value=20, operator=FilterOperator.GT)])
    query = VectorStoreQuery(embed_model.get_query_embedding("x"), similarity_top_k=9, filters=dear)
    (found,) = store.query(query).nodes or ()
    assert (found.metadata["file_name"], found.metadata["price"]) == (pictures[3].name, 30)
    own = embed_model([image_node(pictures[3])])[0]  # its vector has stayed
    nearest = store.query(VectorStoreQuery(own.embedding, similarity_top_k=1))
    assert nearest.ids == [own.node_id]
    assert (nearest.similarities or [])[0] > 0.9999
    titled = sync_folder(
        folder, store, embed_model, metadata=lambda path: prices[path.name], text=lambda path: path.stem[-1:]
    )
    assert (titled.embedded, titled.unchanged) == (6, 0)


def test_what_was_told_of_pictures_stays_where_nothing_is_told_now(
    store: QuotingMilvusVectorStore,
    embed_model: VisualizedBGEEmbedding,
    pictures: list[Path],
    embedded: list[int],
) -> None:
    folder = pictures[0].parent

    def told() -> dict[str, tuple[str, object, object]]:
        return {
            node.metadata["file_name"]: (
                node.get_content(),
                node.metadata.get("price"),
                node.metadata["file_size"],
            )
            for node in store.all_nodes()
        }

    sync_folder(folder, store, embed_model, text=lambda path: path.stem, metadata={"price": 5})
    before = told()
    again = sync_folder(folder, store, embed_model)
    assert (again.embedded, again.updated, again.unchanged) == (0, (), 6)
    assert told() == before
    draw_picture(81, size=(90, 90)).save(pictures[1])  # drawn anew
    draw_picture(82).save(folder / "new.png")
    assert (sync_folder(folder, store, embed_model).embedded, sum(embedded)) == (2, 8)
    size = pictures[1].stat().st_size
    assert size != before[pictures[1].name][2]
    new = {"new.png": ("", None, (folder / "new.png").stat().st_size)}
    assert told() == {**before, pictures[1].name: (pictures[1].stem, 5, size), **new}
    cheaper = sync_folder(folder, store, embed_model, metadata={"price": 4})  # captions stay
    assert (len(cheaper.updated), cheaper.embedded) == (7, 0)
    assert {caption for caption, _, _ in told().values()} == {"", *(path.stem for path in pictures)}
    gone = sync_folder(folder, store, embed_model, text=lambda path: "", metadata={})
    assert (gone.embedded, gone.unchanged) == (6, 0)
    assert {(caption, price) for caption, price, _ in told().values()} == {("", None)}


def test_other_folders_of_the_collection_are_left_alone(
    store: QuotingMilvusVectorStore,
    embed_model: VisualizedBGEEmbedding,
    pictures: list[Path],
    tmp_path: Path,
    embedded: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    other = tmp_path / "pictures-2"  # begins like the first
    other.mkdir()
    draw_picture(40).save(other / "other.png")
    sync_folder(pictures[0].parent, store, embed_model)
    sync_folder(other, store, embed_model)
    pictures[0].unlink()
    assert len(sync_folder(pictures[0].parent, store, embed_model).removed) == 1
    assert "other.png" in rows(store)
    # the same folder by other names
    monkeypatch.chdir(other)
    assert sum(embedded) == 7
    for spelled in ("../pictures", f"{other}/../pictures", pictures[0].parent):
        assert sync_folder(spelled, store, embed_model).embedded == 0
    assert sum(embedded) == 7


def test_texts_and_pictures_with_ids_of_their_own_are_left_alone(
    store: QuotingMilvusVectorStore,
    embed_model: VisualizedBGEEmbedding,
    pictures: list[Path],
    caplog: pytest.LogCaptureFixture,
) -> None:
    folder = pictures[0].parent
    (folder / "notes.txt").write_text("mugs are on the second floor")
    text = TextNode(
        text="mugs are on the second floor", id_="t-1", metadata={"file_path": str(folder / "notes.txt")}
    )
    product = image_node(pictures[2], id_="sku-1", metadata={"price": 7})
    store.add(list(embed_model([text, product])))
    for added in (6, 0):
        done = sync_folder(folder, store, embed_model)
        assert (len(done.added), done.removed) == (added, ())
    own = {node.node_id: node.metadata.get("price") for node in store.get_nodes(node_ids=["t-1", "sku-1"])}
    assert own == {"t-1": None, "sku-1": 7}
    assert "1 pictures of" in caplog.text
    assert "under ids of their own" in caplog.text


def test_the_user_s_metadata_does_not_hide_rows(
    store: QuotingMilvusVectorStore, embed_model: VisualizedBGEEmbedding, pictures: list[Path]
) -> None:
    def sync() -> tuple[int, int, int]:
        metadata = {"file_path": "of the camera"}
        done = sync_folder(pictures[0].parent, store, embed_model, metadata=metadata)
        return done.embedded, done.unchanged, len(done.removed)

    assert sync() == (6, 0, 0)
    pictures[1].unlink()
    assert sync() == (0, 5, 1)
    assert pictures[1].name not in rows(store)


@pytest.mark.parametrize("batch_size", [0, -1])
def test_batches_have_a_picture(
    store: QuotingMilvusVectorStore,
    embed_model: VisualizedBGEEmbedding,
    pictures: list[Path],
    batch_size: int,
) -> None:
    with pytest.raises(ValueError, match=f"batch_size must be at least 1, .*got {batch_size}"):
        sync_folder(pictures[0].parent, store, embed_model, batch_size=batch_size)
    assert rows(store) == []


def test_another_model_than_the_store_s_is_refused(
    store: QuotingMilvusVectorStore, embed_model: VisualizedBGEEmbedding, pictures: list[Path]
) -> None:
    other = VisualizedBGEEmbedding(
        model_name=embed_model.model_name, device="cpu", dtype="float32", apply_exif_orientation=True
    )
    with pytest.raises(EmbeddingMismatchError, match="apply_exif_orientation"):
        sync_folder(pictures[0].parent, store, other)
    assert rows(store) == []


def test_an_unreadable_picture_is_named_and_its_row_is_kept(
    store: QuotingMilvusVectorStore, embed_model: VisualizedBGEEmbedding, pictures: list[Path]
) -> None:
    folder = pictures[0].parent
    (folder / "notes.txt").write_text("to be sorted")
    (folder / "never.png").write_text("no picture")
    sync_folder(folder, store, embed_model)
    pictures[1].write_bytes(pictures[1].read_bytes()[:60])
    done = sync_folder(folder, store, embed_model)
    assert names(tuple(each.path for each in done.unreadable)) == ["never.png", pictures[1].name]
    assert names(tuple(each.path for each in done.skipped)) == ["never.png", "notes.txt", pictures[1].name]
    assert (names(done.kept), done.removed, done.pictures) == ([pictures[1].name], (), 6)
    assert pictures[1].name in rows(store)


def test_a_picture_that_vanishes_under_way_is_named(
    store: QuotingMilvusVectorStore, embed_model: VisualizedBGEEmbedding, pictures: list[Path]
) -> None:
    assert embed_model.on_error == "raise"

    def vanish(progress: SyncProgress) -> None:
        if progress == ("embedding", 0, 6):
            pictures[5].unlink()

    done = sync_folder(pictures[0].parent, store, embed_model, on_progress=vanish)
    assert (done.embedded, names(tuple(each.path for each in done.unreadable))) == (5, [pictures[5].name])
    assert "no such file" in done.unreadable[0].reason


def test_nothing_is_deleted_for_an_empty_folder(
    store: QuotingMilvusVectorStore, embed_model: VisualizedBGEEmbedding, pictures: list[Path]
) -> None:
    folder = pictures[0].parent
    sync_folder(folder, store, embed_model)
    for path in pictures:
        path.unlink()
    with pytest.raises(ValueError, match="the collection holds 6 from there: nothing was deleted"):
        sync_folder(folder, store, embed_model)
    folder.rmdir()
    with pytest.raises(FileNotFoundError, match="no such file or folder"):
        sync_folder(folder, store, embed_model)
    folder.write_text("a file")
    with pytest.raises(NotADirectoryError, match="not a folder"):
        sync_folder(folder, store, embed_model)
    assert len(rows(store)) == 6


def test_an_interrupted_run_is_taken_up_where_it_ended(
    store: QuotingMilvusVectorStore,
    embed_model: VisualizedBGEEmbedding,
    pictures: list[Path],
    embedded: list[int],
) -> None:
    seen: list[SyncProgress] = []

    def stop_after_four(progress: SyncProgress) -> None:
        seen.append(progress)
        if progress.done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sync_folder(pictures[0].parent, store, embed_model, batch_size=2, on_progress=stop_after_four)
    assert seen == [("reading", 0, 0), ("embedding", 0, 6), ("embedding", 2, 6), ("embedding", 4, 6)]
    done = sync_folder(pictures[0].parent, store, embed_model)
    assert (done.embedded, done.unchanged, sum(embedded)) == (2, 4, 6)
    assert len(store.query(VectorStoreQuery(query_embedding=[1.0] * 64, similarity_top_k=9)).ids or []) == 6


def test_rows_are_read_page_by_page_from_a_server(
    store: QuotingMilvusVectorStore,
    embed_model: VisualizedBGEEmbedding,
    pictures: list[Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class NotLite:
        """What no client is."""

    sync_folder(pictures[0].parent, store, embed_model)
    whole = {node.node_id: node.metadata for node in store.all_nodes()}
    monkeypatch.setattr(vector_store, "LiteMilvusClient", NotLite)
    monkeypatch.setattr(vector_store, "_PAGE", 4)
    paged = list(store.all_nodes())
    assert len(paged) == 6
    assert {node.node_id: node.metadata for node in paged} == whole


def test_the_example_runs() -> None:
    assert doctest.testmod(folder_sync).failed == 0
