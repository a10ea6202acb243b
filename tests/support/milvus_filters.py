"""Ids and filters find the rows that are meant, wherever Milvus runs, whatever characters they are made of.

``test_filters.py`` collects these tests on a Milvus Lite file, ``test_server.py`` on a server.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from llama_index.core.schema import BaseNode, NodeRelationship, RelatedNodeInfo, TextNode
from llama_index.core.vector_stores import FilterCondition, FilterOperator, MetadataFilter, MetadataFilters
from llama_index.core.vector_stores.simple import SimpleVectorStore
from llama_index.core.vector_stores.types import VectorStoreQuery, VectorStoreQueryMode
from llama_index.vector_stores.milvus import MilvusVectorStore
from pymilvus import DataType
from pymilvus.exceptions import MilvusException

from .indexing_child import DIM, DigestVectors
from .milvus_behaviour import Place

CRAFTED = [
    'x"] or id != "" or doc_id in ["y',
    "x'] or id != '' or doc_id in ['y",
    'x\\"] or id != "" or doc_id in [\\"y',
    '" or id != "',
    "' or id != '",
    "\\' or id != '' or '' == '",
    'a"\n] or id != ""',
    "\\",
    "a\\",
    '\\"',
    "\\'",
    '"',
    "'",
    '""',
    '"""',
    "%",
    "_",
    "{id}",
    "{0}",
    "C:\\temp\\new.png",
    "it's",
    "a\nb",
    "a\r\nb",
    "\t",
    "\\n",
    "\\u0041",
    "",
    " ",
    "Ünïcödé 🐆",
    "]",
    "--",
    "// #",
    "$meta",
    "None",
]
PLAIN = ["a", "b", "c"]


def make_node(id_: str, metadata: dict[str, Any] | None = None, source: str | None = None) -> TextNode:
    vector = [1.0] + [(ord(letter) % 7) / 7 for letter in id_.ljust(DIM)[: DIM - 1]]
    relationships = {NodeRelationship.SOURCE: RelatedNodeInfo(node_id=source if source is not None else id_)}
    node = TextNode(id_=id_, text="t", metadata=metadata or {}, relationships=relationships)
    node.embedding = vector
    return node


def open_place(place: Place, **options: Any) -> MilvusVectorStore:
    return place.open(DigestVectors(), **options)  # type: ignore[arg-type]


def ids_left(store: MilvusVectorStore) -> list[str]:
    rows = store.client.query(store.collection_name, filter='id != "?"', output_fields=["id"], limit=1000)
    return sorted(row["id"] for row in rows)


def one_filter(key: str, value: Any, operator: FilterOperator = FilterOperator.EQ) -> MetadataFilters:
    return MetadataFilters(filters=[MetadataFilter(key=key, value=value, operator=operator)])


def found(store: MilvusVectorStore | SimpleVectorStore, **what: Any) -> list[str]:
    query = VectorStoreQuery(query_embedding=[1.0] * DIM, similarity_top_k=1000, **what)
    return sorted(store.query(query).ids or [])


@pytest.fixture
def crafted_rows(place: Place) -> MilvusVectorStore:
    """Rows whose ids and metadata are crafted; row ``""`` is left out, a server takes no such id."""
    store = open_place(place)
    rows = [text for text in CRAFTED if text]
    store.add([make_node(text, {"name": text, f"key {text}": text}) for text in [*rows, *PLAIN]])
    return store


# -- injection ------------------------------------------------------------------------------------------

