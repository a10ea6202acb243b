"""Where patterns come from in nature: animals, the meadow, the sea, the night sky."""

from __future__ import annotations

import math

from .easel import Colour, Easel, tones
from .palettes import Palette

_BLACK: Colour = (0.07, 0.05, 0.05)
_WHITE: Colour = (0.97, 0.95, 0.9)


def _savanna(easel: Easel) -> None:
    """Sky over dry grass."""
    easel.gradient(easel.vary((0.62, 0.8, 0.92)), easel.vary((0.95, 0.9, 0.75)))
    horizon = easel.rng.uniform(0.45, 0.65)
    easel.frame(0, 0)
    easel.box(easel.vary((0.66, 0.7, 0.36), 0.12), 0, horizon, 1, 1)
    for _ in range(3):
        x = easel.rng.uniform(0, 1)
        easel.ellipse(easel.vary((0.4, 0.5, 0.25)), x, horizon, easel.rng.uniform(0.08, 0.2), 0.035)


def _cat(easel: Easel, surface: str, palette: Palette, muzzle: Colour, units: float) -> None:
    """A big cat's face over its shoulders."""
    rng, ground = easel.rng, palette.ground.tolist()
    coat: Colour = (ground[0], ground[1], ground[2])
    _savanna(easel)
    easel.frame(
        rng.uniform(0.45, 0.55), rng.uniform(0.46, 0.52), rng.uniform(0.88, 1.05), rng.uniform(-0.14, 0.14)
    )
    fur = easel.texture(surface, palette, units, math.pi / 2 if surface == "tiger" else 0.0)
    easel.ellipse(fur, 0, 0.52, 0.5, 0.34)
    for side in (-1, 1):
        easel.ellipse(_BLACK, side * 0.27, -0.28, 0.13, 0.14)
        easel.ellipse(coat, side * 0.27, -0.27, 0.105, 0.115)
        easel.ellipse((0.85, 0.62, 0.55), side * 0.265, -0.25, 0.065, 0.075)
    easel.ellipse(_BLACK, 0, 0.0, 0.405, 0.385)
    easel.ellipse(fur, 0, 0.0, 0.395, 0.375)
    iris = easel.vary(((0.95, 0.8, 0.2), (0.6, 0.8, 0.3))[int(rng.integers(2))])
    for side in (-1, 1):
        easel.ellipse(muzzle, side * 0.165, -0.035, 0.1, 0.075, side * -0.3)
        easel.ellipse(_BLACK, side * 0.165, -0.035, 0.075, 0.054, side * -0.3)
        easel.ellipse(iris, side * 0.165, -0.035, 0.06, 0.045)
        easel.ellipse(_BLACK, side * 0.16, -0.035, 0.022, 0.036)
        easel.ellipse(_WHITE, side * 0.16 + 0.015, -0.052, 0.01, 0.01)
        easel.ellipse(muzzle, side * 0.085, 0.205, 0.12, 0.095)
    easel.ellipse(muzzle, 0, 0.28, 0.09, 0.075)
    easel.shape(coat, ((-0.06, -0.1), (0.06, -0.1), (0.075, 0.12), (-0.075, 0.12)))
    easel.shape((0.75, 0.4, 0.4), ((-0.08, 0.11), (0.08, 0.11), (0.035, 0.175), (-0.035, 0.175)))
    easel.line(_BLACK, (0, 0.16), (0, 0.235), 0.014)
    for side in (-1, 1):
        easel.line(_BLACK, (0, 0.235), (side * 0.075, 0.262), 0.014)
        for drop in (0.0, 0.04):
            easel.line(_WHITE, (side * 0.13, 0.2 + drop), (side * 0.42, 0.17 + 2.2 * drop), 0.007)


def leopard(easel: Easel) -> None:
    """A leopard's face."""
    coat = easel.vary((0.9, 0.68, 0.33))
    _cat(easel, "leopard", tones(coat, _BLACK, shade=(0.66, 0.42, 0.17)), _WHITE, easel.rng.uniform(8, 10))


