"""amazon_reviews.py: every kind of line is converted as documented, or named."""

from __future__ import annotations

import gzip
import json
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from support.amazon_shop import item

from llama_index_multimodal_rerank.data import amazon_reviews
from llama_index_multimodal_rerank.data.amazon_reviews import (
    amazon_nodes,
    read_amazon_items,
    read_amazon_reviews,
)


def write(folder: Path, *lines: str, name: str = "meta.jsonl") -> Path:
    path = folder / name
    data = "".join(f"{line}\n" for line in lines).encode()
    path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return path


def metadata(folder: Path, **changes: Any) -> dict[str, Any]:
    (record,) = read_amazon_items(write(folder, item("B1", "http://h/1.jpg", **changes)))
    return dict(record.metadata)


@pytest.mark.parametrize("name", ["meta.jsonl", "meta.jsonl.gz"])
def test_a_product(tmp_path: Path, name: str) -> None:
    records = read_amazon_items(write(tmp_path, item("B1", "http://h/1.jpg", "http://h/2.jpg"), name=name))
    (record,) = records
    assert records.skipped == []
    assert (record.line, record.parent_asin) == (1, "B1")
    assert [(image.url, image.variant) for image in record.images] == [
        ("http://h/1.jpg", "MAIN"),
        ("http://h/2.jpg", "PT01"),
    ]
    assert record.metadata == {
        "parent_asin": "B1",
        "title": "Product B1",
        "main_category": "Cell Phones & Accessories",
        "store": "Acme",
        "price": 12.99,
        "average_rating": 4.5,
        "rating_number": 120,
        "categories": "Cell Phones & Accessories > Cases",
        "features": "Slim\nLight",
    }


@pytest.mark.parametrize(
    ("price", "expected"),
    [
        (12.99, {"price": 12.99}),
        (5, {"price": 5.0}),
        ("12.99", {"price": 12.99}),
        ("$1,299.00", {"price": 1299.0}),
        ("US$3", {"price": 3.0}),
        ("from 12.99", {"price_text": "from 12.99"}),
        ("5.00 - 9.00", {"price_text": "5.00 - 9.00"}),
        ("1,2", {"price_text": "1,2"}),
        ("—", {}),
        ("", {}),
        (None, {}),
        (True, {}),
        (-1, {}),
        (10**400, {}),
        ([], {}),
    ],
)
def test_prices(tmp_path: Path, price: Any, expected: dict[str, Any]) -> None:
    found = metadata(tmp_path, price=price)
    assert {key: value for key, value in found.items() if key.startswith("price")} == expected


@pytest.mark.parametrize(
    ("changes", "key", "expected"),
    [
        ({"average_rating": "4.5"}, "average_rating", 4.5),
        ({"average_rating": "nan"}, "average_rating", None),
        ({"average_rating": "good"}, "average_rating", None),
        ({"average_rating": 6}, "average_rating", None),
        ({"rating_number": None}, "rating_number", None),
        ({"rating_number": 1.5}, "rating_number", None),
        ({"store": "  "}, "store", None),
        ({"store": 7}, "store", None),
        ({"main_category": None}, "main_category", None),
        ({"title": ""}, "title", None),
        ({"title": "half \ud800 pair"}, "title", "half ? pair"),
        ({"categories": []}, "categories", None),
        ({"categories": ["A", "", None, "B"]}, "categories", "A > B"),
        ({"description": ["x" * 5000]}, "description", "x" * 4000),
    ],
)
def test_other_values(tmp_path: Path, changes: dict[str, Any], key: str, expected: object) -> None:
    assert metadata(tmp_path, **changes).get(key) == expected


def test_pictures(tmp_path: Path) -> None:
    images = [
        {"hi_res": None, "large": "http://h/b.jpg", "thumb": "http://h/t.jpg", "variant": "PT01"},
        {"hi_res": "", "large": None, "thumb": "http://h/c.jpg"},
        {"hi_res": "ftp://h/d.jpg", "large": None, "thumb": None, "variant": "PT02"},
        {"hi_res": "http://h/a.jpg", "large": "http://h/l.jpg", "variant": "MAIN"},
        {"hi_res": "http://h/a.jpg", "variant": "PT03"},
        "no object",
    ]
    (record,) = read_amazon_items(write(tmp_path, item("B1", images=images)))
    assert [(image.url, image.variant) for image in record.images] == [
        ("http://h/a.jpg", "MAIN"),  # first, wherever it stands; its URL counts once
        ("http://h/b.jpg", "PT01"),
        ("http://h/c.jpg", "IMAGE01"),
    ]


