"""Surfaces that are printed or woven: dots, stars, hearts, flowers, waves, stripes, checks, plaid, plain."""

from __future__ import annotations

import math

import numpy as np

from .fields import (
    Field,
    cover,
    fill,
    fold_five,
    larger,
    lay,
    length,
    noise,
    pixel_size,
    scatter,
)
from .palettes import Palette


def dots(u: Field, v: Field, palette: Palette, rng: np.random.Generator) -> Field:
    """Polka dots in staggered rows."""
    picture = fill(palette.ground, u)
    _, _, distance, _ = scatter(u, v, rng)
    lay(picture, palette.ink, cover(rng.uniform(0.27, 0.33) - distance, pixel_size(u, v)))
    return picture


def stars(u: Field, v: Field, palette: Palette, rng: np.random.Generator) -> Field:
    """Five-pointed stars, each a little turned."""
    picture = fill(palette.ground, u)
    x, y, _, _ = scatter(u, v, rng, jitter=0.03, tilt=0.35)
    x, y = fold_five(x, -y)
    tip, notch = 0.47, 0.21
    notch_x, notch_y = notch * math.sin(math.pi / 5), notch * math.cos(math.pi / 5)
    edge_x, edge_y = notch_x, notch_y - tip
    inside = (x * edge_y - (y - tip) * edge_x) * (1 / math.hypot(edge_x, edge_y))
    lay(picture, palette.ink, cover(inside, pixel_size(u, v)))
    return picture


def hearts(u: Field, v: Field, palette: Palette, rng: np.random.Generator) -> Field:
    """Hearts: a square that stands on its corner, with a half disc on either upper side."""
    picture = fill(palette.ground, u)
    x, y, _, _ = scatter(u, v, rng, jitter=0.03, tilt=0.25)
    x, y = np.abs(x), 0.38 - y
    side = 0.46
    along, across = (x + y) * math.sqrt(0.5), (y - x) * math.sqrt(0.5)
    square = side / 2 - larger(np.abs(along - side / 2), np.abs(across - side / 2))
    disc = side / 2 - length(along - side, across - side / 2)
    lay(picture, palette.ink, cover(larger(square, disc), pixel_size(u, v)))
    return picture


def floral(u: Field, v: Field, palette: Palette, rng: np.random.Generator) -> Field:
    """Flowers of five petals round a contrasting centre, with two leaves each."""
    picture, pixel = fill(palette.ground, u), pixel_size(u, v)
    x, y, distance, _ = scatter(u, v, rng, jitter=0.05, tilt=0.5)
    # a leaf is what two large discs share
    leaf_x, leaf_y = np.abs(x) - 0.27, y - 0.36
    along, across = leaf_x * 0.8 + leaf_y * 0.6, np.abs(leaf_y * 0.8 - leaf_x * 0.6)
    lay(picture, palette.shade, cover(0.25 - length(along, across + 0.16), pixel))
    petal_x, petal_y = fold_five(x, -y)
    petal = length(petal_x * 1.1, petal_y - 0.245)
    lay(picture, palette.ink, cover(larger(0.152 - petal, 0.15 - distance), pixel))
    lay(picture, palette.extra, cover(0.125 - distance, pixel))
    return picture


def waves(u: Field, v: Field, palette: Palette, rng: np.random.Generator) -> Field:
    """Rows of smooth, deep waves, a bold line and a fine one in turn."""
    picture, pixel = fill(palette.ground, u), pixel_size(u, v)
    turns = u * (2 * math.pi / rng.uniform(1.25, 1.5)) + rng.uniform(0, 2 * math.pi)
    height, period = 0.27, 1.0
    steep = np.cos(turns) * (2 * math.pi / 1.4 * height)
    row = v + np.sin(turns) * height
    off = np.abs(row - period * np.round(row * (1 / period)))
    # measured across the line, so that slopes are not thinner
    even: Field = np.float32(1) / length(steep, np.ones_like(steep))
    lay(picture, palette.ink, cover(0.118 - off * even, pixel))
    lay(picture, palette.extra, cover(0.035 - (period / 2 - off) * even, pixel))
    return picture


def stripes(u: Field, v: Field, palette: Palette, rng: np.random.Generator) -> Field:
    """Straight, even stripes."""
    picture, period = fill(palette.ground, u), rng.uniform(0.85, 1.0)
    place = u * (1 / period) + rng.uniform(0, 1)
    off = np.abs(place - np.round(place)) * period
    lay(picture, palette.ink, cover(0.205 * period - off, pixel_size(u, v)))
    return picture


def checks(u: Field, v: Field, palette: Palette, rng: np.random.Generator) -> Field:
    """A chess board; the inked squares are a trifle smaller, so that the ground keeps the upper hand."""
    picture = fill(palette.ground, u)
    side, half = 0.62, 0.275
    x, y = u * (1 / side) + rng.uniform(0, 1), v * (1 / side) + rng.uniform(0, 1)
    column, row = np.floor(x), np.floor(y)
    off = larger(np.abs(x - column - 0.5), np.abs(y - row - 0.5)) * side
    both = (column + row) * 0.5
    odd = both != np.floor(both)
    lay(picture, palette.ink, cover(half - off, pixel_size(u, v)) * odd)
    return picture


def plaid(u: Field, v: Field, palette: Palette, rng: np.random.Generator) -> Field:
    """Tartan: broad and narrow bands that cross and show through one another."""
    picture, pixel = fill(palette.ground, u), pixel_size(u, v)
    period = rng.uniform(1.7, 1.85)
    for along in (u, v):
        place = along * (1 / period) + rng.uniform(0, 1)
        off = np.abs(place - np.round(place)) * period
        lay(picture, palette.ink, cover(0.12 - off, pixel) * 0.62)
        lay(picture, palette.ink, cover(0.018 - np.abs(off - 0.26), pixel) * 0.75)
        lay(picture, palette.extra, cover(off - (period / 2 - 0.045), pixel) * 0.85)
    return picture


def plain(u: Field, v: Field, palette: Palette, rng: np.random.Generator) -> Field:
    """Nothing but the cloth itself: a faint unevenness and a fainter grain."""
    picture = fill(palette.ground, u)
    grain = noise(u * 0.8, v * 0.8, rng) * 0.018 + rng.standard_normal(u.shape, dtype=np.float32) * 0.012
    picture *= 1 + grain
    return picture
