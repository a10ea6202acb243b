"""Shapes of cloth: T-shirt, backpack, cushion, tote bag, dress."""

from __future__ import annotations

import numpy as np

from .outlines import (
    DARK,
    METAL,
    Array,
    Colour,
    Detail,
    Relief,
    Shape,
    bezier,
    both_sides,
    closed,
    ellipse,
    mirrored,
    path,
    rounded,
    soft_step,
)

_LEATHER: Colour = (0.5, 0.32, 0.19)


def t_shirt(rng: np.random.Generator) -> Shape:
    """Laid flat, short sleeves, round neck."""
    cuff, waist = rng.uniform(-0.22, -0.05), rng.uniform(0.54, 0.6)
    neck = bezier((0, -0.6), (0.2, -0.6), (0.27, -0.75), (0.28, -0.9))
    right = path(
        neck,
        bezier((0.28, -0.9), (0.5, -0.86), (0.62, -0.8), (0.7, -0.68)),
        [(1.0, cuff - 0.14), (0.74, cuff + 0.06)],
        bezier((0.57, -0.3), (0.52, 0.1), (waist - 0.02, 0.6), (waist, 0.9)),
        bezier((waist, 0.9), (0.3, 0.95), (0.15, 0.95), (0, 0.95)),
    )
    collar = path(neck[::-1], mirrored(neck))
    inside = path(collar, bezier((-0.28, -0.9), (-0.1, -0.82), (0.1, -0.82), (0.28, -0.9)))
    seam = bezier((0.62, -0.8), (0.52, -0.6), (0.54, -0.4), (0.57, -0.3))
    hem = path([(0.96, cuff - 0.17), (0.71, cuff + 0.01)])
    bottom = bezier((-waist, 0.84), (-0.2, 0.89), (0.2, 0.89), (waist, 0.84))
    front = (
        Detail(collar[1:-1], "trim", 0.085),
        *(Detail(line, "trim", 0.022) for line in (seam[1:], mirrored(seam[1:]), hem, mirrored(hem))),
        Detail(bottom, "trim", 0.02, 0.8),
    )

    def relief(x: Array, y: Array) -> Relief:
        folds = np.sin(9 * x + 2.5 * y) * soft_step(y, -0.2, 0.8)
        sleeve = soft_step(abs(x), 0.5, 0.65)
        slope_x = 0.5 * x + 0.3 * folds + 0.4 * np.sign(x) * sleeve
        shade = 1 - 0.16 * np.exp(-((abs(x) - 0.56) ** 2 + (y + 0.28) ** 2) / 0.03)
        return Relief(x, y + 0.02 * folds + 0.25 * sleeve * abs(x), slope_x, 0.2 * y, shade)

    return Shape((both_sides(right),), relief, (Detail(inside, (0.3, 0.29, 0.3)),), front)


def backpack(rng: np.random.Generator) -> Shape:
    """From the front: domed, a pocket with a zip, straps at the sides, a loop on top."""
    half, pocket = rng.uniform(0.66, 0.74), rng.uniform(0.2, 0.28)
    right = path(
        bezier((0, -0.86), (0.45, -0.86), (half - 0.04, -0.72), (half - 0.02, -0.25)),
        bezier((half - 0.02, -0.25), (half + 0.06, 0.3), (half + 0.06, 0.6), (half, 0.82)),
        bezier((half, 0.82), (half - 0.04, 0.98), (half - 0.2, 0.97), (0, 0.97)),
    )
    strap = bezier((0.42, -0.78), (1.05, -0.6), (1.06, 0.35), (half - 0.04, 0.78), steps=20)
    loop = bezier((-0.2, -0.8), (-0.22, -1.1), (0.22, -1.1), (0.2, -0.8))
    back = (
        *(Detail(line, DARK, 0.14) for line in (strap, mirrored(strap))),
        Detail(loop, DARK, 0.075),
    )
    arch = bezier(
        (-half + 0.12, 0.0), (-half + 0.08, -0.86), (half - 0.08, -0.86), (half - 0.12, 0.0), steps=24
    )
    flap = rounded(-half + 0.14, pocket, half - 0.14, 0.86, 0.14)
    zipper = path([(-half + 0.2, pocket + 0.1), (half - 0.2, pocket + 0.1)])
    front = (
        Detail(arch, "trim", 0.055),
        Detail(arch, METAL, 0.02),
        Detail(rounded(half - 0.16, -0.06, half - 0.08, 0.14, 0.03), METAL),
        Detail(closed(flap), "trim", 0.04),
        Detail(zipper, DARK, 0.06),
        Detail(zipper, METAL, 0.022),
        Detail(rounded(half - 0.36, pocket + 0.08, half - 0.29, pocket + 0.27, 0.03), METAL),
    )

    def relief(x: Array, y: Array) -> Relief:
        a, b = x / half, y / 0.95
        inside = soft_step(-abs(x), 0.1 - half, 0.2 - half) * soft_step(y, pocket - 0.03, pocket + 0.02)
        shade = 1.02 - 0.12 * soft_step(y, 0.75, 0.98) + 0.05 * inside
        return Relief(x * (1 + 0.1 * a * a), y * (1 + 0.05 * b * b), 0.9 * a**3, 0.7 * b**3, shade)

    return Shape((both_sides(right),), relief, back, front)