def test_bad_lines_are_named(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        item("B1", "http://h/1.jpg"),
        '{"parent_asin": "B2", "title": "cut sh',
        "",
        "[1, 2]",
        item("", "http://h/1.jpg", asin=None),
        item("B3"),
        item("B4", images=None),
        item("B1", "http://h/9.jpg"),
        '{"parent_asin": "B5", "price": NaN}',
        "[" * 100_000,
        item("B6", "http://h/6.jpg"),
    )
    with path.open("ab") as file:
        file.write(b"\xff\xfe\n")
    records = read_amazon_items(path)
    assert [record.parent_asin for record in records] == ["B1", "B6"]
    assert [line for line, _ in records.skipped] == [2, 4, 5, 6, 7, 8, 9, 10, 12]
    reasons = dict(records.skipped)
    assert reasons[4] == "a JSON object is expected, got list"
    assert reasons[5] == "parent_asin must be a text in ASCII, got None"
    assert reasons[6] == reasons[7].replace("B4", "B3") == "the product 'B3' has no picture"
    assert reasons[8] == "the product 'B1' is in line 1 already"
    for line in (2, 9, 10, 12):
        assert reasons[line].startswith("no JSON: ")


def test_it_reads_only_what_is_asked_for(tmp_path: Path) -> None:
    path = write(tmp_path, *(item(f"B{n}", f"http://h/{n}.jpg") for n in range(5000)), name="meta.jsonl.gz")
    path.write_bytes(path.read_bytes()[:-2000])  # the end is missing
    records = read_amazon_items(path)
    assert [record.line for record in islice(records, 3)] == [1, 2, 3]
    with pytest.raises(ValueError, match=r"damaged or cut short after line \d+ .*download the file again"):
        list(records)


def test_a_line_without_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(amazon_reviews, "MAX_LINE_BYTES", 1000)
    path = write(tmp_path, "x" * 5000, item("B1", "http://h/1.jpg"), "y" * 1001)
    records = read_amazon_items(path)
    assert [record.line for record in records] == [2]
    assert records.skipped == [
        (1, "the line is longer than 1000 bytes"),
        (3, "the line is longer than 1000 bytes"),
    ]


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no such file: '.*meta\.jsonl'"):
        read_amazon_items(tmp_path / "meta.jsonl")


def test_reviews(tmp_path: Path) -> None:
    review = {
        "rating": 5.0,
        "title": "Nice",
        "text": "Fits",
        "images": [
            {
                "small_image_url": "http://h/s.jpg",
                "medium_image_url": "http://h/m.jpg",
                "large_image_url": None,
            },
        ],
        "asin": "B1-red",
        "parent_asin": "B1",
        "user_id": "A",
        "timestamp": 1,
    }
    path = write(tmp_path, json.dumps(review), json.dumps({**review, "images": []}), "{")
    records = read_amazon_reviews(path)
    (record,) = records
    assert records.without_images == 1
    assert [line for line, _ in records.skipped] == [3]
    assert [image.url for image in record.images] == ["http://h/m.jpg"]
    assert record.metadata == {
        "parent_asin": "B1",
        "asin": "B1-red",
        "rating": 5.0,
        "title": "Nice",
        "text": "Fits",
    }


def test_nodes_with_urls(tmp_path: Path) -> None:
    records = list(read_amazon_items(write(tmp_path, item("B1", "http://h/1.jpg", "http://h/2.jpg"))))
    (node,) = amazon_nodes(records)
    assert (node.node_id, node.image_url) == ("B1:MAIN", "http://h/1.jpg")
    assert node.metadata["price"] == 12.99
    assert node.metadata["source_url"] == "http://h/1.jpg"
    nodes = amazon_nodes(records, images="all", text=lambda record: str(record.metadata["title"]))
    assert [(node.node_id, node.text) for node in nodes] == [
        ("B1:MAIN", "Product B1"),
        ("B1:PT01", "Product B1"),
    ]
    with pytest.raises(ValueError, match="images must be 'main' or 'all', got 'first'"):
        amazon_nodes(records, images="first")  # type: ignore[arg-type]


def test_nodes_with_files(tmp_path: Path, pictures: list[Path]) -> None:
    urls = [f"http://h/{n}.jpg" for n in range(3)]
    records = list(read_amazon_items(write(tmp_path, item("B1", *urls))))
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no picture")
    nodes = amazon_nodes(records, images="all", files={urls[0]: pictures[0], urls[2]: broken})
    assert [node.image_path for node in nodes] == [str(pictures[0])]
    assert [line for line, _ in nodes.skipped] == [1, 1]
    assert nodes.skipped[0].reason == "'http://h/1.jpg' was not downloaded"
    assert "broken.jpg" in nodes.skipped[1].reason
