"""Reading a picture's pixels, safely when several threads hold the same picture."""

from __future__ import annotations

import threading

from PIL import Image

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
"""Mean of the red, green and blue channel in 0..1 that CLIP models subtract."""

CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
"""Deviation of the channels that CLIP models divide by."""

# Pillow reads a file when the pixels are first asked for, which is not safe when two threads do it to one
# image. An image always takes the same lock, different images mostly different ones.
_LOADING = [threading.Lock() for _ in range(64)]


def load_pixels(image: Image.Image) -> None:
    """Have Pillow read the pixels of a picture, if it has not yet.

    Raises:
        ValueError: the picture is empty.
    """
    with _LOADING[hash(id(image)) // 16 % len(_LOADING)]:
        image.load()
    width, height = image.size
    if not width or not height:
        raise ValueError(f"The image is empty: {width} x {height} pixels.")
