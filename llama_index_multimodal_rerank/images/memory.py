"""What decoding a picture will take, told from its header; refused where that is too much."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .errors import ImageLoadError

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile

MAX_DECODING_BYTES = 1 << 30
"""Memory that decoding one picture may take, beside its encoded bytes: 1 GiB."""

BYTES_PER_PIXEL = {"AVIF": 24, "HEIF": 16, "JPEG2000": 25, "WEBP": 17, "progressive": 12}
"""Memory that decoders take at their peak, in bytes a pixel. All others: 4, the picture itself.

WebP and AVIF hold the picture several times, AVIF planes of 16 bits; progressive JPEG all coefficients.
HEIF took 7.5 with 8 bits a channel; twice that is allowed for.
"""

MAX_SLOW_PIXELS = 1_000_000
"""Largest PPM, PGM or PBM that is decoded number by number: written as text, or with an odd highest value."""

MAX_PADDED_TILE = 4096 * 4096
"""Largest TIFF tile of a smaller picture, in pixels."""

_PADDING = 1024
_TIFF_BITS, _TIFF_TILE_WIDTH, _TIFF_TILE_LENGTH = 258, 322, 323


def check_memory(image: ImageFile, name: str, max_pixels: int) -> None:
    """Refuse an opened, not yet decoded picture whose decoding would take too much memory or time.

    Args:
        image: the picture.
        name: stands for it in errors.
        max_pixels: largest width x height accepted. If that is larger than the default, so is the memory:
            12 bytes a pixel, what a progressive JPEG takes.

    Raises:
        ImageLoadError: more than :data:`MAX_DECODING_BYTES`, :data:`MAX_SLOW_PIXELS` or
            :data:`MAX_PADDED_TILE`.
    """
    limit = max(MAX_DECODING_BYTES, BYTES_PER_PIXEL["progressive"] * max_pixels)
    pixels = image.width * image.height
    kind = "progressive" if image.info.get("progressive") else image.format or ""
    needed = pixels * BYTES_PER_PIXEL.get(kind, 4) + _tile_bytes(image, name)
    if needed > limit:
        raise ImageLoadError(
            name,
            f"decoding its {image.width} x {image.height} pixels ({image.format}) would take {needed} bytes "
            f"of memory, more than the limit of {limit}; save it smaller, or as JPEG or PNG",
        )
    if pixels > MAX_SLOW_PIXELS and any(tile[0] in ("ppm", "ppm_plain") for tile in image.tile):
        raise ImageLoadError(
            name,
            f"it has {pixels} pixels, each a number to be scaled or written as text, which is slow: "
            f"more than the limit of {MAX_SLOW_PIXELS}; save it as PNG",
        )


def _tile_bytes(image: ImageFile, name: str) -> int:
    """Return the size of one tile of a TIFF, which the decoder holds beside the picture."""
    tags = getattr(image, "tag_v2", {})
    width, length = int(tags.get(_TIFF_TILE_WIDTH, 0)), int(tags.get(_TIFF_TILE_LENGTH, 0))
    bits: int = sum(tags.get(_TIFF_BITS, (8,)))
    largest = max(MAX_PADDED_TILE, (image.width + _PADDING) * (image.height + _PADDING))
    if width * length > largest:
        raise ImageLoadError(
            name,
            f"its tiles of {width} x {length} pixels are larger than its {image.width} x {image.height}; "
            "save it as PNG",
        )
    return width * length * bits // 8
