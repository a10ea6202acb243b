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
