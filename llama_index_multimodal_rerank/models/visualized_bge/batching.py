"""From a mixed list of texts and pictures to batches of one kind and of similar length."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from PIL import Image

ImageLike: TypeAlias = Image.Image | Callable[[], Image.Image]
Item: TypeAlias = str | ImageLike | tuple[str, ImageLike]

# A batch size counts sequences of up to this many tokens; longer ones go in smaller batches, so that memory
# stays bounded for texts of 8192 tokens too.
REFERENCE_TOKENS = 512


@dataclass(frozen=True)
class Entry:
    """One item, taken apart.

    Attributes:
        text: its text, ``""`` for a picture alone.
        image: its picture, or a function that returns it; None for a text alone.
    """

    text: str
    image: ImageLike | None


def parse_items(items: Iterable[Item]) -> list[Entry]:
    """Check and take apart what ``VisualizedBGE.encode`` is given.

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
    if isinstance(image, Image.Image) or callable(image):
        return Entry(text, image)
    raise TypeError(
        f"{where} is a {type(image).__name__}; expected "
        f"{'a text (str), ' if item is image else ''}a PIL image, a function without arguments that "
        f"returns one{', or a pair (text, image)' if item is image else ''}."
    )


def batch_order(lengths: Sequence[int], has_image: Sequence[bool]) -> list[int]:
    """Sort items so that neighbours make good batches: pictures before texts, each longest first.

    A batch that does not fit into memory then fails at once, and neighbours need little padding.

    Args:
        lengths: of every item's text, in any unit.
        has_image: whether the item has a picture.

    Returns:
        Indices of the items; equal ones keep their order.
    """
    return sorted(range(len(lengths)), key=lambda i: (not has_image[i], -lengths[i]))


def plan_batches(
    lengths: Sequence[int], has_image: Sequence[bool], *, image_tokens: int, batch_size: int
) -> list[list[int]]:
    """Group items into batches: pictures and texts apart, longest first.

    Args:
        lengths: text tokens of every item.
        has_image: whether the item has a picture.
        image_tokens: tokens a picture adds.
        batch_size: most items of a batch; fewer where they have more than 512 tokens.

    Returns:
        Indices of the items, batch by batch; every item exactly once.
    """
    batches: list[list[int]] = []
    room = 0
    for i in batch_order(lengths, has_image):
        if not room or has_image[i] != has_image[batches[-1][0]]:
            tokens = lengths[i] + (image_tokens if has_image[i] else 0)
            room = max(1, min(batch_size, batch_size * REFERENCE_TOKENS // tokens))
            batches.append([])
        batches[-1].append(i)
        room -= 1
    return batches
