"""Draws a product of the catalogue: its shape, covered with its surface, before a quiet background."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import TypeAlias

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from .fields import Field
from .looks import COLOURS, KINDS, SURFACES, Look
from .outlines import Array, Colour, Detail, Points, Shape
from .patterns import Palette, paint, palette
from .shapes import SHAPES

Painter: TypeAlias = Callable[[Field, Field, Palette, np.random.Generator], Field]
"""From u, v, colours and random numbers to RGB, (h, w, 3)."""

_FINER = 2  # masks are drawn so many times larger and reduced: Pillow's polygons have hard edges
_COARSER = 4  # shadows are blurred so many times smaller: nobody sees the difference


@dataclass(frozen=True)
class Drawing:
    """A drawn product.

    Attributes:
        picture: RGB, (size, size).
        surface: how much of each pixel shows the product's surface, 0 to 1, (size, size).
        product: how much of each pixel the product covers, its details included, 0 to 1, (size, size).
    """

    picture: Image.Image
    surface: Array
    product: Array


def draw_product(look: Look, seed: int, size: int = 224) -> Image.Image:
    """Draw a product.

    The seed decides pose, size, proportions, light, background and the details of surface and colour, so
    that two seeds give two photographs, as it were, of two products of that look.

    Args:
        look: what to draw.
        seed: 0 or more; the same arguments draw the same picture, byte for byte.
        size: of the picture, in pixels; 16 or more.

    Returns:
        RGB picture of (size, size).

    Raises:
        ValueError: for a negative seed or a size under 16.
    """
    return draw(look, seed, size).picture


def draw(look: Look, seed: int, size: int = 224) -> Drawing:
    """As ``draw_product``, with the product's whereabouts."""
    if seed < 0:
        raise ValueError(f"seed is {seed}; it must be 0 or more")
    if size < 16:
        raise ValueError(f"size is {size} pixels; it must be 16 or more")
    place = KINDS.index(look.kind), SURFACES.index(look.surface), COLOURS.index(look.colour)
    rng = np.random.default_rng([*place, seed])
    shape = SHAPES[look.kind](rng)
    colours = palette(look.colour, look.surface, rng)
    return draw_shape(shape, partial(paint, look.surface), colours, rng, size)


def draw_shape(
    shape: Shape, painted: Painter, colours: Palette, rng: np.random.Generator, size: int
) -> Drawing:
    """Draw any shape with any surface.

    Args:
        shape: what to draw.
        painted: paints its surface, as ``patterns.paint`` does; given u, v, ``colours`` and ``rng``.
        colours: of the surface and of details that follow it.
        rng: decides pose, light and background.
        size: of the picture, in pixels.
    """
    pose = _pose(shape, size, rng)
    light_x, light_y = float(rng.choice([-1.0, 1.0])) * rng.uniform(0.4, 0.9), -rng.uniform(0.4, 0.9)

    behind = _details(shape.back, pose, colours, size)
    body = _mask(shape.body, pose, size)
    before = _details(shape.front, pose, colours, size)
    covered = 1 - (1 - behind[..., 3]) * (1 - body) * (1 - before[..., 3])

    scene = _background(size, rng)
    shadow = _blurred(covered, size, size / 28, pose.linear @ (-0.07 * light_x, -0.07 * light_y))
    scene *= (1 - rng.uniform(0.3, 0.45) * shadow)[..., None]
    _lay(scene, behind[..., :3], behind[..., 3])

    rows, columns = _box(body)
    x, y = pose.product_coordinates(rows, columns)
    relief = shape.relief(x, y)
    u, v = _pattern_coordinates(relief.u, relief.v, shape, rng)
    cloth = painted(u, v, colours, rng)
    # The blurred mask falls off towards the outline, where a body turns away from the viewer.
    rounding = 0.8 + 0.2 * np.minimum(1.0, 1.25 * _blurred(body, size, size / 50)[rows, columns])
    shade = relief.shade * rounding * (1 + 0.24 * (relief.slope_x * light_x + relief.slope_y * light_y))
    _lay(scene[rows, columns], np.clip(cloth * shade[..., None], 0, 1), body[rows, columns])
    on_details = np.ones((size, size, 1), dtype=np.float32)
    on_details[rows, columns, 0] = 0.35 + 0.65 * np.clip(shade, 0, 1.1)
    _lay(scene, before[..., :3] * on_details, before[..., 3])

    scene += np.float32(0.008) * rng.standard_normal((size, size, 1), dtype=np.float32)
    picture = Image.fromarray((np.clip(scene, 0, 1) * 255 + 0.5).astype(np.uint8))
    return Drawing(picture, body * (1 - before[..., 3]), covered)


