"""Cards, lists and messages: what is shown, and that nobody's words become markup."""

from __future__ import annotations

import html
import logging
import re
from pathlib import Path

import pytest
from llama_index.core.schema import TextNode
from PIL import Image

from llama_index_multimodal_rerank import ImageLoadError, image_node
from llama_index_multimodal_rerank.app.page.cards import CardList, cards_of, render_lists
from llama_index_multimodal_rerank.app.page.messages import error_message, note
from llama_index_multimodal_rerank.app.page.thumbnails import SIDE, thumbnail
from llama_index_multimodal_rerank.app.search import Hit
from llama_index_multimodal_rerank.images.access import DEFAULT_ACCESS, ImageAccess
from llama_index_multimodal_rerank.vlm.errors import ModelCallError

EVIL = """<img src=x onerror="alert(1)">'"""


def hit(path: Path, rank: int, was: int, title: str | None = None) -> Hit:
    node = image_node(path)
    return Hit(rank, node.node_id, path.name, title, 0.5 / rank, was, None, node)


def test_movements_are_marked_and_said(pictures: list[Path]) -> None:
    places = ((1, 4), (2, 2), (3, 1))
    cards = cards_of([hit(pictures[rank], rank, was) for rank, was in places], DEFAULT_ACCESS, moved=True)
    assert [card.mark for card in cards] == ["▲ 3", "=", "▼ 2"]
    assert [card.movement_in_words for card in cards] == ["up by 3", "same place as retrieved", "down by 2"]
    shown = render_lists(CardList("reranked", "Reranked", cards=cards))
    assert re.findall(r'class="ir-move (\w+)">([^<]+)<', shown) == [
        ("up", "▲ 3"),
        ("same", "="),
        ("down", "▼ 2"),
    ]
    assert re.findall(r'data-place="(\d)"[^>]*data-file="([^"]+)"', shown) == [
        (str(place), pictures[place].name) for place in (1, 2, 3)
    ]


def test_lists_as_retrieved_have_no_marks(pictures: list[Path]) -> None:
    cards = cards_of([hit(pictures[0], 1, 1)], DEFAULT_ACCESS)
    assert cards[0].movement is None
    assert "ir-move" not in render_lists(CardList("retrieved", "As retrieved", cards=cards))


def test_a_title_is_text(pictures: list[Path]) -> None:
    shown = render_lists(CardList("a", EVIL, EVIL, cards_of([hit(pictures[0], 1, 1, EVIL)], DEFAULT_ACCESS)))
    assert "<img src=x" not in shown
    assert html.escape(EVIL, quote=False).replace('"', "&#34;").replace("'", "&#39;") in shown


def test_a_picture_that_is_gone_has_its_reason(pictures: list[Path]) -> None:
    gone = hit(pictures[0], 1, 1)
    pictures[0].unlink()
    (card,) = cards_of([gone], DEFAULT_ACCESS)
    assert card.picture == ""
    assert "No such file" in card.problem
    text = TextNode(text="only words")
    (card,) = cards_of([Hit(1, text.node_id, None, "only words", None, 1, None, text)], DEFAULT_ACCESS)
    assert (card.picture, card.problem) == ("", "no picture")
    assert "only words" in render_lists(CardList("a", "A", cards=[card]))


def test_an_empty_list_says_so() -> None:
    assert "Nothing was found" in render_lists(CardList("a", "A"))


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P", "I;16", "CMYK", "1"])
def test_thumbnails_are_small_jpegs(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "wide.tiff"
    Image.new(mode, (1200, 600)).save(path)
    uri, problem = thumbnail(path, DEFAULT_ACCESS)
    assert problem == ""
    small = DEFAULT_ACCESS.load(uri)
    assert (small.format, small.size) == ("JPEG", (SIDE, SIDE // 2))


def test_thumbnails_are_upright_and_follow_the_file(tmp_path: Path) -> None:
    path = tmp_path / "turned.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (400, 200), "red").save(path, exif=exif)
    assert DEFAULT_ACCESS.load(thumbnail(path, DEFAULT_ACCESS)[0]).size == (SIDE // 2, SIDE)
    Image.new("RGB", (300, 300), "blue").save(path, quality=50)
    assert DEFAULT_ACCESS.load(thumbnail(path, DEFAULT_ACCESS)[0]).size == (SIDE, SIDE)


def test_thumbnails_keep_to_what_may_be_read(tmp_path: Path, pictures: list[Path]) -> None:
    uri, problem = thumbnail(pictures[0], ImageAccess(data_root=tmp_path / "elsewhere"))
    assert uri == ""
    assert problem


def text_of(message: str) -> str:
    return html.unescape(re.sub(r"<[^>]+>", "", message)).strip()


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            ImageLoadError("'/tmp/x/ab12/notes.png'", "it is no picture"),
            "“notes.png” cannot be used as a picture",
        ),
        (ValueError("give a picture, words, or both"), "give a picture, words, or both"),
        (ConnectionError("cannot open Milvus at 'http://h:1'"), "cannot open Milvus at 'http://h:1'"),
        (ModelCallError("phi gave no answer"), "phi gave no answer"),
        (KeyError("secret"), "This did not work: KeyError. The program's log says more"),
    ],
)
def test_errors_are_messages(error: Exception, said: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        message = error_message(error)
    assert said in text_of(message)
    assert "/tmp/x" not in message
    assert "secret" not in message
    assert 'role="alert"' in message
    assert caplog.records


def test_messages_are_text() -> None:
    assert "<img" not in error_message(ValueError(EVIL))
    assert "<img" not in note(EVIL)
    assert 'role="status"' in note("done")
