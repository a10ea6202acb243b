"""From a mixed list of texts and pictures to batches of one kind and of similar length."""

from __future__ import annotations

from collections.abc import Sequence

# A batch size counts sequences of up to this many tokens; longer ones go in smaller batches, so that memory
# stays bounded for texts of 8192 tokens too.
REFERENCE_TOKENS = 512


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
