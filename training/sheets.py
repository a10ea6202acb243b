"""Sheets of training pictures, put together from memory maps without drawing anything twice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from PIL import Image

from llama_index_multimodal_rerank.models.hd_geometry import TOKENS_PER_SIDE
from llama_index_multimodal_rerank.reranking.sheet import Cell, build_sheet
from llama_index_multimodal_rerank.reranking.sheet_layout import TILE, Box, SheetLayout, plan_sheet

from .pictures import Drawn

Uint8Array = npt.NDArray[np.uint8]

NUM_CROPS = 1
"""Tiles that the demo's reranker looks at. The global view of such a sheet is the same tile once more."""

PATCH = 14
PATCHES_PER_SIDE = TILE // PATCH
WINDOW = 6
"""Patches per side of a window around a picture of at most 75 pixels, wherever it lies."""


WAYS = {"whole": 0.65, "window": 0.1, "mosaic": 0.15, "blurred": 0.1}
"""How a picture is shown to the tower in training, and how often.

A tower that is shown whole products alone learns each surface on each kind by itself, and fails on the pairs
held out. So it must read surfaces without outlines (through a window; as a mosaic of pieces), at the scale
they have on sheets, and kinds without surfaces (blurred).
"""


@dataclass(frozen=True)
class Change:
    """What a picture may look like without showing something else.

    Attributes:
        corner: where the part that is shown begins, across and down, as shares of the picture.
        scale: side of that part.
        mirrored: left is right.
        light: factor of brightness.
        way: one of ``WAYS``.
        ground: colour around a window.
    """

    corner: tuple[float, float]
    scale: float
    mirrored: bool
    light: float
    way: str
    ground: tuple[int, int, int]


@dataclass(frozen=True)
class Pick:
    """One picture of a set.

    Attributes:
        drawn: the set.
        index: its place there.
        change: how it is changed, or None.
    """

    drawn: Drawn
    index: int
    change: Change | None = None

    @property
    def hides_kind(self) -> bool:
        """Whether the outline is not to be seen."""
        return self.change is not None and self.change.way in ("window", "mosaic")

    @property
    def hides_surface(self) -> bool:
        """Whether the surface is not to be seen."""
        return self.change is not None and self.change.way == "blurred"

    def changed(self, rng: np.random.Generator, *, hide: bool = False) -> Pick:
        """Return the picture mirrored, moved and lit at random.

        Args:
            rng: random numbers.
            hide: hide outline or surface at times.
        """
        scale = float(rng.uniform(0.86, 1.0))
        left, top = rng.uniform(0, 1 - scale, 2).tolist()
        way = str(rng.choice(list(WAYS), p=list(WAYS.values()))) if hide else "whole"
        light, mirrored = float(rng.uniform(0.85, 1.12)), bool(rng.random() < 0.5)
        ground = tuple(rng.integers(0, 256, 3).tolist())
        return replace(self, change=Change((left, top), scale, mirrored, light, way, ground))  # type: ignore[arg-type]

    def at(self, side: int) -> Uint8Array:
        """Return the picture with a given side, (side, side, 3)."""
        pictures = self.drawn.pictures
        if self.change is not None:
            return self._changed_at(side, self.change)
        if side in pictures:
            return pictures[side][self.index]
        nearest = min((size for size in pictures if size >= side), default=max(pictures))
        picture = Image.fromarray(pictures[nearest][self.index])
        return np.asarray(picture.resize((side, side), Image.Resampling.LANCZOS), dtype=np.uint8)

    def _changed_at(self, side: int, change: Change) -> Uint8Array:
        pictures = self.drawn.pictures
        largest = max(pictures)
        left, top = (share * largest for share in change.corner)
        box = (left, top, left + change.scale * largest, top + change.scale * largest)
        picture = Image.fromarray(pictures[largest][self.index])
        shown = picture.resize((side, side), Image.Resampling.BICUBIC, box=box)
        if change.way == "blurred":
            shown = shown.resize((11, 11), Image.Resampling.BOX).resize(
                (side, side), Image.Resampling.BICUBIC
            )
        pixels = np.asarray(shown)
        if change.way in ("window", "mosaic"):
            first = side // 4
            middle = pixels[first : first + side // 2, first : first + side // 2]
            if change.way == "mosaic":
                pixels = np.pad(middle, ((first, side - first - side // 2),) * 2 + ((0, 0),), mode="reflect")
            else:
                pixels = np.full_like(pixels, change.ground)
                pixels[first : first + side // 2, first : first + side // 2] = middle
        if change.mirrored:
            pixels = pixels[:, ::-1]
        return np.clip(pixels * np.float32(change.light), 0, 255).astype(np.uint8)


def compose(candidates: Sequence[Pick], query: Pick | None) -> tuple[Uint8Array, SheetLayout]:
    """Return what ``build_sheet`` would draw, (336, 336, 3), and where it lies."""
    layout, page = _page(len(candidates), query is not None)
    page = page.copy()
    for pick, boxes in zip(candidates, layout.cells, strict=True):
        _paste(page, pick, boxes.picture)
    if query is not None and layout.query is not None:
        _paste(page, query, layout.query.picture)
    return page, layout


def _paste(page: Uint8Array, pick: Pick, box: Box) -> None:
    page[box.top : box.bottom, box.left : box.right] = pick.at(box.size[0])


@lru_cache(maxsize=64)
def _page(num_cells: int, query: bool) -> tuple[SheetLayout, Uint8Array]:
    layout = plan_sheet(num_cells, query=query, num_crops=NUM_CROPS)
    blank = Image.new("RGB", (8, 8), "white")
    sheet = build_sheet([Cell(blank)] * num_cells, blank if query else None, num_crops=NUM_CROPS)
    return layout, np.asarray(sheet.image, dtype=np.uint8)


def patches_of(box: Box) -> npt.NDArray[np.int64]:
    """Return which of the 24 x 24 patches show a box, row by row."""
    rows = np.arange(box.top // PATCH, -(-box.bottom // PATCH))
    columns = np.arange(box.left // PATCH, -(-box.right // PATCH))
    return (rows[:, None] * PATCHES_PER_SIDE + columns).reshape(-1)


def tokens_of(box: Box) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return which rows and which columns of the decoder's 12 x 12 tokens show a box, by their middles."""
    middles = 2 * PATCH * np.arange(TOKENS_PER_SIDE) + PATCH
    return (
        np.flatnonzero((middles >= box.top) & (middles < box.bottom)),
        np.flatnonzero((middles >= box.left) & (middles < box.right)),
    )


def window_of(box: Box, size: int = WINDOW) -> tuple[int, int]:
    """Return the first patch row and column of the window of some patches per side around a box."""
    last = PATCHES_PER_SIDE - size
    return min(box.top // PATCH, last), min(box.left // PATCH, last)
