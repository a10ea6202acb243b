"""Pictures of where the surfaces come from in the world: a leopard's face, a brick wall, a chess board."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image

from . import sources_made as made
from . import sources_nature as nature
from .easel import Easel
from .looks import SURFACES
from .palettes import choose

_SCENES: dict[str, Callable[[Easel], None]] = {
    "leopard": nature.leopard,
    "zebra": nature.zebra,
    "tiger": nature.tiger,
    "dots": nature.dots,
    "plaid": made.plaid,
    "floral": nature.floral,
    "waves": nature.waves,
    "stars": nature.stars,
    "hearts": made.hearts,
    "wood": made.wood,
    "brick": made.brick,
    "scales": nature.scales,
    "stripes": made.stripes,
    "checks": made.checks,
    "camouflage": made.camouflage,
    "plain": made.plain,
}


def draw_source(surface: str, seed: int, size: int = 224) -> Image.Image:
    """Draw where a surface comes from; never a product.

    Args:
        surface: one of ``SURFACES``.
        seed: 0 or more; another seed gives another scale, place, tilt, light, background and colours.
        size: side of the picture in pixels.

    Returns:
        An RGB picture, the same for the same arguments.

    Raises:
        ValueError: ``surface`` is not one of ``SURFACES``, ``seed`` is negative or ``size`` is less than 16.
    """
    choose(surface, SURFACES, "surface")
    if seed < 0:
        raise ValueError(f"seed is {seed}; it must be 0 or more")
    if size < 16:
        raise ValueError(f"size is {size}; it must be at least 16 pixels")
    easel = Easel(size, np.random.default_rng((seed, SURFACES.index(surface))))
    _SCENES[surface](easel)
    return easel.light()
