"""Pictures as people see them: upright, and with the depth of a screen.

For a model that looks. Embedding does neither by default: Visualized BGE's reference ignores EXIF and clips
deep pictures at 255, and vectors must match it.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from PIL.Image import Image

_ORIENTATION_TAG = 0x0112
_ORIENTATION_BLOCKS = ("exif", "Raw profile type exif", "xmp", "XML:com.adobe.xmp")
_FULL_SCALES = (255, 1023, 4095, 16383, 65535)  # of 8, 10, 12, 14 and 16 bits
_LARGEST_INDEX = 16
_STRIP_ROWS = 256


def turn_upright(image: Image) -> Image:
    """Return a picture turned as its EXIF tag says; as it is if the tag is missing or its block broken."""
    from PIL import Image as PILImage

    try:
        orientation = image.getexif().get(_ORIENTATION_TAG, 1)
    except Exception:  # a broken block: nearly anything (SyntaxError, struct.error, KeyError …)
        return image
    turns = {
        2: PILImage.Transpose.FLIP_LEFT_RIGHT,
        3: PILImage.Transpose.ROTATE_180,
        4: PILImage.Transpose.FLIP_TOP_BOTTOM,
        5: PILImage.Transpose.TRANSPOSE,
        6: PILImage.Transpose.ROTATE_270,
        7: PILImage.Transpose.TRANSVERSE,
        8: PILImage.Transpose.ROTATE_90,
    }
    turn = turns.get(orientation) if isinstance(orientation, int) else None
    if turn is None:
        return image
    turned = image.transpose(turn)
    for block in _ORIENTATION_BLOCKS:  # or the next to look would turn it again
        turned.info.pop(block, None)
    return turned


def to_screen_depth(image: Image) -> Image:
    """Return 16-bit, 32-bit and float grey as 8-bit grey that looks the same; other pictures as they are.

    With negative values, black is the lowest and white the highest. Otherwise black is 0, and white the full
    scale of the smallest common depth that holds the highest value:

    ===================  =========================================
    highest value        white
    ===================  =========================================
    up to 1              1: fractions, masks
    up to 16             the highest value: class numbers
    up to 65,535         255, 1,023, 4,095, 16,383 or 65,535
    more                 the highest value
    ===================  =========================================

    Values that are not numbers are black.
    """
    if not image.mode.startswith(("I", "F")):
        return image
    import numpy as np
    from PIL import Image as PILImage

    strips = [(top, min(top + _STRIP_ROWS, image.height)) for top in range(0, image.height, _STRIP_ROWS)]
    lowest, highest = math.inf, -math.inf
    for strip in strips:
        values = _finite(image, strip)
        lowest, highest = min(lowest, float(values.min())), max(highest, float(values.max()))
    black = min(lowest, 0.0)
    if lowest < 0:
        white = max(highest, lowest + 1)
    elif highest <= 1:
        white = 1.0
    elif highest <= _LARGEST_INDEX:
        white = highest
    else:
        white = next((scale for scale in _FULL_SCALES if highest <= scale), highest)
    shown = PILImage.new("L", image.size)
    for top, bottom in strips:
        values = (_finite(image, (top, bottom)) - black) / (white - black) * 255
        shown.paste(PILImage.fromarray(np.rint(values).astype(np.uint8)), (0, top))
    return shown


def _finite(image: Image, strip: tuple[int, int]) -> npt.NDArray[np.float64]:
    """Return some rows as numbers, each strip for itself: a whole picture would take 8 bytes a pixel."""
    import numpy as np

    rows = np.asarray(image.crop((0, strip[0], image.width, strip[1])), dtype=np.float64)
    return np.nan_to_num(rows, nan=0.0, posinf=0.0, neginf=0.0)
