"""What the page shows of a search, stage by stage, and what an indexing says."""

from __future__ import annotations

import html
import re
from pathlib import Path

import pytest

from llama_index_multimodal_rerank.app.collections import Collection, CollectionSource, connect
from llama_index_multimodal_rerank.app.filters import parse_filters
from llama_index_multimodal_rerank.app.models import ModelChoice
from llama_index_multimodal_rerank.app.page.indexing import folder_of, in_words, show_progress
from llama_index_multimodal_rerank.app.page.open_collections import OpenCollections
from llama_index_multimodal_rerank.app.page.steps import search_in_steps
from llama_index_multimodal_rerank.app.search import SearchRequest, search
from llama_index_multimodal_rerank.data.folders import SkippedImage
from llama_index_multimodal_rerank.demo.catalogue import draw_query_picture
from llama_index_multimodal_rerank.milvus.folder_sync import FolderSync, SyncProgress


def places(shown: str, name: str) -> list[str]:
    """The files of a list's cards."""
    part = re.search(rf'<section class="ir-list" data-list="{name}">.*?</section>', shown, re.DOTALL)
    return re.findall(r'data-file="([^"]+)"', part[0]) if part else []


def words_of(shown: str) -> str:
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", shown)).split())


def test_a_composed_search(products: Collection, leopard: Path) -> None:
    request = SearchRequest("a phone case with this", leopard.read_bytes(), strategy="listwise")
    first, second, third = search_in_steps(products, request)
    expected = search(products, request)
    assert expected.reranked is not None
    retrieved = [hit.file for hit in expected.retrieved]
    reranked = [hit.file for hit in expected.reranked]
    assert sorted(retrieved) == sorted(reranked)
    assert places(first.lists, "retrieved") == retrieved
    assert places(first.lists, "reranked") == []
    assert "The model is looking at them" in first.lists
    assert places(second.lists, "retrieved") == places(third.lists, "retrieved") == retrieved
    assert places(second.lists, "reranked") == places(third.lists, "reranked") == reranked
    assert expected.reason is not None
    assert expected.reason in words_of(second.said)
    assert re.search(r"embedding the query \d+\.\d\d s .*reranking \d+\.\d\d s", words_of(second.said))
    assert second.saw.count("data:image/png;base64,") == 2
    assert expected.audit is not None
    assert expected.audit.split(". ")[0] in words_of(second.saw)
    assert "{" not in words_of(second.saw)
    assert second.compared == ""
    for name, sides in (("image", "image"), ("text", "text"), ("both", "composed")):
        alone = search(products, request.only(sides))  # type: ignore[arg-type]
        assert places(third.compared, name) == [hit.file for hit in alone.retrieved]
        assert [hit.file for hit in third.hits[name]] == places(third.compared, name)
    assert [hit.file for hit in third.hits["reranked"]] == reranked


def test_the_early_list_is_reranked_and_not_retrieved_again(
    products: Collection, leopard: Path, embedded: list[int]
) -> None:
    request = SearchRequest("a phone case with this", leopard.read_bytes(), strategy="first_token")
    steps = search_in_steps(products, request)
    next(steps), next(steps)
    assert embedded == [1]


@pytest.mark.parametrize(
    ("words", "with_picture", "said"), [("a red mug", False, "words"), ("", True, "a picture")]
)
def test_one_side_alone(
    products: Collection, leopard: Path, words: str, with_picture: bool, said: str
) -> None:
    request = SearchRequest(words, leopard.read_bytes() if with_picture else None, top_k=3)
    *_, last = search_in_steps(products, request)
    assert len(places(last.lists, "retrieved")) == 3
    assert f"You searched with {said} alone" in words_of(last.compared)
    assert "No model was asked" in last.saw
    assert set(last.hits) == {"retrieved"}


def test_nothing_found(products: Collection) -> None:
    request = SearchRequest("a mug", strategy="listwise", filters=parse_filters(["price>1000"]))
    *_, last = search_in_steps(products, request)
    assert "Nothing was found" in last.lists
    assert "The model is looking" not in last.lists


