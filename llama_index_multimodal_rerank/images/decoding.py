"""From encoded bytes to a Pillow image, within limits.

The picture is handed on in the mode of its file (``RGBA``, ``P``, ``CMYK``,
``I;16`` …), because Visualized BGE's reference preprocessing resizes *before*
it converts to RGB; converting here would move the vectors. What that
conversion then does: alpha is dropped (not blended), palettes are resolved,
grey is repeated, CMYK is converted without a profile, 16-bit grey is clipped
at 255. Of an animation the first frame is taken. EXIF orientation is ignored,
as by the reference, unless ``apply_exif_orientation`` is set.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from typing import TYPE_CHECKING, NamedTuple

from .errors import ImageLoadError
from .heif import is_heif, register_heif
from .memory import check_memory
from .modes import encode_lossless, to_standard_mode
from .structure import check_structure
from .viewing import turn_upright

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageFile import ImageFile

MAX_IMAGE_PIXELS = 89_478_485
"""Width x height above which a picture is refused; Pillow's own warning threshold."""

MAX_ASPECT_RATIO = 1000
"""Longer side over shorter side above which a picture is refused; no model sees anything in it."""

IMAGE_FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "GIF", "TIFF", "BMP", "AVIF", "PPM", "HEIF")
"""Formats that are decoded. Others Pillow knows (EPS starts Ghostscript, PDF …) are refused.

HEIF needs pillow-heif, see ``heif.py``.
"""

OPTIONAL_FORMATS = ("JPEG2000",)
"""Formats that few need, decoded only where ``formats`` names them.

A JPEG 2000 of 100 bytes takes as much memory and time as the size it claims.
"""


def decode_image(
    data: bytes,
    *,
    name: str,
    apply_exif_orientation: bool = False,
    max_pixels: int = MAX_IMAGE_PIXELS,
    formats: Sequence[str] = IMAGE_FORMATS,
    shown_side: int | None = None,
) -> Image:
    """Decode encoded bytes.

    Args:
        data: the encoded picture.
        name: stands for the picture in errors.
        apply_exif_orientation: turn the picture as its EXIF tag says.
        max_pixels: largest width x height accepted, checked before decoding.
        formats: what to decode, of :data:`IMAGE_FORMATS` and :data:`OPTIONAL_FORMATS`.
        shown_side: the picture will be fitted whole into a square of so many pixels. A JPEG is then decoded
            at a half, a quarter or an eighth of its size, if that is not smaller. Pixels differ a little
            from those of a picture that is decoded in full and shrunk.

    Returns:
        The first frame, decoded, in the mode of the file (see the module's text).

    Raises:
        ImageLoadError: truncated, damaged, too large (see ``structure.py`` and ``memory.py``), or of a
            format that is not in ``formats``.
    """
    with _decoding_errors(name, max_pixels, formats):
        image = _open(data, name, max_pixels, formats)
        if shown_side is not None:
            image.draft(None, fitted_size(image.size, shown_side))
        image.load()
        return to_standard_mode(turn_upright(image) if apply_exif_orientation else image)


def fitted_size(size: tuple[int, int], side: int) -> tuple[int, int]:
    """Return the width and height of a picture that is fitted whole into a square, filling it one way."""
    width, height = size
    scale = side / max(size)
    return max(1, round(width * scale)), max(1, round(height * scale))


def check_pil_image(
    image: Image, *, apply_exif_orientation: bool = False, max_pixels: int = MAX_IMAGE_PIXELS
) -> Image:
    """Return a Pillow image, fully decoded, its limits checked; see :func:`decode_image`."""
    with _decoding_errors("<PIL image>", max_pixels):
        _check_pixels(image, "<PIL image>", max_pixels)
        image.load()
        return to_standard_mode(turn_upright(image) if apply_exif_orientation else image)


def encode_pil_image(image: Image, *, max_pixels: int = MAX_IMAGE_PIXELS) -> bytes:
    """Return a Pillow image, its limits checked, as the bytes of a PNG or TIFF; see :func:`encode_lossless`.

    Raises:
        ImageLoadError: closed, cut short, too large, or of a mode that no format knows.
    """
    with _decoding_errors("<PIL image>", max_pixels):
        return encode_lossless(check_pil_image(image, max_pixels=max_pixels))