Delete = Callable[[MilvusVectorStore, str], Any]
DELETES: dict[str, Delete] = {
    "delete": lambda store, text: store.delete(text),
    "delete, a list": lambda store, text: store.delete([text]),
    "adelete": lambda store, text: asyncio.run(store.adelete(text)),
    "delete_nodes": lambda store, text: store.delete_nodes([text]),
    "adelete_nodes": lambda store, text: asyncio.run(store.adelete_nodes([text])),
    "delete_nodes, filters": lambda store, text: store.delete_nodes(filters=one_filter("name", text)),
    "delete_nodes, keys": lambda store, text: store.delete_nodes(filters=one_filter(f"key {text}", text)),
    "delete_nodes, IN": lambda store, text: store.delete_nodes(
        filters=one_filter("name", [text], FilterOperator.IN)
    ),
    "delete_nodes, both": lambda store, text: store.delete_nodes([text, "b"], one_filter("name", text)),
    "client": lambda store, text: store.client.delete(store.collection_name, ids=[text]),
    "client, one": lambda store, text: store.client.delete(store.collection_name, ids=text),
    "client, pks": lambda store, text: store.client.delete(store.collection_name, pks=[text]),
}  # fmt: skip


@pytest.mark.parametrize("way", DELETES)
def test_deletes_delete_the_row_that_is_named(
    crafted_rows: MilvusVectorStore, place: Place, way: str
) -> None:
    left = ids_left(crafted_rows)
    assert len(left) == len(CRAFTED) + 2
    for text in CRAFTED[:: place.every]:
        DELETES[way](crafted_rows, text + "?")
        DELETES[way](crafted_rows, text)
        left = [row for row in left if row != text]
        assert ids_left(crafted_rows) == left, text
    assert left == PLAIN or place.every > 1


def reads(store: MilvusVectorStore, text: str) -> Iterator[tuple[str, list[str]]]:
    """All ways to ask for the row of one id, doc_id or value, and the ids that come back."""

    def ids(nodes: Any) -> list[str]:
        return sorted(node.node_id for node in nodes)

    yield "get_nodes", ids(store.get_nodes([text]))
    yield "aget_nodes", ids(asyncio.run(store.aget_nodes([text])))
    yield "get_nodes, filters", ids(store.get_nodes(filters=one_filter("name", text)))
    yield "aget_nodes, filters", ids(asyncio.run(store.aget_nodes(filters=one_filter(f"key {text}", text))))
    yield "client.get", sorted(row["id"] for row in store.client.get(store.collection_name, [text]))
    yield "client.query", sorted(row["id"] for row in store.client.query(store.collection_name, ids=[text]))
    for how in ("node_ids", "doc_ids"):
        yield how, found(store, **{how: [text]})
        yield f"{how}, MMR", found(store, **{how: [text]}, mode=VectorStoreQueryMode.MMR)
    yield "filters", found(store, filters=one_filter("name", text))
    yield "filters on the document", found(store, filters=one_filter("doc_id", text))
    yield "IN", found(store, filters=one_filter("name", [text, text + "?"], FilterOperator.IN))
    yield "all", found(store, node_ids=[text, "a"], doc_ids=[text], filters=one_filter("name", text))
    query = VectorStoreQuery(query_embedding=[1.0] * DIM, similarity_top_k=1000, node_ids=[text])
    yield "aquery", sorted(asyncio.run(store.aquery(query)).ids or [])


def test_reads_find_the_row_that_is_named(crafted_rows: MilvusVectorStore, place: Place) -> None:
    for text in CRAFTED[:: place.every]:
        expected = [text] if text else []
        for way, rows in reads(crafted_rows, text):
            assert rows == expected, (way, text)
        for way, rows in reads(crafted_rows, text + "?"):
            assert rows == [], (way, text)


def test_a_text_to_match_is_a_text(crafted_rows: MilvusVectorStore, place: Place) -> None:
    for text in CRAFTED:
        filters = one_filter("name", text, FilterOperator.TEXT_MATCH)
        if set(text) & set("%_\\"):
            with pytest.raises(ValueError, match=r"'name', TEXT_MATCH: .* is a wildcard to Milvus"):
                found(crafted_rows, filters=filters)
        elif place.infix:
            assert found(crafted_rows, filters=filters) == sorted(
                row for row in [*CRAFTED, *PLAIN] if row and text in row
            ), text
    if not place.infix:
        with pytest.raises(MilvusException, match="only prefix pattern match"):
            found(crafted_rows, filters=one_filter("name", "it's", FilterOperator.TEXT_MATCH))


