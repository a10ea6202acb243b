"""A canvas on which scenes are composed of smooth-edged shapes and painted textures."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from .palettes import Palette
from .patterns import paint

Colour = tuple[float, float, float]
Point = tuple[float, float]


def to_image(picture: NDArray[np.floating[Any]]) -> Image.Image:
    """(height, width, 3) in 0..1 as an RGB picture."""
    return Image.fromarray((np.clip(picture, 0, 1) * 255 + 0.5).astype(np.uint8))


def tones(ground: Colour, ink: Colour, extra: Colour | None = None, shade: Colour | None = None) -> Palette:
    """A palette of given colours; what is left out is made from the ground."""
    dark = (ground[0] * 0.55, ground[1] * 0.5, ground[2] * 0.45)
    chosen = (ground, ink, extra or ground, shade or dark)
    return Palette(*(np.array(colour, np.float32) for colour in chosen))


class Easel:
    """A square picture whose sides are one unit long, x to the right and y downwards.

    Args:
        size: side in pixels.
        rng: where all that varies comes from.
    """

    def __init__(self, size: int, rng: np.random.Generator):
        self.size, self.rng = size, rng
        self.image = Image.new("RGB", (size, size))
        self._middle, self._scale, self._tilt = (0.0, 0.0), 1.0, 0.0
        steps = (np.arange(size, dtype=np.float32) + 0.5) / size
        self.x, self.y = (np.ascontiguousarray(each) for each in np.meshgrid(steps, steps))

    def vary(self, colour: Colour, by: float = 0.05) -> Colour:
        """A colour near this one, chosen at random."""
        light = self.rng.uniform(1 - by, 1 + by)
        red, green, blue = (
            min(1.0, max(0.0, part * light + self.rng.uniform(-by, by) / 2)) for part in colour
        )
        return red, green, blue

    def frame(self, x: float, y: float, scale: float = 1.0, tilt: float = 0.0) -> None:
        """Measure the shapes to come from (x, y), ``scale`` times as large and turned by ``tilt``."""
        self._middle, self._scale, self._tilt = (x, y), scale, tilt

    def gradient(self, top: Colour, bottom: Colour) -> None:
        """Cover all with a blend from top to bottom."""
        share = self.y[:, :1, None]
        column = np.array(top, np.float32) * (1 - share) + np.array(bottom, np.float32) * share
        self.image.paste(to_image(column).resize((self.size, self.size)))

    def texture(self, surface: str, palette: Palette, units: float, turn: float = 0.0) -> Image.Image:
        """``surface`` all over the picture, ``units`` motifs across, turned with the frame."""
        cos, sin = math.cos(self._tilt + turn) * units, math.sin(self._tilt + turn) * units
        shift_u, shift_v = self.rng.uniform(0, 20, 2).tolist()
        u = self.x * cos + self.y * sin + shift_u
        v = self.y * cos - self.x * sin + shift_v
        return to_image(paint(surface, u, v, palette, self.rng))

    def shape(self, filling: Colour | Image.Image, points: Iterable[Point]) -> None:
        """Fill the polygon through ``points`` with a colour or with a texture."""
        side = 2 * self.size
        cos, sin = math.cos(self._tilt) * self._scale, math.sin(self._tilt) * self._scale
        corners = [
            (side * (self._middle[0] + x * cos - y * sin), side * (self._middle[1] + x * sin + y * cos))
            for x, y in points
        ]
        # only the part of the picture that the shape reaches, in whole pixels
        left = max(0, math.floor(min(x for x, _ in corners) / 2) - 1)
        top = max(0, math.floor(min(y for _, y in corners) / 2) - 1)
        right = min(self.size, math.ceil(max(x for x, _ in corners) / 2) + 1)
        bottom = min(self.size, math.ceil(max(y for _, y in corners) / 2) + 1)
        if left >= right or top >= bottom:
            return
        mask = Image.new("L", (2 * (right - left), 2 * (bottom - top)))
        ImageDraw.Draw(mask).polygon([(x - 2 * left, y - 2 * top) for x, y in corners], fill=255)
        mask = mask.reduce(2)
        box = (left, top, right, bottom)
        if isinstance(filling, Image.Image):
            self.image.paste(filling.crop(box), box, mask)
        else:
            red, green, blue = (round(255 * part) for part in filling)
            self.image.paste((red, green, blue), box, mask)

    def ellipse(
        self, filling: Colour | Image.Image, x: float, y: float, wide: float, tall: float, turn: float = 0.0
    ) -> None:
        """Fill an ellipse of these half axes."""
        angles = np.linspace(0, 2 * math.pi, 40, endpoint=False)
        along, across = wide * np.cos(angles), tall * np.sin(angles)
        cos, sin = math.cos(turn), math.sin(turn)
        xs, ys = x + along * cos - across * sin, y + along * sin + across * cos
        self.shape(filling, zip(xs.tolist(), ys.tolist(), strict=True))

    def box(
        self, filling: Colour | Image.Image, left: float, top: float, right: float, bottom: float
    ) -> None:
        """Fill an upright rectangle (upright in the frame)."""
        self.shape(filling, ((left, top), (right, top), (right, bottom), (left, bottom)))

    def line(self, colour: Colour, start: Point, end: Point, thick: float) -> None:
        """A straight stroke."""
        dx, dy = end[0] - start[0], end[1] - start[1]
        scale = thick / 2 / max(math.hypot(dx, dy), 1e-6)
        ox, oy = -dy * scale, dx * scale
        self.shape(
            colour,
            (
                (start[0] + ox, start[1] + oy),
                (end[0] + ox, end[1] + oy),
                (end[0] - ox, end[1] - oy),
                (start[0] - ox, start[1] - oy),
            ),
        )

    def light(self) -> Image.Image:
        """The finished picture, under light that falls from one side."""
        angle, strength = self.rng.uniform(0, 2 * math.pi), self.rng.uniform(0.05, 0.2)
        slope = (self.x - 0.5) * math.cos(angle) + (self.y - 0.5) * math.sin(angle)
        lit = np.asarray(self.image, np.float32) * (1 / 255)
        return to_image(lit * (self.rng.uniform(0.95, 1.05) + slope * strength)[..., None])
