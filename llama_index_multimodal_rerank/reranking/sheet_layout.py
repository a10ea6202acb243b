"""Where everything lies on a sheet, in the pixels the model will see.

Phi-3 Vision enlarges or shrinks a picture to a grid of at most ``num_crops`` tiles of 336 pixels. A sheet
is made in a size that this step leaves as it is, so one pixel drawn is one pixel seen; and no label lies
across the edge of two tiles, which the model sees apart.

Source: the HD transform of ``microsoft/Phi-3-vision-128k-instruct``, in ``models/hd_geometry.py``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from ..models.hd_geometry import TILE, hd_size

MAX_CELLS = 25
"""Candidates on one sheet, at most."""

MARGIN = 8
GAP = 8
BORDER = 2
QUERY_BORDER = 6
QUERY_GAP = 28
"""Distance of the query from the cells: enough to be seen as apart."""

LARGEST_PICTURE = 2 * TILE
ENOUGH = 256
"""Side of pictures that are not worth more tiles: reading takes as long as there are tiles."""
SMALLEST_PICTURE = 24
SMALLEST_LABEL = 22
LARGEST_LABEL = 46
LABEL_PADDING = 6
"""Of a label's strip, this many pixels are not type."""


class Box(NamedTuple):
    """A rectangle in pixels; right and bottom are the first pixels outside."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        return self.right - self.left, self.bottom - self.top


@dataclass(frozen=True)
class CellBoxes:
    """Where the parts of one cell lie.

    Attributes:
        frame: all of it, border included.
        label: the strip its label is in.
        picture: the square its picture is fitted into.
        text: the strip below the picture, or None.
    """

    frame: Box
    label: Box
    picture: Box
    text: Box | None


@dataclass(frozen=True)
class SheetLayout:
    """Geometry of a sheet.

    Attributes:
        size: width and height of the sheet in pixels, multiples of 336.
        cells: one entry per candidate.
        query: where the query picture lies, or None.
        label_height: height of labels' strips in pixels.
        text_height: height of the strips below pictures, 0 without.
    """

    size: tuple[int, int]
    cells: tuple[CellBoxes, ...]
    query: CellBoxes | None
    label_height: int
    text_height: int

    @property
    def picture_side(self) -> int:
        """Side of the squares pictures are fitted into."""
        return self.cells[0].picture.size[0]


@lru_cache(maxsize=256)
def plan_sheet(num_cells: int, *, query: bool, num_crops: int, text: bool = False) -> SheetLayout:
    """Find the layout with the fewest tiles whose pictures have 256 pixels, or else the largest ones.

    On as many tiles, pictures are as large as can be.

    Args:
        num_cells: number of candidates, 1 to 25.
        query: whether there is a query picture.
        num_crops: tiles the model may look at, at least 1.
        text: leave a strip for text below each picture.

    Raises:
        ValueError: ``num_cells`` or ``num_crops`` is out of range, or that many cells are too
            small to be looked at with that few tiles.
    """
    if not 1 <= num_cells <= MAX_CELLS:
        raise ValueError(f"a sheet holds 1 to {MAX_CELLS} candidates, got {num_cells}")
    if num_crops < 1:
        raise ValueError(f"num_crops must be at least 1, got {num_crops}")
    best: SheetLayout | None = None
    # Fewest tiles first, so that more of them must earn their cost with larger pictures.
    for columns, rows in sorted(_unresized_grids(num_crops), key=lambda grid: (grid[0] * grid[1], -grid[0])):
        size = (columns * TILE, rows * TILE)
        if best is not None and best.picture_side >= ENOUGH and math.prod(size) > math.prod(best.size):
            break
        best = _best_layout(size, num_cells, query, text, best)
    if best is None:
        raise ValueError(
            f"{num_cells} candidates on {num_crops} tiles of {TILE} pixels would be smaller than "
            f"{SMALLEST_PICTURE} pixels each; raise num_crops or lower window"
        )
    return best


def largest_picture_side(num_cells: int, *, query: bool, num_crops: int, show_text: bool) -> int:
    """Return the side of the squares that pictures are fitted into, of a sheet whose cells are not known yet.

    Strips for text are left only if a candidate has text. Without them pictures are the larger ones.

    Raises:
        ValueError: as :func:`plan_sheet`.
    """
    layouts = [
        plan_sheet(num_cells, query=query, num_crops=num_crops, text=text)
        for text in ((False, True) if show_text else (False,))
    ]
    return max(layout.picture_side for layout in layouts)


def _unresized_grids(num_crops: int) -> Iterator[tuple[int, int]]:
    """Yield (columns, rows) of tiles that the HD transform does not resize.

    None is more than twice as long as wide: the model also sees the sheet squeezed into one square.
    """
    for columns in range(1, num_crops + 1):
        for rows in range(-(-columns // 2), min(2 * columns, num_crops // columns) + 1):
            width, height = columns * TILE, rows * TILE
            if hd_size(width, height, num_crops) == (width, height, width, height):
                yield columns, rows


def _best_layout(
    size: tuple[int, int], num_cells: int, query: bool, text: bool, best: SheetLayout | None
) -> SheetLayout | None:
    """Return the layout with the largest pictures on a sheet of this size, or ``best`` if that has."""
    for columns in range(1, num_cells + 1):
        rows = math.ceil(num_cells / columns)
        if columns > 1 and rows * (columns - 1) >= num_cells:
            continue  # the same cells fit in fewer columns
        for query_left in (True, False) if query else (True,):
            extra_columns, extra_rows = int(query and query_left), int(query and not query_left)
            side = min(
                LARGEST_PICTURE,
                (size[0] - 2 * MARGIN) // (columns + extra_columns) - 2 * BORDER,
                (size[1] - 2 * MARGIN) // (rows + extra_rows) - 2 * BORDER - SMALLEST_LABEL,
            )
            smallest = best.picture_side + 1 if best else SMALLEST_PICTURE
            for attempt in range(side, smallest - 1, -1):
                layout = _try(size, num_cells, columns, attempt, query, query_left, text)
                if layout is not None:
                    best = layout
                    break
    return best


def _try(
    size: tuple[int, int],
    num_cells: int,
    columns: int,
    side: int,
    query: bool,
    query_left: bool,
    text: bool,
) -> SheetLayout | None:
    """Lay out pictures of a given side, or return None if they do not fit."""
    rows = math.ceil(num_cells / columns)
    label = min(max(side // 6 + LABEL_PADDING, SMALLEST_LABEL), LARGEST_LABEL)
    below = min(max(side // 5, 20), 64) if text else 0
    width, height = side + 2 * BORDER, label + side + below + 2 * BORDER
    query_width, query_height = side + 2 * QUERY_BORDER, label + side + 2 * QUERY_BORDER

    across = columns * width + (columns - 1) * GAP
    if query and query_left:
        across += query_width + QUERY_GAP
    slack = size[0] - 2 * MARGIN - max(across, query_width if query else 0)
    if slack < 0:
        return None
    left = MARGIN + slack // 2
    top = MARGIN
    query_boxes = None
    if query:
        top = _off_edge(top + QUERY_BORDER, label) - QUERY_BORDER
        query_boxes = _cell(Box(left, top, left + query_width, top + query_height), QUERY_BORDER, label, 0)
        if query_left:
            left += query_width + QUERY_GAP
            top = MARGIN
        else:
            top += query_height + QUERY_GAP
    cells = []
    for row in range(rows):
        top = _off_edge(top + BORDER, label) - BORDER
        for column in range(min(columns, num_cells - row * columns)):
            x = left + column * (width + GAP)
            cells.append(_cell(Box(x, top, x + width, top + height), BORDER, label, below))
        top += height + GAP
    bottom = max(cells[-1].frame.bottom, query_boxes.frame.bottom if query_boxes else 0)
    if bottom > size[1] - MARGIN:
        return None
    return SheetLayout(size, tuple(cells), query_boxes, label, below)


def _off_edge(start: int, length: int) -> int:
    """Move a stretch onwards to the next tile if it would lie on two."""
    edge = math.ceil(start / TILE) * TILE
    return edge if start < edge < start + length else start


def _cell(frame: Box, border: int, label: int, below: int) -> CellBoxes:
    left, top = frame.left + border, frame.top + border
    right, bottom = frame.right - border, frame.bottom - border
    # Labels are about twice as wide as high; they start where no edge cuts them, if the cell is wide enough.
    label_width = min(2 * label, right - left)
    label_left = _off_edge(left, label_width)
    if label_left + label_width > right:
        label_left = left
    return CellBoxes(
        frame=frame,
        label=Box(label_left, top, label_left + label_width, top + label),
        picture=Box(left, top + label, right, bottom - below),
        text=Box(left, bottom - below, right, bottom) if below else None,
    )
