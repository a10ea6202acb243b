"""Shapes that hold themselves up: phone case, mug, shoe, umbrella, notebook."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from .outlines import (
    DARK,
    METAL,
    WHITE,
    Array,
    Colour,
    Detail,
    Relief,
    Shape,
    bezier,
    closed,
    ellipse,
    flat,
    path,
    rounded,
    soft_step,
)

_PAPER: Colour = (0.93, 0.91, 0.84)
_GLASS: Colour = (0.25, 0.3, 0.38)


def phone_case(rng: np.random.Generator) -> Shape:
    """Back of a phone in its case: rounded, with a camera bump."""
    half = rng.uniform(0.52, 0.58)
    outline = rounded(-half, -1.0, half, 1.0, 0.17)
    left, top, side = -half + 0.09, -0.91, rng.uniform(0.38, 0.44)
    lens = 0.25 * side
    near, far = 0.29 * side, 0.71 * side
    front = [
        Detail(closed(outline), "trim", 0.045),
        Detail(rounded(left - 0.02, top - 0.02, left + side + 0.02, top + side + 0.02, 0.13), "trim"),
        Detail(rounded(left, top, left + side, top + side, 0.12), DARK),
    ]
    for x, y in ((near, near), (near, far), (far, 0.5 * side)):
        front += [
            Detail(ellipse(left + x, top + y, lens, lens), (0.45, 0.46, 0.5)),
            Detail(ellipse(left + x, top + y, 0.78 * lens, 0.78 * lens), _GLASS),
            Detail(ellipse(left + x - 0.02, top + y - 0.02, 0.25 * lens, 0.25 * lens), WHITE),
        ]
    back = (
        Detail(rounded(half - 0.02, -0.45, half + 0.035, -0.15, 0.02), DARK),
        Detail(rounded(-half - 0.035, -0.3, -half + 0.02, -0.1, 0.02), DARK),
    )

    def relief(x: Array, y: Array) -> Relief:
        slope_x = np.sign(x) * soft_step(abs(x), half - 0.12, half)
        slope_y = np.sign(y) * soft_step(abs(y), 0.88, 1.0)
        gloss = 1 + 0.1 * soft_step(x + 0.6 * y, 0.0, 0.06) * soft_step(-(x + 0.6 * y), -0.3, -0.24)
        return Relief(x, y, slope_x, slope_y, gloss)

    return Shape((outline,), relief, back, tuple(front))


def mug(rng: np.random.Generator) -> Shape:
    """Cylinder with a handle on the right, seen a little from above."""
    radius, foot = 0.74, rng.uniform(0.66, 0.74)
    top, bottom, rim = -0.7, rng.uniform(0.6, 0.72), 0.17
    outline = path(ellipse(0, top, radius, rim, 180, 0), ellipse(0, bottom, foot, rim, 0, 180))
    handle = bezier((0.6, -0.42), (1.38, -0.62), (1.3, 0.55), (0.58, 0.42), steps=24)
    back = (Detail(handle, "trim", 0.2), Detail(handle, "ground", 0.15))
    front = (
        Detail(ellipse(0, top, radius, rim), WHITE),
        Detail(ellipse(0, top + 0.015, radius - 0.06, rim - 0.04), (0.62, 0.58, 0.54)),
        Detail(ellipse(0, top + 0.06, radius - 0.12, rim - 0.075), (0.36, 0.24, 0.16)),
    )

    def relief(x: Array, y: Array) -> Relief:
        across = np.clip(x / radius, -1.0, 1.0)
        u = radius * (0.45 * across + 0.55 * np.arcsin(across))
        v = y - rim * np.sqrt(1 - across * across)
        shade = 1.03 - 0.24 * across**4 + 0.12 * np.exp(-((across + 0.45) ** 2) / 0.012)
        return Relief(u, v, across, np.zeros_like(x), shade)

    return Shape((outline,), relief, back, front)


def shoe(rng: np.random.Generator) -> Shape:
    """Sneaker from the side, its toe to the right."""
    collar = rng.uniform(-0.76, -0.62)
    upper = path(
        bezier((-0.93, 0.54), (-1.0, 0.1), (-0.82, -0.2), (-0.9, collar)),
        bezier((-0.9, collar), (-0.75, collar + 0.12), (-0.5, collar + 0.14), (-0.3, collar + 0.02)),
        bezier((-0.3, collar + 0.02), (-0.24, collar - 0.12), (-0.12, collar - 0.12), (-0.06, collar + 0.02)),
        bezier((-0.06, collar + 0.02), (0.1, -0.3), (0.25, -0.12), (0.5, -0.06)),
        bezier((0.5, -0.06), (0.86, 0.0), (1.02, 0.2), (0.98, 0.54)),
    )
    sole = path(
        bezier((-0.98, 0.46), (-0.6, 0.5), (-0.1, 0.44), (0.4, 0.46)),
        bezier((0.4, 0.46), (0.7, 0.47), (0.9, 0.42), (1.01, 0.38)),
        bezier((1.01, 0.38), (1.07, 0.52), (1.02, 0.61), (0.86, 0.61)),
        bezier((-0.86, 0.61), (-1.0, 0.61), (-1.02, 0.58), (-0.98, 0.46)),
    )
    tread = path([(-0.9, 0.588), (0.93, 0.588), (0.86, 0.635), (-0.86, 0.635)])
    lining = path(
        bezier((-0.9, collar), (-0.7, collar - 0.1), (-0.45, collar - 0.05), (-0.27, collar - 0.03)),
        bezier((-0.3, collar + 0.1), (-0.5, collar + 0.2), (-0.75, collar + 0.16), (-0.9, collar + 0.02)),
    )
    front = [
        Detail(bezier((0.42, 0.44), (0.46, 0.12), (0.55, 0.0), (0.68, -0.02)), "trim", 0.025),
        Detail(bezier((-0.62, 0.46), (-0.5, 0.1), (-0.62, -0.15), (-0.66, collar + 0.14)), "trim", 0.025),
        Detail(bezier((-0.28, collar + 0.08), (-0.1, -0.1), (0.1, 0.06), (0.4, 0.06)), "trim", 0.025),
        Detail(sole, WHITE),
        Detail(bezier((-0.97, 0.53), (-0.4, 0.57), (0.5, 0.53), (1.03, 0.48)), (0.7, 0.7, 0.72), 0.025),
        Detail(tread, DARK),
    ]
    eyelets = bezier((-0.2, collar + 0.14), (-0.03, -0.2), (0.1, -0.06), (0.34, 0.02), steps=4)
    upward = bezier((-0.02, collar + 0.04), (0.13, -0.34), (0.28, -0.16), (0.46, -0.1), steps=4)
    front += [Detail(np.stack(ends), WHITE, 0.045) for ends in zip(eyelets, upward, strict=True)]

    def relief(x: Array, y: Array) -> Relief:
        v = y + 0.25 * soft_step(x, 0.2, 1.0) * (0.4 - y)
        slope_y = soft_step(y, 0.0, 0.5) - 0.6 * soft_step(-y, -0.05, 0.35)
        slope_x = soft_step(x, 0.55, 1.0) - soft_step(-x, 0.7, 0.95)
        return Relief(x + 0.1 * x**3, v, slope_x, slope_y, 1 - 0.18 * soft_step(y, 0.2, 0.42))

    return Shape((upper,), relief, (Detail(lining, (0.3, 0.29, 0.3)),), tuple(front))


def umbrella(rng: np.random.Generator) -> Shape:
    """Open, from the side: a scalloped canopy on ribs, a stick with a crook."""
    rim, rise = 0.12, rng.uniform(0.9, 1.0)
    top = rim - rise
    cusps = np.array([-1.0, -0.64, -0.22, 0.22, 0.64, 1.0])
    ends = [(float(x), rim + 0.12 * float(np.sqrt(1 - x * x))) for x in cusps]
    scallops = [
        bezier(end, (0.5 * (end[0] + start[0]), 0.5 * (end[1] + start[1]) - 0.2), start)
        for start, end in pairwise(ends)
    ]
    canopy = path(ellipse(0, rim, 1.0, rise, 180, 360), *scallops[::-1])
    quarter = np.linspace(0, np.pi / 2, 16)
    ribs = [
        np.stack([x * np.sin(quarter), top + (y - top) * (1 - np.cos(quarter))], axis=1)
        for x, y in ends[1:-1]
    ]
    handle: Colour = (0.45, 0.28, 0.16) if rng.random() < 0.6 else DARK
    back = (
        Detail(ellipse(0, rim + 0.01, 0.98, 0.11), (0.2, 0.19, 0.2)),
        Detail(path([(0, top - 0.1), (0, top + 0.1)]), DARK, 0.05),
        Detail(path([(0, 0), (0, 0.8)]), METAL, 0.05),
        Detail(path([(0.0, 0.58)], bezier((0, 0.8), (0.0, 1.05), (0.27, 1.05), (0.27, 0.8))), handle, 0.085),
    )
    front = (
        *(Detail(rib, "trim", 0.025) for rib in ribs),
        *(Detail(scallop, "trim", 0.025) for scallop in scallops),
    )

    def relief(x: Array, y: Array) -> Relief:
        height = np.clip((rim - y) / rise, 0.0, 0.995)
        width = np.sqrt(1 - height * height)
        across = np.clip(x / width, -1.0, 1.0)
        gore = np.interp(across, cusps, np.arange(len(cusps))).astype(np.float32)
        turn = gore - np.floor(gore) - 0.5
        u = 0.65 * x + 0.35 * across * (0.4 + 0.6 * width)
        return Relief(
            u, y - 0.25 * x * x, 0.75 * across + 0.8 * turn, -0.8 * height + 0.3, 1 - 0.3 * abs(turn)
        )

    return Shape((canopy,), relief, back, front)


def notebook(rng: np.random.Generator) -> Shape:
    """Closed, its spine to the left: pages at the edge, an elastic band and a ribbon."""
    half, band = rng.uniform(0.7, 0.77), rng.uniform(0.44, 0.52)
    cover = rounded(-half, -0.95, half, 0.9, 0.06)
    spine = path([(-half, -0.93), (-half + 0.14, -0.95), (-half + 0.14, 0.9), (-half, 0.88)])
    pages = rounded(-half + 0.04, -0.9, half + 0.075, 0.97, 0.03)
    under = rounded(-half + 0.02, -0.88, half + 0.11, 1.01, 0.05)
    ribbon = path([(-0.2, 0.9), (-0.12, 0.9), (-0.1, 1.14), (-0.15, 1.09), (-0.2, 1.14)])
    lines = [
        Detail(
            path([(half + d, -0.87), (half + d, 0.9 + d), (-half + 0.06, 0.9 + d)]), (0.7, 0.67, 0.6), 0.012
        )
        for d in (0.025, 0.05)
    ]
    back = (Detail(ribbon, (0.72, 0.16, 0.18)), Detail(under, "trim"), Detail(pages, _PAPER), *lines)
    front = (
        Detail(spine, "trim"),
        Detail(path([(band, -0.95), (band, 0.9)]), DARK, 0.07),
        Detail(closed(cover), "trim", 0.03, 0.6),
    )

    def relief(x: Array, y: Array) -> Relief:
        board = flat(x, y)
        groove = 1 - 0.2 * np.exp(-((x + half - 0.18) ** 2) / 0.0012)
        return Relief(board.u, board.v, board.slope_x, board.slope_y, groove + 0.05 * (x - y))

    return Shape((cover,), relief, back, front)
