"""Surfaces that grow or are built: leopard, zebra, tiger, wood, brick, scales, camouflage."""

from __future__ import annotations

import math

import numpy as np

from .fields import (
    Field,
    cell,
    cover,
    fill,
    larger,
    lay,
    length,
    noise,
    pick,
    pixel_size,
    scatter,
    smaller,
    smoothstep,
    table,
)
from .palettes import Palette


def leopard(u: Field, v: Field, palette: Palette, rng: np.random.Generator) -> Field:
    """Rosettes: broken, uneven dark rings round a darker fill."""
    picture, pixel = fill(palette.ground, u), pixel_size(u, v)
    u, v = u + noise(u * 1.6, v * 1.6, rng) * 0.08, v + noise(u * 1.6, v * 1.6, rng) * 0.08
    x, y, distance, number = scatter(u, v, rng, jitter=0.12, tilt=math.pi)
    stretched = length(x, y * pick(table(rng, 0.95, 1.25), number))
    outer = pick(table(rng, 0.36, 0.44), number)
    cos = x / larger(distance, 1e-3)
    gap = smoothstep(0.55, 0.8, cos * (4 * cos * cos - 3))  # the cosine of three times the angle: three gaps
    lay(picture, palette.shade, cover(outer - 0.08 - stretched, pixel) * 0.85)
    ring = smaller(outer - stretched, stretched - (outer - 0.17))
    lay(picture, palette.ink, cover(ring - gap * 0.2, pixel))
    return picture


def zebra(u: Field, v: Field, palette: Palette, rng: np.random.Generator) -> Field:
    """Long, wavy bands of uneven width that all run one way and fork here and there."""
    picture, pixel = fill(palette.ground, u), pixel_size(u, v)
    phase = (v * rng.uniform(1.05, 1.2) + noise(u * 0.4, v * 0.4, rng) * 0.42) * (2 * math.pi)
    # A band forks where the phase turns once round a point; the product of unit turns adds them all up.
    turn = np.ones(u.shape, np.complex64)
    place = u + 1j * v
    low_u, high_u, low_v, high_v = float(u.min()), float(u.max()), float(v.min()), float(v.max())
    for number in range(4):
        point = complex(rng.uniform(low_u, high_u), rng.uniform(low_v, high_v))
        away = place - np.complex64(point)
        turn *= away if number % 2 else np.conj(away)
    size = larger(length(turn.real, turn.imag), 1e-6)
    wave = (np.cos(phase) * turn.real - np.sin(phase) * turn.imag) / size
    width = noise(u * 0.7 + 9, v * 0.9, rng) * 0.4
    lay(picture, palette.ink, cover((wave + width - 0.16) * (1 / 7), pixel))
    return picture


def tiger(u: Field, v: Field, palette: Palette, rng: np.random.Generator) -> Field:
    """Short, bent dark stripes that taper to a point at both ends, with gaps between."""
    picture, pixel = fill(palette.ground, u), pixel_size(u, v)
    v = v + noise(u * 1.1, v * 1.1, rng) * 0.14
    across, along = 1 / 0.62, 1 / 1.75
    x, y, _, number = scatter(v * along, u * across, rng, jitter=0.1)
    x, y = x / along, y / across
    reach, bend = pick(table(rng, 0.5, 0.88), number), pick(table(rng, -0.2, 0.2), number)
    ends = x / reach
    thick = (1 - ends * ends) * pick(table(rng, 0.12, 0.19), number)
    lay(picture, palette.ink, cover((thick - np.abs(y + bend * (ends * ends - 0.4))) * 0.85, pixel))
    return picture


