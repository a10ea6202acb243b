"""What a collection remembers of its embedding, on Milvus Lite: damaged, missing, of another time."""

from __future__ import annotations

import doctest
import json
from pathlib import Path
from typing import Any

import pytest
from llama_index.core.vector_stores.types import VectorStoreQuery, VectorStoreQueryMode
from llama_index.vector_stores.milvus import MilvusVectorStore
from llama_index.vector_stores.milvus.utils import BaseSparseEmbeddingFunction, BM25BuiltInFunction
from pymilvus import DataType, MilvusClient
from support.indexing_child import DIM, DigestVectors, OneWord, open_store
from support.killed_states import node

from llama_index_multimodal_rerank import BGEM3SparseEmbedding, EmbeddingMismatchError
from llama_index_multimodal_rerank.milvus import store as store_module

PROPERTY = "llama_index_multimodal_rerank.embedding"
SOUND = {"dim": str(DIM), "metric": "COSINE", "model": "digest"}


@pytest.fixture
def uri(tmp_path: Path) -> str:
    return str(tmp_path / "m.db")


def remember(store: MilvusVectorStore, value: str) -> None:
    store.client.alter_collection_properties("images", {PROPERTY: value})


def test_the_example_of_milvus_store_runs() -> None:
    found = doctest.testmod(store_module)
    assert found.attempted >= 12
    assert found.failed == 0


# -- damaged -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "damaged",
    ["", "{", "null", "7", '"digest"', "[]", '["dim"]', '{"dim": 16}', '{"dim": null}', '{"dim": ["16"]}',
     "[" * 100_000, "\\x00", "{'dim': '16'}"],
    ids=lambda damaged: damaged[:12],
)  # fmt: skip
@pytest.mark.parametrize("rows", [0, 1])
def test_a_damaged_fingerprint_is_named(uri: str, damaged: str, rows: int) -> None:
    store = open_store(uri)
    store.add([node(str(row), 1) for row in range(rows)])
    remember(store, damaged)
    with pytest.raises(EmbeddingMismatchError, match=rf"(?s)'images' no longer.*{PROPERTY}.*overwrite=True"):
        open_store(uri)
    remember(store, json.dumps(SOUND))  # one of the ways out that the error names
    assert len(open_store(uri).get_nodes(["0"])) == rows


@pytest.mark.parametrize(
    ("kept", "named"),
    [
        ({}, "model: collection None, embed_model 'digest'"),
        ({"dim": str(DIM), "metric": "COSINE"}, "model: collection None, embed_model 'digest'"),
        ({**SOUND, "matryoshka": "8"}, "matryoshka: collection '8', embed_model None"),
        ({**SOUND, "dim": "8"}, "dim: collection '8', embed_model '16'"),
    ],
)
def test_keys_of_another_time_are_named(uri: str, kept: dict[str, str], named: str) -> None:
    remember(open_store(uri), json.dumps(kept))
    with pytest.raises(EmbeddingMismatchError, match=named):
        open_store(uri)


# -- empty collections made by others ------------------------------------------------------------


def test_an_empty_collection_of_another_dimension_is_refused(uri: str) -> None:
    MilvusVectorStore(uri=uri, dim=8, collection_name="images", use_async_client=False)
    with pytest.raises(
        EmbeddingMismatchError,
        match="'embedding': collection FLOAT_VECTOR of dimension 8, needed FLOAT_VECTOR of dimension 16",
    ):
        open_store(uri)
    open_store(uri, overwrite=True).add([node("1", 1)])


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"id_type": "string", "max_length": 64}, "field 'embedding': collection none of dimension 0"),
        (
            {"id_type": "int", "vector_field_name": "embedding"},
            r"\(field 'id': collection INT64, needed VARCHAR\)",
        ),
    ],
)
def test_an_empty_collection_with_other_fields_is_refused(
    uri: str, options: dict[str, Any], named: str
) -> None:
    MilvusClient(uri).create_collection("images", dimension=DIM, **options)
    with pytest.raises(EmbeddingMismatchError, match=named):
        open_store(uri)


def test_another_embedding_field_is_refused(uri: str) -> None:
    open_store(uri, embedding_field="picture")
    open_store(uri, embedding_field="picture").add([node("1", 1)])
    with pytest.raises(EmbeddingMismatchError, match="field 'embedding': collection none"):
        open_store(uri)


