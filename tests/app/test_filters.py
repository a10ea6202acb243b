"""A filter as people write it."""

from __future__ import annotations

import doctest

import pytest
from llama_index.core.vector_stores.types import FilterOperator

from llama_index_multimodal_rerank.app import filters
from llama_index_multimodal_rerank.app.filters import FilterTextError, parse_filter, parse_filters


@pytest.mark.parametrize(
    ("text", "key", "operator", "value"),
    [
        ("price<20", "price", FilterOperator.LT, 20),
        ("price <= 19.5", "price", FilterOperator.LTE, 19.5),
        ("price>20", "price", FilterOperator.GT, 20),
        ("price>=-3", "price", FilterOperator.GTE, -3),
        ("kind=mug", "kind", FilterOperator.EQ, "mug"),
        ("kind==phone case", "kind", FilterOperator.EQ, "phone case"),
        ("kind != mug", "kind", FilterOperator.NE, "mug"),
        ('sku="20"', "sku", FilterOperator.EQ, "20"),
        ("sku=0020", "sku", FilterOperator.EQ, "0020"),
        ("sold=true", "sold", FilterOperator.EQ, 1),
        ("weight=NaN", "weight", FilterOperator.EQ, "NaN"),
        ("title~a<b", "title", FilterOperator.TEXT_MATCH, "a<b"),
        ("title~20", "title", FilterOperator.TEXT_MATCH, "20"),
        ("kind in mug, shoe", "kind", FilterOperator.IN, ["mug", "shoe"]),
        ("price in 10,20", "price", FilterOperator.IN, [10, 20]),
        ("kind not in mug", "kind", FilterOperator.NIN, ["mug"]),
        ("tags has new", "tags", FilterOperator.CONTAINS, "new"),
        ("a=b=c", "a", FilterOperator.EQ, "b=c"),
        ("größe<5", "größe", FilterOperator.LT, 5),
    ],
)
def test_parsing(text: str, key: str, operator: FilterOperator, value: object) -> None:
    found = parse_filter(text)
    assert (found.key, found.operator, found.value) == (key, operator, value)
    assert type(found.value) is type(value)


@pytest.mark.parametrize(
    "text", ["", "price", "price<", "<20", "price 20", "  = 3", "kind in ", "kind in ,", "a b=3"]
)
def test_what_is_no_filter_is_an_error_that_says_how_one_is_written(text: str) -> None:
    with pytest.raises(FilterTextError, match="write key, operator and value, such as price<20"):
        parse_filter(text)


@pytest.mark.parametrize("text", ["sku in 12,A7", 'sku not in 12,"13"', "sku in mug,12"])
def test_texts_and_numbers_are_not_compared_at_once(text: str) -> None:
    with pytest.raises(FilterTextError, match=r'texts and numbers.* text 12 write "12", with quotes'):
        parse_filter(text)


def test_several_hold_together() -> None:
    assert parse_filters([]) is None
    found = parse_filters(["price<20", "kind=mug"])
    assert found is not None
    assert [one.key for one in found.filters] == ["price", "kind"]  # type: ignore[union-attr]
    assert found.condition == "and"


def test_the_example_runs() -> None:
    assert doctest.testmod(filters).failed == 0