def test_scalar_filters_are_values(place: Place) -> None:
    store = open_place(place, scalar_field_names=["price"], scalar_field_types=[DataType.DOUBLE])
    store.add([make_node(text, {"price": float(number)}) for number, text in enumerate(PLAIN)])
    assert found(store, filters=one_filter("price", 1.0)) == ["b"]
    assert found(store, filters=one_filter("price", 1.0, FilterOperator.NE)) == ["a", "c"]
    query = VectorStoreQuery(query_embedding=[1.0] * DIM, similarity_top_k=9)
    for key, value, message in (
        ("name", "a", "no column 'name'"),
        ('price, 1) or id != ""', "a", "no column 'price, 1"),
    ):
        with pytest.raises(ValueError, match=message):
            store.query(query, milvus_scalar_filters=[{"key": key, "value": value}])


def test_many_values_at_once(place: Place) -> None:
    store = open_place(place)
    store.add([make_node(f"n{number}", {"number": number, "name": f"n{number}"}) for number in range(400)])
    names = [f"n{number}" for number in range(0, 800, 2)]
    expected = sorted(name for name in names if int(name[1:]) < 400)
    others = sorted(f"n{number}" for number in range(1, 400, 2))
    assert found(store, node_ids=names) == found(store, doc_ids=names) == expected
    assert found(store, filters=one_filter("name", names, FilterOperator.IN)) == expected
    assert found(store, filters=one_filter("number", list(range(0, 800, 2)), FilterOperator.IN)) == expected
    assert found(store, filters=one_filter("number", list(range(0, 800, 2)), FilterOperator.NIN)) == others
    store.delete_nodes(names)
    assert ids_left(store) == others


def test_nothing_is_named_and_nothing_is_done(crafted_rows: MilvusVectorStore) -> None:
    left = ids_left(crafted_rows)
    crafted_rows.delete_nodes([])
    crafted_rows.delete([])
    asyncio.run(crafted_rows.adelete_nodes([]))
    assert crafted_rows.get_nodes([]) == []
    nothing = MetadataFilters(filters=[])
    for filters in (None, nothing):
        with pytest.raises(ValueError, match="give node_ids, filters or both"):
            crafted_rows.delete_nodes(filters=filters)
        with pytest.raises(ValueError, match="give node_ids or filters"):
            crafted_rows.get_nodes(filters=filters)
    with pytest.raises(ValueError, match="give node_ids or filters, and not both"):
        crafted_rows.get_nodes(["a"], one_filter("name", "a"))
    assert ids_left(crafted_rows) == left
    assert found(crafted_rows, filters=nothing, node_ids=[], doc_ids=[]) == left


@pytest.mark.parametrize("id_", [None, 3, b"a", "\ud800", ["a"]])
def test_what_is_no_id(crafted_rows: MilvusVectorStore, id_: Any) -> None:
    left = ids_left(crafted_rows)
    calls: list[Callable[[], Any]] = [
        lambda: crafted_rows.delete([id_]),
        lambda: crafted_rows.delete_nodes([id_]),
        lambda: crafted_rows.get_nodes([id_]),
        lambda: found(crafted_rows, node_ids=[id_]),
        lambda: found(crafted_rows, doc_ids=["a", id_]),
        lambda: crafted_rows.client.get(crafted_rows.collection_name, [id_]),
    ]
    for call in calls:
        with pytest.raises(ValueError, match=r"expected a str, got|half a character"):
            call()
    assert ids_left(crafted_rows) == left


