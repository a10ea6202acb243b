"""The colours of the drawn catalogue, and which go together on one surface."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .fields import Field
from .looks import COLOURS, SURFACES

COLOUR_VALUES: dict[str, tuple[float, float, float]] = {
    "red": (0.83, 0.11, 0.14),
    "orange": (0.96, 0.50, 0.08),
    "yellow": (0.98, 0.85, 0.20),
    "green": (0.20, 0.62, 0.22),
    "teal": (0.05, 0.61, 0.62),
    "blue": (0.14, 0.35, 0.86),
    "purple": (0.49, 0.20, 0.71),
    "pink": (0.98, 0.52, 0.73),
    "brown": (0.54, 0.31, 0.15),
    "grey": (0.52, 0.53, 0.55),
}
"""Red, green and blue, 0 to 1, of each of ``COLOURS``."""

_ALWAYS_DARK = frozenset({"leopard", "zebra", "tiger", "wood", "scales", "camouflage"})
_ACCENTS: dict[str, tuple[str, ...]] = {
    "red": ("yellow", "orange"),
    "orange": ("yellow", "teal"),
    "yellow": ("red", "blue", "teal"),
    "green": ("yellow", "orange"),
    "teal": ("yellow", "orange"),
    "blue": ("yellow", "orange"),
    "purple": ("yellow", "pink"),
    "pink": ("yellow", "purple"),
    "brown": ("orange", "yellow"),
    "grey": ("yellow", "red"),
}


@dataclass(frozen=True, eq=False)
class Palette:
    """The colours of one surface; each float32, (3,), red, green and blue in 0..1.

    Attributes:
        ground: the named colour, which covers most of the surface.
        ink: what the motif is drawn with; strongly lighter or darker than the ground.
        extra: a third colour that goes with both: flower centres, fine lines.
        shade: a darker tone of the ground: leaves, the fill of rosettes, wood grain.
    """

    ground: Field
    ink: Field
    extra: Field
    shade: Field


def choose(value: str, allowed: tuple[str, ...], what: str) -> str:
    """Give ``value`` back if it is allowed.

    Raises:
        ValueError: it is not; the message names it and the allowed ones.
    """
    if value not in allowed:
        raise ValueError(f"{what} is {value!r}; it must be one of {', '.join(allowed)}")
    return value


def palette(colour: str, surface: str, rng: np.random.Generator) -> Palette:
    """Colours for ``surface`` on a ground of ``colour``, a little different each time.

    Args:
        colour: one of ``COLOURS``.
        surface: one of ``SURFACES``.
        rng: where the differences come from.

    Raises:
        ValueError: ``colour`` or ``surface`` is not one of those.
    """
    choose(colour, COLOURS, "colour")
    choose(surface, SURFACES, "surface")
    ground = _near(colour, rng)
    light = float(ground @ np.array((0.3, 0.59, 0.11), np.float32))
    dark_ink = bool(rng.random() < 0.5)
    if surface in _ALWAYS_DARK or light > 0.62:
        dark_ink = True
    elif surface in ("brick", "floral"):
        dark_ink = False
    if dark_ink:
        ink = ground * rng.uniform(0.06, 0.16) + 0.02
    else:
        ink = np.array((0.97, 0.96, 0.92), np.float32) - rng.uniform(0.0, 0.04)
    shade = ground * rng.uniform(0.42, 0.5)
    if surface in ("camouflage", "scales"):
        extra = ground + (1 - ground) * rng.uniform(0.42, 0.5)
    else:
        extra = _near(_ACCENTS[colour][int(rng.integers(len(_ACCENTS[colour])))], rng)
    return Palette(*(np.clip(each, 0, 1).astype(np.float32) for each in (ground, ink, extra, shade)))


def _near(colour: str, rng: np.random.Generator) -> Field:
    """The named colour, moved by less than half of what separates it from the nearest other name."""
    value = np.array(COLOUR_VALUES[colour])
    others = np.array([other for name, other in COLOUR_VALUES.items() if name != colour])
    limit = 0.3 * np.sqrt(((others - value) ** 2).sum(axis=1)).min()
    step = value * rng.uniform(-0.07, 0.07) + rng.normal(0, 0.018, 3) * (0.5 + value)
    step *= min(1.0, limit / max(float(np.linalg.norm(step)), 1e-6))
    return np.clip(value + step, 0, 1).astype(np.float32)