def wood(u: Field, v: Field, palette: Palette, rng: np.random.Generator) -> Field:
    """Planks with joints, long grain lines, and knots round which the grain flows."""
    picture, pixel = fill(palette.ground, u), pixel_size(u, v)
    width, span = 1.5, 5.0
    row = np.floor(v * (1 / width) + 0.37)
    zero = np.zeros_like(u)
    ends = u * (1 / span) + pick(table(rng), cell(zero, row))
    plank = np.floor(ends)
    number = cell(plank, row)
    y = (v * (1 / width) + 0.37 - row) * width
    x = (ends - plank) * span
    picture *= pick(table(rng, 0.9, 1.1), number)
    dx, dy = x - pick(table(rng, 0.8, 4.2), number), y - pick(table(rng, 0.5, 1.0), number)
    size = pick(table(rng, 0.15, 0.26), number)
    # level lines of the flow round a cylinder outside the knot, rings inside
    round_knot = length(dx * math.sqrt(0.4), dy)
    square = round_knot * round_knot
    flow = dy * (1 - size * size / larger(square, size * size))
    drift = noise(u * 0.45, v * 1.3, rng) * 0.16
    lines = np.where(square > size * size, flow + drift, round_knot) * (1 / 0.27)
    off = np.abs(lines - np.round(lines)) * 0.27
    strength = 0.55 + noise(u * 0.9, v * 4, rng) * 0.3
    lay(picture, palette.shade, cover(0.04 - off, pixel) * strength)
    lay(picture, palette.ink, cover(size * 0.5 - round_knot, pixel) * 0.85)
    joint = smaller(smaller(y, width - y), smaller(x, span - x))
    lay(picture, palette.ink, cover(0.05 - joint, pixel))
    return picture


def brick(u: Field, v: Field, palette: Palette, rng: np.random.Generator) -> Field:
    """A wall in running bond: bricks that differ in tone, and mortar."""
    picture, pixel = fill(palette.ground, u), pixel_size(u, v)
    width, height = 1.15, 0.55
    y = v * (1 / height)
    row = np.floor(y)
    x = u * (1 / width) + 0.5 * (row - 2 * np.floor(row * 0.5))
    column = np.floor(x)
    picture *= pick(table(rng, 0.84, 1.14), cell(column, row)) + noise(u * 3, v * 3, rng) * 0.05
    inside = smaller(
        0.5 * width - np.abs(x - column - 0.5) * width, 0.5 * height - np.abs(y - row - 0.5) * height
    )
    lay(picture, palette.ink, cover(0.05 - inside, pixel))
    return picture


def scales(u: Field, v: Field, palette: Palette, rng: np.random.Generator) -> Field:
    """Rounded scales, each row lying over the next."""
    picture, pixel = fill(palette.ground, u), pixel_size(u, v)
    tall = 1.25
    y = v * (1 / (0.5 * tall))
    row = np.floor(y)
    lower = (y - row) * 0.5
    x = u + 0.5 * (row - 2 * np.floor(row * 0.5))
    column = np.floor(x)
    x = x - column - 0.5
    upper_scale = length(x, lower)
    on_top = upper_scale < 0.5
    # what the row above leaves free belongs to the next row, whose middle lies half a unit aside
    tone = table(rng, 0.88, 1.12)
    beside = np.floor(u + 0.5 * (row + 1 - 2 * np.floor((row + 1) * 0.5)))
    picture *= np.where(on_top, pick(tone, cell(column, row)), pick(tone, cell(beside, row + 1)))
    depth = np.where(on_top, lower + 0.5, lower)
    lay(picture, palette.shade, (1 - smoothstep(0.05, 0.62, depth)) * 0.55)
    shine = length(x, (lower - 0.24) * 1.3)
    lay(picture, palette.extra, cover(0.1 - shine, pixel) * on_top * 0.85)
    edge = 0.065 - np.abs(upper_scale - 0.475)
    lay(picture, palette.ink, cover(edge, pixel))
    return picture


def camouflage(u: Field, v: Field, palette: Palette, rng: np.random.Generator) -> Field:
    """Large, rounded blotches in shades of the ground, a pale and two dark ones."""
    picture, pixel = fill(palette.ground, u), pixel_size(u, v)
    u, v = u + noise(u * 1.1, v * 1.1, rng) * 0.2, v + noise(u * 1.1, v * 1.1, rng) * 0.2
    for colour, level in ((palette.extra, 0.68), (palette.shade, 0.54), (palette.ink, 0.64)):
        blotch = noise(u * 0.62, v * 0.8, rng)
        lay(picture, colour, cover((blotch - level) * 0.6, pixel))
    return picture
