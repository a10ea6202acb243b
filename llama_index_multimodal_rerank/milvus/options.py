"""The options of ``milvus_store``, checked before anything is made or dropped.

``MilvusVectorStore`` hands names that it does not know to ``MilvusClient``, which passes over those that it
does not know either. So ``collection="shop"`` would fill, or drop, the default collection.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Iterable, Mapping
from typing import Any

from llama_index.core.bridge.pydantic import ConfigDict, create_model

from .names import check_name

_OWN = frozenset(
    {
        "collection_name",
        "token",
        "overwrite",
        "similarity_metric",
        "index_config",
        "sparse_embedding_function",
    }
)
"""Arguments of ``milvus_store`` that have names there, for hints."""

_DECIDED = {
    "dim": "the embedding says it",
    "upsert_mode": "rows are always replaced by those of the same id",
    "enable_sparse": "it follows from sparse_embedding_function",
    "use_async_client": "asynchronous methods work without",
}
"""Arguments of ``MilvusVectorStore`` that ``milvus_store`` gives itself, and why they cannot be given."""

_OF_CONNECTIONS = frozenset(
    {"alias", "user", "password", "db_name", "timeout", "dedicated", "secure", "client_pem_path",
     "client_key_path", "ca_pem_path", "server_pem_path", "server_name", "grpc_options", "keep_alive",
     "option"}
)  # fmt: skip
"""What pymilvus (2.6.7 to 2.6.17) looks for in the arguments of a ``MilvusClient``, beside ``uri`` and
``token``."""

_NAMES = ("db_name", "embedding_field", "sparse_embedding_field", "text_key", "doc_id_field")


def check_store_options(collection_name: str, options: Mapping[str, Any], index_config: Any) -> None:
    """Refuse options that would be ignored, or be found to be wrong when a collection is dropped already.

    Args:
        collection_name: the collection.
        options: what was given beyond the arguments of ``milvus_store``.
        index_config: the index that was asked for.

    Raises:
        TypeError: there is no such option, or ``milvus_store`` decides it itself.
        ValueError: a value is not usable.
    """
    of_store = _store_parameters()
    for name, why in _DECIDED.items():
        if name in options:
            raise TypeError(f"milvus_store takes no {name}, got {options[name]!r}: {why}")
    _check_known("milvus_store", options, of_store | _OF_CONNECTIONS)
    _check_collection_name(collection_name)
    for name in _NAMES:
        check_name(options.get(name), name)
    _check_values({**options, "index_config": index_config})


def check_connection_options(collection_name: str, options: Mapping[str, Any]) -> None:
    """As :func:`check_store_options`, where nothing but a connection is made."""
    _check_known("describe_collection", options, _OF_CONNECTIONS)
    _check_collection_name(collection_name)
    check_name(options.get("db_name"), "db_name")


def connection_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of a store's options is for its client."""
    of_store = _store_parameters() - {"token"}
    return {name: value for name, value in options.items() if name not in of_store}


def _store_parameters() -> frozenset[str]:
    from llama_index.vector_stores.milvus import MilvusVectorStore

    parameters = inspect.signature(MilvusVectorStore.__init__).parameters
    return frozenset(parameters) - {"self", "kwargs", "uri"}


def _check_known(function: str, options: Iterable[str], known: frozenset[str]) -> None:
    for name in options:
        if name not in known:
            near = difflib.get_close_matches(name, sorted(known | _OWN), n=1, cutoff=0.5)
            hint = f" Did you mean {near[0]}?" if near else ""
            raise TypeError(
                f"{function} has no argument {name!r}, and neither has MilvusVectorStore or MilvusClient: it "
                f"would be ignored.{hint} Known are {', '.join(sorted(known - _DECIDED.keys()))}."
            )


def _check_collection_name(name: str) -> None:
    if name is None:
        raise ValueError("collection_name must be a str, got None")
    check_name(name, "collection_name")


def _check_values(options: Mapping[str, Any]) -> None:
    """Hold values against the fields of the store, as it does itself when it is made."""
    from llama_index.vector_stores.milvus import MilvusVectorStore
    from pymilvus.client.types import ConsistencyLevel

    fields = MilvusVectorStore.model_fields
    given = {name: value for name, value in options.items() if name in fields and value is not None}
    types: dict[str, Any] = {name: (fields[name].annotation, ...) for name in given}
    create_model("milvus_store", __config__=ConfigDict(arbitrary_types_allowed=True), **types).model_validate(
        given
    )
    if (batch_size := options.get("batch_size")) is not None and int(batch_size) < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}: nothing would be written")
    level = options.get("consistency_level")
    if level is not None and level not in (levels := ConsistencyLevel.keys()):
        raise ValueError(f"consistency_level must be one of {levels}, got {level!r}")
    _check_columns(options.get("scalar_field_names"), options.get("scalar_field_types"))


def _check_columns(names: list[str] | None, types: list[Any] | None) -> None:
    for name in names or ():
        check_name(name, "scalar_field_names")
    if len(names or ()) != len(types or ()):
        raise ValueError(
            "scalar_field_names needs scalar_field_types, a pymilvus.DataType for each name, got "
            f"{names!r} and {types!r}. (Metadata can be filtered by without a column of its own.)"
        )