@dataclass(frozen=True)
class _Pose:
    """Where a product lies: a homography from product coordinates to pixels."""

    matrix: Points
    linear: Points

    @property
    def scale(self) -> float:
        """Pixels to one product unit, about."""
        return float(np.sqrt(abs(np.linalg.det(self.linear))))

    def pixels(self, points: Points) -> Points:
        """(n, 2) product coordinates -> (n, 2) pixels."""
        moved = points @ self.matrix[:, :2].T + self.matrix[:, 2]
        return np.asarray(moved[:, :2] / moved[:, 2:])

    def product_coordinates(self, rows: slice, columns: slice) -> tuple[Array, Array]:
        """X and y of each pixel's middle, (h, w) each."""
        back = np.linalg.inv(self.matrix).astype(np.float32)
        across = np.arange(columns.start, columns.stop, dtype=np.float32)[None, :] + np.float32(0.5)
        down = np.arange(rows.start, rows.stop, dtype=np.float32)[:, None] + np.float32(0.5)
        x, y, w = (row[0] * across + row[1] * down + row[2] for row in back)
        return x / w, y / w


def _pose(shape: Shape, size: int, rng: np.random.Generator) -> _Pose:
    tilt = np.radians(np.clip(rng.normal(0, 7), -15, 15))
    cos, sin = np.cos(tilt), np.sin(tilt)
    mirror = rng.choice([-1.0, 1.0])
    stretch = rng.uniform(-0.04, 0.04)
    form = np.array([[mirror * (1 + stretch), rng.uniform(-0.09, 0.09)], [0.0, 1 - stretch]])
    matrix = np.eye(3)
    matrix[:2, :2] = np.array([[cos, -sin], [sin, cos]]) @ form
    matrix[2, :2] = rng.uniform(-0.06, 0.06, 2)

    extent = _Pose(matrix, matrix[:2, :2]).pixels(_everything(shape))
    low, high = extent.min(axis=0), extent.max(axis=0)
    scale = size * rng.uniform(0.76, 0.95) / (high - low).max()
    slack = (size - scale * (high - low)) / 2
    shift = (
        size / 2
        - scale * (low + high) / 2
        + slack * rng.uniform(-0.5, 0.5, 2) * np.minimum(1, 0.2 * size / slack)
    )
    fit = np.array([[scale, 0, shift[0]], [0, scale, shift[1]], [0, 0, 1]])
    return _Pose(fit @ matrix, scale * matrix[:2, :2])


def _everything(shape: Shape) -> Points:
    """Points that enclose the product, strokes with half their width, (n, 2)."""
    points = list(shape.body)
    for detail in (*shape.back, *shape.front):
        half = (detail.width or 0) / 2
        points += [detail.points - half, detail.points + half]
    return np.concatenate(points)


def _pattern_coordinates(u: Array, v: Array, shape: Shape, rng: np.random.Generator) -> tuple[Array, Array]:
    """Motif units: 4 to 7 across the product."""
    body = np.concatenate(shape.body)
    width, height = body.max(axis=0) - body.min(axis=0)
    motifs = rng.uniform(4, 7) / np.sqrt(width * height)
    turn = np.radians(rng.uniform(-25, 25))
    cos, sin = np.float32(motifs * np.cos(turn)), np.float32(motifs * np.sin(turn))
    start = rng.uniform(0, 64, 2).astype(np.float32)
    u, v = u.astype(np.float32, copy=False), v.astype(np.float32, copy=False)
    return cos * u - sin * v + start[0], sin * u + cos * v + start[1]


