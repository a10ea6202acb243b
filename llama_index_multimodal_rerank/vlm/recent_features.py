"""Features of the pictures that the local model saw last."""

from __future__ import annotations

import weakref
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from ..images.sources import pixels_digest

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

FEATURES_KEPT = 8
"""Pictures whose features are kept, of 15 MB each with 16 crops in bfloat16."""

Features = tuple["torch.Tensor", list[int]]
"""Vectors (tokens, hidden), and the padded height and width in pixels."""


class _Kept(NamedTuple):
    image: weakref.ref[Image]
    pixels: bytes
    num_crops: int
    digest: str | None
    features: Features


class RecentFeatures:
    """Keeps the features of some pictures, and finds them by the object or by the digest of its pixels.

    The object is enough for a sheet, and its pixels tell if it was drawn on since. They are kept, not hashed:
    most sheets are asked about once, and a digest takes longer than all else that is done to find features.
    """

    def __init__(self) -> None:
        self._kept: deque[_Kept] = deque(maxlen=FEATURES_KEPT)

    def find(self, image: Image, num_crops: int, *, by_content: bool) -> Features | None:
        """Return what is kept of a picture, or None.

        Args:
            image: the picture.
            num_crops: tiles it was cut into, at most.
            by_content: an equal picture will do.
        """
        same = [kept for kept in self._kept if kept.image() is image and kept.num_crops == num_crops]
        found = None
        if same:
            pixels = image.tobytes()
            found = next((kept for kept in same if kept.pixels == pixels), None)
        if found is None and by_content and any(kept.digest for kept in self._kept):
            key = (num_crops, pixels_digest(image))
            found = next((kept for kept in self._kept if (kept.num_crops, kept.digest) == key), None)
        if found is None:
            return None
        self._kept = deque((kept for kept in self._kept if kept is not found), FEATURES_KEPT)
        self._kept.append(found)  # the last to be forgotten
        return found.features

    def keep(
        self,
        image: Image,
        num_crops: int,
        features: Features,
        *,
        by_content: bool,
        pixels: bytes | None = None,
    ) -> None:
        """Keep features of a picture, and forget the oldest ones if there are too many.

        Args:
            image: the picture.
            num_crops: tiles it was cut into, at most.
            features: its features.
            by_content: they will do for an equal picture, too.
            pixels: those of the picture, where they were copied out of it already.
        """
        digest = pixels_digest(image) if by_content else None
        # A sheet that is gone cannot be asked about again.
        found = (kept for kept in self._kept if kept.digest or kept.image() is not None)
        self._kept = deque(found, FEATURES_KEPT)
        self._kept.append(_Kept(weakref.ref(image), pixels or image.tobytes(), num_crops, digest, features))
