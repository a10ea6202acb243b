"""Where patterns come from among the things people make: cloth, walls, boards, tents."""

from __future__ import annotations

import math

import numpy as np

from .easel import Colour, Easel, to_image, tones
from .palettes import COLOUR_VALUES
from .patterns import paint

_BLACK: Colour = (0.07, 0.06, 0.06)
_WHITE: Colour = (0.97, 0.96, 0.92)
_GOLD: Colour = (0.97, 0.8, 0.3)


def _cloth(easel: Easel, *names: str) -> Colour:
    """One of the named colours, varied."""
    return easel.vary(COLOUR_VALUES[names[int(easel.rng.integers(len(names)))]])


def _dark(colour: Colour, share: float = 0.6) -> Colour:
    return colour[0] * share, colour[1] * share, colour[2] * share


def plaid(easel: Easel) -> None:
    """A folded woollen blanket with a fringe."""
    rng = easel.rng
    easel.gradient(easel.vary((0.88, 0.84, 0.78)), easel.vary((0.7, 0.62, 0.54)))
    wool = _cloth(easel, "red", "green", "blue", "brown", "teal")
    light = bool(rng.integers(2))
    palette = tones(wool, _WHITE if light else _BLACK, _GOLD)
    easel.frame(0.5, 0.5, rng.uniform(0.92, 1.05), rng.uniform(-0.15, 0.15))
    units = rng.uniform(6, 7.5)
    easel.ellipse((0.5, 0.44, 0.38), 0.02, 0.36, 0.46, 0.08)
    for number in range(3):
        top = 0.2 + 0.07 * number
        low = _dark(wool, 0.4)
        easel.box(low, -0.4, top, 0.41, top + 0.075)
        easel.box(easel.texture("plaid", palette, units), -0.4, top, 0.4, top + 0.06)
    easel.box(easel.texture("plaid", palette, units), -0.41, -0.38, 0.41, 0.22)
    easel.line(_dark(wool, 0.45), (-0.41, 0.215), (0.41, 0.215), 0.014)
    easel.line(_dark(wool, 0.7), (0.1, -0.38), (0.1, 0.21), 0.008)
    for number in range(24):
        x = -0.4 + number * 0.8 / 23
        easel.line(wool, (x, -0.37), (x + rng.uniform(-0.01, 0.01), -0.44), 0.014)


def hearts(easel: Easel) -> None:
    """A card with hearts that comes out of its envelope."""
    rng = easel.rng
    table = easel.vary(((0.75, 0.85, 0.88), (0.85, 0.78, 0.68), (0.72, 0.7, 0.8))[int(rng.integers(3))], 0.1)
    easel.gradient(table, _dark(table, 0.85))
    easel.frame(rng.uniform(0.47, 0.53), 0.5, rng.uniform(0.95, 1.08), rng.uniform(-0.25, 0.25))
    paper = easel.vary((0.93, 0.87, 0.76))
    easel.shape(_dark(paper, 0.8), ((-0.42, 0.05), (0.0, -0.3), (0.42, 0.05)))
    easel.box(_dark(table, 0.75), -0.33, -0.41, 0.35, 0.3)
    easel.box(_WHITE, -0.35, -0.43, 0.33, 0.3)
    red = _cloth(easel, "red", "pink", "purple")
    ground, ink = ((red, _WHITE), (easel.vary((0.98, 0.8, 0.85)), red))[int(rng.integers(2))]
    card = easel.texture("hearts", tones(ground, ink), rng.uniform(6.5, 8))
    easel.box(card, -0.315, -0.4, 0.295, 0.3)
    easel.box(paper, -0.42, 0.24, 0.42, 0.45)
    for side in (-1, 1):
        easel.line(_dark(paper, 0.82), (side * 0.42, 0.45), (side * 0.08, 0.24), 0.01)
    easel.ellipse(red, 0, 0.36, 0.045, 0.045)


def wood(easel: Easel) -> None:
    """A wall of planks with the cut end of a log before it."""
    rng = easel.rng
    timber = easel.vary(((0.76, 0.54, 0.31), (0.62, 0.4, 0.22), (0.82, 0.66, 0.45))[int(rng.integers(3))])
    palette = tones(timber, (0.2, 0.12, 0.07), shade=_dark(timber, 0.5))
    easel.frame(0, 0)
    turn = rng.uniform(-0.06, 0.06) + (math.pi / 2 if rng.integers(2) else 0)
    easel.box(easel.texture("wood", palette, rng.uniform(5.5, 7), turn), 0, 0, 1, 1)
    grass = easel.vary((0.4, 0.6, 0.28))
    easel.box(grass, 0, 0.9, 1, 1)
    radius, x = rng.uniform(0.14, 0.19), rng.uniform(0.22, 0.78)
    y = 0.93 - radius
    easel.ellipse(_dark(grass), x + 0.02, 0.94, radius * 1.2, 0.025)
    easel.ellipse((0.27, 0.17, 0.1), x, y, radius, radius)
    for number in range(6):
        size = radius * (0.88 - 0.15 * number)
        easel.ellipse(
            easel.vary((0.9, 0.75, 0.52) if number % 2 == 0 else (0.7, 0.5, 0.3), 0.03), x, y, size, size
        )