def test_every_character(place: Place) -> None:
    store = open_place(place)
    texts = [f"a{chr(code)}b" for code in (*range(1, 0x101), 0x2028, 0x2029, 0xFEFF, 0xFFFE, 0xFFFF, 0x1F406)]
    store.add([make_node(text, {"name": text, text: 1}) for text in texts])
    assert ids_left(store) == sorted(texts)
    others = [text + "?" for text in texts]
    assert sorted(node.node_id for node in store.get_nodes([*texts, *others])) == sorted(texts)
    assert store.get_nodes(others) == []
    assert found(store, filters=one_filter("name", [*texts, *others], FilterOperator.IN)) == sorted(texts)
    assert found(store, filters=one_filter("name", texts, FilterOperator.NIN)) == []
    as_keys = [text for text in texts if text[1] >= " " or text[1] in "\t\n\r"]
    assert len(as_keys) == len(texts) - 28
    for start in range(0, len(as_keys), 50):
        some = as_keys[start : start + 50]
        keys: list[Any] = [MetadataFilter(key=text, value=1) for text in some]
        assert found(store, filters=MetadataFilters(filters=keys, condition=FilterCondition.OR)) == sorted(
            some
        )
    for text in set(texts) - set(as_keys):
        with pytest.raises(ValueError, match="holds control characters"):
            found(store, filters=one_filter(text, 1))


# -- the same rows as SimpleVectorStore ---------------------------------------------------------------

MIXED: list[Any] = [
    "ab", "xaby", "", "C:\\temp", "it's", 'say "x"', "a\nb", "50%", "a_b", "axb", "[]", '["a"]', "1", 1, 0,
    -3, 1.5, 2.0, 2**60 + 1, -(2**63), True, False, None, [], ["a", "b"], ["a'b", "c\\d"], [1, 2], [1.5],
    ["x"], {"a": 1},
]  # fmt: skip
METADATA: list[dict[str, Any]] = [
    *({"mixed": value} for value in MIXED),
    *({"word": word} for word in ("ab", "abc", "b", "", None, "A B")),
    *({"price": price} for price in (1.5, 2.0, -0.5, 1e300)),
    *({"count": count} for count in (0, 1, 2, -7)),
    *({"sale": sale} for sale in (True, False, True)),
    *({"tags": tags} for tags in (["red"], ["red", "blue"], [], ["a_b", "it's", "\\"])),
    {
        "Item Weight": "ab",
        'a"b': 1,
        "c'd": "x",
        "e\\f": 2,
        "g\nh": 3,
        "and": 4,
        "In": 5,
        "é": 6,
        "0": 7,
        "a.b": 8,
    },
    {"Item Weight": "b", 'a"b': 2, "c'd": "y", "a/b": 1, "_seq": 1, "[x]": 1, "number": 3, "ISO": 2},
    {"Item Weight": None, "a b c": ["red"], "document_id": "mine", "doc_id": "mine"},
    {},
]
WORDS = ["ab", "b", "", "C:\\temp", "it's", 'say "x"', "a\nb", "red", "mine", "1"]
NUMBERS = [1, 0, -3, 2.0, 1.5, 2**60 + 1]
KEYS = sorted({key for metadata in METADATA for key in metadata} | {"nowhere"})
OF_ONE = [FilterOperator.EQ, FilterOperator.NE, FilterOperator.GT, FilterOperator.LT, FilterOperator.LTE,
          FilterOperator.GTE]  # fmt: skip


def filters_to_compare(place: Place) -> Iterator[MetadataFilter]:
    for key in KEYS:
        for value, operator in itertools.product([*WORDS[:7], *NUMBERS], OF_ONE):
            yield MetadataFilter(key=key, value=value, operator=operator)
        for operator in (FilterOperator.IN, FilterOperator.NIN):
            for values in (["ab", "it's", "nothing"], [1, 5, 7], [2.0, 1.5], []):
                yield MetadataFilter(key=key, value=values, operator=operator)
        yield MetadataFilter(key=key, value=None, operator=FilterOperator.IS_EMPTY)
        if place.infix:
            for text in ("ab", "a", "it's", ""):
                yield MetadataFilter(key=key, value=text, operator=FilterOperator.TEXT_MATCH)
    for key in ("tags", "a b c", "nowhere"):
        for text in ("red", "a_b", "it's", "\\", "re"):
            yield MetadataFilter(key=key, value=text, operator=FilterOperator.CONTAINS)
        for operator in (FilterOperator.ANY, FilterOperator.ALL):
            for texts in (["red"], ["red", "blue"], ["blue", "it's"]):
                yield MetadataFilter(key=key, value=texts, operator=operator)


