"""Every way a picture comes in: path, bytes, base64, data URI, URL, Pillow image.

What is read from where, and how it is named. Which of them may be read is decided in
:mod:`~llama_index_multimodal_rerank.images.access`.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import re
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote_to_bytes

from .errors import ImageLoadError as ImageLoadError
from .errors import ImageNotFoundError as ImageNotFoundError

if TYPE_CHECKING:
    from PIL.Image import Image

    ImageSource = str | os.PathLike[str] | bytes | bytearray | memoryview | BytesIO | Image

# Schemes are told as browsers do: in any case of letters, behind white space.
_SCHEME_URL = re.compile(r"\s*https?://", re.IGNORECASE)
_SCHEME_DATA = re.compile(r"\s*data:", re.IGNORECASE)
_SCHEME_FILE = re.compile(r"\s*file:(?://(?:localhost(?=/))?)?(?=/)", re.IGNORECASE)
_BASE64 = re.compile(r"[A-Za-z0-9+/_\s-]{16,}={0,2}\s*\Z")
_URL_SAFE = str.maketrans("-_", "+/")
_SHORTEST_BASE64 = 40  # no picture is smaller
_LONGEST_PATH = 4096  # PATH_MAX of Linux; 1024 on macOS
_PICTURE_START = re.compile(
    rb"\xff\xd8\xff"  # JPEG
    rb"|\x89PNG\r\n"
    rb"|GIF8"
    rb"|RIFF....WEBP"
    rb"|II[*+]\0|MM\0[*+]"  # TIFF, BigTIFF
    rb"|BM.{12}[\x0c\x28\x34\x38\x40\x6c\x7c]\0\0\0"  # BMP: its second header has one of these lengths
    rb"|\0\0..ftyp(?:avi[fs]|mi[af]1|msf1|he[iv][cxms])"  # AVIF, HEIC; other names are films
    rb"|\0\0\0\x0cjP  |\xff\x4f\xff\x51"  # JPEG 2000
    rb"|P(?:[1-7Ff]|yP|yRGBA|yCMYK)\s+[#\d]",  # PPM and relatives
    re.DOTALL,
)
"""How pictures begin."""


def describe_source(source: ImageSource) -> str:
    """Name a picture source in an error message or a log line, in at most about 120 characters of it.

    Line ends and all else that does not print are written as escapes.
    """
    if isinstance(source, (str, os.PathLike)):
        name = os.fspath(source)
        return repr(name if len(name) <= 120 else f"{name[:100]}… ({len(name)} characters)")
    if isinstance(source, (bytes, bytearray, memoryview)):
        return f"<{len(source)} bytes>"
    return f"<{type(source).__name__}>"


def is_url(source: object) -> bool:
    """Tell whether ``source`` is an http(s) address."""
    return isinstance(source, str) and _SCHEME_URL.match(source) is not None


def is_pil_image(source: object) -> bool:
    """Tell whether ``source`` is a Pillow image, without importing Pillow for the answer."""
    if isinstance(source, (str, Path, bytes)):
        return False
    return any(cls.__module__ == "PIL.Image" and cls.__qualname__ == "Image" for cls in type(source).__mro__)


def as_path(source: ImageSource) -> Path | None:
    """Return the local path that ``source`` names, or None for every other kind of source.

    A ``str`` is a path unless it is a URL, a data URI, or base64. That is told by its letters alone:
    base64 is what decodes to the first bytes of a picture, or is too long for a path. So the answer
    is the same each time, whatever files there are, and tells nothing about them.
    """
    if isinstance(source, os.PathLike):
        return Path(source)
    if not isinstance(source, str) or is_url(source) or is_data_uri(source) or is_base64(source):
        return None
    scheme = _SCHEME_FILE.match(source)
    if scheme is not None:
        from urllib.request import url2pathname

        return Path(url2pathname(source[scheme.end() :].rstrip()))
    return Path(source)


def is_data_uri(source: object) -> bool:
    """Tell whether ``source`` is a data URI."""
    return isinstance(source, str) and _SCHEME_DATA.match(source) is not None


def is_base64(source: str) -> bool:
    """Tell whether a text is base64 of a picture, or base64 that is too long for a path."""
    if len(source) < _SHORTEST_BASE64 or not _BASE64.match(source):
        return False
    if len(source) > _LONGEST_PATH:
        return True
    start = "".join(source.split())[:_SHORTEST_BASE64]
    return begins_as_picture(decode_base64(start[: len(start) // 4 * 4], ""))


def begins_as_picture(start: bytes) -> bool:
    """Tell whether a file's first 32 bytes are those of a picture, of a format that can be decoded."""
    return _PICTURE_START.match(start) is not None


def decode_base64(text: str, name: str) -> bytes:
    """Decode base64 of either alphabet, padded or not, with any white space in it.

    Args:
        text: what to decode; both ``+/`` and the ``-_`` of URLs are read.
        name: stands for it in errors.

    Raises:
        ImageLoadError: it is not base64.
    """
    digits = "".join(text.split()).translate(_URL_SAFE).rstrip("=")
    try:
        return base64.b64decode(digits + "=" * (-len(digits) % 4), validate=True)
    except (binascii.Error, ValueError) as error:  # ValueError: letters that are not ASCII
        raise ImageLoadError(name, f"it is not valid base64 ({error})") from error


def decode_data_uri(uri: str) -> bytes:
    """Decode a data URI, base64 or percent-encoded; ImageLoadError if it is none."""
    name = describe_source(uri[:40])
    header, comma, payload = uri.partition(",")
    if not comma:
        raise ImageLoadError(name, "the data URI has no comma before its data")
    if header.rstrip().lower().endswith(";base64"):
        return decode_base64(unquote_to_bytes(payload).decode("ascii", "replace"), name)
    return unquote_to_bytes(payload)


def bytes_digest(data: bytes) -> str:
    """Return ``"sha256:<64 hex digits>"`` over encoded bytes."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def pixels_digest(image: Image) -> str:
    """Return ``"sha256:<64 hex digits>"`` over all that makes a Pillow image look as it does."""
    digest = hashlib.sha256(f"{image.mode} {image.size} {image.info.get('transparency')}".encode())
    digest.update(bytes(image.getpalette() or ()))
    digest.update(image.tobytes())
    return f"sha256:{digest.hexdigest()}"
