"""What the drawn surfaces are made of: smooth edges, layers of colour, noise, scattered motifs.

A field is one float32 value per pixel, (height, width). Colours are kept plane by plane, (3, height, width),
while layers are put on one another, as numpy is several times as fast on long rows.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.float32]
Cells = NDArray[np.int32]

_SIDE = 64  # tables of random values repeat after this many cells, far beyond any picture's edge


def pixel_size(u: Field, v: Field) -> float:
    """Length of a pixel's side in the units of ``u`` and ``v``, the typical one where they are warped."""
    if min(u.shape) < 2:
        return 0.02
    du_x, du_y = np.diff(u[::8], axis=1).ravel()[::4], np.diff(u[:, ::8], axis=0).ravel()[::4]
    dv_x, dv_y = np.diff(v[::8], axis=1).ravel()[::4], np.diff(v[:, ::8], axis=0).ravel()[::4]
    along_x, along_y = float(np.median(np.hypot(du_x, dv_x))), float(np.median(np.hypot(du_y, dv_y)))
    return max(math.sqrt(along_x * along_y), 1e-4)


def cover(inside: NDArray[np.floating[Any]], pixel: float) -> Field:
    """How much of each pixel a shape covers, 0 to 1, from the distance to its edge (positive inside)."""
    share = inside * (1 / (1.2 * pixel)) + 0.5
    np.clip(share, 0, 1, out=share)
    return np.asarray(share, np.float32)


def smoothstep(low: float, high: float, value: Field) -> Field:
    """0 below ``low``, 1 above ``high``, smooth between."""
    t = (value - low) * (1 / (high - low))
    np.clip(t, 0, 1, out=t)
    eased: Field = t * t * (3 - 2 * t)
    return eased


def fill(colour: Field, like: Field) -> Field:
    """A layer of one colour, (3, height, width)."""
    return np.repeat(colour.reshape(3, 1), like.size, axis=1).reshape(3, *like.shape)


def lay(picture: Field, colour: Field, share: Field) -> None:
    """Lay ``colour`` over ``picture`` in place, as opaque as ``share`` says."""
    for plane, value in zip(picture, colour, strict=True):
        plane += (float(value) - plane) * share


def table(rng: np.random.Generator, low: float = 0.0, high: float = 1.0) -> Field:
    """One random value for each cell number that ``scatter``, ``cell`` or ``noise`` gives."""
    return rng.random(_SIDE * _SIDE, dtype=np.float32) * (high - low) + low


def cell(column: Field, row: Field) -> Cells:
    """Number of the cell in whole-numbered ``column`` and ``row``, an index into a ``table``."""
    return (row.astype(np.int32) & (_SIDE - 1)) * _SIDE + (column.astype(np.int32) & (_SIDE - 1))


def pick(values: Field, cells: Cells) -> Field:
    """The ``values`` of a ``table`` for each pixel's cell."""
    return values.take(cells, mode="wrap")  # unlike "raise", needs no second pass over the cells


def length(x: Field, y: NDArray[np.floating[Any]]) -> Field:
    """Euclidean length; ``np.hypot`` guards against overflow at ten times the price."""
    return np.asarray(np.sqrt(x * x + y * y), np.float32)


def larger(one: Field, other: Field | float) -> Field:
    """The larger of the two in each pixel."""
    return np.asarray(np.maximum(one, other), np.float32)


def smaller(one: Field, other: Field | float) -> Field:
    """The smaller of the two in each pixel."""
    return np.asarray(np.minimum(one, other), np.float32)


def noise(u: Field, v: Field, rng: np.random.Generator) -> Field:
    """Smooth noise, mostly within -1..1, whose hills are about one unit wide: waves that run every way."""
    total = np.zeros_like(u)
    first = rng.uniform(0, math.pi)
    for number in range(5):
        angle = first + number * math.pi / 5 + rng.uniform(-0.25, 0.25)
        speed = rng.uniform(2.2, 4.4)
        wave = u * (speed * math.cos(angle))
        wave += v * (speed * math.sin(angle)) + rng.uniform(0, 2 * math.pi)
        total += np.sin(wave, out=wave)
    total *= 0.42
    return total


def scatter(
    u: Field, v: Field, rng: np.random.Generator, *, jitter: float = 0.0, tilt: float = 0.0
) -> tuple[Field, Field, Field, Cells]:
    """Place one motif per unit in staggered rows and find the one nearest to each pixel.

    Args:
        u: horizontal coordinates.
        v: vertical coordinates.
        rng: where the motifs' places come from.
        jitter: how far at most a motif lies from its place in the row.
        tilt: how far at most it is turned, in radians.

    Returns:
        x, y from the motif's centre in its own turned frame, the distance, and the motif's cell number.
    """
    shift_x, shift_y = table(rng, -jitter, jitter), table(rng, -jitter, jitter)
    x, y, nearest, number = u, v, np.full_like(u, np.inf), np.zeros(u.shape, np.int32)
    # A motif that reaches less than a unit from its place lies in one of the two rows and columns around.
    # Motifs that hardly leave their place end at its side, so that one column is enough.
    columns = 1 if jitter <= 0.05 else 2
    first_row = np.floor(v - 0.5)
    for step_y in (0, 1):
        row = first_row + step_y
        in_row = u + 0.5 * (row - 2 * np.floor(row * 0.5))
        dy = v - row - 0.5
        first_column = np.floor(in_row - 0.5 * (columns - 1))
        for step_x in range(columns):
            column = first_column + step_x
            index = cell(column, row)
            to_x, to_y = in_row - column - 0.5, dy
            if jitter:
                to_x, to_y = to_x - pick(shift_x, index), dy - pick(shift_y, index)
            square = to_x * to_x + to_y * to_y
            closer = square < nearest
            # with masks as random as these, arithmetic is several times as fast as np.where
            number += (index - number) * closer
            x = x + (to_x - x) * closer
            y = y + (to_y - y) * closer
            nearest = np.minimum(nearest, square)
    if tilt:
        turn = table(rng, -tilt, tilt)
        cos, sin = pick(np.cos(turn), number), pick(np.sin(turn), number)
        x, y = x * cos - y * sin, x * sin + y * cos
    return x, y, np.asarray(np.sqrt(nearest), np.float32), number


def fold_five(x: Field, y: Field) -> tuple[Field, Field]:
    """Fold the plane into the tenth next to the upward axis, so that one arm stands for five."""
    x = np.abs(x)
    for side in (1, -1):
        normal_x, normal_y = side * math.cos(math.pi / 5), -math.sin(math.pi / 5)
        beyond = larger(x * normal_x + y * normal_y, 0) * 2
        x, y = x - beyond * normal_x, y - beyond * normal_y
    return np.abs(x), y
