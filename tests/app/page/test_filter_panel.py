"""What the page offers to filter by, and what comes of it."""

from __future__ import annotations

import pytest

from llama_index_multimodal_rerank.app.collections import Collection
from llama_index_multimodal_rerank.app.metadata_fields import metadata_fields
from llama_index_multimodal_rerank.app.page.filter_panel import MAX_CHOICES, MAX_RANGES, FilterPanel
from llama_index_multimodal_rerank.app.search import SearchRequest, search

ROWS = [
    {"file_name": "a.png", "file_size": 10, "kind": "mug", "price": 5, "tags": ["new", "red"], "shop": "one"},
    {"file_name": "b.png", "file_size": 20, "kind": "shoe", "price": 9.5, "tags": ["red"], "shop": "one"},
]


def test_fields_that_tell_pictures_apart() -> None:
    panel = FilterPanel.of(metadata_fields(ROWS))
    assert [field.key for field in panel.choices] == ["kind", "tags", "file_name"]
    assert [(field.key, field.low, field.high) for field in panel.ranges] == [
        ("price", 5, 9.5),
        ("file_size", 10, 20),
    ]


def test_no_more_than_there_is_room_for() -> None:
    rows = [
        {f"k{n:02}": str(row) for n in range(20)} | {f"n{n:02}": row for n in range(20)} for row in (1, 2)
    ]
    panel = FilterPanel.of(metadata_fields(rows))
    assert (len(panel.choices), len(panel.ranges)) == (MAX_CHOICES, MAX_RANGES)


def test_nothing_picked_is_no_filter() -> None:
    panel = FilterPanel.of(metadata_fields(ROWS))
    assert panel.filters([None, []], [(None, None)]) is None
    assert FilterPanel().filters([], []) is None


def test_what_was_picked() -> None:
    panel = FilterPanel.of(metadata_fields(ROWS))
    filters = panel.filters([["mug"], ["red"]], [(None, 7), (1, None)])
    assert filters is not None
    assert [(each.key, each.operator.value, each.value) for each in filters.filters] == [
        ("kind", "in", ["mug"]),
        ("tags", "any", ["red"]),
        ("price", "<=", 7),
        ("file_size", ">=", 1),
    ]


@pytest.mark.parametrize("limits", [(None, 9), (40, None), (20, 24)])
def test_filters_hold_for_all_that_is_found(
    products: Collection, limits: tuple[float | None, float | None]
) -> None:
    panel = FilterPanel.of(products.fields())
    assert [field.key for field in panel.choices][:3] == ["kind", "surface", "colour"]
    assert panel.ranges[0].key == "price"
    filters = panel.filters([["mug", "shoe"]], [limits])
    found = search(products, SearchRequest("a red mug", top_k=50, filters=filters)).retrieved
    low, high = limits
    assert found
    assert {hit.metadata["kind"] for hit in found} <= {"mug", "shoe"}
    assert all((low or 0) <= hit.metadata["price"] <= (high or 99) for hit in found)