def tiger(easel: Easel) -> None:
    """A tiger's face."""
    coat = easel.vary((0.94, 0.55, 0.15))
    _cat(easel, "tiger", tones(coat, _BLACK), _WHITE, easel.rng.uniform(6.5, 8))


def zebra(easel: Easel) -> None:
    """A zebra's head, neck and flank from the side."""
    rng = easel.rng
    _savanna(easel)
    easel.frame(0.5, 0.5, rng.uniform(0.92, 1.08), rng.uniform(-0.1, 0.1))
    palette, units = tones(_WHITE, _BLACK), rng.uniform(7, 9)
    flank = easel.texture("zebra", palette, units, rng.uniform(1.3, 1.6))
    neck = easel.texture("zebra", palette, units, rng.uniform(0.5, 0.8))
    mane = ((-0.16, -0.42), (-0.05, -0.44), (0.2, -0.22), (0.42, 0.12), (0.3, 0.12))
    easel.ellipse(flank, 0.33, 0.45, 0.5, 0.38)
    easel.shape(_BLACK, mane)
    easel.shape(
        neck,
        ((-0.16, -0.36), (-0.04, -0.38), (0.14, -0.2), (0.4, 0.14), (0.3, 0.5), (-0.14, 0.5), (-0.1, 0.0)),
    )
    easel.shape(_BLACK, ((-0.08, -0.35), (-0.06, -0.5), (0.01, -0.46), (0.02, -0.33)))
    easel.shape(
        neck,
        (
            (-0.13, -0.4),
            (0.0, -0.36),
            (0.04, -0.2),
            (-0.03, -0.06),
            (-0.28, 0.2),
            (-0.4, 0.15),
            (-0.38, 0.02),
        ),
    )
    easel.shape((0.22, 0.17, 0.16), ((-0.35, -0.02), (-0.23, 0.14), (-0.28, 0.21), (-0.4, 0.2), (-0.43, 0.1)))
    easel.ellipse(_BLACK, -0.36, 0.1, 0.018, 0.012)
    easel.ellipse(_WHITE, -0.12, -0.24, 0.045, 0.035)
    easel.ellipse(_BLACK, -0.12, -0.24, 0.03, 0.027)


def dots(easel: Easel) -> None:
    """A ladybird on a leaf."""
    rng = easel.rng
    easel.gradient(easel.vary((0.75, 0.88, 0.6), 0.1), easel.vary((0.5, 0.75, 0.4), 0.1))
    easel.frame(0.5, 0.5, 1.0, rng.uniform(-0.8, 0.8))
    easel.ellipse(easel.vary((0.25, 0.58, 0.22)), 0, 0.05, 0.75, 0.4)
    vein = easel.vary((0.5, 0.76, 0.4))
    easel.line(vein, (-0.75, 0.05), (0.75, 0.05), 0.02)
    for step in range(-3, 4):
        for side in (-1, 1):
            easel.line(vein, (step * 0.2, 0.05), (step * 0.2 + 0.15, 0.05 + side * 0.33), 0.01)
    easel.frame(
        rng.uniform(0.46, 0.54), rng.uniform(0.5, 0.56), rng.uniform(0.88, 1.08), rng.uniform(-0.6, 0.6)
    )
    for side in (-1, 1):
        easel.line(_BLACK, (side * 0.05, -0.35), (side * 0.15, -0.48), 0.016)
        for leg in (-0.15, 0.05, 0.22):
            easel.line(_BLACK, (side * 0.25, leg), (side * 0.45, leg + 0.08), 0.026)
    easel.ellipse(_BLACK, 0, -0.27, 0.2, 0.15)
    for side in (-1, 1):
        easel.ellipse(_WHITE, side * 0.11, -0.29, 0.045, 0.04)
    wing = easel.vary(((0.86, 0.13, 0.1), (0.92, 0.4, 0.08), (0.95, 0.75, 0.12))[int(rng.integers(3))])
    easel.ellipse((wing[0] * 0.5, wing[1] * 0.4, wing[2] * 0.4), 0, 0.08, 0.365, 0.355)
    easel.ellipse(easel.texture("dots", tones(wing, _BLACK), rng.uniform(5, 6.5)), 0, 0.075, 0.35, 0.34)
    easel.line(_BLACK, (0, -0.26), (0, 0.41), 0.018)


