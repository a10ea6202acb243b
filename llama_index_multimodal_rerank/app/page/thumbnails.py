"""Small copies of pictures, within the page itself: nothing of a catalogue is served as a file."""

from __future__ import annotations

import base64
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from ...images.access import ImageAccess
from ...images.errors import ImageLoadError
from ...images.sources import as_path
from ...images.viewing import to_screen_depth

if TYPE_CHECKING:
    from PIL.Image import Image

    from ...images.sources import ImageSource

SIDE = 240
"""Longest side of a thumbnail, in pixels."""

_KEPT = 2048


def data_uri(image: Image, *, quality: int = 82) -> str:
    """Return a picture as a ``data:`` URI; as JPEG, transparent parts on white."""
    from PIL import Image as PILImage

    if image.mode not in ("RGB", "L"):
        white = PILImage.new("RGBA", image.size, "white")
        image = PILImage.alpha_composite(white, image.convert("RGBA")).convert("RGB")
    buffer = BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def thumbnail(source: ImageSource, access: ImageAccess) -> tuple[str, str]:
    """Return a picture, upright and small, as a ``data:`` URI, and why there is none.

    Args:
        source: the picture.
        access: what may be read.

    Returns:
        The URI and ``""``; or ``""`` and the reason why the picture cannot be read.
    """
    try:
        if (path := as_path(source)) is None:
            return _shrink(source, access), ""
        found = path.stat()
        return _shrink_file(path, access, found.st_mtime_ns, found.st_size), ""
    except ImageLoadError as error:
        return "", error.reason
    except OSError as error:
        return "", error.strerror or str(error)


@lru_cache(maxsize=_KEPT)
def _shrink_file(path: Path, access: ImageAccess, modified: int, size: int) -> str:
    """Shrink a file once for as long as it stays as it is."""
    return _shrink(path, access)


def _shrink(source: ImageSource, access: ImageAccess) -> str:
    from PIL import Image as PILImage

    image = access.load(source, shown_side=SIDE, apply_exif_orientation=True)
    image = to_screen_depth(image)
    image.thumbnail((SIDE, SIDE), PILImage.Resampling.LANCZOS)
    return data_uri(image)
