"""Whether two pictures are the same picture, encoded or scaled differently.

Told by the pictures, not by vectors of a model: a model is made to find things alike that are not the same,
and each has a threshold of its own. Both pictures are averaged over a grid of 16 x 16 cells, and the cells'
colours compared. Hashes of brightness (dHash, pHash) find a red mug and the same mug in blue to be one; the
figures are in docs/catalogues.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt
    from PIL.Image import Image

GRID = 16
"""Cells in a row and in a column."""

SHOWN_SIDE = 256
"""Pixels that a JPEG is decoded to: sixteen for each cell, whose average is taken."""

_MEAN_SHARE = 6
_SAME_SHAPE = 1.05


@dataclass(frozen=True, eq=False)
class Thumbnail:
    """The average colours of a picture's cells.

    Attributes:
        cells: 16 x 16 x 3, RGB from 0 to 255.
        aspect: width over height.
    """

    cells: npt.NDArray[np.int16]
    aspect: float

    def is_like(self, other: Thumbnail, tolerance: float) -> bool:
        """Tell whether both are of one picture.

        They are if their shapes differ by at most 5 %, no cell differs by more than ``tolerance`` in red,
        green or blue, and the average difference is at most a sixth of it.

        Args:
            other: the other picture.
            tolerance: from 0 to 255.
        """
        if not 1 / _SAME_SHAPE <= self.aspect / other.aspect <= _SAME_SHAPE:
            return False
        differences = np.abs(self.cells - other.cells)
        return bool(differences.max() <= tolerance and differences.mean() <= tolerance / _MEAN_SHARE)


def make_thumbnail(image: Image) -> Thumbnail:
    """Average a picture over the cells; what is transparent is white, as in a shop."""
    from PIL import Image as PILImage

    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = PILImage.alpha_composite(PILImage.new("RGBA", image.size, "white"), image)
    small = image.convert("RGB").resize((GRID, GRID), PILImage.Resampling.BOX)
    return Thumbnail(np.asarray(small, dtype=np.int16), image.width / image.height)