def brick(easel: Easel) -> None:
    """A brick wall with a window and a strip of pavement."""
    rng = easel.rng
    clay = easel.vary(((0.7, 0.28, 0.2), (0.76, 0.42, 0.28), (0.58, 0.25, 0.2))[int(rng.integers(3))])
    easel.frame(0, 0)
    mortar = easel.vary((0.88, 0.84, 0.78), 0.03)
    easel.box(easel.texture("brick", tones(clay, mortar), rng.uniform(6, 7.5)), 0, 0, 1, 1)
    x, y, wide = rng.uniform(0.08, 0.6), rng.uniform(0.1, 0.22), rng.uniform(0.27, 0.33)
    tall = wide * 1.3
    easel.box((0.8, 0.78, 0.74), x - 0.05, y + tall, x + wide + 0.05, y + tall + 0.045)
    easel.box(_WHITE, x - 0.025, y - 0.025, x + wide + 0.025, y + tall)
    glass = easel.vary((0.5, 0.68, 0.78), 0.12)
    easel.box(glass, x, y, x + wide, y + tall - 0.025)
    easel.shape(easel.vary((0.72, 0.85, 0.9)), ((x, y + 0.2), (x + 0.2, y), (x + 0.27, y), (x, y + 0.27)))
    easel.box(_WHITE, x + wide / 2 - 0.01, y, x + wide / 2 + 0.01, y + tall)
    easel.box(_WHITE, x, y + tall * 0.45, x + wide, y + tall * 0.45 + 0.02)
    paving = easel.vary((0.62, 0.62, 0.62))
    easel.box(paving, 0, 0.88, 1, 1)
    easel.line(_dark(paving), (0, 0.88), (1, 0.88), 0.014)
    for number in range(5):
        foot = 0.25 * number + rng.uniform(-0.03, 0.03)
        easel.line(_dark(paving, 0.8), (foot, 0.88), (foot + (foot - 0.5) * 0.2, 1.0), 0.01)


def stripes(easel: Easel) -> None:
    """A shop's awning."""
    rng = easel.rng
    wall = easel.vary(((0.92, 0.87, 0.76), (0.75, 0.82, 0.84), (0.85, 0.72, 0.62))[int(rng.integers(3))])
    easel.gradient(wall, _dark(wall, 0.9))
    easel.frame(0.5, 0.5, rng.uniform(0.95, 1.05), rng.uniform(-0.05, 0.05))
    canvas, pale = _cloth(easel, "red", "green", "blue", "teal", "orange"), _WHITE
    easel.box(_dark(canvas, 0.5), -0.36, 0.1, 0.36, 0.5)
    easel.box(easel.vary((0.55, 0.72, 0.8), 0.12), -0.33, 0.1, 0.05, 0.42)
    easel.shape((0.78, 0.88, 0.92), ((-0.33, 0.36), (-0.05, 0.12), (0.03, 0.12), (-0.33, 0.42)))
    easel.box(easel.vary((0.45, 0.3, 0.2)), 0.1, 0.1, 0.31, 0.55)
    easel.ellipse(_GOLD, 0.14, 0.33, 0.014, 0.014)
    easel.box(_dark(wall, 0.6), -0.42, 0.18, 0.42, 0.24)
    stripes_down = easel.texture("stripes", tones(canvas, pale), rng.uniform(7, 8.5))
    scallops = [(0.46 - 0.92 * k / 72, 0.13 + 0.065 * abs(math.sin(math.pi * k / 8))) for k in range(73)]
    easel.shape(stripes_down, [(-0.4, -0.42), (0.4, -0.42), (0.46, 0.13), *scallops])
    easel.line(_dark(canvas, 0.7), (-0.46, 0.13), (0.46, 0.13), 0.012)
    easel.line(_dark(canvas, 0.5), (-0.41, -0.42), (0.41, -0.42), 0.03)