class ImageInfo(NamedTuple):
    """What :func:`check_image` finds: size in pixels (as stored) and MIME type."""

    width: int
    height: int
    mimetype: str


def check_image(
    data: bytes, *, name: str, max_pixels: int = MAX_IMAGE_PIXELS, formats: Sequence[str] = IMAGE_FORMATS
) -> ImageInfo:
    """Make sure that encoded bytes decode to the end, as cheaply as possible.

    The whole stream is walked, but a JPEG is decoded at its smallest scale: enough to find
    every truncation, at a fraction of the time.

    Args:
        data: the encoded picture.
        name: stands for the picture in errors.
        max_pixels: largest width x height accepted, checked before decoding.
        formats: what to decode, of :data:`IMAGE_FORMATS` and :data:`OPTIONAL_FORMATS`.

    Raises:
        ImageLoadError: as :func:`decode_image`.
    """
    with _decoding_errors(name, max_pixels, formats):
        image = _open(data, name, max_pixels, formats)
        width, height = image.size
        mimetype = image.get_format_mimetype() or "application/octet-stream"
        image.draft("RGB", (1, 1))
        image.load()
    return ImageInfo(width, height, mimetype)


def _open(data: bytes, name: str, max_pixels: int, formats: Sequence[str]) -> ImageFile:
    from PIL import Image as PILImage

    check_structure(data, name)
    if "HEIF" in formats and is_heif(data):
        register_heif(name)
    image = PILImage.open(BytesIO(data), formats=_available(formats))
    _check_pixels(image, name, max_pixels)
    check_memory(image, name, max_pixels)
    return image


@contextmanager
def _decoding_errors(name: str, max_pixels: int, formats: Sequence[str] = IMAGE_FORMATS) -> Iterator[None]:
    from PIL import Image as PILImage
    from PIL import UnidentifiedImageError

    try:
        yield
    except ImageLoadError:
        raise
    except UnidentifiedImageError as error:
        known = ", ".join(_available(formats))
        raise ImageLoadError(
            name,
            f"it is not a picture in a known format ({known}); of others, such as "
            f"{', '.join(OPTIONAL_FORMATS)}, make a PNG or JPEG",
        ) from error
    except PILImage.DecompressionBombError as error:
        raise ImageLoadError(name, f"it has more pixels than the limit of {max_pixels}") from error
    except MemoryError as error:
        raise ImageLoadError(name, "there is not enough memory to decode it") from error
    except Exception as error:
        # Broken files make Pillow's decoders raise nearly anything (OSError, SyntaxError,
        # ValueError, struct.error, zlib.error, IndexError …); all mean the same to the caller.
        raise ImageLoadError(name, f"it is damaged or cut short ({error})") from error


def check_formats(formats: Sequence[str]) -> None:
    """Make sure that formats are names of what may be decoded at all.

    Raises:
        ValueError: one of them is not in :data:`IMAGE_FORMATS` or :data:`OPTIONAL_FORMATS`.
    """
    allowed = (*IMAGE_FORMATS, *OPTIONAL_FORMATS)
    unknown = sorted({*formats} - {*allowed})
    if unknown or isinstance(formats, str):
        raise ValueError(f"formats must be some of {allowed}, got {formats!r}")


def _available(formats: Sequence[str]) -> list[str]:
    from PIL import Image as PILImage

    PILImage.init()
    return [name for name in formats if name in PILImage.OPEN]


def _check_pixels(image: Image, name: str, max_pixels: int) -> None:
    width, height = image.size
    if width * height > max_pixels:
        raise ImageLoadError(
            name,
            f"it has {width} x {height} = {width * height} pixels, more than the limit of {max_pixels}",
        )
    if max(width, height) > MAX_ASPECT_RATIO * min(width, height):  # true of empty ones too
        raise ImageLoadError(
            name,
            f"its {width} x {height} pixels are too narrow a picture (more than {MAX_ASPECT_RATIO} to 1)",
        )
