"""Which grid of tiles the HD transform gives a picture, and how many tokens that costs.

Source: the model card and preprocessor of `microsoft/Phi-3-vision-128k-instruct`; the same numbers hold for
`microsoft/Phi-3.5-vision-instruct`.
"""

from __future__ import annotations

import math
from typing import NamedTuple

TILE = 336
"""Side of a tile in pixels, which is the input size of the vision tower."""

TOKENS_PER_SIDE = 12
"""Feature vectors along one side of a tile: 24 patches of 14 pixels, merged two by two."""


class HDSize(NamedTuple):
    """Sizes of one picture on its way through the HD transform, in pixels.

    Attributes:
        resized_width: Width after resizing.
        resized_height: Height after resizing.
        padded_width: Width after padding, a multiple of 336.
        padded_height: Height after padding, a multiple of 336.
    """

    resized_width: int
    resized_height: int
    padded_width: int
    padded_height: int


def check_num_crops(num_crops: object) -> int:
    """Return `num_crops` if it is a whole number of at least one, else raise.

    Raises:
        ValueError: If it is anything else.
    """
    if isinstance(num_crops, bool) or not isinstance(num_crops, int) or num_crops < 1:
        raise ValueError(
            f"num_crops is {num_crops!r}; it must be a whole number of at least 1 "
            "(16 is the default of Phi-3-vision, 4 is advised for several pictures in one prompt)"
        )
    return num_crops


def hd_size(width: int, height: int, num_crops: int) -> HDSize:
    """Return the sizes the HD transform gives a picture.

    The longer side becomes `336 * k` with the largest whole `k` whose grid of tiles has at most `num_crops`
    tiles; the shorter side follows the aspect ratio and is then padded to whole tiles. Small pictures are
    enlarged too.

    Args:
        width: Width of the picture in pixels, at least 1.
        height: Height of the picture in pixels, at least 1.
        num_crops: Greatest number of tiles, at least 1.

    Returns:
        The sizes after resizing and after padding.

    Raises:
        ValueError: If `num_crops` or a side is below 1, or the picture is so thin that its short side would
            vanish.
    """
    check_num_crops(num_crops)
    if width < 1 or height < 1:
        raise ValueError(
            f"the picture is {width}x{height} pixels (width x height); both sides must be at least 1"
        )
    long_side, short_side = max(width, height), min(width, height)
    # Both divisions are float64 on purpose: exact integers differ by one pixel for some sizes.
    ratio = long_side / short_side
    tiles = 1
    while (tiles + 1) * math.ceil((tiles + 1) / ratio) <= num_crops:
        tiles += 1
    resized_long = tiles * TILE
    resized_short = int(resized_long / ratio)
    if resized_short < 1:
        raise ValueError(
            f"the picture is {width}x{height} pixels (width x height): with num_crops={num_crops} its short "
            f"side would shrink to nothing, which happens above an aspect ratio of {resized_long}:1. Crop or "
            "pad the picture first, or raise num_crops"
        )
    padded_short = math.ceil(resized_short / TILE) * TILE
    if width >= height:
        return HDSize(resized_long, resized_short, resized_long, padded_short)
    return HDSize(resized_short, resized_long, padded_short, resized_long)


def tile_grid(height: int, width: int) -> tuple[int, int]:
    """Return the number of tile rows and tile columns of a padded picture.

    Args:
        height: Padded height in pixels, a positive multiple of 336.
        width: Padded width in pixels, a positive multiple of 336.

    Raises:
        ValueError: If a side is not a positive multiple of 336.
    """
    if height < TILE or width < TILE or height % TILE or width % TILE:
        raise ValueError(
            f"image_sizes holds {(height, width)}; it must hold the padded height and width in pixels, "
            f"both positive multiples of {TILE}, as the image processor returns them"
        )
    return height // TILE, width // TILE


def num_image_tokens(height: int, width: int) -> int:
    """Return how many tokens a padded picture takes in the prompt.

    One vector per 28x28 pixels of the tiles and of the 336x336 global view, one separator at the end of every
    line of vectors, and one separator between tiles and global view.

    Args:
        height: Padded height in pixels, a positive multiple of 336.
        width: Padded width in pixels, a positive multiple of 336.
    """
    rows, columns = tile_grid(height, width)
    tiles = TOKENS_PER_SIDE * rows * (TOKENS_PER_SIDE * columns + 1)
    global_view = TOKENS_PER_SIDE * (TOKENS_PER_SIDE + 1)
    return tiles + 1 + global_view
