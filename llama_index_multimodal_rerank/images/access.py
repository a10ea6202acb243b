"""ImageAccess: what may be read, decided once and handed on as one value."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, NamedTuple

from .decoding import (
    IMAGE_FORMATS,
    MAX_IMAGE_PIXELS,
    ImageInfo,
    check_formats,
    check_image,
    check_pil_image,
    decode_image,
    encode_pil_image,
)
from .errors import ImageLoadError, UrlError
from .files import read_file
from .sources import (
    as_path,
    bytes_digest,
    decode_base64,
    decode_data_uri,
    describe_source,
    is_data_uri,
    is_pil_image,
    is_url,
    pixels_digest,
)
from .url_hosts import AllowUrls, check_allow_urls
from .urls import fetch_url

if TYPE_CHECKING:
    from PIL.Image import Image

    from .sources import ImageSource

MAX_IMAGE_BYTES = 100 * 1024 * 1024
"""Encoded size above which a picture is refused, in bytes."""


class CheckedImage(NamedTuple):
    """What :meth:`ImageAccess.check` finds in one visit of the file.

    Attributes:
        data: the encoded bytes.
        info: size in pixels and MIME type.
        digest: ``"sha256:…"`` over ``data``.
    """

    data: bytes
    info: ImageInfo
    digest: str


@dataclass(frozen=True)
class ImageAccess:
    """Which pictures may be read, and how large they may be.

    Every picture of the package is read through one of these.

    Args:
        allow_urls: fetch http(s) URLs: True for public addresses, or a list of the hosts to fetch
            from, which may be private. Off by default: a URL in a document must not make your
            machine call other machines.
        data_root: the only folder that files are read from, ``..`` and symbolic links resolved.
            Default: any file that the process may read.
        max_bytes: largest encoded size accepted.
        max_pixels: largest width x height accepted, checked before decoding.
        formats: what is decoded, of :data:`~.decoding.IMAGE_FORMATS` (default: all of these) and
            :data:`~.decoding.OPTIONAL_FORMATS`.

    Raises:
        ValueError: ``allow_urls`` is a string, or lists what is no host; or ``formats`` names another one.
    """

    allow_urls: AllowUrls = False
    data_root: str | os.PathLike[str] | None = None
    max_bytes: int = MAX_IMAGE_BYTES
    max_pixels: int = MAX_IMAGE_PIXELS
    formats: Sequence[str] = IMAGE_FORMATS

    def __post_init__(self) -> None:
        check_formats(self.formats)
        object.__setattr__(self, "formats", tuple(self.formats))
        allowed = check_allow_urls(self.allow_urls)
        if isinstance(allowed, list):  # which could change, and cannot be hashed
            object.__setattr__(self, "allow_urls", tuple(allowed))

    def read(self, source: ImageSource) -> bytes:
        """Return a picture's encoded bytes as they are; those of a Pillow image as PNG or TIFF.

        Args:
            source: path (``str``, ``Path``, ``file://`` URL), bytes, ``BytesIO``, base64,
                data URI, http(s) URL, or Pillow image.

        Raises:
            ImageNotFoundError: no such file.
            ImageLoadError: anything else that keeps the bytes from being read; says what to do.
            TypeError: not a picture source.
        """
        data = self._read(source)
        if not data:
            raise ImageLoadError(describe_source(source), "it is empty (0 bytes)")
        if len(data) > self.max_bytes:
            raise ImageLoadError(
                describe_source(source), f"it has {len(data)} bytes, more than the limit of {self.max_bytes}"
            )
        return data

    def read_expected(
        self,
        source: ImageSource,
        *,
        expected_digest: str | None = None,
        note_digest: Callable[[str], None] | None = None,
    ) -> bytes:
        """Return a picture's encoded bytes, which must be those that its node was made of.

        Args:
            source: see :meth:`read`.
            expected_digest: see :meth:`load`.
            note_digest: see :meth:`load`.

        Raises:
            ImageLoadError: as :meth:`read`, or the bytes changed.
        """
        data = self.read(source)
        if is_pil_image(source):
            return data
        if note_digest is not None or (expected_digest is not None and not is_url(source)):
            digest = bytes_digest(data)
            if expected_digest is not None and digest != expected_digest:
                raise ImageLoadError(
                    describe_source(source), "the file changed since its node was made; make the node again"
                )
            if note_digest is not None:
                note_digest(digest)
        return data

    def load(
        self,
        source: ImageSource,
        *,
        apply_exif_orientation: bool = False,
        expected_digest: str | None = None,
        shown_side: int | None = None,
        note_digest: Callable[[str], None] | None = None,
    ) -> Image:
        """Read and fully decode a picture.

        Args:
            source: see :meth:`read`.
            apply_exif_orientation: turn the picture as its EXIF tag says. Off by default, as in
                the reference implementation, so that vectors match it.
            expected_digest: the digest that the bytes must have. Not compared for URLs and Pillow
                images, whose digests cover something else (:meth:`digest`).
            shown_side: decode a JPEG no larger than fits a square of so many pixels, about; see
                :func:`~.decoding.decode_image`.
            note_digest: told the digest of the bytes that were read, so that they are read once; not for
                URLs and Pillow images.

        Returns:
            The first frame, decoded, in the mode of the file (see ``decoding.py``). A Pillow
            image passes through, its limits checked. What cannot become RGB (LAB, La …) is converted.

        Raises:
            ImageLoadError: missing, empty, truncated, too large, changed, not a picture, or of a
                format that is not in ``formats``.
        """
        if is_pil_image(source):
            return check_pil_image(
                source,  # type: ignore[arg-type]
                apply_exif_orientation=apply_exif_orientation,
                max_pixels=self.max_pixels,
            )
        data = self.read_expected(source, expected_digest=expected_digest, note_digest=note_digest)
        return decode_image(
            data,
            name=describe_source(source),
            apply_exif_orientation=apply_exif_orientation,
            max_pixels=self.max_pixels,
            formats=self.formats,
            shown_side=shown_side,
        )

    def digest(self, source: ImageSource) -> str:
        """Return ``"sha256:<64 hex digits>"`` over the picture's encoded bytes.

        For a Pillow image the digest covers mode, size, palette, transparency and pixels. For a
        URL it covers the URL alone: its content is not known before it is fetched.

        Raises:
            ImageLoadError: the bytes cannot be read.
        """
        if is_pil_image(source):
            return pixels_digest(check_pil_image(source, max_pixels=self.max_pixels))  # type: ignore[arg-type]
        if is_url(source):
            return bytes_digest(str(source).strip().encode("utf-8", "surrogatepass"))
        return bytes_digest(self.read(source))

    def check(self, source: ImageSource) -> CheckedImage:
        """Read a picture once, and make sure that it decodes to the end.

        Returns:
            Its bytes (a Pillow image as PNG or TIFF), their digest, size and type.

        Raises:
            ImageLoadError: as :meth:`load`.
        """
        data = self.read(source)
        info = check_image(
            data, name=describe_source(source), max_pixels=self.max_pixels, formats=self.formats
        )
        return CheckedImage(data, info, bytes_digest(data))

    def _read(self, source: ImageSource) -> bytes:
        name = describe_source(source)
        if is_pil_image(source):
            return encode_pil_image(source, max_pixels=self.max_pixels)  # type: ignore[arg-type]
        if isinstance(source, (bytes, bytearray, memoryview)):
            return bytes(source)
        if isinstance(source, BytesIO):
            return source.getvalue()
        if not isinstance(source, (str, os.PathLike)):
            raise TypeError(
                f"a picture must be a path, bytes, BytesIO, base64, data URI, URL or PIL image, got {name}"
            )
        if is_url(source):
            try:
                return fetch_url(str(source).strip(), allow_urls=self.allow_urls, max_bytes=self.max_bytes)
            except UrlError as error:
                raise ImageLoadError(name, str(error)) from error
        path = as_path(source)
        if path is not None:
            return read_file(path, self.max_bytes, name=name, data_root=self.data_root)
        return decode_data_uri(str(source)) if is_data_uri(source) else decode_base64(str(source), name)


DEFAULT_ACCESS = ImageAccess()
"""Any file that the process may read, no URLs, the limits above."""


def load_image(
    source: ImageSource,
    *,
    apply_exif_orientation: bool = False,
    allow_urls: AllowUrls = False,
    data_root: str | os.PathLike[str] | None = None,
    max_bytes: int = MAX_IMAGE_BYTES,
    max_pixels: int = MAX_IMAGE_PIXELS,
    formats: Sequence[str] = IMAGE_FORMATS,
) -> Image:
    """Read and fully decode a picture.

    Args:
        source: path, bytes, ``BytesIO``, base64, data URI, Pillow image, or http(s) URL.
        apply_exif_orientation: turn the picture as its EXIF tag says. Off by default, as in
            the reference implementation, so that vectors match it.
        allow_urls: fetch http(s) URLs; see :class:`ImageAccess`.
        data_root: the only folder that files are read from; see :class:`ImageAccess`.
        max_bytes: largest encoded size accepted.
        max_pixels: largest width x height accepted, checked before decoding.
        formats: what is decoded; see :class:`ImageAccess`.

    Returns:
        The first frame, decoded, in the mode of the file (see ``decoding.py``). A Pillow
        image passes through, its limits checked.

    Raises:
        ImageLoadError: missing, empty, truncated, too large, not a picture, or of a format
            that is not in ``formats``.
        ValueError: ``formats`` names one that is never decoded.
    """
    access = ImageAccess(allow_urls, data_root, max_bytes, max_pixels, formats)
    return access.load(source, apply_exif_orientation=apply_exif_orientation)