def checks(easel: Easel) -> None:
    """A chess board in perspective, with a few pawns."""
    rng = easel.rng
    easel.gradient(easel.vary((0.5, 0.42, 0.36), 0.15), easel.vary((0.72, 0.6, 0.48), 0.15))
    easel.frame(0.5, 0.0)
    top, bottom = rng.uniform(0.16, 0.24), rng.uniform(0.86, 0.92)
    far, near = rng.uniform(0.3, 0.36), rng.uniform(0.45, 0.48)
    pale, deep = easel.vary((0.94, 0.86, 0.7)), easel.vary((0.3, 0.17, 0.1))
    frame = _dark(deep, 0.7)
    easel.shape(
        frame,
        (
            (-near - 0.03, bottom),
            (near + 0.03, bottom),
            (near + 0.03, bottom + 0.06),
            (-near - 0.03, bottom + 0.06),
        ),
    )
    easel.shape(
        deep,
        (
            (-far - 0.03, top - 0.03),
            (far + 0.03, top - 0.03),
            (near + 0.03, bottom + 0.03),
            (-near - 0.03, bottom + 0.03),
        ),
    )
    # half the board's width grows evenly down the picture, the depth as its inverse
    half = far + (near - far) * (easel.y - top) / (bottom - top)
    depth = (1 / far - 1 / np.maximum(half, np.float32(0.05))) / (1 / far - 1 / near)
    side = 0.62
    u = np.asarray((easel.x - 0.5) / half * (4 * side), np.float32)
    v = np.asarray(depth * (8 * side), np.float32)
    board = to_image(paint("checks", u, v, tones(pale, deep), rng))
    easel.shape(board, ((-far, top), (far, top), (near, bottom), (-near, bottom)))
    for number in range(int(rng.integers(2, 5))):
        x, y, size = rng.uniform(-0.32, 0.32), 0.3 + 0.14 * number, 0.8 + 0.15 * number
        colour = easel.vary(((0.97, 0.93, 0.85), (0.12, 0.1, 0.1))[int(rng.integers(2))], 0.03)
        easel.frame(0.5 + x, y, size)
        easel.ellipse(_dark(deep, 0.8), 0.02, 0.085, 0.06, 0.02)
        easel.ellipse(colour, 0, 0.08, 0.05, 0.02)
        easel.shape(colour, ((-0.015, -0.03), (0.015, -0.03), (0.045, 0.08), (-0.045, 0.08)))
        easel.ellipse(colour, 0, -0.015, 0.03, 0.01)
        easel.ellipse(colour, 0, -0.045, 0.028, 0.028)


def camouflage(easel: Easel) -> None:
    """A tent in the woods."""
    rng = easel.rng
    easel.gradient(easel.vary((0.72, 0.84, 0.75)), easel.vary((0.45, 0.6, 0.38)))
    easel.frame(0, 0)
    for _ in range(7):
        x, thick = rng.uniform(0, 1), rng.uniform(0.03, 0.07)
        easel.box(easel.vary((0.36, 0.26, 0.18), 0.12), x, 0, x + thick, 0.75)
    for _ in range(9):
        easel.ellipse(
            easel.vary((0.25, 0.45, 0.2), 0.15), rng.uniform(0, 1), rng.uniform(-0.05, 0.1), 0.16, 0.1
        )
    ground = easel.vary((0.5, 0.48, 0.28), 0.1)
    easel.box(ground, 0, 0.72, 1, 1)
    easel.frame(
        rng.uniform(0.46, 0.54), rng.uniform(0.53, 0.58), rng.uniform(0.95, 1.08), rng.uniform(-0.05, 0.05)
    )
    green = easel.vary(((0.44, 0.5, 0.26), (0.62, 0.55, 0.36))[int(rng.integers(2))])
    palette = tones(green, (0.11, 0.12, 0.08), (0.76, 0.72, 0.52), (0.24, 0.3, 0.15))
    cloth = easel.texture("camouflage", palette, rng.uniform(6, 8))
    easel.ellipse(_dark(ground), 0, 0.31, 0.5, 0.05)
    for side in (-1, 1):
        easel.line((0.85, 0.82, 0.7), (side * 0.1, -0.28), (side * 0.49, 0.33), 0.008)
    easel.shape(cloth, ((-0.45, 0.3), (-0.12, -0.37), (0.12, -0.37), (0.45, 0.3)))
    easel.shape((0.1, 0.11, 0.08), ((-0.1, 0.3), (0.0, -0.08), (0.1, 0.3)))
    easel.line(_dark(green, 0.5), (0, -0.36), (0, -0.08), 0.01)


def plain(easel: Easel) -> None:
    """A painted wall with a skirting board and a floor lamp."""
    rng = easel.rng
    names = tuple(COLOUR_VALUES)
    wall = _cloth(easel, *names)
    easel.frame(0, 0)
    easel.box(easel.texture("plain", tones(wall, _BLACK), rng.uniform(4, 7)), 0, 0, 1, 1)
    floor = easel.vary((0.62, 0.45, 0.3))
    easel.box(floor, 0, 0.88, 1, 1)
    easel.box(_WHITE, 0, 0.82, 1, 0.89)
    easel.line(_dark(_WHITE, 0.8), (0, 0.835), (1, 0.835), 0.008)
    x, top = rng.uniform(0.15, 0.85), rng.uniform(0.3, 0.42)
    easel.ellipse(_dark(floor), x, 0.95, 0.1, 0.02)
    easel.box((0.2, 0.18, 0.17), x - 0.01, top, x + 0.01, 0.94)
    easel.shape(
        (0.98, 0.92, 0.75),
        ((x - 0.06, top - 0.14), (x + 0.06, top - 0.14), (x + 0.12, top + 0.03), (x - 0.12, top + 0.03)),
    )
