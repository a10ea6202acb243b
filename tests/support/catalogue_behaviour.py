"""What docs/catalogues.md promises of Milvus, wherever it runs.

``catalogue/test_milvus_lite.py`` collects these tests on a Milvus Lite file, ``milvus/test_server.py`` on a
server.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from llama_index.core.schema import BaseNode, NodeWithScore, TextNode
from llama_index.core.vector_stores import FilterCondition, FilterOperator, MetadataFilter, MetadataFilters
from llama_index.core.vector_stores.types import VectorStoreQuery
from llama_index.vector_stores.milvus import MilvusVectorStore
from pymilvus.exceptions import MilvusException

from llama_index_multimodal_rerank import GroupByProduct
from llama_index_multimodal_rerank.data.amazon_reviews import amazon_nodes, read_amazon_items

from .amazon_shop import item
from .drawing import draw_picture
from .indexing_child import DIM
from .milvus_behaviour import Place
from .milvus_filters import found, one_filter, open_place

PAGE = Path(__file__).parent.parent.parent / "docs" / "catalogues.md"
AXIS = [1.0] + [0.0] * (DIM - 1)


def photograph(product: int, variant: int, slope: float) -> TextNode:
    """The further from product 0, the less like the query AXIS; with slope 0 all are equally like it."""
    node = TextNode(
        id_=f"B{product:02}:{variant}", text="t", metadata={"parent_asin": f"B{product:02}", "price": 9.5}
    )
    node.metadata["row"] = node.node_id
    node.embedding = [1.0, slope * (3 * product + variant), *[0.0] * (DIM - 2)]
    return node


def shop(place: Place, slope: float = 0.02) -> MilvusVectorStore:
    """Twenty products with three photographs each."""
    store = open_place(place)
    store.add([photograph(product, variant, slope) for product in range(20) for variant in range(3)])
    return store


def ask(store: MilvusVectorStore, rows: int, filters: MetadataFilters | None = None, **kwargs: Any) -> Any:
    result = store.query(
        VectorStoreQuery(query_embedding=AXIS, similarity_top_k=rows, filters=filters), **kwargs
    )
    return [
        NodeWithScore(node=node, score=score)
        for node, score in zip(result.nodes or [], result.similarities or [], strict=True)
    ]


def ids(hits: list[NodeWithScore]) -> list[str]:
    return [hit.node.node_id for hit in hits]


def products(hits: list[NodeWithScore]) -> list[str]:
    return [hit.node.metadata["parent_asin"] for hit in hits]


# -- several photographs of a product -------------------------------------------------------------------


def test_top_nine_are_nine_products(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    store = shop(place)
    rows = GroupByProduct.rows_needed(top_k=9, pictures_per_product=3)
    nine = GroupByProduct(top_k=9).postprocess_nodes(ask(store, rows))
    assert ids(nine) == [f"B0{number}:0" for number in range(9)]
    assert nine[0].node.metadata["same_product"] == ["B00:1", "B00:2"]
    assert "products" not in caplog.text
    # One row less would be too few, here where the photographs of each product lie side by side.
    assert len(GroupByProduct(top_k=9).postprocess_nodes(ask(store, rows - 1))) == 8
    assert "Only 8 products" in caplog.text


def test_grouping_search_is_not_reached_through_the_store(place: Place) -> None:
    """MilvusVectorStore hands search parameters on where no Milvus looks for a grouping: nothing happens."""
    store = shop(place)
    for config in ({"group_by_field": "parent_asin"}, {"params": {"group_by_field": "parent_asin"}}):
        assert ids(ask(store, 9, milvus_search_config=config)) == ids(ask(store, 9))


# -- pages ----------------------------------------------------------------------------------------------


def not_among(key: str, values: list[str]) -> MetadataFilters:
    return one_filter(key, values, FilterOperator.NIN)


def test_rows_10_to_18(place: Place) -> None:
    store = shop(place)
    first, both = ask(store, 9), ask(store, 18)
    second = ask(store, 9, milvus_search_config={"offset": 9})
    assert ids(second) == ids(both)[9:] == [f"B0{3 + n // 3}:{n % 3}" for n in range(9)]
    assert not {*ids(first)} & {*ids(second)}
    assert ids(ask(store, 9, not_among("row", ids(first)))) == ids(second)


@pytest.mark.parametrize("slope", [0.02, 0.0], ids=["scores", "equal scores"])
def test_pages_that_leave_out_what_was_shown(place: Place, slope: float) -> None:
    """Equal scores come in any order, and in another one with another limit: an offset repeats rows."""
    store = shop(place, slope)
    shown: list[str] = []
    for _ in range(7):
        page = ids(ask(store, 9, not_among("row", shown) if shown else None))
        shown += page
    assert len(page) == 60 - 6 * 9
    assert sorted(shown) == sorted(
        f"B{product:02}:{variant}" for product in range(20) for variant in range(3)
    )


@pytest.mark.parametrize("slope", [0.02, 0.0], ids=["scores", "equal scores"])
def test_pages_of_products(place: Place, slope: float) -> None:
    store = shop(place, slope)
    rows = GroupByProduct.rows_needed(top_k=9, pictures_per_product=3)
    group = GroupByProduct(top_k=9)
    first = products(group.postprocess_nodes(ask(store, rows)))
    second = products(group.postprocess_nodes(ask(store, rows, not_among("parent_asin", first))))
    rest = products(group.postprocess_nodes(ask(store, rows, not_among("parent_asin", first + second))))
    assert [len(first), len(second), len(rest)] == [9, 9, 2]
    assert len({*first, *second, *rest}) == 20
    if slope:
        assert second == [f"B{number:02}" for number in range(9, 18)]
    # The same from one search, cut in pages.
    everything = GroupByProduct(top_k=18).postprocess_nodes(ask(store, GroupByProduct.rows_needed(18, 3)))
    assert len({*products(everything[:9]), *products(everything[9:18])}) == 18


# -- changes --------------------------------------------------------------------------------------------


def test_a_changed_price_keeps_the_vector(place: Place) -> None:
    store = shop(place)
    before = store.client.get(store.collection_name, ["B04:1"])[0]
    nodes = store.get_nodes(filters=one_filter("parent_asin", "B04"))
    assert len(nodes) == 3
    for node in nodes:
        node.metadata["price"] = 4.5
    store.add(nodes)
    cheap = one_filter("price", 5.0, FilterOperator.LT)
    hits = ask(store, 60, cheap)
    assert ids(hits) == ["B04:0", "B04:1", "B04:2"]
    assert {hit.node.metadata["price"] for hit in hits} == {4.5}
    assert len(ask(store, 99)) == 60
    after = store.client.get(store.collection_name, ["B04:1"])[0]
    assert after.pop("embedding") == pytest.approx(before.pop("embedding"), abs=1e-7)
    contents = [json.loads(row.pop("_node_content")) for row in (before, after)]
    for one, price in zip(contents, (9.5, 4.5), strict=True):
        assert one["metadata"].pop("price") == price
        one.pop("embedding")  # the node holds none; its column does
    assert contents[0] == contents[1]
    assert {**before, "price": 4.5} == after


# -- Amazon's metadata ----------------------------------------------------------------------------------


@pytest.fixture
def amazon(place: Place, tmp_path: Path) -> MilvusVectorStore:
    lines = [
        item("B1", "u1", price=9.99, average_rating=3.9, store="Acme", categories=["Phones", "Cases"]),
        item(
            "B2", "u2", price="$1,299.00", average_rating=4.6, store="Acme", categories=["Phones", "Phones"]
        ),
        item("B3", "u3", price="from 12.99", average_rating=4.9, store="O\"Neil's", rating_number=3),
        item("B4", "u4", price=None, average_rating="", store=None, main_category="Books", categories=[]),
        item("B5", "u5", "u6", price=19, rating_number=4000),
    ]
    (tmp_path / "meta.jsonl").write_text("\n".join(lines).replace('"u', '"http://images.example/u'))
    files = {}
    for number in range(1, 7):
        path = tmp_path / f"{number}.png"
        draw_picture(number).save(path)
        files[f"http://images.example/u{number}"] = path
    nodes: list[BaseNode] = [
        *amazon_nodes(read_amazon_items(tmp_path / "meta.jsonl"), images="all", files=files)
    ]
    for number, node in enumerate(nodes):
        node.embedding = [1.0, number / 10, *[0.0] * (DIM - 2)]
    store = open_place(place)
    store.add(nodes)
    return store


OP = FilterOperator


def test_filters_on_amazon_metadata(amazon: MilvusVectorStore, place: Place) -> None:
    def main(key: str, value: Any, operator: FilterOperator = OP.EQ) -> str:
        return " ".join(
            id_.replace(":MAIN", "") for id_ in found(amazon, filters=one_filter(key, value, operator))
        )

    assert main("price", 20.0, OP.LT) == "B1 B5 B5:PT01"
    assert main("price", 9.99, OP.LTE) == "B1"
    assert main("price", 1299.0) == "B2"
    assert main("price", None, OP.IS_EMPTY) == "B3 B4"
    assert main("price_text", "from 12.99") == "B3"
    assert main("average_rating", 4.6, OP.GTE) == "B2 B3"
    assert main("average_rating", None, OP.IS_EMPTY) == "B4"
    assert main("rating_number", 100, OP.GT) == "B1 B2 B4 B5 B5:PT01"
    assert main("main_category", "Books") == "B4"
    assert main("store", ["Acme"], OP.NIN) == "B3 B4"
    assert main("store", ["Acme", "O\"Neil's"], OP.IN) == "B1 B2 B3 B5 B5:PT01"
    assert main("categories", "Phones > Cases") == "B1"
    assert main("categories", ["Phones > Cases", "Phones > Phones"], OP.IN) == "B1 B2"
    assert main("parent_asin", "B5") == "B5 B5:PT01"
    assert main("variant", "MAIN", OP.NE) == "B5:PT01"
    if place.infix:
        assert main("categories", "Phones > ", OP.TEXT_MATCH) == "B1 B2"
    good_and_cheap = MetadataFilters(
        filters=[
            MetadataFilter(key="price", value=20.0, operator=OP.LT),
            MetadataFilter(key="average_rating", value=4.0, operator=OP.GTE),
        ],
        condition=FilterCondition.AND,
    )
    assert found(amazon, filters=good_and_cheap) == ["B5:MAIN", "B5:PT01"]


# -- the table of operators -----------------------------------------------------------------------------

ROWS: dict[str, dict[str, Any]] = {
    "a": {"price": 5.0, "store": "Acme", "tags": ["red", "new"]},
    "b": {"price": 20.0, "store": "Beta Acme", "tags": ["blue"]},
    "c": {"tags": []},
}
OPERATORS: dict[str, tuple[str, Any, str]] = {
    "EQ": ("price", 5.0, "a"),
    "NE": ("price", 5.0, "b c"),
    "GT": ("price", 5.0, "b"),
    "GTE": ("price", 5.0, "a b"),
    "LT": ("price", 20.0, "a"),
    "LTE": ("price", 20.0, "a b"),
    "IN": ("store", ["Acme", "Other"], "a"),
    "NIN": ("store", ["Acme", "Other"], "b c"),
    "ANY": ("tags", ["red", "blue"], "a b"),
    "ALL": ("tags", ["red", "new"], "a"),
    "CONTAINS": ("tags", "red", "a"),
    "TEXT_MATCH": ("store", "Acme", "a b"),
    "TEXT_MATCH_INSENSITIVE": ("store", "acme", "a b"),
    "IS_EMPTY": ("price", None, "c"),
}
"""Each operator with a key, a value, and the rows it is to find; NE and NIN find rows without the key."""


def table_rows() -> dict[str, list[str]]:
    """The table of docs/catalogues.md: by operator, its other cells."""
    rows = re.findall(r"^\| `([A-Z_]+)` \|(.*)\|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    return {name: [cell.strip() for cell in cells.split("|")] for name, cells in rows}


def test_the_table_of_operators(place: Place) -> None:
    store = open_place(place)
    for number, (id_, metadata) in enumerate(ROWS.items()):
        node = TextNode(id_=id_, text="t", metadata=metadata)
        node.embedding = [1.0, number / 10, *[0.0] * (DIM - 2)]
        store.add([node])
    cells = {}
    for name, (key, value, expected) in OPERATORS.items():
        try:
            rows = found(store, filters=one_filter(key, value, FilterOperator[name]))
        except (ValueError, MilvusException) as error:  # noqa: PERF203 (refused by us, or by the server)
            cells[name] = f"no: `{type(error).__name__}`"
        else:
            cells[name] = "yes" if rows == expected.split() else f"finds {rows}"
    column = 1 if not place.uri.startswith("http") else 2 if not place.sparse else 3
    assert cells == {name: row[column] for name, row in table_rows().items()}


def test_the_table_has_all_operators() -> None:
    assert {*OPERATORS} == {operator.name for operator in FilterOperator} == {*table_rows()}
