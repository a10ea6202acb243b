"""The query's picture: uploaded, pasted or taken from a result, and read by nothing but ImageAccess."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING

import gradio as gr
from gradio.data_classes import ImageData

from ...images.access import ImageAccess
from ...images.errors import ImageLoadError

if TYPE_CHECKING:
    from ...images.sources import ImageSource

_SHOWN_BY_BROWSERS = {
    "image/jpeg": ".jpg",
    "image/png": ".png",
    "image/gif": ".gif",
    "image/webp": ".webp",
    "image/bmp": ".bmp",
    "image/avif": ".avif",
}


class QueryPicture(gr.Image):
    """Gradio's picture box, whose uploads are handed on as the files that they are.

    Gradio would open an upload itself, before our limits are looked at.
    """

    def preprocess(self, payload: ImageData | None) -> str | None:
        """Return the path of the uploaded file; it is below Gradio's upload folder, or Gradio refuses it."""
        return None if payload is None or payload.path is None else payload.path

    def get_block_name(self) -> str:
        """Be shown as Gradio's own box."""
        return "image"


def query_access(folder: Path) -> ImageAccess:
    """Return the right to read query pictures: those in the folder of uploads alone, no URLs."""
    return ImageAccess(data_root=folder)


def check_upload(path: str, access: ImageAccess) -> None:
    """Make sure that an upload is a picture, within the limits of ``images/``; delete it if not.

    Raises:
        ImageLoadError: it is none; says why.
    """
    try:
        access.check(Path(path))
    except ImageLoadError:
        Path(path).unlink(missing_ok=True)
        raise


def keep(path: str) -> None:
    """Count the age of an upload, after which it is removed, from now on."""
    os.utime(path)


def copy_for_query(source: ImageSource, access: ImageAccess, folder: Path) -> str:
    """Put a result's picture where uploads are, to search for more like it.

    Args:
        source: the picture of a result.
        access: what may be read of the collection.
        folder: where uploads are.

    Returns:
        The copy: the same bytes, or a PNG of the same pixels where browsers do not show the format.

    Raises:
        ImageLoadError: it cannot be read any more.
    """
    checked = access.check(source)
    ending = _SHOWN_BY_BROWSERS.get(checked.info.mimetype)
    own = folder / secrets.token_hex(16)
    own.mkdir(parents=True)
    if ending is not None:
        copy = own / f"result{ending}"
        copy.write_bytes(checked.data)
        return str(copy)
    copy = own / "result.png"
    access.load(checked.data, apply_exif_orientation=False).save(copy)
    return str(copy)
