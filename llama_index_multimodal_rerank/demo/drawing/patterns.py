"""The sixteen surfaces of the drawn catalogue, painted at any coordinates."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from . import prints, textures
from .fields import Field
from .looks import SURFACES
from .palettes import COLOUR_VALUES, Palette, choose, palette

__all__ = ["COLOUR_VALUES", "Palette", "paint", "palette"]

_Painter = Callable[[Field, Field, Palette, np.random.Generator], Field]

_PAINTERS: dict[str, _Painter] = {
    "leopard": textures.leopard,
    "zebra": textures.zebra,
    "tiger": textures.tiger,
    "dots": prints.dots,
    "plaid": prints.plaid,
    "floral": prints.floral,
    "waves": prints.waves,
    "stars": prints.stars,
    "hearts": prints.hearts,
    "wood": textures.wood,
    "brick": textures.brick,
    "scales": textures.scales,
    "stripes": prints.stripes,
    "checks": prints.checks,
    "camouflage": textures.camouflage,
    "plain": prints.plain,
}


def paint(surface: str, u: Field, v: Field, palette: Palette, rng: np.random.Generator) -> Field:
    """Paint ``surface`` at the given coordinates.

    About one motif - a rosette, a star, a brick - goes into each unit, and the ground covers most of the
    area. Edges are smoothed over about a pixel, whose size is taken from the coordinates.

    Args:
        surface: one of ``SURFACES``.
        u: (height, width), each pixel's horizontal place; may be turned, scaled and warped.
        v: (height, width), its vertical place.
        palette: the colours.
        rng: where the motifs' differences come from.

    Returns:
        float32, (height, width, 3), red, green and blue in 0..1.

    Raises:
        ValueError: ``surface`` is not one of ``SURFACES``, or ``u`` and ``v`` differ in shape.
    """
    painter = _PAINTERS[choose(surface, SURFACES, "surface")]
    if u.ndim != 2 or u.shape != v.shape:
        raise ValueError(f"u and v must both be (height, width); they are {u.shape} and {v.shape}")
    planes = painter(u.astype(np.float32, copy=False), v.astype(np.float32, copy=False), palette, rng)
    np.clip(planes, 0, 1, out=planes)
    return np.ascontiguousarray(planes.transpose(1, 2, 0))
