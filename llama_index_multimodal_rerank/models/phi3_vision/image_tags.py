"""The `<|image_1|>` tags of a prompt: reading them and holding them against the pictures given.

Tags are plain text, not tokens of the vocabulary. Number i stands for the i-th picture of the prompt.
Source: model card of `microsoft/Phi-3-vision-128k-instruct`.
"""

from __future__ import annotations

import re

_TAG = re.compile(r"<\|image_([0-9]+)\|>")


def image_tag(number: int) -> str:
    """Return the tag of the picture with this number, which counts from 1."""
    return f"<|image_{number}|>"


def split_at_tags(prompt: str) -> tuple[list[str], list[int]]:
    """Cut a prompt at its image tags.

    Args:
        prompt: Any text.

    Returns:
        The pieces of text around the tags, one more than there are tags (pieces may be empty), and the tags'
        numbers in the order in which they stand. `<|image_01|>` has number 1.
    """
    parts = _TAG.split(prompt)
    return parts[::2], [int(number) for number in parts[1::2]]


def check_tags(numbers: list[int], num_images: int) -> None:
    """Raise unless the tags name every picture exactly once.

    Args:
        numbers: Tag numbers of one prompt, in any order.
        num_images: How many pictures were given for that prompt.

    Raises:
        ValueError: If the numbers are not 1..num_images, each once.
    """
    if sorted(numbers) == list(range(1, num_images + 1)):
        return
    expected = ", ".join(image_tag(number) for number in range(1, num_images + 1)) or "no image tag"
    found = ", ".join(image_tag(number) for number in numbers) or "no image tag"
    pictures = "1 picture was" if num_images == 1 else f"{num_images} pictures were"
    raise ValueError(
        f"{pictures} given, so the prompt must contain {expected}, each exactly once; it contains {found}"
    )
