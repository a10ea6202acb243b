"""Things that are no product, and products without a surface: what teaches to tell the two apart.

A tower that sees products alone learns each surface on each kind by itself and fails on the pairs held out.
So it is shown surfaces on outlines that it has never met, and kinds in patterns that have no name. No
held-out pair is drawn: things have no kind, and nameless patterns are none of ``SURFACES``.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from PIL import Image

from llama_index_multimodal_rerank.demo.drawing.fields import (
    Field,
    cover,
    fill,
    lay,
    noise,
    pixel_size,
    scatter,
)
from llama_index_multimodal_rerank.demo.drawing.looks import COLOURS, KINDS, SURFACES
from llama_index_multimodal_rerank.demo.drawing.outlines import (
    DARK,
    METAL,
    WHITE,
    Array,
    Colour,
    Detail,
    Points,
    Relief,
    Shape,
    bezier,
    closed,
    ellipse,
    flat,
    rounded,
)
from llama_index_multimodal_rerank.demo.drawing.palettes import Palette, palette
from llama_index_multimodal_rerank.demo.drawing.patterns import paint
from llama_index_multimodal_rerank.demo.drawing.products import draw_shape
from llama_index_multimodal_rerank.demo.drawing.shapes import SHAPES

_DETAIL_COLOURS: tuple[Colour, ...] = (WHITE, DARK, METAL, "trim", "ground", "ink")


def draw_thing(surface: str, colour: str, seed: int, size: int = 224) -> Image.Image:
    """Draw a surface on a body of no kind.

    Args:
        surface: one of ``SURFACES``.
        colour: one of ``COLOURS``.
        seed: decides everything else.
        size: of the picture, in pixels.
    """
    rng = np.random.default_rng([SURFACES.index(surface), COLOURS.index(colour), seed, 1])
    colours = palette(colour, surface, rng)
    return draw_shape(_thing(rng), partial(paint, surface), colours, rng, size).picture


def draw_nameless(kind: str, colour: str, seed: int, size: int = 224) -> Image.Image:
    """Draw a product in a pattern that is none of ``SURFACES``.

    Args:
        kind: one of ``KINDS``.
        colour: one of ``COLOURS``.
        seed: decides everything else.
        size: of the picture, in pixels.
    """
    rng = np.random.default_rng([KINDS.index(kind), COLOURS.index(colour), seed, 2])
    shape = SHAPES[kind](rng)
    colours = palette(colour, SURFACES[int(rng.integers(len(SURFACES)))], rng)
    return draw_shape(shape, _nameless, colours, rng, size).picture


# -- things -----------------------------------------------------------------------------------------


def _thing(rng: np.random.Generator) -> Shape:
    """A body of one to three outlines, bent somehow, with up to five details."""
    body = tuple(_outline(rng, 1.0 if first else rng.uniform(0.3, 0.6)) for first in (True, *_some(rng, 3)))
    front = [_detail(rng, inside=True) for _ in _some(rng, 5)]
    if rng.random() < 0.4:
        front.append(Detail(closed(body[0]), "trim", rng.uniform(0.02, 0.06)))
    back = tuple(_detail(rng, inside=False) for _ in _some(rng, 4))
    return Shape(body, _RELIEFS[int(rng.integers(len(_RELIEFS)))](rng), back, tuple(front))


def _some(rng: np.random.Generator, limit: int) -> range:
    return range(int(rng.integers(limit)))


def _outline(rng: np.random.Generator, size: float) -> Points:
    x, y = rng.uniform(-0.5, 0.5, 2) * (1.4 - size)
    wide, high = size * rng.uniform(0.45, 1.0, 2)
    way = int(rng.integers(4))
    if way == 0:
        return ellipse(x, y, wide, high)
    if way == 1:
        return rounded(x - wide, y - high, x + wide, y + high, min(wide, high) * rng.uniform(0.02, 0.9))
    corners = int(rng.integers(3, 9)) if way == 2 else 48
    angle = (np.arange(corners) + rng.uniform(-0.3, 0.3, corners) * (way == 2)) * 2 * np.pi / corners
    radius = np.ones(corners)
    for wave in range(2, 6):
        radius += rng.normal(0, 0.3 / wave) * np.cos(wave * angle + rng.uniform(0, 2 * np.pi))
    radius = np.clip(radius, 0.4, 1.4)
    return np.stack([x + wide * radius * np.cos(angle), y + high * radius * np.sin(angle)], axis=1)


def _detail(rng: np.random.Generator, *, inside: bool) -> Detail:
    colour = _DETAIL_COLOURS[int(rng.integers(len(_DETAIL_COLOURS)))]
    reach = 0.7 if inside else 1.1
    if rng.random() < 0.5:
        ends = rng.uniform(-reach, reach, (4, 2))
        line = bezier(*((float(x), float(y)) for x, y in ends), steps=20)
        return Detail(line, colour, rng.uniform(0.02, 0.05 if inside else 0.16), rng.uniform(0.4, 1.0))
    return Detail(_outline(rng, rng.uniform(0.06, 0.25)) + rng.uniform(-reach, reach, 2) * 0.7, colour)


def _board(rng: np.random.Generator) -> Callable[[Array, Array], Relief]:
    return flat


def _roll(rng: np.random.Generator) -> Callable[[Array, Array], Relief]:
    """A cylinder that stands or lies."""
    lies, radius = bool(rng.random() < 0.4), rng.uniform(0.9, 1.4)

    def relief(x: Array, y: Array) -> Relief:
        across = np.clip((y if lies else x) / radius, -1.0, 1.0)
        bent, none = radius * (0.5 * across + 0.5 * np.arcsin(across)), np.zeros_like(x)
        shade = 1.03 - 0.24 * across**4
        return Relief(x, bent, none, across, shade) if lies else Relief(bent, y, across, none, shade)

    return relief


def _pillow(rng: np.random.Generator) -> Callable[[Array, Array], Relief]:
    """A bulge in the middle."""
    height = rng.uniform(0.1, 0.35)

    def relief(x: Array, y: Array) -> Relief:
        square = np.clip(x * x + y * y, 0, 2)
        grow = 1 + height * square
        slope_x, slope_y = np.clip(1.6 * height * x, -1, 1), np.clip(1.6 * height * y, -1, 1)
        return Relief(x * grow, y * grow, slope_x, slope_y, 1.04 - 0.1 * square)

    return relief


def _folds(rng: np.random.Generator) -> Callable[[Array, Array], Relief]:
    """Cloth in folds, which run any way and may spread from a point."""
    turn, number, first = rng.uniform(0, np.pi), rng.uniform(4, 14), rng.uniform(0, 2 * np.pi)
    spread = rng.uniform(0, 0.5)
    cos, sin = np.cos(turn), np.sin(turn)

    def relief(x: Array, y: Array) -> Relief:
        across = (cos * x + sin * y) / (1 + spread * (cos * y - sin * x))
        wave = 0.5 * np.sin(number * across + first)
        return Relief(x + 0.02 * wave, y, cos * wave, sin * wave, 1 - 0.12 * wave)

    return relief


_RELIEFS = (_board, _roll, _pillow, _folds)


# -- patterns without a name ------------------------------------------------------------------------


def _nameless(u: Field, v: Field, colours: Palette, rng: np.random.Generator) -> Field:
    """One or two layers of noise, rings, arcs, crosses or triangles, in colours of the palette."""
    u, v = u.astype(np.float32, copy=False), v.astype(np.float32, copy=False)
    picture = fill(colours.ground, u)
    pixel = pixel_size(u, v)
    inks = [colours.ink, colours.extra, colours.shade]
    rng.shuffle(inks)
    for ink in inks[: 1 + int(rng.random() < 0.5)]:
        layer = _LAYERS[int(rng.integers(len(_LAYERS)))]
        lay(picture, ink, cover(layer(u, v, rng), pixel))
    np.clip(picture, 0, 1, out=picture)
    return np.ascontiguousarray(picture.transpose(1, 2, 0))


def _specks(u: Field, v: Field, rng: np.random.Generator) -> Field:
    scale = np.float32(rng.uniform(0.5, 3))
    return noise(u * scale, v * scale, rng) * (0.3 / scale) - np.float32(rng.uniform(0.08, 0.2) / scale)


def _rings(u: Field, v: Field, rng: np.random.Generator) -> Field:
    _, _, distance, _ = scatter(u, v, rng, jitter=0.1)
    return np.float32(rng.uniform(0.04, 0.1)) - np.abs(distance - np.float32(rng.uniform(0.2, 0.38)))


def _crosses(u: Field, v: Field, rng: np.random.Generator) -> Field:
    x, y, _, _ = scatter(u, v, rng, jitter=0.05, tilt=0.8)
    arm, half = np.float32(rng.uniform(0.25, 0.4)), np.float32(rng.uniform(0.05, 0.12))
    x, y = np.abs(x), np.abs(y)
    return np.minimum(half - np.minimum(x, y), arm - np.maximum(x, y))


def _triangles(u: Field, v: Field, rng: np.random.Generator) -> Field:
    x, y, _, _ = scatter(u, v, rng, jitter=0.05, tilt=0.8)
    size = np.float32(rng.uniform(0.14, 0.24))
    return size - np.maximum(np.abs(x) * np.float32(0.87) + y * np.float32(0.5), -y)


def _arcs(u: Field, v: Field, rng: np.random.Generator) -> Field:
    _, y, distance, _ = scatter(u, v, rng, tilt=1.5)
    ring = np.float32(rng.uniform(0.05, 0.1)) - np.abs(distance - np.float32(rng.uniform(0.25, 0.4)))
    return np.minimum(ring, y + np.float32(0.1))


_LAYERS = (_specks, _rings, _crosses, _triangles, _arcs)
