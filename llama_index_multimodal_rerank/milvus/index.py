"""What ``index_config`` asks for, held against the index that a collection has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pymilvus import MilvusClient

_PLACE = ("field_name", "index_name", "metric_type")
"""Not of the index itself; the metric is compared with the rest of the fingerprint."""


def check_index(
    client: MilvusClient, collection_name: str, field: str, index_config: Mapping[str, Any]
) -> None:
    """Refuse an index that a collection does not have: it would be searched with the one that it has.

    What Milvus does not tell about an index is no difference.

    Args:
        client: who asks.
        collection_name: the collection, which exists.
        field: the field of its vectors.
        index_config: see :func:`~.store.milvus_store`.

    Raises:
        ValueError: the index is of another type, or has other parameters; says which.
    """
    index = client.describe_index(collection_name, index_config.get("index_name", field)) or {}
    found = {**index, **(index.get("params") or {})}
    differences = [
        f"{name}: collection {found[name]!r}, index_config {value!r}"
        for name, value in index_config.items()
        if name not in _PLACE and name in found and str(found[name]).upper() != str(value).upper()
    ]
    if differences:
        raise ValueError(
            f"collection {collection_name!r} has another index than index_config asks for "
            f"({'; '.join(differences)}); index_config is for collections that are made. Leave it out to "
            "search with the index that is there; or exchange the index (docs/milvus_at_size.md); or rebuild "
            "the collection with overwrite=True."
        )
