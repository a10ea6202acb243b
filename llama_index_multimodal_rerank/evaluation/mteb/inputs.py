"""What mteb hands over, as LlamaIndex and this package take it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from llama_index.core.schema import BaseNode, TextNode
from mteb.types import PromptType

from ...schema.image_node import image_node
from ...schema.image_text import ImageText
from ...schema.query import ImageTextQuery

if TYPE_CHECKING:
    from mteb.abstasks.task_metadata import TaskMetadata

TAKEN = {"text", "image"}


def check_modalities(task: TaskMetadata, side: PromptType | None) -> None:
    """Check that a task asks for nothing but pictures and texts.

    Raises:
        ValueError: it has sound or films.
    """
    other = set(task.get_modalities(side)) - TAKEN
    if other:
        raise ValueError(f"{task.name} has {', '.join(sorted(other))}; this model takes text and image")


def batch_strings(batch: Mapping[str, Any]) -> list[str]:
    """Return the entries of a ``BatchedInput``: strings, as :class:`ImageText` where there is a picture.

    Raises:
        ValueError: the batch has neither texts nor pictures.
    """
    texts, images = batch.get("text"), batch.get("image")
    if texts is None and images is None:
        raise ValueError(
            f"a batch with neither text nor image: it has {', '.join(sorted(batch)) or 'nothing'}"
        )
    n = len(texts if texts is not None else images or ())
    pairs = zip(texts or [""] * n, images or [None] * n, strict=True)
    return [text if image is None else ImageText(text, image) for text, image in pairs]


def document_node(row: Mapping[str, Any], task: TaskMetadata) -> BaseNode:
    """Return a row of a corpus as a node: its picture, its text with the title before it, or both.

    Texts are put together as mteb does it for encoders.

    Raises:
        ImageLoadError: the picture cannot be read; a ValueError.
    """
    text, image = _content(row, task, PromptType.document)
    if row.get("title") and "text" in task.get_modalities(PromptType.document):
        text = f"{row['title']} {text}".strip()
    if image is None:
        return TextNode(text=text, id_=row["id"])
    return image_node(image, text=text, id_=row["id"])


def query_bundle(row: Mapping[str, Any], task: TaskMetadata) -> ImageTextQuery:
    """Return a row of queries: picture, words with the query's own instruction behind them, or both."""
    text, image = _content(row, task, PromptType.query)
    if not isinstance(text, str):
        raise ValueError(f"query {row['id']!r} of {task.name} is a conversation; this model takes one text")
    instruction = row.get("instruction")
    return ImageTextQuery(f"{text} {instruction}" if instruction else text, image=image)


def _content(row: Mapping[str, Any], task: TaskMetadata, side: PromptType) -> tuple[Any, Any]:
    modalities = task.get_modalities(side)
    text = (row.get("text") or "") if "text" in modalities else ""
    return text, row.get("image") if "image" in modalities else None


def in_parts(items: list[Any], size: int) -> Iterator[list[Any]]:
    """Yield a list in parts of at most ``size``."""
    for start in range(0, len(items), size):
        yield items[start : start + size]
