"""The query's picture: uploaded, pasted or taken from a result, and read by nothing but ImageAccess."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Any

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


def query_picture(**options: Any) -> gr.Image:
    """Return Gradio's picture box, with uploads handed on as the files that they are.

    Gradio would open an upload itself, before our limits are looked at. (A subclass would say the same, but
    Gradio writes a ``.pyi`` beside the source of every subclass.)

    Args:
        **options: of ``gr.Image``.
    """
    picture = gr.Image(type="filepath", **options)
    picture.preprocess = _uploaded_file
    return picture


def _uploaded_file(payload: ImageData | None) -> str | None:
    """Return the path of an upload, which Gradio has made sure to be below its folder of uploads."""
    return None if payload is None or payload.path is None else payload.path


def query_access(folder: Path) -> ImageAccess:
    """Return the right to read query pictures: those in the folder of uploads alone, no URLs."""
    return ImageAccess(data_root=folder)


def read_upload(path: str, access: ImageAccess) -> bytes:
    """Return the bytes of an upload that is a picture within the limits of ``images/``; delete others.

    Its age, after which it is removed, counts from now on.

    Raises:
        ImageLoadError: it is none, or it is not there any more; says why.
    """
    try:
        data = access.check(Path(path)).data
        os.utime(path)
    except FileNotFoundError as error:  # ImageNotFoundError among them
        raise ImageLoadError(Path(path).name, "it was removed meanwhile: choose it again") from error
    except ImageLoadError:
        Path(path).unlink(missing_ok=True)
        raise
    return data


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
