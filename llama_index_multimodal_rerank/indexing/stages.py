"""What the workers of Ray do with a batch: read, embed, write. Each takes a table and returns one.

Columns between the stages:

===========  ===============  ==================================================================
``image``    string           the picture's place, as JSON: it may be no UTF-8
``id``       string           of its node
``outcome``  string           what became of it; ``READY`` while it is on its way
``reason``   string           why it was left out
``row``      string, null     the store's row as JSON, without its vector
``text``     string, null     its caption
``picture``  binary, null     pixels or encoded bytes, for the model; gone once it is embedded
``vector``   list of float32  once it is embedded
===========  ===============  ==================================================================
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..data.folders import NOT_A_PICTURE, call_for_file, looks_like_picture
from ..images.access import ImageAccess
from ..images.errors import ImageLoadError
from ..images.sources import is_url
from ..schema.image_node import check_name, make_image_node
from ..schema.image_text import IMAGE_DIGEST_KEY, ImageText
from ..schema.values import NodeValueError, storable_metadata
from .items import Item, content_key
from .picture_bytes import pack_file, pack_image, unpack
from .rows import store_row
from .targets import OpenTarget

if TYPE_CHECKING:
    import pyarrow as pa

    from ..embeddings.image_text_embedding import ImageTextEmbedding

READY, WRITTEN, KEPT, SKIPPED = "ready", "written", "kept", "skipped"

MAX_PIXELS_SENT = 1024 * 1024
"""Larger pictures go to the model as they are in their files, and are decoded there once more: they take less
memory on the way."""


@dataclass(frozen=True)
class ReadImages:
    """The first stage: pictures are read, checked to their end and decoded, where they are not stored yet.

    Attributes:
        target: what is looked at for rows that are there.
        access: what may be read.
        apply_exif_orientation: of the embedding.
        text: makes captions of paths.
        metadata: added to the nodes of paths and URLs; a function is called with paths alone.
    """

    target: OpenTarget
    access: ImageAccess
    apply_exif_orientation: bool
    text: Callable[[Path], str] | None
    metadata: Mapping[str, Any] | Callable[[Path], Mapping[str, Any]] | None

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Return the batch, in order, with rows and pictures."""
        items = [Item.from_json(line) for line in batch["item"].to_pylist()]
        stored = self.target.stored([item.id_ for item in items])
        return _table([self._read(item, stored.get(item.id_)) for item in items])

    def _read(self, item: Item, stored: str | None) -> dict[str, Any]:
        result = {"image": json.dumps(item.image), "id": item.id_, "outcome": SKIPPED, "reason": ""}
        try:
            if item.problem is not None:
                return {**result, "reason": item.problem}
            if not item.given and not looks_like_picture(Path(item.image), self.access.data_root):
                return {**result, "reason": NOT_A_PICTURE}
            item = self._with_texts(item)
            if stored is not None and stored == self._key(item):
                return {**result, "outcome": KEPT}
            source = item.image if is_url(item.image) else Path(item.image)
            node = make_image_node(
                source, text=item.text, metadata=item.metadata, id_=item.id_, access=self.access
            )
            row = store_row(node, self.target.columns)
            picture = self._picture(source, node.metadata[IMAGE_DIGEST_KEY])
        except NodeValueError as error:
            return {**result, "reason": f"{error.place} {error.reason}"}
        except ImageLoadError as error:
            return {**result, "reason": error.reason}
        return {**result, "outcome": READY, "row": json.dumps(row), "text": item.text, "picture": picture}

    def _with_texts(self, item: Item) -> Item:
        if item.is_listed:
            return item
        if is_url(item.image):
            extra = {} if callable(self.metadata) else self.metadata or {}
            return replace(item, metadata=storable_metadata(extra, repr(item.image)))
        check_name(Path(item.image))
        text, metadata = call_for_file(Path(item.image), self.text, self.metadata)
        return replace(item, text=text, metadata=storable_metadata(metadata or {}, repr(item.image)))

    def _key(self, item: Item) -> str:
        """Return the key of the row that would be written; the picture's bytes are read for it."""
        facts: dict[str, Any] = {}
        if not is_url(item.image):
            facts = {"file_path": item.image, "file_name": Path(item.image).name}
        digest = self.access.digest(item.image if is_url(item.image) else Path(item.image))
        return content_key(item.text, {**facts, **item.metadata, IMAGE_DIGEST_KEY: digest})

    def _picture(self, source: str | Path, digest: str) -> bytes:
        data = self.access.read(source)
        image = self.access.load(
            data,
            apply_exif_orientation=self.apply_exif_orientation,
            expected_digest=None if is_url(source) else digest,
        )
        if image.width * image.height > MAX_PIXELS_SENT:
            return pack_file(data)
        return pack_image(image)  # turned already: nothing of its EXIF data goes along


class EmbedImages:
    """The second stage, an actor that holds one model.

    Args:
        embed_model: as it came out of the pickle: it loads its model when it is first used.
    """

    def __init__(self, embed_model: ImageTextEmbedding) -> None:
        self._embed_model = embed_model

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Return the batch, in order, with vectors in the place of pictures."""
        results = batch.to_pylist()
        ready = [result for result in results if result["outcome"] == READY]
        contents = [ImageText(result["text"], unpack(result["picture"])) for result in ready]
        for result, outcome in zip(ready, self._embed(contents), strict=True):
            if isinstance(outcome, ImageLoadError):
                result.update(outcome=SKIPPED, reason=outcome.reason, row=None, text=None)
            else:
                result["vector"] = outcome
        for result in results:
            result["picture"] = None
        return _table(results)

    def _embed(self, contents: Sequence[ImageText]) -> list[Any]:
        """Embed together, or, where one cannot be read, one by one."""
        if not contents:
            return []
        try:
            return [*self._embed_model.encode(contents)]
        except ImageLoadError as error:
            if len(contents) == 1:
                return [error]
            return [outcome for content in contents for outcome in self._embed([content])]


@dataclass(frozen=True)
class WriteRows:
    """The third stage: rows with their vectors are written; what is said to be written is kept.

    Attributes:
        target: where.
    """

    target: OpenTarget

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Write the rows of a batch; return what became of each of its pictures."""
        results = batch.to_pylist()
        ready = [result for result in results if result["outcome"] == READY]
        embedding_field = self.target.columns["embedding_field"]
        rows = [{**json.loads(result["row"]), embedding_field: result["vector"]} for result in ready]
        if rows:
            self.target.write(rows)
        for result in ready:
            result["outcome"] = WRITTEN
        return batch.select(["image", "id", "reason"]).append_column(
            "outcome", [[result["outcome"] for result in results]]
        )


def _table(results: Sequence[Mapping[str, Any]]) -> pa.Table:
    import pyarrow as pa

    schema = pa.schema(
        [
            ("image", pa.string()),
            ("id", pa.string()),
            ("outcome", pa.string()),
            ("reason", pa.string()),
            ("row", pa.string()),
            ("text", pa.string()),
            ("picture", pa.large_binary()),
            ("vector", pa.list_(pa.float32())),
        ]
    )
    return pa.table({name: [result.get(name) for result in results] for name in schema.names}, schema=schema)