def simple_store_knows_not() -> bool:
    """Whether this llama-index-core is new enough: before, NE also passed over rows without the key."""
    simple = SimpleVectorStore()
    simple.add([make_node("a", {"name": "b"})])
    nothing = MetadataFilters(filters=[MetadataFilter(key="k", value=1)], condition=FilterCondition.NOT)
    try:
        return found(simple, filters=nothing) == ["a"]
    except ValueError:
        return False


needs_simple_store = pytest.mark.skipif(not simple_store_knows_not(), reason="an older SimpleVectorStore")


@pytest.fixture
def both(place: Place) -> tuple[MilvusVectorStore, SimpleVectorStore]:
    nodes: list[BaseNode] = [make_node(f"n{number}", metadata) for number, metadata in enumerate(METADATA)]
    milvus, simple = open_place(place), SimpleVectorStore()
    milvus.add(nodes)
    simple.add(nodes)
    return milvus, simple


def compare(both: tuple[MilvusVectorStore, SimpleVectorStore], filters: MetadataFilters) -> str:
    milvus, simple = both
    try:
        expected = found(simple, filters=filters)
    except TypeError:  # "ab" > 1
        return "cannot be compared"
    try:
        rows = found(milvus, filters=filters)
    except ValueError as error:
        return "refused" if str(error).startswith("filter on ") else f"another error: {error}"
    return "equal" if rows == expected else f"{filters.model_dump()}: {rows}, not {expected}"


@needs_simple_store
def test_one_filter_finds_what_simple_vector_store_finds(
    both: tuple[MilvusVectorStore, SimpleVectorStore], place: Place
) -> None:
    results = []
    refused = set()
    conditions = (FilterCondition.AND, FilterCondition.NOT)
    cases = itertools.product(filters_to_compare(place), conditions)
    for one, condition in itertools.islice(cases, 0, None, 8 * place.every - 7):
        results.append(compare(both, MetadataFilters(filters=[one], condition=condition)))
        if results[-1] == "refused":
            refused.add(one.key)
    assert [result for result in results if ":" in result] == []
    assert results.count("equal") > (1500 if place.every == 1 else 50)
    assert refused <= {"doc_id", "a b c"}  # a column of strings compared with numbers; lists on Lite


@needs_simple_store
def test_several_filters_find_what_simple_vector_store_finds(
    both: tuple[MilvusVectorStore, SimpleVectorStore], place: Place
) -> None:
    parts = [
        MetadataFilter(key="word", value="ab"),
        MetadataFilter(key="price", value=1.6, operator=FilterOperator.LT),
        MetadataFilter(key="Item Weight", value="b", operator=FilterOperator.NE),
        MetadataFilter(key="count", value=[1, 2], operator=FilterOperator.NIN),
        MetadataFilter(key="tags", value="red", operator=FilterOperator.CONTAINS),
        MetadataFilter(key="mixed", value=None, operator=FilterOperator.IS_EMPTY),
    ]
    conditions = [FilterCondition.AND, FilterCondition.OR, FilterCondition.NOT, None]
    combinations = [list(some) for size in (2, 3, 6) for some in itertools.combinations(parts, size)]
    cases = itertools.product(combinations, conditions)
    for some, condition in itertools.islice(cases, 0, None, place.every):
        assert compare(both, MetadataFilters(filters=some, condition=condition)) == "equal"


def test_filters_within_filters(both: tuple[MilvusVectorStore, SimpleVectorStore]) -> None:
    milvus, _ = both
    red = MetadataFilter(key="tags", value="red", operator=FilterOperator.CONTAINS)
    blue = MetadataFilter(key="tags", value="blue", operator=FilterOperator.CONTAINS)

    def ids(condition: FilterCondition, *filters: MetadataFilter | MetadataFilters) -> list[Any]:
        rows = milvus.get_nodes(filters=MetadataFilters(filters=list(filters), condition=condition))
        return sorted(row.metadata.get("tags") for row in rows if row.metadata.get("tags"))

    not_blue = MetadataFilters(filters=[blue], condition=FilterCondition.NOT)
    neither = MetadataFilters(filters=[red, blue], condition=FilterCondition.NOT)
    assert ids(FilterCondition.AND, red, not_blue) == [["red"]]
    assert ids(FilterCondition.NOT, not_blue) == [["red", "blue"]]
    assert ids(FilterCondition.NOT, neither) == [["red"], ["red", "blue"]]
    assert ids(FilterCondition.OR, blue, neither) == [["a_b", "it's", "\\"], ["red", "blue"]]
    with pytest.raises(ValueError, match="is empty: leave it out"):
        ids(FilterCondition.OR, red, MetadataFilters(filters=[]))