def floral(easel: Easel) -> None:
    """A meadow full of flowers."""
    rng = easel.rng
    easel.gradient(easel.vary((0.45, 0.7, 0.95)), (0.9, 0.95, 1.0))
    easel.frame(0, 0)
    easel.ellipse((1.0, 0.92, 0.55), rng.uniform(0.1, 0.9), rng.uniform(0.05, 0.15), 0.07, 0.07)
    easel.ellipse(easel.vary((0.45, 0.65, 0.42)), rng.uniform(0, 1), 0.42, 0.6, rng.uniform(0.12, 0.22))
    petals = easel.vary(((0.97, 0.95, 0.92), (0.98, 0.6, 0.75), (0.9, 0.3, 0.4))[int(rng.integers(3))])
    grass = easel.vary((0.36, 0.66, 0.25))
    palette = tones(grass, petals, (0.98, 0.8, 0.15), (0.15, 0.4, 0.14))
    meadow = easel.texture("floral", palette, rng.uniform(5.5, 7), rng.uniform(-0.15, 0.15))
    far = rng.uniform(0.24, 0.34)
    easel.shape(
        meadow, ((0, far + 0.03), (0.3, far), (0.7, far + rng.uniform(-0.02, 0.05)), (1, far), (1, 1), (0, 1))
    )
    for _ in range(24):
        x = rng.uniform(0, 1)
        easel.line((0.2, 0.5, 0.17), (x, 1.0), (x + rng.uniform(-0.04, 0.04), rng.uniform(0.86, 0.94)), 0.012)


def waves(easel: Easel) -> None:
    """The sea, row upon row of waves, and a sailing boat."""
    rng = easel.rng
    easel.gradient(easel.vary((0.55, 0.8, 0.95), 0.1), easel.vary((0.98, 0.92, 0.8)))
    easel.frame(0, 0)
    easel.ellipse((1.0, 0.85, 0.45), rng.uniform(0.1, 0.9), rng.uniform(0.1, 0.2), 0.08, 0.08)
    horizon, x = rng.uniform(0.28, 0.36), rng.uniform(0.25, 0.75)
    water = easel.vary((0.1, 0.42, 0.68), 0.12)
    easel.shape(_WHITE, ((x, horizon - 0.25), (x + 0.16, horizon - 0.04), (x, horizon - 0.04)))
    easel.shape(
        (0.9, 0.3, 0.2), ((x - 0.015, horizon - 0.22), (x - 0.1, horizon - 0.04), (x - 0.015, horizon - 0.04))
    )
    easel.shape(
        (0.5, 0.28, 0.15),
        (
            (x - 0.14, horizon - 0.025),
            (x + 0.18, horizon - 0.025),
            (x + 0.1, horizon + 0.05),
            (x - 0.08, horizon + 0.05),
        ),
    )
    palette = tones(water, _WHITE, (0.5, 0.8, 0.92))
    sea = easel.texture("waves", palette, rng.uniform(5.5, 7), rng.uniform(-0.08, 0.08))
    crest = [(k / 40, horizon + 0.015 * math.sin(k * 0.9)) for k in range(41)]
    easel.shape(sea, (*crest, (1, 1), (0, 1)))


