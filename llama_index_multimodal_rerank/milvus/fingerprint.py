"""What a collection remembers of the embedding that filled it, and how it is held against another."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llama_index.vector_stores.milvus.utils import BaseSparseEmbeddingFunction, BM25BuiltInFunction

    from ..embeddings.image_text_embedding import ImageTextEmbedding

FINGERPRINT_PROPERTY = "llama_index_multimodal_rerank.embedding"
"""Collection property that remembers which embedding filled the collection (JSON)."""

_WAYS_OUT = "choose another collection_name, or rebuild the collection with overwrite=True"


class EmbeddingMismatchError(ValueError):
    """A collection that was filled by another embedding, or built for another dimension or metric."""


def fingerprint(
    embed_model: ImageTextEmbedding,
    metric: str,
    sparse: BaseSparseEmbeddingFunction | BM25BuiltInFunction | None,
) -> dict[str, str]:
    """Return what tells the vectors of a collection from others. Loads the model.

    Args:
        embed_model: the model of the dense vectors.
        metric: what compares them.
        sparse: the function of the sparse vectors, None if there are none.
    """
    dense = {**embed_model.fingerprint, "dim": str(embed_model.dim), "metric": metric}
    return dense if sparse is None else {**dense, **_sparse_fingerprint(sparse)}


def _sparse_fingerprint(function: Any) -> dict[str, str]:
    own = dict(getattr(function, "fingerprint", None) or {})
    if hasattr(function, "get_field_kwargs"):  # of Milvus itself: the texts are cut into words by this
        how = {
            name: value for name, value in function.get_field_kwargs().items() if "analyzer_params" in name
        }
        own["analyzer"] = json.dumps(how, sort_keys=True, default=str)
    return {
        "sparse_function": type(function).__name__,
        **{f"sparse_{name}": str(value) for name, value in own.items()},
    }


def to_property(fingerprint: dict[str, str]) -> dict[str, str]:
    """Return the collection property that remembers a fingerprint."""
    return {FINGERPRINT_PROPERTY: json.dumps(fingerprint, sort_keys=True)}


def remembered_fingerprint(description: dict[str, Any]) -> dict[str, str] | None:
    """Return the fingerprint that a collection remembers, None if it has none.

    Args:
        description: what ``MilvusClient.describe_collection`` returns.

    Raises:
        EmbeddingMismatchError: it cannot be read.
    """
    stored = description.get("properties", {}).get(FINGERPRINT_PROPERTY)
    if stored is None:
        return None
    try:
        fingerprint = json.loads(stored)
    except (TypeError, ValueError, RecursionError):
        fingerprint = None
    if not isinstance(fingerprint, dict) or not all(isinstance(value, str) for value in fingerprint.values()):
        raise EmbeddingMismatchError(
            f"collection {description['collection_name']!r} no longer says which embedding filled it: its "
            f"property {FINGERPRINT_PROPERTY!r} must be a JSON object of strings, and is "
            f"{str(stored)[:200]!r}. Put the property back (client.alter_collection_properties), or "
            f"{_WAYS_OUT}."
        )
    return fingerprint


def check_fingerprint(collection_name: str, remembered: dict[str, str], fingerprint: dict[str, str]) -> None:
    """Refuse a collection of another embedding.

    Collections made before the sparse function was remembered say nothing of it, and a function may say more
    of itself at one time than at another: what only one side says about the sparse vectors is no difference.

    Raises:
        EmbeddingMismatchError: the two are not the same; says in what.
    """
    differences = [
        f"{key}: collection {remembered.get(key)!r}, {_whose(key)} {fingerprint.get(key)!r}"
        for key in sorted({*remembered, *fingerprint})
        if remembered.get(key) != fingerprint.get(key)
        and not (key.startswith("sparse_") and (key not in remembered or key not in fingerprint))
    ]
    if differences:
        raise EmbeddingMismatchError(
            f"collection {collection_name!r} was filled by another embedding; its vectors cannot be compared "
            f"with this one's ({'; '.join(differences)}). Use what it was made with, or {_WAYS_OUT}."
        )


def _whose(key: str) -> str:
    return "sparse_embedding_function" if key.startswith("sparse_") else "embed_model"


def check_schema(
    description: dict[str, Any],
    dim: int | None,
    embedding_field: str,
    sparse: BaseSparseEmbeddingFunction | BM25BuiltInFunction | None,
) -> None:
    """Refuse a collection whose fields do not take the rows that would be put into it.

    Args:
        description: what ``MilvusClient.describe_collection`` returns.
        dim: length of the dense vectors, None if there are none.
        embedding_field: their field.
        sparse: the function of the sparse vectors, None if there are none.

    Raises:
        ValueError: it has sparse vectors and ``sparse`` is None, or the other way round.
        EmbeddingMismatchError: its vectors are of another kind or length, or its ids are no strings.
    """
    from llama_index.vector_stores.milvus.utils import BaseSparseEmbeddingFunction
    from pymilvus import DataType, FunctionType

    name = description["collection_name"]
    types = {field["name"]: DataType(field["type"]) for field in description["fields"]}
    has_sparse = DataType.SPARSE_FLOAT_VECTOR in types.values()
    if has_sparse and sparse is None:
        raise ValueError(
            f"collection {name!r} is hybrid: pass the sparse_embedding_function it was made with"
        )
    if sparse is not None and not has_sparse:
        raise ValueError(
            f"collection {name!r} was made without sparse vectors: open it without "
            "sparse_embedding_function, or choose another collection_name, or rebuild it with overwrite=True"
        )
    problems = []
    if types.get("id") != DataType.VARCHAR:
        problems.append(f"field 'id': collection {_found(types, 'id')}, needed VARCHAR")
    if dim is not None:
        dims = {field["name"]: (field.get("params") or {}).get("dim", 0) for field in description["fields"]}
        length = int(dims.get(embedding_field, 0))
        if (types.get(embedding_field), length) != (DataType.FLOAT_VECTOR, dim):
            problems.append(
                f"field {embedding_field!r}: collection {_found(types, embedding_field)} of dimension "
                f"{length}, needed FLOAT_VECTOR of dimension {dim}"
            )
    if sparse is not None:
        computed = any(
            FunctionType(function["type"]) == FunctionType.BM25
            for function in description.get("functions") or ()
        )
        if computed == isinstance(sparse, BaseSparseEmbeddingFunction):
            made_with = "BM25BuiltInFunction" if computed else "a function that is computed outside Milvus"
            problems.append(
                f"sparse_function: collection {made_with}, sparse_embedding_function {type(sparse).__name__}"
            )
    if problems:
        raise EmbeddingMismatchError(
            f"collection {name!r} was made for other vectors ({'; '.join(problems)}). Use what it was made "
            f"with, or {_WAYS_OUT}."
        )


def _found(types: dict[str, Any], field: str) -> str:
    return str(types[field].name) if field in types else "none"