def cushion(rng: np.random.Generator) -> Shape:
    """Square with pulled-out corners and piping."""
    waist = rng.uniform(0.72, 0.8)
    side = bezier((1, -1), (waist, -0.45), (waist, 0.45), (1, 1), steps=20)
    quarter_turn = np.array([[0.0, 1.0], [-1.0, 0.0]])
    sides = [side]
    for _ in range(3):
        sides.append(sides[-1] @ quarter_turn)
    outline = path(*sides)
    front = (Detail(closed(outline), "trim", 0.06),)

    def relief(x: Array, y: Array) -> Relief:
        r2 = np.clip(x * x + y * y, 0.0, 2.0)
        bulge = 0.88 + 0.15 * r2
        crease = np.exp(-((abs(x) - abs(y)) ** 2) / 0.004) * soft_step(r2, 0.7, 1.4)
        shade = 1.06 - 0.1 * r2 - 0.14 * crease
        return Relief(x * bulge, y * bulge, 1.1 * x * abs(x), 1.1 * y * abs(y), shade)

    return Shape((outline,), relief, (), front)


def tote_bag(rng: np.random.Generator) -> Shape:
    """Canvas bag with two long handles."""
    top, mouth = rng.uniform(-0.34, -0.26), rng.uniform(0.72, 0.8)
    right = path(
        [(0, top), (mouth, top)],
        bezier((mouth, top), (mouth - 0.02, 0.2), (0.78, 0.6), (0.8, 0.86)),
        bezier((0.8, 0.86), (0.8, 0.97), (0.72, 1.0), (0, 1.0)),
    )
    strap: Colour = _LEATHER if rng.random() < 0.4 else "trim"
    arc = (-0.4, top + 0.22), (-0.42, -1.3), (0.42, -1.3), (0.4, top + 0.22)
    handle = bezier(*arc, steps=24)
    behind = handle * np.array([0.86, 1.0]) + np.array([0.05, -0.06])
    stitches = path([(-mouth, top + 0.1), (mouth, top + 0.1)])
    patches = [Detail(rounded(x - 0.07, top + 0.1, x + 0.07, top + 0.26, 0.02), strap) for x in (-0.4, 0.4)]
    back = (Detail(behind, (0.25, 0.22, 0.2), 0.09),)
    front = (
        Detail(stitches, "trim", 0.02),
        Detail(path([(-mouth, top), (mouth, top)]), "trim", 0.035),
        Detail(handle, strap, 0.1),
        *patches,
    )

    def relief(x: Array, y: Array) -> Relief:
        hang = soft_step(y, top, 0.9)
        folds = np.sin(5.5 * x + 0.9 * np.sin(3 * y)) * (1 - 0.5 * hang)
        return Relief(
            x + 0.02 * folds, y, 0.35 * folds + 0.5 * x**3, 0.5 * soft_step(y, 0.5, 1.0), 1.03 - 0.08 * hang
        )

    return Shape((both_sides(right),), relief, back, front)


def dress(rng: np.random.Generator) -> Shape:
    """Sleeveless, a narrow waist, a flared skirt."""
    waist, flare = rng.uniform(-0.3, -0.2), rng.uniform(0.72, 0.85)
    neck = bezier((0, -0.62), (0.12, -0.66), (0.17, -0.8), (0.18, -0.98))
    waves = 5
    across = np.linspace(flare, 0, 25)
    hem = np.stack(
        [across, 0.98 - 0.14 * (across / flare) ** 2 + 0.035 * np.cos(waves * np.pi * across / flare)], 1
    )
    right = path(
        neck,
        [(0.34, -0.96)],
        bezier((0.34, -0.96), (0.3, -0.72), (0.34, -0.66), (0.45, -0.6)),
        bezier((0.45, -0.6), (0.42, -0.45), (0.33, -0.35), (0.31, waist)),
        bezier((0.31, waist), (0.42, 0.15), (flare - 0.12, 0.45), (hem[0, 0], hem[0, 1])),
        hem,
    )
    collar = path(neck[::-1], mirrored(neck))
    belt = path(
        [(-0.325, waist - 0.055), (0.325, waist - 0.055), (0.325, waist + 0.055), (-0.325, waist + 0.055)]
    )
    bow = [ellipse(x, waist, 0.1, 0.07) for x in (-0.09, 0.09)] if rng.random() < 0.4 else []
    front = (
        Detail(collar, "trim", 0.045),
        Detail(belt, "trim"),
        *(Detail(loop, "trim") for loop in bow),
    )

    def relief(x: Array, y: Array) -> Relief:
        skirt = soft_step(y, waist, waist + 0.35)
        spread = 0.31 + (flare - 0.31) * np.clip((y - waist) / (0.95 - waist), 0.0, 1.0)
        a = np.clip(x / spread, -1.2, 1.2)
        folds = np.sin(waves * np.pi * a) * skirt
        u = x + skirt * (0.35 * (0.55 * a - x)) + 0.012 * folds
        shade = (
            1
            - 0.12 * skirt * (0.5 - 0.5 * np.cos(waves * np.pi * a))
            - 0.1 * np.exp(-((y - waist) ** 2) / 0.01)
        )
        return Relief(u, y + 0.1 * a * a * skirt, 0.45 * folds + 0.5 * a, np.zeros_like(x), shade)

    return Shape((both_sides(right),), relief, (), front)
