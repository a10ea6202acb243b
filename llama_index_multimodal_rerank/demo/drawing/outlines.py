"""What a drawn product is made of: outlines, details on them, and the form that bends its surface.

Product coordinates: x to the right and y down, both from about -1 to 1, whatever the picture's size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import comb
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[np.floating[Any]]
Points: TypeAlias = npt.NDArray[np.float64]
"""An outline, (n, 2)."""

Colour: TypeAlias = tuple[float, float, float] | Literal["ground", "trim", "ink"]
"""RGB from 0 to 1, or one that follows the product: ``trim`` is a darker ground."""

WHITE: Colour = (0.96, 0.95, 0.92)
DARK: Colour = (0.13, 0.13, 0.15)
METAL: Colour = (0.78, 0.78, 0.8)


@dataclass(frozen=True)
class Detail:
    """A part that does not carry the surface.

    Attributes:
        points: its outline, or its middle line where ``width`` is given, (n, 2).
        colour: what fills it.
        width: of the stroke; None fills the outline.
        alpha: 1 hides what lies beneath.
    """

    points: Points
    colour: Colour
    width: float | None = None
    alpha: float = 1.0


@dataclass(frozen=True)
class Relief:
    """How the surface lies at each point; all of it (h, w).

    Attributes:
        u: where in the flat pattern the point comes from, in product coordinates.
        v: as ``u``, downwards.
        slope_x: how far the surface turns to the right, -1 to 1.
        slope_y: how far it turns down, -1 to 1.
        shade: the light that reaches it, 1 unhindered.
    """

    u: Array
    v: Array
    slope_x: Array
    slope_y: Array
    shade: Array


@dataclass(frozen=True)
class Shape:
    """One product, without its surface and colour.

    Attributes:
        body: outlines that carry the surface.
        relief: of the body, from x and y of each point, (h, w) each.
        back: details behind the body, first drawn first.
        front: details on the body, first drawn first.
    """

    body: tuple[Points, ...]
    relief: Callable[[Array, Array], Relief]
    back: tuple[Detail, ...] = ()
    front: tuple[Detail, ...] = ()


def path(*parts: Points | Sequence[tuple[float, float]]) -> Points:
    """Join points and curves into one outline, (n, 2)."""
    return np.concatenate([np.asarray(part, dtype=np.float64) for part in parts])


def bezier(*control: tuple[float, float], steps: int = 14) -> Points:
    """Bézier curve through the first and the last control point, (steps + 1, 2)."""
    degree = len(control) - 1
    t = np.linspace(0.0, 1.0, steps + 1)[:, None]
    weights = [comb(degree, i) * t**i * (1 - t) ** (degree - i) for i in range(degree + 1)]
    return np.asarray(sum(w * np.asarray(c) for w, c in zip(weights, control, strict=True)))


def ellipse(x: float, y: float, rx: float, ry: float, start: float = 0.0, stop: float = 360.0) -> Points:
    """Ellipse or arc of one, in degrees from the right by way of below, (37, 2)."""
    angle = np.radians(np.linspace(start, stop, 37))
    return np.stack([x + rx * np.cos(angle), y + ry * np.sin(angle)], axis=1)


def rounded(left: float, top: float, right: float, bottom: float, radius: float) -> Points:
    """Rectangle with round corners."""
    r = radius
    return path(
        ellipse(right - r, top + r, r, r, -90, 0),
        ellipse(right - r, bottom - r, r, r, 0, 90),
        ellipse(left + r, bottom - r, r, r, 90, 180),
        ellipse(left + r, top + r, r, r, 180, 270),
    )


def both_sides(right: Points) -> Points:
    """Outline of which ``right`` is the right half, from the top down."""
    return path(right, mirrored(right)[::-1])


def mirrored(points: Points) -> Points:
    """The same on the other side of x = 0."""
    return np.asarray(points * np.array([-1.0, 1.0]))


def closed(points: Points) -> Points:
    """The outline with its first point repeated, to be stroked all the way round."""
    return path(points, points[:1])


def flat(x: Array, y: Array) -> Relief:
    """A board."""
    none = np.zeros_like(x)
    return Relief(x, y, none, none, np.ones_like(x))


def soft_step(x: Any, start: float, stop: float) -> Any:
    """0 up to ``start``, 1 from ``stop`` on, smooth between."""
    t = np.clip((x - start) / (stop - start), 0.0, 1.0)
    return t * t * (3 - 2 * t)