def test_a_folder_is_indexed_and_indexed_again(products: Collection, cache: Path, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for surface in ("leopard", "dots", "waves"):
        draw_query_picture(surface, 1).save(folder / f"{surface}.png")
    (folder / "broken.png").write_bytes((folder / "dots.png").read_bytes()[:500])
    collections = OpenCollections(products)
    told: list[SyncProgress] = []
    title, done = collections.index_folder(folder, on_progress=told.append)
    try:
        assert (title, collections.titles) == (str(folder), ["the shop", str(folder)])
        assert [Path(path).name for path in done.added] == ["dots.png", "leopard.png", "waves.png"]
        assert told[-1] == SyncProgress("embedding", 3, 3)
        said = words_of(in_words(folder, done))
        assert f"3 pictures of {folder} can be searched now: 3 new." in said
        assert "Left out because it cannot be read: broken.png (it is damaged" in said
        assert collections[title].models is products.models
        query = SearchRequest(image=(folder / "waves.png").read_bytes(), top_k=1)
        assert search(collections[title], query).retrieved[0].file == "waves.png"
        (folder / "waves.png").unlink()
        draw_query_picture("zebra", 1).save(folder / "dots.png")
        title, done = collections.index_folder(folder, on_progress=told.append)
        said = words_of(in_words(folder, done))
        assert "2 pictures" in said
        assert "1 changed, 1 as before, 1 gone and removed" in said
        assert collections.titles == ["the shop", str(folder)]
        assert collections[title].count() == 2
    finally:
        collections.close()


def test_a_folder_without_pictures_is_not_opened(products: Collection, cache: Path, tmp_path: Path) -> None:
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "notes.txt").write_text("to be sorted")
    collections = OpenCollections(products)
    with pytest.raises(ValueError, match="no picture was found in"):
        collections.index_folder(folder, on_progress=lambda progress: None)
    assert collections.titles == ["the shop"]
    with pytest.raises(FileNotFoundError, match="no such folder"):
        collections.index_folder(tmp_path / "missing", on_progress=lambda progress: None)
    with pytest.raises(ValueError, match="is not open: choose one of the shop"):
        collections["another"]


def test_a_folder_that_is_a_link(shop: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(shop / "photos")
    first = connect(
        CollectionSource(images=tmp_path / "link"), ModelChoice("demo", device="cpu", dtype="float32")
    )
    first.sync(tmp_path / "link")
    collections = OpenCollections(first)
    try:
        title, done = collections.index_folder(tmp_path / "link", on_progress=lambda progress: None)
        assert (title, done.unchanged, first.count()) == (first.title, 9, 9)
    finally:
        collections.close()
        first.close()


def test_many_bad_files_are_counted(tmp_path: Path) -> None:
    skipped = tuple(SkippedImage(f"/photos/{n}.png", "it is empty") for n in range(8))
    done = FolderSync(
        added=("/photos/a.png",),
        changed=(),
        updated=(),
        unchanged=0,
        removed=(),
        skipped=skipped,
        kept=(),
    )
    said = words_of(in_words(tmp_path, done))
    assert "Left out because they cannot be read: 0.png (it is empty);" in said
    assert said.endswith("4.png (it is empty); and 3 more.")


@pytest.mark.parametrize(
    ("typed", "said"), [(None, "type the path"), (" ", "type the path"), ("photos", "whole path")]
)
def test_what_is_no_folder(typed: str | None, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        folder_of(typed)
    assert folder_of(" /srv/photos ") == Path("/srv/photos")


def test_the_bar_is_told_how_far_it_is() -> None:
    told: list[tuple[object, ...]] = []
    tell = show_progress(lambda done, **words: told.append((done, words["desc"])))
    tell(SyncProgress("reading", 0, 0))
    tell(SyncProgress("embedding", 64, 100))
    assert told == [(0.0, "Looking through the folder"), ((64, 100), "Embedding")]