def _rgb(colour: Colour, colours: Palette) -> tuple[float, ...]:
    if colour == "trim":
        return tuple(0.58 * float(c) for c in colours.ground)
    if isinstance(colour, str):
        return tuple(float(c) for c in getattr(colours, colour))
    return colour


def _details(details: Sequence[Detail], pose: _Pose, colours: Palette, size: int) -> Array:
    """RGB and how much of each pixel they cover, (size, size, 4)."""
    if not details:
        return np.zeros((size, size, 4), dtype=np.float32)
    image = Image.new("RGBA", (size * _FINER, size * _FINER))
    pen = ImageDraw.Draw(image)
    for detail in details:
        points = pose.pixels(detail.points) * _FINER
        rgb = _rgb(detail.colour, colours)
        fill = tuple(round(255 * c) for c in (*rgb, detail.alpha))
        corners = [(float(x), float(y)) for x, y in points]
        if detail.width is None:
            pen.polygon(corners, fill=fill)
        else:
            width = max(1, round(detail.width * pose.scale * _FINER))
            pen.line(corners, fill=fill, width=width, joint="curve")
            for corner in (corners[0], corners[-1]):
                pen.circle(corner, width / 2 - 0.5, fill=fill)
    return np.asarray(image.reduce(_FINER), dtype=np.float32) / np.float32(255)


def _mask(outlines: Sequence[Points], pose: _Pose, size: int) -> Array:
    """How much of each pixel they cover, (size, size)."""
    image = Image.new("L", (size * _FINER, size * _FINER))
    pen = ImageDraw.Draw(image)
    for outline in outlines:
        pen.polygon([(float(x), float(y)) for x, y in pose.pixels(outline) * _FINER], fill=255)
    return np.asarray(image.reduce(_FINER), dtype=np.float32) / np.float32(255)


def _box(mask: Array) -> tuple[slice, slice]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def _lay(scene: Array, colour: Array, alpha: Array) -> None:
    """Lay colour over the scene, in place."""
    if alpha.any():
        box = _box(alpha)
        part = scene[box]
        part += (colour[box] - part) * alpha[box][..., None]


def _blurred(mask: Array, size: int, radius: float, shift: Points | None = None) -> Array:
    """The mask blurred by ``radius`` pixels and moved by ``shift`` pixels, (size, size)."""
    small = Image.fromarray((mask * 255).astype(np.uint8)).reduce(_COARSER)
    if shift is not None:
        across, down = shift / _COARSER
        small = small.transform(
            small.size, Image.Transform.AFFINE, (1, 0, -across, 0, 1, -down), Image.Resampling.BILINEAR
        )
    small = small.filter(ImageFilter.GaussianBlur(radius / _COARSER))
    return np.asarray(small.resize((size, size), Image.Resampling.BILINEAR), dtype=np.float32) / np.float32(
        255
    )


@lru_cache(maxsize=4)
def _ramp(size: int) -> Array:
    """From -1 to 1."""
    return np.linspace(-1, 1, size, dtype=np.float32)


def _tone(rng: np.random.Generator) -> Array:
    """A pale, hardly coloured tone."""
    bright = rng.uniform(0.78, 0.97)
    return (bright * (1 - rng.uniform(0, 0.1, 3))).astype(np.float32)


def _background(size: int, rng: np.random.Generator) -> Array:
    """Wall, or wall and table, in soft gradients, (size, size, 3)."""
    ramp = _ramp(size)
    wall = _tone(rng)
    lean, fall = rng.uniform(-0.07, 0.07, 2)
    light = (1 + np.float32(lean) * ramp[None, :] + np.float32(fall) * ramp[:, None]).astype(np.float32)
    scene = wall * light[..., None]
    if rng.random() < 0.4:
        edge = rng.uniform(0.1, 0.7) + rng.uniform(-0.06, 0.06) * ramp[None, :]
        table = np.clip((ramp[:, None] - edge) * size / 4 + 0.5, 0, 1).astype(np.float32)
        _lay(scene, np.broadcast_to(_tone(rng) * rng.uniform(0.82, 0.97), scene.shape), table)
    return scene
