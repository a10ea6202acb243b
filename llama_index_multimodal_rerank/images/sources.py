"""Every way a picture comes in, as one Pillow image, within limits.

The picture is handed on in the mode of its file (``RGBA``, ``P``, ``CMYK``,
``I;16`` …), because Visualized BGE's reference preprocessing resizes *before*
it converts to RGB; converting here would move the vectors. What that
conversion then does: alpha is dropped (not blended), palettes are resolved,
grey is repeated, CMYK is converted without a profile, 16-bit grey is clipped
at 255. Of an animation the first frame is taken. EXIF orientation is ignored,
as by the reference, unless ``apply_exif_orientation`` is set.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import unquote_to_bytes

from .urls import AllowUrls, UrlError, fetch_url

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageFile import ImageFile

    ImageSource = str | os.PathLike[str] | bytes | bytearray | memoryview | BytesIO | Image

MAX_IMAGE_BYTES = 100 * 1024 * 1024
"""Encoded size above which a picture is refused, in bytes."""

MAX_IMAGE_PIXELS = 89_478_485
"""Width x height above which a picture is refused; Pillow's own warning threshold."""

MAX_ASPECT_RATIO = 1000
"""Longer side over shorter side above which a picture is refused; no model sees anything in it."""

IMAGE_FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "GIF", "TIFF", "BMP", "AVIF", "JPEG2000", "PPM")
"""Formats that are decoded. Others Pillow knows (EPS starts Ghostscript, PDF …) are refused."""

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


def resolve_within(source: ImageSource, data_root: str | os.PathLike[str] | None) -> ImageSource:
    """Make sure that a picture which is a file lies in a folder.

    Args:
        source: any picture; all but files pass.
        data_root: the folder, or None for no limit.

    Returns:
        The source; a file as its real path, with every ``..`` and symbolic link resolved, so that what is
        opened is what was checked.

    Raises:
        ImageLoadError: the file lies elsewhere. It is not looked at, so this does not tell whether it exists.
    """
    path = None if data_root is None or is_pil_image(source) else as_path(source)
    if data_root is None or path is None:
        return source
    try:
        real, root = path.resolve(), Path(data_root).expanduser().resolve()
    except (OSError, ValueError, RuntimeError) as error:  # a loop of links, or an embedded NUL
        raise ImageLoadError(describe_source(source), str(error)) from error
    if not real.is_relative_to(root):
        raise ImageLoadError(
            describe_source(source),
            f"it is outside of data_root={str(data_root)!r}, the only folder that pictures are read from",
        )
    return real


def read_image_bytes(
    source: ImageSource,
    *,
    allow_urls: AllowUrls = False,
    data_root: str | os.PathLike[str] | None = None,
    max_bytes: int = MAX_IMAGE_BYTES,
) -> bytes:
    """Return the encoded bytes of a picture that is not a Pillow image.

    Args:
        source: path (``str``, ``Path``, ``file://`` URL), bytes, ``BytesIO``, base64,
            data URI, or http(s) URL.
        allow_urls: fetch http(s) URLs: True for public addresses, or a list of the hosts to fetch
            from, which may be private. Off by default: a URL in a document must not make your
            machine call other machines.
        data_root: the only folder that files are read from, ``..`` and symbolic links resolved.
            Default: any file that the process may read.
        max_bytes: largest encoded size accepted.

    Raises:
        ImageNotFoundError: no such file.
        ImageLoadError: anything else that keeps the bytes from being read; says what to do.
    """
    name = describe_source(source)
    source = resolve_within(source, data_root)
    if isinstance(source, (bytes, bytearray, memoryview)):
        data = bytes(source)
    elif isinstance(source, BytesIO):
        data = source.getvalue()
    elif is_url(source):
        try:
            data = fetch_url(str(source), allow_urls=allow_urls, max_bytes=max_bytes)
        except UrlError as error:
            raise ImageLoadError(name, str(error)) from error
    elif isinstance(source, str) and source.startswith("data:"):
        data = _decode_data_uri(source)
    elif isinstance(source, (str, os.PathLike)):
        path = as_path(source)
        data = _decode_base64(str(source), name) if path is None else _read_file(path, max_bytes)
    else:
        raise TypeError(
            f"a picture must be a path, bytes, BytesIO, base64, data URI, URL or PIL image, got {name}"
        )
    if not data:
        raise ImageLoadError(name, "it is empty (0 bytes)")
    if len(data) > max_bytes:
        raise ImageLoadError(name, f"it has {len(data)} bytes, more than the limit of {max_bytes}")
    return data


def _read_file(path: Path, max_bytes: int) -> bytes:
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


def _decode_base64(text: str, name: str) -> bytes:
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except binascii.Error as error:
        raise ImageLoadError(name, f"no such file, and not valid base64 either ({error})") from error


def _decode_data_uri(uri: str) -> bytes:
    name = describe_source(uri[:40])
    header, comma, payload = uri.partition(",")
    if not comma:
        raise ImageLoadError(name, "the data URI has no comma before its data")
    if header.endswith(";base64"):
        return _decode_base64(unquote_to_bytes(payload).decode("ascii", "replace"), name)
    return unquote_to_bytes(payload)


def encoded_image(source: ImageSource) -> bytes:
    """Return a picture's encoded bytes as they are; those of a Pillow image as PNG."""
    if not is_pil_image(source):
        return read_image_bytes(source)
    buffer = BytesIO()
    source.save(buffer, format="PNG")  # type: ignore[union-attr]
    return buffer.getvalue()


