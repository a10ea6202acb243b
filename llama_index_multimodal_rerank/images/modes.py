"""Pillow's modes: which of them go on as they are, and how a picture of any mode is kept as bytes."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image

_TIFF_MODES = frozenset({"CMYK", "F", "I", "I;16B", "I;16L", "PA"})
# No lossless format has these, or Pillow cannot read what it writes (YCbCr, up to 12.0 at least). They exist
# between two steps of a computation, and convert without a loss that could be seen.
_STANDARD_MODES = {"HSV": "RGB", "I;16N": "I", "La": "LA", "RGBX": "RGB", "RGBa": "RGBA", "YCbCr": "RGB"}


def to_standard_mode(image: Image) -> Image:
    """Return a picture in a mode that can be kept as bytes and turned into RGB: itself if it can.

    Raises:
        ValueError: the mode is LAB and Pillow was built without LittleCMS, or Pillow does not know the mode.
    """
    if image.mode == "LAB":
        return _lab_to_rgb(image)
    if image.mode in _STANDARD_MODES:
        return image.convert(_STANDARD_MODES[image.mode])
    return image


def _lab_to_rgb(image: Image) -> Image:
    try:
        from PIL import ImageCms
    except ImportError as error:
        raise ValueError("mode LAB needs a Pillow with LittleCMS; convert it to RGB first") from error
    lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    converted = ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB")
    if converted is None:
        raise ValueError("mode LAB cannot be converted to RGB")
    return converted


def encode_lossless(image: Image) -> bytes:
    """Return a picture as the bytes of a PNG, or of a TIFF where PNG does not know its mode.

    Decoded, they have the same mode and pixels, apart from the modes that :func:`to_standard_mode` converts.
    """
    image = to_standard_mode(image)
    buffer = BytesIO()
    if image.mode in _TIFF_MODES:
        image.save(buffer, format="TIFF", compression="raw")  # not that of the file it may come from
    else:
        image.save(buffer, format="PNG")
    return buffer.getvalue()
