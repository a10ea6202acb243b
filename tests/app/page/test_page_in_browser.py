"""The page as people use it: Chromium clicks and types, and sees what is there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.page_browser import Browser, browser, why_not

from llama_index_multimodal_rerank.app.collections import Collection
from llama_index_multimodal_rerank.app.filters import parse_filters
from llama_index_multimodal_rerank.app.page import page_running
from llama_index_multimodal_rerank.app.search import SearchRequest, search
from llama_index_multimodal_rerank.demo.catalogue import draw_query_picture

pytest.importorskip("gradio", reason="needs Gradio: pip install '.[app]'")
pytestmark = [pytest.mark.app, pytest.mark.skipif(why_not() is not None, reason=str(why_not()))]


@pytest.fixture(scope="module")
def address(products: Collection, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LLAMA_INDEX_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        with page_running(products) as address:
            yield address


@pytest.fixture(scope="module")
def window() -> Iterator[Browser]:
    with browser() as window:
        yield window


@pytest.fixture
def page(window: Browser, address: str) -> Browser:
    """The page, opened anew."""
    window.open(address)
    return window


def expected(
    products: Collection, words: str, picture: Path | None, **more: object
) -> tuple[list[str | None], list[str | None]]:
    image = None if picture is None else picture.read_bytes()
    found = search(products, SearchRequest(words, image, **{"strategy": "listwise", **more}))  # type: ignore[arg-type]
    return [hit.file for hit in found.retrieved], [hit.file for hit in found.reranked or ()]


def test_picture_and_words(page: Browser, products: Collection, leopard: Path) -> None:
    page.upload(leopard)
    page.wait(page.has_picture, "the picture")
    page.type_words("a phone case with this")
    page.search()
    retrieved, reranked = page.lists()
    assert (len(retrieved), len(reranked)) == (9, 9)
    assert (retrieved, reranked) == expected(products, "a phone case with this", leopard)
    moves = [mark.text for mark in page.wait_for("#lists .ir-list[data-list=reranked] .ir-move", 9)]
    was = [retrieved.index(name) + 1 for name in reranked]
    signed = [
        f"▲ {old - new}" if old > new else f"▼ {new - old}" if old < new else "="
        for new, old in enumerate(was, 1)
    ]
    assert moves == signed
    said = page.wait_for("#said .ir-reason")[0].text
    assert said.startswith("“#1")
    times = [each.text for each in page.all("#said .ir-times li")]
    assert [re.sub(r" \d+\.\d\d s$", "", each) for each in times][:2] == [
        "reading and embedding the query",
        "search",
    ]
    assert times[-1].startswith("reranking ")

    page.tab("Why")
    assert page.wait_for("#saw img.ir-sheet")[0].get_property("naturalWidth") > 300
    audit = page.all("#saw .ir-audit")[0].text
    assert "9 pictures" in audit
    assert not re.search(r"[{}\[\]]|_", audit)

    page.tab("Compare")
    page.wait_for("#compared .ir-card", 27)
    for name, words, picture in (("image", "", leopard), ("text", "a phone case with this", None)):
        assert page.files(name, "#compared") == expected(products, words, picture)[0]
    assert page.files("both", "#compared") == retrieved


def test_a_result_is_searched_on(page: Browser, products: Collection) -> None:
    page.type_words("a shoe with dots")
    page.search()
    before = page.lists()
    second = before[1][1]
    page.click("#lists .ir-list[data-list=reranked] .ir-card", 1)
    page.wait(page.has_picture, "the picture of the result")
    assert "More like “" in page.message()
    page.type_words("the same, but as a mug")
    page.search()
    (path,) = [
        node.metadata["file_path"]
        for node in products.store.all_nodes()
        if node.metadata["file_name"] == second
    ]
    assert page.lists() == expected(products, "the same, but as a mug", Path(path))
    assert page.all("#message .ir-message") == []


def test_an_example(page: Browser, products: Collection) -> None:
    page.wait_for("#examples button", 3)
    page.click("#examples button", 1)
    page.wait(lambda: page.lists()[1], "the lists")
    assert (
        page.all("#words textarea, #words input")[0].get_property("value") == "the same, but as an umbrella"
    )
    assert len(page.lists()[1]) == 9


def test_a_text_named_like_a_picture(page: Browser, tmp_path: Path, leopard: Path) -> None:
    path = tmp_path / "notes.png"
    path.write_text("These are notes.")
    page.upload(path)
    said = page.message()
    assert "“notes.png” cannot be used as a picture: it is not a picture in a known format" in said
    assert "Traceback" not in page.driver.page_source
    page.wait(lambda: not page.has_picture(), "the picture to be taken away")
    page.upload(leopard)  # and all goes on
    page.wait(lambda: page.has_picture() and not page.all("#message .ir-message"), "the picture")


def test_a_picture_is_pasted(page: Browser) -> None:
    for name in ("pasted.png", "another.png"):  # onto an empty box, and in the place of a picture
        page.paste_image(name)
        page.wait(lambda name=name: page.has_picture().endswith(name), name)
    page.search()
    assert len(page.lists()[1]) == 9


def test_nothing_to_look_for(page: Browser) -> None:
    page.click("button#search")
    assert "give a picture, words, or both" in page.message()


def test_filters_and_number(page: Browser, products: Collection) -> None:
    page.unfold("Filters")
    page.wait_for("#choice-0 input")
    page.type_words("mug", into="#choice-0")
    page.wait(
        lambda: [each for each in page.all("ul[role=listbox] li") if each.text.strip().endswith("mug")], "mug"
    )
    next(each for each in page.all("ul[role=listbox] li") if each.text.strip().endswith("mug")).click()
    page.type_words("20", into="#most-0")
    page.unfold("Number")
    page.wait_for("#number input[type=number]")
    page.type_words("4", into="#number")
    page.type_words("a red one")
    page.search()
    filters = parse_filters(["kind=mug", "price<=20"])
    assert page.lists() == expected(products, "a red one", None, top_k=4, filters=filters)
    assert len(page.lists()[1]) == 4


def test_a_folder_is_indexed(page: Browser, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for seed, surface in enumerate(("leopard", "dots", "waves", "brick")):
        draw_query_picture(surface, seed + 10).save(photos / f"{surface}.png")
    page.unfold("Collection")
    page.wait_for("#folder input, #folder textarea")
    page.type_words(str(tmp_path / "missing"), into="#folder")
    page.click("button#index")
    page.wait(lambda: "no such folder" in page.wait_for("#indexed .ir-message")[0].text, "the message")
    page.type_words(str(photos), into="#folder")
    page.click("button#index")
    page.wait(lambda: "4 pictures" in page.wait_for("#indexed .ir-message")[0].text, "the message")
    page.wait(lambda: page.all("#collection input")[0].get_property("value") == str(photos), "the collection")
    page.type_words("waves")
    page.search()
    assert sorted(page.lists()[0]) == ["brick.png", "dots.png", "leopard.png", "waves.png"]


def test_two_windows_do_not_mix(address: str, window: Browser, products: Collection) -> None:
    """What was clicked in one window is of its own search, though another searched meanwhile."""
    window.open(address)
    window.type_words("an umbrella with waves")
    window.search()
    with browser() as other:
        other.open(address)
        other.type_words("a yellow dress")
        other.search()
        assert other.lists() == expected(products, "a yellow dress", None)
    assert window.lists() == expected(products, "an umbrella with waves", None)
    window.click("#lists .ir-list[data-list=retrieved] .ir-card")
    title = window.all("#lists .ir-list[data-list=retrieved] .ir-card .ir-title")[0].text
    assert f"More like “{title}”" in window.message()


def test_everything_comes_from_this_machine(page: Browser, address: str) -> None:
    fetched = [each for each in page.fetched() if not each.startswith("data:")]
    assert len(fetched) > 5
    assert [each for each in fetched if not each.startswith((address, f"blob:{address}"))] == []


@pytest.mark.parametrize("dark", [False, True])
def test_on_a_phone(address: str, leopard: Path, dark: bool) -> None:
    with browser(width=390, height=844, dark=dark) as phone:
        phone.open(address)
        phone.upload(leopard)
        phone.wait(phone.has_picture, "the picture")
        phone.search()
        assert phone.driver.execute_script("return document.documentElement.scrollWidth") <= 390
        rgb = phone.driver.execute_script("return getComputedStyle(document.body).backgroundColor")
        assert (int(re.findall(r"\d+", rgb)[0]) < 60) is dark
        first, last = (phone.all("#lists .ir-card")[place].rect for place in (0, 2))
        assert first["y"] == last["y"]  # three beside each other
        assert last["x"] + last["width"] <= 390
