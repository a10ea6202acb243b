"""The drawn catalogue as files, and the questions put to it."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from llama_index_multimodal_rerank.demo.catalogue import (
    catalogue_looks,
    draw_catalogue,
    draw_query_picture,
    held_out_queries,
)
from llama_index_multimodal_rerank.demo.drawing.looks import Look
from llama_index_multimodal_rerank.demo.drawing.products import draw_product
from llama_index_multimodal_rerank.demo.queries import COMPOSED


def test_looks_are_even_and_all_different() -> None:
    looks = catalogue_looks(900)
    assert len(set(looks)) == 900
    pairs = Counter((look.kind, look.surface) for look in looks)
    assert len(pairs) == 160
    assert set(pairs.values()) == {5, 6}
    assert looks == catalogue_looks(900, seed=0)
    assert looks != catalogue_looks(900, seed=1)
    assert catalogue_looks(100) == looks[:100]


def test_a_catalogue_is_drawn_once(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "catalogue"
    products = draw_catalogue(folder, count=3)
    assert [product.path.name for product in products] == ["0000.jpg", "0001.jpg", "0002.jpg"]
    assert [product.look for product in products] == catalogue_looks(3)
    assert Image.open(products[2].path).size == (224, 224)
    kept = products[1].path.stat().st_mtime_ns
    assert draw_catalogue(folder, count=3) == products
    assert products[1].path.stat().st_mtime_ns == kept
    manifest = json.loads((folder / "catalogue.json").read_text())
    assert Look(**manifest["products"]["0001.jpg"]) == products[1].look


def test_pictures_show_what_the_manifest_says(tmp_path: Path) -> None:
    product = draw_catalogue(tmp_path, count=2, seed=4)[1]
    draw_product(product.look, 1).save(tmp_path / "expected.jpg", quality=90)
    assert product.path.read_bytes() == (tmp_path / "expected.jpg").read_bytes()


def test_an_unfinished_or_damaged_catalogue_is_drawn_anew(tmp_path: Path) -> None:
    first, second = (product.path for product in draw_catalogue(tmp_path, count=2))
    whole = second.read_bytes()
    second.unlink()
    draw_catalogue(tmp_path, count=2)
    assert second.read_bytes() == whole
    (tmp_path / "catalogue.json").unlink()
    first.write_bytes(b"cut short")
    draw_catalogue(tmp_path, count=2)
    assert Image.open(first).size == (224, 224)
    manifest = tmp_path / "catalogue.json"
    whole_manifest = manifest.read_text()
    manifest.write_text(whole_manifest[:40])
    draw_catalogue(tmp_path, count=2)
    assert manifest.read_text() == whole_manifest


def test_other_peoples_files_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "holiday.jpg").write_bytes(b"precious")
    with pytest.raises(FileExistsError, match=r"holds 1 other files, such as holiday.jpg; name an empty"):
        draw_catalogue(tmp_path, count=1)
    assert [path.name for path in tmp_path.iterdir()] == ["holiday.jpg"]
    with pytest.raises(ValueError, match="at least 1 product, got count=0"):
        draw_catalogue(tmp_path, count=0)


def test_query_pictures_are_not_those_of_the_catalogue() -> None:
    look = catalogue_looks(1)[0]
    assert draw_query_picture(look, 0).tobytes() != draw_product(look, 0).tobytes()
    assert draw_query_picture("leopard", 0).size == (224, 224)
    with pytest.raises(ValueError, match="seed must be from 0 to 499,999, got -1"):
        draw_query_picture(look, -1)


def test_questions_are_for_held_out_products_that_are_there() -> None:
    looks = catalogue_looks(900)
    queries = held_out_queries(looks)
    assert Counter(query.family for query in queries) == {
        **dict.fromkeys(COMPOSED, 90),
        "text": 60,
        "image": 60,
    }
    for query in queries:
        answers = [look for look in looks if query.is_answered_by(look)]
        assert answers
        assert all(look.held_out for look in answers)
    assert queries == held_out_queries(looks)
    assert queries != held_out_queries(looks, seed=1)
