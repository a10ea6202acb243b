"""Ids and filters on a Milvus Lite file."""

from __future__ import annotations

from pathlib import Path

import pytest
from llama_index.core.vector_stores import FilterOperator
from support.milvus_behaviour import Place
from support.milvus_filters import *  # noqa: F403 (the tests of every Milvus)
from support.milvus_filters import found, make_node, one_filter, open_place


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(str(tmp_path / "m.db"))


@pytest.mark.parametrize("key", ["Item Weight", "and", "a.b"])
def test_lite_cannot_look_into_lists_under_any_key(place: Place, key: str) -> None:
    store = open_place(place)
    store.add([make_node("a", {key: ["red"]})])
    with pytest.raises(ValueError, match=r"CONTAINS: Milvus Lite .*keys of letters, digits and underscores"):
        found(store, filters=one_filter(key, "red", FilterOperator.CONTAINS))


def test_a_partial_upsert_keeps_the_rest_of_a_row(place: Place) -> None:
    store = open_place(place)
    store.add([make_node("a", {"price": 12, "kind": "mug"})])
    done = store.client.upsert(store.collection_name, [{"id": "a", "price": 30}], partial_update=True)
    assert (done["upsert_count"], done["ids"]) == (1, ["a"])
    assert found(store, filters=one_filter("price", 20, FilterOperator.GT)) == ["a"]
    assert found(store, filters=one_filter("kind", "mug")) == ["a"]
    whole = store.client.query(store.collection_name, ids=["a"], output_fields=["*"])
    done = store.client.upsert(
        store.collection_name, [{key: value for key, value in whole[0].items() if key != "kind"}]
    )
    assert (done["upsert_count"], done["ids"]) == (1, ["a"])
    assert found(store, filters=one_filter("kind", "mug")) == []
