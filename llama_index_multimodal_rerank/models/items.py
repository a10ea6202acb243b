"""A mixed list of texts, pictures and pairs of both, checked and taken apart."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

ImageLike: TypeAlias = Image.Image | Callable[[], Image.Image] | npt.NDArray[Any]
Item: TypeAlias = str | ImageLike | tuple[str, ImageLike]


@dataclass(frozen=True)
class Entry:
    """One item, taken apart.

    Attributes:
        text: its text, ``""`` for a picture alone.
        image: its picture, a function that returns it, or what the model's ``preprocess`` made of it;
            None for a text alone.
    """

    text: str
    image: ImageLike | None


def parse_items(items: Iterable[Item]) -> list[Entry]:
    """Check and take apart what a model's ``encode`` is given.

    Raises:
        TypeError: ``items`` is a single item, or one of its items is of no known type.
        ValueError: an item is an empty text without a picture.
    """
    if isinstance(items, str | bytes | Image.Image | dict) or not isinstance(items, Iterable):
        raise TypeError(
            f"items is a {type(items).__name__}; expected a list of items, a single one as [item]."
        )
    return [_parse(index, item) for index, item in enumerate(items)]


def _parse(index: int, item: object) -> Entry:
    if isinstance(item, str):
        if not item.strip():
            raise ValueError(f"items[{index}] is an empty text without an image: {item!r} has no embedding.")
        return Entry(item, None)
    if isinstance(item, tuple) and len(item) == 2:
        text, image = item
        if not isinstance(text, str):
            raise TypeError(
                f"items[{index}][0] is a {type(text).__name__}; expected the text, '' for an image alone."
            )
        where = f"items[{index}][1]"
    else:
        text, image, where = "", item, f"items[{index}]"
    if isinstance(image, Image.Image | np.ndarray) or callable(image):
        return Entry(text, image)
    raise TypeError(
        f"{where} is a {type(image).__name__}; expected "
        f"{'a text (str), ' if item is image else ''}a PIL image, what preprocess() made of one, a function "
        f"without arguments that returns one{', or a pair (text, image)' if item is image else ''}."
    )
