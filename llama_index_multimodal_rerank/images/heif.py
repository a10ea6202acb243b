"""HEIF (HEIC), the format of iPhones' pictures: decoded by pillow-heif, where that is installed."""

from __future__ import annotations

from .errors import ImageLoadError

_HEIF_BRANDS = frozenset(
    {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"}
)
_AVIF_BRANDS = frozenset({b"avif", b"avis"})


def is_heif(data: bytes) -> bool:
    """Tell by a file's first bytes whether it is HEIF, and not its relative AVIF, which Pillow decodes."""
    if data[4:8] != b"ftyp":
        return False
    end = min(int.from_bytes(data[:4], "big"), 256)
    brands = {data[8:12], *(data[place : place + 4] for place in range(16, end, 4))}
    return bool(brands & _HEIF_BRANDS) and not brands & _AVIF_BRANDS


def register_heif(name: str) -> None:
    """Let Pillow open HEIF; done only when the first such picture comes.

    Args:
        name: stands for the picture in the error.

    Raises:
        ImageLoadError: pillow-heif is not installed.
    """
    from PIL import Image as PILImage

    if "HEIF" in PILImage.OPEN:
        return
    try:
        from pillow_heif import register_heif_opener
    except ImportError as error:
        raise ImageLoadError(
            name, "it is HEIF (HEIC), which needs pillow-heif: pip install pillow-heif"
        ) from error
    register_heif_opener()
