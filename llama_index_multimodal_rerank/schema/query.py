"""ImageTextQuery: a query bundle whose picture is embedded together with its text."""

from __future__ import annotations

import base64
import os
import threading
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dataclasses_json import config
from llama_index.core.schema import QueryBundle

from ..images.access import DEFAULT_ACCESS
from ..images.sources import as_path, is_url
from .image_text import ImageText, recover_image

if TYPE_CHECKING:
    from ..images.sources import ImageSource


def _to_json(image: Any) -> str | None:
    """Return a picture in memory as a data URI; a string (path, URL, base64) as it is, unread."""
    if image is None or isinstance(image, str):
        return image
    if isinstance(image, os.PathLike):
        return str(os.fspath(image))
    return f"data:image/*;base64,{base64.b64encode(DEFAULT_ACCESS.read(image)).decode('ascii')}"


@dataclass
class ImageTextQuery(QueryBundle):
    """A query of text, picture, or both, for every LlamaIndex retriever and query engine.

    ``retriever.retrieve(ImageTextQuery("a phone case with this", image_path="leopard.jpg"))``

    A plain ``QueryBundle`` ignores its ``image_path`` silently.

    Args:
        query_str: the text; may be empty if there is a picture.
        image_path: path or http(s) URL of the picture (kept as ``str``).
        custom_embedding_strs: embed these instead (as LlamaIndex's query transforms do).
        embedding: a ready vector of exactly this query. It is dropped as soon as text or
            picture are edited.
        image: the picture itself, where there is no file: bytes, ``BytesIO``, base64, data URI
            or Pillow image.

    Raises:
        ValueError: neither text nor picture, or two pictures.
    """

    query_str: str = ""
    image: Any = field(  # an ImageSource; dataclasses_json must be able to resolve the annotation
        default=None,
        repr=False,
        metadata=config(encoder=_to_json, exclude=lambda value: value is None),
    )

    def __post_init__(self) -> None:
        if isinstance(self.image_path, Path):
            self.image_path = str(self.image_path)
        if isinstance(self.image, Path):
            raise ValueError(
                f"image takes the picture itself; pass the path as image_path={str(self.image)!r}"
            )
        if isinstance(self.image, BytesIO):
            self.image = self.image.getvalue()
        if self.image is not None and self.image_path is not None:
            raise ValueError(f"a query has one picture: got image and image_path={self.image_path!r}")
        if not self.query_str and not self.has_image and not self.custom_embedding_strs:
            raise ValueError("an empty query: pass query_str, image_path or image")
        given = self.__dict__.pop("_written", {}).pop(threading.get_ident(), None)
        self._given_embedding = given
        self._given_for = self._identity()

    @property
    def has_image(self) -> bool:
        """Whether the query has a picture."""
        return self.image is not None or self.image_path is not None

    @property
    def image_source(self) -> ImageSource | None:
        """The picture, wherever it is: ``image`` or ``image_path``."""
        return self.image if self.image is not None else self.image_path

    @property
    def embedding_strs(self) -> list[str]:
        """What is embedded: the text carrying the picture, unless custom strings are set."""
        if self.custom_embedding_strs is not None:
            return self.custom_embedding_strs
        if not self.has_image:
            return [self.query_str] if self.query_str else []
        return [ImageText(self.query_str, self.image_source)]

    @property
    def embedding_image(self) -> list[Any]:
        """The picture as LlamaIndex's image retrievers want it: a ``str`` or a ``BytesIO``.

        No file is opened here: the embedding does, as far as its ``data_root`` allows.
        """
        source = self.image_source
        if source is None:
            return []
        path = as_path(source)
        if path is not None or is_url(source):
            return [str(source)]
        return [BytesIO(DEFAULT_ACCESS.read(source))]

    def _identity(self) -> tuple[Any, ...]:
        strs = self.custom_embedding_strs
        return (self.query_str, self.image_path, self.image, None if strs is None else tuple(strs))

    # LlamaIndex's synchronous retrievers write the vector they made into the caller's bundle and
    # read it back for the search. Kept there, it would answer for the query after an edit, and in
    # another index for another model. So a written vector serves the next read of its thread, once.

    def _read_embedding(self) -> list[float] | None:
        written = self.__dict__.get("_written", {}).pop(threading.get_ident(), None)
        if written is not None:
            return written  # type: ignore[no-any-return]
        return self._given_embedding if self._given_for == self._identity() else None

    def _write_embedding(self, embedding: list[float] | None) -> None:
        written = self.__dict__.setdefault("_written", {})
        written.pop(threading.get_ident(), None)
        if embedding is not None:
            written[threading.get_ident()] = embedding


ImageTextQuery.embedding = property(  # type: ignore[assignment]
    ImageTextQuery._read_embedding, ImageTextQuery._write_embedding
)


def query_image(query: QueryBundle) -> ImageSource | None:
    """Return the picture of a query, in any of the ways it can carry one, or None."""
    if isinstance(query, ImageTextQuery):
        return query.image_source
    if query.image_path is not None:
        return query.image_path
    carriers = [query.query_str, *query.embedding_strs]
    images = (getattr(recover_image(text), "image", None) for text in carriers)
    return next((image for image in images if image is not None), None)