def image_digest(source: ImageSource) -> str:
    """Return ``"sha256:<64 hex digits>"`` over the picture's encoded bytes.

    For a Pillow image the digest covers mode, size, palette and pixels. For a
    URL it covers the URL alone: its content is not known before it is fetched.
    """
    digest = hashlib.sha256()
    if is_pil_image(source):
        image: Image = source  # type: ignore[assignment]
        digest.update(f"{image.mode} {image.size}".encode())
        digest.update(bytes(image.getpalette() or ()))
        digest.update(image.tobytes())
    elif is_url(source):
        digest.update(str(source).encode())
    else:
        digest.update(read_image_bytes(source))
    return f"sha256:{digest.hexdigest()}"


def load_image(
    source: ImageSource,
    *,
    apply_exif_orientation: bool = False,
    allow_urls: AllowUrls = False,
    data_root: str | os.PathLike[str] | None = None,
    max_bytes: int = MAX_IMAGE_BYTES,
    max_pixels: int = MAX_IMAGE_PIXELS,
) -> Image:
    """Read and fully decode a picture.

    Args:
        source: path, bytes, ``BytesIO``, base64, data URI, Pillow image, or http(s) URL.
        apply_exif_orientation: turn the picture as its EXIF tag says. Off by default, as in
            the reference implementation, so that vectors match it.
        allow_urls: fetch http(s) URLs; see :func:`read_image_bytes`.
        data_root: the only folder that files are read from; see :func:`read_image_bytes`.
        max_bytes: largest encoded size accepted.
        max_pixels: largest width x height accepted, checked before decoding.

    Returns:
        The first frame, decoded, in the mode of the file (see the module's text). A Pillow
        image passes through, its limits checked.

    Raises:
        ImageLoadError: missing, empty, truncated, too large, not a picture, or of a format
            that is not in :data:`IMAGE_FORMATS`.
    """
    if is_pil_image(source):
        image: Image = source  # type: ignore[assignment]
        with _decoding_errors("<PIL image>", max_pixels):
            _check_pixels(image, "<PIL image>", max_pixels)
            image.load()
        return _turn(image) if apply_exif_orientation else image
    return decode_image(
        read_image_bytes(source, allow_urls=allow_urls, data_root=data_root, max_bytes=max_bytes),
        name=describe_source(source),
        apply_exif_orientation=apply_exif_orientation,
        max_pixels=max_pixels,
    )


def decode_image(
    data: bytes, *, name: str, apply_exif_orientation: bool = False, max_pixels: int = MAX_IMAGE_PIXELS
) -> Image:
    """Decode encoded bytes as :func:`load_image` does; ``name`` stands for them in errors."""
    with _decoding_errors(name, max_pixels):
        image = _open(data, name, max_pixels)
        image.load()
        return _turn(image) if apply_exif_orientation else image


def _turn(image: Image) -> Image:
    from PIL import ImageOps

    return ImageOps.exif_transpose(image)


class ImageInfo(NamedTuple):
    """What :func:`check_image` finds: size in pixels (as stored) and MIME type."""

    width: int
    height: int
    mimetype: str


def check_image(data: bytes, *, name: str, max_pixels: int = MAX_IMAGE_PIXELS) -> ImageInfo:
    """Make sure that encoded bytes decode to the end, as cheaply as possible.

    The whole stream is walked, but a JPEG is decoded at its smallest scale: enough to find
    every truncation, at a fraction of the time.

    Args:
        data: the encoded picture.
        name: stands for the picture in errors.
        max_pixels: largest width x height accepted, checked before decoding.

    Raises:
        ImageLoadError: as :func:`load_image`.
    """
    with _decoding_errors(name, max_pixels):
        image = _open(data, name, max_pixels)
        width, height = image.size
        mimetype = image.get_format_mimetype() or "application/octet-stream"
        image.draft("RGB", (1, 1))
        image.load()
    return ImageInfo(width, height, mimetype)


def _open(data: bytes, name: str, max_pixels: int) -> ImageFile:
    from PIL import Image as PILImage

    image = PILImage.open(BytesIO(data), formats=_available_formats())
    _check_pixels(image, name, max_pixels)
    return image


@contextmanager
def _decoding_errors(name: str, max_pixels: int) -> Iterator[None]:
    from PIL import Image as PILImage
    from PIL import UnidentifiedImageError

    try:
        yield
    except ImageLoadError:
        raise
    except UnidentifiedImageError as error:
        formats = ", ".join(_available_formats())
        raise ImageLoadError(name, f"it is not a picture in a known format ({formats})") from error
    except PILImage.DecompressionBombError as error:
        raise ImageLoadError(name, f"it has more pixels than the limit of {max_pixels}") from error
    except MemoryError as error:
        raise ImageLoadError(name, "there is not enough memory to decode it") from error
    except Exception as error:
        # Broken files make Pillow's decoders raise nearly anything (OSError, SyntaxError,
        # ValueError, struct.error, zlib.error, IndexError …); all mean the same to the caller.
        raise ImageLoadError(name, f"it is damaged or cut short ({error})") from error


def _available_formats() -> list[str]:
    from PIL import Image as PILImage

    PILImage.init()
    return [name for name in IMAGE_FORMATS if name in PILImage.OPEN]


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