def test_an_empty_dense_collection_is_not_taken_for_a_hybrid_one(uri: str) -> None:
    MilvusVectorStore(uri=uri, dim=DIM, collection_name="images", use_async_client=False)
    with pytest.raises(ValueError, match="made without sparse vectors"):
        open_store(uri, sparse_embedding_function=OneWord())


# -- the sparse side -----------------------------------------------------------------------------


class Letters(BaseSparseEmbeddingFunction):
    """Texts by their first letter: another function than OneWord, whose ids never meet its ids."""

    def __init__(self, version: str = "1") -> None:
        self.fingerprint = {"version": version}

    def encode_queries(self, queries: list[str]) -> list[dict[int, float]]:
        return [{1000 + ord(text[0]): 1.0} for text in queries]

    encode_documents = encode_queries


@pytest.mark.parametrize(
    ("made_with", "opened_with", "named"),
    [
        (OneWord(), Letters(), "sparse_function: collection 'OneWord', .*_function 'Letters'"),
        (Letters("1"), Letters("2"), "sparse_version: collection '1', sparse_embedding_function '2'"),
        (OneWord(), BM25BuiltInFunction(), "sparse_function: collection 'OneWord', .* 'BM25BuiltInFunction'"),
        (BM25BuiltInFunction(), OneWord(), "sparse_function: collection 'BM25BuiltInFunction', .*'OneWord'"),
        (
            BM25BuiltInFunction(),
            BM25BuiltInFunction(analyzer_params={"tokenizer": "jieba"}),
            "sparse_analyzer: collection '{}', .*jieba",
        ),
    ],
    ids=["class", "version", "given-computed", "computed-given", "analyzer"],
)
def test_another_sparse_function_is_refused(uri: str, made_with: Any, opened_with: Any, named: str) -> None:
    open_store(uri, sparse_embedding_function=made_with).add([node("1", 1)])
    with pytest.raises(EmbeddingMismatchError, match=named):
        open_store(uri, sparse_embedding_function=opened_with)
    query = VectorStoreQuery(query_str="1", similarity_top_k=1, mode=VectorStoreQueryMode.SPARSE)
    assert open_store(uri, sparse_embedding_function=made_with).query(query).ids == ["1"]


def test_hybrid_collections_of_before_are_opened(uri: str) -> None:
    store = open_store(uri, sparse_embedding_function=OneWord())
    remember(store, json.dumps(SOUND))  # as releases wrote it that did not remember the function
    assert open_store(uri, sparse_embedding_function=OneWord()).add([node("1", 1)]) == ["1"]
    with pytest.raises(EmbeddingMismatchError, match=r"computed outside Milvus, .* BM25BuiltInFunction"):
        open_store(uri, sparse_embedding_function=BM25BuiltInFunction())


def test_checkpoints_of_bge_m3_are_told_apart(uri: str, tmp_path: Path) -> None:
    def checkpoint(name: str, weights: bytes | None) -> BGEM3SparseEmbedding:
        (tmp_path / name).mkdir()
        if weights is not None:
            (tmp_path / name / "sparse_linear.pt").write_bytes(weights)
        return BGEM3SparseEmbedding(str(tmp_path / name))

    open_store(uri, sparse_embedding_function=checkpoint("first", b"1"))
    open_store(uri, sparse_embedding_function=checkpoint("moved", b"1"))
    open_store(uri, sparse_embedding_function=checkpoint("incomplete", None))  # raises where it is used
    not_there = BGEM3SparseEmbedding("BAAI/bge-m3", cache_folder=str(tmp_path), local_files_only=True)
    open_store(uri, sparse_embedding_function=not_there)
    with pytest.raises(EmbeddingMismatchError, match="sparse_linear_sha256: collection '6b86b273"):
        open_store(uri, sparse_embedding_function=checkpoint("another", b"2"))


def test_a_collection_is_not_hybrid_for_its_fingerprint(uri: str) -> None:
    store = open_store(uri)
    kept = store.client.describe_collection("images")["properties"][PROPERTY]
    assert json.loads(kept) == {**DigestVectors.fingerprint, **SOUND}
    assert DataType.SPARSE_FLOAT_VECTOR not in [
        field["type"] for field in store.client.describe_collection("images")["fields"]
    ]
