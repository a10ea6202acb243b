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

if TYPE_CHECKING:
    from PIL.Image import Image

    ImageSource = str | os.PathLike[str] | bytes | bytearray | memoryview | BytesIO | Image

_URL_SCHEMES = ("http://", "https://")
_BASE64 = re.compile(r"[A-Za-z0-9+/\s]{16,}={0,2}\s*\Z")


class ImageLoadError(ValueError):
    """A picture that cannot be read.

    Attributes:
        source: the picture as people would name it: a path, a URL, or a short description.
        reason: what is wrong with it.
    """

    def __init__(self, source: str, reason: str) -> None:
        super().__init__(source, reason)
        self.source = source
        self.reason = reason

    def __str__(self) -> str:
        return f"cannot read the picture {self.source}: {self.reason}"


class ImageNotFoundError(ImageLoadError, FileNotFoundError):
    """A picture file that does not exist."""

    __str__ = ImageLoadError.__str__


def describe_source(source: ImageSource) -> str:
    """Name a picture source in an error message or a log line, in at most about 120 characters."""
    if isinstance(source, (str, os.PathLike)):
        name = os.fspath(source)
        return repr(name if len(name) <= 120 else f"{name[:100]}… ({len(name)} characters)")
    if isinstance(source, (bytes, bytearray, memoryview)):
        return f"<{len(source)} bytes>"
    return f"<{type(source).__name__}>"


def is_url(source: object) -> bool:
    """Tell whether ``source`` is an http(s) address."""
    return isinstance(source, str) and source[:8].lower().startswith(_URL_SCHEMES)


def is_pil_image(source: object) -> bool:
    """Tell whether ``source`` is a Pillow image, without importing Pillow for the answer."""
    return any(cls.__module__ == "PIL.Image" and cls.__qualname__ == "Image" for cls in type(source).__mro__)


def as_path(source: ImageSource) -> Path | None:
    """Return the local path that ``source`` names, or None for every other kind of source.

    A ``str`` is a path unless it is a URL, a data URI, or base64 of a picture
    under whose name no file exists.
    """
    if isinstance(source, os.PathLike):
        return Path(source)
    if not isinstance(source, str) or is_url(source) or source.startswith("data:"):
        return None
    if source.startswith("file://"):
        from urllib.request import url2pathname

        return Path(url2pathname(source[len("file://") :]))
    if len(source) >= 64 and _BASE64.match(source) and not _exists(source):
        return None
    return Path(source)


def _exists(name: str) -> bool:
    try:
        return Path(name).exists()
    except (OSError, ValueError):  # too long for a file name, or an embedded NUL
        return False


def read_file(path: Path, max_bytes: int) -> bytes:
    """Return the bytes of a regular file.

    Args:
        path: the file.
        max_bytes: largest size accepted.

    Raises:
        ImageNotFoundError: no such file.
        ImageLoadError: not a regular file, too large, or not readable.
    """
    name = describe_source(path)
    try:
        if not path.is_file():
            if not path.exists():
                raise ImageNotFoundError(name, "no such file")
            raise ImageLoadError(name, "it is not a regular file")
        size = path.stat().st_size
        if size > max_bytes:
            raise ImageLoadError(name, f"it has {size} bytes, more than the limit of {max_bytes}")
        return path.read_bytes()
    except (OSError, ValueError) as error:
        if isinstance(error, ImageLoadError):
            raise
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise ImageLoadError(name, reason) from error


def decode_base64(text: str, name: str) -> bytes:
    """Decode base64 with any white space in it; ``name`` stands for it in the ImageLoadError."""
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except binascii.Error as error:
        raise ImageLoadError(name, f"no such file, and not valid base64 either ({error})") from error


def decode_data_uri(uri: str) -> bytes:
    """Decode a data URI, base64 or percent-encoded; ImageLoadError if it is none."""
    name = describe_source(uri[:40])
    header, comma, payload = uri.partition(",")
    if not comma:
        raise ImageLoadError(name, "the data URI has no comma before its data")
    if header.endswith(";base64"):
        return decode_base64(unquote_to_bytes(payload).decode("ascii", "replace"), name)
    return unquote_to_bytes(payload)


def encode_png(image: Image) -> bytes:
    """Return a Pillow image as the bytes of a PNG."""
    buffer = BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


def bytes_digest(data: bytes) -> str:
    """Return ``"sha256:<64 hex digits>"`` over encoded bytes."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def pixels_digest(image: Image) -> str:
    """Return ``"sha256:<64 hex digits>"`` over mode, size, palette and pixels of a Pillow image."""
    digest = hashlib.sha256(f"{image.mode} {image.size}".encode())
    digest.update(bytes(image.getpalette() or ()))
    digest.update(image.tobytes())
    return f"sha256:{digest.hexdigest()}"
