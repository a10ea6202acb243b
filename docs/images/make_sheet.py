"""Draw docs/images/sheet.png: nine photographs that come with scikit-image, and a query for one of them.

What scikit-image says of them: CC0 are brick and gravel (CC0Textures), chelsea (Stefan van der Walt), coffee
(Rachel Michetti) and grass (linolafett); in the public domain are astronaut, hubble_deep_field (both NASA)
and rocket (SpaceX); of coins (Brooklyn Museum) no copyright restrictions are known.
"""

from __future__ import annotations

from pathlib import Path

import skimage
from PIL import Image

from llama_index_multimodal_rerank import Cell, build_sheet

PHOTOGRAPHS = Path(skimage.__file__).parent / "data"
NAMES = (
    *("rocket.jpg", "coffee.png", "grass.png", "hubble_deep_field.jpg", "chelsea.png"),
    *("brick.png", "astronaut.png", "coins.png", "gravel.png"),
)
FACE = (70, 20, 390, 280)
"""Where the cat's face is on chelsea.png: left, top, right, bottom."""


def main() -> None:
    """Write the picture beside this file."""
    cells = [Cell(Image.open(PHOTOGRAPHS / name).convert("RGB")) for name in NAMES]
    query = Image.open(PHOTOGRAPHS / "chelsea.png").crop(FACE)
    sheet = build_sheet(cells, query, num_crops=4)
    sheet.image.quantize(128).save(Path(__file__).with_name("sheet.png"), optimize=True)


if __name__ == "__main__":
    main()
