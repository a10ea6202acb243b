"""The picture and the report of the quickstart: both lists, what moved, no name cut off or read as markup."""

from __future__ import annotations

import importlib
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from llama_index.core.schema import NodeWithScore
from PIL import Image, ImageFont
from support.drawing import draw_picture

from llama_index_multimodal_rerank import ImageTextQuery, image_node

EXAMPLES = Path(__file__).parent.parent / "examples"
MARKUP = """<img src=x onerror=alert(1)> & "b" 'c' {{ 7 * 7 }}"""
MODELS = {"Retrieved by": "SomeEmbedding, model a", "Reranked by": f"SomeRerank, model {MARKUP}"}
AUDIT = {"expected": 3, "source": "answer", "listed": 2, "missing": [2], "action": "repaired", "attempts": 1}


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch) -> dict[str, ModuleType]:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    return {name: importlib.import_module(name) for name in ("_results", "_report", "_results_picture")}


def make_result(modules: dict[str, ModuleType], folder: Path, names: list[str]) -> Any:
    """Return a query whose first picture comes last when it is reranked."""
    nodes = []
    for seed, name in enumerate(names):
        draw_picture(seed).save(folder / name, "PNG")
        nodes.append(image_node(folder / name))
    retrieved = [NodeWithScore(node=node, score=0.9 - 0.1 * at) for at, node in enumerate(nodes)]
    reranked = [
        NodeWithScore(node=hit.node.model_copy(deep=True), score=0.5 - 0.1 * at)
        for at, hit in enumerate([*retrieved[1:], retrieved[0]])
    ]
    reranked[0].node.metadata.update(
        rerank_query_caption=f"seen: {MARKUP}", rerank_reason=f"because: {MARKUP}", rerank_audit=AUDIT
    )
    query = ImageTextQuery(f"asked: {MARKUP}", image_path=folder / names[0])
    return modules["_results"].QueryResult(query, retrieved, reranked)


class Page(HTMLParser):
    """Elements and texts of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts.append(" ".join(data.split()))


def write(modules: dict[str, ModuleType], folder: Path, *results: Any, **described: str) -> Page:
    path = modules["_report"].write_report(folder / "out" / "report.html", results, described, MODELS)
    return Page(path.read_text(encoding="utf-8"))


def test_markup_in_names_and_answers_stays_text(modules: dict[str, ModuleType], tmp_path: Path) -> None:
    name = f"{MARKUP}.png"
    page = write(modules, tmp_path, make_result(modules, tmp_path, ["a.png", name, "c.png"]))
    images = [attributes for tag, attributes in page.elements if tag == "img"]
    assert [each["alt"] for each in images] == [
        *("picture of the query", "a.png", name, "c.png"),
        *(name, "c.png", "a.png"),
    ]
    assert all(str(each["src"]).startswith("data:image/jpeg;base64,") for each in images)
    assert all(set(each) == {"src", "alt"} for each in images)
    assert not {tag for tag, _ in page.elements} & {"script", "iframe", "object"}
    assert page.texts.count(name) == 2
    for text in (f"asked: {MARKUP}", f"seen: {MARKUP}", f"because: {MARKUP}", MODELS["Reranked by"]):
        assert page.texts.count(text) == 1


def test_both_lists_with_what_moved(modules: dict[str, ModuleType], tmp_path: Path) -> None:
    result = make_result(modules, tmp_path, ["a.png", "b.png", "c.png"])
    page = write(modules, tmp_path, result, **{"b.png": "a blue cup"})
    texts = page.texts[page.texts.index("retrieved") :]
    assert texts == [
        "retrieved",
        *("1.", "now 3", "0.900", "a.png", "2.", "now 1", "0.800", "a blue cup"),
        *("3.", "now 2", "0.700", "c.png"),
        "reranked",
        *("1.", "▲ was 2", "0.500", "a blue cup", "2.", "▲ was 3", "0.400", "c.png"),
        *("3.", "▼ was 1", "0.300", "a.png"),
    ]
    assert "SomeEmbedding, model a" in page.texts


def test_the_audit_is_in_words(modules: dict[str, ModuleType], tmp_path: Path) -> None:
    page = write(modules, tmp_path, make_result(modules, tmp_path, ["a.png", "b.png", "c.png"]))
    answer = page.texts[page.texts.index("Answer") + 1]
    assert answer == "The answer left out number 2. What was missing follows in the order of retrieval."
    assert not [text for text in page.texts if "missing'" in text or '"missing' in text]


def test_a_list_that_was_not_reranked(modules: dict[str, ModuleType], tmp_path: Path) -> None:
    result = make_result(modules, tmp_path, ["a.png", "b.png", "c.png"])
    page = write(modules, tmp_path, modules["_results"].QueryResult(result.query, result.retrieved, None))
    assert page.texts[page.texts.index("retrieved") :] == [
        "retrieved",
        *("1.", "0.900", "a.png", "2.", "0.800", "b.png", "3.", "0.700", "c.png"),
    ]


def test_no_picture_is_alone_in_its_row(modules: dict[str, ModuleType]) -> None:
    columns = modules["_results"].columns
    assert [columns(count, (3, 4, 5)) for count in (1, 2, 3, 4, 5, 7, 9, 10, 13, 16)] == [
        *(3, 3, 3, 4, 5, 4, 3, 5, 5, 4)
    ]
    for count in range(2, 200):
        if count % 60 != 1:  # 61 of them leave one over, whether in threes, fours or fives
            assert count % columns(count, (3, 4, 5)) != 1


def test_the_grid_of_nine_has_three_columns_beside_each_other(
    modules: dict[str, ModuleType], tmp_path: Path
) -> None:
    result = make_result(modules, tmp_path, [f"{number}.png" for number in range(9)])
    page = write(modules, tmp_path, result)
    assert [attributes["style"] for tag, attributes in page.elements if tag == "ol"] == [
        "--wide: 3; --narrow: 3"
    ] * 2


def test_names_are_broken_into_lines_and_not_cut(modules: dict[str, ModuleType]) -> None:
    wrap, font = modules["_results_picture"].wrap, ImageFont.load_default(13)
    name = "purple leopard phone case"
    lines = wrap(name, 122, font, most=4)
    assert " ".join(lines) == name
    assert len(lines) == 2
    long = "IMG_20240917_104455_holiday_by_the_sea_0001.jpeg"
    lines = wrap(long, 122, font, most=4)
    assert "".join(lines) == long
    assert max(map(font.getlength, lines)) <= 122
    lines = wrap("x" * 400, 122, font, most=4)
    assert len(lines) == 4
    assert lines[-1].endswith("x…")
    assert max(map(font.getlength, lines)) <= 122


def test_the_picture_marks_what_moved(modules: dict[str, ModuleType], tmp_path: Path) -> None:
    picture = modules["_results_picture"]
    result = make_result(modules, tmp_path, ["a.png", "b.png", "c.png"])
    drawn = picture.draw_results(tmp_path / "results.png", [result, result], {}, MODELS)
    image = Image.open(drawn).convert("RGB")
    colours = {pixel for _, pixel in image.getcolors(maxcolors=2**24) or ()}
    up, down = ((0x1A, 0x7F, 0x37), (0x9A, 0x67, 0x00))
    assert {up, down} <= colours
    # The retrieved list is on the left, and has no marks.
    half = image.crop((0, 0, 300, image.height))
    assert not {up, down} & {pixel for _, pixel in half.getcolors(maxcolors=2**24) or ()}
