"""ListedImage: a picture of a catalogue that was not opened yet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class ListedImage:
    """A picture by its place, with what shall be known of it; see ``image_node``, which takes the same.

    Example:
        >>> from llama_index_multimodal_rerank import ListedImage
        >>> ListedImage("mugs/17.jpg", text="a blue mug", metadata={"price": 7.5}).id_ is None
        True

    Attributes:
        image: path, or http(s) URL.
        text: caption, embedded together with the picture.
        metadata: for filters and display.
        id_: node id. Default: derived from the absolute path or the URL.
    """

    image: str | Path
    text: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    id_: str | None = None
