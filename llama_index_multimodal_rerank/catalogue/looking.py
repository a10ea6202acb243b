"""Reading the pictures of hits, to compare them."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llama_index.core.bridge.pydantic import ConfigDict, Field, field_validator
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import BaseNode, NodeWithScore

from ..images.access import ImageAccess
from ..images.errors import ImageLoadError
from ..images.likeness import SHOWN_SIDE, Thumbnail, make_thumbnail
from ..images.url_hosts import check_allow_urls
from ..images.viewing import to_screen_depth
from ..logs import one_line
from ..schema.image_text import IMAGE_DIGEST_KEY
from ..schema.nodes import node_image

if TYPE_CHECKING:
    from ..images.sources import ImageSource

logger = logging.getLogger(__name__)

TOLERANCE = 24

_READERS = min(8, os.cpu_count() or 1)


@dataclass(frozen=True)
class Looks:
    """What pictures are compared by.

    Attributes:
        digest: of its bytes, or None if there is no picture.
        thumbnail: its cells, or None if it was not looked at or cannot be.
    """

    digest: str | None
    thumbnail: Thumbnail | None

    def is_like(self, other: Looks, tolerance: float) -> bool:
        """Tell whether both are the same picture, by their bytes or by what they show."""
        if self.digest is not None and self.digest == other.digest:
            return True
        if self.thumbnail is None or other.thumbnail is None:
            return False
        return self.thumbnail.is_like(other.thumbnail, tolerance)


class LooksAtImages(BaseNodePostprocessor):
    """What both postprocessors that compare pictures have in common."""

    model_config = ConfigDict(validate_assignment=True, extra="forbid")

    near_duplicates: bool = Field(
        default=True,
        description="Also compare what pictures show: each is read and decoded. Else their digests alone.",
    )
    tolerance: int = Field(
        default=TOLERANCE,
        ge=0,
        le=255,
        description="How much near-duplicates may differ, in red, green or blue of a cell.",
    )
    allow_urls: bool | list[str] = Field(
        default=False,
        description="Fetch pictures given as http(s) URLs: True for public addresses, or a list of hosts.",
    )
    data_root: str | None = Field(
        default=None,
        description="The only folder that picture files are read from. Default: any file may be.",
    )

    @field_validator("allow_urls", mode="before")
    @classmethod
    def _check_allow_urls(cls, allow_urls: Any) -> Any:
        return check_allow_urls(allow_urls)

    @property
    def _access(self) -> ImageAccess:
        return ImageAccess(self.allow_urls, self.data_root)

    def _look_at(self, hits: Sequence[NodeWithScore]) -> list[Looks]:
        access = self._access
        with ThreadPoolExecutor(_READERS, thread_name_prefix="looks") as pool:
            return list(pool.map(lambda hit: self._look_at_node(hit.node, access), hits))

    def _look_at_node(self, node: BaseNode, access: ImageAccess) -> Looks:
        digest = node.metadata.get(IMAGE_DIGEST_KEY)
        known = digest if isinstance(digest, str) else None
        try:
            source = node_image(node)
            if source is None or (known is not None and not self.near_duplicates):
                return Looks(known, None)
            return look_at(source, access, digest=known, near=self.near_duplicates)
        except (ValueError, TypeError) as error:  # ImageLoadError, or base64 that is none
            reason = error.reason if isinstance(error, ImageLoadError) else str(error)
            logger.warning(
                "The picture of %s cannot be compared: %s", one_line(node.node_id), one_line(reason)
            )
            return Looks(known, None)


def look_at(source: ImageSource, access: ImageAccess, *, digest: str | None = None, near: bool) -> Looks:
    """Read a picture.

    Args:
        source: the picture.
        access: whether it may be read.
        digest: of its bytes, if it is known.
        near: whether to decode it.

    Raises:
        ImageLoadError: it cannot be read.
    """
    digest = digest or access.digest(source)
    if not near:
        return Looks(digest, None)
    image = access.load(source, apply_exif_orientation=True, shown_side=SHOWN_SIDE)
    return Looks(digest, make_thumbnail(to_screen_depth(image)))
