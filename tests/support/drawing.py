"""Pictures made for tests: good ones, and one that is a bomb."""

from __future__ import annotations

import struct
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image


def draw_picture(seed: int, size: tuple[int, int] = (64, 48)) -> Image.Image:
    """A picture of smooth coloured blobs, different for every seed."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(small).resize(size, Image.Resampling.BICUBIC)


SHAPES = {
    "square": (500, 500),
    "wide": (660, 220),
    "tall": (220, 660),
    "tiny": (20, 15),
    "one tile": (336, 336),
    "transparent": (300, 180),
    "gray": (257, 311),
    "palette": (421, 173),
}


def draw(shape: str) -> Image.Image:
    """The picture of a shape, in the mode that the name says; else RGB."""
    picture = draw_picture(list(SHAPES).index(shape), SHAPES[shape])
    if shape == "transparent":
        picture.putalpha(draw_picture(99, picture.size).convert("L"))
    return {"gray": lambda: picture.convert("L"), "palette": lambda: picture.quantize(40)}.get(
        shape, lambda: picture
    )()


def draw_catalogue(folder: Path, count: int) -> Path:
    """Fill a folder with small pictures, 000.png and on; return it."""
    for seed in range(count):
        draw_picture(seed, (8, 8)).save(folder / f"{seed:03}.png")
    return folder


def encoded(image: Image.Image, image_format: str = "PNG", **options: object) -> bytes:
    buffer = BytesIO()
    image.save(buffer, format=image_format, **options)
    return buffer.getvalue()


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few bytes that claims, and would inflate to, width x height pixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b""))
        + chunk(b"IEND", b"")
    )