@pytest.mark.parametrize(
    ("one", "message"),
    [
        (MetadataFilter(key="id", value="n1"), r"filter on 'id', EQ: .*node's own.*'item_id'.*use node_ids"),
        (MetadataFilter(key="text", value="t"), "node's own"),
        (MetadataFilter(key="embedding", value=1), "node's own"),
        (MetadataFilter(key="", value=1), "a key that is empty"),
        (MetadataFilter(key="\udcff", value=1), "half a character"),
        (MetadataFilter(key="k", value="\udcff"), "half a character"),
        (MetadataFilter(key="k", value=None), r"the value is None.*IS_EMPTY"),
        (MetadataFilter(key="k", value=None, operator=FilterOperator.NE), "IS_EMPTY"),
        (MetadataFilter(key="k", value=["a"]), r"must not be a list \(IN, NIN"),
        (MetadataFilter(key="k", value=["a"], operator=FilterOperator.CONTAINS), "must not be a list"),
        (MetadataFilter(key="k", value="a", operator=FilterOperator.IN), "must be a list, got 'a'"),
        (MetadataFilter(key="k", value="a", operator=FilterOperator.ANY), "must be a list"),
        (MetadataFilter(key="k", value=[], operator=FilterOperator.ALL), "the list is empty"),
        (MetadataFilter(key="k", value=2**63), "at most 64 bits"),
        (MetadataFilter(key="k", value=float("nan")), "finite"),
        (MetadataFilter(key="k", value=1, operator=FilterOperator.TEXT_MATCH), "expected a str"),
        (
            MetadataFilter(key="k", value="a", operator=FilterOperator.TEXT_MATCH_INSENSITIVE),
            "no such comparison",
        ),
    ],
)
def test_filters_that_are_refused(
    both: tuple[MilvusVectorStore, SimpleVectorStore], one: MetadataFilter, message: str
) -> None:
    milvus, _ = both
    filters = MetadataFilters(filters=[one])
    left = ids_left(milvus)
    for call in (
        lambda: found(milvus, filters=filters),
        lambda: milvus.get_nodes(filters=filters),
        lambda: milvus.delete_nodes(filters=filters),
        lambda: asyncio.run(milvus.adelete_nodes(["n1"], filters)),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    assert ids_left(milvus) == left


def test_nodes_keep_the_metadata_that_filters_take_for_missing(
    both: tuple[MilvusVectorStore, SimpleVectorStore],
) -> None:
    milvus, _ = both
    for number, metadata in enumerate(METADATA):
        assert milvus.get_nodes([f"n{number}"])[0].metadata == metadata


@pytest.mark.parametrize("gone", [{}, {"price": None, "tags": []}])
def test_metadata_that_a_node_has_no_more_is_found_no_more(place: Place, gone: dict[str, Any]) -> None:
    store = open_place(place)
    store.add([make_node("a", {"price": 12, "tags": ["new"], "kind": "mug"}), make_node("b", {"price": 13})])
    store.add([make_node("a", {**gone, "kind": "cup"})])

    def check(store: MilvusVectorStore) -> None:
        assert found(store, filters=one_filter("price", 20, FilterOperator.LT)) == ["b"]
        assert found(store, filters=one_filter("price", None, FilterOperator.IS_EMPTY)) == ["a"]
        assert found(store, filters=one_filter("tags", "new", FilterOperator.CONTAINS)) == []
        assert found(store, filters=one_filter("kind", "cup")) == ["a"]

    check(store)
    store.client.close()
    check(open_place(place))
