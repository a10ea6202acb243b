"""Files that take minutes or gigabytes to decode, or are long to open, though they are small."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image

from .drawing import draw_picture, encoded

BASE = draw_picture(0, (16, 12))


def _png(extra: bytes) -> bytes:
    data = encoded(BASE)
    return data[:33] + extra + data[33:]


def _chunks(kind: bytes, size: int) -> bytes:
    return _png((struct.pack(">I", 0) + kind + struct.pack(">I", zlib.crc32(kind))) * (size // 12))


def _jpeg(extra: bytes) -> bytes:
    data = encoded(BASE, "JPEG")
    return data[:2] + extra + data[2:]


def _segments(kind: bytes, body: bytes, size: int) -> bytes:
    return _jpeg((kind + struct.pack(">H", 2 + len(body)) + body) * (size // (4 + len(body))))


def scans(side: int, count: int, padding: bytes = b"") -> bytes:
    """A progressive JPEG whose last scan comes again and again."""
    data = encoded(Image.new("RGB", (side, side)), "JPEG", progressive=True)
    last = data[data.rindex(b"\xff\xda") : -2]
    return data[:-2] + (padding + last) * count + data[-2:]


def _gif(extra: bytes) -> bytes:
    data = encoded(BASE.convert("P"), "GIF")
    start = 13 + 3 * 2 ** ((data[10] & 7) + 1)
    return data[:start] + extra + data[start:]


def tiff(entries: Sequence[tuple[int, int, int, int]], data: bytes = b"") -> bytes:
    """A TIFF of one directory (tag, type, count, value or offset), and data at 500."""
    head = b"II*\0\x08\0\0\0" + struct.pack("<H", len(entries))
    head += b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return (head + b"\0\0\0\0").ljust(500, b"\0") + data


def tiff_of_one_tile(side: int, samples: int, picture: int = 16) -> bytes:
    data = zlib.compress(b"\0" * 1000)
    photometric = 2 if samples == 3 else 1
    return tiff(
        [
            *((256, 4, 1, picture), (257, 4, 1, picture), (258, 3, 1, 8), (259, 3, 1, 8)),
            *((262, 3, 1, photometric), (277, 3, 1, samples), (322, 4, 1, side), (323, 4, 1, side)),
            *((324, 4, 1, 500), (325, 4, 1, len(data))),
        ],
        data,
    )


def _tiff_table(tag: int, size: int) -> bytes:
    entries = {
        256: (4, 1, 9000),
        257: (4, 1, 9000),
        258: (3, 1, 8),
        259: (3, 1, 1),
        262: (3, 1, 1),
        277: (3, 1, 1),
        322: (3, 1, 1),
        323: (3, 1, 1),
        324: (3, 1, 1),
        325: (4, 1, 1),
    }
    entries[tag] = (3, size // 2, 500)
    return tiff([(key, *value) for key, value in sorted(entries.items())], b"\0" * size)


def huge(image_format: str) -> bytes:
    """A picture of one colour in 9,400 x 9,400 pixels: 88 million, under the limit on pixels."""
    return encoded(Image.new("RGB", (9400, 9400), (200, 30, 30)), image_format)


def huge_webp() -> bytes:
    """The header of a lossless WebP of 9,400 x 9,400 pixels; there is no more of it."""
    bits = 9399 | 9399 << 14
    body = b"VP8L" + struct.pack("<I", 20) + b"\x2f" + struct.pack("<I", bits) + b"\0" * 15
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body


def huge_avif() -> bytes:
    """A small AVIF that claims 9,400 x 9,400 pixels."""
    data = encoded(BASE, "AVIF")
    place = data.index(b"ispe") + 8
    return data[:place] + struct.pack(">II", 9400, 9400) + data[place + 8 :]


def _plain_ppm(size: int) -> bytes:
    side = int((size // 6) ** 0.5)
    return b"P3 %d %d 255\n" % (side, side) + b"1 " * (side * side * 3)


def _odd_ppm(size: int) -> bytes:
    side = int(size**0.5)
    return b"P5 %d %d 77\n" % (side, side) + b"\7" * (side * side)


BOMBS: dict[str, Callable[[int], bytes]] = {
    "PNG, empty chunks": lambda size: _chunks(b"prVt", size),
    "PNG, empty IDATs": lambda size: _chunks(b"IDAT", size),
    "JPEG, empty segments": lambda size: _segments(b"\xff\xe9", b"", size),
    "JPEG, comments": lambda size: _segments(b"\xff\xfe", b"", size),
    "JPEG, fill bytes": lambda size: _jpeg(b"\xff" * size),
    "JPEG, escaped bytes": lambda size: _jpeg(b"\xff\0" * (size // 2)),
    "JPEG, restart markers": lambda size: _jpeg(b"\xff\xd0" * (size // 2)),
    "JPEG, junk": lambda size: _jpeg(b"x" * size),
    "JPEG, colour profiles": lambda size: _segments(b"\xff\xe2", b"ICC_PROFILE\0\1\1", size),
    "JPEG, EXIF blocks": lambda size: _segments(b"\xff\xe1", b"Exif\0\0" + b"\0" * 60, size),
    "JPEG, 1,000 scans": lambda size: scans(3000, 990),
    "JPEG, scans of 89 million pixels": lambda size: scans(9000, 12),
    "JPEG, segments between scans": lambda size: scans(16, 1, b"\xff\xe9\0\2" * (size // 4)),
    "GIF, comment of single bytes": lambda size: _gif(b"!\xfe" + b"\1c" * (size // 2) + b"\0"),
    "GIF, comments": lambda size: _gif(b"!\xfe\1c\0" * (size // 5)),
    "GIF, junk": lambda size: _gif(b"\0" * size),
    "TIFF, a tile of 26,000": lambda size: tiff_of_one_tile(26_000, 3),
    "TIFF, a grey tile of 26,000": lambda size: tiff_of_one_tile(26_000, 1),
    "TIFF, tile offsets": lambda size: _tiff_table(324, size),
    "TIFF, bits per sample": lambda size: _tiff_table(258, size),
    "PPM, a long comment": lambda size: b"P6 #" + b"c" * size + b"\n4 4 255\n" + b"abc" * 16,
    "PPM, comments": lambda size: b"P6 " + b"#\n" * (size // 2) + b"4 4 255\n" + b"abc" * 16,
    "PPM, as text": _plain_ppm,
    "PPM, odd highest value": _odd_ppm,
    "WebP of 88 million pixels": lambda size: huge_webp(),
    "AVIF of 88 million pixels": lambda size: huge_avif(),
    "JPEG 2000": lambda size: encoded(Image.new("L", (2000, 2000)), "JPEG2000")[:200],
}
"""By name; each takes the size in bytes that it should have, where that is open."""


def noise(side: int, mode: str) -> Image.Image:
    """A picture that compresses badly."""
    small = np.random.default_rng(0).integers(0, 256, (side // 8, side // 8, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((side, side)).convert(mode)
