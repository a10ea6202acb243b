"""A list of pictures that is too long for one process: Parquet files, read by the workers."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..data.listed_image import ListedImage
from .items import Item, item_of

if TYPE_CHECKING:
    import pyarrow as pa
    from ray.data import Dataset


def is_parquet(source: Any) -> bool:
    """Tell whether a source is Parquet, by its name."""
    return isinstance(source, (str, os.PathLike)) and Path(source).suffix.lower() == ".parquet"


def read_listed(path: Path) -> Callable[[], Dataset] | None:
    """Return what makes a dataset of items of Parquet files; None if they have no rows.

    Args:
        path: a file, or a folder of files, with the text column ``image``, and if wanted ``text`` and ``id``.

    Raises:
        FileNotFoundError: there is nothing.
        ValueError: a column is missing, or is no text, or two rows have one id, or one without.
    """
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.dataset as pd

    if not path.exists():
        raise FileNotFoundError(f"no such file or folder: {str(path)!r}")
    files = pd.dataset(path, format="parquet")
    types = dict(zip(files.schema.names, files.schema.types, strict=True))
    for name in ("image", "text", "id"):
        if name in types and not (pa.types.is_string(types[name]) or pa.types.is_large_string(types[name])):
            raise ValueError(f"{str(path)!r}: the column {name!r} must be of strings, and is {types[name]}")
    if "image" not in types:
        raise ValueError(f"{str(path)!r} must have a column 'image' of paths or URLs; it has {sorted(types)}")
    key = "id" if "id" in types else "image"
    column = files.to_table(columns=[key])[key]
    if column.null_count:
        raise ValueError(f"{str(path)!r}: {column.null_count} rows have no {key!r}")
    counts = pc.value_counts(column)
    twice = counts.filter(pc.greater(counts.field("counts"), 1))
    if len(twice):
        raise ValueError(
            f"{str(path)!r}: {len(twice)} values of the column {key!r} stand in more than one row, the first "
            f"is {twice[0]['values'].as_py()!r}. In a store one picture would replace the other."
        )

    def from_files() -> Dataset:
        from ray.data import read_parquet

        to_items = partial(_to_items, base=Path.cwd())
        return read_parquet(str(path)).map_batches(to_items, batch_format="pyarrow")

    return from_files if len(column) else None


def _to_items(batch: pa.Table, base: Path) -> pa.Table:
    import pyarrow as pa

    lines = []
    for row in batch.to_pylist():
        image, text, id_ = row.pop("image"), row.pop("text", None), row.pop("id", None)
        metadata = {key: value for key, value in row.items() if value is not None}
        try:
            item = item_of(ListedImage(image, text or "", metadata, id_), base=base)
        except ValueError as error:  # one row of many must not end the run
            item = Item(image, id_ or "", problem=str(error))
        lines.append(item.to_json())
    return pa.table({"item": pa.array(lines, pa.string())})