def stars(easel: Easel) -> None:
    """The night sky over hills, a house with lit windows and the moon."""
    rng = easel.rng
    night = easel.vary((0.09, 0.12, 0.34), 0.1)
    easel.frame(0, 0)
    gold = easel.vary((0.98, 0.88, 0.5))
    easel.box(
        easel.texture("stars", tones(night, gold), rng.uniform(5.5, 7), rng.uniform(-0.3, 0.3)), 0, 0, 1, 1
    )
    x, y = rng.uniform(0.15, 0.85), rng.uniform(0.14, 0.22)
    easel.ellipse(night, x, y, 0.13, 0.13)
    easel.ellipse((0.98, 0.95, 0.8), x, y, 0.105, 0.105)
    easel.ellipse(night, x + 0.045, y - 0.02, 0.09, 0.09)
    easel.ellipse((0.1, 0.2, 0.24), rng.uniform(0.1, 0.4), 1.0, 0.6, rng.uniform(0.2, 0.28))
    easel.ellipse((0.06, 0.13, 0.16), rng.uniform(0.7, 1.0), 1.02, 0.65, rng.uniform(0.18, 0.26))
    x = rng.uniform(0.2, 0.7)
    easel.box((0.04, 0.06, 0.1), x, 0.78, x + 0.14, 0.9)
    easel.shape((0.03, 0.04, 0.07), ((x - 0.03, 0.79), (x + 0.07, 0.7), (x + 0.17, 0.79)))
    easel.box((1.0, 0.8, 0.35), x + 0.05, 0.81, x + 0.09, 0.85)


def scales(easel: Easel) -> None:
    """A fish under water."""
    rng = easel.rng
    easel.gradient(easel.vary((0.5, 0.82, 0.9)), easel.vary((0.1, 0.4, 0.55)))
    easel.frame(0, 0)
    for _ in range(7):
        size = rng.uniform(0.01, 0.03)
        easel.ellipse((0.8, 0.94, 0.97), rng.uniform(0, 1), rng.uniform(0, 0.9), size, size)
    easel.frame(
        rng.uniform(0.47, 0.53), rng.uniform(0.46, 0.54), rng.uniform(0.95, 1.08), rng.uniform(-0.25, 0.25)
    )
    skin = easel.vary(
        ((0.92, 0.5, 0.15), (0.45, 0.66, 0.72), (0.88, 0.35, 0.3), (0.5, 0.65, 0.35))[int(rng.integers(4))]
    )
    deep: Colour = (skin[0] * 0.6, skin[1] * 0.55, skin[2] * 0.55)
    fin = easel.vary((min(1, skin[0] * 1.1), skin[1] * 0.8, skin[2] * 0.7))
    pale: Colour = (skin[0] / 2 + 0.5, skin[1] / 2 + 0.5, skin[2] / 2 + 0.5)
    easel.shape(fin, ((0.28, 0.0), (0.52, -0.26), (0.46, 0.0), (0.52, 0.26)))
    easel.shape(fin, ((-0.15, -0.24), (0.05, -0.42), (0.25, -0.32), (0.22, -0.12)))
    easel.shape(fin, ((-0.02, 0.25), (0.12, 0.4), (0.2, 0.16)))
    body = easel.texture("scales", tones(skin, (0.12, 0.1, 0.1), pale, deep), rng.uniform(7, 9), -math.pi / 2)
    back = [(-0.42 + 0.8 * k / 30, 0.31 * math.sin(math.pi * (k / 30) ** 0.8)) for k in range(31)]
    easel.shape(body, [(x, -y) for x, y in back] + [(x, y) for x, y in reversed(back)])
    head = [(x, y) for x, y in back if x < -0.17]
    easel.shape(skin, [(x, -y) for x, y in head] + [(-0.13, 0.0)] + [(x, y) for x, y in reversed(head)])
    easel.ellipse(_WHITE, -0.27, -0.06, 0.05, 0.05)
    easel.ellipse(_BLACK, -0.275, -0.06, 0.028, 0.028)
    easel.line(deep, (-0.41, 0.04), (-0.33, 0.06), 0.014)
    easel.shape(fin, ((-0.12, 0.06), (0.03, 0.0), (0.05, 0.14)))
