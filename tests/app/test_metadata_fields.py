"""What can be filtered by."""

from __future__ import annotations

from llama_index_multimodal_rerank.app.metadata_fields import MetadataField, metadata_fields


def test_kinds_ranges_and_values() -> None:
    rows = [
        {
            "price": 5,
            "kind": "mug",
            "tags": ["new", "red"],
            "sold": True,
            "odd": 1,
            "image_digest": "x",
            "mixed": [1, "a"],
        },
        {"price": 2.5, "kind": "shoe", "tags": ["new"], "odd": "text", "file_path": "/a", "deep": {"a": 1}},
        {"price": None, "kind": "mug", "_node": "x"},
    ]
    assert metadata_fields(rows) == (
        MetadataField("price", "number", 2, 2.5, 5.0),
        MetadataField("kind", "text", 3, values=("mug", "shoe")),
        MetadataField("tags", "list", 2, values=("new", "red")),
        MetadataField("sold", "number", 1, 1.0, 1.0),
    )


def test_texts_with_many_values_list_none() -> None:
    (field,) = metadata_fields({"title": f"title {number}"} for number in range(51))
    assert field == MetadataField("title", "text", 51)
    assert metadata_fields([]) == ()
